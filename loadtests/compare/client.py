"""Just enough HTTP/1.1 client to ask the origin through a balancer and to hold connections."""

from __future__ import annotations

import contextlib
import selectors
import socket
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType

HOST = "127.0.0.1"


@dataclass(frozen=True)
class Answer:
    """Status code and body length of an answer; status 0 when there was none."""

    status: int
    body: int


def request(path: str, *, close: bool = False, body: int = 0) -> bytes:
    """The bytes of a GET request, or of a POST with that many bytes of ``body``."""
    method = "POST" if body else "GET"
    head = f"{method} {path} HTTP/1.1\r\nHost: origin\r\n"
    if body:
        head += f"Content-Length: {body}\r\n"
    if close:
        head += "Connection: close\r\n"
    return head.encode() + b"\r\n" + b"x" * body


def parse_head(received: bytes) -> tuple[int, int, int] | None:
    """Status, head length and body length, or None while the head is incomplete."""
    end = received.find(b"\r\n\r\n")
    if end < 0:
        return None
    lines = received[:end].decode("latin-1").split("\r\n")
    length = 0
    for line in lines[1:]:
        name, _, value = line.partition(":")
        if name.lower() == "content-length":
            length = int(value)
    return int(lines[0].split()[1]), end + 4, length


def ask(port: int, path: str, timeout: float = 5.0, *, body: int = 0) -> Answer:
    """Asks once on a connection of its own; any failure to get a whole answer is status 0."""
    try:
        with socket.create_connection((HOST, port), timeout) as sock:
            sock.settimeout(timeout)
            sock.sendall(request(path, close=True, body=body))
            received = bytearray()
            while part := sock.recv(1 << 18):
                received += part
    except OSError:
        return Answer(0, 0)
    head = parse_head(bytes(received[:4096]))
    if head is None or len(received) != head[1] + head[2]:
        return Answer(0, 0)
    return Answer(head[0], head[2])


def ask_many(port: int, path: str, number: int, clients: int) -> Counter[Answer]:
    """Asks ``number`` times, ``clients`` at once, each on a connection of its own."""
    with ThreadPoolExecutor(clients) as pool:
        return Counter(pool.map(lambda _: ask(port, path), range(number)))


def answer_length(port: int, path: str, *, close: bool = False, body: int = 0) -> int:
    """Bytes of a whole answer to such a request, head included; 0 when there was none."""
    with socket.create_connection((HOST, port), 5) as sock:
        sock.sendall(request(path, close=close, body=body))
        received = bytearray()
        while (head := parse_head(bytes(received[:4096]))) is None:
            part = sock.recv(1 << 16)
            if not part:
                return 0
            received += part
        return head[1] + head[2]


class Clients:
    """Connections that are kept, exchanging a small message when told to. One thread, epoll."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> Clients:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._sockets)

    def open(self, count: int) -> None:
        """Opens ``count`` more; each has exchanged one message when this returns.

        Raises OSError when a connection is refused or its exchange fails.
        """
        for _ in range(count):
            sock = socket.create_connection((HOST, self._port), 10)
            self._sockets.append(sock)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.sendall(request("/tiny"))
            if not self._receive_one(sock):
                raise ConnectionError("the balancer closed a fresh connection")

    def close(self) -> None:
        """Closes all of them."""
        for sock in self._sockets:
            sock.close()
        self._sockets.clear()

    def alive(self) -> int:
        """How many of them still carry an exchange."""
        return sum(self._exchange(sock) for sock in self._sockets)

    def exchange(self, total: int, path: str, length: int, timeout: float = 120.0) -> None:
        """``total`` requests spread over all connections, one outstanding on each.

        ``length`` is the size of a whole answer. Raises OSError on a lost connection and
        TimeoutError when it takes longer than ``timeout`` seconds.
        """
        message = request(path)
        left, done = total, 0
        missing: dict[int, int] = {}
        deadline = time.monotonic() + timeout
        with selectors.EpollSelector() as selector:
            for sock in self._sockets[:total]:
                selector.register(sock, selectors.EVENT_READ)
                missing[sock.fileno()] = length
                sock.sendall(message)
                left -= 1
            while done < total:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{done} of {total} exchanges within {timeout:g} s")
                for key, _ in selector.select(1.0):
                    sock = key.fileobj  # type: ignore[assignment]
                    part = len(sock.recv(min(1 << 18, missing[key.fd])))
                    if part == 0:
                        raise ConnectionError("the balancer closed a connection in use")
                    missing[key.fd] -= part
                    if missing[key.fd] == 0:
                        done += 1
                        if left:
                            left -= 1
                            missing[key.fd] = length
                            sock.sendall(message)
                        else:
                            selector.unregister(sock)

    @staticmethod
    def _receive_one(sock: socket.socket) -> bool:
        received = b""
        while (head := parse_head(received)) is None or len(received) < head[1] + head[2]:
            part = sock.recv(4096)
            if not part:
                return False
            received += part
        return True

    def _exchange(self, sock: socket.socket) -> bool:
        with contextlib.suppress(OSError):
            sock.sendall(request("/tiny"))
            return self._receive_one(sock)
        return False
