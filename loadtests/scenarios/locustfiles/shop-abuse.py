"""Customers of the scenario ``shop-abuse``."""

from loadtests.scenarios.shop.catalog import ABUSE
from loadtests.scenarios.shop.customers import Abusing, Searching, Shopping


class Searcher(Searching):
    """Searches now and then."""

    behaviour = ABUSE.behaviours[0]


class Abuser(Abusing):
    """Searches without end."""

    behaviour = ABUSE.behaviours[1]


class Shopper(Shopping):
    """Comes again and again, and has a session."""

    behaviour = ABUSE.behaviours[2]
