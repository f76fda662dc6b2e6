"""One picture of ``lbcore top`` as text."""
from __future__ import annotations

from lbcore.admin.client import AdminClient
from lbcore.cli.options import State


def print_once(state: State, client: AdminClient) -> None:
    """Prints it."""
