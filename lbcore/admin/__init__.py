"""The admin address: HTTP and JSON, for the command line and for other programs.

``contract`` says what a running instance can be asked; ``server`` speaks it, ``client`` asks. The
server is not imported here: a command needs no web server to ask something, and would wait for it.
"""

from lbcore.admin.client import AdminClient, AdminError, NotRunning
from lbcore.admin.contract import Control, ControlError

__all__ = ["AdminClient", "AdminError", "Control", "ControlError", "NotRunning"]
