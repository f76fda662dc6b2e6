"""What the health monitor takes and gives: the words it shares with the supervisor."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from lbcore.config.plan import Address, BackendPlan, PoolPlan


@dataclass(frozen=True, slots=True)
class Member:
    """A backend with its row in the scoreboard and its resolved, numeric address."""

    row: int
    plan: BackendPlan
    address: Address


@dataclass(frozen=True, slots=True)
class PoolRows:
    """A pool with its row in the scoreboard."""

    row: int
    plan: PoolPlan
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class Orders:
    """What an operator wants of one backend, whatever checks and traffic say."""

    drain: bool = False             # nothing new, except for sessions that began there
    weight: int | None = None       # in the place of the configured one
    force: str = ""                 # "up", "down", or nothing


@dataclass(frozen=True, slots=True)
class HealthEvent:
    """A state that has changed.

    ``backend`` is empty for the pool itself, whose states are "normal", "backup", "panic",
    "backup panic" and "none" (nobody takes traffic). ``since`` is when, in seconds of the wall
    clock.
    """

    pool: str
    backend: str
    old: str
    new: str
    reason: str
    since: float


@dataclass(slots=True)
class HealthCounts:
    """What has happened to a backend since it is known. Never goes back, also over an upgrade."""

    checks_passed: int = 0
    checks_failed: int = 0
    ejections: int = 0
    withheld: int = 0               # ejections that the pool's share did not allow
    changes: int = 0                # of the state that people see


@dataclass(frozen=True, slots=True)
class BackendHealth:
    """Everything known about one backend. Times are seconds of the wall clock."""

    state: str                      # "up", "down", "ejected", "drain"
    since: float
    reason: str                     # of the state, for people
    underlying: str                 # the state as it would be without drain and force
    draining: bool
    checked: bool                   # has active checks
    last_check_ok: bool | None      # None: none ended yet, or it could not be made
    last_check_detail: str
    last_check_ms: float | None     # from connect to verdict
    last_check_at: float | None
    consecutive_ok: int
    consecutive_fail: int
    ejected_until: float | None
    ejections: int                  # still held against it
    withheld: int                   # ejections that the pool's share did not allow
    ramp: int                       # slow start, 0..256
    weight: int                     # in force
    weight_overridden: bool
    forced: str | None = None       # "up" or "down", by an operator
    counts: HealthCounts = field(default_factory=HealthCounts)


class Board(Protocol):
    """What the monitor needs of ``lbcore._scoreboard.Scoreboard``."""

    def set_backend(self, row: int, state: int, weight: int, ramp: int = ...,
                    eject_after: int = ...) -> None:
        """State, weight, slow-start share and passive threshold of a backend."""

    def failures(self, row: int) -> int:
        """Failures in a row that traffic met, over all workers."""

    def set_failures(self, row: int, count: int) -> None:
        """Sets the failures in a row."""

    def set_pool(self, row: int, flags: int, total_weight: int) -> None:
        """Flags of a pool and the sum of the weights of those who take traffic."""
