"""The plan: what a configuration means, with every default filled in and every name resolved.

A plan is immutable. The supervisor serialises it once (``lbcore._plan.build_image``) and hands
the image to every worker. Durations are milliseconds, sizes are bytes, 0 means "no limit" or
"off" unless a field says otherwise.

The order of ``Plan.pools`` and ``Plan.listeners`` is the order of the file; ``ListenerPlan.pool``
is an index into ``Plan.pools``. Rows of the scoreboard are not part of a plan: they belong to the
running instance, which keeps a row for as long as something of the same key lives.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

Balance = Literal["round_robin", "least_conn", "random", "consistent"]
HashKind = Literal["maglev", "ketama"]
HashOn = Literal["source_ip", "header", "cookie", "query", "path", "uri"]
ProxyVersion = Literal[0, 1, 2]
PathKind = Literal["any", "exact", "prefix", "regex"]
MatchKind = Literal["present", "equal", "prefix", "regex"]
FieldAction = Literal["set", "add", "remove"]
RateKey = Literal["source", "header", "cookie", "route"]
Forwarded = Literal["none", "x-forwarded", "rfc7239", "both"]
SameSite = Literal["", "Lax", "Strict", "None"]
Part = Literal[
    "text", "client_ip", "client_port", "host", "port", "method", "scheme", "path", "query", "uri",
    "request_id", "listener", "route", "pool", "backend", "header", "cookie", "capture", "tail",
]
AppKind = Literal["wsgi", "asgi"]
AppServer = Literal["gunicorn", "uvicorn", "granian", "hypercorn", "daphne"]
NO_POOL = -1


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen or connect to. Exactly one of (host, port), path and name is set.

    ``host`` is a numeric IPv4 or IPv6 address without brackets, or a name that the supervisor
    resolves when the plan is applied (backends only); ``path`` is a unix socket; ``name`` that of
    a socket which is passed to lbcore (listeners only).
    """

    host: str = ""
    port: int = 0
    path: str = ""
    name: str = ""

    def __str__(self) -> str:
        if self.name:
            return f"fd:{self.name}"
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
class StickyPlan:
    """How clients of an http pool stay with their backend."""

    cookie: str
    mode: Literal["insert", "learn"] = "insert"
    key: bytes = b""             # 16 bytes that sign inserted cookies; b"" in mode "learn"
    attributes: str = "; Path=/; HttpOnly; SameSite=Lax"     # of inserted cookies
    expiry_ms: int = 86_400_000  # for which a learnt cookie is known without being used


@dataclass(frozen=True, slots=True)
class PoolHttpPlan:
    """What only http listeners need of a pool."""

    keepalive_idle_ms: int = 60_000      # 0: connections are not kept
    keepalive_connections: int = 64      # kept, per worker and backend
    retry_share: float = 0.2             # of requests that may be retries; 0: none
    failure_statuses: tuple[int, ...] = (500, 502, 503, 504)     # count for ejection
    slow_ms: int = 0                     # a later first byte counts for ejection; 0: never
    hash_name: str = ""                  # with hash_on header, cookie or query
    sticky: StickyPlan | None = None


@dataclass(frozen=True, slots=True)
class AppPlan:
    """A Python application that lbcore runs. Paths are the user's words: the supervisor knows
    where the configuration file is that they are relative to."""

    kind: AppKind
    app: str                     # module:callable
    server: AppServer
    workers: int = 1             # processes of each server
    threads: int = 0             # of each process; 0: the server's default
    names: tuple[str, ...] = ("app",)    # of the backends, one server each
    directory: str = ""
    env: tuple[tuple[str, str], ...] = ()
    venv: str = ""
    python: str = ""
    user: str = ""
    group: str = ""
    options: tuple[str, ...] = ()
    start_timeout_ms: int = 30_000
    stop_timeout_ms: int = 30_000
    watch: bool = False
    watch_paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DiscoverPlan:
    """Where a pool's backends come from while lbcore runs: a file or a function."""

    file: str = ""
    python: str = ""             # "module:function"
    directory: str = ""          # where that is imported from
    interval_ms: int = 2000
    timeout_ms: int = 30_000


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
    http: PoolHttpPlan = field(default_factory=PoolHttpPlan)
    app: AppPlan | None = None   # a Python application that lbcore runs itself
    discover: DiscoverPlan | None = None     # then ``backends`` may be empty until it has answered

    @property
    def table(self) -> HashKind | None:
        """The look-up table that workers need to pick a backend by a hash; None: none."""
        return self.hash if self.balance == "consistent" else None


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of a template: text as it is, or what it stands for."""

    part: Part
    text: str = ""               # of "text"; the name in lower case of "header"; that of "cookie"
    number: int = 0              # of "capture"


Template = tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class FieldPlan:
    """A change to the header fields of a message."""

    action: FieldAction
    name: str
    value: Template = ()


@dataclass(frozen=True, slots=True)
class MatchPlan:
    """A condition on a header field or a query parameter."""

    name: str                    # in lower case for header fields
    kind: MatchKind = "present"
    value: str = ""
    negated: bool = False        # also true where there is none of that name


@dataclass(frozen=True, slots=True)
class RatePlan:
    """How many requests may pass a route: a bucket of ``burst``, refilled steadily."""

    interval_us: int             # for one request
    burst: int
    by: RateKey = "source"
    name: str = ""               # of the header field (in lower case) or the cookie


@dataclass(frozen=True, slots=True)
class RoutePlan:
    """Which requests, and what becomes of them.

    A route of the file with several hosts is several of these, with one name.
    """

    name: str
    # -- what it matches
    host: str = ""                       # in lower case; "*.example.com" for a wildcard; "": any
    path_kind: PathKind = "any"
    path: str = ""                       # normalised; a regular expression for "regex"
    methods: tuple[str, ...] = ()        # empty: any
    headers: tuple[MatchPlan, ...] = ()
    queries: tuple[MatchPlan, ...] = ()
    # -- what becomes of it
    action: Literal["pool", "redirect", "respond"] = "pool"
    pool: int = NO_POOL                  # index into Plan.pools, with action "pool"
    status: int = 0                      # of a redirect or a fixed response
    location: Template = ()              # of a redirect
    type: str = ""                       # Content-Type of a fixed response
    body: bytes = b""
    strip_prefix: bool = False           # the backend does not see what `path` took
    rewrite: Template = ()               # the path that the backend sees; empty: the client's
    request_fields: tuple[FieldPlan, ...] = ()   # in this order
    response_fields: tuple[FieldPlan, ...] = ()
    # -- who may enter
    allow: tuple[str, ...] = ()          # CIDR; empty: everybody
    deny: tuple[str, ...] = ()           # CIDR; goes first
    users: tuple[tuple[str, str], ...] | None = None     # (name, crypt(5) hash); None: everybody
    realm: str = ""
    rate: RatePlan | None = None
    # -- limits
    max_body: int = 100 * 2**20
    body_timeout_ms: int = 30_000
    first_byte_timeout_ms: int = 60_000
    read_timeout_ms: int = 60_000
    send_timeout_ms: int = 60_000
    total_timeout_ms: int = 0
    tunnel_timeout_ms: int = 3_600_000
    buffer_request: bool = True
    buffer_response: bool = True
    request_memory: int = 64 * 2**10
    response_memory: int = 256 * 2**10
    response_disk: int = 2**30
    # -- retries
    retry_attempts: int = 3              # in all, the first included
    retry_statuses: tuple[int, ...] = () # 429, 500..562
    retry_unsafe: bool = False
    origin: int = -1                     # index of its [[listener.route]]; -1: none of the file


@dataclass(frozen=True, slots=True)
class PagePlan:
    """An error page of the user's own."""

    status: int                  # 0: every status that has none
    kind: Literal["text", "html", "json"]
    body: bytes


@dataclass(frozen=True, slots=True)
class HttpPlan:
    """What only an http listener has."""

    routes: tuple[RoutePlan, ...] = ()   # most specific first
    default: RoutePlan | None = None     # takes what is left; None: as default_route says
    head_timeout_ms: int = 10_000
    keepalive_timeout_ms: int = 75_000
    max_requests: int = 0
    max_head: int = 32 * 2**10
    max_fields: int = 100
    trusted: tuple[str, ...] = ()        # CIDR
    forwarded: Forwarded = "x-forwarded"
    request_id: bool = True
    via: str = "lbcore"                  # "": no Via
    underscores: bool = False
    abort_on_close: bool = False
    pages: tuple[PagePlan, ...] = ()


@dataclass(frozen=True, slots=True)
class ListenerPlan:
    """Where clients come in."""

    name: str
    binds: tuple[Address, ...]
    pool: int                    # index into Plan.pools; NO_POOL only with protocol "http"
    protocol: Literal["tcp", "http"] = "tcp"
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
    http: HttpPlan | None = None         # with protocol "http", and then never None once made

    def __post_init__(self) -> None:
        """An http listener has all that belongs to one: also a route for what no other takes."""
        http = self.http or (HttpPlan() if self.protocol == "http" else None)
        if http is not None and http.default is None:
            http = replace(http, default=default_route(self.pool))
        object.__setattr__(self, "http", http)


def default_route(pool: int) -> RoutePlan:
    """The route for what no other takes: to a pool, or a 404."""
    if pool == NO_POOL:
        return RoutePlan("none", action="respond", status=404)
    return RoutePlan("default", pool=pool)


@dataclass(frozen=True, slots=True)
class LogPlan:
    """Where lbcore says what it does."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"
    path: str = "-"              # "-" is standard error
    access: str = ""             # the access log: a path, "-" for standard output, "" for none
    access_format: Literal["json", "combined"] = "json"


@dataclass(frozen=True, slots=True)
class AdminPlan:
    """Whom the admin address answers, and what it serves."""

    token: str = field(default="", repr=False)   # asked for over TCP; "": none
    hosts: tuple[str, ...] = ()  # names of ours, besides IP addresses and localhost
    dashboard: bool = True
    metrics: bool = True


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
    api: AdminPlan = field(default_factory=AdminPlan)

    def pools_of(self, listener: ListenerPlan) -> tuple[PoolPlan, ...]:
        """The pools that a listener uses: its own first, then those of its routes in order."""
        indexes = [listener.pool]
        if listener.http:
            indexes += [route.pool for route in listener.http.routes]
        return tuple(self.pools[index] for index in dict.fromkeys(indexes) if index != NO_POOL)
