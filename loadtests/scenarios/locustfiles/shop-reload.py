"""Customers of the scenario ``shop-reload``."""

from loadtests.scenarios.shop.catalog import RELOAD
from loadtests.scenarios.shop.customers import Moving, Shopping, Talking, Visiting, Waiting


class Shopper(Shopping):
    """Comes again and again, and has a session."""

    behaviour = RELOAD.behaviours[0]


class Visitor(Visiting):
    """Comes once."""

    behaviour = RELOAD.behaviours[1]


class Mover(Moving):
    """Uploads and downloads."""

    behaviour = RELOAD.behaviours[2]


class Waiter(Waiting):
    """Waits for news."""

    behaviour = RELOAD.behaviours[3]


class Talker(Talking):
    """Chats."""

    behaviour = RELOAD.behaviours[4]
