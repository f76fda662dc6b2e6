"""Load for tests that break lbcore: new connections at a steady rate, and ones that stay.

``Load`` runs in a process of its own with one epoll, so that what the test does meanwhile does
not show in its latencies. Every connection is opened on schedule, whatever became of those
before it. It says something, checks the echo, says something else, checks that too, ends its
side and expects the other side to end in an orderly way. Whatever else happens is a failure, told
apart by how far the connection had come: a connect that is refused, a connection that was taken
and then lost before a single byte came back, one that was lost midway.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import json
import os
import select
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from types import TracebackType
from typing import Any

from tests.support.descriptors import raise_limit
from tests.support.instance import PATIENCE
from tests.support.steered import Steered

# Kinds of failure, by how far the connection had come.
REFUSED = "refused"                              # nobody listens there
NOT_CONNECTED = "no connection in time"
UNSERVED = "lost before the first answer"        # connected, then reset or closed
LOST = "lost midway"                             # after the first answer
SILENT = "no answer in time"
WRONG = "wrong bytes"
LOCAL = "this machine's fault"                   # out of ports or descriptors of its own
DETAILS = 40                                     # failures that are described one by one
LENGTH = 256                                     # bytes said each time


@dataclass
class Report:
    """What became of the connections so far. Latency is from connect to the first whole answer."""

    started: int = 0
    succeeded: int = 0
    open: int = 0
    failed: dict[str, int] = field(default_factory=dict)
    details: list[str] = field(default_factory=list)
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    slowest_ms: float = 0.0

    @property
    def failures(self) -> int:
        """All kinds together."""
        return sum(self.failed.values())

    def __str__(self) -> str:
        details = "".join(f"\n  {line}" for line in self.details)
        return (f"{self.succeeded} of {self.started} succeeded, failed: {self.failed or 'none'}; "
                f"p50 {self.p50_ms:.1f} ms, p99 {self.p99_ms:.1f} ms, "
                f"slowest {self.slowest_ms:.1f} ms{details}")


class Load(Steered[Report]):
    """The test's end of a load process. Use it as a context manager.

    ``rate`` connections a second, of which at most ``most`` are open at once; each stays ``hold``
    seconds between its two exchanges, and must be through within ``patience`` seconds.
    """

    def __init__(self, address: tuple[str, int], *, rate: int = 400, hold: float = 0.0,
                 patience: float = 60.0, most: int = 4000) -> None:
        super().__init__("tests.support.load", {
            "address": address, "rate": rate, "hold": hold, "patience": patience, "most": most,
        }, Report)

    def mark(self) -> Report:
        """How it stands; latencies are counted anew from here."""
        return self.ask("mark")

    def expect_no_failure(self) -> Report:
        """Finishes; fails with a description if any connection did."""
        report = self.finish()
        assert report.succeeded == report.started > 0, str(report)
        return report


class LongLived:
    """Connections that stay, held by the test itself. Use it as a context manager."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.address = address
        self.socks: list[socket.socket] = []

    def __enter__(self) -> LongLived:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def open(self, count: int) -> list[socket.socket]:
        """Opens so many, each with an exchange, so that each has its backend."""
        fresh = []
        for _ in range(count):
            sock = socket.create_connection(self.address, PATIENCE)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            fresh.append(sock)
        self.socks += fresh
        dead = self.ask(fresh)
        assert not dead, f"{len(dead)} of {count} did not come to life: {dead[:3]}"
        return fresh

    def ask(self, socks: Sequence[socket.socket] | None = None) -> list[str]:
        """One more exchange on each; says of every one that is dead how it showed."""
        said, dead = {}, []
        for sock in self.socks if socks is None else socks:
            text = os.urandom(32)
            try:
                sock.sendall(text)
                said[sock] = text
            except OSError as error:
                dead.append(f"sending: {error!r}")
        for sock, text in said.items():
            try:
                got = sock.recv(len(text), socket.MSG_WAITALL)
                if got != text:
                    dead.append("closed" if not got else "wrong bytes")
            except OSError as error:
                dead.append(f"receiving: {error!r}")
        return dead

    def end(self, sock: socket.socket) -> None:
        """Ends one in the orderly way, from both sides."""
        self.socks.remove(sock)
        with sock:
            sock.shutdown(socket.SHUT_WR)
            assert sock.recv(1) == b""

    def close(self) -> None:
        """Closes them all."""
        for sock in self.socks:
            sock.close()
        self.socks.clear()


# ---- the process -------------------------------------------------------------------------------

class Stage(IntEnum):
    """How far a connection has come; each stage waits for something."""

    CONNECTING = 0
    FIRST = 1            # for the whole first answer
    HOLDING = 2          # for its time
    SECOND = 3           # for the whole second answer
    ENDING = 4           # for the end of the stream
    OVER = 5


class Connection:
    """One connection of the load."""

    __slots__ = ("began", "expected", "got", "sock", "stage")

    def __init__(self, now: float) -> None:
        self.sock = socket.socket()
        self.began = now
        self.stage = Stage.CONNECTING
        self.expected = b""
        self.got = b""


class Generator:
    """Opens connections on schedule and follows each to its end."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.address: tuple[str, int] = tuple(options["address"])
        self.gap = 1 / options["rate"]
        self.hold: float = options["hold"]
        self.patience: float = options["patience"]
        self.most: int = options["most"]
        self.epoll = select.epoll()
        self.alive: dict[int, Connection] = {}
        self.by_age: collections.deque[Connection] = collections.deque()
        self.holding: collections.deque[tuple[float, Connection]] = collections.deque()
        self.report = Report()
        self.latencies: collections.Counter[int] = collections.Counter()     # by 0.1 ms
        self.finishing = False

    def run(self) -> None:
        """Until told to finish, or until standard input ends."""
        steering = sys.stdin.fileno()
        self.epoll.register(steering, select.EPOLLIN)
        due = time.monotonic()
        while not self.finishing or self.alive:
            now = time.monotonic()
            if not self.finishing:
                due = max(due, now - 50 * self.gap)      # what was missed is not made up for
                while due <= now and len(self.alive) < self.most:
                    self.launch(now)
                    due += self.gap
            self.attend(now)
            for fd, events in self.epoll.poll(self.sleep(due)):
                if fd == steering:
                    self.obey(sys.stdin.readline().strip())
                elif (one := self.alive.get(fd)) is not None:
                    self.happened(one, events)
        self.answer()

    def sleep(self, due: float) -> float:
        """Seconds until something is due that is no event."""
        next_up = time.monotonic() + 0.2 if self.finishing or len(self.alive) >= self.most else due
        if self.holding:
            next_up = min(next_up, self.holding[0][0])
        # epoll counts in milliseconds and rounds up; a little late beats spinning.
        return max(0.0, min(0.2, next_up - time.monotonic()))

    def obey(self, line: str) -> None:
        """Does what the test says; without a word from it, there is no test any more."""
        if line in ("finish", ""):
            self.finishing = True
            return
        self.answer()
        if line == "mark":
            self.latencies.clear()

    def answer(self) -> None:
        """Writes a report."""
        report = self.report
        report.open = len(self.alive)
        report.p50_ms, report.p99_ms, report.slowest_ms = (
            self.percentile(0.5), self.percentile(0.99), self.percentile(1.0))
        print(json.dumps(vars(report)), flush=True)

    def percentile(self, share: float) -> float:
        """Latency in ms below which this share of the connections stayed."""
        wanted = share * self.latencies.total()
        for tenths in sorted(self.latencies):
            wanted -= self.latencies[tenths]
            if wanted <= 0:
                return tenths / 10
        return 0.0

    def launch(self, now: float) -> None:
        """Opens one connection; says its first words at once when that works."""
        self.report.started += 1
        try:
            one = Connection(now)
        except OSError as error:
            self.note(LOCAL, f"socket: {error!r}", now)
            return
        self.alive[one.sock.fileno()] = one
        self.by_age.append(one)
        one.sock.setblocking(False)
        code = one.sock.connect_ex(self.address)
        if code not in (0, errno.EINPROGRESS):
            self.failed(one, OSError(code, os.strerror(code)))
            return
        self.epoll.register(one.sock.fileno(), select.EPOLLIN | select.EPOLLOUT | select.EPOLLET)

    def happened(self, one: Connection, events: int) -> None:
        """Takes a connection as far as it goes."""
        try:
            if one.stage is Stage.CONNECTING:
                if error := one.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    raise OSError(error, os.strerror(error))
                if not events & select.EPOLLOUT:
                    return
                self.say(one, Stage.FIRST)
            if one.stage in (Stage.FIRST, Stage.SECOND):
                self.listen(one)
            if one.stage is Stage.ENDING:
                if one.sock.recv(1):
                    self.lost(one, WRONG, "more than the answer")
                else:
                    self.report.succeeded += 1
                    self.over(one)
            elif one.stage is Stage.HOLDING and one.sock.recv(1, socket.MSG_PEEK) == b"":
                self.lost(one, LOST, "closed")
        except BlockingIOError:
            return
        except OSError as error:
            self.failed(one, error)

    def say(self, one: Connection, then: Stage) -> None:
        """Sends words that no other connection sends."""
        one.expected, one.got = os.urandom(LENGTH), b""
        one.stage = then
        if one.sock.send(one.expected) != LENGTH:
            raise OSError(errno.ENOBUFS, "a few bytes did not fit")

    def listen(self, one: Connection) -> None:
        """Reads an answer and goes on when it is whole."""
        while len(one.got) < LENGTH:
            part = one.sock.recv(LENGTH - len(one.got))
            if not part:
                self.lost(one, UNSERVED if one.stage is Stage.FIRST and not one.got else LOST,
                          "closed")
                return
            one.got += part
        if one.got != one.expected:
            self.lost(one, WRONG, "another echo")
        elif one.stage is Stage.FIRST:
            now = time.monotonic()
            self.latencies[round((now - one.began) * 10_000)] += 1
            if self.hold:
                one.stage = Stage.HOLDING
                self.holding.append((now + self.hold, one))
            else:
                self.say(one, Stage.SECOND)
        else:
            one.stage = Stage.ENDING
            one.sock.shutdown(socket.SHUT_WR)

    def attend(self, now: float) -> None:
        """Goes on with those that have held long enough, and gives up the ones too old."""
        while self.holding and self.holding[0][0] <= now:
            _, one = self.holding.popleft()
            if one.stage is Stage.HOLDING:
                try:
                    self.say(one, Stage.SECOND)
                except OSError as error:
                    self.failed(one, error)
        while self.by_age and (self.by_age[0].stage is Stage.OVER
                               or self.by_age[0].began + self.patience < now):
            one = self.by_age.popleft()
            if one.stage is Stage.CONNECTING:
                self.lost(one, NOT_CONNECTED, f"{self.patience:g} s")
            elif one.stage is not Stage.OVER:
                self.lost(one, SILENT, f"{self.patience:g} s, in stage {one.stage.name}")

    def failed(self, one: Connection, error: OSError) -> None:
        """A connection met an error."""
        if error.errno == errno.ECONNREFUSED:
            kind = REFUSED
        elif error.errno in (errno.EADDRNOTAVAIL, errno.EMFILE, errno.ENOBUFS):
            kind = LOCAL
        elif one.stage <= Stage.FIRST and not one.got:
            kind = UNSERVED
        else:
            kind = LOST
        self.lost(one, kind, f"{error.strerror} in stage {one.stage.name}")

    def lost(self, one: Connection, kind: str, detail: str) -> None:
        """A connection ends as a failure."""
        port = 0
        with contextlib.suppress(OSError):
            port = one.sock.getsockname()[1]
        self.note(kind, f"{detail}, port {port}", one.began)
        self.over(one)

    def note(self, kind: str, detail: str, began: float) -> None:
        """Counts a failure and describes it, if not too many have been described."""
        self.report.failed[kind] = self.report.failed.get(kind, 0) + 1
        if len(self.report.details) < DETAILS:
            clock = time.strftime("%H:%M:%S", time.gmtime())
            self.report.details.append(
                f"{clock} {kind}: {detail}, {time.monotonic() - began:.3f} s after connect")

    def over(self, one: Connection) -> None:
        """Forgets a connection."""
        one.stage = Stage.OVER
        del self.alive[one.sock.fileno()]
        one.sock.close()


if __name__ == "__main__":
    raise_limit()
    Generator(json.loads(sys.argv[1])).run()
