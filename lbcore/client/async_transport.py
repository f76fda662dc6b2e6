"""How calls reach an admin address without waiting for it: over aiohttp."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from lbcore.admin.calls import AdminError, Call, Json
from lbcore.admin.client import (
    AT_ONCE,
    SILENCE,
    ImpostorError,
    explained,
    require_owner,
    socket_name,
)
from lbcore.admin.sse import Parser
from lbcore.client.common import ADVICE
from lbcore.config.plan import Address


class _OwnedUnixConnector(aiohttp.UnixConnector):
    """Sends nothing to a process of another user, as the client that waits does."""

    async def _create_connection(self, *arguments: Any, **more: Any) -> Any:
        protocol = await super()._create_connection(*arguments, **more)
        try:
            require_owner(protocol.transport.get_extra_info("socket"))  # type: ignore[union-attr]
        except ImpostorError:
            protocol.close()
            raise
        return protocol


class AsyncTransport:
    """One admin address. Every call is a connection of its own, as with ``Transport``."""

    def __init__(self, address: Address, timeout: float, token: str) -> None:
        self.address = address
        self.timeout = timeout
        self.token = token

    async def do(self, call: Call, timeout: float | None = None) -> Json:
        """The answer to a call. Raises NotRunning or AdminError."""
        patience = self.timeout if timeout is None else timeout
        async with self._asked(call, patience, patience) as answer:
            text = await answer.read()
        return call.answer(self.address, answer.status, text)

    async def stream(self, call: Call) -> AsyncGenerator[tuple[str, Json], None]:
        """Name and data of each message of a stream, until lbcore ends it.

        Raises NotRunning or AdminError. Closing the iterator closes the connection.
        """
        async with self._asked(call, self.timeout, max(SILENCE, self.timeout)) as answer:
            if answer.status >= 400 or answer.content_type != "text/event-stream":
                call.answer(self.address, answer.status, await answer.read())
                raise AdminError(f"{self.address} does not answer like lbcore: no stream",
                                 status=answer.status)
            parser = Parser()
            while data := await answer.content.read(AT_ONCE):
                for message in parser.feed(data):
                    yield message.event, json.loads(message.data)

    @asynccontextmanager
    async def _asked(
        self, call: Call, patience: float, silence: float
    ) -> AsyncGenerator[aiohttp.ClientResponse, None]:
        where = self.address
        connector: aiohttp.BaseConnector = (
            _OwnedUnixConnector(socket_name(where.path), force_close=True) if where.path
            else aiohttp.TCPConnector(force_close=True))
        host = f"[{where.host}]" if ":" in where.host else where.host
        base = "http://localhost" if where.path else f"http://{host}:{where.port}"
        limits = aiohttp.ClientTimeout(total=None, sock_connect=patience, sock_read=silence)
        try:
            async with aiohttp.ClientSession(
                connector=connector, timeout=limits, cookie_jar=aiohttp.DummyCookieJar(),
            ) as session, session.request(
                call.method, base + call.target, data=call.data(),
                headers=call.headers(self.token), allow_redirects=False,
            ) as answer:
                yield answer
        except aiohttp.ClientConnectorError as error:
            raise explained(error.os_error, where, patience, ADVICE) from error
        except asyncio.TimeoutError as error:       # noqa: UP041  (so is aiohttp's, a ClientError)
            raise explained(TimeoutError(), where, patience, ADVICE) from error
        except (OSError, ImpostorError, aiohttp.ClientError, ValueError) as error:
            raise explained(error, where, patience, ADVICE) from error
