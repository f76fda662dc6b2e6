"""Histograms of the scoreboard as ones that only grow.

The scoreboard counts durations in 96 buckets of 32 bits, which start over after 4,294,967,296:
a busy backend gets there within days. Buckets that come near it are watched, and what they have
lost by starting over is added. Looking at them less often than they start over misses one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from lbcore._figures import BUCKETS, Figures, Histogram
from lbcore._scoreboard import histogram_bound
from lbcore.admin.figures import BOUNDS_US, Times

Key = tuple[str, ...]
WATCH_FROM = 1 << 30         # counts in a histogram from which on it is watched
WRAP = 1 << 32
_BOUNDS = [histogram_bound(bucket) for bucket in range(BUCKETS)]
_MIDDLES = [(low + high - 1) / 2
            for low, high in zip([0, *_BOUNDS[:-1]], _BOUNDS, strict=True)]
_PLACES = [_BOUNDS.index(bound) for bound in BOUNDS_US]


@dataclass
class _Watched:
    counted: int                 # a counter of 64 bits beside it: a smaller one is another row
    seen: list[int]
    lost: list[int] = field(default_factory=lambda: [0] * BUCKETS)


class Durations:
    """Reads histograms for metrics."""

    def __init__(self) -> None:
        self._watched: dict[Key, _Watched] = {}

    def times(self, key: Key, counted: int, figures: Figures, index: int, which: int) -> Times:
        """One histogram. ``counted`` is a counter that grows at least as long as it does."""
        histogram = Histogram()
        histogram.add(figures, index, which)
        if histogram.total < WATCH_FROM and key not in self._watched:
            return Times(tuple(histogram.up_to(BOUNDS_US)), histogram.estimated_sum() / 1e6)
        return _times(self._whole(key, counted, figures.histogram(index, which)))

    def _whole(self, key: Key, counted: int, buckets: list[int]) -> list[int]:
        watched = self._watched.get(key)
        if watched is None or counted < watched.counted:     # a new row has counted nothing yet
            watched = self._watched[key] = _Watched(counted, buckets)
        for bucket, (now, before) in enumerate(zip(buckets, watched.seen, strict=True)):
            if now < before:
                watched.lost[bucket] += WRAP
        watched.counted, watched.seen = counted, buckets
        return [now + lost for now, lost in zip(buckets, watched.lost, strict=True)]

    def export(self) -> list[Any]:
        """What the next version needs; JSON-able."""
        return [[list(key), one.counted, one.seen, one.lost] for key, one in self._watched.items()]

    def restore(self, state: Sequence[Any]) -> None:
        """Goes on where an earlier version was."""
        for key, counted, seen, lost in state:
            if len(seen) == len(lost) == BUCKETS:
                self._watched[tuple(key)] = _Watched(counted, seen, lost)


def _times(buckets: list[int]) -> Times:
    sums = list(accumulate(buckets))
    total = sum(count * middle for count, middle in zip(buckets, _MIDDLES, strict=True))
    return Times((*(sums[place] for place in _PLACES), sums[-1]), total / 1e6)
