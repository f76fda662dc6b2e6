"""The status of an instance as tables for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

Json = dict[str, Any]
RIGHT = set("0123456789")
CLASSES = ("REQUESTS", "2XX", "3XX", "4XX", "5XX", "NONE")


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> Iterator[str]:
    """Lines of an aligned table; columns of numbers are aligned to the right."""
    cells = [[_text(cell) for cell in row] for row in rows]
    columns = list(zip(head, *cells, strict=True))
    widths = [max(map(len, column)) for column in columns]
    right = [all(cell[:1] in RIGHT or cell == "-" for cell in column[1:]) for column in columns]
    for line in [list(head), *cells]:
        padded = [cell.rjust(width) if number else cell.ljust(width)
                  for cell, width, number in zip(line, widths, right, strict=True)]
        yield "  ".join(padded).rstrip()


def describe(said: Json) -> Iterator[str]:
    """The whole picture, as lines."""
    yield (f"lbcore {said['version']}, pid {said['pid']}, {said['state']} for "
           f"{_ago(said['started'])}, plan {said['plan']['version']} "
           f"({_ago(said['plan']['applied_at'])} old)")
    if said["upgrade"]["state"] == "failed":
        yield f"the last upgrade failed: {said['upgrade'].get('error')}"
    if said.get("rates_forgotten"):
        yield (f"{said['rates_forgotten']} rate limits were forgotten early: more clients at a "
               "time than there are places")
    if said.get("learnt_forgotten"):
        yield (f"{said['learnt_forgotten']} session cookies were forgotten early: more sessions "
               "than there are places")
    yield ""
    yield from table(
        ["WORKER", "PID", "CPU", "CPU%", "USS", "RSS", "CONNS", "ACCEPTED", "ACC/S", "STATE"],
        [_worker(worker) for worker in said["workers"]])
    yield ""
    yield from table(
        ["LISTENER", "BIND", "POOL", "CONNS", "ACCEPTED", "IN", "OUT", "ENDED BADLY"],
        [_listener(listener) for listener in said["listeners"]])
    if http := [listener for listener in said["listeners"] if "routes" in listener]:
        yield ""
        yield from table(
            ["HTTP", "POOL", *CLASSES, "RETRIED", "P50", "P99", "ENDED BADLY"],
            [row for listener in http for row in _requests(listener)])
    for pool in said["pools"]:
        yield ""
        waiting = f", {pool['waiting']} waiting" if pool["waiting"] else ""
        yield f"pool {pool['name']}: {pool['balance']}, {pool['state']}{waiting}"
        yield from _app(pool.get("app"))
        yield from table(
            ["  BACKEND", "ADDRESS", "STATE", "SINCE", "WEIGHT", "CONNS", "TOTAL", "FAILED",
             "CHECK", "WHY"],
            [_backend(backend) for backend in pool["backends"]])
        if any(backend["requests"] for backend in pool["backends"]):
            yield from table(
                ["  ANSWERS", *CLASSES, "RETRIED", "REUSED", "P50", "P99"],
                [_answers(backend) for backend in pool["backends"]])


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
        return [worker["slot"], *[None] * 8, f"down: {worker['error']}"]
    return [worker["slot"], worker["pid"], worker["cpu"], worker["cpu_percent"],
            _size(worker["uss_bytes"]), _size(worker["rss_bytes"]), worker["connections"],
            worker["accepted"], worker["accepts_per_s"], worker["state"]]


def _listener(listener: Json) -> list[object]:
    bad = {reason: count for reason, count in listener["ended"].items()
           if count and reason not in ("normal", "shutdown")}
    reasons = ", ".join(f"{reason} {count}" for reason, count in bad.items())
    return [listener["name"], " ".join(listener["bind"]), listener["pool"],
            listener["connections"], listener["accepted"], _size(listener["bytes_up"]),
            _size(listener["bytes_down"]), reasons or None]


def _requests(listener: Json) -> Iterator[list[object]]:
    """A line for an http listener, and below it one for each route."""
    bad = {reason: count for reason, count in listener["http_ended"].items()
           if count and reason not in ("ok", "shutdown")}
    reasons = ", ".join(f"{reason} {count}" for reason, count in bad.items())
    yield [listener["name"], None, listener["requests"], *_classes(listener["status"]),
           listener["retries"], None, None, reasons or None]
    for route in listener["routes"]:
        yield [f"  {route['name']}", route["pool"] or route["action"], route["requests"],
               *_classes(route["status"]), route["retries"], *_speed(route["total_ms"]), None]


def _answers(backend: Json) -> list[object]:
    return [f"  {backend['name']}", backend["requests"], *_classes(backend["status"]),
            backend["retries"], backend["reused"], *_speed(backend["response_ms"])]


def _classes(status: Json) -> list[object]:
    return [status[name] for name in ("2xx", "3xx", "4xx", "5xx", "none")]


def _speed(ms: Json) -> list[object]:
    return [None if ms[name] is None else f"{ms[name]:.3g}ms" for name in ("p50", "p99")]


def _backend(backend: Json) -> list[object]:
    weight = str(backend["weight"])
    if backend["weight_overridden"]:
        weight += f" (set; {backend['weight_configured']})"
    check = backend["last_check"]
    seen = None
    if check and check["ok"] is not None:
        seen = f"{'ok' if check['ok'] else 'failed'} {check['ms']:.0f}ms {_ago(check['at'])} ago"
    name = backend["name"] + (" (backup)" if backend["backup"] else "")
    return [f"  {name}", backend["resolved"], backend["state"], _ago(backend["since"]), weight,
            backend["inflight"], backend["connections"], backend["failures"], seen,
            backend["reason"]]


def _ago(moment: str) -> str:
    """How long ago a moment was, in the largest unit that says something."""
    seconds = max(0, round((datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds()))
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


def _size(count: int) -> str:
    """A number of bytes with a binary unit."""
    amount = float(count)
    for unit in ("B", "K", "M", "G"):
        if amount < 1024:
            return f"{amount:.0f}{unit}" if unit == "B" or amount >= 100 else f"{amount:.1f}{unit}"
        amount /= 1024
    return f"{amount:.1f}T"


def _text(cell: object) -> str:
    return "-" if cell is None or cell == "" else str(cell)
