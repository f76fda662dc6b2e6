"""The supervisor: one instance of lbcore from its start to its end.

It owns the parts and their order; what each does is in a file of its own. Changes that touch the
workers (reload, resize, upgrade) take turns: ``changing`` is held by the one that is under way.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import lbcore
from lbcore import _learn, _rate
from lbcore._scoreboard import CAPACITY, Scoreboard
from lbcore.admin import AdminServer, ControlError
from lbcore.config import ConfigError
from lbcore.config.plan import Plan
from lbcore.health import HealthEvent, HealthMonitor
from lbcore.supervisor import resize, status, takeover, upgrade
from lbcore.supervisor.apps import Change
from lbcore.supervisor.apps_rollout import ENDING, AppRollout
from lbcore.supervisor.apps_spec import AppError
from lbcore.supervisor.demo import DemoBackends, with_demo_backends
from lbcore.supervisor.figures import LiveFigures
from lbcore.supervisor.fleet import Fleet, LaunchError
from lbcore.supervisor.groups import SocketTable
from lbcore.supervisor.image import ResolveError
from lbcore.supervisor.instance import Instance, InstanceError
from lbcore.supervisor.limits import connections_within, raise_descriptor_limit
from lbcore.supervisor.log import Log
from lbcore.supervisor.meter import Meter
from lbcore.supervisor.notify import Notifier
from lbcore.supervisor.rollout import Rollout, every
from lbcore.supervisor.settings import Read, changes_that_wait, read, settings_of
from lbcore.supervisor.sockets import BindError, open_admin

Json = dict[str, Any]
# Half of the seats: during an upgrade old and new workers live side by side.
MAX_WORKERS = (CAPACITY["seats"] + 1) // 2
TASK_PATIENCE = 3.0              # seconds for what is under way to be broken off
CANNOT_APPLY = (AppError, ResolveError, BindError, LookupError, ValueError, OSError)


class StartError(Exception):
    """The instance cannot start; ``exit_code`` is 2 when the configuration is to blame."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Supervisor:
    """A running instance. Made by :meth:`create`, or by ``upgrade.restore`` after an exec."""

    def __init__(
        self, config: Path, instance: Instance, log: Log, board: Scoreboard, board_number: int,
        bell: int, table: SocketTable,
    ) -> None:
        self.config = config
        self.instance = instance
        self.log = log
        self.table = table
        self.board = board
        self.bell = bell
        self.monitor = HealthMonitor(board, self._health_changed)
        self.demos = DemoBackends(instance, log)
        self.fleet = Fleet(board, board_number, bell, table, instance, log, self._rows_in_use)
        self.rollout = Rollout(board, self.monitor, table, self.fleet, self.demos, log)
        self.meter = Meter()
        self.figures = LiveFigures(self)
        self.admin = AdminServer(self)
        self.admin_socket: socket.socket | None = None
        self.generation = 1              # counts upgrades, from 1
        self.text = ""                   # of the configuration in force
        self.started = datetime.now(UTC)
        self.workers_wanted = 0
        self.upgraded: Json = {"state": "none"}
        self.changing = asyncio.Lock()
        self._reloading = asyncio.Lock()
        self.stopping = ""               # "", "draining" or "now"
        self.serving = False             # from the end of the start, or of an exec, on
        self.notifier = Notifier()
        self._over = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self.hurry = asyncio.Event()
        self.apps = AppRollout(self)

    @classmethod
    def create(cls, config: Path, plan: Plan, log: Log) -> Supervisor:
        """An instance that has claimed its admin address. Raises InstanceError or OSError."""
        instance = Instance.claim(plan.admin)
        bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        return cls(config, instance, log, Scoreboard.create(), 0, bell, SocketTable())

    @property
    def plan(self) -> Plan:
        """The plan in force."""
        if self.rollout.plan is None:
            raise RuntimeError("no plan is in force yet")
        return self.rollout.plan

    def _rows_in_use(self) -> tuple[int, int, int, int]:
        return self.rollout.rows_in_use()

    # -- starting

    async def start(self, found: Read) -> None:
        """Brings everything up, taking over from an earlier supervisor.

        Raises StartError, or ConfigError when this machine has something against the file.
        """
        plan = with_demo_backends(found.plan, self.instance.runtime_dir)
        descriptors = raise_descriptor_limit()
        listening = sum(len(listener.binds) for listener in plan.listeners)
        room = connections_within(descriptors, listening)
        self.log.info("limits", message=f"each worker can hold {room:,} connections",
                      descriptors=descriptors)
        self.workers_wanted = plan.workers
        try:
            self.fleet.access.open(plan.log)
        except OSError as error:
            raise StartError(
                f"cannot open the access log {plan.log.access}: {error.strerror}", 2) from error
        orphans = await takeover.find_orphans(self.instance, self.fleet, self.log)
        takeover.adopt_sockets(self.table, orphans)
        try:
            self.rollout.look_at_host(plan, found.source)
            self.use_settings(plan)
            await self.apps.apps.adopt(plan)
            change = await self.apps.apps.prepare(plan, starting=True)
            plan = change.plan
            await self.apps.put(change, range(plan.workers), tell=False)
            self.text = found.text
            self.admin_socket = open_admin(plan.admin)
            if plan.pid_file:
                self.instance.write_pid_file(plan.pid_file)
        except InstanceError as error:
            raise StartError(str(error)) from error
        except CANNOT_APPLY as error:
            raise StartError(str(error), 2) from error
        self.monitor.start()
        resize.hand_over(self.fleet, plan.workers)
        await self.fleet.start(plan.workers)
        if not any(slot.worker for slot in self.fleet.slots.values()):
            raise StartError(f"no worker starts: {self.fleet.slots[0].error}")
        self.begin()
        await self.admin.start(self.admin_socket)
        self.serving = True
        self._announce(plan)
        if orphans:
            self.spawn(self.relieve())

    def begin(self) -> None:
        """Starts what goes on for as long as the instance lives."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self.bell, self._bell_rang)
        self.spawn(every(1.0, self._tick))

    def use_settings(self, plan: Plan) -> None:
        """Takes over what concerns processes. Raises LookupError for an unknown user."""
        self.fleet.settings = settings_of(plan)
        self.demos.identity = self.fleet.settings.identity
        self.admin.configure(plan.api)

    def _announce(self, plan: Plan) -> None:
        binds = [str(bind) for listener in plan.listeners for bind in listener.binds]
        self.log.info("started", message=f"lbcore {lbcore.__version__}", pid=os.getpid(),
                      workers=plan.workers, listen=",".join(binds), admin=plan.admin)
        for listener in plan.listeners:
            if any(pool.demo or pool.app for pool in plan.pools_of(listener)):
                for bind in (bind for bind in listener.binds if not bind.name):
                    with suppress(OSError):      # nobody reads our standard output
                        print(f"try:  {_curl(bind.host, bind.port, bind.path)}", flush=True)

    async def relieve(self) -> None:
        """Lets the workers of an earlier supervisor go once every slot has one of ours."""
        await self.fleet.when_complete()
        async with self.changing:
            # Their copies are the last of sockets that no listener of ours wants.
            retired = self.table.retired_by(self.plan)
            orphans = list(self.fleet.orphans)
            await self.rollout.let_go(of_orphans_too=True)
            for worker in orphans:
                self.fleet.dismiss(worker, sweep=bool(retired))
            await resize.close_surplus(self.fleet, len(self.fleet.slots))
            self.table.steer()

    # -- life

    async def run(self) -> None:
        """Lives until somebody ends it, then leaves nothing behind."""
        await self._over.wait()

    def handle_signals(self) -> dict[signal.Signals, Callable[[], None]]:
        """What every signal does."""
        return {
            signal.SIGHUP: lambda: self.spawn(self._logged(self.reload(), "reload.failed")),
            signal.SIGUSR1: self._reopen_logs,
            signal.SIGUSR2: lambda: self.spawn(self._logged(self.upgrade(), "upgrade.failed")),
            signal.SIGTERM: partial(self.end, "draining"),
            signal.SIGQUIT: partial(self.end, "draining"),
            signal.SIGINT: partial(self.end, "now"),
            signal.SIGTTIN: partial(self._step, 1),
            signal.SIGTTOU: partial(self._step, -1),
        }

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs a task that ends with the instance."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.log.error("internal", message="please report this", error=repr(error))

    async def _logged(self, work: Coroutine[Any, Any, Json], event: str) -> None:
        try:
            await work
        except ControlError as error:
            self.log.error(event, message=error.message)

    def _reopen_logs(self) -> None:
        self.log.reopen()
        self.fleet.access.reopen(self.fleet.workers())

    def _step(self, by: int) -> None:
        # Counted from what is wanted when its turn comes: signals may come faster than workers.
        self.spawn(self._logged(self._set_workers(lambda: self.workers_wanted + by),
                                "resize.failed"))

    def _tick(self) -> None:
        for work in (self.fleet.check, self.rollout.keep_house, self._measure, self._look_at_log):
            try:
                work()
            except Exception as error:      # noqa: BLE001  (hung workers must be found all the same)
                self.log.error("internal", message="please report this", error=repr(error))

    def _measure(self) -> None:
        ours = [w for w in self.fleet.workers() if w.place.board == self.fleet.board_number]
        self.meter.look((w, self.board.seat(w.place.seat)["accepted"]) for w in ours)

    def _look_at_log(self) -> None:
        self.fleet.access.look(self.fleet.seats(), asyncio.get_running_loop().time())

    def _bell_rang(self) -> None:
        try:
            os.eventfd_read(self.bell)
        except BlockingIOError:
            return
        self.monitor.ring()

    def _health_changed(self, event: HealthEvent) -> None:
        bad = event.new in ("down", "ejected", "panic", "backup panic", "none")
        name = "backend.state" if event.backend else "pool.state"
        fields = {"backend": event.backend} if event.backend else {}
        self.log.event("warning" if bad else "info", name, "",
                       {"pool": event.pool, **fields, "old": event.old, "new": event.new,
                        "reason": event.reason})

    # -- what can be asked (lbcore.admin.Control)

    async def status(self) -> Json:
        """Workers, listeners, pools and backends."""
        plan = self.plan
        return {
            "version": lbcore.__version__, "pid": os.getpid(), "generation": self.generation,
            "state": self.stopping or "running", "started": status.iso(self.started),
            "config": str(self.config), "admin": str(self.instance.admin),
            "plan": {"version": self.rollout.version,
                     "applied_at": status.iso(self.rollout.applied_at)},
            "upgrade": self.upgraded, "workers_wanted": self.workers_wanted,
            "log_lines_dropped": self.log.dropped,
            "access_log": self.fleet.access.status(self.fleet.seats()),
            "rates_forgotten": _rate.forgotten(self.board),
            "learnt_forgotten": _learn.forgotten(self.board),
            "workers": await status.workers(self.fleet, self.meter),
            "listeners": status.listeners(plan, self.rollout),
            "pools": [pool | {"app": self.apps.apps.describe(pool["name"])}
                      for pool in status.pools(self.rollout)],
        }

    async def reload(self) -> Json:
        """Reads the configuration again and puts it into force."""
        async with self._reloading:
            self._refuse_when_stopping()
            with self.notifier.reload():
                return await self._reload()

    async def _reload(self) -> Json:
        with self._refusals():
            found = read(self.config)
            for warning in found.warnings:
                self.log.warning("config.doubtful", message=str(warning))
            plan = with_demo_backends(found.plan, self.instance.runtime_dir)
            self.rollout.look_at_host(plan, found.source)
            settings_of(plan)
            # Not in turn with other changes: an application may take its time.
            change = await self.apps.apps.prepare(plan)
        async with self.apps.turn_of(change):
            return await self._put(found, change)

    async def _put(self, found: Read, change: Change) -> Json:
        """Puts what was read into force, with its applications. Raises ControlError."""
        # Another application may have been replaced meanwhile.
        old, plan = self.plan, self.apps.apps.fill(change.plan, change.new)
        change.plan = plan
        waiting = changes_that_wait(old, plan)
        for key in waiting:
            self.log.warning("reload.needs_restart", message="stays as it was until a restart",
                             key=key)
        # A count set by hand holds until the file says something new.
        wanted = plan.workers if plan.workers != old.workers else self.workers_wanted
        with self._refusals():
            failures = await self.apps.put(change, range(len(self.fleet.slots)))
        self.text = found.text
        self.use_settings(plan)
        try:
            self.log.configure(plan.log)
        except OSError as error:
            self.log.error("log.open_failed", message="the log goes on where it was",
                           path=plan.log.path, error=error.strerror)
        self.fleet.access.configure(plan.log, self.fleet.workers())
        self.log.info("reloaded", version=self.rollout.version,
                      listeners=len(plan.listeners), pools=len(plan.pools),
                      backends=len(self.rollout.backends.live))
        if wanted != len(self.fleet.slots):
            await self._resize(wanted)
        return {"plan_version": self.rollout.version, "workers_failed": failures,
                "needs_restart": waiting}

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        """Says why a configuration cannot be put into force."""
        try:
            yield
        except ConfigError as error:
            raise self._refused(error) from error
        except CANNOT_APPLY as error:
            raise ControlError(422, str(error), "the configuration in force stays") from error

    def _refused(self, error: ConfigError) -> ControlError:
        for problem in error.problems:
            self.log.error("config.problem", message=str(problem))
        return ControlError(
            422, f"{self.config} has {len(error.problems)} problem(s); the configuration in force "
            f"stays", "mend them and reload again; `lbcore check` shows them too",
            [problem.as_dict() for problem in error.problems])

    async def restart(self, pool: str) -> Json:
        """Replaces the servers of an application by new ones, without a failed request."""
        self._refuse_when_stopping()
        return await self.apps.restart(pool)

    async def set_drain(self, pool: str, backend: str, on: bool) -> Json:
        """Takes a backend out of service or puts it back."""
        try:
            self.rollout.set_drain(pool, backend, on)
        except LookupError as error:
            raise ControlError(404, str(error.args[0]), "`lbcore status` lists them") from error
        return self._shown(pool, backend)

    async def set_weight(self, pool: str, backend: str, weight: int | None) -> Json:
        """Replaces a backend's configured weight; None takes the configured one again."""
        async with self.changing:
            try:
                await self.rollout.set_weight(pool, backend, weight)
            except LookupError as error:
                raise ControlError(404, str(error.args[0]), "`lbcore status` lists them") from error
            except ValueError as error:
                raise ControlError(400, str(error)) from error
        return self._shown(pool, backend)

    async def set_workers(self, count: int) -> Json:
        """Changes the number of workers."""
        return await self._set_workers(lambda: count)

    async def _set_workers(self, wanted: Callable[[], int]) -> Json:
        async with self.changing:
            self._refuse_when_stopping()
            count = wanted()
            if not 1 <= count <= MAX_WORKERS:
                raise ControlError(400, f"{count} workers are not possible",
                                   f"from 1 to {MAX_WORKERS}")
            await self._resize(count)
        return {"workers": count}

    async def upgrade(self) -> Json:
        """Replaces supervisor and workers by what is installed now; the configuration stays."""
        self._refuse_when_stopping()
        if self.upgraded["state"] == "running":
            raise ControlError(409, "an upgrade is under way already", "`lbcore status` shows it")
        async with self.changing:
            self._refuse_when_stopping()
            self.log.info("upgrade.checking", message="trying the installed version")
            problem = await upgrade.preflight(self.config, self.text)
            if problem:
                raise ControlError(409, f"the installed version does not start: {problem}",
                                   "nothing has changed; the running version goes on")
            self._refuse_when_stopping()
            self.upgraded = {"state": "running"}
        self.spawn(upgrade.exec_new_version(self))
        return {"generation": self.generation, "next_generation": self.generation + 1}

    async def stop(self, now: bool) -> Json:
        """Ends the instance: after its connections, or at once."""
        self.end("now" if now else "draining")
        return {"state": self.stopping, "drain_timeout_ms": self.plan.drain_timeout_ms,
                "pid": os.getpid()}

    def _shown(self, pool: str, backend: str) -> Json:
        for found in status.pools(self.rollout):
            if found["name"] == pool:
                for one in found["backends"]:
                    if one["name"] == backend:
                        return {"pool": pool, **one}
        return {}

    def _refuse_when_stopping(self) -> None:
        if self.stopping:
            raise ControlError(409, ENDING)

    async def _resize(self, count: int) -> None:
        now = len(self.fleet.slots)
        try:
            if count > now:
                await resize.grow(self.fleet, self.plan, count)
            elif count < now:
                await resize.shrink(self.fleet, count)
        except (LaunchError, BindError, OSError) as error:
            raise ControlError(500, f"cannot change the number of workers: {error}") from error
        self.workers_wanted = count
        self.log.info("resized", workers=count, before=now)

    # -- the end

    def end(self, how: str) -> None:
        """Begins to end: "draining" lets connections finish, "now" does not, nor a second call."""
        if self.stopping:
            self.stopping = "now"
            self.hurry.set()
            return
        self.stopping = how
        if how == "now":
            self.hurry.set()
        self.log.info("stopping", how=how)
        self.notifier.stopping()
        self.apps.apps.interrupt(ENDING)
        self.spawn(self._end())

    async def _end(self) -> None:
        self.fleet.stand_down()
        if not self.hurry.is_set():
            await resize.give_back(self.fleet, self.hurry)
            # Our copies first: a worker's own is then the last, and what it sweeps up is all.
            self.table.close_all()
            self.fleet.dismiss_all(sweep=True)
            hurry = asyncio.ensure_future(self.hurry.wait())
            drained = asyncio.ensure_future(self.fleet.wait_for(self.fleet.workers()))
            await asyncio.wait({hurry, drained}, return_when=asyncio.FIRST_COMPLETED)
            hurry.cancel()
            drained.cancel()
        await self.fleet.stop_all()
        self._over.set()

    async def close(self) -> None:
        """Ends what is left and removes every file; safe after a failed start."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=TASK_PATIENCE)
        await self.admin.stop()
        # After a failed start they go on as if we had never been.
        left_alone = 0 if self.stopping else self.fleet.leave_orphans()
        await self.fleet.stop_all()
        await self.monitor.stop()
        await self.demos.stop()
        await self.apps.stop(spare_adopted=bool(left_alone))
        self.fleet.access.close()
        self.table.close(list(self.table), unlink=not left_alone)
        if self.admin_socket is not None:
            name = self.admin_socket.getsockname()
            self.admin_socket.close()
            if isinstance(name, str) and name and not name.startswith("\0"):
                with suppress(FileNotFoundError):
                    os.unlink(name)     # noqa: PTH108  (one system call at the very end)
        self.instance.leave()


def _curl(host: str, port: int, path: str) -> str:
    if path:
        return f"curl --unix-socket {path} http://localhost/"
    reachable = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host)
    return f"curl http://{reachable or (f'[{host}]' if ':' in host else host)}:{port}/"
