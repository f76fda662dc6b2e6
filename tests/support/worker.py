"""A worker process without a supervisor: the test is the supervisor.

Lets a test steer exactly one worker over its control channel, with a scoreboard of its own.
"""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lbcore import _plan, _tables
from lbcore._scoreboard import Scoreboard
from lbcore.config.plan import BackendPlan, ListenerPlan, PoolPlan


def listening(address: str = "127.0.0.1", port: int = 0, *, reuse: bool = True) -> socket.socket:
    """A non-blocking listening TCP socket as the supervisor makes them."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if reuse:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.bind((address, port))
    sock.listen(4096)
    sock.setblocking(False)
    return sock


class WorkerHarness:
    """One worker, its scoreboard and its listening sockets. Use it as a context manager."""

    def __init__(self, *, limit: int | None = None, uid: int | None = None,
                 scoreboard: Scoreboard | None = None) -> None:
        """``limit``: of descriptors. ``uid``: of the user that the worker becomes.
        ``scoreboard``: another harness's, to share its limits."""
        self.directory = tempfile.TemporaryDirectory(prefix="lbcore-test-")
        self.scoreboard = scoreboard or Scoreboard.create()
        self.seat = self.scoreboard.take_seat(0)
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control.settimeout(60)
        self.door_path = Path(self.directory.name) / "door.sock"
        door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        door.bind(str(self.door_path))
        door.listen(8)
        self.bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.version = 0
        self.rows = 0               # of backends in the latest image
        self.max_pipes = 64         # of plans that image() builds
        self.access_format = 0      # of them too: an AccessFormat
        self.sockets: dict[int, socket.socket] = {}
        board = os.dup(self.scoreboard.fd)
        passed = [theirs.fileno(), board, door.fileno(), self.bell]
        command = [sys.executable, "-m", "lbcore.worker", "--slot", "0", "--seat", str(self.seat),
                   "--control", str(passed[0]), "--scoreboard", str(passed[1]),
                   "--door", str(passed[2]), "--bell", str(passed[3])]
        if uid is not None:
            command += ["--uid", str(uid), "--gid", str(uid)]
        if limit is not None:
            command = ["prlimit", f"--nofile={limit}", *command]
        self.process = subprocess.Popen(command, pass_fds=passed)
        theirs.close()
        door.close()
        os.close(board)
        assert self.receive()["op"] == "ready"

    def __enter__(self) -> WorkerHarness:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the worker and gives everything back."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.control.close()
        for sock in self.sockets.values():
            sock.close()
        os.close(self.bell)
        self.directory.cleanup()

    def receive(self) -> dict[str, Any]:
        """The worker's next message."""
        packet = self.control.recv(65536)
        assert packet, "worker hung up"
        message: dict[str, Any] = json.loads(packet)
        return message

    def send(self, message: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
        """Sends one message."""
        socket.send_fds(self.control, [json.dumps(message).encode()], list(descriptors))

    def add_listener(self, sock: socket.socket) -> int:
        """Hands a listening socket over; returns its id, to be named in apply()."""
        number = len(self.sockets)
        self.sockets[number] = sock
        self.send({"op": "sockets", "sockets": [[number, f"test {number}", sock.family]]},
                  [sock.fileno()])
        return number

    def image(self, listeners: Sequence[ListenerPlan], pools: Sequence[PoolPlan]) -> int:
        """Builds a plan image with rows counted from 0, and writes backends' rows as up."""
        self.version += 1
        row = 0
        entries = []
        for pool_row, pool in enumerate(pools):
            members: list[tuple[int, BackendPlan, bytes]] = []
            ordered = sorted(pool.backends, key=lambda b: b.backup)
            for backend in ordered:
                address = backend.address
                members.append(
                    (row, backend, _plan.sockaddr(address.host, address.port, address.path)))
                self.scoreboard.set_backend(row, 0, backend.weight, 256, pool.ejection.failures)
                row += 1
            self.scoreboard.set_pool(pool_row, 0, sum(b.weight for b in ordered if not b.backup))
            tables = [b"", b""]
            if pool.table is not None:
                for which, part in enumerate(([b for b in ordered if not b.backup],
                                              [b for b in ordered if b.backup])):
                    if not part:
                        continue
                    weights = [b.weight for b in part]
                    tables[which] = (
                        _tables.maglev_table([b.name.encode() for b in part], weights)
                        if pool.table == "maglev"
                        else _tables.ketama_ring([b.label for b in part], weights))
            entries.append((pool_row, pool, members, tables[0], tables[1]))
        self.rows = row
        return _plan.build_image(self.version, self.max_pipes, list(enumerate(listeners)), entries,
                                 access_format=self.access_format)

    def apply(self, listeners: Sequence[ListenerPlan], pools: Sequence[PoolPlan],
              sockets: Sequence[tuple[int, int]]) -> dict[str, Any]:
        """Sends a plan and returns the worker's answer."""
        image = self.image(listeners, pools)
        self.send({"op": "plan", "id": self.version, "version": self.version,
                   "sockets": [list(pair) for pair in sockets]}, [image])
        os.close(image)
        return self.receive()

    def serve(self, pool: PoolPlan, **listener: Any) -> tuple[str, int]:
        """One listener, one pool: applies the plan and returns the address to connect to."""
        sock = listening()
        number = self.add_listener(sock)
        plan = ListenerPlan("test", (), 0, **listener)
        answer = self.apply([plan], [pool], [(number, 0)])
        assert answer["op"] == "applied", answer
        address: tuple[str, int] = sock.getsockname()
        return address

    def wait_for_exit(self, seconds: float = 10) -> int:
        """Exit code of the worker once it has ended."""
        return self.process.wait(seconds)

    def control_closed(self, seconds: float = 10) -> bool:
        """Whether the worker has closed its channel within the time."""
        return bool(select.select([self.control], [], [], seconds)[0])
