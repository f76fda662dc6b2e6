"""What happened lately: a ring of the last events, and readers who are told of new ones.

The log says everything here, whatever its own level hides. A reader who does not read is given
up: what waits for it is bounded, and nobody else waits for it.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from operator import itemgetter
from typing import Any

from lbcore.supervisor.log import LEVELS

Json = dict[str, Any]
RING = 1000
OUTPUT = "app.output"        # what applications print has a ring of its own: it may be a lot
BACKLOG = 1000               # events that wait for one reader
HANDED_OVER = 200            # that the next version is told of
MAX_VALUE = 1024             # characters of one value


class Subscription:
    """One reader: see ``lbcore.admin.contract.Subscription``."""

    def __init__(self, events: Events, after: int | None) -> None:
        self.dropped = False
        self._events = events
        self._waiting: deque[Json] = deque(events.after(after) if after is not None else ())
        self._news = asyncio.Event()
        self._closed = False
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()

    def __aiter__(self) -> AsyncIterator[Json]:
        """Itself."""
        return self

    async def __anext__(self) -> Json:
        """The next event. StopAsyncIteration: it was closed, or given up."""
        while not self._waiting:
            if self._closed:
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        return self._waiting.popleft()

    def close(self) -> None:
        """The reader is gone."""
        self._closed = True
        self._events.forget(self)
        self._wake()

    def take(self, event: Json) -> None:
        """One more event."""
        if len(self._waiting) >= BACKLOG:
            self.dropped = True
            self._waiting.clear()
            self.close()
            return
        self._waiting.append(event)
        self._wake()

    def _wake(self) -> None:
        if threading.get_ident() == self._thread:
            self._news.set()
        else:                        # a library logs in a thread of its own
            with suppress(RuntimeError):     # the loop has ended
                self._loop.call_soon_threadsafe(self._news.set)


class Events:
    """Listens to the log: give it :meth:`take` to call."""

    def __init__(self) -> None:
        self.last = 0
        self._ring: deque[Json] = deque(maxlen=RING)
        self._output: deque[Json] = deque(maxlen=RING)
        self._readers: set[Subscription] = set()

    def take(self, level: str, event: str, message: str, fields: Mapping[str, Any]) -> None:
        """One event."""
        self.last += 1
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        one: Json = {
            "seq": self.last, "time": now, "level": level if level in LEVELS else "info",
            "event": event, "message": str(message)[:MAX_VALUE],
            "fields": {name: _plain(value) for name, value in fields.items()}}
        (self._output if event == OUTPUT else self._ring).append(one)
        for reader in list(self._readers):
            reader.take(one)

    def after(self, seq: int) -> list[Json]:
        """What is known since an event; a number that is yet to come is of another instance."""
        if seq > self.last:
            seq = 0
        return [one for one in self._all() if one["seq"] > seq]

    def _all(self) -> list[Json]:
        return sorted([*self._ring, *self._output], key=itemgetter("seq"))

    def some(self, after: int, limit: int, level: str) -> Json:
        """The newest ones after an event that are at least so important."""
        least = LEVELS.get(level, 1)
        found = [one for one in self.after(after) if LEVELS[one["level"]] >= least]
        return {"events": found[-limit:] if limit > 0 else [], "last": self.last}

    def subscribe(self, after: int | None) -> Subscription:
        """A reader, who is told first what is known after an event."""
        reader = Subscription(self, after)
        self._readers.add(reader)
        return reader

    def forget(self, reader: Subscription) -> None:
        """It is told nothing more."""
        self._readers.discard(reader)

    def close(self) -> None:
        """Ends all readers."""
        for reader in list(self._readers):
            reader.close()

    def export(self) -> Json:
        """For the next version; JSON-able."""
        return {"last": self.last, "ring": sorted(
            [*list(self._ring)[-HANDED_OVER:], *list(self._output)[-HANDED_OVER:]],
            key=itemgetter("seq"))}

    def restore(self, state: object) -> None:
        """Goes on where an earlier version was. What has happened since comes after that."""
        if not isinstance(state, Mapping):
            return
        with suppress(KeyError, TypeError, ValueError):
            last, ring = int(state["last"]), [dict(one) for one in state["ring"]]
            if all({"seq", "time", "level", "event", "message", "fields"} <= set(one)
                   and one["level"] in LEVELS and isinstance(one["seq"], int) for one in ring):
                known = [*ring, *({**one, "seq": one["seq"] + last} for one in self._all())]
                self._output = deque((one for one in known if one["event"] == OUTPUT), RING)
                self._ring = deque((one for one in known if one["event"] != OUTPUT), RING)
                self.last += last


def _plain(value: object) -> object:
    """A value as JSON has it, and not too long."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value[:64]]
    return str(value)[:MAX_VALUE]
