"""Customers of the scenario ``shop``."""

from loadtests.scenarios.shop.catalog import SHOP
from loadtests.scenarios.shop.customers import Moving, Shopping, Talking, Visiting, Waiting


class Shopper(Shopping):
    """Comes again and again, and has a session."""

    behaviour = SHOP.behaviours[0]


class Visitor(Visiting):
    """Comes once."""

    behaviour = SHOP.behaviours[1]


class Mover(Moving):
    """Uploads and downloads."""

    behaviour = SHOP.behaviours[2]


class Waiter(Waiting):
    """Waits for news."""

    behaviour = SHOP.behaviours[3]


class Talker(Talking):
    """Chats."""

    behaviour = SHOP.behaviours[4]
