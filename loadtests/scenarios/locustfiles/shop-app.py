"""Customers of the scenario ``shop-app``."""

from loadtests.scenarios.shop.catalog import APP
from loadtests.scenarios.shop.customers import Moving, Shopping, Talking, Visiting, Waiting


class Shopper(Shopping):
    """Comes again and again, and has a session."""

    behaviour = APP.behaviours[0]


class Visitor(Visiting):
    """Comes once."""

    behaviour = APP.behaviours[1]


class Mover(Moving):
    """Uploads and downloads."""

    behaviour = APP.behaviours[2]


class Waiter(Waiting):
    """Waits for news."""

    behaviour = APP.behaviours[3]


class Talker(Talking):
    """Chats."""

    behaviour = APP.behaviours[4]
