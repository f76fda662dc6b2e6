"""One control channel: packets of JSON and descriptors, to and from one worker.

The messages are described in docs/internals/control-channel.md. A channel never blocks: what the
kernel does not take at once waits in a queue, with the descriptors duplicated so that the caller
may close its own.
"""

from __future__ import annotations

import array
import asyncio
import itertools
import json
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

Message = dict[str, Any]
MAX_PACKET = 64 * 1024
MAX_DESCRIPTORS = 250


class ChannelClosed(ConnectionError):
    """The worker at the other end is gone, or was before it answered."""


class WorkerRefused(Exception):
    """The worker answered with an error; nothing changed in it."""


class Channel:
    """The supervisor's end of a control channel; the running loop watches it."""

    def __init__(
        self,
        sock: socket.socket,
        on_message: Callable[[Message], None] = lambda message: None,
        on_close: Callable[[], None] = lambda: None,
    ) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._on_message = on_message
        self._on_close = on_close
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._answers: dict[int, list[tuple[Message, list[int]]]] = {}
        self._queue: deque[tuple[bytes, list[int]]] = deque()
        self.closed = False
        self._loop.add_reader(sock.fileno(), self._readable)

    def fileno(self) -> int:
        """The descriptor, for handing it on over an exec."""
        return self._sock.fileno()

    def send(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Sends one message, now or as soon as the worker has room for it.

        Raises ChannelClosed, or ValueError when it is larger than a packet may be.
        """
        if self.closed:
            raise ChannelClosed("the worker has closed its control channel")
        data = json.dumps(message, separators=(",", ":")).encode()
        if len(data) > MAX_PACKET or len(descriptors) > MAX_DESCRIPTORS:
            raise ValueError(
                f"control message {message['op']!r} is too large: {len(data)} bytes, "
                f"{len(descriptors)} descriptors"
            )
        if self._queue or not self._try_send(data, descriptors):
            self._queue.append((data, [os.dup(fd) for fd in descriptors]))
            self._loop.add_writer(self._sock.fileno(), self._writable)

    async def ask(
        self, message: Message, descriptors: Sequence[int] = (), timeout: float = 10.0,  # noqa: ASYNC109
        sent: Callable[[], None] = lambda: None,
    ) -> list[tuple[Message, list[int]]]:
        """Sends a request and returns its answers, with the descriptors that came with each.

        ``sent`` is called at once, unless the channel is full: what was sent so far then reaches
        the worker whatever becomes of us. Raises WorkerRefused with the worker's text,
        ChannelClosed when it died before it answered, TimeoutError after ``timeout`` seconds.
        """
        number = next(self._ids)
        future = self._loop.create_future()
        self._waiting[number] = future
        self._answers[number] = []
        try:
            self.send(message | {"id": number}, descriptors)
            if not self._queue:
                sent()
            async with asyncio.timeout(timeout):
                await future
            return self._answers[number]
        except BaseException:
            for _, unused in self._answers[number]:
                _close_all(unused)
            raise
        finally:
            del self._waiting[number]
            del self._answers[number]

    def close(self) -> None:
        """Closes our end; whoever waits for an answer gets ChannelClosed."""
        if self.closed:
            return
        self.closed = True
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())
        self._sock.close()
        for _, descriptors in self._queue:
            _close_all(descriptors)
        self._queue.clear()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(ChannelClosed("the worker ended before it answered"))

    def unsent(self) -> list[tuple[str, list[int]]]:
        """What waits for room, with its descriptors, for the next owner; see :meth:`send_first`."""
        return [(data.decode(), list(descriptors)) for data, descriptors in self._queue]

    def send_first(self, unsent: Sequence[tuple[str, Sequence[int]]]) -> None:
        """Takes over what an earlier owner could not send. Closes the descriptors when it has."""
        if unsent:
            self._queue.extend((text.encode(), list(numbers)) for text, numbers in unsent)
            self._loop.add_writer(self._sock.fileno(), self._writable)

    def pause(self) -> None:
        """Stops reading: what arrives from now on is for the next owner of the descriptor."""
        self._loop.remove_reader(self._sock.fileno())

    def resume(self) -> None:
        """Reads again after :meth:`pause`."""
        if not self.closed:
            self._loop.add_reader(self._sock.fileno(), self._readable)

    def _try_send(self, data: bytes, descriptors: Sequence[int]) -> bool:
        ancillary = []
        if descriptors:
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
        try:
            self._sock.sendmsg([data], ancillary)
        except BlockingIOError:
            return False
        except OSError as error:
            raise ChannelClosed(f"cannot reach the worker: {error.strerror}") from error
        return True

    def _writable(self) -> None:
        while self._queue:
            data, descriptors = self._queue[0]
            try:
                if not self._try_send(data, descriptors):
                    return
            except ChannelClosed:
                self._lost()
                return
            self._queue.popleft()
            _close_all(descriptors)
        self._loop.remove_writer(self._sock.fileno())

    def _readable(self) -> None:
        for _ in range(32):     # bounded: other workers and health checks have their turn too
            if self.closed:
                return
            try:
                data, ancillary, _, _ = self._sock.recvmsg(
                    MAX_PACKET, socket.CMSG_SPACE(4 * 253), socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                return
            except OSError:
                self._lost()
                return
            if not data:
                self._lost()
                return
            descriptors = array.array("i")
            for level, kind, payload in ancillary:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    descriptors.frombytes(payload[: len(payload) - len(payload) % 4])
            self._deliver(data, list(descriptors))

    def _deliver(self, data: bytes, descriptors: list[int]) -> None:
        try:
            message = json.loads(data)
        except ValueError:
            message = None
        if not isinstance(message, dict):
            _close_all(descriptors)
            return
        number = message.get("id")
        future = self._waiting.get(number) if isinstance(number, int) else None
        if number is None or future is None or future.done():
            _close_all(descriptors)
            if number is None:
                self._on_message(message)
            return
        if message.get("op") == "error":
            _close_all(descriptors)
            future.set_exception(WorkerRefused(str(message.get("error", "no reason given"))))
            return
        self._answers[number].append((message, descriptors))
        if not message.get("more"):
            future.set_result(None)

    def _lost(self) -> None:
        self.close()
        self._on_close()


def _close_all(descriptors: Sequence[int]) -> None:
    for fd in descriptors:
        with suppress(OSError):
            os.close(fd)
