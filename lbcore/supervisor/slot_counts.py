"""What the workers of each slot have counted so far, those that have ended included.

A worker's row on the scoreboard is cleared for the next one: what it counted of itself is kept
here when it ends, so that the figures of a slot only grow.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

COUNTED = ("accepted", "turns", "accept_pauses", "accept_errors", "sources_untracked")


class SlotCounts:
    """Sums by slot."""

    def __init__(self) -> None:
        self._ended: defaultdict[int, Counter[str]] = defaultdict(Counter)
        self._cpu: defaultdict[int, float] = defaultdict(float)

    def worker_ended(self, slot: int, seat: Mapping[str, int] | None, cpu_s: float) -> None:
        """Keeps what an ended worker had counted; no seat: it is on a scoreboard not ours."""
        if seat is not None:
            self._ended[slot].update({name: seat[name] for name in COUNTED})
        self._cpu[slot] += cpu_s

    def total(self, slot: int, seats: Sequence[Mapping[str, int]]) -> dict[str, int]:
        """The counters of a slot, given the seats of its workers that live."""
        ended = self._ended.get(slot, Counter())
        return {name: ended[name] + sum(seat[name] for seat in seats) for name in COUNTED}

    def cpu(self, slot: int, living: float) -> float:
        """CPU seconds of a slot, given those of its workers that live."""
        return self._cpu.get(slot, 0.0) + living

    def export(self) -> list[Any]:
        """What the next version needs; JSON-able."""
        return [[slot, dict(self._ended[slot]), self._cpu[slot]]
                for slot in {*self._ended, *self._cpu}]

    def restore(self, state: Sequence[Any] | None) -> None:
        """Goes on where an earlier version was."""
        for slot, counts, cpu in state or ():
            self._ended[slot].update({name: counts.get(name, 0) for name in COUNTED})
            self._cpu[slot] += cpu
