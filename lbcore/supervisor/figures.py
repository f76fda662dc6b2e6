"""The figures of a running instance, gathered for metrics (lbcore.admin.figures).

Counters of traffic are the scoreboard's, where seat 0 keeps what ended workers counted; those of
health checks are the monitor's; those of events are counted here. All of them go on over reloads,
deaths of workers and upgrades. A restart begins anew, and so does an upgrade to a version whose
scoreboard has another layout, as far as the scoreboard is concerned.
"""

from __future__ import annotations

import os
import platform
import resource
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lbcore
from lbcore import _figures, _learn, _rate
from lbcore._scoreboard import PoolFlag
from lbcore.admin.figures import (
    BackendCounters,
    BackendFigures,
    InstanceFigures,
    ListenerCounters,
    ListenerFigures,
    PoolFigures,
    RouteCounters,
    RouteFigures,
    WorkerFigures,
)
from lbcore.config.plan import NO_POOL, ListenerPlan, Plan, RoutePlan
from lbcore.health import PoolRows
from lbcore.supervisor.durations import Durations
from lbcore.supervisor.event_counts import EventCounts
from lbcore.supervisor.process import process_use
from lbcore.supervisor.worker import Phase, Worker

if TYPE_CHECKING:
    from lbcore.supervisor.supervisor import Supervisor

BLOCK = 256                  # rows that are read from the scoreboard at once


class LiveFigures:
    """A ``FigureSource``: see there."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._durations = Durations()
        self.events = EventCounts()
        supervisor.log.taps.append(self.events.take)
        self.counting_since = time.time()

    # -- the instance

    def instance(self) -> InstanceFigures:
        """The instance."""
        here = self._supervisor
        fleet, rollout, events = here.fleet, here.rollout, self.events
        access = fleet.access.status(fleet.seats())
        states = Counter({"starting": 0, "serving": 0, "draining": 0, "orphan": 0})
        states.update(self._state(worker) for worker in fleet.workers())
        return InstanceFigures(
            version=lbcore.__version__, python=platform.python_version(),
            plan_version=rollout.version, plan_applied_at=rollout.applied_at.timestamp(),
            started_at=_seconds(here.started), counting_since=self.counting_since,
            generation=here.generation, stopping=bool(here.stopping),
            differences=len(here.running.overlay.changes), changes=events.named["changed"],
            discovered={"ok": events.named["pool.discovered"],
                        "failed": events.named["discovery.failed"]},
            workers_wanted=here.workers_wanted, processes=states,
            events={level: events.levels[level] for level in ("debug", "info", "warning", "error")},
            reloads={"ok": events.named["reloaded"], "failed": events.named["reload.failed"]},
            reload_ok=events.reload_ok,
            upgrades={"ok": events.named["upgraded"], "failed": events.named["upgrade.failed"]},
            app_deaths=events.named["app.died"],
            log_dropped=here.log.dropped, access_lines=access["lines"],
            access_dropped=access["dropped"], rates_forgotten=_rate.forgotten(here.board),
            learnt_forgotten=_learn.forgotten(here.board),
            sizes={"listener": len(rollout.listeners.live), "route": len(rollout.routes.live),
                   "pool": len(rollout.pools.live), "backend": len(rollout.backends.live)},
        )

    def _state(self, worker: Worker) -> str:
        orphan = worker in self._supervisor.fleet.orphans or worker.place.board < 0
        return "orphan" if orphan else worker.phase.value

    # -- workers

    def workers(self) -> Iterator[WorkerFigures]:
        """Every slot, by number."""
        fleet = self._supervisor.fleet
        for slot in sorted(fleet.slots):
            if slot in fleet.slots:          # others may have had their turn since
                yield self._worker(slot)

    def _worker(self, index: int) -> WorkerFigures:
        fleet, board = self._supervisor.fleet, self._supervisor.board
        living = [w for w in fleet.workers() if w.slot == index and not w.ended.is_set()]
        ours = [w for w in living if w.place.board == fleet.board_number]
        seats = [board.seat(w.place.seat) for w in ours]
        now = {name: sum(seat[name] for seat in seats) for name in (
            "connections", "requests", "idle_upstreams", "pipes", "buffers", "spool_bytes")}
        total = fleet.counts.total(index, seats)
        uses = [process_use(w.pid) for w in living]
        descriptors = [_descriptors(w.pid) for w in living]
        open_fds = [count for count, _ in descriptors if count is not None]
        max_fds = [most for _, most in descriptors if most is not None]
        seated = fleet.slots[index].worker
        beat = None
        if seated is not None and seated in ours:
            beat = board.heartbeat_ms(seated.place.seat)
        slots = self.events.slots
        return WorkerFigures(
            slot=index, serving=seated is not None and seated.phase is Phase.SERVING,
            **now, **total,
            plan_version=min((s["plan_version"] for s in seats if s["plan_version"]), default=0),
            heartbeat_age_s=max(0.0, time.monotonic() - beat / 1000) if beat else None,
            cpu_s=round(fleet.counts.cpu(index, sum(use.cpu_s for use in uses)), 2),
            starts=slots["worker.started", index], deaths=slots["worker.died", index],
            hangs=slots["worker.hung", index],
            start_failures=slots["worker.start_failed", index],
            resident_bytes=sum(use.resident for use in uses),
            open_fds=sum(open_fds) if open_fds else None, max_fds=min(max_fds, default=None),
        )

    # -- the plan

    def listeners(self) -> Iterator[ListenerFigures]:
        """Listeners in the order of the plan."""
        plan, rows = self._supervisor.plan, self._supervisor.rollout.listeners.live
        for listener in plan.listeners:
            row = rows.get((listener.name,))
            if row is None:
                continue
            found = _figures.listeners(self._supervisor.board, [row])
            yield ListenerFigures(
                listener.name, listener.protocol, _pool_name(plan, listener.pool),
                listener.max_connections, ListenerCounters(*found.numbers(0)))

    def routes(self) -> Iterator[RouteFigures]:
        """Routes of http listeners in the order in which they are tried."""
        plan, rows = self._supervisor.plan, self._supervisor.rollout.routes.live
        for listener, route in _routes(plan):
            row = rows.get((listener.name, route.name))
            if row is None:
                continue
            found = _figures.routes(self._supervisor.board, [row])
            counted = RouteCounters(*found.numbers(0))
            yield RouteFigures(
                listener.name, route.name, route.action,
                _pool_name(plan, route.pool) if route.action == "pool" else "", counted,
                self._durations.times(("route", listener.name, route.name), counted.requests,
                                      found, 0, 0))

    def pools(self) -> Iterator[PoolFigures]:
        """Pools in the order of the plan."""
        board, failures = self._supervisor.board, self._supervisor.discovery.failures()
        for rows in self._supervisor.rollout.members:
            flags, plan = board.pool(rows.row)["flags"], rows.plan
            inflight, waiting, queued = _figures.pools(board, [rows.row]).numbers(0)
            yield PoolFigures(
                plan.name, plan.balance,
                self._states(rows),
                bool(flags & PoolFlag.POOL_PANIC), bool(flags & PoolFlag.POOL_BACKUP),
                inflight, waiting, queued, plan.max_queue,
                bool(failures[plan.name]) if plan.name in failures else None)

    def _states(self, rows: PoolRows) -> Counter[str]:
        states: Counter[str] = Counter()
        for member in rows.members:
            with suppress(KeyError):         # it has left the plan since we began
                states[self._supervisor.monitor.state(member.row)] += 1
        return states

    def backends(self) -> Iterator[BackendFigures]:
        """Backends, pool by pool."""
        here = self._supervisor
        board, monitor, durations = here.board, here.monitor, self._durations
        http = {pool.name for listener in here.plan.listeners if listener.protocol == "http"
                for pool in here.plan.pools_of(listener)}
        members = [(rows.plan, member) for rows in here.rollout.members for member in rows.members]
        for at in range(0, len(members), BLOCK):
            block = members[at : at + BLOCK]
            found = _figures.backends(board, [member.row for _, member in block])
            for index, (pool, member) in enumerate(block):
                try:
                    health = monitor.backend(member.row)
                except KeyError:             # it has left the plan since we began
                    continue
                plan, counts = member.plan, health.counts
                counted = BackendCounters(*found.numbers(index))
                key = (pool.name, plan.name, str(plan.address))
                yield BackendFigures(
                    pool=pool.name, name=plan.name, address=key[2],
                    role="backup" if plan.backup else "primary", http=pool.name in http,
                    checked=health.checked, state=health.state,
                    forced=health.forced is not None, weight=health.weight,
                    ramp=health.ramp / 256, failures=board.failures(member.row),
                    check_s=None if health.last_check_ms is None else health.last_check_ms / 1000,
                    check_at=health.last_check_at, passed=counts.checks_passed,
                    failed=counts.checks_failed, ejections=counts.ejections,
                    withheld=counts.withheld, changes=counts.changes, counted=counted,
                    connect=durations.times(("connect", *key), counted.connections, found, index,
                                            _figures.CONNECT),
                    response=durations.times(("response", *key), counted.requests, found, index,
                                             _figures.RESPONSE),
                )

    # -- upgrades

    def export(self) -> dict[str, Any]:
        """What the next version needs to count on; JSON-able."""
        return {"events": self.events.export(), "slots": self._supervisor.fleet.counts.export(),
                "durations": self._durations.export(), "counting_since": self.counting_since}

    def restore(self, state: Mapping[str, Any] | None, same_board: bool) -> None:
        """Goes on where an earlier version was. What cannot be understood starts at zero: an
        upgrade must not fail for it."""
        with suppress(AttributeError, KeyError, TypeError, ValueError):
            if state:
                self.events.restore(state["events"])
                self._supervisor.fleet.counts.restore(state["slots"])
                if same_board:
                    self.counting_since = float(state["counting_since"])
                    self._durations.restore(state["durations"])


def _routes(plan: Plan) -> Iterator[tuple[ListenerPlan, RoutePlan]]:
    """Every route once: one of the file that names several hosts is several in the plan."""
    for listener in plan.listeners:
        if listener.http:
            routes = (*listener.http.routes, listener.http.default)
            by_name = {route.name: route for route in reversed(routes) if route}
            for route in dict.fromkeys(route.name for route in routes if route):
                yield listener, by_name[route]


def _pool_name(plan: Plan, index: int) -> str:
    return "" if index == NO_POOL else plan.pools[index].name


def _descriptors(pid: int) -> tuple[int | None, int | None]:
    """How many descriptors a process has open and may have; None where we may not look."""
    count = most = None
    with suppress(OSError):
        # Linux 6.2 and later count for us.
        directory = Path(f"/proc/{pid}/fd")
        count = directory.stat().st_size or len(os.listdir(directory))   # noqa: PTH208
    with suppress(OSError, ValueError):
        most = resource.prlimit(pid, resource.RLIMIT_NOFILE)[0]
    return count, most


def _seconds(moment: datetime) -> float:
    return moment.timestamp()
