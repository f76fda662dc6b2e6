"""Says where a long run is: a bar that moves on a terminal, a line per step elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class Display:
    """Counts the steps of a run on standard error.

    It draws only between measurements: a display that redraws itself would take the client's
    core in the midst of them.
    """

    def __init__(self, steps: int) -> None:
        self._console = Console(stderr=True)
        self._steps = steps
        self._done = 0
        self._last = ""
        self._start = time.monotonic()
        self._bar: Progress | None = None
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
                TimeRemainingColumn(), console=self._console, auto_refresh=False, transient=True,
            )
            self._task = self._bar.add_task("starting", total=steps)

    def __enter__(self) -> Display:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def step(self, text: str, group: str) -> None:
        """Announces the next step; where nothing moves, only a change of ``group`` is printed."""
        if self._bar is not None:
            self._bar.update(self._task, description=text, completed=self._done, refresh=True)
        elif group != self._last:
            seconds = time.monotonic() - self._start
            self._console.print(
                f"{seconds:6.0f} s  {self._done}/{self._steps}  {group}", highlight=False
            )
        self._last = group
        self._done += 1
