"""One real worker between clients and backends that the test holds in its own hands.

A test has both ends of every connection as plain sockets, so it decides what each end does and
when, and sees what the other end sees. Nothing here runs in a thread, except origins that are
asked to (`Echo`).
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import random
import select
import selectors
import signal
import socket
import struct
import tempfile
import termios
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from lbcore._scoreboard import BackendState, Scoreboard
from lbcore.config.plan import Address, BackendPlan, EjectionPlan, ListenerPlan, PoolPlan
from tests.support.worker import WorkerHarness, listening

PATIENCE = 30.0     # seconds until what must happen is held to have failed
AT_ONCE = struct.pack("ii", 1, 0)
T = TypeVar("T")
Place = tuple[int, Any]     # address family and what connect() takes


def until(what: Callable[[], T], patience: float = PATIENCE) -> T:
    """What the function returns, once that is true. For state that announces itself nowhere."""
    deadline = time.monotonic() + patience
    while not (found := what()):
        if time.monotonic() > deadline:
            raise AssertionError(f"did not become true within {patience} s")
        time.sleep(0.002)
    return found


def reset(sock: socket.socket) -> None:
    """Ends a connection with RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
    sock.close()


def read_exactly(sock: socket.socket, length: int) -> bytes:
    """Exactly so many bytes; fails when the stream ends earlier."""
    got = bytearray()
    while len(got) < length:
        part = sock.recv(length - len(got))
        assert part, f"ended after {len(got)} of {length} bytes"
        got += part
    return bytes(got)


def read_to_end(sock: socket.socket) -> tuple[bytes, str]:
    """What comes until the stream ends, and how it ends: "eof" or "reset"."""
    got = bytearray()
    while True:
        try:
            part = sock.recv(1 << 18)
        except (ConnectionResetError, BrokenPipeError):
            return bytes(got), "reset"
        if not part:
            return bytes(got), "eof"
        got += part


def ending(sock: socket.socket) -> str:
    """How a stream that carries nothing more ends."""
    got, how = read_to_end(sock)
    assert not got, f"{len(got)} bytes before the end: {got[:60]!r}"
    return how


def is_quiet(sock: socket.socket, seconds: float = 0.15) -> bool:
    """Whether nothing, the end included, arrives for a while."""
    return not select.select([sock], [], [], seconds)[0]


def fill(sock: socket.socket, most: int = 1 << 30) -> int:
    """Sends until nobody takes any more for a while; returns how many bytes went."""
    sent = 0
    chunk = bytes(1 << 16)
    while sent < most and select.select([], [sock], [], 0.1)[1]:
        with contextlib.suppress(BlockingIOError):
            sent += sock.send(chunk, socket.MSG_DONTWAIT)
    return sent


def block(lab: Lab, sender: socket.socket, *, chunk: int = 1 << 14) -> int:
    """Sends just so much that the worker holds bytes it cannot pass on, and the sender's own
    socket is empty again; returns how many bytes went."""
    sent = 0
    data = bytes(chunk)
    before = lab.seat["buffers"] + lab.seat["pipes"]
    while lab.seat["buffers"] + lab.seat["pipes"] == before:
        sender.sendall(data)
        sent += chunk
        until(lambda: unsent(sender) == 0)
        lab.let_turn()
    return sent


def unsent(sock: socket.socket) -> int:
    """Bytes that the peer has not acknowledged."""
    return int.from_bytes(fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)), "little")


class Stream:
    """One direction of an exchange: what is sent at one end, and what of it has arrived."""

    def __init__(self, source: socket.socket, sink: socket.socket, data: bytes) -> None:
        self.source, self.sink, self.data = source, sink, memoryview(data)
        self.sent = self.arrived = 0
        self.ended = False

    def send(self, rng: random.Random) -> bool:
        """One send of a random length; False when that was the last."""
        length = rng.choice((1, 700, 4096, 1 << 14, 1 << 16, 1 << 20))
        self.sent += self.source.send(self.data[self.sent:self.sent + length])
        if self.sent < len(self.data):
            return True
        self.source.shutdown(socket.SHUT_WR)
        return False

    def receive(self, rng: random.Random) -> bool:
        """One receive of a random length, compared with what was sent; False at the end."""
        part = self.sink.recv(rng.choice((900, 1 << 14, 1 << 16, 1 << 20)))
        if part:
            expected = self.data[self.arrived:self.arrived + len(part)]
            assert part == expected, f"other bytes from {self.arrived} on"
            self.arrived += len(part)
            return True
        assert self.arrived == len(self.data), f"{self.arrived} of {len(self.data)} arrived"
        self.ended = True
        return False


def exchange(client: socket.socket, server: socket.socket, up: bytes, down: bytes,
             rng: random.Random) -> None:
    """Sends both ways at once in random pieces, ends both, and checks what arrives."""
    streams = [Stream(client, server, up), Stream(server, client, down)]
    ends = (client, server)
    for end in ends:
        end.setblocking(False)
    writing, reading = set(ends), set(ends)
    with selectors.DefaultSelector() as selector:
        for end in ends:
            selector.register(end, selectors.EVENT_READ | selectors.EVENT_WRITE)
        while reading:
            ready = selector.select(PATIENCE)
            assert ready, f"stalled: {[(s.sent, s.arrived) for s in streams]}"
            for key, events in ready:
                end = client if key.fileobj is client else server
                out, into = streams if end is client else reversed(streams)
                if events & selectors.EVENT_WRITE and end in writing and not out.send(rng):
                    writing.discard(end)
                if events & selectors.EVENT_READ and end in reading and not into.receive(rng):
                    reading.discard(end)
                wanted = ((selectors.EVENT_READ if end in reading else 0)
                          | (selectors.EVENT_WRITE if end in writing else 0))
                if wanted == 0:
                    selector.unregister(end)
                elif wanted != key.events:
                    selector.modify(end, wanted)


class Origin:
    """A backend whose connections the test takes one by one."""

    def __init__(self, sock: socket.socket, address: Address) -> None:
        self.sock = sock
        self.address = address

    def accept(self, patience: float = PATIENCE) -> socket.socket:
        """The next connection that reached this backend."""
        self.sock.settimeout(patience)
        conn, _ = self.sock.accept()
        conn.settimeout(PATIENCE)
        return conn

    def nobody_came(self, seconds: float = 0.1) -> bool:
        """Whether no connection is waiting here."""
        return is_quiet(self.sock, seconds)


def reached(*origins: Origin) -> Origin:
    """Whichever of these backends a connection comes to next."""
    ready, _, _ = select.select([origin.sock for origin in origins], [], [], PATIENCE)
    assert ready, "nobody came"
    return next(origin for origin in origins if origin.sock is ready[0])


class Echo:
    """A backend that sends back what it gets, from a thread of its own."""

    def __init__(self, origin: Origin) -> None:
        self.address = origin.address
        self.sock = origin.sock
        self.sock.setblocking(False)
        self.stop, self.stopped = socket.socketpair()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self.sock, selectors.EVENT_READ)
            selector.register(self.stopped, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    sock = key.fileobj
                    assert isinstance(sock, socket.socket)
                    if sock is self.stopped:
                        for other in list(selector.get_map().values()):
                            assert isinstance(other.fileobj, socket.socket)
                            other.fileobj.close()
                        return
                    if sock is self.sock:
                        with contextlib.suppress(OSError):
                            conn, _ = sock.accept()
                            conn.settimeout(PATIENCE)
                            selector.register(conn, selectors.EVENT_READ)
                        continue
                    try:
                        data = sock.recv(1 << 16)
                        sock.sendall(data)
                    except OSError:
                        data = b""
                    if not data:
                        selector.unregister(sock)
                        sock.close()

    def close(self) -> None:
        """Ends the thread and all its connections."""
        self.stop.close()
        self.thread.join(PATIENCE)
        self.stopped.close()


def member(where: Origin | Echo | Address, name: str = "", **options: Any) -> BackendPlan:
    """A backend of a pool."""
    address = where if isinstance(where, Address) else where.address
    return BackendPlan(name or str(address), address, label=str(address), **options)


def pool(*backends: Origin | Echo | Address | BackendPlan, **options: Any) -> PoolPlan:
    """A pool that, unless told otherwise, picks in order and ejects nobody."""
    options.setdefault("ejection", EjectionPlan(failures=0))
    options.setdefault("name", "pool")
    return PoolPlan(backends=tuple(b if isinstance(b, BackendPlan) else member(b)
                                   for b in backends), **options)


class Lab:
    """A worker, and everything a test opened around it. Use it as a context manager."""

    def __init__(self, *, limit: int | None = None, uid: int | None = None,
                 beside: Lab | None = None) -> None:
        self.stack = contextlib.ExitStack()
        self.directory = Path(self.stack.enter_context(
            tempfile.TemporaryDirectory(prefix="lbcore-relay-")))
        self.worker: WorkerHarness = self.stack.enter_context(WorkerHarness(
            limit=limit, uid=uid, scoreboard=beside.worker.scoreboard if beside else None))
        self.numbered = itertools.count()
        self.places: list[Place] = []
        self.listeners: list[ListenerPlan] = []
        self.numbers: list[int] = []

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stack.close()

    # -- backends

    def keep(self, sock: socket.socket) -> socket.socket:
        """Has a socket closed at the end."""
        self.stack.callback(sock.close)
        return sock

    def origin(self, kind: str = "tcp", backlog: int = 4096) -> Origin:
        """A listening backend: "tcp", "tcp6" or "unix"."""
        if kind == "unix":
            path = str(self.directory / f"origin-{next(self.numbered)}.sock")
            sock = self.keep(socket.socket(socket.AF_UNIX))
            sock.bind(path)
            address = Address(path=path)
        else:
            host = "::1" if kind == "tcp6" else "127.0.0.1"
            sock = self.keep(socket.socket(
                socket.AF_INET6 if kind == "tcp6" else socket.AF_INET, socket.SOCK_STREAM))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.bind((host, 0))
            address = Address(host, sock.getsockname()[1])
        sock.listen(backlog)
        return Origin(sock, address)

    def echo(self, kind: str = "tcp") -> Echo:
        """A backend that echoes."""
        echo = Echo(self.origin(kind))
        self.stack.callback(echo.close)
        return echo

    def refusing(self) -> Address:
        """An address where every connect is refused. Bound, so that nobody else comes up there."""
        sock = self.keep(socket.socket())
        sock.bind(("127.0.0.1", 0))
        return Address("127.0.0.1", sock.getsockname()[1])

    def refusing_unix(self) -> Address:
        """A unix socket that nobody listens on: connect fails at once, without waiting."""
        path = str(self.directory / f"refusing-{next(self.numbered)}.sock")
        sock = self.keep(socket.socket(socket.AF_UNIX))
        sock.bind(path)
        return Address(path=path)

    def blackhole(self) -> Address:
        """An address that does not answer: its accept queue is full, so a SYN is dropped."""
        sock = self.keep(socket.socket())
        sock.bind(("127.0.0.1", 0))
        sock.listen(0)
        for _ in range(2):
            waiting = self.keep(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(sock.getsockname())
        return Address("127.0.0.1", sock.getsockname()[1])

    # -- the worker

    def listen(self, kind: str = "tcp", **listener: Any) -> int:
        """Adds a listener, to be served with the next plan; returns its index."""
        if kind == "unix":
            path = str(self.directory / f"listener-{len(self.places)}.sock")
            sock = socket.socket(socket.AF_UNIX)
            sock.bind(path)
            sock.listen(4096)
            sock.setblocking(False)
            self.places.append((socket.AF_UNIX, path))
        else:
            sock = listening("::1" if kind == "tcp6" else "127.0.0.1")
            self.places.append((sock.family, sock.getsockname()))
        self.numbers.append(self.worker.add_listener(sock))
        listener.setdefault("pool", 0)
        self.listeners.append(ListenerPlan(f"listener {len(self.listeners)}", (), **listener))
        return len(self.listeners) - 1

    def apply(self, *pools: PoolPlan) -> None:
        """Gives the worker a plan of all listeners and these pools."""
        answer = self.worker.apply(self.listeners, pools, [
            (number, index) for index, number in enumerate(self.numbers)])
        assert answer["op"] == "applied", answer
        self.let_turn()     # until it has closed the image

    def serve(self, *pools: PoolPlan, kind: str = "tcp", **listener: Any) -> None:
        """One listener in front of the first pool."""
        self.listen(kind, **listener)
        self.apply(*pools)

    def pretend(self, row: int, state: BackendState) -> None:
        """Sets a backend's state on the scoreboard, as the supervisor would."""
        self.worker.scoreboard.set_backend(row, state, 1)

    # -- clients

    def connect(self, data: bytes = b"", *, listener: int = 0, source: str = "") -> socket.socket:
        """A client, which has sent ``data``."""
        family, place = self.places[listener]
        sock = self.keep(socket.socket(family, socket.SOCK_STREAM))
        sock.settimeout(PATIENCE)
        if family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if source:
            sock.bind((source, 0))
        sock.connect(place)
        if data:
            sock.sendall(data)
        return sock

    def link(self, origin: Origin, listener: int = 0) -> tuple[socket.socket, socket.socket]:
        """A client and the backend's end of its connection."""
        before = self.established()
        client = self.connect(listener=listener)
        server = self.keep(origin.accept())
        until(lambda: self.established() > before)
        return client, server

    def established(self) -> int:
        """Connections that have reached a backend, as far as the worker knows."""
        return sum(self.board.backend_totals(row)["connections"]
                   for row in range(self.worker.rows))

    def turned_away(self, data: bytes = b"", *, listener: int = 0, source: str = "") -> bool:
        """Whether a client that sends ``data`` is reset, however early, and hears nothing."""
        try:
            return ending(self.connect(data, listener=listener, source=source)) == "reset"
        except (ConnectionResetError, BrokenPipeError):
            return True

    def links(self, origin: Origin, count: int) -> list[tuple[socket.socket, socket.socket]]:
        """Several of them."""
        return [self.link(origin) for _ in range(count)]

    @contextlib.contextmanager
    def asleep(self) -> Iterator[None]:
        """Stops the worker meanwhile: whatever is done, it sees all of it in one turn."""
        pid = self.worker.process.pid
        os.kill(pid, signal.SIGSTOP)
        os.waitid(os.P_PID, pid, os.WSTOPPED)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    # -- what is counted

    @property
    def board(self) -> Scoreboard:
        """The scoreboard."""
        return self.worker.scoreboard

    @property
    def seat(self) -> dict[str, int]:
        """What the worker says of itself."""
        return self.worker.scoreboard.seat(self.worker.seat)

    def backend(self, row: int = 0) -> dict[str, Any]:
        """Live state and totals of a backend."""
        return {**self.board.backend_totals(row), **self.board.backend(row)}

    def ended(self, row: int = 0) -> dict[str, int]:
        """How many connections ended, by reason; reasons of none left out."""
        ended: dict[str, int] = self.board.listener_totals(row)["ended"]
        return {reason: count for reason, count in ended.items() if count}

    def expect_ended(self, row: int = 0, **reasons: int) -> None:
        """Waits for so many ends, and for these reasons only."""
        total = sum(reasons.values())
        until(lambda: sum(self.ended(row).values()) >= total)
        assert self.ended(row) == reasons

    def expect_nothing_held(self, backends: Iterable[int] = (0,)) -> None:
        """Waits until no connection is open, and checks that none left anything behind."""
        # What a turn freed is told at its end, connections at once.
        held = ("connections", "buffers", "pipes")
        until(lambda: [self.seat[what] for what in held] == [0, 0, 0])
        assert self.board.listener_totals(0)["connections"] == 0
        assert self.board.pool(0) == {"inflight": 0, "waiting": 0, "flags": 0}
        assert [self.board.inflight(row) for row in backends] == [0 for _ in backends]
        assert self.board.reconcile(16, 4, 4) == []

    def let_turn(self) -> None:
        """Waits until the worker has dealt with all that has reached its sockets.

        On a busy machine what was sent to it may still be under way. Two packets on its control
        channel: when the second is answered, a turn has begun and ended after everything before
        the first.
        """
        for _ in range(2):
            self.worker.send({"op": "release", "id": 0, "sockets": []})
            assert self.worker.receive() == {"op": "released", "id": 0}

    def descriptors(self) -> int:
        """Descriptors that the worker process has open."""
        return len(os.listdir(f"/proc/{self.worker.process.pid}/fd"))  # noqa: PTH208

    def resident(self) -> int:
        """Bytes of the worker process in memory."""
        fields = Path(f"/proc/{self.worker.process.pid}/statm").read_text().split()
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")

    def cpu_seconds(self) -> float:
        """CPU time that the worker process has used, in steps of 10 ms."""
        fields = Path(f"/proc/{self.worker.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def close_all(socks: Sequence[socket.socket]) -> None:
    """Closes sockets."""
    for sock in socks:
        sock.close()
