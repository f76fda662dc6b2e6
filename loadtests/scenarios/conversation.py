"""A client's side of one connection through lbcore, with every byte checked.

Plain blocking sockets: inside Locust they give way to other users while they wait, because Locust
puts gevent's sockets in the place of these (it patches the standard library when it is imported).
"""

from __future__ import annotations

import random
import socket
from contextlib import suppress
from ipaddress import ip_address

from .wire import ANSWER, Life, WrongAnswer, check_head, check_payload, question

Address = tuple[str, int]


def address(host: str | None) -> Address:
    """IP address and port of ADDRESS:PORT, with or without tcp:// before it. Raises ValueError."""
    name, _, port = (host or "").removeprefix("tcp://").rstrip("/").rpartition(":")
    if not name or not port.isdigit():
        raise ValueError(f"--host must be ADDRESS:PORT of a tcp listener, not {host!r}")
    try:
        return str(ip_address(name.strip("[]"))), int(port)
    except ValueError:
        raise ValueError(f"--host must be an IP address and a port, not {host!r}") from None


class Ended(Exception):
    """The other side ended the connection in an orderly way, but too early."""


class Conversation:
    """One connection. Any error leaves it closed.

    ``who`` is the backend that answers, known from the head of its first answer on. Methods raise
    OSError, Ended or WrongAnswer; ``seconds`` is how long each wait for the other side may take.
    """

    def __init__(self, address: Address, seconds: float = 10.0) -> None:
        self.who: Life | None = None
        self._address = address
        self._seconds = seconds
        self._socket: socket.socket | None = None
        self._number = random.getrandbits(63)

    @property
    def is_open(self) -> bool:
        """Whether it was opened and neither closed nor broken since."""
        return self._socket is not None

    def open(self, size: int) -> int:
        """Connects and has the first answer; returns its payload's bytes.

        A balancer accepts before it has a backend, so a connection counts as open only when an
        answer has come back through it.
        """
        # Not create_connection: under gevent it asks a thread what the address means, each time,
        # and the milliseconds of that hand-over would look like the balancer's.
        family = socket.AF_INET6 if ":" in self._address[0] else socket.AF_INET
        sock = self._socket = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.settimeout(self._seconds)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.connect(self._address)
        except BaseException:
            self.abort()
            raise
        return self.exchange(size)

    def exchange(self, size: int) -> int:
        """Asks with ``size`` bytes and checks the answer; returns ``size``."""
        try:
            return self._exchange(size)
        except BaseException:       # also when the user is stopped in the middle of it
            self.abort()
            raise

    def _exchange(self, size: int) -> int:
        sock = self._connected()
        self._number += 1
        sock.sendall(question(size, self._number))
        who = check_head(self._read(ANSWER.size), size, self._number)
        if self.who is not None and who != self.who:
            raise WrongAnswer(f"began with {self.who}, answered by {who}")
        self.who = who
        check_payload(self._read(size), size, self._number)
        return size

    def close(self) -> int:
        """Finishes sending and waits for the other side to do so too; returns 0."""
        sock = self._connected()
        try:
            sock.shutdown(socket.SHUT_WR)
            if left := sock.recv(65536):
                raise WrongAnswer(f"{len(left)} bytes or more that nobody asked for")
        finally:
            self.abort()
        return 0

    def abort(self) -> None:
        """Gives the connection up, whatever its state."""
        sock, self._socket = self._socket, None
        if sock is not None:
            with suppress(OSError):
                sock.close()

    def _connected(self) -> socket.socket:
        if self._socket is None:
            raise RuntimeError("the conversation is not open")
        return self._socket

    def _read(self, size: int) -> bytearray:
        sock = self._connected()
        buffer = bytearray(size)
        view, got = memoryview(buffer), 0
        while got < size:
            count = sock.recv_into(view[got:])
            if not count:
                raise Ended(f"ended after {got} of {size} bytes")
            got += count
        return buffer
