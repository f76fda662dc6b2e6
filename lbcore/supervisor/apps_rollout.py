"""Putting new generations of applications in the place of running ones: plan, workers, ends."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from lbcore.admin import ControlError
from lbcore.supervisor.apps import Apps, Change
from lbcore.supervisor.apps_spec import AppError
from lbcore.supervisor.apps_watch import Watcher
from lbcore.supervisor.image import Answers, ResolveError
from lbcore.supervisor.rollout import NOTHING_ASKED, OrderBook
from lbcore.supervisor.sockets import BindError

if TYPE_CHECKING:
    from lbcore.supervisor.supervisor import Supervisor

Json = dict[str, Any]
CANNOT_APPLY = (ResolveError, BindError, LookupError, ValueError, OSError)
STARTING = "lbcore is starting: try again when it serves"
ENDING = "lbcore is ending"
LEAVING = "an upgrade takes over just now: ask again in a moment"
REPLACED_SOON = 5.0              # seconds until a worker that refused the plan has a successor


class AppRollout:
    """The applications of an instance and what ties them to the rest of it."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self.apps = Apps(
            supervisor.instance, supervisor.log, supervisor.board, supervisor.config.parent,
            self._row_of, self._hold, self._strangers)
        self._watcher = Watcher(self._code_changed)
        self._queued: set[str] = set()   # pools with newer code, for which nothing has begun yet

    async def put(
        self, change: Change, slots: range, *, tell: bool = True, orders: OrderBook | None = None,
        answers: Answers = NOTHING_ASKED, in_force: Callable[[], None] | None = None,
    ) -> list[str]:
        """Puts the plan of a change into force, as ``Rollout.apply`` does, and what it replaces
        to rest. Raises as that does, and then nothing has changed."""
        rollout, log = self._supervisor.rollout, self._supervisor.log
        self.apps.note_rows()
        hold = 0.0
        if change.new and rollout.plan is not None:
            waiting = [rollout.board.pool(rows.row)["waiting"] for rows in rollout.members]
            if any(waiting):
                # They began with the old plan, and may choose by it for as long as they wait.
                hold = max((pool.queue_timeout_ms + pool.connect_budget_ms) / 1000
                           for pool in rollout.plan.pools)
        try:
            failures = await rollout.apply(change.plan, slots, tell=tell, orders=orders,
                                           answers=answers, in_force=in_force)
        except BaseException:
            await self.apps.abandon(change)
            raise
        for failure in failures:
            log.warning("app.old_needed", pool=",".join(change.new), reason=failure)
        self._supervisor.control.changed()
        self.apps.commit(change, max(hold, REPLACED_SOON if failures else 0.0))
        self._watcher.apply(self.apps.watched())
        return failures

    async def restart(self, pool: str) -> Json:
        """Replaces the servers of one application by new ones, beside the old until they answer.

        Raises ControlError when they do not come up: then the old ones stay.
        """
        async with self.apps.turn:
            return await self._restarted(pool)

    async def _restarted(self, pool: str) -> Json:
        supervisor, apps = self._supervisor, self.apps
        running = apps.current.get(pool)
        if running is None:
            names = ", ".join(apps.current) or "none"
            raise ControlError(404, f"pool {pool!r} runs no application",
                               f"pools with an application: {names}")
        # Not in turn with reloads: an application may take its time.
        try:
            change = await apps.prepare_restart(supervisor.plan, pool)
        except AppError as error:
            raise ControlError(409 if supervisor.closed else 422, str(error),
                               "the old one goes on") from error
        async with self.turn_of(change):
            if apps.current.get(pool) is not running:
                await apps.abandon(change)
                raise ControlError(409, f"the application of pool {pool} was replaced "
                                   "meanwhile", "look at `lbcore status`")
            change.new[pool].take_over(running.spec)     # a reload may have come between
            change.plan = apps.fill(supervisor.plan, change.new)
            try:
                failures = await self.put(change, range(len(supervisor.fleet.slots)),
                                          in_force=supervisor.running.keep)
            except CANNOT_APPLY as error:
                raise ControlError(422, str(error), "the old one goes on") from error
        return {"pool": pool, "plan_version": supervisor.rollout.version,
                "workers_failed": failures, **(apps.describe(pool) or {})}

    @asynccontextmanager
    async def turn_of(self, change: Change) -> AsyncIterator[None]:
        """Takes a turn among all changes for one whose servers answer by now.

        When there is none any more, they end. Raises ControlError.
        """
        supervisor = self._supervisor
        try:
            if supervisor.closed:        # an upgrade holds it, and waits for us to be answered
                raise ControlError(409, supervisor.closed)
            await supervisor.changing.acquire()
        except BaseException:
            await self.apps.abandon(change)
            raise
        try:
            if supervisor.closed:
                await self.apps.abandon(change)
                raise ControlError(409, supervisor.closed)
            yield
        finally:
            supervisor.changing.release()

    async def stop(self, spare_adopted: bool) -> None:
        """Ends everything, at once if lbcore is in a hurry."""
        await self._watcher.stop()
        await self.apps.stop(self._supervisor.hurry, spare_adopted)

    def _code_changed(self, pool: str, path: str) -> None:
        self._supervisor.log.info("app.code_changed", pool=pool, path=path)
        if not self.apps.supersede(pool) and pool not in self._queued:
            self._queued.add(pool)
            self._supervisor.spawn(self._replace(pool))

    async def _replace(self, pool: str) -> None:
        async with self.apps.turn:
            self._queued.discard(pool)   # from here on, a change comes after what is begun
            with suppress(ControlError):     # the log says what is wrong with it
                await self._restarted(pool)

    def _row_of(self, pool: str, backend: str) -> int | None:
        with suppress(LookupError):
            return self._supervisor.rollout.find(pool, backend)[1]
        return None

    def _hold(self, pool: str, backend: str, reason: str) -> None:
        row = self._row_of(pool, backend)
        if row is not None:
            self._supervisor.monitor.hold(row, reason)

    def _strangers(self) -> bool:
        fleet = self._supervisor.fleet
        return any(worker.place.board != fleet.board_number for worker in fleet.workers())
