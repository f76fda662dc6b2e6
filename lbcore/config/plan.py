"""The plan: what a configuration means, with every default filled in and every name resolved.

A plan is immutable. The supervisor serialises it once (``lbcore._plan.build_image``) and hands
the image to every worker. Durations are milliseconds, sizes are bytes, 0 means "no limit" or
"off" unless a field says otherwise.

The order of ``Plan.pools`` and ``Plan.listeners`` is the order of the file; ``ListenerPlan.pool``
is an index into ``Plan.pools``. Rows of the scoreboard are not part of a plan: they belong to the
running instance, which keeps a row for as long as something of the same key lives.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Balance = Literal["round_robin", "least_conn", "random", "consistent"]
HashKind = Literal["maglev", "ketama"]
HashOn = Literal["source_ip"]
ProxyVersion = Literal[0, 1, 2]


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen or connect to. Exactly one of (host, port) and path is set.

    ``host`` is a numeric IPv4 or IPv6 address without brackets, or a name that the supervisor
    resolves when the plan is applied (backends only); ``path`` is a unix socket.
    """

    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class BackendPlan:
    """One server of a pool."""

    name: str
    address: Address
    weight: int = 1              # 0..1000; 0 receives nothing new
    backup: bool = False
    max_connections: int = 0     # over all workers
    label: str = ""              # the address as the user wrote it: what ketama hashes


@dataclass(frozen=True, slots=True)
class HealthPlan:
    """Active checks of a pool."""

    type: Literal["tcp", "http"] = "tcp"
    path: str = "/"
    host: str = ""               # Host header; "" means the backend's own address
    expect_status: tuple[tuple[int, int], ...] = ((200, 399),)   # inclusive ranges
    expect_body: str = ""        # substring looked for in the first 64 KiB; "" means any
    port: int = 0                # 0: the backend's own port
    interval_ms: int = 2000
    fast_interval_ms: int = 500  # while a backend is changing state
    jitter: float = 0.1          # share of the interval, both ways
    timeout_ms: int = 1000
    rise: int = 2
    fall: int = 3


@dataclass(frozen=True, slots=True)
class EjectionPlan:
    """Passive ejection of a pool's backends."""

    failures: int = 5            # consecutive; 0 turns ejection off
    base_ms: int = 10_000        # first ejection; the n-th lasts n times as long
    max_ms: int = 300_000
    max_share: float = 0.5       # of a pool that may be ejected at once


@dataclass(frozen=True, slots=True)
class PoolPlan:
    """A named set of backends and how one of them is picked."""

    name: str
    backends: tuple[BackendPlan, ...]
    balance: Balance = "round_robin"
    hash: HashKind = "maglev"
    hash_on: HashOn = "source_ip"
    load_bound: float = 0.0      # 0: none, otherwise > 1
    connect_timeout_ms: int = 2000
    connect_attempts: int = 3
    connect_budget_ms: int = 6000
    queue_timeout_ms: int = 5000
    server_idle_ms: int = 600_000
    max_queue: int = 1024        # connections waiting over all workers; 0: no waiting
    slow_start_ms: int = 0
    panic_threshold: float = 0.0     # share of healthy backends under which all are tried
    send_proxy: ProxyVersion = 0
    source: Address | None = None    # upstream connections are bound to it
    source_transparent: bool = False # bind to the client's own address (IP_TRANSPARENT)
    keepalive: bool = True
    tcp_user_timeout_ms: int = 30_000
    health: HealthPlan | None = None
    ejection: EjectionPlan = field(default_factory=EjectionPlan)
    demo: int = 0                # demonstration backends that lbcore runs itself


@dataclass(frozen=True, slots=True)
class ListenerPlan:
    """Where clients come in."""

    name: str
    binds: tuple[Address, ...]
    pool: int                    # index into Plan.pools
    protocol: Literal["tcp"] = "tcp"
    backlog: int = 4096
    max_connections: int = 0             # over all workers
    max_connections_per_source: int = 0  # over all workers
    client_idle_ms: int = 600_000
    half_closed_ms: int = 30_000
    proxy_protocol: bool = False
    proxy_trusted: tuple[str, ...] = ()  # CIDR; empty: every source must send the header
    proxy_header_timeout_ms: int = 5000
    defer_accept_ms: int = 0             # TCP_DEFER_ACCEPT; 0: off
    fastopen: int = 0                    # TCP_FASTOPEN queue length; 0: off
    keepalive: bool = True
    tcp_user_timeout_ms: int = 30_000
    unix_mode: int = 0o666               # permissions of unix sockets


@dataclass(frozen=True, slots=True)
class LogPlan:
    """Where lbcore says what it does."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"
    path: str = "-"              # "-" is standard error


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything a running instance needs."""

    listeners: tuple[ListenerPlan, ...]
    pools: tuple[PoolPlan, ...]
    workers: int                 # resolved: "auto" is the CPUs this process may use
    admin: Address
    drain_timeout_ms: int = 30_000
    user: str = ""
    group: str = ""
    pid_file: str = ""
    pin_cpus: bool = True
    max_pipes: int = 256         # per worker, for splice
    hang_timeout_ms: int = 10_000    # a worker silent for so long is killed and replaced
    log: LogPlan = field(default_factory=LogPlan)
