"""Connections to the admin address: not too many, and none for ever.

The admin address shares its process with the health checks, so nobody may hold it up: not by
connecting a thousand times, not by sending a request a byte at a time, not by never reading the
answer. And where a token is asked for, who has none cannot keep out who has one.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from aiohttp import web
from aiohttp.web_request import BaseRequest

from lbcore.admin.contract import ControlError

MAX_CONNECTIONS = 200
MAX_REFUSALS = 100               # at the same time, beyond which connections are just closed
IDLE = 30.0                      # seconds for a request's head, and between requests
REFUSAL = 1.0                    # seconds that a refused client has to take the refusal
SETTINGS: dict[str, Any] = {
    "keepalive_timeout": IDLE, "lingering_time": 2.0, "max_line_size": 8190,
    "max_field_size": 8190, "access_log": None,
    # Who has not shown a token yet must not make us unpack a thousand times what was sent.
    "auto_decompress": False,
}
_BUSY = ControlError(503, f"more than {MAX_CONNECTIONS} connections to the admin address",
                     "close some, or try again in a moment").as_json()


class Connection(web.RequestHandler):
    """aiohttp's connection, whose errors are JSON and which does not log what strangers send."""

    known = False                # has shown the token, if there is one
    given_up = False             # for another that came later
    asked = False                # its first request has come

    def handle_error(self, request: BaseRequest, status: int = 500,
                     exc: BaseException | None = None, message: str | None = None
                     ) -> web.StreamResponse:
        """The answer to what is not HTTP, or to what failed inside.

        Raises ConnectionError, which ends the connection, when nobody is there to be answered.
        """
        if isinstance(exc, ConnectionError):
            raise exc
        if status >= 500:
            super().handle_error(request, status, exc)      # logs it
            message = "this is a fault of lbcore; its log says more"
        elif request.writer.output_size > 0:
            raise ConnectionError("an answer has begun already")
        first = (message or "this is not HTTP").splitlines()[0][:200].rstrip(":")
        answer = web.json_response(ControlError(status, first).as_json(), status=status,
                                   headers={"Server": "lbcore"})
        answer.force_close()
        return answer


class Refusal(asyncio.Protocol):
    """A connection too many: is told so, and has a moment to read it."""

    def __init__(self, refused: set[Refusal]) -> None:
        self._refused = refused
        self._transport: asyncio.Transport | None = None
        self._end: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Answers before a request: closing at once would make its arrival break the answer."""
        if not isinstance(transport, asyncio.Transport):
            raise TypeError("a stream is needed")
        self._transport = transport
        if len(self._refused) >= MAX_REFUSALS:
            transport.abort()
            return
        self._refused.add(self)
        body = json.dumps(_BUSY).encode()
        transport.write(b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n"
                        b"Retry-After: 1\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s"
                        % (len(body), body))
        if transport.can_write_eof():
            transport.write_eof()
        self._end = asyncio.get_running_loop().call_later(REFUSAL, transport.abort)

    def end(self) -> None:
        """Ends it now."""
        if self._transport is not None:
            self._transport.abort()

    def eof_received(self) -> bool:
        """The client has read all: the transport closes."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Forgets it."""
        self._refused.discard(self)
        if self._end is not None:
            self._end.cancel()


class Door:
    """Makes the protocols of new connections, and counts them.

    ``guarded`` says whether a token is asked for now.
    """

    def __init__(self, server: web.Server, guarded: Callable[[], bool]) -> None:
        self._server = server
        self._guarded = guarded
        self._refused: set[Refusal] = set()
        self._loop = asyncio.get_running_loop()

    def __call__(self) -> asyncio.Protocol:
        """For ``loop.create_server``."""
        if not self._make_room():
            return Refusal(self._refused)
        return Connection(self._server, loop=self._loop, **SETTINGS)

    def _make_room(self) -> bool:
        """Whether there is room for one more. Strangers make it, who have been here longest."""
        open_now = [one for one in self._server.connections
                    if isinstance(one, Connection) and not one.given_up]
        excess = len(open_now) - MAX_CONNECTIONS + 1
        if excess <= 0:
            return True
        strangers = [one for one in open_now if not one.known] if self._guarded() else []
        for stranger in strangers[:excess]:
            stranger.given_up = True
            if stranger.transport is not None:
                stranger.transport.abort()
        return len(strangers) >= excess

    @property
    def expecting(self) -> bool:
        """Whether anybody has connected whose first request is yet to come."""
        return not all(one.asked or one.given_up for one in self._server.connections
                       if isinstance(one, Connection))

    def close(self) -> None:
        """Ends refusals that are under way."""
        for refusal in list(self._refused):
            refusal.end()
