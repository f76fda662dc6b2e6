"""Customers of the scenario ``shop-flapping``."""

from loadtests.scenarios.shop.catalog import FLAPPING
from loadtests.scenarios.shop.customers import Moving, Shopping, Talking, Visiting, Waiting


class Shopper(Shopping):
    """Comes again and again, and has a session."""

    behaviour = FLAPPING.behaviours[0]


class Visitor(Visiting):
    """Comes once."""

    behaviour = FLAPPING.behaviours[1]


class Mover(Moving):
    """Uploads and downloads."""

    behaviour = FLAPPING.behaviours[2]


class Waiter(Waiting):
    """Waits for news."""

    behaviour = FLAPPING.behaviours[3]


class Talker(Talking):
    """Chats."""

    behaviour = FLAPPING.behaviours[4]
