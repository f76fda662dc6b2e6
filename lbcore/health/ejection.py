"""How long a backend is ejected, how that is forgiven, and how many may be ejected at once.

Ejection is by traffic (passive): see states.py for what it means. Only arithmetic in here.
"""

from __future__ import annotations


def length_ms(nth: int, base_ms: int, max_ms: int) -> int:
    """Milliseconds that the ``nth`` ejection (from 1) of a backend lasts."""
    return min(base_ms * nth, max_ms)


def forgiven(ejections: int, well_ms: float, base_ms: int, max_ms: int) -> int:
    """The ejections still held against a backend that has been up for ``well_ms`` milliseconds.

    One is forgiven for every stretch as long as the last of them lasted: who was out for 40
    seconds has to be well for 40 seconds to go one step down, and for 30 to go down the next.
    """
    while ejections > 0:
        well_ms -= length_ms(ejections, base_ms, max_ms)
        if well_ms < 0:
            break
        ejections -= 1
    return ejections


def most_ejected(size: int, max_share: float) -> int:
    """How many of ``size`` backends may be ejected at once.

    The share rounded down, but one at least as soon as there is a second backend: otherwise
    small pools would have no ejection at all. A share of 0 means none.
    """
    if size < 2 or max_share <= 0:
        return 0
    # The small addend undoes the rounding of products such as 0.29 * 100.
    return min(max(1, int(max_share * size + 1e-9)), size - 1)
