"""Whether an application server answers: the question before it gets its first request."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from lbcore.config.plan import Address, HealthPlan, PoolPlan
from lbcore.health.reply import Reply
from lbcore.health.target import Target, target_of

PAUSE = 0.05                     # seconds between attempts
POLITE = 1.0                     # seconds for the rest of an answer that has passed or failed
ANY = ((100, 599),)
READ_SIZE = 16 * 1024


def target_for(pool: PoolPlan, path: Path) -> Target:
    """What to ask a server of a pool: its health check if that is an HTTP one; otherwise any
    answer to ``GET /`` will do."""
    health = pool.health
    if health is None or health.type != "http":
        health = HealthPlan(type="http", expect_status=ANY)
    address = Address(path=str(path))
    return target_of(replace(health, port=0), address, address)


class Asking:
    """Asking a server again and again. ``said`` is why it has not passed so far."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.said = "it does not answer"

    async def passed(self) -> str:
        """Waits for an answer that passes; returns it in words."""
        while True:
            try:
                ok, said = await self._once()
            except OSError as error:
                ok, said = False, error.strerror or str(error)
            self.said = said
            if ok:
                return said
            await asyncio.sleep(PAUSE)

    async def _once(self) -> tuple[bool, str]:
        loop = asyncio.get_running_loop()
        reply = Reply(self.target.wanted, self.target.needle)
        with socket.socket(self.target.family, socket.SOCK_STREAM) as sock:
            sock.setblocking(False)
            await loop.sock_connect(sock, self.target.sockaddr)
            await loop.sock_sendall(sock, self.target.request)
            while reply.verdict is None:
                data = await loop.sock_recv(sock, READ_SIZE)
                if data:
                    reply.feed(data)
                else:
                    reply.closed()
            # Who leaves in the middle of an answer is an error in many servers' logs.
            with suppress(TimeoutError):
                async with asyncio.timeout(POLITE):
                    while not reply.over and (data := await loop.sock_recv(sock, READ_SIZE)):
                        reply.feed(data)
            return reply.verdict
