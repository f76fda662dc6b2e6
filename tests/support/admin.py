"""What tests of the admin address share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

PATIENCE = 20.0


async def until(what: Callable[[], object], patience: float = PATIENCE) -> None:
    """Returns once it is true. For state that announces itself nowhere."""
    async with asyncio.timeout(patience):
        while True:
            if what():
                return
            await asyncio.sleep(0.01)
