"""Backends that an operator has ordered something of and that their source does not name just now.

Who was drained and is away for a moment comes back drained: registries lose servers and find them
again. Who is away for long does not: its address is another server's by then, and scripts that
drain what they take away would leave an order behind for each.
"""

from __future__ import annotations

import time
from collections.abc import Collection

from lbcore.supervisor.changes import ORDERING, Key, Overlay

LONG = 600.0                 # seconds
REASON = f"its source has not named it for {LONG / 60:g} minutes"


class Absences:
    """Since when orders have had no backend."""

    def __init__(self) -> None:
        self._since: dict[Key, float] = {}       # monotonic seconds

    def outlived(self, overlay: Overlay, pool: str) -> list[Key]:
        """Orders in a pool whose backends have been away for long, even if they are back now."""
        now = time.monotonic()
        return [key for key in _orders(overlay, pool) if now - self._since.get(key, now) > LONG]

    def note(self, overlay: Overlay, pool: str, names: Collection[str]) -> None:
        """These are the backends of a pool from now on."""
        now = time.monotonic()
        away = {key: self._since.get(key, now)
                for key in _orders(overlay, pool) if key[2] not in names}
        self._since = {key: since for key, since in self._since.items() if key[1] != pool} | away


def _orders(overlay: Overlay, pool: str) -> list[Key]:
    return [key for key in overlay.changes if key[0] in ORDERING and key[1] == pool]
