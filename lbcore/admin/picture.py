"""What a running instance tells of itself, as models: status, state and live figures.

They describe the answers for the OpenAPI document and for typed clients; a client that reads with
them takes no offence at keys that a later version adds. ``models.py`` has everything else.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

Moment = Annotated[
    str,
    WithJsonSchema({"type": "string", "format": "date-time"}),
    Field(description="In UTC, to the millisecond."),
]
Rate = Annotated[float | None, Field(description="Per second; null: nobody counts this.")]
Ms = Annotated[float | None, Field(description="Milliseconds; null: nothing was counted.")]
Level = Literal["debug", "info", "warning", "error"]
Forced = Literal["up", "down"]


class Answer(BaseModel):
    """What all answers have in common: later versions may add keys."""

    model_config = ConfigDict(extra="ignore", frozen=True, defer_build=True)


class Versioned(Answer):
    """An answer that says which version it is about."""

    plan_version: int = Field(
        description="Of what is in force. Every change raises it; `If-Match` compares with it.")


class Quantiles(Answer):
    """What half, nine of ten and 99 of 100 stayed below, since the start. In milliseconds."""

    p50: Ms
    p90: Ms
    p99: Ms


class PlanStatus(Answer):
    """What is in force, and since when."""

    version: int
    applied_at: Moment
    file_version: int | None = Field(
        None, description="The version that the file was last put into force with.")


class UpgradeStatus(Answer):
    """How the last upgrade went."""

    state: Literal["none", "running", "done", "failed"]
    finished: Moment | None = None
    error: str | None = None


class AccessLogStatus(Answer):
    """The access log: lines written and dropped since the start."""

    path: str
    format: str
    lines: int
    dropped: int


class WorkerStatus(Answer):
    """A worker process. Without a process (`pid` null) only slot, state and error are there."""

    slot: int
    pid: int | None
    state: str = Field(description="starting, serving, draining or down.")
    error: str | None = Field(None, description="Why there is no process.")
    seat: int | None = Field(None, description="Its row in the scoreboard.")
    uptime_s: float | None = None
    cpu: int | None = Field(None, description="The CPU that it stays on.")
    cpu_percent: float | None = Field(None, description="Of one CPU.")
    connections: int | None = None
    accepted: int | None = Field(None, description="Connections since its start.")
    accepts_per_s: float | None = None
    requests: int | None = None
    plan_version: int | None = Field(None, description="The version that it serves.")
    pipes: int | None = Field(None, description="Open for splice.")
    buffers: int | None = None
    idle_upstreams: int | None = Field(None, description="Kept connections to backends.")
    spool_bytes: int | None = Field(None, description="Request bodies kept on disk.")
    sources_untracked: int | None = None
    accept_pauses: int | None = None
    accept_errors: int | None = None
    heartbeat_age_ms: int | None = Field(None, description="Since its last sign of life.")
    uss_bytes: int | None = Field(None, description="Memory of its own.")
    rss_bytes: int | None = Field(None, description="Memory with what it shares.")


class RouteStatus(Answer):
    """A route of an http listener, with what it counted since the start."""

    name: str
    action: str
    pool: str | None
    requests: int
    status: dict[str, int] = Field(description="Answers by class: none, 1xx to 5xx.")
    retries: int
    bytes_up: int
    bytes_down: int
    total_ms: Quantiles


class ListenerStatus(Answer):
    """A listener, with what it counted since the start. What only http has is absent for tcp."""

    name: str
    protocol: Literal["tcp", "http"]
    bind: list[str]
    pool: str | None
    connections: int = Field(description="At this moment.")
    accepted: int
    bytes_up: int
    bytes_down: int
    paused: int
    ended: dict[str, int] = Field(description="Why connections ended.")
    requests: int | None = None
    http_ended: dict[str, int] | None = Field(None, description="Why exchanges ended.")
    status: dict[str, int] | None = None
    retries: int | None = None
    routes: list[RouteStatus] | None = None


class CheckResult(Answer):
    """How the last check ended; `ok` null: it could not be made."""

    ok: bool | None
    detail: str
    ms: Ms
    at: Moment | None = None


class BackendStatus(Answer):
    """A backend, with what it counted since the start."""

    name: str
    address: str
    resolved: str = Field(description="The numeric address that its name stands for.")
    backup: bool
    state: str = Field(description="up, down, ejected or drain.")
    since: Moment
    reason: str
    draining: bool
    underlying: str = Field(description="The state as it would be without drain and force.")
    forced: Forced | None = None
    runtime: bool = Field(False, description="Whether it is not in the file.")
    weight: int
    weight_configured: int
    weight_overridden: bool
    max_connections: int | None = None
    ramp: int = Field(description="Slow start: its share of its weight, of 256.")
    inflight: int
    connections: int
    failures: int
    refused: int
    timeouts: int
    early_resets: int
    redispatched: int
    failures_in_a_row: int
    bytes_up: int
    bytes_down: int
    requests: int
    status: dict[str, int]
    retries: int
    reused: int
    response_ms: Quantiles
    ejections: int
    ejected_until: Moment | None
    last_check: CheckResult | None


class AppServerStatus(Answer):
    """One server process of an application."""

    backend: str
    pid: int | None
    state: str
    since: Any
    restarts: int
    error: str | None


class AppStatus(Answer):
    """The application that a pool runs."""

    application: str
    server: str
    generation: int
    failed: Any = Field(description="Why the last attempt to replace it failed; null: it did not.")
    retiring: int
    servers: list[AppServerStatus]


class PoolStatus(Answer):
    """A pool with its backends."""

    name: str
    balance: str
    state: str = Field(description="normal, backup, panic, backup panic or none.")
    source: str = Field("file", description="file, watched file, callable or api.")
    inflight: int
    waiting: int
    queued: int
    app: AppStatus | None
    backends: list[BackendStatus]


class Status(Versioned):
    """The whole picture."""

    version: str
    pid: int
    generation: int = Field(description="Counts upgrades, from 1.")
    state: str = Field(description="running, draining or now (both: it is ending).")
    started: Moment
    time: Moment
    uptime_s: float
    config: str = Field(description="The configuration file.")
    admin: str = Field(description="The admin address.")
    plan: PlanStatus
    changes: int = Field(description="How many differences from the file are in force.")
    events: int = Field(description="The number of the last event.")
    upgrade: UpgradeStatus
    workers_wanted: int
    log_lines_dropped: int
    access_log: AccessLogStatus
    rates_forgotten: int
    learnt_forgotten: int
    workers: list[WorkerStatus]
    listeners: list[ListenerStatus]
    pools: list[PoolStatus]


# -- the picture in short, for the stream


class SlimWorker(Answer):
    """A worker, in short."""

    slot: int
    pid: int | None
    state: str
    cpu_percent: float | None
    connections: int | None
    accepts_per_s: float | None
    rss_bytes: int | None
    requests: int | None


class SlimRoute(Answer):
    """A route, in short."""

    name: str
    action: str
    pool: str | None
    match: str = Field(description="What it takes, for people.")


class SlimListener(Answer):
    """A listener, in short."""

    name: str
    protocol: Literal["tcp", "http"]
    bind: list[str]
    pool: str | None
    connections: int
    routes: list[SlimRoute]


class SlimBackend(Answer):
    """A backend, in short."""

    name: str
    address: str
    state: str
    since: Moment
    reason: str
    weight: int
    weight_configured: int
    backup: bool
    draining: bool
    forced: Forced | None
    runtime: bool
    inflight: int
    last_check: CheckResult | None


class SlimPool(Answer):
    """A pool, in short."""

    name: str
    balance: str
    state: str
    inflight: int
    waiting: int
    app: AppStatus | None
    source: str = "file"
    backends: list[SlimBackend]


class Slim(Versioned):
    """The picture without what the live figures have."""

    version: str
    pid: int
    state: str
    started: Moment
    time: Moment
    uptime_s: float
    plan: PlanStatus
    changes: int
    generation: int
    upgrade: UpgradeStatus
    workers_wanted: int
    admin: str
    config: str
    workers: list[SlimWorker]
    listeners: list[SlimListener]
    pools: list[SlimPool]


# -- rates and latencies of the last seconds


class LiveListener(Answer):
    """A listener's last seconds. With tcp, what belongs to requests is null."""

    requests_per_s: Rate
    connections_per_s: Rate
    connections: int | None
    bytes_up_per_s: Rate
    bytes_down_per_s: Rate
    errors_per_s: Rate
    p50_ms: Ms
    p90_ms: Ms
    p99_ms: Ms
    status: dict[str, float] | None = Field(description="Answers by class, per second.")


class LiveTotal(LiveListener):
    """The last seconds of all listeners together."""


class LiveRoute(Answer):
    """A route's last seconds."""

    requests_per_s: Rate
    errors_per_s: Rate
    bytes_up_per_s: Rate
    bytes_down_per_s: Rate
    p50_ms: Ms
    p90_ms: Ms
    p99_ms: Ms
    status: dict[str, float] | None


class LivePool(Answer):
    """A pool's last seconds."""

    requests_per_s: Rate
    connections_per_s: Rate
    errors_per_s: Rate
    retries_per_s: Rate
    queued_per_s: Rate
    inflight: int
    waiting: int
    p50_ms: Ms
    p90_ms: Ms
    p99_ms: Ms


class LiveBackend(Answer):
    """A backend's last seconds."""

    requests_per_s: Rate
    connections_per_s: Rate
    errors_per_s: Rate
    bytes_up_per_s: Rate
    bytes_down_per_s: Rate
    inflight: int
    p50_ms: Ms
    p99_ms: Ms


class Live(Answer):
    """Rates and latencies over the last `window_s` seconds.

    Errors: with http, answers 5xx and exchanges that ended badly; with tcp, connections refused,
    timed out or reset early. Latency: of http, until the answer's head; of tcp, of connecting.
    """

    window_s: float
    time: Moment
    total: LiveTotal
    listeners: dict[str, LiveListener]
    routes: dict[str, dict[str, LiveRoute]]
    pools: dict[str, LivePool]
    backends: dict[str, dict[str, LiveBackend]]
