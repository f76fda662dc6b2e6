"""The configuration language: every table and key of lb.toml.

This file, ``http_models.py`` and ``apps.py`` are the only place that says which keys exist, what
they mean, their types, defaults and units. Validation, the JSON Schema (``schema.py``) and the
reference (``reference.py``) are made from them. What concerns several keys at once is in
``checks.py``; what the values become is in ``compile.py``.

Strings that hold an address keep the user's words, which ketama hashes and ``lbcore show``
prints; durations become milliseconds.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    WithJsonSchema,
)

from lbcore.config import http_values, values
from lbcore.config.apps import AppKeys
from lbcore.config.discover import Discover
from lbcore.config.fields import (
    BindText,
    Count,
    Duration,
    Line,
    Mode,
    Name,
    OrString,
    PositiveDuration,
    Share,
    StatusRange,
    Table,
    absolute,
    as_written,
    duration_schema,
    duration_text,
    key,
    reading,
)
from lbcore.config.findings import WARNINGS, nearest
from lbcore.config.http_models import FilePath, HttpEjection, HttpListener, HttpPool
from lbcore.config.values import BadValue

MAX_WORKERS = 64                 # half of the scoreboard's seats: old workers drain beside new ones
LEAST_HANG_MS = 2000             # an idle worker wakes once a second to show that it lives
SYSLOG_FACILITIES = ("kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp",
                     "cron", "authpriv", "ftp", *(f"local{number}" for number in range(8)))
MAX_LISTENERS = 1024             # rows of the scoreboard, as the two below
MAX_POOLS = 4096
MAX_BACKENDS = 16384


def _workers(value: object) -> object:
    number = isinstance(value, int) and not isinstance(value, bool)
    if value == "auto" or (number and 1 <= value <= MAX_WORKERS):  # type: ignore[operator]
        return value
    raise BadValue(f"{value!r} is not a number of workers", f'"auto", or 1 to {MAX_WORKERS}')


def _log_path(text: str) -> str:
    return text if text == "-" else absolute(text)


def _own_log_path(text: str) -> str:
    if text.startswith("syslog:"):
        facility = text.removeprefix("syslog:")
        if facility and facility not in SYSLOG_FACILITIES:
            close = nearest(facility, SYSLOG_FACILITIES)
            raise BadValue(f'syslog has no facility "{facility}"',
                           f'did you mean "{close}"?' if close else '"daemon" or "local0"')
        return text
    return text if text == "journal:" else _log_path(text)


Workers = Annotated[
    int | Literal["auto"],
    BeforeValidator(reading(_workers)),
    WithJsonSchema(
        {"anyOf": [{"const": "auto"}, {"type": "integer", "minimum": 1, "maximum": MAX_WORKERS}]}
    ),
]


def _host_name(text: str) -> None:
    if len(text) > 253 or not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?", text):
        port = re.fullmatch(r"([^:]+):[0-9]+", text)
        hint = f'without a port: "{port[1]}"' if port else 'for example "lb.internal"'
        raise BadValue(f'"{text}" is not a host name', hint)


HostName = Annotated[str, as_written(_host_name)]


def _accepted(text: str) -> str:
    code = text.partition(":")[0]
    if code not in WARNINGS:
        close = nearest(code, WARNINGS)
        raise BadValue(f'no warning has the code "{code}"',
                       f'did you mean "{close}"?' if close else "`lbcore check` shows the codes")
    return text


class Process(Table):
    """The lbcore process itself."""

    workers: Workers = key(
        "auto",
        'Worker processes. "auto" is one for each CPU that lbcore may use, by affinity and by '
        "the CPU limit of its container.",
        "processes",
    )
    drain_timeout: Duration = key(
        "30s",
        "How long connections may go on after lbcore was told to stop, or a worker was replaced. "
        '"0": they end at once.',
        "duration",
    )
    user: Line = key(
        "", "Workers become this user when lbcore starts as root. Empty: they stay.", "user name"
    )
    group: Line = key(
        "",
        "Workers become this group when lbcore starts as root. Empty: the main group of `user`.",
        "group name",
    )
    pid_file: Annotated[Line, as_written(lambda text: text and absolute(text))] = key(
        "", "File to write the process number of the supervisor to. Empty: none.", "absolute path"
    )
    accept_warnings: list[Annotated[str, AfterValidator(reading(_accepted))]] = key(
        [],
        'Warnings of `lbcore check` that are meant to be so, by the code in brackets behind them: '
        '"single-backend", or for one place "single-backend:pool.reports".',
        "codes of warnings",
        max_length=256,
    )
    pin_cpus: bool = key(True, "Whether each worker stays on a CPU of its own.", "switch")
    max_pipes: int = key(
        256,
        "Pipes that one worker may open for moving large streams inside the kernel (splice). "
        "0: streams are copied.",
        "pipes",
        ge=0,
        le=65536,
    )
    hang_timeout: Annotated[
        int,
        BeforeValidator(
            reading(lambda value: values.parse_duration(value, least_ms=LEAST_HANG_MS))
        ),
        duration_text,
        duration_schema,
    ] = key(
        "10s",
        "A worker that shows no sign of life for so long is killed and replaced. "
        "At least 2s: an idle worker shows one every second.",
        "duration",
    )


class Admin(Table):
    """Where the commands reach the running instance."""

    listen: Annotated[str, as_written(values.parse_bind)] | None = key(
        None,
        "Address of the control API. Absent: `unix:/run/lbcore/admin.sock` for root, otherwise "
        "`lbcore/admin.sock` in `$XDG_RUNTIME_DIR`, or `/tmp/lbcore-UID/admin.sock` without one. "
        "An address that other machines can reach needs `token_file`.",
        "address",
    )
    token_file: FilePath | None = key(
        None,
        "File whose first line is the token that every request over TCP must show "
        "(`Authorization: Bearer TOKEN`). Nobody may have access to it but its owner, and its "
        "group for reading. Read when the configuration is loaded. Absent: who reaches the address "
        "controls lbcore.",
        "path",
    )
    hosts: list[HostName] = key(
        [],
        "Names under which the address may be asked besides its IP address and localhost; other "
        "names in Host are refused, as web pages can make up names for any address.",
        "host names",
        max_length=64,
    )
    dashboard: bool = key(True, "Whether `/` is the dashboard.", "switch")
    metrics: bool = key(True, "Whether `/metrics` has figures for Prometheus.", "switch")


class Log(Table):
    """What lbcore says about itself."""

    level: Literal["debug", "info", "warning", "error"] = key(
        "info", "The least important messages that are written.", "level"
    )
    format: Literal["text", "json", "combined"] = key(
        "text",
        "text: lines for people, and access lines as JSON. json: everything as JSON. combined: "
        "access lines as Apache and nginx write them, the rest for people.",
        "format",
    )
    path: Annotated[Line, as_written(_own_log_path)] = key(
        "-",
        '"-" is standard error; "journal:" is systemd\'s journal, with fields to search for; '
        '"syslog:" or "syslog:FACILITY" is /dev/log; otherwise a file, opened again at SIGUSR1.',
        "absolute path",
    )
    access: Annotated[Line, as_written(_log_path)] | None = key(
        None,
        'The access log, a line for each request or connection: "-" is standard output; otherwise '
        "a file, opened again at SIGUSR1. Absent: none is written.",
        "absolute path",
    )


class ListenerKeys(Table):
    """What a listener has whatever its protocol."""

    name: Name = key(..., "Its name in `status`, logs and metrics.", "name")
    bind: Annotated[
        list[BindText],
        Field(min_length=1, max_length=256),
        BeforeValidator(lambda value: [value] if isinstance(value, str) else value),
        OrString("one address"),
    ] = key(
        ...,
        'Addresses to listen on: "IP:PORT", "[IPv6]:PORT" or "unix:/PATH", or "fd:NAME" for a '
        "socket that systemd passes under that name; one string, or a list.",
        "address",
    )
    protocol: Literal["tcp", "http"] = key(
        "tcp",
        "What the bytes mean. tcp relays them as they are. http: each request goes its own way.",
        "protocol",
    )
    pool: str | None = key(
        None,
        "The pool that everything goes to; with http, what no route takes. Absent, http only: "
        "that is answered with 404.",
        "name of a pool",
    )
    backlog: int = key(
        4096,
        "Connections that the kernel keeps per worker until it accepts them; "
        "net.core.somaxconn limits it further.",
        "connections",
        ge=1,
        le=65535,
    )
    max_connections: Count = key(
        0, "Connections at once, over all workers. 0: no limit.", "connections"
    )
    max_connections_per_source: Count = key(
        0,
        "Connections at once from one source address, over all workers. Workers that accept from "
        "it in the same instant may each exceed it by one. 0: no limit.",
        "connections",
    )
    client_idle_timeout: Duration = key(
        "10m",
        "tcp: a connection whose client neither sends nor takes anything for so long is closed. "
        '"0": never.',
        "duration",
    )
    half_closed_timeout: Duration = key(
        "30s",
        "How long a connection (http: one that was upgraded, such as a WebSocket) may stay silent "
        "after one side has finished sending. "
        '"0": no limit.',
        "duration",
    )
    proxy_protocol: bool = key(
        False,
        "Whether clients are balancers that begin with a PROXY header (version 1 or 2), which "
        "says who the real client is.",
        "switch",
    )
    proxy_trusted: list[Annotated[str, as_written(values.parse_network)]] = key(
        [],
        "Networks whose connections begin with a PROXY header; others are plain clients. "
        "Empty: every connection must begin with one.",
        "networks (CIDR)",
        max_length=1024,
    )
    proxy_header_timeout: PositiveDuration = key(
        "5s", "How long a client may take to send its PROXY header.", "duration"
    )
    defer_accept: Duration = key(
        "0",
        "Connections are accepted with their first bytes, or after so long without any "
        '(TCP_DEFER_ACCEPT). For protocols in which the client speaks first. "0": off.',
        "duration",
    )
    fastopen: int = key(
        0,
        "Pending TCP Fast Open requests that are allowed (TCP_FASTOPEN). 0: off.",
        "connections",
        ge=0,
        le=65535,
    )
    keepalive: bool = key(
        True,
        "Whether the kernel probes clients that are silent for 60 s, every 15 s (SO_KEEPALIVE). "
        "One that answers no probe is gone after 4 of them, or earlier by `tcp_user_timeout`.",
        "switch",
    )
    tcp_user_timeout: Duration = key(
        "30s",
        "How long data sent to a client may stay unacknowledged before the connection ends "
        '(TCP_USER_TIMEOUT). "0": the system default.',
        "duration",
    )
    unix_mode: Mode = key(
        "0666", "Permissions of unix sockets that lbcore listens on.", "file mode, octal"
    )


def _pool_required(schema: dict[str, Any]) -> None:
    """A tcp listener has nothing but its pool; pydantic cannot say so in the schema."""
    schema["if"] = {"properties": {"protocol": {"const": "http"}}, "required": ["protocol"]}
    schema["else"] = {"required": ["pool"]}


class Listener(HttpListener, ListenerKeys):
    """Where clients come in, and which pool serves them."""

    model_config = ConfigDict(json_schema_extra=_pool_required)


class Backend(Table):
    """One server of a pool. A string is short for a table with only `address`."""

    address: Annotated[str, as_written(values.parse_backend)] = key(
        ...,
        'Where it listens: "IP:PORT", "[IPv6]:PORT", "NAME:PORT" or "unix:/PATH". '
        "A name is resolved when the configuration is loaded and at every reload, and stands for "
        "one of its addresses.",
        "address",
    )
    name: Name | None = key(
        None, "Its name in commands, logs and metrics. Absent: its address.", "name"
    )
    weight: int = key(
        1, "Its share of the traffic beside the others. 0: nothing new.", "share", ge=0, le=1000
    )
    backup: bool = key(False, "Whether it is used only while no other one is left.", "switch")
    max_connections: Count = key(
        0,
        "Connections at once, over all workers; more wait in the pool's queue. 0: no limit.",
        "connections",
    )


BackendEntry = Annotated[
    Backend,
    BeforeValidator(lambda value: {"address": value} if isinstance(value, str) else value),
    OrString("the address"),
]


class Health(Table):
    """Active checks. Without this table, backends count as healthy until connecting fails."""

    type: Literal["tcp", "http"] = key(
        "tcp", "tcp: a connection opens. http: a GET is answered as expected.", "kind of check"
    )
    path: Annotated[Line, StringConstraints(pattern=r"^/[^\x00-\x20\x7f]*$")] = key(
        "/", "What http checks ask for.", "URL path"
    )
    host: Annotated[str, StringConstraints(pattern=r"^[^\x00-\x20\x7f]*$")] = key(
        "", "Host header of http checks. Empty: the backend's address.", "host name"
    )
    expect_status: list[StatusRange] = key(
        ["200-399"],
        'Statuses that pass an http check: numbers, or ranges such as "200-299".',
        "HTTP statuses",
        min_length=1,
        max_length=64,
    )
    expect_body: str = key(
        "",
        "Text that the first 64 KiB of the answer to an http check must contain. Empty: any.",
        "text",
        max_length=4096,
    )
    port: int = key(
        0, "Port to check instead of the backend's own. 0: its own.", "port", ge=0, le=65535
    )
    interval: PositiveDuration = key(
        "2s", "From one check of a backend to the next.", "duration"
    )
    fast_interval: PositiveDuration | None = key(
        None,
        "The interval while a backend is between two states. Absent: 500ms, or `interval` if "
        "that is shorter.",
        "duration",
    )
    jitter: float = key(
        0.1,
        "Checks move by up to this share of the interval, so that they do not come together.",
        "share, 0 to 0.5",
        ge=0,
        le=0.5,
    )
    timeout: PositiveDuration = key("1s", "A check that takes longer has failed.", "duration")
    rise: int = key(
        2, "Checks in a row that must pass before a backend is up again.", "checks", ge=1, le=1000
    )
    fall: int = key(
        3, "Checks in a row that must fail before a backend is down.", "checks", ge=1, le=1000
    )


class EjectionKeys(Table):
    """What ejection has whatever the protocol."""

    failures: int = key(
        5,
        "Failures in a row (connecting fails, or a reset comes before the first byte) that eject "
        "a backend. 0: never.",
        "failures",
        ge=0,
        le=1_000_000,
    )
    base: PositiveDuration = key(
        "10s", "Length of the first ejection; the n-th in a row is n times as long.", "duration"
    )
    max: PositiveDuration = key("5m", "The longest ejection.", "duration")
    max_share: Share = key(
        0.5, "Share of the pool that may be ejected at the same time.", "share, 0 to 1"
    )


class Ejection(HttpEjection, EjectionKeys):
    """Taking a backend out because of what real connections and requests meet."""


class PoolKeys(Table):
    """What a pool has whatever the protocol."""

    balance: Literal["round_robin", "least_conn", "random", "consistent"] = key(
        "round_robin",
        "How a backend is picked. round_robin: in turn, by weight. least_conn: the fewest "
        "connections for its weight, over all workers. random: the better of two drawn by lot. "
        "consistent: by a hash, so that the same key meets the same backend.",
        "algorithm",
    )
    hash: Literal["maglev", "ketama"] = key(
        "maglev",
        "Table of consistent. maglev: even, one look-up. ketama: picks what nginx's "
        "`hash ... consistent` picks.",
        "algorithm",
    )
    hash_on: Annotated[str, as_written(http_values.parse_hash_on)] = key(
        "source_ip",
        "What consistent hashes: source_ip, the address of the client; with http also header:NAME, "
        "cookie:NAME, query:NAME, path, or uri (path and query). Without that field, cookie or "
        "parameter: the address.",
        "key",
    )
    load_bound: float = key(
        0.0,
        "consistent gives no backend more than this many times the mean load; what is above goes "
        "to the next one. At least 1.01, usually 1.25. 0: no bound.",
        "times the mean",
        ge=0,
        le=1000,
    )
    backends: list[BackendEntry] = key(
        [], "The servers: addresses, or tables with the keys below.", "backends"
    )
    discover: Discover | None = key(
        None, "Where backends come from while lbcore runs. Absent: nowhere else.", "table"
    )
    demo: int = key(
        0,
        "Small demonstration servers that lbcore starts itself and adds to the pool.",
        "servers",
        ge=0,
        le=64,
    )
    connect_timeout: PositiveDuration = key(
        "2s", "How long one attempt to connect may take.", "duration"
    )
    connect_attempts: int = key(
        3,
        "Backends to try for one connection, the first included, before giving up.",
        "attempts",
        ge=1,
        le=1000,
    )
    connect_budget: PositiveDuration = key(
        "6s", "How long all the attempts for one connection may take together.", "duration"
    )
    queue_timeout: PositiveDuration = key(
        "5s",
        "How long a connection or request may wait for a backend that is free, before it is reset "
        "or answered with 503.",
        "duration",
    )
    max_queue: Count = key(
        1024,
        "Connections and requests that may wait at once, over all workers. 0: none waits.",
        "connections",
    )
    server_idle_timeout: Duration = key(
        "10m",
        "tcp: a connection whose backend neither sends nor takes anything for so long is closed. "
        '"0": never.',
        "duration",
    )
    slow_start: Duration = key(
        "0",
        "A backend that comes back gets its full share only after so long, growing steadily. "
        '"0": at once.',
        "duration",
    )
    panic_threshold: Share = key(
        0.0,
        "When fewer than this share of the backends is healthy, all are tried, rather than "
        "crushing the last few. 0: never.",
        "share, 0 to 1",
    )
    send_proxy: Literal["off", "v1", "v2"] = key(
        "off",
        "PROXY header to begin upstream connections with, which tells backends who the client "
        "is. They must expect it.",
        "version",
    )
    source: Annotated[str, as_written(values.parse_source)] | None = key(
        None,
        "Local address that upstream connections come from. Absent: the system picks.",
        "IP address",
    )
    source_transparent: bool = key(
        False,
        "Whether upstream connections come from the client's own address (IP_TRANSPARENT). "
        "Needs CAP_NET_ADMIN, so `user` must be empty, and routes that bring the answers back to "
        "lbcore.",
        "switch",
    )
    keepalive: bool = key(
        True,
        "Whether the kernel probes backends that are silent for 60 s, every 15 s (SO_KEEPALIVE). "
        "One that answers no probe is gone after 4 of them, or earlier by `tcp_user_timeout`.",
        "switch",
    )
    tcp_user_timeout: Duration = key(
        "30s",
        "How long data sent to a backend may stay unacknowledged before the connection ends "
        '(TCP_USER_TIMEOUT). "0": the system default.',
        "duration",
    )
    health: Health | None = key(None, "Active checks. Absent: none.", "table")
    ejection: Ejection = Field(
        default_factory=Ejection,
        description="Passive ejection, by what real connections meet. Absent: its defaults.",
        json_schema_extra={"x-unit": "table"},
    )


class Pool(AppKeys, HttpPool, PoolKeys):
    """Backends, and how one of them is picked for a connection or request."""


class Config(Table):
    """A whole lb.toml."""

    lbcore: Process = Field(
        default_factory=Process,
        description="The process.",
        json_schema_extra={"x-unit": "table"},
    )
    admin: Admin = Field(
        default_factory=Admin,
        description="The control API.",
        json_schema_extra={"x-unit": "table"},
    )
    log: Log = Field(
        default_factory=Log, description="The log.", json_schema_extra={"x-unit": "table"}
    )
    listener: list[Listener] = key(
        [], "Where clients come in: one `[[listener]]` each.", "tables", max_length=MAX_LISTENERS
    )
    pool: dict[Name, Pool] = key(
        {}, "Backends by name: one `[pool.NAME]` each.", "tables", max_length=MAX_POOLS
    )
