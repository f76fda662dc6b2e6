"""Users of the scenario ``steady``."""

from loadtests.scenarios.catalog import STEADY
from loadtests.scenarios.users import Staying, Visiting


class Resident(Staying):
    """Exchanges messages on one connection."""

    behaviour = STEADY.behaviours[0]


class Visitor(Visiting):
    """Comes, asks and goes."""

    behaviour = STEADY.behaviours[1]
