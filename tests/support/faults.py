"""How often faults are injected: often enough for every change, or as often as is claimed."""

from __future__ import annotations

import os

FULL = os.environ.get("LBCORE_FULL_FAULTS", "") not in ("", "0")


def times(full: int, brief: int) -> int:
    """``full`` when LBCORE_FULL_FAULTS is set (``make test-faults``), otherwise ``brief``."""
    return full if FULL else brief
