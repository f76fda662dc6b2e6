"""The metrics of listeners, routes, pools, backends and workers: names, help and where from.

Names follow https://prometheus.io/docs/practices/naming/: base units, ``_total`` for what only
grows. docs/guide/metrics.md has a row for each, which a test compares with what is served.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lbcore._figures import BACKEND_FIELDS, LISTENER_FIELDS, ROUTE_FIELDS
from lbcore._scoreboard import END_REASON_NAMES, HTTP_END_NAMES, STATUS_NAMES
from lbcore.admin.exposition import Family, labels, times

Get = Callable[[Any], object]
ESTIMATED = ("Its sum is estimated: each duration is taken for the middle of one of 96 narrow "
             "buckets.")
STATES = ("up", "down", "ejected", "drain")
_STATE_ROWS = {state: tuple(int(state == other) for other in STATES) for state in STATES}
# Where runs of counters begin.
_ENDED = LISTENER_FIELDS.index(f"ended_{END_REASON_NAMES[0]}")
_HTTP_ENDED = LISTENER_FIELDS.index(f"http_ended_{HTTP_END_NAMES[0]}")
_STATUS = ROUTE_FIELDS.index(f"status_{STATUS_NAMES[0]}")
_B_STATUS = BACKEND_FIELDS.index(f"status_{STATUS_NAMES[0]}")


class _Kind:
    """Families that share the labels of a row."""

    def __init__(self, prefix: str, *names: str) -> None:
        self.prefix, self.names = prefix, names

    def counter(self, name: str, text: str, get: Get) -> Family:
        return Family(self.prefix + name, "counter", text, self.names, _one(get))

    def gauge(self, name: str, text: str, get: Get) -> Family:
        return Family(self.prefix + name, "gauge", text, self.names, _one(get))

    def counters(self, name: str, text: str, label: str, values: Sequence[str],
                 get: Callable[[Any], tuple[object, ...] | None]) -> Family:
        return Family(self.prefix + name, "counter", text, self.names, get, label, values)

    def gauges(self, name: str, text: str, label: str, values: Sequence[str],
               get: Callable[[Any], tuple[object, ...] | None]) -> Family:
        return Family(self.prefix + name, "gauge", text, self.names, get, label, values)

    def histogram(self, name: str, text: str,
                  get: Callable[[Any], tuple[object, ...] | None]) -> Family:
        return Family(self.prefix + name, "histogram", f"{text} {ESTIMATED}", self.names, get)

    def info(self, text: str, *names: str) -> Family:
        def get(row: Any) -> tuple[object, ...]:
            return (labels((name, str(getattr(row, name))) for name in names),)

        return Family(self.prefix + "info", "info", text, self.names, get, ",".join(names))


def _one(get: Get) -> Callable[[Any], tuple[object, ...] | None]:
    def found(row: Any) -> tuple[object, ...] | None:
        value = get(row)
        return None if value is None else (value,)

    return found


def _http_only(get: Get) -> Get:
    return lambda row: get(row) if row.protocol == "http" else None


_L = _Kind("lbcore_listener_", "listener")
LISTENER = (
    _L.info("What a listener is; the value is always 1.", "protocol", "pool"),
    _L.gauge("connections", "Open client connections.", lambda r: r.counted.connections),
    _L.gauge("max_connections", "Client connections that the listener takes at once; there is "
             "none without a limit.", lambda r: r.max_connections or None),
    _L.counter("accepted_connections_total", "Client connections accepted.",
               lambda r: r.counted.accepted),
    _L.counters("closed_connections_total", "Client connections that have ended, by reason.",
                "reason", END_REASON_NAMES, lambda r: r.counted[_ENDED:_HTTP_ENDED]),
    _L.counter("accept_pauses_total", "Times that accepting paused at the limit of connections.",
               lambda r: r.counted.paused),
    _L.counter("received_bytes_total", "Bytes received from clients.",
               lambda r: r.counted.bytes_up),
    _L.counter("sent_bytes_total", "Bytes sent to clients.", lambda r: r.counted.bytes_down),
    _L.counter("requests_total", "HTTP requests begun.",
               _http_only(lambda r: r.counted.requests)),
    _L.counters("exchanges_total", "HTTP exchanges that have ended, by reason; ok: the response is "
                "complete, whatever its status.", "reason", HTTP_END_NAMES,
                lambda r: r.counted[_HTTP_ENDED:] if r.protocol == "http" else None),
)

_R = _Kind("lbcore_route_", "listener", "route")
ROUTE = (
    _R.info("What a route does; the value is always 1.", "action", "pool"),
    _R.counter("requests_total", "HTTP exchanges that the route took, counted when they end.",
               lambda r: r.counted.requests),
    _R.counters("responses_total", "Responses to clients by class of their status; none: the "
                "client got no response.", "class", STATUS_NAMES, lambda r: r.counted[_STATUS:]),
    _R.counter("retries_total", "Requests that were sent once more.", lambda r: r.counted.retries),
    _R.counter("received_bytes_total", "Bytes of requests, heads included.",
               lambda r: r.counted.bytes_up),
    _R.counter("sent_bytes_total", "Bytes of responses, heads included.",
               lambda r: r.counted.bytes_down),
    _R.histogram("duration_seconds", "From the start of a request to the end of its response, "
                 "tunnels aside.", lambda r: times(r.times)),
)

_P = _Kind("lbcore_pool_", "pool")
POOL = (
    _P.info("How a pool balances; the value is always 1.", "balance"),
    _P.gauges("backends", "Backends by state.", "state", STATES,
              lambda r: tuple(r.states.get(state, 0) for state in STATES)),
    _P.gauge("panic", "1 while so few backends are up that all are tried.", lambda r: int(r.panic)),
    _P.gauge("backup_active", "1 while backups take the traffic because no primary is up.",
             lambda r: int(r.backup)),
    _P.gauge("inflight", "Connections (tcp) or requests (http) that its backends have now.",
             lambda r: r.inflight),
    _P.gauge("queue_length", "Connections or requests that wait for a backend now.",
             lambda r: r.waiting),
    _P.gauge("queue_limit", "How many may wait at once.", lambda r: r.max_queue),
    _P.counter("queued_total", "Connections or requests that had to wait for a backend.",
               lambda r: r.queued),
    _P.gauge("discovery_failing", "1 while the pool keeps the backends that it has because those "
             "who are to name them give no usable answer.",
             lambda r: None if r.discovery_fails is None else int(r.discovery_fails)),
)

_B = _Kind("lbcore_backend_", "pool", "backend")
BACKEND = (
    _B.info("Where a backend is; the value is always 1.", "address", "role"),
    _B.gauge("up", "1 if the backend takes traffic: not down, ejected or draining.",
             lambda r: int(r.state == "up")),
    _B.gauges("state", "1 for the state that the backend is in, 0 for the others.", "state", STATES,
              lambda r: _STATE_ROWS.get(r.state, (0,) * len(STATES))),
    _B.gauge("forced", "1 while an operator forces its state, whatever checks and traffic say.",
             lambda r: int(r.forced)),
    _B.gauge("weight", "Weight in force, slow start aside.", lambda r: r.weight),
    _B.gauge("slow_start_ratio", "Share of its weight that slow start gives it; 1 when that is "
             "over.", lambda r: r.ramp),
    _B.gauge("inflight", "Connections (tcp) or requests (http) that it has now.",
             lambda r: r.counted.inflight),
    _B.gauge("consecutive_failures", "Failures in a row that traffic has met.",
             lambda r: r.failures),
    _B.counter("connections_total", "Connections established.", lambda r: r.counted.connections),
    _B.counters("connect_failures_total", "Connections that failed before the backend said "
                "anything: refused, timed out, or reset early.", "reason",
                ("refused", "timeout", "early_reset"),
                lambda r: (r.counted.refused, r.counted.timeouts, r.counted.early_resets)),
    _B.counter("redispatches_total", "Connections that went on to another backend after this one "
               "failed.", lambda r: r.counted.redispatched),
    _B.counter("sent_bytes_total", "Bytes sent to the backend.", lambda r: r.counted.bytes_up),
    _B.counter("received_bytes_total", "Bytes received from the backend.",
               lambda r: r.counted.bytes_down),
    _B.histogram("connect_duration_seconds", "Time to connect.", lambda r: times(r.connect)),
    _B.counter("requests_total", "HTTP requests sent to the backend.",
               lambda r: r.counted.requests if r.http else None),
    _B.counters("responses_total", "Responses of the backend by class of their status; none: it "
                "gave no response.", "class", STATUS_NAMES,
                lambda r: r.counted[_B_STATUS:] if r.http else None),
    _B.counter("retries_total", "Requests that went on to another backend after a response of this "
               "one.", lambda r: r.counted.retries if r.http else None),
    _B.counter("reused_connections_total", "Requests sent on a connection that was open already.",
               lambda r: r.counted.reused if r.http else None),
    _B.histogram("response_duration_seconds", "From the end of a request to the first byte of its "
                 "response.", lambda r: times(r.response) if r.http else None),
    _B.counters("checks_total", "Active health checks by result.", "result", ("passed", "failed"),
                lambda r: (r.passed, r.failed) if r.checked else None),
    _B.gauge("check_duration_seconds", "How long the last active check took.", lambda r: r.check_s),
    _B.gauge("last_check_timestamp_seconds", "When the last active check ended.",
             lambda r: r.check_at),
    _B.counter("ejections_total", "Times that traffic's failures took it out of service.",
               lambda r: r.ejections),
    _B.counter("ejections_withheld_total", "Ejections that did not happen because too many "
               "backends of the pool were out.", lambda r: r.withheld),
    _B.counter("state_changes_total", "Changes of its state, whatever the reason.",
               lambda r: r.changes),
)

_W = _Kind("lbcore_worker_", "worker")
WORKER = (
    _W.gauge("up", "1 if a worker serves the slot.", lambda r: int(r.serving)),
    _W.gauge("connections", "Open client connections.", lambda r: r.connections),
    _W.gauge("requests", "HTTP exchanges under way.", lambda r: r.requests),
    _W.gauge("idle_upstream_connections", "Connections to backends that wait for a request.",
             lambda r: r.idle_upstreams),
    _W.gauge("pipes", "Pipes in use for splice.", lambda r: r.pipes),
    _W.gauge("buffers", "Buffers held by connections and exchanges.", lambda r: r.buffers),
    _W.gauge("spool_bytes", "Bytes of buffered bodies, in memory and on disk.",
             lambda r: r.spool_bytes),
    _W.gauge("plan_version", "The oldest plan that a worker of the slot works by; orders to single "
             "backends reach it without another one.",
             lambda r: r.plan_version or None),
    _W.gauge("heartbeat_age_seconds", "Since the worker's event loop last turned.",
             lambda r: r.heartbeat_age_s),
    _W.counter("accepted_connections_total", "Client connections accepted.", lambda r: r.accepted),
    _W.counter("loop_turns_total", "Turns of the event loop.", lambda r: r.turns),
    _W.counter("accept_pauses_total", "Times that accepting paused for want of descriptors or "
               "memory.", lambda r: r.accept_pauses),
    _W.counter("accept_errors_total", "Connections that could not be accepted.",
               lambda r: r.accept_errors),
    _W.counter("sources_untracked_total", "Connections that were not held against the limit per "
               "source address because its table was full.", lambda r: r.sources_untracked),
    _W.counter("starts_total", "Workers that began to serve the slot.", lambda r: r.starts),
    _W.counter("deaths_total", "Workers of the slot that ended without being told to.",
               lambda r: r.deaths),
    _W.counter("hangs_total", "Workers of the slot that hung, and were killed for it.",
               lambda r: r.hangs),
    _W.counter("start_failures_total", "Workers that could not be started.",
               lambda r: r.start_failures),
    _W.counter("cpu_seconds_total", "CPU time of the slot's workers, user and system.",
               lambda r: r.cpu_s),
    _W.gauge("resident_memory_bytes", "Resident memory of the slot's workers.",
             lambda r: r.resident_bytes),
    _W.gauge("open_fds", "Descriptors that they have open.", lambda r: r.open_fds),
    _W.gauge("max_fds", "Descriptors that one of them may have open.", lambda r: r.max_fds),
)
