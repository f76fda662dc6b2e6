"""The admin address: HTTP and JSON, for the command line and for other programs.

``contract`` says what a running instance can be asked; ``server`` speaks it, ``client`` asks.
"""

from lbcore.admin.client import AdminClient, AdminError, NotRunning
from lbcore.admin.contract import Control, ControlError
from lbcore.admin.server import AdminServer

__all__ = ["AdminClient", "AdminError", "AdminServer", "Control", "ControlError", "NotRunning"]
