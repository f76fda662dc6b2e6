"""Looking names up without ever having to wait for the resolver.

The system's resolver cannot be interrupted, and asyncio's way of asking it makes whoever ends
wait for every question that is open. So a question has a daemon thread of its own here: when
nobody wants the answer any more, nobody waits for it, and the end of the process ends it.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from contextlib import suppress

AT_ONCE = 32                 # questions that are open at a time


async def addresses(hosts: list[str], timeout: float) -> dict[str, str | Exception]:  # noqa: ASYNC109
    """The first address of every host, or why there is none: OSError, UnicodeError, TimeoutError.

    ``timeout`` is the seconds for one answer.
    """
    free = asyncio.Semaphore(AT_ONCE)

    async def one(host: str) -> str | Exception:
        try:
            async with free, asyncio.timeout(timeout):
                return await _ask(host)
        except (OSError, UnicodeError) as error:     # TimeoutError is an OSError
            return error

    return dict(zip(hosts, await asyncio.gather(*map(one, hosts)), strict=True))


async def _ask(host: str) -> str:
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[str] = loop.create_future()

    def tell(found: str, error: Exception | None) -> None:
        if answer.done():            # given up
            return
        if error is None:
            answer.set_result(found)
        else:
            answer.set_exception(error)

    def ask() -> None:
        found = ""
        error: Exception | None = None
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())    # the main thread's
        try:
            found = str(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0])
        except Exception as problem:    # noqa: BLE001  (for whoever asked)
            error = problem
        with suppress(RuntimeError):    # the loop has ended meanwhile
            loop.call_soon_threadsafe(tell, found, error)

    threading.Thread(target=ask, name=f"resolve-{host}", daemon=True).start()
    return await answer
