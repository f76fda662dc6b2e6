"""What ``lbcore status`` shows: one picture of workers, listeners, pools and backends."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from lbcore import _figures
from lbcore._scoreboard import STATUS_NAMES, Scoreboard, histogram_bound
from lbcore.config.plan import NO_POOL, ListenerPlan, Plan, RoutePlan
from lbcore.health import BackendHealth, Member, PoolRows
from lbcore.supervisor.changes import Overlay
from lbcore.supervisor.fleet import Fleet
from lbcore.supervisor.meter import Meter
from lbcore.supervisor.process import process_use
from lbcore.supervisor.rollout import Rollout
from lbcore.supervisor.worker import Worker

Json = dict[str, Any]
AT_ONCE = 100                # backends, whose counters take about a millisecond together
SLIM_WORKER = ("slot", "pid", "state", "cpu_percent", "connections", "accepts_per_s", "requests")


async def workers(fleet: Fleet, meter: Meter, version: int) -> list[Json]:
    """Every worker process; looking at memory maps takes a while, so others get their turn.

    ``version`` is that of what is in force: workers that have its plan have it, though orders that
    need no plan may have been given since.
    """
    found = []
    for worker in sorted(fleet.workers(), key=lambda w: (w.slot, w.started)):
        if worker.ended.is_set():
            continue
        uss, rss = meter.memory(worker.pid)
        shown = _worker(fleet, meter, worker)
        if fleet.current is not None and shown.get("plan_version") == fleet.current.version:
            shown["plan_version"] = version
        found.append(shown | {"uss_bytes": uss, "rss_bytes": rss})
        await asyncio.sleep(0)
    empty = [slot for slot in fleet.slots.values() if slot.worker is None]
    found += [{"slot": slot.index, "pid": None, "state": "down", "error": slot.error}
              for slot in empty]
    return found


def _worker(fleet: Fleet, meter: Meter, worker: Worker) -> Json:
    rates = meter.rates(worker.pid)
    orphan = worker in fleet.orphans or worker.place.board < 0
    shown: Json = {
        "slot": worker.slot, "pid": worker.pid, "seat": worker.place.seat,
        "state": f"{worker.phase.value} (orphan)" if orphan else worker.phase.value,
        "uptime_s": round(time.monotonic() - worker.started, 1),
        "cpu_percent": round(rates.cpu_percent, 1),
        "accepts_per_s": round(rates.accepts_per_second, 1),
    }
    if worker.place.board != fleet.board_number:     # its scoreboard cannot be read
        return shown | {"cpu": None, "connections": None, "accepted": None}
    seat = fleet.board.seat(worker.place.seat)
    return shown | {
        "cpu": fleet.settings.cpu_of(worker.slot),
        "connections": seat["connections"], "accepted": seat["accepted"],
        "plan_version": seat["plan_version"], "pipes": seat["pipes"], "buffers": seat["buffers"],
        "requests": seat["requests"], "idle_upstreams": seat["idle_upstreams"],
        "spool_bytes": seat["spool_bytes"], "sources_untracked": seat["sources_untracked"],
        "accept_pauses": seat["accept_pauses"], "accept_errors": seat["accept_errors"],
        "heartbeat_age_ms": max(0, round(time.monotonic() * 1000) - seat["heartbeat_ms"]),
    }


def listeners(plan: Plan, rollout: Rollout) -> list[Json]:
    """Every listener with its counters; ``ended`` says why connections ended.

    Those with protocol http also have ``http_ended``, why exchanges ended, and their ``routes``;
    ``status`` and ``retries`` are those of all routes together.
    """
    found = []
    for listener in plan.listeners:
        totals = rollout.board.listener_totals(rollout.listeners.live[(listener.name,)])
        shown: Json = {
            "name": listener.name, "protocol": listener.protocol,
            "bind": [str(bind) for bind in listener.binds],
            "pool": plan.pools[listener.pool].name if listener.pool != NO_POOL else None, **totals,
        }
        if listener.http:
            routes = _routes(plan, listener, rollout)
            shown["status"] = {name: sum(route["status"][name] for route in routes)
                               for name in STATUS_NAMES}
            shown["retries"] = sum(route["retries"] for route in routes)
            shown["routes"] = routes
        else:
            del shown["requests"], shown["http_ended"]
        found.append(shown)
    return found


def _routes(plan: Plan, listener: ListenerPlan, rollout: Rollout) -> list[Json]:
    """The routes of a listener in the order in which they are tried.

    A route of the file that names several hosts is one.
    """
    found: dict[str, Json] = {}
    http = listener.http
    for route in (*http.routes, http.default) if http else ():
        if route is None or route.name in found:
            continue
        row = rollout.routes.live.get((listener.name, route.name))
        if row is None:
            continue
        totals = rollout.board.route_totals(row)
        found[route.name] = {
            "name": route.name, "action": route.action,
            "pool": plan.pools[route.pool].name if route.action == "pool" else None,
            **{name: totals[name]
               for name in ("requests", "status", "retries", "bytes_up", "bytes_down")},
            "total_ms": _quantiles(totals["total_us"]),
        }
    return list(found.values())


def _quantiles(histogram: list[int]) -> Json:
    """In ms, as upper bounds: what half, nine of ten and 99 of 100 stayed below; None: nobody was
    counted."""
    total, seen = sum(histogram), 0
    found: Json = {"p50": None, "p90": None, "p99": None}
    wanted = [("p50", 50), ("p90", 90), ("p99", 99)]
    for bucket, count in enumerate(histogram):
        seen += count
        while total and wanted and seen * 100 >= total * wanted[0][1]:
            found[wanted.pop(0)[0]] = histogram_bound(bucket) / 1000
    return found


async def pools(rollout: Rollout, overlay: Overlay, only: str | None = None) -> list[Json]:
    """Every pool, or only one, with its backends; with very many, others get their turn."""
    found = []
    for rows in list(rollout.members):
        if only is not None and rows.plan.name != only:
            continue
        live, totals = rollout.board.pool(rows.row), rollout.board.pool_totals(rows.row)
        backends: list[Json] = []
        for member in rows.members:
            if len(backends) % AT_ONCE == AT_ONCE - 1:
                await asyncio.sleep(0)
            if (one := backend(rollout, rows, member, overlay)) is not None:
                backends.append(one)
        found.append({
            "name": rows.plan.name, "balance": _balance(rows),
            "state": rollout.monitor.pool_state(rows.plan.name),
            "source": overlay.source(rows.plan.name),
            "inflight": live["inflight"], "waiting": live["waiting"], "queued": totals["queued"],
            "backends": backends,
        })
    return found


def backend(
    rollout: Rollout, rows: PoolRows, member: Member, overlay: Overlay
) -> Json | None:
    """One backend with all that it has counted; None if it has left the plan meanwhile."""
    try:
        health = rollout.monitor.backend(member.row)
    except KeyError:
        return None
    shown = _backend(rollout.board, member, health)
    return shown | {"runtime": overlay.is_runtime(rows.plan.name, member.plan.name)}


def _check(health: BackendHealth) -> Json | None:
    if not health.checked:
        return None
    return {"ok": health.last_check_ok, "detail": health.last_check_detail,
            "ms": health.last_check_ms, "at": iso(health.last_check_at)}


def _backend(board: Scoreboard, member: Member, health: BackendHealth) -> Json:
    totals = board.backend_totals(member.row)
    return {
        "name": member.plan.name, "address": str(member.plan.address),
        "resolved": str(member.address), "backup": member.plan.backup,
        "state": health.state, "since": iso(health.since), "reason": health.reason,
        "draining": health.draining, "forced": health.forced, "underlying": health.underlying,
        "weight": health.weight, "weight_configured": member.plan.weight,
        "weight_overridden": health.weight_overridden, "ramp": health.ramp,
        "max_connections": member.plan.max_connections,
        "inflight": board.inflight(member.row), "connections": totals["connections"],
        "failures": totals["refused"] + totals["timeouts"] + totals["early_resets"],
        "refused": totals["refused"], "timeouts": totals["timeouts"],
        "early_resets": totals["early_resets"], "redispatched": totals["redispatched"],
        "failures_in_a_row": board.failures(member.row),
        "bytes_up": totals["bytes_up"], "bytes_down": totals["bytes_down"],
        "requests": totals["requests"], "status": totals["status"], "retries": totals["retries"],
        "reused": totals["reused"], "response_ms": _quantiles(totals["response_us"]),
        "ejections": health.ejections, "ejected_until": iso(health.ejected_until),
        "last_check": _check(health),
    }


# -- the picture in short


def slim_workers(fleet: Fleet, meter: Meter) -> list[Json]:
    """Every worker process, as far as it costs next to nothing to know."""
    found = []
    for worker in sorted(fleet.workers(), key=lambda w: (w.slot, w.started)):
        if not worker.ended.is_set():
            shown = _worker(fleet, meter, worker)
            found.append({name: shown.get(name) for name in SLIM_WORKER}
                         | {"rss_bytes": process_use(worker.pid).resident})
    empty = {name: None for name in (*SLIM_WORKER, "rss_bytes")}
    return found + [empty | {"slot": slot.index, "state": "down"}
                    for slot in fleet.slots.values() if slot.worker is None]


def slim_listeners(plan: Plan, rollout: Rollout) -> list[Json]:
    """Every listener and its routes, without what they count."""
    found = []
    rows = [rollout.listeners.live[(listener.name,)] for listener in plan.listeners]
    figures = _figures.listeners(rollout.board, rows)
    for index, listener in enumerate(plan.listeners):
        routes: dict[str, Json] = {}
        http = listener.http
        for route in (*http.routes, http.default) if http else ():
            if route is None:
                continue
            match = _match(route, default=http is not None and route is http.default)
            if route.name in routes:         # of several hosts
                routes[route.name]["match"] += f" or {match}"
                continue
            routes[route.name] = {
                "name": route.name, "action": route.action,
                "pool": plan.pools[route.pool].name if route.action == "pool" else None,
                "match": match}
        found.append({
            "name": listener.name, "protocol": listener.protocol,
            "bind": [str(bind) for bind in listener.binds],
            "pool": plan.pools[listener.pool].name if listener.pool != NO_POOL else None,
            "connections": figures.numbers(index)[0], "routes": list(routes.values())})
    return found


async def slim_pools(rollout: Rollout, overlay: Overlay) -> list[Json]:
    """Every pool and its backends, without what they count. See :func:`pools`."""
    found = []
    for rows in list(rollout.members):
        live = rollout.board.pool(rows.row)
        backends: list[Json] = []
        for member in rows.members:
            if len(backends) % AT_ONCE == AT_ONCE - 1:
                await asyncio.sleep(0)
            with suppress(KeyError):         # it has left the plan meanwhile
                backends.append(_slim_backend(rollout, rows, member, overlay))
        found.append({
            "name": rows.plan.name, "balance": _balance(rows),
            "state": rollout.monitor.pool_state(rows.plan.name),
            "source": overlay.source(rows.plan.name),
            "inflight": live["inflight"], "waiting": live["waiting"],
            "backends": backends,
        })
    return found


def _slim_backend(rollout: Rollout, rows: PoolRows, member: Member, overlay: Overlay) -> Json:
    health = rollout.monitor.backend(member.row)
    return {
        "name": member.plan.name, "address": str(member.plan.address),
        "state": health.state, "since": iso(health.since), "reason": health.reason,
        "weight": health.weight, "weight_configured": member.plan.weight,
        "backup": member.plan.backup, "draining": health.draining, "forced": health.forced,
        "runtime": overlay.is_runtime(rows.plan.name, member.plan.name),
        "inflight": rollout.board.inflight(member.row), "last_check": _check(health),
    }


def _match(route: RoutePlan, *, default: bool) -> str:
    """What a route takes, for people."""
    if default:
        return "everything else"
    path = {"any": "", "exact": f"{route.path}", "prefix": f"{route.path}*",
            "regex": f"~ {route.path}"}.get(route.path_kind, route.path)
    parts = [",".join(route.methods), f"{route.host}{path}" if path[:1] in ("", "/")
             else f"{route.host} {path}".strip()]
    parts += ["with conditions"] if route.headers or route.queries else []
    return " ".join(part for part in parts if part) or "everything"


def _balance(rows: PoolRows) -> str:
    plan = rows.plan
    return f"consistent ({plan.hash})" if plan.balance == "consistent" else plan.balance


def iso(seconds: float | datetime | None) -> str | None:
    """A moment as ISO 8601 in UTC."""
    if seconds is None:
        return None
    moment = seconds if isinstance(seconds, datetime) else datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
