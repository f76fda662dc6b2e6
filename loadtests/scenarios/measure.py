"""What Locust counted, read from the file it leaves behind."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Counted:
    """One kind of request. ``times`` counts requests by whole milliseconds, failed ones too."""

    requests: int
    failures: int
    times: Mapping[int, int]

    def percentile(self, share: float) -> int:
        """The time within which this share (above 0, to 1) was done, ms; 0 without requests."""
        if not 0 < share <= 1:
            raise ValueError(f"a share is above 0 and at most 1, not {share}")
        rank, seen = math.ceil(share * sum(self.times.values())), 0
        for time in sorted(self.times):
            seen += self.times[time]
            if seen >= rank:
                return time
        return 0


NOTHING = Counted(0, 0, {})


@dataclass(frozen=True)
class Measured:
    """A whole run. ``seconds`` is from its first request to its last."""

    seconds: float
    counted: Mapping[str, Counted]

    @property
    def requests(self) -> int:
        """All of them."""
        return sum(one.requests for one in self.counted.values())

    @property
    def failures(self) -> int:
        """All of them."""
        return sum(one.failures for one in self.counted.values())

    def of(self, request: str) -> Counted:
        """One kind of request, which may not have happened."""
        return self.counted.get(request, NOTHING)


def measured(text: str) -> Measured:
    """Reads what Locust's ``--json-file`` writes. Raises ValueError or KeyError for other text."""
    entries = json.loads(text)
    counted = {
        entry["name"]: Counted(
            entry["num_requests"], entry["num_failures"],
            {int(time): count for time, count in entry["response_times"].items()})
        for entry in entries
    }
    last = max((entry["last_request_timestamp"] or 0.0 for entry in entries), default=0.0)
    first = min((entry["start_time"] for entry in entries), default=last)
    return Measured(max(0.0, last - first), counted)


def read(path: Path) -> Measured:
    """As :func:`measured`, from a file."""
    return measured(path.read_text())
