"""The health monitor: brings checks, traffic, operator and plan together.

What the states mean is in states.py, what they mean for a pool in ledger.py, how checks are made
in probe.py, how workers and people learn of it in telling.py; in here is only who tells whom, and
when.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from lbcore._scoreboard import BackendState
from lbcore.config.plan import HealthPlan
from lbcore.health import ejection, slow_start
from lbcore.health.handover import Inherited, read_export
from lbcore.health.ledger import Mode
from lbcore.health.model import BackendHealth, Board, HealthEvent, Member, Orders, PoolRows
from lbcore.health.probe import Outcome, Prober
from lbcore.health.states import Event, Shown, Standing, State, initial
from lbcore.health.target import target_of
from lbcore.health.telling import Telling
from lbcore.health.timers import Timer, Timers
from lbcore.health.watch import PoolWatch, Watch

SPREAD_S: Final = 0.001         # between the first checks of two backends, so that a thousand of
SPREAD_MOST_S: Final = 1.0      # them do not start at once; over all at most this
GONE_AFTER_S: Final = 10.0
RING_PAUSE_S: Final = 0.01      # looking at every row has a price, and bells may ring in a row

NO_ORDERS: Final = Orders()
FORCED: Final = "forced by the operator"


class HealthMonitor:
    """Watches every backend of the plan that is applied.

    ``on_event`` is called for every change of a state, after the scoreboard knows it; what it
    raises is logged. Methods are to be called from the thread of the event loop.
    """

    def __init__(self, scoreboard: Board, on_event: Callable[[HealthEvent], None]) -> None:
        self._board = scoreboard
        self._telling = Telling(scoreboard, on_event)
        self._timers = Timers()
        self._prober = Prober(self._timers)
        self._random = random.Random()
        self._pools: dict[str, PoolWatch] = {}
        self._watches: dict[int, Watch] = {}            # by row
        self._leaving: dict[tuple[bool, int], float] = {}   # (is a pool, row): when it is gone
        self._inherited: dict[tuple[str, str], Inherited] = {}
        self._orders: Mapping[tuple[str, str], Orders] = {}
        self._running = False
        self._rang_at = -math.inf
        self._ring_timer: Timer | None = None

    # -- life

    def start(self) -> None:
        """Begins checks and timers on the running event loop."""
        loop = asyncio.get_running_loop()
        self._prober.open(loop)
        self._timers.open(loop)
        self._running = True
        self._schedule_first([watch for watch in self._watches.values() if watch.checked])
        for watch in self._watches.values():
            self._resume_timers(watch)

    async def stop(self) -> None:
        """Ends every check. The scoreboard stays as it is: traffic goes on with what is known."""
        self._running = False
        for watch in self._watches.values():
            watch.stop_timers()
            watch.probe = None
        self._prober.close()
        self._timers.close()
        self._ring_timer = None

    # -- the plan

    def apply(
        self, pools: Sequence[PoolRows],
        orders: Mapping[tuple[str, str], Orders] | None = None,
    ) -> None:
        """Follows a new plan, and what an operator has ordered by pool and backend name.

        ``orders`` are all there are: who is not named has none. Without any, those stay that
        were given before.

        Backends are known by pool and name. One that stays keeps its state, unless its address
        is another one now: then it is a new server of which nothing is known, though what an
        operator has ordered still holds. Rows of all backends are valid when this returns. Rows
        of backends that are not in the plan any more stay as they are for a while, because
        workers choose by the old plan until they have the new one.
        """
        if orders is not None:
            self._orders = orders
        now, wall = time.monotonic(), time.time()
        before = {watch.key: watch for watch in self._watches.values()}
        old_rows = set(self._watches)
        old_pools = self._pools
        old_pool_rows = {pool.row for pool in old_pools.values()}
        self._pools = {}
        self._watches = {}
        first_checks: list[Watch] = []
        new: list[Watch] = []
        renewed: list[tuple[Watch, Shown, str]] = []
        for rows in pools:
            old_pool = old_pools.get(rows.plan.name)
            pool = PoolWatch(rows.row, rows.plan, len(rows.members),
                             mode=old_pool.mode if old_pool else Mode.NORMAL)
            self._pools[rows.plan.name] = pool
            for member in rows.members:
                watch = before.pop((rows.plan.name, member.plan.name), None)
                if watch is None:
                    watch = self._new_watch(pool, member, now, wall)
                    new.append(watch)
                    if watch.checked:
                        first_checks.append(watch)
                else:
                    was_shown = watch.shown
                    check_now, reason = self._renew(watch, pool, member, now)
                    if check_now:
                        first_checks.append(watch)
                    renewed.append((watch, was_shown, reason))
                self._watches[member.row] = watch
                pool.ledger.put(member.row, watch.entry())
        for watch in before.values():
            self._forget(watch)
        for watch in self._watches.values():
            self._telling.write_backend(watch)
        for watch, was_shown, reason in renewed:
            self._telling.tell(watch, was_shown, reason)
        for pool in self._pools.values():
            self._telling.write_pool(pool, "configuration applied")
        if orders is not None:
            self._obey_all()
        self._inherited.clear()
        for row in self._watches:
            self._leaving.pop((False, row), None)
        pool_rows = {pool.row for pool in self._pools.values()}
        for row in pool_rows:
            self._leaving.pop((True, row), None)
        self._leave(old_rows - set(self._watches), old_pool_rows - pool_rows)
        if self._running:
            self._schedule_first(first_checks)
            for watch in new:
                self._resume_timers(watch)

    def _new_watch(self, pool: PoolWatch, member: Member, now: float, wall: float) -> Watch:
        checked = pool.plan.health is not None
        watch = Watch(pool, member, Standing(initial(checked)), wall,
                      "not checked yet" if checked else "no checks configured", up_at=now)
        self._aim(watch)
        inherited = self._inherited.pop(watch.key, None)
        if inherited is None:
            # The row may hold what a backend before this one left there.
            self._board.set_failures(member.row, 0)
        else:
            self._inherit(watch, inherited, now, wall)
        order = self._orders.get(watch.key)
        if order is not None:
            # Before its row is written for the first time: no connection slips through.
            if order.drain and not watch.draining:
                watch.reason, watch.since = "drained by an operator", wall
            elif order.force and order.force != watch.forced:
                watch.reason, watch.since = FORCED, wall
            watch.draining, watch.override, watch.forced = order.drain, order.weight, order.force
        return watch

    def _renew(self, watch: Watch, pool: PoolWatch, member: Member,
               now: float) -> tuple[bool, str]:
        """Puts a backend that stays into the new plan. Whether to check it at once, and the
        reason in case its state has changed."""
        old_health, old_member, old_target = watch.pool.plan.health, watch.member, watch.target
        moved = old_member.address != member.address
        watch.pool, watch.member = pool, member
        health = pool.plan.health
        reason = ""
        if moved:
            self._stop_checking(watch)
            watch.stop_timers()
            watch.standing = Standing(initial(health is not None))
            watch.ejections = watch.withheld = 0
            watch.ramp = slow_start.FULL
            watch.held = False
            watch.return_at = math.inf
            watch.up_at = now
            watch.last_ok = watch.last_ms = watch.last_check = None
            watch.last_detail = ""
            reason = f"address is now {member.address}"
        if moved or old_member.row != member.row:
            self._board.set_failures(member.row, 0)
        self._aim(watch)
        check_now = moved and health is not None
        if health != old_health or watch.target != old_target:
            self._stop_checking(watch)
            check_now = health is not None
        if watch.target != old_target:      # another question: earlier answers do not count
            watch.standing.passed = watch.standing.failed = 0
        if health is None and watch.standing.take(Event.CHECKS_OFF):
            reason = "checks are turned off"
            self._came_up(watch, now)
        if watch.standing.state is State.EJECTED and pool.plan.ejection.failures == 0:
            self._end_ejection(watch)
            watch.standing.take(Event.RETURN)
            reason = "ejection is turned off"
            self._came_up(watch, now)
        failures = pool.plan.ejection.failures
        if failures and self._board.failures(member.row) >= failures:
            # Workers ring when they reach the limit, and never for one that was lowered past
            # where they are.
            self._board.set_failures(member.row, failures - 1)
        return check_now, reason

    def _forget(self, watch: Watch) -> None:
        self._stop_checking(watch)
        watch.stop_timers()

    def _leave(self, rows: set[int], pool_rows: set[int]) -> None:
        """Rows that the plan has left are marked, but not while workers may choose by them."""
        when = time.monotonic() + GONE_AFTER_S
        leaving = [(False, row) for row in rows] + [(True, row) for row in pool_rows]
        self._leaving.update(dict.fromkeys(leaving, when))
        if leaving:
            self._timers.at(when, self._gone, leaving)

    def _gone(self, leaving: list[tuple[bool, int]]) -> None:
        now = time.monotonic()
        for place in leaving:
            if self._leaving.get(place, math.inf) > now:
                continue            # back in the plan, or has left it once more since
            del self._leaving[place]
            is_pool, row = place
            if is_pool:
                self._board.set_pool(row, 0, 0)
            else:
                self._board.set_backend(row, BackendState.STATE_GONE, 0)

    # -- what people ask and order

    def backend(self, row: int) -> BackendHealth:
        """Everything known about a backend. Raises KeyError if the plan has none at this row."""
        return self._watch(row).health(time.monotonic(), time.time())

    def pool_state(self, pool: str) -> str:
        """How a pool gets by: "normal", "backup", "panic", "backup panic" or "none"."""
        watch = self._pools.get(pool)
        return (watch.mode if watch is not None else Mode.NONE).value

    def obey(self, orders: Mapping[tuple[str, str], Orders]) -> None:
        """All that an operator wants, by pool and backend name; who is not named has no orders."""
        self._orders = orders
        self._obey_all()

    def _obey_all(self) -> None:
        for row, watch in self._watches.items():
            order = self._orders.get(watch.key, NO_ORDERS)
            if watch.override != order.weight:
                self.set_weight(row, order.weight)
            if watch.forced != order.force:
                self.set_forced(row, order.force)
            if watch.draining != order.drain:
                self.set_drain(row, order.drain)

    def state(self, row: int) -> str:
        """What people see of a backend: the scoreboard has other words for who is forced down.

        Raises KeyError as :meth:`backend`.
        """
        return self._watch(row).shown.value

    def set_drain(self, row: int, on: bool) -> None:
        """Takes a backend out of service or puts it back. Raises KeyError as :meth:`backend`."""
        watch = self._watch(row)
        if watch.draining == on:
            return
        was_shown, now = watch.shown, time.monotonic()
        if on and watch.takes_traffic:
            watch.settle_ejections(now)
        watch.draining = on
        if on:
            reason = "drained by an operator"
            self._end_ramp(watch)
        else:
            reason = f"back from drain; before that: {watch.reason}" \
                if watch.shown is not Shown.UP else "back from drain"
            self._begin_service(watch, now)
        self._telling.publish(watch, was_shown, reason)

    def hold(self, row: int, reason: str) -> None:
        """Keeps traffic away because the application behind the backend does not run; with an
        empty reason it may come again, as far as checks and traffic have nothing against it.

        Raises KeyError as :meth:`backend`.
        """
        watch = self._watch(row)
        was_shown, was_held, now = watch.shown, watch.held, time.monotonic()
        if not reason and not was_held:
            return
        if reason and watch.takes_traffic and not watch.draining:
            watch.settle_ejections(now)
        watch.held = bool(reason)
        if watch.held:
            self._end_ramp(watch)
        else:
            self._board.set_failures(watch.member.row, 0)
            self._begin_service(watch, now)
        self._telling.publish(watch, was_shown, reason or "the application answers")

    def set_forced(self, row: int, force: str) -> None:
        """Keeps a backend "up" or "down" whatever checks and traffic say; "" lets them decide.

        Checks go on, so that what they say is known when they decide again. One that is forced
        down takes nothing at all: no session that began there, and nothing in panic either.
        Raises KeyError as :meth:`backend`, ValueError for another word.
        """
        if force not in ("", "up", "down"):
            raise ValueError(f"{force!r} is neither up nor down")
        watch = self._watch(row)
        if watch.forced == force:
            return
        was_shown, took, now = watch.shown, watch.takes_traffic, time.monotonic()
        if took and not watch.draining:
            watch.settle_ejections(now)
        watch.forced = force
        if watch.takes_traffic and not took:
            self._board.set_failures(row, 0)
            self._begin_service(watch, now)
        elif took and not watch.takes_traffic:
            self._end_ramp(watch)
        reason = FORCED
        if not force:
            reason = "no longer forced"
            if watch.shown is not Shown.UP:
                reason += f"; {watch.standing.state.value}" + (
                    f" by its last check: {watch.last_detail}" if watch.last_detail else "")
        # Also when up stays up: that it is by order is worth knowing.
        watch.reason = watch.reason if watch.draining else reason
        self._telling.publish(watch, was_shown, reason)

    def set_weight(self, row: int, weight: int | None) -> None:
        """Puts a weight (0..1000) in the place of the configured one; None takes it back.

        Raises KeyError as :meth:`backend`, ValueError for a weight out of range.
        """
        if weight is not None and not 0 <= weight <= 1000:
            raise ValueError(f"weight {weight} is outside 0..1000")
        watch = self._watch(row)
        watch.override = weight
        self._telling.publish(watch, watch.shown, "")

    def _watch(self, row: int) -> Watch:
        try:
            return self._watches[row]
        except KeyError:
            raise KeyError(f"no backend of the plan has scoreboard row {row}") from None

    # -- hand-over to a later supervisor

    def export(self) -> dict[str, Any]:
        """State, orders and ejections by pool and backend name; JSON-able. For :meth:`restore`."""
        now, wall = time.monotonic(), time.time()
        found: dict[str, Any] = {}
        for watch in self._watches.values():
            pool, backend = watch.key
            found.setdefault(pool, {})[backend] = watch.export(now, wall)
        return {"pools": found}

    def restore(self, exported: Mapping[str, Any]) -> None:
        """Goes on where another monitor stopped. Call it before the first :meth:`apply`.

        Entries that cannot be understood, and backends that are not in the plan, are left out: an
        upgrade must not fail for them. Backends start without history then.
        """
        self._inherited = read_export(exported)

    def _inherit(self, watch: Watch, old: Inherited, now: float, wall: float) -> None:
        watch.counts = old.counts
        watch.draining = old.draining
        watch.override = old.weight
        watch.forced = old.forced
        if watch.draining or watch.forced:
            watch.since, watch.reason = old.since, old.reason
        if old.address != str(watch.member.address):
            self._board.set_failures(watch.member.row, 0)
            return
        watch.standing = Standing(old.state, old.passed, old.failed)
        if not watch.checked:
            watch.standing.take(Event.CHECKS_OFF)
            if old.state is State.FRESH:
                watch.standing.state = State.UP
        watch.since, watch.reason = old.since, old.reason
        watch.ejections = old.ejections
        watch.up_at = now - max(0.0, wall - old.up_since)
        if watch.standing.state is State.EJECTED:
            watch.return_at = now + max(0.0, (old.ejected_until or 0.0) - wall)
        if old.ramp_since is not None and watch.takes_traffic:
            watch.ramp_at = now - max(0.0, wall - old.ramp_since)
            watch.ramp = slow_start.share_at(
                (now - watch.ramp_at) * 1000, watch.pool.plan.slow_start_ms)

    def _resume_timers(self, watch: Watch) -> None:
        if watch.standing.state is State.EJECTED and watch.return_timer is None:
            watch.return_timer = self._timers.at(watch.return_at, self._return, watch)
        if watch.ramp < slow_start.FULL and watch.ramp_timer is None:
            self._ramp_step(watch)

    # -- active checks

    def _aim(self, watch: Watch) -> None:
        """What to check the backend with; ``fault`` says so when its address is not usable."""
        watch.target, watch.fault = None, ""
        health = watch.pool.plan.health
        if health is None:
            return
        try:
            watch.target = target_of(health, watch.member.address, watch.member.plan.address)
        except ValueError as error:
            watch.fault = str(error)

    def _stop_checking(self, watch: Watch) -> None:
        watch.stop_checks()
        if watch.probe is not None:
            self._prober.drop(watch.probe)
            watch.probe = None

    def _schedule_first(self, watches: Sequence[Watch]) -> None:
        """First checks run at once, yet not all in the same moment."""
        now = time.monotonic()
        for index, watch in enumerate(watches):
            health = watch.pool.plan.health
            if health is None:
                continue
            most = min(SPREAD_MOST_S, health.interval_ms / 1000)
            watch.stop_checks()
            delay = min(SPREAD_S * len(watches), most) * index / len(watches)
            watch.next_check = self._timers.at(now + delay, self._check, watch)

    def _check(self, watch: Watch) -> None:
        watch.next_check = None
        if watch.probe is not None:     # it may wait for its backend to close
            self._prober.drop(watch.probe)
            watch.probe = None
        watch.started_at = time.monotonic()
        if watch.target is None:
            self._checked(watch, Outcome(False, watch.fault, 0.0))
        else:
            watch.probe = self._prober.begin(watch.target, partial(self._checked, watch))

    def _checked(self, watch: Watch, outcome: Outcome) -> None:
        health = watch.pool.plan.health
        if health is None or self._watches.get(watch.member.row) is not watch:
            return
        now, wall = time.monotonic(), time.time()
        watch.last_ok, watch.last_detail = outcome.ok, outcome.detail
        watch.last_ms, watch.last_check = outcome.latency_ms, wall
        if outcome.ok is not None:
            watch.counts.checks_passed += outcome.ok
            watch.counts.checks_failed += not outcome.ok
            was_shown, was = watch.shown, watch.standing.state
            if watch.standing.check(outcome.ok, health.rise, health.fall):
                self._check_decided(watch, was, was_shown, outcome, now)
        self._schedule_next(watch, health, now)

    def _schedule_next(self, watch: Watch, health: HealthPlan, now: float) -> None:
        interval = health.interval_ms
        if watch.standing.unsettled:
            interval = min(interval, health.fast_interval_ms)
        swing = 1 + self._random.uniform(-health.jitter, health.jitter)
        # From start to start: how long the check took does not slow the pace.
        when = max(watch.started_at + interval * swing / 1000, now + 0.001)
        watch.next_check = self._timers.at(when, self._check, watch)

    def _check_decided(self, watch: Watch, was: State, was_shown: Shown, outcome: Outcome,
                       now: float) -> None:
        standing = watch.standing
        times = standing.passed or standing.failed
        if was is State.FRESH:
            many = "first check"
        else:
            many = f"{times} checks in a row" if times > 1 else "check"
        if standing.state is State.DOWN:
            if was is State.EJECTED:
                self._end_ejection(watch)
            elif not watch.draining:
                watch.settle_ejections(now)
            self._end_ramp(watch)
            self._telling.publish(watch, was_shown, f"{many} failed: {outcome.detail}")
            return
        if was is State.DOWN:
            # The checks have seen it work: what traffic met before does not count any more.
            self._board.set_failures(watch.member.row, 0)
            self._came_up(watch, now)
        self._telling.publish(watch, was_shown, f"{many} passed: {outcome.detail}")

    # -- passive ejection

    def ring(self) -> None:
        """The bell rang: somewhere the failures in a row have reached ``eject_after``."""
        now = time.monotonic()
        if now - self._rang_at >= RING_PAUSE_S:
            self._look_for_failures(None)
        elif self._ring_timer is None:
            self._ring_timer = self._timers.at(
                self._rang_at + RING_PAUSE_S, self._look_for_failures, None)

    def _look_for_failures(self, _: None) -> None:
        self._ring_timer = None
        self._rang_at = time.monotonic()
        for row, watch in self._watches.items():
            limit = watch.eject_after
            if limit and self._board.failures(row) >= limit:
                self._eject(watch, limit)

    def _eject(self, watch: Watch, failures: int) -> None:
        plan = watch.pool.plan.ejection
        if not watch.pool.ledger.may_eject(plan.max_share):
            # From zero, so that workers ring again if it goes on failing.
            self._board.set_failures(watch.member.row, 0)
            watch.withheld += 1
            watch.counts.withheld += 1
            return
        now, was_shown = time.monotonic(), watch.shown
        watch.settle_ejections(now)
        watch.ejections += 1
        watch.counts.ejections += 1
        length = ejection.length_ms(watch.ejections, plan.base_ms, plan.max_ms)
        watch.standing.take(Event.EJECT)
        watch.return_at = now + length / 1000
        if self._running:
            watch.return_timer = self._timers.at(watch.return_at, self._return, watch)
        self._end_ramp(watch)
        nth = f" (ejection {watch.ejections} in a row)" if watch.ejections > 1 else ""
        self._telling.publish(
            watch, was_shown,
            f"{failures} failures in a row; out for {length / 1000:g} s{nth}")

    def _return(self, watch: Watch) -> None:
        was_shown, now = watch.shown, time.monotonic()
        self._end_ejection(watch)
        if not watch.standing.take(Event.RETURN):
            return
        # One failure from the next ejection, until the first success sets it to zero (workers
        # do): a server that is still dead costs one client's first attempt, not five.
        limit = watch.pool.plan.ejection.failures
        self._board.set_failures(watch.member.row, max(0, limit - 1))
        self._came_up(watch, now)
        self._telling.publish(watch, was_shown, "ejection is over")

    def _end_ejection(self, watch: Watch) -> None:
        if watch.return_timer is not None:
            watch.return_timer.cancel()
            watch.return_timer = None
        watch.return_at = math.inf

    # -- slow start

    def _came_up(self, watch: Watch, now: float) -> None:
        """Checks or traffic let it take traffic (again). Means nothing while it is forced."""
        if not watch.forced:
            self._begin_service(watch, now)

    def _begin_service(self, watch: Watch, now: float) -> None:
        """It takes traffic (again): its time in service begins, with slow start if configured."""
        if not watch.takes_traffic:
            return
        watch.up_at = now
        self._end_ramp(watch)
        slow_ms = watch.pool.plan.slow_start_ms
        if slow_ms and not watch.draining:
            watch.ramp_at = now
            watch.ramp = slow_start.share_at(0, slow_ms)
            if self._running:
                self._ramp_later(watch)

    def _ramp_later(self, watch: Watch) -> None:
        step = slow_start.step_ms(watch.pool.plan.slow_start_ms) / 1000
        watch.ramp_timer = self._timers.at(time.monotonic() + step, self._ramp_step, watch)

    def _ramp_step(self, watch: Watch) -> None:
        watch.ramp_timer = None
        elapsed_ms = (time.monotonic() - watch.ramp_at) * 1000
        watch.ramp = slow_start.share_at(elapsed_ms, watch.pool.plan.slow_start_ms)
        if watch.ramp < slow_start.FULL:
            self._ramp_later(watch)
        self._telling.publish(watch, watch.shown, "")

    def _end_ramp(self, watch: Watch) -> None:
        if watch.ramp_timer is not None:
            watch.ramp_timer.cancel()
            watch.ramp_timer = None
        watch.ramp = slow_start.FULL
