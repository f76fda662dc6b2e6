"""What Locust's processes tell the run: failures, the passing of time, and what is at the end.

All of it is files in one directory. Every process appends to a failure file of its own, so that
masters, workers and single processes write the same way. Times are seconds of CLOCK_MONOTONIC,
which all processes of a machine share.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .wire import Life

TIMELINE = "timeline.jsonl"
FAILURES = "failures-{pid}.jsonl"


@dataclass(frozen=True)
class Failure:
    """One request that failed, and with it the connection it was made on."""

    request: str            # "open", "exchange" or "close"
    began: float
    ended: float
    error: str
    who: Life | None        # None: the connection never had an answer

    def line(self) -> str:
        """As one line of JSON."""
        return json.dumps(asdict(self)) + "\n"

    @staticmethod
    def read(line: str) -> Failure:
        """The failure that :meth:`line` wrote."""
        data: dict[str, Any] = json.loads(line)
        who = data.pop("who")
        return Failure(**data, who=Life(**who) if who else None)


@dataclass(frozen=True)
class Moment:
    """The load about once a second. Counts are since the start."""

    at: float
    users: int
    requests: int
    failures: int
    per_second: float
    p95_ms: float           # of the last seconds

    def line(self) -> str:
        """As one line of JSON."""
        return json.dumps(asdict(self)) + "\n"


def read_failures(directory: Path) -> list[Failure]:
    """Every process's failures, in the order of their end."""
    found = [Failure.read(line)
             for path in directory.glob(FAILURES.format(pid="*"))
             for line in path.read_text().splitlines()]
    return sorted(found, key=lambda failure: failure.ended)


def read_timeline(directory: Path) -> list[Moment]:
    """All moments that are written completely; none before the load has started."""
    path = directory / TIMELINE
    if not path.exists():
        return []
    complete, _, _ = path.read_text().rpartition("\n")
    return [Moment(**json.loads(line)) for line in complete.splitlines()]
