"""Customers of the scenario ``shop-restart``."""

from loadtests.scenarios.shop.catalog import RESTART
from loadtests.scenarios.shop.customers import Moving, Shopping, Talking, Visiting, Waiting


class Shopper(Shopping):
    """Comes again and again, and has a session."""

    behaviour = RESTART.behaviours[0]


class Visitor(Visiting):
    """Comes once."""

    behaviour = RESTART.behaviours[1]


class Mover(Moving):
    """Uploads and downloads."""

    behaviour = RESTART.behaviours[2]


class Waiter(Waiting):
    """Waits for news."""

    behaviour = RESTART.behaviours[3]


class Talker(Talking):
    """Chats."""

    behaviour = RESTART.behaviours[4]
