"""How many users there are at which moment, and how many requests that makes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """Up to ``until`` (share of the run) there are ``users`` (share of the most)."""

    until: float
    users: float


CONSTANT = (Step(1.0, 1.0),)
RAMP = (Step(0.15, 0.1), Step(0.3, 0.3), Step(0.45, 0.6), Step(0.8, 1.0), Step(1.0, 0.2))


def users_at(steps: Sequence[Step], elapsed: float, seconds: float, most: int) -> int | None:
    """Users that there should be, at least one; None when the run is over."""
    for step in steps:
        if elapsed < step.until * seconds:
            return max(1, round(step.users * most))
    return None


def user_seconds(steps: Sequence[Step], seconds: float, most: int) -> float:
    """The time that all users spend together over the run, seconds."""
    total, begun = 0.0, 0.0
    for step in steps:
        total += (step.until - begun) * seconds * max(1, round(step.users * most))
        begun = step.until
    return total
