"""The two kinds of scenarios: with echo backends over TCP, and with a shop over HTTP."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from . import catalog, config, disturb, judge
from .happened import Happened
from .limits import Aftermath, Check, Told
from .measure import Measured
from .records import Failure
from .scenario import AnyScenario
from .shop import catalog as shop_catalog
from .shop import config as shop_config
from .shop import judge as shop_judge
from .shop import trouble as shop_trouble
from .stage import Cast, Stage
from .wire import Life


def _echo(who: Life, port: int) -> list[str]:
    return [sys.executable, "-m", "loadtests.scenarios.echo", "--port", str(port),
            "--backend", str(who.backend), "--life", str(who.life)]


@dataclass(frozen=True)
class Family:
    """What scenarios of a kind have in common: who is on the stage, what happens, who judges."""

    cast: Cast
    disturbance: Callable[[AnyScenario, Stage, float, float], disturb.Quiet]
    judge: Callable[
        [AnyScenario, Measured, Sequence[Failure], Happened, Aftermath, Told], list[Check]]
    explain: Callable[[Sequence[Failure], Happened], list[str]]


FAMILIES = {
    "echo": Family(Cast(config.POOL, _echo, config.lb_toml), disturb.disturbance, judge.judge,
                   judge.explain),
    "shop": Family(shop_config.CAST, shop_trouble.disturbance, shop_judge.judge,
                   shop_judge.explain),
    "app": Family(shop_config.APP_CAST, shop_trouble.disturbance, shop_judge.judge,
                  shop_judge.explain),
}
SCENARIOS: dict[str, AnyScenario] = {**catalog.SCENARIOS, **shop_catalog.SCENARIOS}


def named(names: Sequence[str]) -> list[AnyScenario]:
    """The scenarios of these names, each once; "all" is all of them, "tcp" and "http" are those of
    a kind. Raises KeyError."""
    groups = {"all": list(SCENARIOS), "tcp": list(catalog.SCENARIOS),
              "http": list(shop_catalog.SCENARIOS)}
    wanted = dict.fromkeys(name for given in names for name in groups.get(given, [given]))
    return [SCENARIOS[name] for name in wanted]
