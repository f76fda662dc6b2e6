"""A whole lbcore: the real command in a process of its own, backends and load beside it.

The test reads lbcore's log as it is written, so it waits for events instead of sleeping. Backends
and load live on an event loop in a thread of the test's process.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import psutil

from lbcore.admin.client import AdminClient
from lbcore.config.plan import Address
from tests.support.instance import free_port

ROOT = Path(__file__).parent.parent.parent
T = TypeVar("T")
PATIENCE = 60.0


class Run:
    """One process of lbcore and what it logs."""

    def __init__(self, config: Path, directory: Path, root: Path, resume: int = -1) -> None:
        """``root``: where lbcore is; ``resume``: start as an upgrade does, with this state."""
        env = os.environ | {"PYTHONPATH": str(root)}
        words = (["lbcore.supervisor", str(config), str(resume)] if resume >= 0 else
                 ["lbcore", "-c", str(config)])
        self.process = subprocess.Popen(
            [sys.executable, "-m", *words], cwd=directory, env=env,
            pass_fds=[resume] if resume >= 0 else [],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
        self.pid = self.process.pid
        self.events: list[dict[str, Any]] = []
        self.lines: list[str] = []
        self._news = threading.Condition()
        self._readers = [threading.Thread(target=self._read, args=(stream,), daemon=True)
                         for stream in (self.process.stdout, self.process.stderr)]
        for reader in self._readers:
            reader.start()

    def wait_for(self, event: str, count: int = 1, **fields: Any) -> dict[str, Any]:
        """Waits until an event has been logged so often with these fields; returns the last."""
        until = time.monotonic() + PATIENCE
        with self._news:
            while True:
                found = self.logged(event, **fields)
                if len(found) >= count:
                    return found[count - 1]
                left = until - time.monotonic()
                if left <= 0 or (self.process.poll() is not None and not self._reading()):
                    raise AssertionError(f"no {event} {fields} in:\n" + "\n".join(self.lines))
                self._news.wait(min(left, 0.2))

    def logged(self, event: str, **fields: Any) -> list[dict[str, Any]]:
        """The events of a name and with these fields so far."""
        return [e for e in self.events if e["event"] == event
                and all(e.get(name) == value for name, value in fields.items())]

    def wait(self) -> int:
        """The exit code, and everything it printed read."""
        code = self.process.wait(PATIENCE)
        for reader in self._readers:
            reader.join(1)      # workers that live on may hold the pipes
        return code

    def output(self) -> str:
        """Everything printed so far."""
        return "\n".join(self.lines)

    def _reading(self) -> bool:
        return any(reader.is_alive() for reader in self._readers)

    def _read(self, stream: Any) -> None:
        for raw in stream:
            line = raw.decode("utf-8", "replace").rstrip("\n")
            with self._news:
                self.lines.append(line)
                with contextlib.suppress(ValueError):
                    event = json.loads(line)
                    if isinstance(event, dict) and "event" in event:
                        self.events.append(event)
                self._news.notify_all()
        with self._news:
            self._news.notify_all()


class Lab:
    """A directory, a configuration, and the lbcore processes started on it."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="lbcore-"))
        self.config = self.directory / "lb.toml"
        self.admin = self.directory / "admin.sock"
        self.root = ROOT             # the installation that is run
        self.port = free_port()
        self.runs: list[Run] = []
        self.side = Side()

    @property
    def run(self) -> Run:
        """The latest process."""
        return self.runs[-1]

    @property
    def client(self) -> AdminClient:
        """The admin address."""
        return AdminClient(Address(path=str(self.admin)), timeout=PATIENCE)

    def write(
        self, backends: Sequence[str] = (), *, workers: int = 1, more: str = "", lbcore: str = "",
        pool: str = "", bind: Sequence[str] = (),
    ) -> None:
        """Writes the configuration: one listener, one pool, and what else is given."""
        binds = json.dumps(list(bind) or [f"127.0.0.1:{self.port}"])
        listed = f"backends = {json.dumps(list(backends))}" if backends else ""
        text = f"""
[lbcore]
workers = {workers}
pin_cpus = false
{lbcore}
[admin]
listen = "unix:{self.admin}"
[log]
format = "json"
[[listener]]
name = "main"
bind = {binds}
pool = "main"
[pool.main]
{listed}
{pool}
{more}
"""
        fresh = self.config.with_suffix(".new")
        fresh.write_text(text)
        fresh.rename(self.config)

    def start(self, *, wait: bool = True, resume: int = -1) -> Run:
        """Starts lbcore and waits until it says that it is up."""
        self.runs.append(Run(self.config, self.directory, self.root, resume))
        if wait:
            self.run.wait_for("started")
        return self.run

    def install(self) -> Path:
        """Makes an installation of this lab's own, for a test to change; returns its package."""
        self.root = self.directory / "installed"
        package = self.root / "lbcore"
        unneeded = shutil.ignore_patterns("*.c", "*.pyx", "*.pxd", "__pycache__")
        shutil.copytree(ROOT / "lbcore", package, ignore=unneeded)
        return package

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to the latest process."""
        os.kill(self.run.pid, number)

    def stop(self) -> int:
        """Ends lbcore at once and returns its exit code."""
        self.signal(signal.SIGINT)
        return self.run.wait()

    def command(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs an lbcore command on the configuration."""
        env = os.environ | {"PYTHONPATH": str(self.root)}
        done = subprocess.run(
            [sys.executable, "-m", "lbcore", *words, "-c", str(self.config)], cwd=self.directory,
            env=env, capture_output=True, text=True, timeout=60, check=False)
        if check:
            assert done.returncode == 0, done.stdout + done.stderr
        return done

    def workers(self) -> list[dict[str, Any]]:
        """The serving workers, by slot."""
        return [w for w in self.client.status()["workers"] if w["state"] == "serving"]

    def backend(self, name: str, pool: str = "main") -> dict[str, Any]:
        """What status says of a backend."""
        for one in self.client.status()["pools"]:
            for backend in one["backends"]:
                if (one["name"], backend["name"]) == (pool, name):
                    return dict(backend)
        raise AssertionError(f"no backend {pool}/{name}")

    def connect(self, port: int = 0) -> socket.socket:
        """A client connection."""
        sock = socket.create_connection(("127.0.0.1", port or self.port), timeout=PATIENCE)
        return sock

    def processes(self) -> list[psutil.Process]:
        """Every process that belongs to this lab's directory or to its runs."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.status() == psutil.STATUS_ZOMBIE:
                    continue
                words = process.cmdline()
                if any(str(self.directory) in word for word in words) or (
                        any(word.startswith("lbcore") for word in words)
                        and self._door_of(process)):
                    found.append(process)
        return found

    def _door_of(self, process: psutil.Process) -> bool:
        return any(str(self.directory) in c.laddr for c in process.net_connections("unix")
                   if isinstance(c.laddr, str)) or process.cwd() == str(self.directory)

    def close(self) -> None:
        """Ends everything this lab has started."""
        for run in self.runs:
            if run.process.poll() is None:
                run.process.send_signal(signal.SIGINT)
                try:
                    run.process.wait(10)
                except subprocess.TimeoutExpired:
                    run.process.kill()
                    run.process.wait()
        left = self.processes()
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        self.side.close()
        shutil.rmtree(self.directory, ignore_errors=True)


class Side:
    """An event loop in a thread: backends and load."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs something on the loop and returns what it returns."""
        return self.begin(work).result(PATIENCE)

    def begin(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Starts something on the loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def backend(self, name: str) -> str:
        """A backend that says its name and then echoes; returns its address."""
        return self.do(self._backend(name))

    async def _backend(self, name: str) -> str:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                writer.write(name.encode() + b"\n")
                while data := await reader.read(65536):
                    writer.write(data)
                    await writer.drain()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=1024)
        return f"127.0.0.1:{server.sockets[0].getsockname()[1]}"

    def close(self) -> None:
        """Ends the loop with all that runs on it."""
        async def end() -> None:
            for task in asyncio.all_tasks():
                if task is not asyncio.current_task():
                    task.cancel()

        with contextlib.suppress(Exception):
            self.do(end())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()


class Load:
    """Clients that connect, exchange a line and close, again and again, until stopped."""

    def __init__(self, lab: Lab, clients: int = 8) -> None:
        self.port = lab.port
        self.done = 0
        self.failures: list[str] = []
        self._stop = False
        self._side = lab.side
        self._running = lab.side.begin(self._all(clients))

    async def _all(self, clients: int) -> None:
        await asyncio.gather(*(self._client() for _ in range(clients)))

    async def _client(self) -> None:
        while not self._stop:
            try:
                async with asyncio.timeout(PATIENCE):
                    await self._once()
                self.done += 1
            except (OSError, EOFError) as error:
                self.failures.append(f"{time.strftime('%H:%M:%S')} {error!r}")

    async def _once(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(b"ping\n")
            if not await reader.readuntil(b"\n") or await reader.readuntil(b"\n") != b"ping\n":
                raise OSError("another answer")
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def stop(self) -> None:
        """Lets every client finish its exchange."""
        self._stop = True
        self._running.result(PATIENCE)


@contextlib.contextmanager
def running_lab() -> Iterator[Lab]:
    """A lab that leaves nothing behind."""
    lab = Lab()
    try:
        yield lab
    finally:
        lab.close()


def first_line(sock: socket.socket) -> str:
    """What the backend behind a connection says of itself."""
    data = b""
    while not data.endswith(b"\n"):
        part = sock.recv(1)
        if not part:
            raise EOFError("closed before it said a line")
        data += part
    return data.decode().strip()


def echoes(sock: socket.socket, text: bytes = b"x") -> bool:
    """Whether a connection still carries bytes both ways."""
    sock.sendall(text)
    return sock.recv(len(text)) == text


def eventually(claim: Any, seconds: float = PATIENCE) -> Any:
    """Waits until a claim about another process holds; returns its value."""
    until = time.monotonic() + seconds
    while True:
        value = claim()
        if value or time.monotonic() > until:
            assert value
            return value
        time.sleep(0.02)     # its state is visible by asking only
