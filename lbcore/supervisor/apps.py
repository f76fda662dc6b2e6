"""Python applications: which servers run, in which generation, and how one follows another.

An application is replaced by a generation: new servers on new sockets beside the old ones. They
have to answer before anything else happens. Then a plan with their addresses goes to the workers,
like with any reload; the old servers end once the last request has left them. A generation that
does not come up is ended, and everything stays as it was.

Servers and their pumps outlive the supervisor. They carry a mark (``apps_marks.py``), by which the
next supervisor finds them and goes on with them.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lbcore._scoreboard import Scoreboard
from lbcore.config.plan import Address, AppPlan, BackendPlan, Plan, PoolPlan
from lbcore.supervisor.apps_marks import Found, find_servers, forget_key
from lbcore.supervisor.apps_output import Output
from lbcore.supervisor.apps_place import PREFIX, entry_of, remove, server_path
from lbcore.supervisor.apps_probe import Asking, target_for
from lbcore.supervisor.apps_server import AppServer, State, Surroundings
from lbcore.supervisor.apps_spec import AppError, Spec, spec_of
from lbcore.supervisor.instance import Instance
from lbcore.supervisor.log import Log
from lbcore.supervisor.process import Process
from lbcore.supervisor.settings import settings_of
from lbcore.supervisor.worker import Identity

Json = dict[str, Any]
LOOK = 0.05                      # seconds between looks at requests in flight
STOP_NOW = 2.0                   # seconds for a server when lbcore is told to end at once
STOP_PATIENCE = 30.0             # seconds for one whose settings nobody knows
ANSWER_AT_ONCE = 2.0             # seconds


@dataclass(eq=False)
class Generation:
    """The servers of one pool that began together."""

    pool: str
    number: int
    spec: Spec
    servers: dict[str, AppServer] = field(default_factory=dict)      # by backend
    rows: list[int] = field(default_factory=list)    # of the scoreboard, once it is being replaced
    adopted: bool = False                # of an earlier supervisor

    def take_over(self, spec: Spec) -> None:
        """Settings of the same fingerprint: what servers that run need not know."""
        self.spec = spec
        for server in self.servers.values():
            server.spec = spec

    @property
    def error(self) -> str:
        """Why it is not ready as a whole; empty when it is."""
        return next((one.error for one in self.servers.values() if one.state is State.FAILED), "")


@dataclass
class Change:
    """New generations that answer and have yet to be put in the place of others."""

    plan: Plan                   # with the backends that applications are
    new: dict[str, Generation]
    specs: dict[str, Spec] = field(default_factory=dict)     # of all pools, if they were looked at
    failed: dict[str, str] = field(default_factory=dict)     # only when lbcore starts


class Apps:
    """All applications of this instance.

    ``row_of`` finds the scoreboard row of a backend in the plan in force, ``hold`` keeps traffic
    from one or lets it come again (empty reason), ``strangers`` tells whether workers of an
    earlier supervisor still serve, whose requests nobody can count.
    """

    def __init__(
        self, instance: Instance, log: Log, board: Scoreboard, home: Path,
        row_of: Callable[[str, str], int | None], hold: Callable[[str, str, str], None],
        strangers: Callable[[], bool],
    ) -> None:
        self.output = Output(instance, log)
        self.current: dict[str, Generation] = {}
        self.starting: set[Generation] = set()
        self.retiring: set[Generation] = set()
        self.turn = asyncio.Lock()               # of those who restart
        self.failures: dict[str, Json] = {}      # of replacements, until one succeeds
        self._instance = instance
        self._log = log
        self._board = board
        self._home = home
        self._row_of = row_of
        self._hold = hold
        self._strangers = strangers
        self._numbers: dict[str, int] = {}
        self._newer: dict[str, asyncio.Event] = {}       # of pools whose restart is coming up
        self._workers = Identity()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ends: set[asyncio.Task[None]] = set()      # of what was never in force
        self._interrupted = asyncio.Event()
        self._reason = ""                        # of that

    def interrupt(self, why: str) -> None:
        """Gives up what is being prepared, and prepares nothing until :meth:`resume`."""
        self._reason = why
        self._interrupted.set()

    def resume(self) -> None:
        """Goes on after an :meth:`interrupt`."""
        self._interrupted.clear()

    # -- generations

    async def prepare(self, plan: Plan, *, starting: bool = False) -> Change:
        """Starts what the plan asks for and does not run yet, and waits until it answers.

        Raises AppError, and then nothing has changed; with ``starting`` an application that does
        not come up is tried again and again instead, or goes on as it was found.
        """
        specs = self._specs(plan)
        new = {name: self._generation(name, spec) for name, spec in specs.items()
               if not self._goes_on(name, spec)}
        change = Change(plan, new, specs)
        failed = change.failed
        try:
            await self._begin([*new.values()])
            if starting:                         # what was found has yet to show that it answers
                await self._decided([*self.current.values()])
            for name, generation in list(new.items()):
                if not generation.error:
                    continue
                failed[name] = generation.error
                self._failed(name, generation.error)
                if not starting:
                    continue
                if name in self.current:         # of an earlier supervisor
                    await self._end([new.pop(name)], STOP_NOW)
            if failed and not starting:
                raise AppError("; ".join(
                    f"the application of pool {name} does not come up: {why}"
                    for name, why in failed.items()))
        except BaseException:
            await self.abandon(change)
            raise
        change.plan = self.fill(plan, new)
        return change

    async def prepare_restart(self, plan: Plan, pool: str) -> Change:
        """A new generation of one application with the settings it has. Raises AppError.

        One that is still coming up when there is newer code makes room for another.
        """
        try:
            while True:
                newer = self._newer[pool] = asyncio.Event()
                if change := await self._restarted(plan, pool, newer):
                    return change
        finally:
            del self._newer[pool]

    def supersede(self, pool: str) -> bool:
        """There is newer code: what is coming up for :meth:`prepare_restart` is begun again.

        False if nothing is.
        """
        if pool in self._newer:
            self._newer[pool].set()
        return pool in self._newer

    async def _restarted(self, plan: Plan, pool: str, newer: asyncio.Event) -> Change | None:
        """One attempt; None when ``newer`` was set before it was decided."""
        if pool not in self.current:
            raise AppError(f"pool {pool} runs no application any more")
        generation = self._generation(pool, self.current[pool].spec)
        change = Change(plan, {pool: generation})
        try:
            await self._begin([generation], newer)
            if generation.error and not newer.is_set():
                self._failed(pool, generation.error)
                raise AppError(f"the application of pool {pool} does not come up: "
                               f"{generation.error}")
        except BaseException:
            await self.abandon(change)
            raise
        if newer.is_set():
            self._log.info("app.superseded", "its code is newer by now", pool=pool,
                           generation=generation.number)
            await self.abandon(change)
            return None
        change.plan = self.fill(plan, change.new)
        return change

    def note_rows(self) -> None:
        """To be called before a plan is applied: which rows the current servers have."""
        for generation in self.current.values():
            rows = [self._row_of(generation.pool, name) for name in generation.servers]
            generation.rows = [row for row in rows if row is not None]

    def commit(self, change: Change, hold: float) -> None:
        """Workers have the plan of a change: what it replaces ends after its requests.

        ``hold``: seconds for which a connection of the old plan may still choose the old server.
        """
        self.starting.difference_update(change.new.values())
        for name, generation in change.new.items():
            old, self.current[name] = self.current.get(name), generation
            if old is not None:
                self._retire(old, hold)
                self.failures.pop(name, None)
                self._log.info("app.replaced", pool=name, generation=generation.number)
        wanted = {pool.name for pool in change.plan.pools if pool.app is not None}
        for name in set(self.current) - wanted:
            self._retire(self.current.pop(name), hold)
            self.failures.pop(name, None)
        for name, generation in self.current.items():
            spec = change.specs.get(name)
            if spec is not None and spec.fingerprint == generation.spec.fingerprint:
                generation.take_over(spec)
            for server in generation.servers.values():
                self._server_changed(server)

    async def abandon(self, change: Change) -> None:
        """The plan of a change cannot be applied: its servers end."""
        # Whoever is no longer waited for ends all the same: see stop().
        end = asyncio.create_task(self._end([*change.new.values()], STOP_NOW))
        self._ends.add(end)
        end.add_done_callback(self._ends.discard)
        await asyncio.shield(end)

    def fill(self, plan: Plan, new: Mapping[str, Generation] | None = None) -> Plan:
        """The plan with the servers that run, or ``new`` ones, among the backends of its pools."""
        running = self.current | dict(new or {})
        return replace(plan, pools=tuple(
            _with(pool, {name: server.path for name, server in running[pool.name].servers.items()})
            if pool.app is not None and pool.name in running else pool for pool in plan.pools))

    def _specs(self, plan: Plan) -> dict[str, Spec]:
        identity = settings_of(plan).identity
        self._workers = identity
        return {pool.name: spec_of(pool, pool.app, self._home, identity)
                for pool in plan.pools if pool.app is not None}

    def _goes_on(self, name: str, spec: Spec) -> bool:
        """Whether the running generation is what the spec asks for."""
        current = self.current.get(name)
        return current is not None and current.spec.fingerprint == spec.fingerprint

    def _generation(self, pool: str, spec: Spec) -> Generation:
        self.output.open()
        number = self._numbers[pool] = self._numbers.get(pool, 0) + 1
        generation = Generation(pool, number, spec)
        around = Surroundings(self._instance, self.output, self._log, self._workers)
        for name in spec.plan.names:
            path = server_path(self._instance.runtime_dir, pool, name, number,
                               spec.takes_descriptor)
            generation.servers[name] = AppServer(around, (pool, name, number), spec, path,
                                                 self._server_changed)
        return generation

    async def _begin(
        self, generations: Sequence[Generation], newer: asyncio.Event | None = None
    ) -> None:
        if self._interrupted.is_set():
            raise AppError(self._reason)
        self.starting.update(generations)
        for generation in generations:
            for server in generation.servers.values():
                server.keep()
        await self._decided(generations, newer)

    async def _decided(
        self, generations: Sequence[Generation], newer: asyncio.Event | None = None
    ) -> None:
        """Waits until each answers or has failed, or ``newer`` is set. Raises AppError."""
        decided = asyncio.gather(*(server.decided.wait() for generation in generations
                                   for server in generation.servers.values()))
        interrupted = asyncio.ensure_future(self._interrupted.wait())
        waits: set[asyncio.Future[Any]] = {asyncio.ensure_future(decided), interrupted}
        if newer is not None:
            waits.add(asyncio.ensure_future(newer.wait()))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if not decided.done() and self._interrupted.is_set():
                raise AppError(self._reason)
        finally:
            for wait in waits:
                wait.cancel()

    def _failed(self, pool: str, why: str) -> None:
        if pool in self.current:                 # otherwise it is the servers' own error
            self.failures[pool] = {"error": why, "at": time.time()}
        first, *lines = why.split("\n")
        self._log.error("app.failed", first, pool=pool,
                        **({"output": lines[-1].strip()} if lines else {}))

    def _server_changed(self, server: AppServer) -> None:
        pool, name, number = server.key
        current = self.current.get(pool)
        if current is None or current.number != number:
            return
        failed = server.state is State.FAILED
        if not failed and server.state is not State.READY:
            return
        why = server.error.partition("\n")[0]
        self._hold(pool, name, f"the application does not run: {why}" if failed else "")

    # -- ends

    def _retire(self, generation: Generation, hold: float) -> None:
        self.retiring.add(generation)
        self._spawn(self._out(generation, hold))

    async def _out(self, generation: Generation, hold: float) -> None:
        """Waits for the last request of an old generation and ends it."""
        # Counters in shared memory tell nobody that they change, nor do other people's workers.
        began = time.monotonic()
        patience = generation.spec.plan.stop_timeout_ms / 1000
        while self._strangers():     # noqa: ASYNC110
            await asyncio.sleep(LOOK)
        waited_from = time.monotonic()
        while time.monotonic() - waited_from < patience + hold:
            busy = any(self._board.inflight(row) for row in generation.rows)
            if not busy and time.monotonic() - began >= hold:
                break
            await asyncio.sleep(LOOK)
        left = max(STOP_NOW, patience + hold - (time.monotonic() - waited_from))
        await self._end([generation], left)
        self.retiring.discard(generation)

    async def _end(self, generations: Sequence[Generation], patience: float) -> None:
        self.starting.difference_update(generations)
        await asyncio.gather(*(server.stop(patience) for generation in generations
                               for server in generation.servers.values()))

    async def stop(self, hurry: asyncio.Event, spare_adopted: bool = False) -> None:
        """Ends all applications; their requests are over, or lbcore is in a ``hurry``.

        ``spare_adopted``: what an earlier supervisor has started goes on as if we had never been.
        """
        for task in self._tasks:
            task.cancel()
        everything = []
        for generation in self.all():
            if spare_adopted and generation.adopted:
                for server in generation.servers.values():
                    server.leave()
            else:
                everything.append(generation)
        self.current.clear()
        self.starting.clear()
        self.retiring.clear()
        ending = asyncio.gather(*(
            self._end([one], one.spec.plan.stop_timeout_ms / 1000) for one in everything))
        hurried = asyncio.ensure_future(hurry.wait())
        waits: set[asyncio.Future[Any]] = {ending, hurried}
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        if not ending.done():
            await self._end(everything, STOP_NOW)
        await asyncio.gather(ending, *self._ends, return_exceptions=True)
        self.output.close(unlink=not spare_adopted)
        if not spare_adopted:
            forget_key(self._instance.runtime_dir)

    # -- over an upgrade, and after a supervisor that is gone

    def export(self) -> list[Json]:
        """For :meth:`restore` after an exec, which must leave the sockets open."""
        return [
            {"pool": generation.pool, "generation": generation.number,
             "current": self.current.get(generation.pool) is generation,
             "rows": generation.rows,
             "servers": [
                {"backend": name, "path": str(one.path), "restarts": one.restarts,
                 "fd": one.sock.fileno() if one.sock is not None else -1,
                 "pid": one.process.pid if one.process is not None else 0,
                 "pumps": [pump.pid for pump in one.pumps]}
                for name, one in generation.servers.items()]}
            for generation in self.all() if generation not in self.starting]

    def restore(self, state: Sequence[Json], plan: Plan) -> None:
        """Goes on with the servers of :meth:`export`. Raises AppError, also for a state that puts
        servers where this version does not."""
        specs = self._specs(plan)
        for entry in state:
            spec = specs.get(entry["pool"])
            generation = Generation(entry["pool"], entry["generation"],
                                    spec or _nobodys(entry["pool"]), rows=list(entry["rows"]))
            for one in entry["servers"]:
                path = self._place(generation, one["backend"], one["path"])
                self._take(generation, one["backend"], path, one["pid"], one["fd"])
                server = generation.servers[one["backend"]]
                server.restarts = one["restarts"]
                for pid in one["pumps"]:
                    with suppress(ProcessLookupError):
                        server.pumps.add(Process(pid))
            self._adopt(generation, entry["current"] and spec is not None)
        self._end_strays()

    def _end_strays(self) -> None:
        """Ends servers that nobody knows: they were starting while an upgrade came between."""
        known = {server.key for generation in self.all()
                 for server in generation.servers.values()}
        for found in self._find():
            if found.mark.key not in known:
                pool, _, number = found.mark.key
                stray = Generation(pool, number, _nobodys(pool, STOP_NOW))   # had no request yet
                self._take_found(stray, found)
                self._adopt(stray, current=False)

    def _find(self) -> list[Found]:
        """The servers that run, whoever of this instance's supervisors has started them."""
        found, impostors = find_servers(self._instance.runtime_dir)
        if impostors:
            self._log.warning("app.mark_refused", "they say that they are applications of this "
                              "instance, and it did not start them", pids=impostors)
        return found

    async def adopt(self, plan: Plan) -> None:
        """Finds the servers of an earlier supervisor, goes on with the latest generation of each
        pool that answers, and ends the others. Raises AppError."""
        directory = self._instance.runtime_dir
        left = {path.name for path in directory.glob(f"{PREFIX}*")}
        if not left:
            return
        specs = self._specs(plan)
        pools: dict[str, dict[int, list[Found]]] = {}
        for found in self._find():
            left.discard(entry_of(directory, found.mark.path))
            generations = pools.setdefault(found.mark.pool, {})
            generations.setdefault(found.mark.generation, []).append(found)
        for pool, generations in pools.items():
            numbers = sorted(generations, reverse=True)
            spec = specs.get(pool)
            chosen = await _that_answers(spec, generations, numbers) if spec is not None else 0
            for number in numbers:
                servers = sorted(generations[number], key=lambda found: found.mark.backend)
                # Of other settings than the ones asked for now: a reason to replace it later.
                known = (replace(spec, fingerprint=servers[0].mark.fingerprint)
                         if spec is not None else _nobodys(pool))
                generation = Generation(pool, number, known, adopted=True)
                for found in servers:
                    self._take_found(generation, found)
                if number == chosen and spec is not None:
                    self._complete(generation, spec)
                self._adopt(generation, number == chosen)
                self._log.info("app.adopted", "of an earlier supervisor", pool=pool,
                               generation=number, pids=[found.pid for found in servers],
                               goes_on=number == chosen)
        for name in left:
            remove(self._instance, directory / name)

    def _place(self, generation: Generation, name: str, path: str) -> Path:
        """The path of a server that runs, if it is one that a server of this name can have."""
        for descriptor in (True, False):
            usual = server_path(self._instance.runtime_dir, generation.pool, name,
                                generation.number, descriptor)
            if str(usual) == path:
                return usual
        raise AppError(f"{path} is not where server {name} of pool {generation.pool} listens")

    def _take_found(self, generation: Generation, found: Found) -> None:
        self._take(generation, found.mark.backend, found.mark.path, found.pid, -1, found.began)

    def _take(
        self, generation: Generation, name: str, path: Path, pid: int, fd: int,
        began: int | None = None,
    ) -> None:
        """Makes a server of a process that runs and of its socket."""
        process = sock = None
        if pid:
            with suppress(ProcessLookupError):
                process = Process(pid, began=began)
        if fd >= 0:
            os.set_inheritable(fd, False)
            sock = socket.socket(fileno=fd)
        around = Surroundings(self._instance, self.output, self._log, self._workers)
        key = (generation.pool, name, generation.number)
        generation.servers[name] = AppServer(around, key, generation.spec, path,
                                             self._server_changed, process, sock)

    def _complete(self, generation: Generation, spec: Spec) -> None:
        """Adds the servers that an adopted generation has lost, to be started."""
        for name in spec.plan.names:
            if name not in generation.servers:
                path = server_path(self._instance.runtime_dir, generation.pool, name,
                                   generation.number, spec.takes_descriptor)
                self._take(generation, name, path, 0, -1)

    def _adopt(self, generation: Generation, current: bool) -> None:
        self.output.open()
        self._numbers[generation.pool] = max(generation.number,
                                             self._numbers.get(generation.pool, 0))
        if not current:
            self._retire(generation, 0.0)
            return
        self.current[generation.pool] = generation
        for server in generation.servers.values():
            server.keep()

    # -- looking

    def all(self) -> list[Generation]:
        """Every generation of which something may run."""
        return [*self.current.values(), *self.starting, *self.retiring]

    def watched(self) -> dict[str, tuple[Path, ...]]:
        """What to watch for changed code, by pool."""
        found = {}
        for pool, generation in self.current.items():
            spec = generation.spec
            if spec.plan.watch:
                found[pool] = tuple(self._home / path for path in spec.plan.watch_paths) or (
                    spec.directory,)
        return found

    def pids(self) -> list[int]:
        """The servers that run."""
        return [one.process.pid for generation in self.all() for one in generation.servers.values()
                if one.process is not None]

    def describe(self, pool: str) -> Json | None:
        """What ``status`` shows of the application of a pool; None for a pool without one."""
        generation = self.current.get(pool)
        if generation is None:
            return None
        plan = generation.spec.plan
        return {
            "application": plan.app, "server": plan.server, "generation": generation.number,
            "failed": self.failures.get(pool),
            "retiring": sum(old.pool == pool for old in self.retiring),
            "servers": [
                {"backend": name, "pid": one.process.pid if one.process is not None else None,
                 "state": one.state.value, "since": one.since, "restarts": one.restarts,
                 "error": one.error}
                for name, one in generation.servers.items()],
        }

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def without_servers(plan: Plan, directory: Path) -> Plan:
    """The plan with backends in the place of applications that do not run: for trying it out."""
    return replace(plan, pools=tuple(
        _with(pool, dict.fromkeys(pool.app.names, directory / "app.sock")) if pool.app else pool
        for pool in plan.pools))


def _with(pool: PoolPlan, paths: Mapping[str, Path]) -> PoolPlan:
    # The label is what ketama hashes: the same for every generation.
    servers = tuple(BackendPlan(name=name, address=Address(path=str(path)), label=name)
                    for name, path in paths.items())
    own = set(pool.app.names) if pool.app is not None else set()
    others = [backend for backend in pool.backends if backend.name not in own]
    return replace(pool, backends=(*servers, *others))


def _nobodys(pool: str, patience: float = STOP_PATIENCE) -> Spec:
    """For servers that nobody asks for any more: they are only to end, within so many seconds."""
    plan = AppPlan(kind="wsgi", app="", server="gunicorn", stop_timeout_ms=int(patience * 1000))
    return Spec(PoolPlan(pool, ()), plan, "", Path("/"), "", None, None, (), None, "")


async def _that_answers(
    spec: Spec, generations: Mapping[int, Sequence[Found]], numbers: Sequence[int]
) -> int:
    """The latest generation that answers at once; the first, if none does."""
    for number in numbers[:-1]:
        with suppress(TimeoutError):
            async with asyncio.timeout(ANSWER_AT_ONCE):
                for found in generations[number]:
                    await Asking(target_for(spec.pool, found.mark.path)).passed()
                return number
    return numbers[-1]
