"""The live stream: states at an interval, and events as they happen, as server-sent events.

    event: state    data: {"status": ..., "live": ...}
    event: event    data: {"seq": ..., "event": "backend.state", ...}    id: seq

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html

Memory is bounded for any reader: a state is made when the one before it is written, so a slow
reader gets fewer of them; events wait in a subscription that gives up a reader who lets too many
wait; and a reader who takes nothing for ``STALL`` seconds is dropped. All readers of a kind share
what is sent.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Coroutine, Mapping
from typing import Any

from aiohttp import web

from lbcore.admin.contract import Control, ControlError, Json
from lbcore.admin.models import StreamQuery
from lbcore.admin.shared import Shared
from lbcore.admin.writing import dumps

MAX_STREAMS = 64
STALL = 10.0                     # seconds in which a reader must take something
PING = 15.0                      # seconds between comments, which show both sides that all is well
AT_MOST_EVERY = 0.25             # seconds from one state to the next, however much changes
SLACK = 0.2                      # seconds that a state may be old, so that readers share it
LEVELS = ("debug", "info", "warning", "error")
HEADERS = {"Content-Type": "text/event-stream", "Cache-Control": "no-store",
           "X-Accel-Buffering": "no"}


class Streams:
    """All streams of an admin address."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._frames: dict[int | None, Shared[bytes]] = {}
        self._closing = asyncio.Event()
        self.open = 0

    def close(self) -> None:
        """Ends every stream; its reader is to connect again."""
        self._closing.set()

    async def serve(self, request: web.Request, asked: StreamQuery, headers: Mapping[str, str]
                    ) -> web.StreamResponse:
        """One stream, until its reader goes or is too slow. Raises ControlError at its start."""
        if self.open >= MAX_STREAMS:
            raise ControlError(503, f"{MAX_STREAMS} streams are open already", "close one")
        after = self._begin_after(request, asked)
        self.open += 1
        try:
            response = web.StreamResponse(headers={**headers, **HEADERS})
            await response.prepare(request)
            await _Reader(self._control, response, request).run(
                self._states(asked), asked, after, self._closing)
            return response
        finally:
            self.open -= 1

    def _begin_after(self, request: web.Request, asked: StreamQuery) -> int | None:
        said = request.headers.get("Last-Event-ID")
        if said is not None and not (said.isascii() and said.isdecimal() and len(said) < 17):
            raise ControlError(400, f"Last-Event-ID: {said[:80]} is no event's number")
        after = asked.after if said is None else int(said)
        if after is not None and after > self._control.events(0, 1, "debug")["last"]:
            return 0             # a number of an earlier instance: all of this one's are new
        return after

    def _states(self, asked: StreamQuery) -> Shared[bytes]:
        window = asked.window if asked.live else None

        async def look() -> bytes:
            state: Json = {"status": await self._control.state()}
            if window is not None:
                state["live"] = await self._control.live(window)
            return _message("state", dumps(state))

        return self._frames.setdefault(window, Shared(look))


class _Reader:
    """What one reader gets."""

    def __init__(self, control: Control, response: web.StreamResponse, request: web.Request
                 ) -> None:
        self._control = control
        self._response = response
        self._transport = request.transport
        self._turn = asyncio.Lock()

    async def run(self, states: Shared[bytes], asked: StreamQuery, after: int | None,
                  closing: asyncio.Event) -> None:
        """Until something ends it: the reader, its slowness, or the server."""
        work: list[Coroutine[Any, Any, Any]] = [
            self._tell_states(states, asked.interval), self._tell_events(after, asked.level),
            self._ping(), closing.wait()]
        tasks = [asyncio.create_task(one) for one in work]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
        slow = any(isinstance(end, TimeoutError) for end in ends)
        if slow and self._transport is not None:
            self._transport.abort()      # a polite end would wait for the reader, too
            raise ConnectionResetError("the reader of a stream was too slow")
        for end in ends:
            if isinstance(end, Exception) and not isinstance(end, ConnectionError | TimeoutError):
                raise end

    async def _send(self, data: bytes) -> None:
        async with self._turn, asyncio.timeout(STALL):
            await self._response.write(data)

    async def _tell_states(self, states: Shared[bytes], interval: float) -> None:
        with self._control.watch() as changed:
            frame = await states.recent(SLACK)
            while True:
                sent = time.monotonic()
                await self._send(frame)
                try:
                    async with asyncio.timeout(max(0.0, sent + interval - time.monotonic())):
                        await changed.wait()
                except TimeoutError:
                    frame = await states.recent(SLACK)
                    continue
                await asyncio.sleep(sent + AT_MOST_EVERY - time.monotonic())
                changed.clear()
                frame = await states.fresh()

    async def _tell_events(self, after: int | None, level: str) -> None:
        least = LEVELS.index(level)
        events = self._control.subscribe(after)
        try:
            async for event in events:
                if LEVELS.index(event["level"]) >= least:
                    await self._send(_message(
                        "event", json.dumps(event, default=str).encode(), event["seq"]))
        finally:
            events.close()

    async def _ping(self) -> None:
        await self._send(b"retry: 1000\n\n")
        while True:
            await asyncio.sleep(PING)
            await self._send(b": here\n\n")


def _message(event: str, data: bytes, number: int | None = None) -> bytes:
    """A message in the format of the specification; JSON has no line breaks of its own."""
    number_line = "" if number is None else f"id: {number}\n"
    return f"{number_line}event: {event}\ndata: ".encode() + data + b"\n\n"
