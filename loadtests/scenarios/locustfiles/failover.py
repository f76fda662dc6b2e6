"""Users of the scenario ``failover``."""

from loadtests.scenarios.catalog import FAILOVER
from loadtests.scenarios.users import Staying, Visiting


class Resident(Staying):
    """Exchanges messages on one connection."""

    behaviour = FAILOVER.behaviours[0]


class Visitor(Visiting):
    """Comes, asks and goes."""

    behaviour = FAILOVER.behaviours[1]
