"""Users of the scenario ``churn``."""

from loadtests.scenarios.catalog import CHURN
from loadtests.scenarios.users import Visiting


class Visitor(Visiting):
    """Comes, asks once and goes."""

    behaviour = CHURN.behaviours[0]
