"""Work beside the event loop, in a thread that nobody has to wait for.

asyncio's own executor is joined at the end, and its threads take signals that are meant for the
main thread: one that came in the moment of an exec would be lost.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


async def aside(name: str, work: Callable[[], T]) -> T:
    """What ``work`` returns or raises, while the loop goes on.

    When nobody wants it any more, nobody waits for it, and the end of the process ends it.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()

    def tell(act: Callable[[], None]) -> None:
        if not answer.done():        # given up
            act()

    def do() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())    # the main thread's
        try:
            found = work()
        except Exception as error:      # noqa: BLE001  (for whoever asked)
            problem = error
            act = lambda: answer.set_exception(problem)     # noqa: E731
        else:
            act = lambda: answer.set_result(found)          # noqa: E731
        with suppress(RuntimeError):    # the loop has ended meanwhile
            loop.call_soon_threadsafe(tell, act)

    threading.Thread(target=do, name=name, daemon=True).start()
    return await answer
