"""Customers of the scenario ``shop-slow``."""

from loadtests.scenarios.shop.catalog import SLOW
from loadtests.scenarios.shop.customers import Moving, Shopping, Talking, Visiting, Waiting


class Shopper(Shopping):
    """Comes again and again, and has a session."""

    behaviour = SLOW.behaviours[0]


class Visitor(Visiting):
    """Comes once."""

    behaviour = SLOW.behaviours[1]


class Mover(Moving):
    """Uploads and downloads."""

    behaviour = SLOW.behaviours[2]


class Waiter(Waiting):
    """Waits for news."""

    behaviour = SLOW.behaviours[3]


class Talker(Talking):
    """Chats."""

    behaviour = SLOW.behaviours[4]
