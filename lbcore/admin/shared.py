"""One look at the instance for everybody who asks at the same time.

A picture of a thousand backends takes a while to take; two hundred readers must not take it two
hundred times.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Shared(Generic[T]):
    """The result of ``look``, which whoever waits for it shares. Nobody may change it."""

    def __init__(self, look: Callable[[], Awaitable[T]]) -> None:
        self._look = look
        self._running: asyncio.Task[T] | None = None     # has begun: too old for who comes now
        self._next: asyncio.Task[T] | None = None
        self._last: tuple[float, T] | None = None

    async def fresh(self) -> T:
        """A look that begins after this call. Raises what ``look`` raises."""
        if self._next is None:
            self._next = asyncio.create_task(self._take(self._running))
        return await asyncio.shield(self._next)

    async def recent(self, age: float) -> T:
        """One that began at most ``age`` seconds ago."""
        if self._last is not None and time.monotonic() - self._last[0] <= age:
            return self._last[1]
        return await self.fresh()

    async def _take(self, before: asyncio.Task[T] | None) -> T:
        if before is not None:
            await asyncio.wait([before])
        self._running, self._next = self._next, None
        begun = time.monotonic()
        try:
            found = await self._look()
            self._last = begun, found
            return found
        finally:
            self._running = None
