"""What runs: the file, and over it what was changed at run time.

Every change of what runs comes through here: reload, the admin address, discovery. All of them
make the tables that a file would have, check and compile them as a file, and put the plan into
force; then the change is remembered, and kept in a small file beside the admin socket, so that it
outlives a supervisor that is killed. docs/internals/life-of-a-change.md tells the story.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from lbcore._scoreboard import CAPACITY
from lbcore.admin import ControlError
from lbcore.config import Config, ConfigError
from lbcore.config.plan import Plan
from lbcore.supervisor import absences, garbage, image, kept, resize
from lbcore.supervisor.absences import Absences
from lbcore.supervisor.apps import Change as AppChange
from lbcore.supervisor.apps_spec import AppError
from lbcore.supervisor.aside import aside
from lbcore.supervisor.changes import (
    DEFINING,
    Change,
    Found,
    Overlay,
    Table,
    name_of,
    table_of,
)
from lbcore.supervisor.demo import with_demo_backends
from lbcore.supervisor.edits import Edit
from lbcore.supervisor.fitting import Dropped, compiled, fitting
from lbcore.supervisor.fleet import LaunchError
from lbcore.supervisor.image import Answers, ResolveError
from lbcore.supervisor.resolver import Answer
from lbcore.supervisor.rows import NoRowFree
from lbcore.supervisor.settings import Read, changes_that_wait, read, settings_of
from lbcore.supervisor.sockets import BindError

if TYPE_CHECKING:
    from lbcore.supervisor.supervisor import Supervisor

Json = dict[str, Any]
# Half of the seats: during an upgrade old and new workers live side by side.
MAX_WORKERS = (CAPACITY["seats"] + 1) // 2
T = TypeVar("T")
ROOM_SOON = "nothing has changed; try again in a moment"
CANNOT_APPLY = (AppError, ResolveError, BindError, LookupError, ValueError, OSError)


class NewNames(Exception):
    """A turn is left to look these host names up, and taken again."""

    def __init__(self, hosts: Sequence[str]) -> None:
        super().__init__(", ".join(hosts))
        self.hosts = hosts


class Running:
    """The configuration in force. Those who change it take turns by ``Supervisor.changing``."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._found: Read | None = None      # the file as it was last read
        self._config: Config | None = None
        # What was made last, and of what: orders to a backend need no other plan.
        self._last: tuple[object, Plan, Config] | None = None
        self._absences = Absences()
        self._asking: set[asyncio.Future[Answers]] = set()       # of the resolver
        self.overlay = Overlay()
        self.file_version = 0                # with which the file came into force

    @property
    def found(self) -> Read:
        """The file in force."""
        if self._found is None:
            raise RuntimeError("no configuration is in force yet")
        return self._found

    @property
    def config(self) -> Config:
        """What runs, as a file would say it."""
        if self._config is None:
            raise RuntimeError("no configuration is in force yet")
        return self._config

    # -- beginning

    def begin(self, found: Read, handed_over: Json | None) -> Plan:
        """The plan to start with: the file, and what was changed before this supervisor was.

        ``handed_over`` is what :meth:`export` gave to an earlier version. Without it, what an
        earlier supervisor that was killed has left behind.
        """
        state = handed_over
        if state is None:
            state, self._supervisor.rollout.version = kept.read(self._supervisor.instance)
        else:
            self.file_version = int(state.get("file_version", 0))
        overlay = Overlay.restore(state)
        plan, config, overlay, dropped = fitting(
            found, replace(overlay, found={**overlay.found, **self.overlay.found}))
        self._tell_dropped(dropped)
        if overlay.changes:
            self._supervisor.log.info(
                "changes.restored", message=_listed(list(overlay.changes.values())),
                changes=len(overlay.changes))
        self._take(found, overlay, config)
        self._supervisor.rollout.orders = overlay.orders()
        self._supervisor.log.configure(plan.log)
        return with_demo_backends(plan, self._supervisor.instance.runtime_dir)

    def begun(self) -> None:
        """The plan of :meth:`begin` is in force."""
        self.file_version = self.file_version or self._supervisor.rollout.version
        self.keep()
        garbage.spare(len(self._supervisor.rollout.backends.live))

    def begin_with(self, pool: str, backends: Sequence[Table | str], source: str) -> None:
        """What a source has found before the start; :meth:`begin` puts it over the file."""
        found = Found(source, tuple(table_of(one) for one in backends))
        self.overlay = self.overlay.with_found(pool, found)

    # -- changing

    async def change(self, edit: Callable[[Edit], T], expect: int | None) -> T:
        """Puts an edit into force, and returns what it returned. Raises ControlError.

        Then nothing has changed.
        """
        async def made(answers: Answers) -> T:
            plan = self._supervisor.plan
            own = {pool.name: [f"demo-{number}" for number in range(1, pool.demo + 1)]
                   + list(pool.app.names if pool.app else ()) for pool in plan.pools}
            work = Edit(self.overlay, self.found.tables, own,
                        [pool.name for pool in plan.pools if pool.app])
            answer = edit(work)
            await self._put(work.done(), answers)
            return answer

        return await self._in_turn(expect, made)

    async def forget(self, pool: str | None, expect: int | None) -> int:
        """Back to the file; returns how many differences that ended. Raises ControlError."""
        async def forgotten(answers: Answers) -> int:
            if pool is not None and pool not in self.found.tables.get("pool", {}):
                raise ControlError(404, f"there is no pool {pool!r}", "`lbcore status` lists them")
            overlay = self.overlay.forget(pool)
            ended = len(self.overlay.changes) - len(overlay.changes)
            await self._put(overlay, answers)
            return ended

        return await self._in_turn(expect, forgotten)

    async def set_workers(self, wanted: Callable[[], int | None], expect: int | None) -> int:
        """Another number of workers; None is what the file says. Raises ControlError."""
        async with self._turn(expect):
            count = wanted()
            if count is not None and not 1 <= count <= MAX_WORKERS:
                raise ControlError(400, f"{count} workers are not possible",
                                   f"from 1 to {MAX_WORKERS}")
            edit = Edit(self.overlay, self.found.tables)
            edit.setting("workers", count)
            await self._put(edit.done(), {})
            here = self._supervisor
            if here.plan.workers != here.workers_wanted:     # as a reload could not have it
                await self._resize(here.plan.workers)
            return here.workers_wanted

    async def set_source(self, pool: str, backends: Sequence[Table | str], source: str) -> None:
        """What a discovery source has found for a pool.

        The same path as any other change, yet no difference from the file: ``source`` says where
        the pool's backends come from. What an operator has changed lies over it, as far as it
        applies. Raises ControlError, and then nothing has changed.
        """
        async def taken(answers: Answers) -> None:
            tables = self.found.tables
            if pool not in tables.get("pool", {}):
                raise ControlError(404, f"there is no pool {pool!r}")
            found = Found(source, tuple(table_of(one) for one in backends))
            overlay, dropped = self.overlay.with_found(pool, found).rebased(tables, [pool])
            outlived = self._absences.outlived(overlay, pool)
            dropped += [(overlay.changes[key], absences.REASON) for key in outlived]
            overlay = overlay.without(outlived)
            # What may not go with it: who is drained or forced can be in any set.
            doubtful = [key for key, change in overlay.changes.items()
                        if change.pool == pool and change.op in (*DEFINING, "weight")]
            fits = not doubtful or bool(overlay.backends(tables, pool))
            if fits:
                try:
                    await self._put(overlay, answers)
                except ControlError as error:
                    if not doubtful or not error.problems:   # it may be the machine, just now
                        raise
                    fits = False
            if not fits:
                dropped += [(overlay.changes[key], "it does not go with what the source has found")
                            for key in doubtful]
                overlay = overlay.without(doubtful)
                await self._put(overlay, answers)
            self._tell_dropped(dropped)
            self._absences.note(overlay, pool, {
                name_of(one) for one in overlay.backends(tables, pool)})

        await self._in_turn(None, taken, ours=True)

    async def reload(self, expect: int | None) -> Json:
        """Reads the file again and puts it into force, with the changes that still apply.

        Whoever asked is told why that is refused, and so is the log.
        """
        try:
            async with self._supervisor.reloading:
                self._refuse(expect)
                with self._supervisor.notifier.reload():
                    return await self._reload(expect)
        except ControlError as error:
            if error.status != 412:
                self._supervisor.log.error("reload.failed", message=error.message)
            raise

    async def _reload(self, expect: int | None) -> Json:
        here = self._supervisor
        with self._refusals():
            found = read(here.config)
            for warning in found.warnings:
                here.log.warning("config.doubtful", message=str(warning))
            # Pools that nobody has named backends for are waited for, too.
            first = await here.discovery.first(found, self.overlay)
            overlay = self._with_first(first)
            plan, *_ = await aside("changes", partial(fitting, found, overlay))
            plan = with_demo_backends(plan, here.instance.runtime_dir)
            here.rollout.look_at_host(plan, found.source)
            settings_of(plan)
            # Not in turn with other changes: a resolver or an application may take its time.
            answers = await self._asked(image.hosts(plan))
            image.choose(plan, here.rollout.resolved, answers)
            change = await here.apps.apps.prepare(plan)
        while True:
            async with here.apps.turn_of(change):
                try:
                    self._refuse(expect)
                except ControlError:
                    await here.apps.apps.abandon(change)
                    raise
                try:
                    return await self._reloaded(found, change, first, answers)
                except NewNames as new:  # what was changed meanwhile brings them
                    names = new.hosts
            try:
                answers |= await self._asked(names)
            except BaseException:
                await here.apps.apps.abandon(change)
                raise

    def interrupt(self) -> None:
        """Nobody waits for a resolver any more: lbcore ends, or an upgrade takes over."""
        for asking in self._asking:
            asking.cancel()

    # -- inside

    async def _in_turn(
        self, expect: int | None, work: Callable[[Answers], Awaitable[T]], *, ours: bool = False,
    ) -> T:
        """Does work in a turn, and once more when it had to be left to look names up.

        A resolver may take seconds, in which others change something: then the work is done on
        what they have left, and refused if that is not what was expected. Raises ControlError.
        """
        answers: dict[str, Answer] = {}
        while True:
            try:
                async with self._turn(expect, ours=ours):
                    return await work(answers)
            except NewNames as new:
                answers |= await self._asked(new.hosts)

    async def _asked(self, hosts: Sequence[str]) -> dict[str, Answer]:
        """What the resolver says, asked while nobody waits for a turn. Raises ControlError."""
        here = self._supervisor
        if here.stopping or here.leaving:
            raise ControlError(409, here.closed)
        asking = asyncio.ensure_future(image.ask(hosts))
        self._asking.add(asking)
        try:
            await asyncio.wait([asking])
        finally:
            asking.cancel()
            self._asking.discard(asking)
        if asking.cancelled():
            raise ControlError(409, here.closed)
        return dict(asking.result())

    def _names_in(self, plan: Plan, answers: Answers) -> None:
        """Raises NewNames when a plan has any that are not known."""
        if new := image.unasked(plan, self._supervisor.rollout.resolved, answers):
            raise NewNames(new)

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        """Says why a configuration cannot be put into force."""
        try:
            yield
        except ConfigError as error:
            raise self._refused(error) from error
        except NoRowFree as error:
            raise ControlError(503, str(error), ROOM_SOON) from error
        except CANNOT_APPLY as error:
            # What was broken off by an end or an upgrade is nothing to be mended.
            raise ControlError(409 if self._supervisor.closed else 422, str(error),
                               "the configuration in force stays") from error

    def _refused(self, error: ConfigError) -> ControlError:
        for problem in error.problems:
            self._supervisor.log.error("config.problem", message=str(problem))
        return ControlError(
            422, f"{self._supervisor.config} has {len(error.problems)} problem(s); the "
            f"configuration in force stays",
            "mend them and reload again; `lbcore check` shows them too",
            [problem.as_dict() for problem in error.problems])

    @contextmanager
    def _refused_change(self) -> Iterator[None]:
        try:
            yield
        except ConfigError as error:
            first = error.problems[0].message
            more = f" (and {len(error.problems) - 1} more)" if len(error.problems) > 1 else ""
            raise ControlError(422, f"this cannot run: {first}{more}", error.problems[0].hint,
                               [problem.as_dict() for problem in error.problems]) from error
        except NoRowFree as error:
            raise ControlError(503, str(error), ROOM_SOON) from error
        except CANNOT_APPLY as error:
            raise ControlError(422, str(error), "nothing has changed") from error

    def _refuse(self, expect: int | None, *, ours: bool = False) -> None:
        here = self._supervisor
        if here.closed and (here.stopping or not ours):
            raise ControlError(409, here.closed)
        version = here.rollout.version
        if expect is not None and expect != version:
            raise ControlError(412, f"plan version {version} is in force, not {expect}",
                               "somebody else has changed something: look again")

    @asynccontextmanager
    async def _turn(self, expect: int | None, *, ours: bool = False) -> AsyncIterator[None]:
        """A turn among all who change something. Raises ControlError.

        ``ours``: nobody waits for an answer, and an upgrade may wait for it.
        """
        if not ours:
            self._refuse(None)           # nor may anybody wait who would be refused then
        async with self._supervisor.changing:
            self._refuse(expect, ours=ours)
            yield

    async def _put(self, overlay: Overlay, answers: Answers) -> None:
        """Puts an overlay into force over the same file. Raises ControlError or NewNames."""
        here = self._supervisor
        if overlay == self.overlay:
            return
        with self._refused_change():
            plan, config = await self._compiled(overlay)
            plan = here.apps.apps.fill(with_demo_backends(plan, here.instance.runtime_dir))
        self._names_in(plan, answers)
        before_workers = here.workers_wanted
        if plan.workers != here.plan.workers:
            await self._resize(plan.workers)
        before = self.overlay

        def in_force() -> None:      # whoever reads the version reads what it stands for
            self.overlay, self._config = overlay, config
            self.keep()

        try:
            await self._into_force(plan, overlay, answers, in_force)
        except ControlError:
            if here.workers_wanted != before_workers:
                await self._resize(before_workers)
            raise
        here.log.configure(plan.log)         # only its level can be another: no file is opened
        here.control.changed()
        self._tell(before)

    async def _compiled(self, overlay: Overlay) -> tuple[Plan, Config]:
        """What an overlay over the file means. Raises ConfigError."""
        found, last = self.found, self._last

        def make() -> tuple[object, Plan, Config]:
            tables = overlay.applied(found.tables)
            weights = overlay.configured_weights(found.tables)
            if last is not None and last[0] == (tables, weights):
                return last
            return (tables, weights), *compiled(found, overlay)

        # A thousand backends take a while, in which checks of theirs must go on.
        self._last = await aside("changes", make)
        return self._last[1], self._last[2]

    async def _into_force(
        self, plan: Plan, overlay: Overlay, answers: Answers, in_force: Callable[[], None]
    ) -> None:
        here = self._supervisor
        orders = overlay.orders()
        if not here.rollout.needs_workers(plan, orders):
            here.rollout.order(plan, orders)
            in_force()
            return
        with self._refused_change():
            await here.apps.put(AppChange(plan, {}), range(len(here.fleet.slots)), orders=orders,
                                answers=answers, in_force=in_force)

    def _with_first(self, first: Mapping[str, Found]) -> Overlay:
        """What was changed, with what sources have said for a file that is not in force yet."""
        return replace(self.overlay, found={**self.overlay.found, **first})

    async def _reloaded(
        self, found: Read, change: AppChange, first: Mapping[str, Found], answers: Answers
    ) -> Json:
        """Puts what was read into force, with its applications. Raises ControlError or NewNames."""
        here = self._supervisor
        # Something else may have been changed, or an application replaced, meanwhile.
        overlay = self._with_first(first)
        plan, config, overlay, dropped = await aside("changes", partial(fitting, found, overlay))
        plan = with_demo_backends(plan, here.instance.runtime_dir)
        plan = here.apps.apps.fill(plan, change.new)
        self._names_in(plan, answers)
        change.plan = plan
        waiting = changes_that_wait(here.instance, plan)
        for key in waiting:
            here.log.warning("reload.needs_restart", message="stays as it was until a restart",
                             key=key)

        def in_force() -> None:
            self._take(found, overlay, config)
            self.file_version = here.rollout.version
            self.keep()

        with self._refusals():
            failures = await here.apps.put(change, range(len(here.fleet.slots)), answers=answers,
                                           orders=overlay.orders(), in_force=in_force)
        here.control.changed()
        self._tell_dropped(dropped)
        here.use_settings(plan)
        missed: list[str] = []      # what of the file is not in force, and why
        try:
            here.log.configure(plan.log)
        except OSError as error:
            here.log.error("log.open_failed", message="the log goes on where it was",
                           path=plan.log.path, error=error.strerror)
            missed.append(f"log: {plan.log.path} cannot be opened: {error.strerror}")
        if why := here.fleet.access.configure(plan.log, here.fleet.workers()):
            missed.append(f"log.access: {why}")
        await here.discovery.apply(found)
        here.log.info("reloaded", version=here.rollout.version,
                      listeners=len(plan.listeners), pools=len(plan.pools),
                      backends=len(here.rollout.backends.live))
        if plan.workers != len(here.fleet.slots):
            try:
                await self._resize(plan.workers)
            except ControlError as error:    # all else is in force
                here.log.error("resize.failed", message=error.message, wanted=plan.workers,
                               workers=here.workers_wanted)
                missed.append(f"lbcore.workers: {here.workers_wanted} go on, not {plan.workers}: "
                              f"{error.message}")
        garbage.spare(len(here.rollout.backends.live))
        return {"plan_version": here.rollout.version, "workers_failed": failures,
                "needs_restart": waiting, "not_in_force": missed,
                "dropped": [one.as_json() for one, _ in dropped]}

    async def _resize(self, count: int) -> None:
        here = self._supervisor
        now = len(here.fleet.slots)
        try:
            if count > now:
                await resize.grow(here.fleet, here.plan, count)
            elif count < now:
                await resize.shrink(here.fleet, count)
        except (LaunchError, BindError, OSError) as error:
            raise ControlError(500, f"cannot change the number of workers: {error}") from error
        here.workers_wanted = count
        here.log.info("resized", workers=count, before=now)

    def _take(self, found: Read, overlay: Overlay, config: Config) -> None:
        self._found, self.overlay, self._config, self._last = found, overlay, config, None
        self._supervisor.text = found.text

    def _tell(self, before: Overlay) -> None:
        """What has just become another, for the log."""
        log, version = self._supervisor.log, self._supervisor.rollout.version
        new = [one for key, one in self.overlay.changes.items() if before.changes.get(key) != one]
        ended = [one for key, one in before.changes.items() if key not in self.overlay.changes]
        if new:
            log.info("changed", message=_listed(new), version=version, changes=len(new))
        if ended:
            log.info("changes.ended", message=_listed(ended), version=version, changes=len(ended))
        for pool in {*before.found, *self.overlay.found}:
            one = self.overlay.found.get(pool)
            if one != before.found.get(pool):
                log.info("pool.discovered", pool=pool, version=version,
                         source=one.source if one else "file",
                         backends=len(self.overlay.base(self.found.tables, pool)))

    def _tell_dropped(self, dropped: Dropped) -> None:
        for change, reason in dropped:
            place = {"pool": change.pool, "backend": change.backend} if change.pool else {}
            self._supervisor.log.warning("change.dropped", message=f"{change}: {reason}",
                                         op=change.op, **place)

    # -- keeping

    def export(self) -> Json:
        """For the next version; JSON-able."""
        return {**self.overlay.export(), "file_version": self.file_version}

    def keep(self) -> None:
        """Leaves what was changed behind for a supervisor that comes after us.

        Called in the moment in which it is in force, before anybody can have been told of it:
        until all workers have answered, a supervisor may well be killed.
        """
        here = self._supervisor
        try:
            kept.write(here.instance, self.overlay.export(), here.rollout.version)
        except OSError as error:
            here.log.warning("changes.not_kept", error=error.strerror,
                             message="they would be lost if this supervisor were killed")

    def let_go(self, *, started: bool) -> None:
        """The instance ends: what was changed ends with it.

        Not so if it has never ``started``: then it is for the next one to go on from.
        """
        if started or not kept.read(self._supervisor.instance)[0].get("changes"):
            kept.remove(self._supervisor.instance)


def _listed(changes: Sequence[Change]) -> str:
    shown = ", ".join(str(change) for change in changes[:5])
    return shown + (f" and {len(changes) - 5} more" if len(changes) > 5 else "")
