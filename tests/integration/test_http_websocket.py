"""WebSockets through lbcore are what they are without it, frame by frame and event by event.

Autobahn's suite runs on Python 2 alone; the cases here go through the same parts of RFC 6455.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.support.instance import Instance, instance, until
from tests.support.websocket_cases import CLOSE, GROUPS, Case, Frames, asks, frame

SECONDS = 30
Events = list[object]
NUMBERS = itertools.count()


class Echo:
    """An echo server in a thread, which keeps what it met on each connection by its path."""

    def __init__(self) -> None:
        self.met: dict[str, Events] = {}
        self.loop = asyncio.new_event_loop()
        self.port = 0
        ready = threading.Event()
        self.thread = threading.Thread(target=self.run, args=(ready,))
        self.thread.start()
        assert ready.wait(SECONDS)

    def run(self, ready: threading.Event) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(self.serve(ready))

    async def serve(self, ready: threading.Event) -> None:
        self.over = asyncio.Event()
        async with serve(self.echo, "127.0.0.1", 0, max_size=None, ping_interval=None) as server:
            self.port = next(iter(server.sockets)).getsockname()[1]
            ready.set()
            await self.over.wait()

    async def echo(self, client: ServerConnection) -> None:
        assert client.request is not None
        events: Events = []
        with contextlib.suppress(ConnectionClosed):
            async for message in client:
                events.append((type(message).__name__, len(message), hash(message)))
                await client.send(message)
        events.append((client.close_code, client.close_reason))
        self.met[client.request.path] = events

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.over.set)
        self.thread.join()


@pytest.fixture(scope="module")
def echo() -> Iterator[Echo]:
    """A server that both sides of each comparison talk to."""
    made = Echo()
    yield made
    made.close()


@pytest.fixture(scope="module")
def lb(echo: Echo) -> Iterator[Instance]:
    """lbcore in front of it."""
    with instance() as made:
        made.file["listener"][0]["protocol"] = "http"
        made.pool["backends"] = [f"127.0.0.1:{echo.port}"]
        made.write()
        made.start()
        yield made


@dataclass
class Outcome:
    """What a conversation was like on both sides."""

    upgraded: bytes
    messages: Events            # received by the client
    control: Events
    left: bytes                 # of an unfinished frame
    end: str
    met: Events                 # by the server


def differences(direct: Outcome, through: Outcome) -> list[str]:
    """What is not the same."""
    return [f"  {name} without lbcore {brief(mine)}\n  {name} with lbcore {brief(theirs)}"
            for (name, mine), theirs in zip(vars(direct).items(), vars(through).values(),
                                            strict=True) if mine != theirs]


def brief(what: object) -> str:
    text = repr(what)
    return text if len(text) < 500 else f"{text[:500]}... of {len(text)}"


class Client:
    """A client that reads all the time."""

    def __init__(self, sock: socket.socket, rest: bytes) -> None:
        self.sock = sock
        self.frames = Frames(bytearray(rest))
        self.end = ""
        self.news = threading.Condition()
        self.reader = threading.Thread(target=self.read)
        self.reader.start()

    def read(self) -> None:
        end = ""
        while not end:
            try:
                part = self.sock.recv(1 << 20)
                end = "" if part else "end"
            except OSError as error:
                part, end = b"", type(error).__name__
            with self.news:
                self.frames.data.extend(part)
                self.frames.look()
                self.end = end
                self.news.notify_all()

    def wait_for(self, answers: int) -> None:
        """Until so many messages have come, or the server has ended the connection."""
        with self.news:
            assert self.news.wait_for(lambda: self.end or self.frames.answers >= answers, SECONDS)

    def say(self, case: Case) -> None:
        """The client's part. A server that has ended the connection need not hear all of it."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            if case.ending == "close":
                self.send(b"".join(case.frames), case.cut)
                self.wait_for(sum(map(asks, case.frames)))
                self.send(frame(CLOSE, b"\x03\xe8"), case.cut)
                return
            asked = 0
            for one in case.frames:
                self.send(one, case.cut)
                asked += asks(one)
                self.wait_for(asked)
            if case.ending == "half-close":
                self.sock.shutdown(socket.SHUT_WR)

    def send(self, data: bytes, cut: int) -> None:
        for at in range(0, len(data), cut or max(1, len(data))):
            self.sock.sendall(data[at : at + cut] if cut else data)


def converse(case: Case, port: int, echo: Echo) -> Outcome:
    """One conversation, directly or through lbcore."""
    path = f"/{next(NUMBERS)}"
    key = base64.b64encode(b"0123456789abcdef").decode()
    offer = "Sec-WebSocket-Extensions: permessage-deflate\r\n" if case.deflate else ""
    with socket.create_connection(("127.0.0.1", port), SECONDS) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall((f"GET {path} HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\n"
                      "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                      f"Sec-WebSocket-Key: {key}\r\n{offer}\r\n").encode())
        data = b""
        while b"\r\n\r\n" not in data:
            part = sock.recv(65536)
            assert part, data
            data += part
        head, _, rest = data.partition(b"\r\n\r\n")
        client = Client(sock, rest)
        client.say(case)
        client.reader.join(2 * SECONDS)
    until(lambda: path in echo.met, f"{case.name}: the server's view")
    told = sorted(line for line in head.split(b"\r\n") if line.lower().startswith(
        (b"http/", b"sec-websocket", b"upgrade:")))
    frames = client.frames
    return Outcome(b" | ".join(told), [*frames.messages], [*frames.control],
                   bytes(frames.data[frames.at:]), client.end, echo.met.pop(path))


@pytest.mark.parametrize("group", GROUPS)
def test_conversation_is_the_same_with_and_without(group: str, lb: Instance, echo: Echo) -> None:
    different = []
    for case in GROUPS[group]:
        direct = converse(case, echo.port, echo)
        through = converse(case, lb.port, echo)
        if found := differences(direct, through):
            different.append("\n".join([case.name, *found]))
    assert not different, "\n".join(different)
    until(lambda: lb.backend(f"127.0.0.1:{echo.port}")["inflight"] == 0, "all tunnels ended")


@pytest.mark.parametrize("compression", [None, "deflate"])
def test_client_library_talks_through(lb: Instance, compression: str | None) -> None:
    with connect(f"ws://127.0.0.1:{lb.port}/chat", compression=compression,
                 max_size=None) as client:
        for message in ("hello", b"\x00\xff" * 5000, "x" * 300_000, ""):
            client.send(message)
            assert client.recv(SECONDS) == message
        client.send(iter(["in ", "three ", "parts"]))
        assert client.recv(SECONDS) == "in three parts"
        assert client.ping().wait(SECONDS)
    assert client.close_code == 1000


def test_client_that_resets_is_gone_for_the_server(lb: Instance, echo: Echo) -> None:
    with connect(f"ws://127.0.0.1:{lb.port}/reset") as client:
        client.send("here")
        assert client.recv(SECONDS) == "here"
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.socket.close()
        until(lambda: "/reset" in echo.met)
    assert echo.met.pop("/reset")[-1] == (1006, "")
