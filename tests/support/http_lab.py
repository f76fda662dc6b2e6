"""One real worker between HTTP clients and backends that say exactly what a test wants.

Peers speak bytes: what a backend read and what a client was told is looked at as it came over the
wire. Messages are read by a plain reader (`Wire`), which shares no code with lbcore and takes
nothing that RFC 9112 does not allow.

After each test everything must have been given back: places, connections, buffers, pipes, files.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from lbcore.config.plan import HttpPlan, PoolPlan, RoutePlan
from tests.support.relay_lab import PATIENCE, Lab, Origin, reset, until

TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
WORST = 1 << 30     # bytes of a body that nobody would send in a test


class Ended(Exception):
    """The stream ended within a message; what came of it."""

    def __init__(self, got: bytes, how: str) -> None:
        super().__init__(f"{how} after {len(got)} bytes: {got[:80]!r}")
        self.got, self.how = got, how


@dataclass
class Message:
    """A request or a response."""

    start: str
    fields: list[tuple[str, str]]
    body: bytes = b""
    chunks: list[int] = field(default_factory=list)          # their sizes, if it came in chunks
    trailers: list[tuple[str, str]] = field(default_factory=list)
    framing: str = "none"                                    # length, chunked, close, none
    interim: list[Message] = field(default_factory=list)     # 1xx responses before it

    @property
    def status(self) -> int:
        """Of a response."""
        return int(self.start.split(" ")[1])

    @property
    def method(self) -> str:
        """Of a request."""
        return self.start.split(" ")[0]

    @property
    def target(self) -> str:
        """Of a request."""
        return self.start.split(" ")[1]

    def all(self, name: str) -> list[str]:
        """Values of the fields of this name."""
        return [value for key, value in self.fields if key.lower() == name.lower()]

    def get(self, name: str) -> str | None:
        """The value of a field that is there at most once."""
        found = self.all(name)
        assert len(found) < 2, f"{name} is there {len(found)} times"
        return found[0] if found else None

    @property
    def closes(self) -> bool:
        """Whether it says that the connection ends with it."""
        return "close" in (self.get("connection") or "").lower()


class Wire:
    """One end of a connection, read a message at a time."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.kept = bytearray()

    def say(self, *parts: bytes) -> None:
        """Sends all of it."""
        self.sock.sendall(b"".join(parts))

    def more(self) -> None:
        """Reads once. Raises Ended at the end."""
        try:
            part = self.sock.recv(1 << 18)
        except (ConnectionResetError, BrokenPipeError):
            raise Ended(bytes(self.kept), "reset") from None
        if not part:
            raise Ended(bytes(self.kept), "eof")
        self.kept += part

    def exactly(self, size: int) -> bytes:
        """So many bytes."""
        assert size < WORST
        while len(self.kept) < size:
            self.more()
        found = bytes(self.kept[:size])
        del self.kept[:size]
        return found

    def line(self) -> str:
        """A line, without its CRLF."""
        at = 0
        while (end := self.kept.find(b"\r\n", max(0, at - 1))) < 0:
            at = len(self.kept)
            self.more()
        line = bytes(self.kept[:end])
        del self.kept[:end + 2]
        assert b"\n" not in line and b"\r" not in line and b"\0" not in line, line
        return line.decode("latin-1")

    def fields(self) -> list[tuple[str, str]]:
        """Field lines up to the empty one."""
        found = []
        while line := self.line():
            name, colon, value = line.partition(":")
            assert colon and TOKEN.fullmatch(name.encode("latin-1")), line
            found.append((name, value.strip(" \t")))
        return found

    def head(self) -> Message:
        """A start line and its fields."""
        return Message(self.line(), self.fields())

    def chunked(self, message: Message) -> None:
        """A body in chunks, and its trailers."""
        body = bytearray()
        while True:
            line = self.line()
            assert re.fullmatch("[0-9a-fA-F]+", line), f"chunk size {line!r}"
            size = int(line, 16)
            if size == 0:
                break
            body += self.exactly(size)
            message.chunks.append(size)
            assert self.exactly(2) == b"\r\n"
        message.trailers = self.fields()
        message.body = bytes(body)
        message.framing = "chunked"

    def body(self, message: Message) -> Message:
        """The body that the fields announce; none if they do not."""
        coding, length = message.get("transfer-encoding"), message.get("content-length")
        if coding is not None:
            assert coding.lower() == "chunked" and length is None, message.fields
            self.chunked(message)
        elif length is not None:
            assert length.isdigit(), length
            message.body = self.exactly(int(length))
            message.framing = "length"
        return message

    # -- of a backend

    def request(self) -> Message:
        """A whole request."""
        return self.body(self.head())

    # -- of a client

    def answer(self, method: str = "GET") -> Message:
        """A whole response to a request of this method, with the 1xx before it."""
        interim = []
        while (message := self.head()).status < 200 and message.status != 101:
            assert message.get("content-length") is message.get("transfer-encoding") is None
            interim.append(message)
        message.interim = interim
        assert re.fullmatch(r"HTTP/1\.[01] [1-5]\d\d .*", message.start), message.start
        if method == "HEAD" or message.status in {101, 204, 304}:
            if message.status in {101, 204}:
                assert message.get("content-length") is message.get("transfer-encoding") is None
            return message
        if message.get("content-length") is None and message.get("transfer-encoding") is None:
            message.framing = "close"
            assert message.closes
            message.body = self.rest()
            return message
        return self.body(message)

    def rest(self) -> bytes:
        """What comes until the stream ends properly."""
        while True:
            try:
                self.more()
            except Ended as ended:
                assert ended.how == "eof", ended
                return ended.got

    def ask(self, data: bytes) -> Message:
        """Sends a request and reads its response."""
        self.say(data)
        return self.answer(data.split(b" ", 1)[0].decode())

    def end(self) -> str:
        """How a stream ends in which nothing more comes: "eof" or "reset"."""
        try:
            while True:
                self.more()
        except Ended as ended:
            assert not ended.got, ended.got[:200]
            return ended.how

    def cut(self) -> Ended:
        """The end within a message."""
        try:
            while True:
                self.more()
        except Ended as ended:
            return ended

    def finish(self) -> None:
        """Says that nothing more will come."""
        self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Closes the connection."""
        self.sock.close()

    def reset(self) -> None:
        """Resets the connection."""
        reset(self.sock)


Script = Callable[[Wire], object]   # serves one connection; True: the next request, else it closes


class Site:
    """A backend of its own threads: each connection runs a script as often as that says True."""

    def __init__(self, lab: HttpLab, script: Script, kind: str = "tcp") -> None:
        self.origin = lab.origin(kind)
        self.address = self.origin.address
        self.script = script
        self.connections = 0
        self.failures: list[BaseException] = []
        self.open: list[socket.socket] = []
        self.threads: list[threading.Thread] = []
        self.closing = False
        self.thread = threading.Thread(target=self._accept, daemon=True)
        self.thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self.origin.sock.accept()
            except OSError:
                return
            if self.closing:
                sock.close()
                return
            sock.settimeout(PATIENCE)
            self.connections += 1
            self.open.append(sock)
            thread = threading.Thread(target=self._serve, args=(sock,), daemon=True)
            self.threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        wire = Wire(sock)
        try:
            while self.script(wire):
                pass
        except (Ended, OSError):
            pass
        except BaseException as failure:    # noqa: BLE001 - told by close()
            self.failures.append(failure)
        finally:
            sock.close()

    def close(self) -> None:
        """Ends all of it; raises what went wrong in a script."""
        self.closing = True
        with contextlib.suppress(OSError):
            self.origin.sock.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError):
            socket.create_connection((self.address.host, self.address.port), 1).close()
        self.thread.join(PATIENCE)
        for sock in self.open:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join(PATIENCE)
        if self.failures:
            raise self.failures[0]


class HttpLab(Lab):
    """A worker with an http listener, and everything a test opened around it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.sites: list[Site] = []
        self.ends: list[Wire] = []
        self.pools: tuple[PoolPlan, ...] = ()
        self.drained = False        # the test had the worker end itself
        self.empty = self.held()

    def __enter__(self) -> HttpLab:
        return self

    def web(self, *pools: PoolPlan, routes: Sequence[RoutePlan] = (),
            default: RoutePlan | None = None, listener: dict[str, Any] | None = None,
            kind: str = "tcp", route: dict[str, Any] | None = None, **http: Any) -> None:
        """One http listener in front of pools. ``route``: of what no other route takes."""
        if route is not None:
            default = RoutePlan("default", **{"pool": 0, **route})
        self.listen(kind, protocol="http", http=HttpPlan(
            routes=tuple(routes), default=default, **http), **(listener or {}))
        self.pools = pools
        self.apply(*pools)
        self.empty = self.held()

    def site(self, script: Script, kind: str = "tcp") -> Site:
        """A backend that runs a script for each connection."""
        site = Site(self, script, kind)
        self.sites.append(site)
        return site

    def client(self, data: bytes = b"", **options: Any) -> Wire:
        """A client, which has sent ``data``."""
        wire = Wire(self.connect(data, **options))
        self.ends.append(wire)
        return wire

    def take(self, origin: Origin, patience: float = PATIENCE) -> Wire:
        """The next connection that reaches a backend."""
        wire = Wire(self.keep(origin.accept(patience)))
        self.ends.append(wire)
        return wire

    def pair(self, origin: Origin, data: bytes, **options: Any) -> tuple[Wire, Wire, Message]:
        """A client that sent a request, the backend's end, and the request as it came there."""
        client = self.client(data, **options)
        server = self.take(origin)
        return client, server, server.request()

    # -- what is counted

    def http_ended(self, row: int = 0) -> dict[str, int]:
        """How many exchanges ended, by reason; reasons of none left out."""
        ended: dict[str, int] = self.board.listener_totals(row)["http_ended"]
        return {reason: count for reason, count in ended.items() if count}

    def expect_http(self, row: int = 0, **reasons: int) -> None:
        """Waits for so many ends of exchanges, and for these reasons only."""
        total = sum(reasons.values())
        until(lambda: sum(self.http_ended(row).values()) >= total)
        assert self.http_ended(row) == reasons

    def idle(self) -> int:
        """Connections to backends that rest."""
        return self.seat["idle_upstreams"]

    def until_idle(self, count: int = 1) -> None:
        """Waits until so many connections to backends rest."""
        until(lambda: self.idle() == count)

    def expect_free(self) -> None:
        """Waits until no place at any backend is held, and nobody waits for one."""
        until(lambda: [self.board.inflight(row) for row in range(self.worker.rows)]
              == [0] * self.worker.rows)
        for row in range(len(self.pools)):
            assert self.board.pool(row)["inflight"] == self.board.pool(row)["waiting"] == 0

    def expect_all_given_back(self) -> None:
        """Ends all clients and backends; then checks that the worker holds nothing for them."""
        for wire in self.ends:
            wire.close()
        for site in self.sites:
            site.close()
        assert self.drained or self.worker.process.poll() is None, "the worker is gone"
        until(lambda: self.seat["connections"] == 0)
        if not self.drained:
            self.let_turn()
        # What a turn freed is told at its end, connections at once.
        held = ("idle_upstreams", "requests", "buffers", "pipes")
        until(lambda: [self.seat[what] for what in held] == [0, 0, 0, 0])
        for row in range(len(self.listeners)):
            totals = self.board.listener_totals(row)
            assert totals["connections"] == 0
            assert sum(totals["ended"].values()) == totals["accepted"], totals
            assert sum(totals["http_ended"].values()) == totals["requests"], totals
        for row in range(len(self.pools)):
            assert self.board.pool(row)["inflight"] == self.board.pool(row)["waiting"] == 0
            assert self.board.pool_totals(row)["waiting"] == 0
        for row in range(self.worker.rows):
            assert self.board.inflight(row) == self.board.backend_totals(row)["inflight"] == 0
        assert self.board.reconcile(64, 16, 16) == []
        if not self.drained:
            left = {name for name in self.held() - self.empty if not name.startswith("pipe:")}
            assert not left, left      # pipes that rest are the worker's own

    def held(self) -> set[str]:
        """What the worker has open, files without a name included."""
        directory = f"/proc/{self.worker.process.pid}/fd"
        found = set()
        for name in os.listdir(directory):  # noqa: PTH208
            with contextlib.suppress(FileNotFoundError):
                found.add(os.readlink(f"{directory}/{name}"))  # noqa: PTH115
        return found


@contextlib.contextmanager
def http_lab(**options: Any) -> Iterator[HttpLab]:
    """A lab that checks at its end that everything was given back."""
    with HttpLab(**options) as lab:
        yield lab
        lab.expect_all_given_back()


# ---- messages ----------------------------------------------------------------------------------

def request(line: str = "GET / HTTP/1.1", *fields: str, body: bytes = b"", host: str = "a.example",
            ) -> bytes:
    """A request as bytes; a body without framing fields gets a Content-Length."""
    lines = [line, *([f"Host: {host}"] if host else []), *fields]
    if body and not any(f.lower().startswith(("content-length", "transfer-enc")) for f in fields):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def reply(body: bytes = b"", *fields: str, status: str = "200 OK", version: str = "1.1",
          length: bool = True) -> bytes:
    """A response as bytes, with a Content-Length unless told otherwise."""
    lines = [f"HTTP/{version} {status}", *fields]
    if length:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def chunks(*parts: bytes, trailers: Sequence[str] = (), end: bool = True) -> bytes:
    """A body in chunks."""
    made = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts if part)
    if end:
        made += b"0\r\n" + "".join(f"{line}\r\n" for line in trailers).encode() + b"\r\n"
    return made


def blob(size: int, seed: int = 0) -> bytes:
    """Bytes that repeat nowhere soon."""
    made = bytearray()
    counter = seed << 32
    while len(made) < min(size, 1 << 16):
        made += hashlib.sha256(counter.to_bytes(8, "big")).digest()
        counter += 1
    made = made[:min(size, 1 << 16)]
    whole = bytearray()
    number = 0
    while len(whole) < size:
        whole += number.to_bytes(8, "big") + made
        number += 1
    return bytes(whole[:size])


def sent(wire: Wire, data: bytes, piece: int = 1 << 16) -> threading.Thread:
    """Sends from a thread, so that its sender can read meanwhile; stops when nobody listens."""
    def run() -> None:
        with contextlib.suppress(OSError):
            for at in range(0, len(data), piece):
                wire.sock.sendall(data[at:at + piece])
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def echo_script(wire: Wire) -> bool:
    """Answers each request with what it said: its start line, its fields, its body."""
    got = wire.request()
    said = got.start + "\n" + "".join(f"{name}: {value}\n" for name, value in got.fields) + "\n"
    wire.say(reply(said.encode("latin-1") + got.body))
    return True
