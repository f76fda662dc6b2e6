"""Which row of the scoreboard belongs to whom.

A row stays with its key for as long as something of that key is in the plan, so counters and
health go on over reloads. What left the plan keeps its row until nobody can use it any more:
connections that began with an older plan still count there.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

Key = tuple[str, ...]


class NoRowFree(ValueError):
    """There are rows enough, but what has left the plan lately still has them."""


@dataclass
class Retired:
    """A row whose key has left the plan."""

    key: Key
    since: float                 # monotonic seconds
    hold: float                  # seconds for which an older plan may still pick the row


@dataclass
class RowTable:
    """Rows of one kind: backends, pools, listeners or routes."""

    kind: str
    capacity: int
    live: dict[Key, int] = field(default_factory=dict)
    retired: dict[int, Retired] = field(default_factory=dict)
    high: int = 0                # rows ever used: nobody has to look further
    _free: list[int] = field(default_factory=list)

    def assign(self, keys: Iterable[Key]) -> dict[Key, int]:
        """A row for every key, without changing anything yet.

        Raises ValueError when there are not enough rows, NoRowFree when there soon are.
        """
        keys = dict.fromkeys(keys)
        if len(keys) > self.capacity:
            raise ValueError(f"{len(keys):,} {self.kind}s are more than the {self.capacity:,} that "
                             "are possible")
        returning = {retired.key: row for row, retired in self.retired.items()}
        free = sorted(self._free, reverse=True)
        high = self.high
        rows: dict[Key, int] = {}
        for key in keys:
            if key in self.live:
                rows[key] = self.live[key]
            elif key in returning:
                rows[key] = returning[key]
            elif free:
                rows[key] = free.pop()
            elif high < self.capacity:
                rows[key] = high
                high += 1
            else:
                raise NoRowFree(
                    f"there is no room for another {self.kind} just now: of {self.capacity:,} "
                    f"places, {len(self.retired):,} are those of {self.kind}s that have left and "
                    "may still be in use")
        return rows

    def commit(self, rows: dict[Key, int], now: float, hold: float) -> None:
        """Makes an assignment the current one."""
        for key, row in self.live.items():
            if key not in rows:
                self.retired[row] = Retired(key, now, hold)
        for row in rows.values():
            self.retired.pop(row, None)
            self.high = max(self.high, row + 1)
        used = set(rows.values())
        self._free = [row for row in self._free if row not in used]
        heapq.heapify(self._free)
        self.live = dict(rows)

    def release(self, now: float, idle: Callable[[int], bool], reset: Callable[[int], None]) -> int:
        """Frees the retired rows that nobody uses; returns how many."""
        done = [row for row, retired in self.retired.items()
                if now - retired.since > retired.hold and idle(row)]
        for row in done:
            reset(row)
            del self.retired[row]
            heapq.heappush(self._free, row)
        return len(done)

    def export(self) -> dict[str, Any]:
        """The table as JSON can hold it."""
        return {
            "live": [[list(key), row] for key, row in self.live.items()],
            "retired": [[row, list(r.key), r.since, r.hold] for row, r in self.retired.items()],
            "free": sorted(self._free), "high": self.high,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """What :meth:`export` gave."""
        self.live = {tuple(key): row for key, row in state["live"]}
        self.retired = {row: Retired(tuple(key), since, hold)
                        for row, key, since, hold in state["retired"]}
        self._free = list(state["free"])
        self.high = state["high"]
