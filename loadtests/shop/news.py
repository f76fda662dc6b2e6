"""What happens in the shop, for those who wait for it."""

from __future__ import annotations

import asyncio

PATIENCE = 2.0          # seconds that a customer is kept waiting


class News:
    """A number that rises with every sale."""

    def __init__(self) -> None:
        self.number = 0
        self._changed = asyncio.Condition()

    async def add(self) -> None:
        """One more sale."""
        async with self._changed:
            self.number += 1
            self._changed.notify_all()

    async def after(self, sales: int) -> int | None:
        """The number once there have been some more ``sales``; None when that takes too long."""
        wanted = self.number + sales
        try:
            async with asyncio.timeout(PATIENCE), self._changed:
                await self._changed.wait_for(lambda: self.number >= wanted)
        except TimeoutError:
            return None
        return self.number


news = News()
