"""The status of an instance as a report for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lbcore.cli.tables import (
    Column,
    Line,
    Said,
    Table,
    ago,
    counted,
    milliseconds,
    size,
    state_of,
)

Json = dict[str, Any]
CLASSES = (Column("REQUESTS", 8), Column("2XX", 6), Column("3XX", 4), Column("4XX", 5),
           Column("5XX", 8), Column("NONE", 5))
WORKERS = ("WORKER", Column("PID", 8), Column("CPU", 2), Column("CPU%", 7), Column("USS", 4),
           Column("RSS", 3), Column("CONNS", 8), Column("ACCEPTED", 5), Column("ACC/S", 6), "STATE")
LISTENERS = ("LISTENER", "BIND", Column("POOL", 7), Column("CONNS", 8), Column("ACCEPTED", 6),
             Column("IN", 4), Column("OUT", 4), "ENDED BADLY")
HTTP = ("HTTP", Column("POOL", 4), *CLASSES, Column("RETRIED", 3), Column("P50", 6),
        Column("P99", 7), Column("ENDED BADLY", 5))
BACKENDS = ("  BACKEND", Column("ADDRESS", 5), "STATE", Column("SINCE", 6), Column("WEIGHT", 4),
            Column("CONNS", 7), Column("TOTAL", 2), Column("FAILED", 6), Column("CHECK", 3), "WHY")
ANSWERS = ("  ANSWERS", *CLASSES, Column("RETRIED", 3), Column("REUSED", 2), Column("P50", 6),
           Column("P99", 7))


def describe(said: Json) -> Iterator[Line | Table]:
    """The whole picture."""
    yield from _head(said)
    yield ""
    yield workers(said)
    yield ""
    yield Table(LISTENERS, [_listener(listener) for listener in said["listeners"]])
    if http := [listener for listener in said["listeners"] if "routes" in listener]:
        yield ""
        yield Table(HTTP, [row for listener in http for row in _requests(listener)])
    for pool in said["pools"]:
        yield ""
        waiting = f", {pool['waiting']} waiting" if pool["waiting"] else ""
        if pool["state"] == "none":
            waiting = f": no backend takes traffic{waiting}"
        yield [f"pool {pool['name']}: {pool['balance']}, ", state_of(pool["state"]), waiting]
        yield from _app(pool.get("app"))
        yield Table(BACKENDS, [_backend(backend) for backend in pool["backends"]])
        if any(backend["requests"] for backend in pool["backends"]):
            yield Table(ANSWERS, [_answers(backend) for backend in pool["backends"]])


def workers(said: Json) -> Table:
    """The workers alone."""
    return Table(WORKERS, [_worker(worker) for worker in said["workers"]])


def _head(said: Json) -> Iterator[Line]:
    yield [f"lbcore {said['version']}, pid {said['pid']}, ", state_of(said["state"]),
           f" for {ago(said['started'])}, plan {said['plan']['version']} "
           f"({ago(said['plan']['applied_at'])} old)"]
    if changes := said.get("changes"):
        yield Said(f"{counted(changes, 'change')} from the file: see `lbcore changes`", "doubtful")
    if said["upgrade"]["state"] == "failed":
        yield Said(f"the last upgrade failed: {said['upgrade'].get('error')}", "bad")
    if said.get("rates_forgotten"):
        yield (f"{said['rates_forgotten']} rate limits were forgotten early: more clients at a "
               "time than there are places")
    if said.get("learnt_forgotten"):
        yield (f"{said['learnt_forgotten']} session cookies were forgotten early: more sessions "
               "than there are places")


def _app(app: Json | None) -> Iterator[str]:
    """The application of a pool, if it has one, and what is wrong with it."""
    if app is None:
        return
    servers = ", ".join(
        f"pid {one['pid']}" + ("" if one["state"] == "ready" else f" {one['state']}")
        + (f" ({one['restarts']} restarts)" if one["restarts"] else "")
        for one in app["servers"])
    yield f"  {app['application']} on {app['server']}, generation {app['generation']}: {servers}"
    for one in app["servers"]:
        if one["state"] == "failed":
            yield from (f"    {line}" for line in f"{one['backend']}: {one['error']}".split("\n"))
    if app["failed"]:
        yield from (f"    {line}" for line in
                    f"a replacement did not come up: {app['failed']['error']}".split("\n"))


def _worker(worker: Json) -> list[object]:
    if worker["pid"] is None:
        return [worker["slot"], *[None] * 8, Said(f"down: {worker['error']}", "bad")]
    return [worker["slot"], worker["pid"], worker["cpu"], worker["cpu_percent"],
            size(worker["uss_bytes"]), size(worker["rss_bytes"]), worker["connections"],
            worker["accepted"], worker["accepts_per_s"], state_of(worker["state"])]


def _listener(listener: Json) -> list[object]:
    return [listener["name"], " ".join(listener["bind"]), listener["pool"],
            listener["connections"], listener["accepted"], size(listener["bytes_up"]),
            size(listener["bytes_down"]), _reasons(listener["ended"], "normal")]


def _requests(listener: Json) -> Iterator[list[object]]:
    """A line for an http listener, and below it one for each route."""
    yield [listener["name"], None, listener["requests"], *_classes(listener["status"]),
           listener["retries"], None, None, _reasons(listener["http_ended"], "ok")]
    for route in listener["routes"]:
        yield [f"  {route['name']}", route["pool"] or route["action"], route["requests"],
               *_classes(route["status"]), route["retries"], *_speed(route["total_ms"]), None]


def _reasons(ended: Json, good: str) -> str:
    """Why how many ended that should not have."""
    return ", ".join(f"{reason} {count}" for reason, count in ended.items()
                     if count and reason not in (good, "shutdown"))


def _answers(backend: Json) -> list[object]:
    return [f"  {backend['name']}", backend["requests"], *_classes(backend["status"]),
            backend["retries"], backend["reused"], *_speed(backend["response_ms"])]


def _classes(status: Json) -> list[object]:
    bad = status["5xx"]
    return [status["2xx"], status["3xx"], status["4xx"],
            Said(str(bad), "bad") if bad else bad, status["none"]]


def _speed(ms: Json) -> list[object]:
    return [milliseconds(ms[name]) for name in ("p50", "p99")]


def _backend(backend: Json) -> list[object]:
    weight = str(backend["weight"])
    if backend["weight_overridden"]:
        weight += f" (set; {backend['weight_configured']})"
    check = backend["last_check"]
    seen = None
    if check and check["ok"] is not None:
        seen = Said(f"{'ok' if check['ok'] else 'failed'} {milliseconds(check['ms'])} "
                    f"{ago(check['at'])} ago", "" if check["ok"] else "bad")
    name = backend["name"] + (" (backup)" if backend["backup"] else "")
    if backend.get("runtime"):
        name += " (added)"
    return [f"  {name}", backend["resolved"], state_of(backend["state"]), ago(backend["since"]),
            weight, backend["inflight"], backend["connections"], backend["failures"], seen,
            backend["reason"]]
