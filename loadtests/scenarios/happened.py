"""What a disturbance did to the stage, for the judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from .wire import Life


@dataclass(frozen=True)
class Death:
    """A backend was killed between two moments of CLOCK_MONOTONIC, seconds."""

    who: Life
    began: float
    gone: float


@dataclass(frozen=True)
class Trouble:
    """What was the matter with a backend between two moments of CLOCK_MONOTONIC, seconds."""

    who: Life
    kind: Literal["restarted", "replaced", "slow", "flapping"]
    began: float
    ended: float


@dataclass
class Happened:
    """What a disturbance did, and what lbcore made of it."""

    deaths: list[Death] = field(default_factory=list)
    troubles: list[Trouble] = field(default_factory=list)
    returned: dict[int, float] = field(default_factory=dict)    # backend: seconds until traffic
    reloads_asked: int = 0
    reloads_done: int = 0
    plans_behind: int = 0       # workers without the last plan at the end


def killed(deaths: Sequence[Death], who: Life | None) -> Death | None:
    """The death that ended the life, if it was ended."""
    return next((death for death in deaths if death.who == who), None)
