"""The scenarios with echo backends: who the users are, how many, and what must hold at the end.

Latencies are what a client sees, through lbcore to an echo backend and back. Client, balancer and
backends share the machine, and Locust counts in whole milliseconds; the limits leave room for a
machine with two cores that others use too. A connection whose SYN was dropped, because a queue was
full or nobody was there to take it, costs 1 s and more, and so does a connect timeout here: the
limit at 99.9 % is below that, so that not one in a thousand may have met it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .scenario import Scenario, latencies
from .shape import RAMP

KIB = 1024
Request = Literal["open", "exchange", "close"]


@dataclass(frozen=True)
class EchoUsers:
    """What one kind of user does ``per_second`` times: ``exchanges`` on one connection.

    Who stays keeps the connection for as long as the run goes on; who does not opens one each
    time and closes it. ``sizes`` are payloads in bytes, one of which is picked each time.
    """

    stays: bool
    weight: int
    per_second: float
    exchanges: int
    sizes: tuple[int, ...]

    def rates(self) -> dict[str, float]:
        """Requests per second and user."""
        if self.stays:
            return {"exchange": self.per_second * self.exchanges}
        return {
            "open": self.per_second,
            "exchange": self.per_second * (self.exchanges - 1),
            "close": self.per_second,
        }


STEADY = Scenario(
    name="steady",
    title="the same load all the time: kept connections, small and large messages, visitors",
    users=60,
    behaviours=(
        EchoUsers(True, 3, 8, 1, (64, KIB, KIB, 4 * KIB, 16 * KIB, 256 * KIB)),
        EchoUsers(False, 1, 3, 4, (64, KIB, 16 * KIB)),
    ),
    latencies=latencies(15, 60, 200, "open", "exchange", "close"),
)
CHURN = Scenario(
    name="churn",
    title="connections that come, ask once and go",
    users=60,
    behaviours=(EchoUsers(False, 1, 6, 1, (64, KIB)),),
    latencies=latencies(15, 60, 200, "open", "close"),
)
RAMP_UP = Scenario(
    name="ramp",
    title="from a tenth of the users to all of them and back, in steps",
    users=200,
    behaviours=(
        EchoUsers(True, 3, 2, 1, (64, KIB, 16 * KIB)),
        EchoUsers(False, 1, 1, 2, (64, KIB)),
    ),
    latencies=latencies(15, 80, 200, "open", "exchange", "close"),
    steps=RAMP,
    least_seconds=10,
)
FAILOVER = Scenario(
    name="failover",
    title="backends are killed and come back, one after the other",
    users=60,
    behaviours=(
        EchoUsers(True, 1, 5, 1, (64, KIB, 16 * KIB)),
        EchoUsers(False, 1, 4, 2, (64, KIB)),
    ),
    latencies=latencies(15, 80, 200, "open", "exchange"),
    disturbance="deaths",
    least_seconds=10,
)
RELOAD = Scenario(
    name="reload",
    title="a changed configuration and a SIGHUP, again and again",
    users=60,
    behaviours=(
        EchoUsers(True, 1, 5, 1, (64, KIB, 64 * KIB)),
        EchoUsers(False, 1, 4, 2, (64, KIB)),
    ),
    latencies=latencies(15, 80, 200, "open", "exchange", "close"),
    backends=4,
    disturbance="reloads",
)
SCENARIOS = {s.name: s for s in (STEADY, CHURN, RAMP_UP, FAILOVER, RELOAD)}
