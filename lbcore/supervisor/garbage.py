"""Python's garbage collector, which stops everything while it looks at all there is.

What a configuration of thousands of backends is made of stays until the next reload and is in no
cycle. Looking through it takes 60 ms for 5,000 of them, several times with every change, in which
no health check has its turn.
"""

from __future__ import annotations

import gc

MANY = 1000                  # backends; with fewer it takes no time worth mentioning


def spare(backends: int) -> None:
    """Lets the collector look no longer at what is there now, if that is much.

    What is garbage by now is collected before, also of what was spared earlier.
    """
    if backends < MANY and not gc.get_freeze_count():
        return
    gc.unfreeze()
    gc.collect()
    if backends >= MANY:
        gc.freeze()
