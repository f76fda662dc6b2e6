"""Looking names up without ever having to wait for the resolver.

The system's resolver cannot be interrupted, so each question has a thread of its own.
"""

from __future__ import annotations

import asyncio
import socket
from functools import partial

from lbcore.supervisor.aside import aside

AT_ONCE = 32                 # questions that are open at a time
Answer = list[str] | Exception


async def addresses(hosts: list[str], timeout: float) -> dict[str, Answer]:  # noqa: ASYNC109
    """The addresses of every host, or why there are none: OSError, UnicodeError, TimeoutError.

    In the order in which they are to be tried (RFC 6724), and of the first one's family only.
    ``timeout`` is the seconds for one answer.
    """
    free = asyncio.Semaphore(AT_ONCE)

    async def one(host: str) -> Answer:
        try:
            async with free, asyncio.timeout(timeout):
                return await aside(f"resolve-{host}", partial(_ask, host))
        except (OSError, UnicodeError) as error:     # TimeoutError is an OSError
            return error

    return dict(zip(hosts, await asyncio.gather(*map(one, hosts)), strict=True))


def _ask(host: str) -> list[str]:
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(where[0]) for family, _, _, _, where in found
                              if family == found[0][0]))
