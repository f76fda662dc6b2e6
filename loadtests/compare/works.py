"""The work that every balancer does, how it is set up for it, and what lbcore has to reach."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Protocol = Literal["tcp", "http"]
Kind = Literal["closed", "echo", "paced", "memory"]


@dataclass(frozen=True)
class Setup:
    """How a balancer is set up. Setups of one ``stage`` run at the same time."""

    name: str
    stage: str
    protocol: Protocol
    workers: int = 1
    log: bool = False               # an access log, into a file
    application: bool = False       # in front of a Flask application under gunicorn

    @property
    def shared(self) -> bool:
        """Whether balancer, client and origin share both cores; otherwise each side has one."""
        return self.workers > 1 or self.application


TCP = Setup("tcp", "tcp", "tcp")
HTTP = Setup("http", "http", "http")
HTTP_LOG = Setup("http-log", "http", "http", log=True)
HTTP_TWO = Setup("http-two", "two", "http", workers=2)
HTTP_APP = Setup("http-app", "app", "http", application=True)


@dataclass(frozen=True)
class Target:
    """What ``--check`` demands of lbcore.

    ``than``: "best" is a ratio to the best of ``peers`` (of all, if none are named), "work" a
    ratio to lbcore's own value in the work ``other``, and "value" the value itself.
    """

    limit: float
    than: Literal["best", "work", "value"] = "best"
    peers: tuple[str, ...] = ()
    other: str = ""

    def said(self, *, more: bool) -> str:
        """In words. ``more``: whether more of the value is better."""
        sign = ">=" if more else "<="
        match self.than:
            case "best":
                whom = f"the better of {' and '.join(self.peers)}" if len(self.peers) > 1 else (
                    self.peers[0] if self.peers else "the best peer")
                return f"{sign} {self.limit:.2f} x {whom}"
            case "work":
                return f"{sign} {self.limit:.2f} x its own {self.other}"
            case "value":
                return f"{sign} {self.limit:g}"


@dataclass(frozen=True)
class Work:
    """One kind of work and the value it is judged by."""

    name: str
    title: str
    setup: Setup
    kind: Kind
    metric: str                 # the value that is compared
    unit: str
    target: Target | None = None
    more: bool = False          # more of the value is better; otherwise less
    path: str = "/tiny"
    clients: int = 64
    close: bool = False         # the client asks for the end of the connection each time
    body: int = 0               # bytes that a request brings along
    saturation: str = ""        # the closed work whose throughput the rate of this one is half of
    splices: bool = True        # whether splice makes a difference: variants of peers take part


def _cpu(
    name: str, title: str, path: str, limit: float | None, *, setup: Setup = TCP,
    clients: int = 64, close: bool = False, body: int = 0, splices: bool = True,
) -> Work:
    return Work(
        name, title, setup, "closed", "cpu_us", "CPU µs per request",
        None if limit is None else Target(limit), path=path, clients=clients, close=close,
        body=body, splices=splices)


_TCP = (
    _cpu("keepalive-1k", "keep-alive, 1 KiB answers, 64 clients", "/1k", 0.92),
    _cpu("connection", "a connection per request, 1 KiB answers, 64 clients", "/1k", 1.00,
         close=True),
    _cpu("keepalive-16k", "keep-alive, 16 KiB answers, 64 clients", "/16k", 0.75),
    _cpu("keepalive-64k", "keep-alive, 64 KiB answers, 64 clients", "/64k", 0.80),
    _cpu("keepalive-1m", "keep-alive, 1 MiB answers, 16 clients", "/1m", 0.80, clients=16),
    Work("latency", "1 KiB answers at half of saturation, 64 connections", TCP, "paced", "p99_us",
         "p99 µs", Target(1.00), path="/1k", saturation="keepalive-1k"),
    Work("memory", "idle connection pairs", TCP, "memory", "bytes_per_pair", "bytes per pair",
         Target(600, "value")),
)
_HTTP = (
    _cpu("http-keepalive-1k", "HTTP, keep-alive, 1 KiB answers, 64 clients", "/1k", 0.85,
         setup=HTTP, splices=False),
    # Beside the one before, of which it is judged to be a ratio.
    Work("http-log-1k", "HTTP, keep-alive, 1 KiB answers, 64 clients, access log on", HTTP_LOG,
         "closed", "cpu_us", "CPU µs per request", Target(1.05, "work", other="http-keepalive-1k"),
         path="/1k", splices=False),
    _cpu("http-close", "HTTP, the client closes each time, 1 KiB answers, 64 clients", "/1k", 0.85,
         setup=HTTP, close=True, splices=False),
    _cpu("http-16k", "HTTP, keep-alive, 16 KiB answers, 64 clients", "/16k", None, setup=HTTP),
    _cpu("http-1m", "HTTP, keep-alive, 1 MiB answers, 16 clients", "/1m", 0.45, setup=HTTP,
         clients=16),
    _cpu("http-post-16k", "HTTP, POST with 16 KiB, 64 clients", "/own/post", 0.85, setup=HTTP,
         body=16 * 1024, splices=False),
    Work("http-websocket", "WebSocket, echoes of 32 bytes, 256 connections", HTTP, "echo",
         "cpu_us", "CPU µs per message there and back", Target(0.90), path="/own/chat",
         clients=256, splices=False),
    Work("http-latency", "HTTP, 1 KiB answers at half of saturation, 64 connections", HTTP,
         "paced", "p99_us", "p99 µs", path="/1k", saturation="http-keepalive-1k", splices=False),
    Work("http-memory", "HTTP, idle keep-alive connections", HTTP, "memory", "bytes_per_pair",
         "bytes per connection", Target(438, "value"), splices=False),
    Work("http-two-workers", "HTTP, two workers on two cores, keep-alive, 1 KiB answers, "
         "64 clients", HTTP_TWO, "closed", "requests_per_s", "requests/s",
         Target(1.00, peers=("haproxy", "nginx")), more=True, path="/1k", splices=False),
    Work("http-flask", "HTTP, Flask under gunicorn with 4 workers, 64 clients", HTTP_APP,
         "closed", "requests_per_s", "requests/s", Target(1.00, peers=("nginx",)), more=True,
         path="/page", splices=False),
    Work("http-flask-latency", "HTTP, Flask under gunicorn with 4 workers, at half of saturation",
         HTTP_APP, "paced", "p99_us", "p99 µs", Target(1.00, peers=("nginx",)), path="/page",
         saturation="http-flask", splices=False),
)
WORKS = {work.name: work for work in (*_TCP, *_HTTP)}
GROUPS = {"tcp": [work.name for work in _TCP], "http": [work.name for work in _HTTP]}


def expanded(names: Sequence[str]) -> list[str]:
    """Groups replaced by their works, each work once; other names as they are."""
    return list(dict.fromkeys(
        name for given in names for name in GROUPS.get(given, [given])))
