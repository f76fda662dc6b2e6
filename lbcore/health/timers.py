"""Many timers behind one timer of the event loop.

asyncio's own timers cost a handle object and Python comparisons each; thousands of checks a
second would pay for them several times over. Here a timer is a tuple in a heap, and timers are
rounded up to a tick, so that what is due together is done in one turn of the loop.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import math
import time
from collections.abc import Callable
from typing import Any, Final

TICK_S: Final = 0.01
MOST_PER_TURN: Final = 64       # then the loop gets to serve others

log = logging.getLogger(__name__)


class Timer:
    """One thing to do later; :meth:`cancel` may be called at any time, any number of times."""

    __slots__ = ("_timers", "argument", "call")

    def __init__(self, timers: Timers, call: Callable[[Any], None], argument: Any) -> None:
        self._timers = timers
        self.call: Callable[[Any], None] | None = call
        self.argument = argument

    def cancel(self) -> None:
        """Makes sure it does not happen (any more)."""
        if self.call is not None:
            self.call = self.argument = None
            self._timers.cancelled += 1


class Timers:
    """A heap of timers. Times are ``time.monotonic()`` seconds, which is asyncio's clock too.

    Timers may be set before :meth:`open`; nothing happens until then.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._handle: asyncio.TimerHandle | None = None
        self._armed_for = math.inf
        self._running = False
        self.cancelled = 0      # that are still in the heap

    def __len__(self) -> int:
        return len(self._heap)

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        """Starts the clock."""
        self._loop = loop
        self._arm()

    def close(self) -> None:
        """Forgets every timer."""
        self._loop = None
        for _, _, timer in self._heap:
            timer.call = timer.argument = None
        self._heap.clear()
        self.cancelled = 0
        self._disarm()

    def at(self, when: float, call: Callable[[Any], None], argument: Any) -> Timer:
        """``call(argument)`` at ``when`` or up to a tick later."""
        timer = Timer(self, call, argument)
        if self.cancelled > 256 and self.cancelled > len(self._heap) // 2:
            self._sweep()
        heapq.heappush(self._heap, (when, next(self._order), timer))
        if when < self._armed_for and not self._running:
            self._arm()
        return timer

    def _sweep(self) -> None:
        """Frees what cancelled timers hold on to; long ones would stay until they are due."""
        self._heap[:] = [entry for entry in self._heap if entry[2].call is not None]
        heapq.heapify(self._heap)
        self.cancelled = 0

    def _arm(self) -> None:
        self._disarm()
        if self._loop is None or not self._heap:
            return
        self._armed_for = math.ceil(self._heap[0][0] / TICK_S) * TICK_S
        self._handle = self._loop.call_at(self._armed_for, self._run)

    def _disarm(self) -> None:
        self._armed_for = math.inf
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _run(self) -> None:
        self._running = True
        now = time.monotonic()
        done = 0
        try:
            while self._heap and self._heap[0][0] <= now and done < MOST_PER_TURN:
                timer = heapq.heappop(self._heap)[2]
                if timer.call is None:
                    self.cancelled -= 1
                    continue
                call, argument = timer.call, timer.argument
                timer.call = timer.argument = None
                done += 1
                try:
                    call(argument)
                except Exception:
                    # One backend's trouble must not stop the clock of all others.
                    log.exception("health: a timer failed")
        finally:
            self._running = False
            self._arm()
