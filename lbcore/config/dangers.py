"""What works, and is dangerous in production: ``lbcore check`` warns of it.

Each danger has a code by which it can be accepted, for a whole configuration or for one key
(``accept_warnings`` in ``[lbcore]``). What only this machine can tell is in ``host_dangers.py``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from lbcore.config import apps, checks_http
from lbcore.config.findings import Finding, unaccepted
from lbcore.config.http_models import Route
from lbcore.config.load import Loaded, told
from lbcore.config.models import Config, Listener, Pool
from lbcore.config.problems import KeyPath, Problem
from lbcore.config.values import format_duration

NEVER = "a connection whose other end is gone may stay for ever"


def warnings(loaded: Loaded, more: Iterable[Finding] = ()) -> list[Problem]:
    """Dangers of a configuration, and ``more`` that were found, less those that it accepts."""
    found = [told(loaded.source, finding) for finding in (*dangers(loaded.config), *more)]
    return sorted(unaccepted(found, loaded.config.lbcore.accept_warnings),
                  key=lambda problem: problem.line)


def dangers(config: Config) -> Iterator[Finding]:
    """What is dangerous whatever the machine."""
    usage = checks_http.usage(config)
    yield from _process(config)
    for index, listener in enumerate(config.listener):
        yield from _listener(("listener", index), listener, config)
    for name, pool in config.pool.items():
        yield from _pool(("pool", name), name, pool, usage.get(name, set()))


def _process(config: Config) -> Iterator[Finding]:
    if not config.lbcore.drain_timeout:
        yield Finding(
            ("lbcore", "drain_timeout"),
            "every stop and every upgrade breaks off what is under way", '"30s"', code="no-drain")


def _listener(path: KeyPath, listener: Listener, config: Config) -> Iterator[Finding]:
    if not listener.tcp_user_timeout and not listener.keepalive:
        yield Finding((*path, "keepalive"), f"{NEVER}: nothing looks whether clients are there",
                      "keepalive = true, or a tcp_user_timeout", code="timeout-off")
    if not listener.half_closed_timeout:
        yield Finding((*path, "half_closed_timeout"),
                      "one side may keep a connection open that the other has ended", '"30s"',
                      code="timeout-off")
    for number, network in enumerate(listener.proxy_trusted):
        if network.endswith("/0"):
            yield Finding((*path, "proxy_trusted", number),
                          "every client can claim to be any other: all are trusted",
                          "the networks of your own balancers", code="trusts-everybody")
    if listener.protocol != "http":
        if not listener.client_idle_timeout:
            yield Finding((*path, "client_idle_timeout"), "clients that say nothing stay for ever",
                          '"10m"', code="timeout-off")
        return
    yield from _http(path, listener, config)


def _http(path: KeyPath, listener: Listener, config: Config) -> Iterator[Finding]:
    drain = config.lbcore.drain_timeout
    tables: list[tuple[KeyPath, Listener | Route]] = [
        (path, listener),
        *(((*path, "route", number), route) for number, route in enumerate(listener.route))]
    for at, table in tables:
        if table.max_body == 0:
            yield Finding((*at, "max_body"), "a single request may fill the disk",
                          'the largest that the application expects, such as "100MiB"',
                          code="unlimited-body")
        if table.tunnel_timeout == 0:
            yield Finding((*at, "tunnel_timeout"),
                          "a WebSocket whose other end is gone may stay for ever", '"1h"',
                          code="timeout-off")
        if table.total_timeout and drain and table.total_timeout > drain:
            yield Finding(
                (*at, "total_timeout"),
                "a stop or an upgrade cuts such requests short: drain_timeout is "
                f'"{format_duration(drain)}"',
                f'drain_timeout = "{format_duration(table.total_timeout)}"',
                see=("lbcore", "drain_timeout"), code="short-drain")
        if table.retry and table.retry.unsafe:
            yield Finding((*at, "retry", "unsafe"),
                          "an order, or a payment, may be carried out twice",
                          "leave it out, unless the application notices repetitions",
                          code="unsafe-retry")


def _pool(path: KeyPath, name: str, pool: Pool, protocols: set[str]) -> Iterator[Finding]:
    if not protocols:
        return
    own = pool.demo + len(apps.backend_names(pool))
    if (pool.backends or pool.discover) and pool.health is None:
        kind = "http" if protocols == {"http"} else "tcp"
        how = f'type = "{kind}"' + (', path = "/healthz"' if kind == "http" else "")
        yield Finding((*path, "health"),
                      f'a backend of pool "{name}" that fails is found by clients alone',
                      f"[pool.{name}.health] with {how}", code="no-health-check")
    serving = [backend for backend in pool.backends if backend.weight]
    if len(serving) == 1 and not own and not pool.discover:
        yield Finding((*path, "backends"),
                      f'everything depends on {serving[0].address}: pool "{name}" has no other '
                      "backend", "a second one, on another machine", code="single-backend")
    if pool.demo and pool.backends:
        yield Finding((*path, "demo"), "demonstration servers answer clients beside real ones",
                      "leave it out", code="demo-backends")
    if "tcp" in protocols and not pool.server_idle_timeout:
        yield Finding((*path, "server_idle_timeout"), "backends that say nothing are kept for ever",
                      '"10m"', code="timeout-off")
    if not pool.tcp_user_timeout and not pool.keepalive:
        yield Finding((*path, "keepalive"), f"{NEVER}: nothing looks whether backends are there",
                      "keepalive = true, or a tcp_user_timeout", code="timeout-off")
