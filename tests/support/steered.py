"""A load in a process of its own, which a test steers over pipes.

The test writes words, a line each; the process answers each with its report, a line of JSON. It
ends after ``finish``, and when there is no test any more.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

from tests.support.instance import PATIENCE, ROOT, until


class Reported(Protocol):
    """What every report tells."""

    @property
    def succeeded(self) -> int:
        """How many ended well."""


R = TypeVar("R", bound=Reported)


class Steered(Generic[R]):
    """The test's end of it. Use it as a context manager.

    ``module`` is run with its ``options`` as JSON; ``made`` makes a report of what it answers.
    """

    def __init__(self, module: str, options: dict[str, Any], made: type[R]) -> None:
        self.final: R | None = None
        self._made = made
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, json.dumps(options)], cwd=ROOT,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __enter__(self) -> Self:
        self.wait_for(20)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        with contextlib.suppress(AssertionError, OSError):
            self.finish()
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()

    def report(self) -> R:
        """How it stands."""
        return self.ask("report")

    def wait_for(self, more: int, patience: float = PATIENCE) -> R:
        """Waits until so many more have succeeded."""
        enough = self.report().succeeded + more
        until(lambda: self.report().succeeded >= enough, f"{more} more successes", patience)
        return self.report()

    def finish(self) -> R:
        """Begins nothing more, lets what has begun end, and says what became of all of it."""
        if self.final is None:
            self.final = self.ask("finish")
        return self.final

    def ask(self, what: str) -> R:
        """Says a word; what is answered."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(what.encode() + b"\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, f"the load's process has ended: {self._process.poll()}"
        return self._made(**json.loads(answer))
