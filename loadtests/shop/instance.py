"""This process as one of several: its name, its health, and the faults it is told to have.

It is told over HTTP by whoever reaches its own port: ``/instance?delay=0.5`` makes every answer
half a second late, ``/instance?failing=1`` makes it answer 503 to everything, its health check
included, and ``/instance`` makes it well again.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import parse_qs

Scope = dict[str, Any]
Message = Mapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

FIELD = "X-Shop-Instance"       # of every answer: NUMBER.LIFE
CONTROL = "/instance"
HEALTH = "/healthz"


class Instance:
    """An ASGI application around another one.

    Its name is NUMBER.LIFE, of SHOP_INSTANCE and SHOP_LIFE: one instance keeps its number when it
    is started again, and begins another life. Without them the life is the process's number.
    """

    def __init__(self, inner: Application) -> None:
        self._inner = inner
        number = os.environ.get("SHOP_INSTANCE", "1")
        self.name = f"{number}.{os.environ.get('SHOP_LIFE', os.getpid())}"
        self._delay = 0.0       # seconds
        self._failing = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, WebSocket or lifespan."""
        if scope["type"] == "websocket":
            await self._inner({**scope, "shop.instance": self.name}, receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, self._signed(send))
        else:
            await _lifespan(receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == CONTROL:
            wanted = parse_qs(scope["query_string"].decode())
            self._delay = float(wanted.get("delay", ["0"])[0])
            self._failing = wanted.get("failing") == ["1"]
            await _say(send, 200, f"delay {self._delay:g}, failing {self._failing}\n")
            return
        if self._delay:
            await asyncio.sleep(self._delay)
        if self._failing:
            await _say(send, 503, "this instance has been told to fail\n")
        elif scope["path"] == HEALTH:
            await _say(send, 200, "well\n")
        else:
            await self._inner(scope, receive, send)

    def _signed(self, send: Send) -> Send:
        """``send`` with the instance's name in the head of the answer."""
        async def signed(message: Message) -> None:
            if message["type"] == "http.response.start":
                name = FIELD.lower().encode(), self.name.encode()
                message = {**message, "headers": [*message.get("headers", ()), name]}
            await send(message)

        return signed


async def _say(send: Send, status: int, text: str) -> None:
    body = text.encode()
    await send({"type": "http.response.start", "status": status, "headers": [
        (b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]})
    await send({"type": "http.response.body", "body": body})


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
