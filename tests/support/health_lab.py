"""Real backends of every temper, and a scoreboard that tells when somebody writes to it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from lbcore._scoreboard import Scoreboard
from lbcore.config.plan import (
    Address,
    BackendPlan,
    EjectionPlan,
    HealthPlan,
    PoolPlan,
)
from lbcore.health import HealthEvent, HealthMonitor, Member, PoolRows
from tests.support.instance import free_port

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

# Fast enough for tests, slow enough for a busy machine.
FAST = HealthPlan(interval_ms=30, fast_interval_ms=20, timeout_ms=2000, rise=2, fall=3)
EVENTUALLY = 20.0


async def soon(awaitable: Awaitable[Any]) -> Any:
    """The result, or a failure of the test where it would hang."""
    return await asyncio.wait_for(awaitable, EVENTUALLY)


class Board:
    """A scoreboard whose writes can be awaited. Reads and writes go to a real one."""

    def __init__(self) -> None:
        self.real = Scoreboard.create()
        self.ramps: dict[int, list[int]] = {}
        self.eject_after: dict[int, int] = {}
        self.total_weight: dict[int, int] = {}
        self._written = asyncio.Condition()
        self._pokes: set[asyncio.Task[None]] = set()

    def set_backend(self, row: int, state: int, weight: int, ramp: int = 256,
                    eject_after: int = 0) -> None:
        self.real.set_backend(row, state, weight, ramp, eject_after)
        self.ramps.setdefault(row, []).append(ramp)
        self.eject_after[row] = eject_after
        self._poke()

    def set_pool(self, row: int, flags: int, total_weight: int) -> None:
        self.real.set_pool(row, flags, total_weight)
        self.total_weight[row] = total_weight
        self._poke()

    def failures(self, row: int) -> int:
        return self.real.failures(row)

    def set_failures(self, row: int, count: int) -> None:
        self.real.set_failures(row, count)

    def state(self, row: int) -> str:
        return str(self.real.backend(row)["state"])

    def flags(self, row: int = 0) -> int:
        return self.real.pool(row)["flags"]

    async def until(self, true: Callable[[], bool]) -> None:
        """Waits for a write after which ``true()`` holds (or for nothing, if it does already)."""
        async def wait() -> None:
            async with self._written:
                await self._written.wait_for(true)
        await soon(wait())

    def _poke(self) -> None:
        try:
            task = asyncio.get_running_loop().create_task(self._notify())
        except RuntimeError:
            return
        self._pokes.add(task)
        task.add_done_callback(self._pokes.discard)

    async def _notify(self) -> None:
        async with self._written:
            self._written.notify_all()


class Lab:
    """A monitor with its board and the events it reported."""

    def __init__(self) -> None:
        self.board = Board()
        self.events: list[HealthEvent] = []
        self._queue: asyncio.Queue[HealthEvent] = asyncio.Queue()
        self.monitor = HealthMonitor(self.board, self._take)

    def _take(self, event: HealthEvent) -> None:
        self.events.append(event)
        if event.backend:
            self._queue.put_nowait(event)

    async def event(self) -> HealthEvent:
        """The next event of a backend."""
        return await soon(self._queue.get())

    async def until(self, true: Callable[[], bool]) -> None:
        """Waits for what is neither reported nor written anywhere, such as a check that passes
        like the one before it: the one place where looking again and again is the only way."""
        async def wait() -> None:
            while not true():       # noqa: ASYNC110
                await asyncio.sleep(0.005)
        await soon(wait())

    def fail(self, row: int, times: int) -> None:
        """What workers do when traffic meets failures."""
        limit = self.board.eject_after[row]
        for _ in range(times):
            count = self.board.failures(row) + 1
            self.board.set_failures(row, count)
            if count == limit:
                self.monitor.ring()


@contextlib.asynccontextmanager
async def running(pools: list[PoolRows] | None = None) -> AsyncIterator[Lab]:
    """A started monitor; nothing is left of it afterwards."""
    lab = Lab()
    if pools is not None:
        lab.monitor.apply(pools)
    lab.monitor.start()
    try:
        yield lab
    finally:
        await lab.monitor.stop()


def pool(*addresses: Address, health: HealthPlan | None = None, first_row: int = 0, row: int = 0,
         name: str = "web", backups: int = 0, weight: int = 1,
         ejection: EjectionPlan | None = None, **plan: Any) -> PoolRows:
    """A pool of backends b0, b1, ... at these addresses; the last ``backups`` are backups."""
    backends = tuple(
        BackendPlan(f"b{i}", address, weight=weight, backup=i >= len(addresses) - backups)
        for i, address in enumerate(addresses))
    members = tuple(Member(first_row + i, backend, backend.address)
                    for i, backend in enumerate(backends))
    return PoolRows(row, PoolPlan(name, backends, health=health,
                                  ejection=ejection or EjectionPlan(), **plan), members)


def nowhere(count: int) -> list[Address]:
    """Addresses for backends that nobody connects to."""
    return [Address(f"127.9.{i // 250}.{i % 250 + 1}", 9) for i in range(count)]


@contextlib.contextmanager
def listening(host: str = "127.0.0.1", port: int = 0,
              backlog: int = 128) -> Iterator[socket.socket]:
    """A bare listening socket: the kernel completes handshakes, nobody accepts."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(backlog)
        sock.setblocking(False)
        yield sock


def address_of(sock: socket.socket) -> Address:
    """Where a listening socket listens."""
    if sock.family == socket.AF_UNIX:
        return Address(path=sock.getsockname())
    name = sock.getsockname()
    return Address(name[0], name[1])


def refused(host: str = "127.0.0.1") -> Address:
    """An address where nobody listens, and nobody else comes up."""
    return Address(host, free_port())


@contextlib.asynccontextmanager
async def serving(handler: Handler, *, host: str = "127.0.0.1", port: int = 0,
                  path: str = "") -> AsyncIterator[Address]:
    """A backend that treats every connection with ``handler``; ended with all of them."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await handler(reader, writer)
        finally:
            tasks.discard(task)
            writer.close()

    if path:
        server = await asyncio.start_unix_server(serve, path)
        address = Address(path=path)
    else:
        server = await asyncio.start_server(serve, host, port, reuse_address=True)
        address = address_of(server.sockets[0])
    try:
        yield address
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def open_sockets() -> int:
    """Sockets and epoll descriptors of this process."""
    found = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found += str(descriptor.readlink()).startswith(("socket:", "anon_inode:[eventpoll]"))
    return found


def answers(data: bytes, pace: Callable[[], Awaitable[None]] | None = None) -> Handler:
    """Reads a request, answers with ``data`` (one byte at a time with a ``pace``), closes."""
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if pace is None:
            writer.write(data)
        else:
            for byte in data:
                writer.write(bytes([byte]))
                await writer.drain()
                await pace()
        await writer.drain()
    return handler


def http_ok(body: bytes = b"ok") -> bytes:
    """A plain answer."""
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (
        len(body), body)
