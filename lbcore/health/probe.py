"""Checks in flight: non-blocking sockets behind one epoll descriptor.

An epoll descriptor is readable when one of its sockets is ready. asyncio watches only that one; a
check costs neither a task nor a stream nor two registrations with the event loop, which is what
makes a thousand checks a second cheap. What a check costs is a handful of system calls.

A check is given one deadline for all of it and one verdict: the first of connect error, answer
judged, closed, deadline. Whatever a backend does, a check holds one descriptor and 32 KiB of
buffers at most and is gone by its deadline.

How connections end matters, because a thousand checks a second would leave 60,000 sockets in
TIME_WAIT, and with them run out of ports towards a single backend:

tcp   SO_LINGER with time 0: closing sends a reset, which leaves no TIME_WAIT on either side. The
      acknowledgement that would complete the handshake is held back (TCP_QUICKACK off), so the
      reset usually reaches the backend first: its kernel takes the half-open connection away and
      the application is neither woken up nor made to log a client that came only to leave.
http  "Connection: close" makes the backend close first. The verdict is given as soon as it is
      known; the connection then stays until the backend closes it, the size limit or the
      deadline, because leaving in the middle of an answer puts errors into the logs of many
      servers. Only then it is reset.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import select
import socket
import struct
import time
from collections.abc import Callable
from enum import Enum, auto
from typing import Final, NamedTuple

from lbcore.health.reply import Reply
from lbcore.health.target import Target
from lbcore.health.timers import Timer, Timers

log = logging.getLogger(__name__)

READ_SIZE: Final = 16 * 1024
MOST_PER_TURN: Final = 64       # events; then the loop gets to serve others
RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
EVENTS: Final = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET
READABLE: Final = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR

# Shortages on this side. They say nothing about the backend.
OWN_TROUBLE: Final = frozenset({
    errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ENOSPC, errno.EADDRNOTAVAIL,
    errno.EAGAIN,
})
WORDS: Final = {
    errno.ECONNREFUSED: "connection refused",
    errno.ECONNRESET: "connection reset",
    errno.EPIPE: "connection closed while the request was sent",
    errno.EHOSTUNREACH: "no route to host",
    errno.ENETUNREACH: "network unreachable",
    errno.ENOENT: "socket file does not exist",
    errno.EACCES: "no permission to connect",
    errno.ETIMEDOUT: "connection timed out",
}


class Outcome(NamedTuple):
    """How a check ended. ``ok`` is None when it could not be made for a shortage on this side."""

    ok: bool | None
    detail: str
    latency_ms: float


class _Phase(Enum):
    CONNECT = auto()
    SEND = auto()
    READ = auto()
    OVER = auto()


class Probe:
    """One check in flight; made by :meth:`Prober.begin`."""

    __slots__ = ("began", "deadline", "done", "phase", "reply", "sock", "target", "unsent")

    def __init__(self, target: Target, done: Callable[[Outcome], None]) -> None:
        self.target = target
        self.done: Callable[[Outcome], None] | None = done      # None once the verdict is given
        self.began = time.monotonic()
        self.phase = _Phase.CONNECT
        self.sock: socket.socket | None = None
        self.reply: Reply | None = None
        self.unsent = target.request
        self.deadline: Timer | None = None


class Prober:
    """Makes checks. One per monitor."""

    def __init__(self, timers: Timers) -> None:
        self._timers = timers
        self._loop: asyncio.AbstractEventLoop | None = None
        self._epoll: select.epoll | None = None
        self._probes: dict[int, Probe] = {}
        self._buffer = bytearray(READ_SIZE)
        self._view = memoryview(self._buffer)

    def __len__(self) -> int:
        """Connections open now."""
        return len(self._probes)

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begins to watch sockets. Raises OSError when there is no descriptor left."""
        self._epoll = select.epoll()
        self._loop = loop
        loop.add_reader(self._epoll.fileno(), self._turn)

    def close(self) -> None:
        """Ends every check without a verdict and leaves no descriptor behind."""
        for probe in list(self._probes.values()):
            self.drop(probe)
        if self._epoll is not None and self._loop is not None:
            self._loop.remove_reader(self._epoll.fileno())
            self._epoll.close()
        self._epoll = self._loop = None

    def begin(self, target: Target, done: Callable[[Outcome], None]) -> Probe:
        """Starts a check. ``done`` gets its outcome exactly once, unless it is dropped before.

        Call it from timers only, never from ``done``: while a batch of events is worked off, a
        new socket could be given the number of one that was closed a moment ago, and be taken
        for it by an event that is still in the batch.
        """
        assert self._epoll is not None, "open() comes first"
        probe = Probe(target, done)
        try:
            sock = socket.socket(target.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        except OSError as error:
            self._fail(probe, error)
            return probe
        probe.sock = sock
        try:
            if not target.request and target.family != socket.AF_UNIX:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
            code = sock.connect_ex(target.sockaddr)
            if code == errno.EAGAIN and target.family == socket.AF_UNIX:
                self._verdict(probe, False, "the backend's accept queue is full")
                self.drop(probe)
                return probe
            if code not in (0, errno.EINPROGRESS):
                raise OSError(code, os.strerror(code))
            probe.deadline = self._timers.at(probe.began + target.timeout_s, self._expire, probe)
            self._probes[sock.fileno()] = probe
            # A socket that is connected already gets its first event at once.
            self._epoll.register(sock, EVENTS)
        except OSError as error:
            self._fail(probe, error)
        return probe

    def drop(self, probe: Probe, closed: bool = False) -> None:
        """Ends a check, without a verdict if there was none. More than once does no harm.

        Unless the backend has ``closed`` first, the connection is reset.
        """
        probe.done = None
        probe.phase = _Phase.OVER
        if probe.deadline is not None:
            probe.deadline.cancel()
            probe.deadline = None
        if probe.sock is not None:
            # Closing takes it out of the epoll set.
            self._probes.pop(probe.sock.fileno(), None)
            if probe.target.request and not closed and probe.sock.family != socket.AF_UNIX:
                probe.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            probe.sock.close()
            probe.sock = None

    # -- one turn

    def _turn(self) -> None:
        assert self._epoll is not None
        for descriptor, events in self._epoll.poll(0, MOST_PER_TURN):
            probe = self._probes.get(descriptor)
            if probe is not None:
                self._advance(probe, events)

    def _advance(self, probe: Probe, events: int) -> None:
        try:
            if probe.phase is _Phase.CONNECT:
                self._connected(probe, events)
            if probe.phase is _Phase.SEND:
                self._send(probe)
            if probe.phase is _Phase.READ and events & READABLE:
                self._read(probe, events)
        except OSError as error:
            self._fail(probe, error)

    def _connected(self, probe: Probe, events: int) -> None:
        assert probe.sock is not None
        code = probe.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))
        if not events & select.EPOLLOUT:
            return
        if probe.unsent:
            probe.phase = _Phase.SEND
            return
        self._verdict(probe, True, "connected")
        self.drop(probe)

    def _send(self, probe: Probe) -> None:
        assert probe.sock is not None
        try:
            sent = probe.sock.send(probe.unsent)
        except BlockingIOError:
            return
        probe.unsent = probe.unsent[sent:]
        if not probe.unsent:
            probe.phase = _Phase.READ
            probe.reply = Reply(probe.target.wanted, probe.target.needle)

    def _read(self, probe: Probe, events: int) -> None:
        assert probe.reply is not None
        while probe.sock is not None:
            try:
                size = probe.sock.recv_into(self._buffer)
            except BlockingIOError:
                return
            if size:
                probe.reply.feed(bytes(self._view[:size]))
            else:
                probe.reply.closed()
            if probe.reply.verdict is not None:
                self._verdict(probe, *probe.reply.verdict)
            if probe.reply.over:
                self.drop(probe, closed=size == 0)
            elif size < READ_SIZE and not events & select.EPOLLRDHUP:
                # A short read means drained: edge-triggered epoll reports what comes later. Not
                # so if the backend has closed already, then the end is still to be read.
                return

    # -- verdicts

    def _verdict(self, probe: Probe, ok: bool | None, detail: str) -> None:
        done, probe.done = probe.done, None
        if done is None:
            return
        try:
            done(Outcome(ok, detail, (time.monotonic() - probe.began) * 1000))
        except Exception:
            # Other backends' events are waiting in the same batch.
            log.exception("health: the outcome of a check was not taken")

    def _fail(self, probe: Probe, error: OSError) -> None:
        code = error.errno or 0
        if code in OWN_TROUBLE:
            self._verdict(probe, None, f"could not check: {os.strerror(code)}")
        else:
            words = WORDS.get(code, os.strerror(code))
            if code == errno.ECONNRESET and probe.reply is not None:
                words += " in the middle of the answer" if probe.reply.started else \
                         " before an answer"
            self._verdict(probe, False, words)
        self.drop(probe)

    def _expire(self, probe: Probe) -> None:
        """The deadline. What arrived in time counts, even if this process was too busy (or
        stopped) to look at it: otherwise a pause of the supervisor takes every backend down."""
        if probe.sock is None:
            return
        ready = select.poll()
        ready.register(probe.sock, select.POLLIN | select.POLLOUT | select.POLLRDHUP)
        found = ready.poll(0)
        if found:
            self._advance(probe, found[0][1])   # the bits are epoll's
        if probe.sock is None:
            return
        limit = f"within {round(probe.target.timeout_s * 1000)} ms"
        if probe.phase is _Phase.CONNECT:
            text = f"no connection {limit}"
        elif probe.reply is None or not probe.reply.started:
            text = f"connected, but no answer {limit}"
        else:
            text = f"answer not complete {limit}"
        self._verdict(probe, False, text)
        self.drop(probe)
