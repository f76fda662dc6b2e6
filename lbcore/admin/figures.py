"""What metrics are made of: rows of figures, and where they come from.

The supervisor gathers them (``lbcore.supervisor.figures``); ``lbcore.admin.metrics`` writes them
down. Durations are seconds, sizes are bytes, moments are seconds of the wall clock. What is called
a total only grows: over reloads, over the deaths of workers and over upgrades.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from lbcore._figures import BACKEND_FIELDS, LISTENER_FIELDS, ROUTE_FIELDS

# The counters of a row under the names that the scoreboard has for them.
_named: Any = namedtuple             # of fields that are known when this runs
BackendCounters = _named("BackendCounters", BACKEND_FIELDS)
ListenerCounters = _named("ListenerCounters", LISTENER_FIELDS)
RouteCounters = _named("RouteCounters", ROUTE_FIELDS)

# Bounds of histogram buckets in microseconds: about 1, 2.5, 5, 10, and each of them one at which a
# bucket of the scoreboard ends, so that every count is exact. What takes longer than the last one
# is not told apart by the scoreboard either.
BOUNDS_US = (512, 1024, 2560, 5120, 10240, 24576, 49152, 98304, 262144, 524288, 1048576, 2621440,
             5242880, 10485760, 29360128)


@dataclass(frozen=True, slots=True)
class Times:
    """Durations that were counted."""

    up_to: tuple[int, ...] = (0,) * (len(BOUNDS_US) + 1)    # by BOUNDS_US; all in the last place
    total_s: float = 0.0             # estimated: each taken for the middle of its bucket


@dataclass(frozen=True, slots=True)
class ListenerFigures:
    """A listener."""

    name: str
    protocol: str
    pool: str                        # "": none
    max_connections: int             # 0: no limit
    counted: Any                     # ListenerCounters

    @property
    def labels(self) -> tuple[str, ...]:
        """Values of the labels that its metrics have."""
        return (self.name,)


@dataclass(frozen=True, slots=True)
class RouteFigures:
    """A route of a listener."""

    listener: str
    name: str
    action: str
    pool: str                        # "": none
    counted: Any                     # RouteCounters
    times: Times

    @property
    def labels(self) -> tuple[str, ...]:
        """Values of the labels that its metrics have."""
        return (self.listener, self.name)


@dataclass(frozen=True, slots=True)
class PoolFigures:
    """A pool. Flags say how it gets by at the moment."""

    name: str
    balance: str
    states: Mapping[str, int]        # how many backends are in each state
    panic: bool
    backup: bool
    inflight: int
    waiting: int
    queued: int                      # total
    max_queue: int
    discovery_fails: bool | None     # None: its backends are not discovered

    @property
    def labels(self) -> tuple[str, ...]:
        """Values of the labels that its metrics have."""
        return (self.name,)


@dataclass(frozen=True, slots=True)
class BackendFigures:
    """A backend."""

    pool: str
    name: str
    address: str
    role: str                        # "primary" or "backup"
    http: bool                       # an http listener sends requests to its pool
    checked: bool                    # has active checks
    state: str
    forced: bool                     # by an operator
    weight: int
    ramp: float                      # slow start: share of the weight, 0..1
    failures: int                    # in a row, at the moment
    check_s: float | None            # how long the last check took
    check_at: float | None
    passed: int                      # checks
    failed: int
    ejections: int
    withheld: int
    changes: int                     # of its state
    counted: Any                     # BackendCounters
    connect: Times
    response: Times

    @property
    def labels(self) -> tuple[str, ...]:
        """Values of the labels that its metrics have."""
        return (self.pool, self.name)


@dataclass(frozen=True, slots=True)
class WorkerFigures:
    """A slot with the worker in it, and what is left of earlier ones: draining, or ended."""

    slot: int
    serving: bool
    connections: int
    requests: int
    idle_upstreams: int
    pipes: int
    buffers: int
    spool_bytes: int
    plan_version: int                # the oldest that one of them works by; 0: nobody is there
    heartbeat_age_s: float | None
    accepted: int                    # totals, of ended workers of the slot too
    turns: int
    accept_pauses: int
    accept_errors: int
    sources_untracked: int
    cpu_s: float
    starts: int
    deaths: int
    hangs: int
    start_failures: int
    resident_bytes: int
    open_fds: int | None             # None: not permitted to look
    max_fds: int | None

    @property
    def labels(self) -> tuple[str, ...]:
        """Values of the labels that its metrics have."""
        return (str(self.slot),)


@dataclass(frozen=True, slots=True)
class InstanceFigures:
    """The instance as a whole."""

    version: str
    python: str
    plan_version: int
    plan_applied_at: float
    started_at: float
    counting_since: float            # since when totals count
    generation: int
    stopping: bool
    differences: int                 # from the file
    changes: int                     # at run time, total
    discovered: Mapping[str, int]    # answers of discovery sources by result
    workers_wanted: int
    processes: Mapping[str, int]     # workers by phase, and "orphan": of an earlier supervisor
    events: Mapping[str, int]        # by level
    reloads: Mapping[str, int]       # by result: "ok", "failed"
    reload_ok: bool                  # the last one
    upgrades: Mapping[str, int]      # by result
    app_deaths: int
    log_dropped: int
    access_lines: int
    access_dropped: int
    rates_forgotten: int
    learnt_forgotten: int
    sizes: Mapping[str, int] = field(default_factory=dict)   # rows of each kind in the plan


class FigureSource(Protocol):
    """Whoever knows the figures of a running instance.

    Iterators read as they go, a block of rows at a time: between two rows others may have their
    turn, and a row that leaves the plan meanwhile is left out.
    """

    def instance(self) -> InstanceFigures:
        """The instance."""

    def workers(self) -> Iterator[WorkerFigures]:
        """Every slot, by number."""

    def listeners(self) -> Iterator[ListenerFigures]:
        """Listeners in the order of the plan."""

    def routes(self) -> Iterator[RouteFigures]:
        """Routes of http listeners in the order in which they are tried."""

    def pools(self) -> Iterator[PoolFigures]:
        """Pools in the order of the plan."""

    def backends(self) -> Iterator[BackendFigures]:
        """Backends, pool by pool."""
