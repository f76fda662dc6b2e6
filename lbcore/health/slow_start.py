"""Slow start: the share of its weight that a recovered backend gets while it warms up.

Shares are in 1/256, as workers use them.
"""

from __future__ import annotations

from typing import Final

FULL: Final = 256
FIRST: Final = 26           # a tenth: enough to warm caches, too little to drown a cold server
STEPS: Final = 32
SHORTEST_STEP_MS: Final = 50


def share_at(elapsed_ms: float, slow_start_ms: int) -> int:
    """Share of the weight, ``FIRST``..``FULL``, ``elapsed_ms`` after recovery."""
    if elapsed_ms >= slow_start_ms:
        return FULL
    return FIRST + int((FULL - FIRST) * max(0.0, elapsed_ms) / slow_start_ms)


def step_ms(slow_start_ms: int) -> float:
    """Milliseconds between two changes of the share."""
    return max(SHORTEST_STEP_MS, slow_start_ms / STEPS)
