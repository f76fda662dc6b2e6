"""What a scenario is made of, whoever its users are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, Protocol, TypeVar

from .shape import CONSTANT, Step, user_seconds

STARTING = 1.5          # seconds
Family = Literal["echo", "shop", "app"]
Disturbance = Literal[
    "none", "deaths", "reloads", "restarts", "replacements", "slowness", "flapping"]


class Behaviour(Protocol):
    """What one kind of user does. ``weight`` is its share of the users."""

    @property
    def weight(self) -> int:
        """As in Locust."""

    def rates(self) -> Mapping[str, float]:
        """Requests per second and user, by the name they have in Locust."""


Users_co = TypeVar("Users_co", bound=Behaviour, covariant=True)


@dataclass(frozen=True)
class Latency:
    """The longest that a kind of request may take, milliseconds, at these percentiles."""

    request: str
    p50: float
    p95: float
    p99: float
    p999: float = 900

    def points(self) -> tuple[tuple[float, float], ...]:
        """Shares of the requests, and the limit at each."""
        return (0.5, self.p50), (0.95, self.p95), (0.99, self.p99), (0.999, self.p999)


def latencies(
    p50: float, p95: float, p99: float, *requests: str, p999: float = 900
) -> tuple[Latency, ...]:
    """The same limits for several kinds of requests."""
    return tuple(Latency(request, p50, p95, p99, p999) for request in requests)


@dataclass(frozen=True)
class Scenario(Generic[Users_co]):
    """One scenario. ``delivered`` is the least share of the offered requests to be made."""

    name: str
    title: str
    users: int
    behaviours: Sequence[Users_co]
    latencies: tuple[Latency, ...]
    family: Family = "echo"
    steps: tuple[Step, ...] = CONSTANT
    backends: int = 3
    disturbance: Disturbance = "none"
    delivered: float = 0.85
    least_seconds: int = 3

    def offered(self, seconds: float, users: int) -> dict[str, float]:
        """Requests that at most ``users`` would make in ``seconds`` if none had to wait.

        What they would have made in the time that Locust takes to start them is left out.
        """
        time = user_seconds(self.steps, max(0.0, seconds - STARTING), users)
        weights = sum(behaviour.weight for behaviour in self.behaviours)
        total: dict[str, float] = {}
        for behaviour in self.behaviours:
            for request, rate in behaviour.rates().items():
                share = behaviour.weight / weights
                total[request] = total.get(request, 0.0) + time * share * rate
        return {request: count for request, count in total.items() if count > 0}


AnyScenario = Scenario[Behaviour]
