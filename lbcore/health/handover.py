"""Reading what an earlier supervisor's monitor exported.

It may be of another version: every entry is judged by itself, and what cannot be understood is
left out rather than guessed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from lbcore.health.model import HealthCounts
from lbcore.health.states import State


@dataclass(frozen=True, slots=True)
class Inherited:
    """One backend as the earlier monitor knew it. Times are seconds of the wall clock."""

    address: str
    state: State
    passed: int
    failed: int
    since: float
    reason: str
    draining: bool
    weight: int | None
    forced: str
    ejections: int
    up_since: float
    ejected_until: float | None
    ramp_since: float | None
    counts: HealthCounts = field(default_factory=HealthCounts)


def read_export(exported: Mapping[str, Any]) -> dict[tuple[str, str], Inherited]:
    """The understandable entries by (pool name, backend name)."""
    found: dict[tuple[str, str], Inherited] = {}
    pools = exported.get("pools")
    if not isinstance(pools, Mapping):
        return found
    for pool, backends in pools.items():
        if not isinstance(backends, Mapping):
            continue
        for name, entry in backends.items():
            inherited = _read_entry(entry)
            if inherited is not None:
                found[str(pool), str(name)] = inherited
    return found


def _read_entry(entry: Any) -> Inherited | None:
    if not isinstance(entry, Mapping):
        return None
    try:
        weight = entry["weight"]
        return Inherited(
            address=str(entry["address"]),
            state=State(entry["state"]),
            passed=max(0, int(entry["passed"])),
            failed=max(0, int(entry["failed"])),
            since=_seconds(entry["since"]),
            reason=str(entry["reason"]),
            draining=bool(entry["draining"]),
            weight=None if weight is None else min(1000, max(0, int(weight))),
            forced=forced if (forced := entry.get("forced")) in ("up", "down") else "",
            ejections=max(0, int(entry["ejections"])),
            up_since=_seconds(entry["up_since"]),
            ejected_until=_maybe_seconds(entry["ejected_until"]),
            ramp_since=_maybe_seconds(entry["ramp_since"]),
            counts=_counts(entry.get("counts")),
        )
    except (KeyError, TypeError, ValueError):
        return None


def _counts(entry: Any) -> HealthCounts:
    """Counts that an earlier version did not have start at zero."""
    known = entry if isinstance(entry, Mapping) else {}
    found = {one.name: known.get(one.name) for one in fields(HealthCounts)}
    return HealthCounts(**{name: count for name, count in found.items()
                           if isinstance(count, int) and count > 0})


def _seconds(value: Any) -> float:
    seconds = float(value)
    if not math.isfinite(seconds):
        raise ValueError(f"not a time: {value!r}")
    return seconds


def _maybe_seconds(value: Any) -> float | None:
    return None if value is None else _seconds(value)
