"""What the monitor remembers about one backend and one pool."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from lbcore.config.plan import PoolPlan
from lbcore.health import ejection, slow_start
from lbcore.health.ledger import Entry, Ledger, Mode
from lbcore.health.model import BackendHealth, HealthCounts, Member
from lbcore.health.probe import Probe
from lbcore.health.states import Shown, Standing, State, shown
from lbcore.health.target import Target
from lbcore.health.timers import Timer


@dataclass(slots=True)
class PoolWatch:
    """One pool of the plan."""

    row: int
    plan: PoolPlan
    size: int                           # backends, those out of service included
    ledger: Ledger = field(default_factory=Ledger)
    mode: Mode = Mode.NORMAL
    written: tuple[int, int] | None = None      # flags and weight as they stand in the scoreboard


@dataclass(slots=True)
class Watch:
    """One backend of the plan. Times are monotonic seconds where they end in ``_at``, otherwise
    seconds of the wall clock."""

    pool: PoolWatch
    member: Member
    standing: Standing
    since: float
    reason: str
    draining: bool = False
    override: int | None = None         # weight set by an operator
    forced: str = ""                    # "up" or "down" by an operator
    held: bool = False                  # its application does not run: see HealthMonitor.hold
    counts: HealthCounts = field(default_factory=HealthCounts)

    # active checks
    target: Target | None = None
    fault: str = ""                     # why there is no target although there should be
    probe: Probe | None = None
    next_check: Timer | None = None
    started_at: float = 0.0
    last_ok: bool | None = None
    last_detail: str = ""
    last_ms: float | None = None
    last_check: float | None = None

    # passive ejection
    ejections: int = 0
    withheld: int = 0
    up_at: float = 0.0                  # since when it has been up
    return_at: float = math.inf
    return_timer: Timer | None = None

    # slow start
    ramp: int = slow_start.FULL
    ramp_at: float = 0.0
    ramp_timer: Timer | None = None

    @property
    def key(self) -> tuple[str, str]:
        """What the backend is known by, across plans and supervisors."""
        return self.pool.plan.name, self.member.plan.name

    @property
    def checked(self) -> bool:
        """Whether it has active checks."""
        return self.pool.plan.health is not None

    @property
    def shown(self) -> Shown:
        """The state that people and workers see."""
        if self.draining:
            return Shown.DRAIN
        if self.held or self.forced == "down":
            return Shown.DOWN
        return Shown.UP if self.forced else shown(self.standing.state, False)

    @property
    def takes_traffic(self) -> bool:
        """Whether traffic may go there, unless it is draining.

        Forced up needs no word of checks or traffic; an application has to run all the same.
        """
        if self.forced == "down" or self.held:
            return False
        return self.forced == "up" or self.standing.takes_traffic

    @property
    def weight(self) -> int:
        """The weight in force, slow start aside."""
        return self.member.plan.weight if self.override is None else self.override

    @property
    def eject_after(self) -> int:
        """Failures in a row at which workers ring; 0 when an ejection is out of the question."""
        plan = self.pool.plan.ejection
        if self.draining or self.forced or self.weight == 0 or not self.takes_traffic:
            return 0
        # By all backends, not by those in service: the rows of the others are not written again
        # when one of them comes back from drain.
        return plan.failures if ejection.most_ejected(self.pool.size, plan.max_share) else 0

    def entry(self) -> Entry:
        """Its part in the sums of its pool."""
        return Entry(
            backup=self.member.plan.backup,
            counted=self.weight > 0 and not self.draining and self.forced != "down",
            up=self.takes_traffic,
            ejected=(self.standing.state is State.EJECTED and not self.held
                     and not self.forced),
            weight=self.weight * self.ramp,
        )

    def settle_ejections(self, now: float) -> None:
        """Forgives what its time in traffic has earned; called when that time ends."""
        plan = self.pool.plan.ejection
        self.ejections = ejection.forgiven(
            self.ejections, (now - self.up_at) * 1000, plan.base_ms, plan.max_ms)
        self.up_at = now

    def stop_checks(self) -> None:
        """No check runs or will run. Not an outcome."""
        if self.next_check is not None:
            self.next_check.cancel()
            self.next_check = None

    def stop_timers(self) -> None:
        """Nothing happens to it by itself any more."""
        self.stop_checks()
        for timer in (self.return_timer, self.ramp_timer):
            if timer is not None:
                timer.cancel()
        self.return_timer = self.ramp_timer = None

    def health(self, now: float, wall: float) -> BackendHealth:
        """Everything, for ``status``."""
        held = self.ejections
        if self.standing.takes_traffic and not self.draining:
            plan = self.pool.plan.ejection
            held = ejection.forgiven(held, (now - self.up_at) * 1000, plan.base_ms, plan.max_ms)
        return BackendHealth(
            state=self.shown.value,
            since=self.since,
            reason=self.reason,
            underlying=shown(self.standing.state, False).value,
            draining=self.draining,
            checked=self.checked,
            last_check_ok=self.last_ok,
            last_check_detail=self.last_detail,
            last_check_ms=self.last_ms,
            last_check_at=self.last_check,
            consecutive_ok=self.standing.passed,
            consecutive_fail=self.standing.failed,
            ejected_until=(wall + self.return_at - now
                           if self.standing.state is State.EJECTED else None),
            ejections=held,
            withheld=self.withheld,
            ramp=self.ramp,
            weight=self.weight,
            weight_overridden=self.override is not None,
            forced=self.forced or None,
            counts=replace(self.counts),
        )

    def export(self, now: float, wall: float) -> dict[str, Any]:
        """What a later supervisor needs to go on; JSON-able."""
        ramping = self.ramp < slow_start.FULL
        return {
            "address": str(self.member.address),
            "state": self.standing.state.value,
            "passed": self.standing.passed,
            "failed": self.standing.failed,
            "since": self.since,
            "reason": self.reason,
            "draining": self.draining,
            "weight": self.override,
            "forced": self.forced,
            "ejections": self.ejections,
            "up_since": wall - (now - self.up_at),
            "ejected_until": (wall + self.return_at - now
                              if self.standing.state is State.EJECTED else None),
            "ramp_since": wall - (now - self.ramp_at) if ramping else None,
            "counts": asdict(self.counts),
        }
