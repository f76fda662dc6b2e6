"""What a person sees: where the run is, and the verdict."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TextIO

from .limits import Check
from .records import Moment

EVERY = 5.0         # seconds between lines where nothing can be drawn over


class Progress:
    """One line on standard error that is drawn over; a line now and then if it is no terminal."""

    def __init__(self, name: str, seconds: float, to: TextIO | None = None) -> None:
        self._name = name
        self._seconds = seconds
        self._to = to if to is not None else sys.stderr
        self._drawn = False
        self._next = 0.0

    def say(self, text: str) -> None:
        """A step that has no numbers."""
        self._put(f"{self._name}: {text}")

    def show(self, elapsed: float, moment: Moment, word: str) -> None:
        """The latest numbers; ``word`` is about the disturbance."""
        if not self._to.isatty():
            if elapsed < self._next:
                return
            self._next = elapsed + EVERY
        text = (f"{self._name}: {min(elapsed, self._seconds):3.0f} of {self._seconds:.0f} s, "
                f"{moment.users} users, {moment.requests:,} requests "
                f"({moment.per_second:.0f}/s, p95 {moment.p95_ms:.0f} ms), "
                f"{moment.failures} failed")
        self._put(f"{text}, {word}" if word else text)

    def done(self) -> None:
        """Leaves a clean line."""
        if self._drawn:
            self._to.write("\r\x1b[K")
            self._to.flush()
            self._drawn = False

    def _put(self, text: str) -> None:
        if self._to.isatty():
            self._to.write(f"\r\x1b[K{text}")
            self._drawn = True
        else:
            self._to.write(text + "\n")
        self._to.flush()


def verdict(name: str, checks: Sequence[Check], remarks: Sequence[str]) -> str:
    """The table of all checks, the remarks, and the last line that says PASS or FAIL."""
    names = max(len(check.name) for check in checks)
    limits = max(len(check.limit) for check in checks)
    lines = [f"  {'ok    ' if check.met else 'MISSED'}  {check.name:{names}}  "
             f"{check.limit:{limits}}  {check.found}" for check in checks]
    lines += [f"  note: {remark}" for remark in remarks]
    missed = [check.name for check in checks if not check.met]
    lines.append(f"FAIL {name}: {', '.join(missed)}" if missed else f"PASS {name}")
    return "\n".join(lines)
