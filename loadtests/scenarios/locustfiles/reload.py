"""Users of the scenario ``reload``."""

from loadtests.scenarios.catalog import RELOAD
from loadtests.scenarios.users import Staying, Visiting


class Resident(Staying):
    """Exchanges messages on one connection."""

    behaviour = RELOAD.behaviours[0]


class Visitor(Visiting):
    """Comes, asks and goes."""

    behaviour = RELOAD.behaviours[1]
