"""Live figures: rates and latencies of the last seconds.

Readings of the scoreboard are taken once a second for as long as somebody watches, and forgotten a
minute after the last one has gone. A rate is the difference between now and a reading of earlier;
older readings are kept farther apart, which nobody sees in a rate over a minute, and a thousand
backends take some megabytes instead of tens.

Latencies are bounds of histogram buckets: what so many in a hundred stayed below.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from lbcore import _figures
from lbcore._figures import Figures, Histogram
from lbcore._scoreboard import STATUS_NAMES
from lbcore.config.plan import Plan
from lbcore.supervisor.aside import aside
from lbcore.supervisor.rollout import Rollout
from lbcore.supervisor.rows import Key
from lbcore.supervisor.status import iso

Json = dict[str, Any]
PACE = 1.0                   # seconds between readings
PATIENCE = 60.0              # seconds for which readings go on without anybody asking
FIRST = 0.5                  # seconds that the first question waits for something to tell
FRESH = 0.2                  # a reading so young need not be taken again
KEPT = ((12.0, 1), (32.0, 5), (62.0, 10))    # up to this age, every so manieth reading stays
LONGEST = 60
MANY = 2000                  # backends whose comparison takes too long for one turn of the loop
CLASSES = tuple(name for name in STATUS_NAMES if name != "none")


@dataclass(frozen=True)
class Place:
    """Which rows there are to read; the same for all readings of one plan."""

    listeners: Mapping[Key, int]             # key -> index in the figures
    routes: Mapping[Key, int]
    pools: Mapping[Key, int]
    backends: Mapping[Key, int]
    rows: tuple[list[int], list[int], list[int], list[int]]
    http: frozenset[str]                     # listeners
    http_pools: frozenset[str]
    only: list[int]                          # for each backend, which histogram
    members: Mapping[str, list[tuple[str, Key]]]     # pool -> (name, key) of its backends


@dataclass(frozen=True)
class Reading:
    """The counters of everything at one moment."""

    at: float                # monotonic seconds
    place: Place
    listeners: Figures
    routes: Figures
    pools: Figures
    backends: Figures


class Sampler:
    """Reads while somebody watches."""

    def __init__(self, rollout: Rollout) -> None:
        self._rollout = rollout
        self._readings: list[tuple[int, Reading]] = []       # numbered, the oldest first
        self._number = 0
        self._place: Place | None = None
        self._of: object = None              # the rows that the place was made of,
        self._plan: Plan | None = None       # and the plan
        self._task: asyncio.Task[None] | None = None
        self._asked_at = 0.0
        self._watchers = 0
        self._newest: Reading | None = None
        self._answers: dict[int, Json] = {}      # from the newest reading, by window

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Somebody wants figures for as long as this lasts."""
        self._watchers += 1
        try:
            self._begin()
            yield
        finally:
            self._watchers -= 1
            self._asked_at = time.monotonic()

    async def live(self, window: int) -> Json:
        """What ``lbcore.admin.contract.Control.live`` says."""
        window = max(1, min(window, LONGEST))
        self._asked_at = time.monotonic()
        self._begin()
        if time.monotonic() - self._readings[0][1].at < FIRST:
            await asyncio.sleep(FIRST)
            self._begin()                    # stopped meanwhile, perhaps
        newest = self._newest
        if newest is None or time.monotonic() - newest.at > FRESH:
            newest = self._read()
            self._answers.clear()
        if window in self._answers:
            return self._answers[window]
        older = min((one for _, one in self._readings),
                    key=lambda one: abs(newest.at - window - one.at))
        work = partial(figures_between, newest, older if older.at < newest.at else None)
        answer = await aside("live", work) if len(newest.backends) > MANY else work()
        if newest is self._newest:
            self._answers[window] = answer
        return answer

    def stop(self) -> None:
        """Forgets everything; a question begins anew."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
        self._forget()

    # -- reading

    def _forget(self) -> None:
        self._readings.clear()
        self._answers.clear()
        self._newest = None

    def _begin(self) -> None:
        if self._task is None or self._task.done():
            self._answers.clear()
            self._readings = [(0, self._read())]
            self._task = asyncio.create_task(self._go_on())

    async def _go_on(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while self._watchers or time.monotonic() - self._asked_at < PATIENCE:
            due = max(due + PACE, loop.time())
            await asyncio.sleep(due - loop.time())
            self._number += 1
            self._readings.append((self._number, self._read()))
            self._answers.clear()
            self._thin_out()
        self._forget()
        self._task = None

    def _thin_out(self) -> None:
        now = time.monotonic()
        self._readings = [
            (number, one) for number, one in self._readings
            if any(now - one.at <= age and number % step == 0 for age, step in KEPT)
        ] or self._readings[-1:]

    def _read(self) -> Reading:
        rollout = self._rollout
        rows = (rollout.listeners.live, rollout.routes.live, rollout.pools.live,
                rollout.backends.live)
        if self._place is None or self._of is not rows[3] or rollout.plan is not self._plan:
            self._place = _place(rollout)
            self._of, self._plan = rows[3], rollout.plan
        place, board = self._place, rollout.board
        self._newest = Reading(
            time.monotonic(), place,
            _figures.listeners(board, place.rows[0]), _figures.routes(board, place.rows[1]),
            _figures.pools(board, place.rows[2]),
            _figures.backends(board, place.rows[3], place.only))
        return self._newest


def _place(rollout: Rollout) -> Place:
    plan = rollout.plan
    listeners = plan.listeners if plan is not None else ()
    http = frozenset(one.name for one in listeners if one.http)
    http_pools = frozenset(pool.name for one in listeners if one.http and plan
                           for pool in plan.pools_of(one))
    tables = [table.live for table in (rollout.listeners, rollout.routes, rollout.pools,
                                       rollout.backends)]
    indexes = [{key: index for index, key in enumerate(table)} for table in tables]
    rows = [list(table.values()) for table in tables]
    members: dict[str, list[tuple[str, Key]]] = {}
    for key in tables[3]:
        members.setdefault(key[0], []).append((key[1], key))
    only = [_figures.RESPONSE if key[0] in http_pools else _figures.CONNECT for key in tables[3]]
    return Place(indexes[0], indexes[1], indexes[2], indexes[3],
                 (rows[0], rows[1], rows[2], rows[3]), http, http_pools, only, members)


# -- from two readings to rates

_LISTENER = {name: index for index, name in enumerate(_figures.LISTENER_FIELDS)}
_ROUTE = {name: index for index, name in enumerate(_figures.ROUTE_FIELDS)}
_POOL = {name: index for index, name in enumerate(_figures.POOL_FIELDS)}
_BACKEND = {name: index for index, name in enumerate(_figures.BACKEND_FIELDS)}
# With tcp: connections that ended because something went wrong on our side or the backend's.
_TCP_ERRORS = [_LISTENER[f"ended_{name}"] for name in (
    "server_reset", "connect_failed", "no_backend", "queue_timeout", "queue_full", "internal")]
# With http: what no status tells, because the answer's head had gone out already.
_CUT = _LISTENER["http_ended_answer_cut"]
_ATTEMPTS = [_BACKEND[name] for name in ("refused", "timeouts", "early_resets")]


class _Since:
    """How much rows of one kind have grown between two readings."""

    def __init__(self, new: Figures, new_index: Mapping[Key, int], old: Figures | None,
                 old_index: Mapping[Key, int]) -> None:
        self.new, self.new_index, self.old, self.old_index = new, new_index, old, old_index

    def numbers(self, key: Key) -> Sequence[int]:
        """By field. What was not there before has all it has from since then."""
        index = self.new_index[key]
        at = self.old_index.get(key)
        if self.old is None or at is None:
            return self.new.numbers(index)
        return self.new.since(index, self.old, at)

    def durations(self, key: Key, into: Histogram) -> None:
        """Adds what was counted in between."""
        index = self.new_index[key]
        at = self.old_index.get(key)
        if self.old is None or at is None:
            into.add(self.new, index, 0)
        else:
            into.add_since(self.new, index, 0, self.old, at)


def figures_between(new: Reading, old: Reading | None) -> Json:
    """The live figures between two readings; null everywhere without an older one."""
    window = new.at - old.at if old is not None else 0.0

    def per_s(count: float) -> float | None:
        return round(count / window, 3) if window else None

    parts = [_Since(getattr(new, kind), getattr(new.place, kind),
                    getattr(old, kind) if old is not None else None,
                    getattr(old.place, kind) if old is not None else {})
             for kind in ("listeners", "routes", "pools", "backends")]
    listeners, routes, total = _listeners(new, parts[0], parts[1], per_s)
    pools, backends = _pools(new, parts[2], parts[3], per_s)
    if old is None:
        for one in [total, *listeners.values(), *pools.values(),
                    *(route for found in routes.values() for route in found.values()),
                    *(one for found in backends.values() for one in found.values())]:
            one.update({key: None for key in one if key.endswith("_ms") or key == "status"})
    return {"window_s": round(window, 3), "time": iso(time.time()), "total": total,
            "listeners": listeners, "routes": routes, "pools": pools, "backends": backends}


def _listeners(
    new: Reading, listeners: _Since, routes: _Since, per_s: Callable[[float], float | None],
) -> tuple[dict[str, Json], dict[str, dict[str, Json]], Json]:
    """Listeners, their routes, and all listeners together."""
    shown: dict[str, Json] = {}
    shown_routes: dict[str, dict[str, Json]] = {}
    took: dict[str, Histogram] = {}
    classes: dict[str, list[int]] = {}
    for key in new.place.routes:
        listener, name = key
        n, histogram = routes.numbers(key), Histogram()
        routes.durations(key, histogram)
        status = [n[_ROUTE[f"status_{one}"]] for one in CLASSES]
        shown_routes.setdefault(listener, {})[name] = {
            "requests_per_s": per_s(n[_ROUTE["requests"]]), "errors_per_s": per_s(status[-1]),
            "bytes_up_per_s": per_s(n[_ROUTE["bytes_up"]]),
            "bytes_down_per_s": per_s(n[_ROUTE["bytes_down"]]),
            **_latency(histogram, 50, 90, 99), "status": _classes(status, per_s)}
        took.setdefault(listener, Histogram()).merge(histogram)
        classes[listener] = [a + b for a, b in
                             zip(classes.get(listener, [0] * 5), status, strict=True)]
    all_took, all_classes = Histogram(), [0] * len(CLASSES)
    sums = dict.fromkeys(("requests", "accepted", "connections", "up", "down", "errors"), 0)
    for key in new.place.listeners:
        name = key[0]
        n = listeners.numbers(key)
        http = name in new.place.http
        status = classes.get(name, [0] * len(CLASSES))
        histogram = took.get(name) or Histogram()
        errors = status[-1] + n[_CUT] if http else sum(n[at] for at in _TCP_ERRORS)
        connections = new.listeners.numbers(new.place.listeners[key])[0]
        shown[name] = {
            "requests_per_s": per_s(n[_LISTENER["requests"]]) if http else None,
            "connections_per_s": per_s(n[_LISTENER["accepted"]]), "connections": connections,
            "bytes_up_per_s": per_s(n[_LISTENER["bytes_up"]]),
            "bytes_down_per_s": per_s(n[_LISTENER["bytes_down"]]),
            "errors_per_s": per_s(errors), **_latency(histogram, 50, 90, 99),
            "status": _classes(status, per_s) if http else None}
        for field, value in (("requests", n[_LISTENER["requests"]] if http else 0),
                             ("accepted", n[_LISTENER["accepted"]]),
                             ("connections", connections), ("up", n[_LISTENER["bytes_up"]]),
                             ("down", n[_LISTENER["bytes_down"]]), ("errors", errors)):
            sums[field] += value
        all_took.merge(histogram)
        all_classes = [a + b for a, b in zip(all_classes, status, strict=True)]
    total = {
        "requests_per_s": per_s(sums["requests"]), "connections_per_s": per_s(sums["accepted"]),
        "connections": sums["connections"], "bytes_up_per_s": per_s(sums["up"]),
        "bytes_down_per_s": per_s(sums["down"]), "errors_per_s": per_s(sums["errors"]),
        **_latency(all_took, 50, 90, 99), "status": _classes(all_classes, per_s)}
    if not new.place.http:
        total["requests_per_s"] = total["status"] = None
    return shown, shown_routes, total


def _pools(
    new: Reading, pools: _Since, backends: _Since, per_s: Callable[[float], float | None],
) -> tuple[dict[str, Json], dict[str, dict[str, Json]]]:
    """Pools and their backends."""
    shown: dict[str, Json] = {}
    shown_backends: dict[str, dict[str, Json]] = {}
    for pool_key in new.place.pools:
        pool = pool_key[0]
        http = pool in new.place.http_pools
        took, all_errors = Histogram(), 0
        requests = connections = retries = 0
        found = shown_backends[pool] = {}
        for name, key in new.place.members.get(pool, ()):
            n, histogram = backends.numbers(key), Histogram()
            backends.durations(key, histogram)
            took.merge(histogram)
            errors = sum(n[at] for at in _ATTEMPTS) + (n[_BACKEND["status_5xx"]] if http else 0)
            all_errors += errors
            requests += n[_BACKEND["requests"]]
            connections += n[_BACKEND["connections"]]
            retries += n[_BACKEND["retries"]] + n[_BACKEND["redispatched"]]
            found[name] = {
                "requests_per_s": per_s(n[_BACKEND["requests"]]) if http else None,
                "connections_per_s": per_s(n[_BACKEND["connections"]]),
                "errors_per_s": per_s(errors),
                "bytes_up_per_s": per_s(n[_BACKEND["bytes_up"]]),
                "bytes_down_per_s": per_s(n[_BACKEND["bytes_down"]]),
                "inflight": new.backends.numbers(new.place.backends[key])[0],
                **_latency(histogram, 50, 99)}
        now = new.pools.numbers(new.place.pools[pool_key])
        shown[pool] = {
            "requests_per_s": per_s(requests) if http else None,
            "connections_per_s": per_s(connections), "errors_per_s": per_s(all_errors),
            "retries_per_s": per_s(retries),
            "queued_per_s": per_s(pools.numbers(pool_key)[_POOL["queued"]]),
            "inflight": now[_POOL["inflight"]], "waiting": now[_POOL["waiting"]],
            **_latency(took, 50, 90, 99)}
    return shown, shown_backends


def _classes(counts: Sequence[int], per_s: Callable[[float], float | None]) -> Json:
    return {name: per_s(count) for name, count in zip(CLASSES, counts, strict=True)}


def _latency(histogram: Histogram, *percents: int) -> Json:
    found: Json = {}
    for percent in percents:
        bound = histogram.quantile(percent)
        found[f"p{percent}_ms"] = None if bound is None else bound / 1000
    return found
