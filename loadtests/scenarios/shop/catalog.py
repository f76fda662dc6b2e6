"""The scenarios with a shop: who the customers are, how many, and what must hold at the end.

Latencies are what a customer sees, through lbcore to Django, which takes one to three milliseconds
for a page if it has a core to itself. Customers, balancer and three instances of the shop share the
machine; the limits leave room for one with two cores that others use too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ..scenario import Latency, Scenario, latencies

INSTANCES = 3
RATE = 20               # searches a second that one address may make, and
BURST = 20              # at once
SLOWNESS = 1.5          # seconds that a slow instance takes for everything
GIVE_UP = "1s"          # an instance that takes longer is ejected, see config.py
RESTARTS = (0.15, 0.4, 0.65)        # shares of the run
Kind = Literal["shopper", "visitor", "mover", "waiter", "talker", "searcher", "abuser"]


@dataclass(frozen=True)
class Customers:
    """One kind of customer: ``requests`` of each visit by name, ``per_second`` visits each."""

    kind: Kind
    weight: int
    per_second: float
    requests: Mapping[str, float]

    def rates(self) -> Mapping[str, float]:
        """Requests per second and customer. What is due once, such as the login, is not in it."""
        return {name: count * self.per_second for name, count in self.requests.items()}


_SHOPPERS = Customers("shopper", 6, 0.7, {"front": 1, "article": 2, "buy": 1, "basket": 1})
_VISITORS = Customers("visitor", 2, 0.7, {"front": 1, "article": 1})
_MOVERS = Customers("mover", 1, 0.7, {"upload": 1, "download": 1})
_WAITERS = Customers("waiter", 1, 0.4, {"news": 1})
_TALKERS = Customers("talker", 2, 2, {"message": 2})
_EVERYBODY = (_SHOPPERS, _VISITORS, _MOVERS, _WAITERS, _TALKERS)
_SEARCHERS = Customers("searcher", 4, 1, {"search": 1})
_ABUSERS = Customers("abuser", 1, 25, {})

_PAGES = ("front", "article", "login", "buy", "basket", "upload", "download", "chat", "message")


def _limits(p50: float, p95: float, p99: float, p999: float) -> tuple[Latency, ...]:
    # Who waits has an answer when something has happened, or after two seconds.
    waits = Latency("news", *(2000 + limit for limit in (p50, p95, p99, p999)))
    return (*latencies(p50, p95, p99, *_PAGES, p999=p999), waits)


SHOP = Scenario(
    name="shop",
    title="a shop: browsing, logging in, buying, up- and downloads, long polls, a chat",
    family="shop",
    users=36,
    behaviours=_EVERYBODY,
    latencies=_limits(30, 150, 400, 900),
    least_seconds=6,
)
RESTART = Scenario(
    name="shop-restart",
    title="a shop whose instances are restarted, one after the other",
    family="shop",
    users=36,
    behaviours=_EVERYBODY,
    # Three times in a run a Django starts, which takes a second of one core.
    latencies=_limits(60, 500, 1500, 3000),
    disturbance="restarts",
    delivered=0.75,
    least_seconds=20,
)
APP = Scenario(
    name="shop-app",
    title="a shop that lbcore runs itself, and `lbcore restart`",
    family="app",
    users=36,
    behaviours=_EVERYBODY,
    # Nine times in a run a Django starts, three at once.
    latencies=_limits(60, 500, 1500, 3000),
    disturbance="replacements",
    delivered=0.75,
    least_seconds=20,
)
SLOW = Scenario(
    name="shop-slow",
    title="a shop with one instance that becomes slow, and well again",
    family="shop",
    users=36,
    behaviours=_EVERYBODY,
    # Whoever met the slow instance has waited for it; how many that may be is the limit at 95 %,
    # for what is asked often enough.
    latencies=(
        *latencies(30, 400, 3500, "front", "article", "buy", "basket", "message", p999=3500),
        *latencies(60, 3500, 3500, "login", "upload", "download", "chat", p999=3500),
        Latency("news", 2200, 3700, 3700, 5500),
    ),
    disturbance="slowness",
    delivered=0.75,
    least_seconds=20,
)
FLAPPING = Scenario(
    name="shop-flapping",
    title="a shop with one instance that fails and works by turns, a second each",
    family="shop",
    users=36,
    behaviours=_EVERYBODY,
    latencies=_limits(30, 150, 500, 1500),
    disturbance="flapping",
    delivered=0.75,
    least_seconds=20,
)
ABUSE = Scenario(
    name="shop-abuse",
    title="one address that searches without end, beside honest customers",
    family="shop",
    users=40,
    behaviours=(_SEARCHERS, _ABUSERS, _SHOPPERS),
    latencies=latencies(30, 150, 400, "search", "front", "article", "buy", "basket"),
    least_seconds=6,
)
RELOAD = Scenario(
    name="shop-reload",
    title="a shop, and a changed configuration and a SIGHUP, again and again",
    family="shop",
    users=36,
    behaviours=_EVERYBODY,
    latencies=_limits(30, 200, 500, 1500),
    disturbance="reloads",
    least_seconds=6,
)
SCENARIOS = {s.name: s for s in (SHOP, RESTART, APP, SLOW, FLAPPING, ABUSE, RELOAD)}
