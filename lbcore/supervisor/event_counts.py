"""How often what has happened: counted from the events that the log is told of.

What the log shows of them does not matter. Counts go on over an upgrade; a restart begins anew.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from lbcore._scoreboard import CAPACITY
from lbcore.supervisor.log import LEVELS

# Events that are counted by name. Those of workers are counted for each slot.
OF_INSTANCE = ("reloaded", "reload.failed", "upgraded", "upgrade.failed", "changed", "app.died",
               "pool.discovered", "discovery.failed")
OF_SLOT = ("worker.started", "worker.died", "worker.hung", "worker.start_failed")


class EventCounts:
    """Listens to the log: give it :meth:`take` to call."""

    def __init__(self) -> None:
        self.levels: Counter[str] = Counter()
        self.named: Counter[str] = Counter()
        self.slots: Counter[tuple[str, int]] = Counter()     # (event, slot)
        self.reload_ok = True            # the last one

    def take(self, level: str, event: str, _message: str, fields: Mapping[str, Any]) -> None:
        """One event."""
        self.levels[level if level in LEVELS else "info"] += 1
        if event in OF_INSTANCE:
            self.named[event] += 1
            if event in ("reloaded", "reload.failed"):
                self.reload_ok = event == "reloaded"
        elif event in OF_SLOT:
            slot = fields.get("slot")
            if isinstance(slot, int) and 0 <= slot < CAPACITY["seats"]:
                self.slots[event, slot] += 1

    def export(self) -> dict[str, Any]:
        """What the next version needs; JSON-able."""
        return {"levels": self.levels, "named": self.named, "reload_ok": self.reload_ok,
                "slots": [[event, slot, count] for (event, slot), count in self.slots.items()]}

    def restore(self, state: Mapping[str, Any] | None) -> None:
        """Goes on where an earlier version was; what it counted and this one does not is left out.

        What has been counted since comes on top: the new version speaks before it restores.
        """
        if not state:
            return
        self.levels.update({level: state["levels"].get(level, 0) for level in LEVELS})
        self.named.update({event: state["named"].get(event, 0) for event in OF_INSTANCE})
        self.slots.update({(event, slot): count for event, slot, count in state["slots"]
                           if event in OF_SLOT})
        self.reload_ok = bool(state["reload_ok"])
