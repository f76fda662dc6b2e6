"""The scenarios: who the users are, how many, and what must hold at the end.

Latencies are what a client sees, through lbcore to an echo backend and back. Client, balancer and
backends share the machine, and Locust counts in whole milliseconds; the limits leave room for a
machine with two cores that others use too. A connection whose SYN was dropped, because a queue was
full or nobody was there to take it, costs 1 s and more, and so does a connect timeout here: the
limit at 99.9 % is below that, so that not one in a thousand may have met it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from .shape import CONSTANT, RAMP, Step, user_seconds

KIB = 1024
STARTING = 1.5          # seconds
Request = Literal["open", "exchange", "close"]
Disturbance = Literal["none", "deaths", "reloads"]


@dataclass(frozen=True)
class Behaviour:
    """What one kind of user does ``per_second`` times: ``exchanges`` on one connection.

    Who stays keeps the connection for as long as the run goes on; who does not opens one each
    time and closes it. ``sizes`` are payloads in bytes, one of which is picked each time.
    """

    stays: bool
    weight: int
    per_second: float
    exchanges: int
    sizes: tuple[int, ...]

    def rates(self) -> dict[Request, float]:
        """Requests per second and user."""
        if self.stays:
            return {"exchange": self.per_second * self.exchanges}
        return {
            "open": self.per_second,
            "exchange": self.per_second * (self.exchanges - 1),
            "close": self.per_second,
        }


@dataclass(frozen=True)
class Latency:
    """The longest that a kind of request may take, milliseconds, at these percentiles."""

    request: Request
    p50: float
    p95: float
    p99: float
    p999: float = 900

    def points(self) -> tuple[tuple[float, float], ...]:
        """Shares of the requests, and the limit at each."""
        return (0.5, self.p50), (0.95, self.p95), (0.99, self.p99), (0.999, self.p999)


@dataclass(frozen=True)
class Scenario:
    """One scenario. ``delivered`` is the least share of the offered requests to be made."""

    name: str
    title: str
    users: int
    behaviours: tuple[Behaviour, ...]
    latencies: tuple[Latency, ...]
    steps: tuple[Step, ...] = CONSTANT
    backends: int = 3
    disturbance: Disturbance = "none"
    delivered: float = 0.85
    least_seconds: int = 3

    def offered(self, seconds: float, users: int) -> dict[Request, float]:
        """Requests that at most ``users`` would make in ``seconds`` if none had to wait.

        What they would have made in the time that Locust takes to start them is left out.
        """
        time = user_seconds(self.steps, max(0.0, seconds - STARTING), users)
        weights = sum(behaviour.weight for behaviour in self.behaviours)
        total: dict[Request, float] = {}
        for behaviour in self.behaviours:
            for request, rate in behaviour.rates().items():
                share = behaviour.weight / weights
                total[request] = total.get(request, 0.0) + time * share * rate
        return {request: count for request, count in total.items() if count > 0}


def _latencies(p50: float, p95: float, p99: float, *requests: Request) -> tuple[Latency, ...]:
    return tuple(Latency(request, p50, p95, p99) for request in requests)


STEADY = Scenario(
    name="steady",
    title="the same load all the time: kept connections, small and large messages, visitors",
    users=60,
    behaviours=(
        Behaviour(True, 3, 8, 1, (64, KIB, KIB, 4 * KIB, 16 * KIB, 256 * KIB)),
        Behaviour(False, 1, 3, 4, (64, KIB, 16 * KIB)),
    ),
    latencies=_latencies(15, 60, 200, "open", "exchange", "close"),
)
CHURN = Scenario(
    name="churn",
    title="connections that come, ask once and go",
    users=60,
    behaviours=(Behaviour(False, 1, 6, 1, (64, KIB)),),
    latencies=_latencies(15, 60, 200, "open", "close"),
)
RAMP_UP = Scenario(
    name="ramp",
    title="from a tenth of the users to all of them and back, in steps",
    users=200,
    behaviours=(
        Behaviour(True, 3, 2, 1, (64, KIB, 16 * KIB)),
        Behaviour(False, 1, 1, 2, (64, KIB)),
    ),
    latencies=_latencies(15, 80, 200, "open", "exchange", "close"),
    steps=RAMP,
    least_seconds=10,
)
FAILOVER = Scenario(
    name="failover",
    title="backends are killed and come back, one after the other",
    users=60,
    behaviours=(
        Behaviour(True, 1, 5, 1, (64, KIB, 16 * KIB)),
        Behaviour(False, 1, 4, 2, (64, KIB)),
    ),
    latencies=_latencies(15, 80, 200, "open", "exchange"),
    disturbance="deaths",
    least_seconds=10,
)
RELOAD = Scenario(
    name="reload",
    title="a changed configuration and a SIGHUP, again and again",
    users=60,
    behaviours=(
        Behaviour(True, 1, 5, 1, (64, KIB, 64 * KIB)),
        Behaviour(False, 1, 4, 2, (64, KIB)),
    ),
    latencies=_latencies(15, 80, 200, "open", "exchange", "close"),
    backends=4,
    disturbance="reloads",
)
SCENARIOS = {s.name: s for s in (STEADY, CHURN, RAMP_UP, FAILOVER, RELOAD)}


def named(names: Sequence[str]) -> list[Scenario]:
    """The scenarios of these names; "all" is all of them. Raises KeyError."""
    return list(SCENARIOS.values()) if "all" in names else [SCENARIOS[name] for name in names]
