"""Backends in a process of their own, which can go away in the ways real ones do.

All of them live in one process with one epoll. A test holds :class:`Backends` and steers it
with lines of JSON; when the test's process ends, so does this one.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import select
import socket
import struct
import subprocess
import sys
from types import TracebackType
from typing import Any

from tests.support.descriptors import raise_limit
from tests.support.instance import ROOT

SO_ATTACH_FILTER, SO_DETACH_FILTER = 26, 27
RETURN_NOTHING = struct.pack("=HBBI", 0x06, 0, 0, 0)    # BPF: keep 0 bytes of the packet
CHUNK = 1 << 16
Json = dict[str, Any]


class Backends:
    """The test's end. Addresses are ``127.0.0.1:PORT``."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.echo"], cwd=ROOT, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE)

    def __enter__(self) -> Backends:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def echo(self, count: int = 1) -> list[str]:
        """So many backends that send back what they get, and end when the client does."""
        return [self._tell("add", flood=False) for _ in range(count)]

    def flood(self) -> str:
        """A backend that sends as much as anybody takes and reads nothing."""
        return self._tell("add", flood=True)

    def leave(self, address: str) -> None:
        """Stops listening, as an orderly server does: whoever has connected is served first."""
        self._tell("leave", address=address)

    def come_back(self, address: str) -> None:
        """Listens there again."""
        self._tell("come back", address=address)

    def go_silent(self, address: str) -> None:
        """Drops every packet of new connections: connecting there gets no answer at all."""
        self._tell("go silent", address=address)

    def speak_again(self, address: str) -> None:
        """Ends :meth:`go_silent`."""
        self._tell("speak again", address=address)

    def connections(self) -> int:
        """Connections open at all of them."""
        return int(self._tell("count"))

    def close(self) -> None:
        """Ends the process."""
        with contextlib.suppress(OSError):
            self._process.communicate(timeout=60)

    def _tell(self, do: str, **more: Any) -> str:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps({"do": do, **more}).encode() + b"\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the backends' process has ended"
        return str(json.loads(answer))


class Served:
    """One connection: what has come and not yet gone back."""

    __slots__ = ("ended", "flood", "pending", "sock", "waits_for")

    def __init__(self, sock: socket.socket, flood: bool) -> None:
        self.sock = sock
        self.flood = flood
        self.waits_for = select.EPOLLOUT if flood else select.EPOLLIN
        self.pending = bytes(CHUNK) if flood else b""
        self.ended = False


class Server:
    """The process's end."""

    def __init__(self) -> None:
        self.epoll = select.epoll()
        self.listeners: dict[int, tuple[socket.socket, bool]] = {}
        self.served: dict[int, Served] = {}

    def run(self) -> None:
        """Serves until standard input ends."""
        steering = sys.stdin.fileno()
        self.epoll.register(steering, select.EPOLLIN)
        while True:
            for fd, events in self.epoll.poll():
                if fd == steering:
                    line = sys.stdin.readline()
                    if not line:
                        return
                    print(json.dumps(self.obey(json.loads(line))), flush=True)
                elif fd in self.listeners:
                    self.accept(*self.listeners[fd], most=64)
                elif fd in self.served:
                    self.serve(self.served[fd], events)

    def obey(self, said: Json) -> str | int:
        """Does what one line says."""
        do = said["do"]
        if do == "count":
            return len(self.served)
        if do == "add":
            return self.listen(0, said["flood"])
        port = int(said["address"].rpartition(":")[2])
        if do == "come back":
            return self.listen(port, False)
        fd = next(fd for fd, (sock, _) in self.listeners.items()
                  if sock.getsockname()[1] == port)
        sock, flood = self.listeners[fd]
        if do == "speak again":
            sock.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)
            return ""
        self.drop_packets(sock)
        if do == "leave":
            # Nothing arrives any more: what is queued now is all there will be.
            self.accept(sock, flood, most=1 << 16)
            self.epoll.unregister(fd)
            del self.listeners[fd]
            sock.close()
        return ""

    @staticmethod
    def drop_packets(sock: socket.socket) -> None:
        """Makes the kernel drop what comes for a listening socket (socket(7), SO_ATTACH_FILTER).

        Connections that are established or queued have sockets of their own and go on.
        """
        memory = ctypes.create_string_buffer(RETURN_NOTHING, len(RETURN_NOTHING))
        sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER,
                        struct.pack("@HP", 1, ctypes.addressof(memory)))

    def listen(self, port: int, flood: bool) -> str:
        """Opens a listening socket; returns its address."""
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", port))
        sock.listen(4096)
        sock.setblocking(False)
        self.listeners[sock.fileno()] = sock, flood
        self.epoll.register(sock.fileno(), select.EPOLLIN)
        return f"127.0.0.1:{sock.getsockname()[1]}"

    def accept(self, sock: socket.socket, flood: bool, most: int) -> None:
        """Takes up to so many connections."""
        for _ in range(most):
            try:
                conn, _ = sock.accept()
            except OSError:
                return
            conn.setblocking(False)
            conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            one = self.served[conn.fileno()] = Served(conn, flood)
            self.epoll.register(conn.fileno(), one.waits_for)

    def serve(self, one: Served, events: int) -> None:
        """Moves what can be moved on one connection."""
        try:
            if events & select.EPOLLIN and not one.pending:
                one.pending = one.sock.recv(CHUNK)
                one.ended = not one.pending
            if one.pending:
                sent = one.sock.send(one.pending)
                if not one.flood:
                    one.pending = one.pending[sent:]
            if events & (select.EPOLLERR | select.EPOLLHUP) and one.flood:
                one.ended = True
        except BlockingIOError:
            pass
        except OSError:
            one.ended, one.pending = True, b""
        if one.ended and (one.flood or not one.pending):
            del self.served[one.sock.fileno()]
            one.sock.close()
            return
        waits_for = select.EPOLLOUT if one.pending else select.EPOLLIN
        if waits_for != one.waits_for:
            one.waits_for = waits_for
            self.epoll.modify(one.sock.fileno(), waits_for)


if __name__ == "__main__":
    raise_limit()
    Server().run()
