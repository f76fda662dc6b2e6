"""The stage of a run: lbcore and its backends, in processes of their own."""

from __future__ import annotations

import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from lbcore.admin.client import AdminClient, AdminError, NotRunning
from lbcore.config.plan import Address
from loadtests.compare.procs import HarnessError, Processes, Running, free_port, wait_until

from .config import Ports, backend_name
from .wire import Life

TREE = Path(__file__).parents[2]        # where `python -m loadtests...` finds this package
READY = 20.0                            # seconds that a process may take to start
PATIENCE = 60.0                         # seconds that an application may take to be replaced
Json = dict[str, Any]
Command = Callable[[Life, int], list[str]]              # who it is, its port
Configuration = Callable[[Path, int, Ports, int], str]  # admin socket, workers, ports, variant


@dataclass(frozen=True)
class Cast:
    """Who is on the stage: how a backend is started, and what lbcore is told about them.

    Without a ``command`` lbcore starts its backends itself.
    """

    pool: str
    command: Command | None
    configuration: Configuration


def all_cpus() -> list[int]:
    """What this process may run on: nothing is pinned but lbcore's workers, which do it."""
    return sorted(os.sched_getaffinity(0))


def accepts(port: int) -> bool:
    """Whether somebody accepts connections on the loopback port."""
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


class Backend:
    """A backend at a port of its own, which can be killed or ended and started again."""

    def __init__(
        self, processes: Processes, command: Command, number: int, port: int, logs: Path
    ) -> None:
        self.number = number
        self.port = port
        self.life = 0
        self._command = command
        self._processes = processes
        self._logs = logs
        self._running: Running | None = None

    @property
    def now(self) -> Life:
        """The life it lives, or lived last."""
        return Life(self.number, self.life)

    def start(self) -> None:
        """Begins a life; returns once it accepts. Raises HarnessError."""
        self.launch()
        self.wait()

    def launch(self) -> None:
        """Begins a life, without waiting."""
        self.life += 1
        self._running = self._processes.start(
            f"backend-{self.number}", self._command(self.now, self.port), all_cpus(), self._logs,
            cwd=TREE)

    def wait(self) -> None:
        """Returns once it accepts. Raises HarnessError."""
        def up() -> bool:
            if self._running is not None:
                self._running.check()
            return accepts(self.port)

        wait_until(up, READY, f"the start of backend {self.number}")

    def kill(self) -> float:
        """Ends it as a crash would; the moment (CLOCK_MONOTONIC) when its sockets were gone."""
        return self._end(signal.SIGKILL)

    def retire(self) -> float:
        """Has it finish what it is at and end; the moment when it had."""
        return self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> float:
        if self._running is None:
            raise HarnessError(f"backend {self.number} is not there to be ended")
        self._running.root.send_signal(how)
        self._running.root.wait(timeout=READY)
        gone = time.monotonic()
        self._processes.stop(self._running)
        self._running = None
        return gone

    def check(self) -> None:
        """Raises HarnessError if it has ended by itself."""
        if self._running is not None:
            self._running.check()


class Balancer:
    """A running lbcore, as started by its command."""

    def __init__(
        self, running: Running, cast: Cast, file: Path, admin: Path, workers: int, ports: Ports
    ) -> None:
        self.running = running
        self.ports = ports
        self._cast = cast
        self._file = file
        self._admin_path = admin
        self._workers = workers
        self._admin = AdminClient(Address(path=str(admin)), timeout=10)

    def status(self) -> Json:
        """What `lbcore status --json` shows. Raises HarnessError."""
        try:
            return self._admin.status()
        except (NotRunning, AdminError) as error:
            raise HarnessError(f"lbcore does not tell its status: {error}") from error

    def backends(self) -> list[Json]:
        """The backends of the status."""
        return [found for pool in self.status()["pools"] if pool["name"] == self._cast.pool
                for found in pool["backends"]]

    def backend(self, number: int) -> Json:
        """One backend of the status, by its number."""
        for found in self.backends():
            if found["name"] == backend_name(number):
                return found
        raise HarnessError(f"lbcore knows no backend {backend_name(number)}")

    def processes_of(self, word: str) -> set[int]:
        """Process numbers of what it has started with ``word`` in the command."""
        found = set()
        for process in self.running.root.children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if word in process.cmdline():
                    found.add(process.pid)
        return found

    def restart(self) -> None:
        """Replaces the application of the pool; returns when the new one serves.

        Raises HarnessError.
        """
        self._tell(lambda: AdminClient(self._admin.address, timeout=PATIENCE).restart(
            self._cast.pool))

    def drain(self, number: int) -> None:
        """Gives the backend no new traffic. Raises HarnessError."""
        self._tell(lambda: self._admin.drain(self._cast.pool, backend_name(number)))

    def undrain(self, number: int) -> None:
        """Gives it traffic again. Raises HarnessError."""
        self._tell(lambda: self._admin.undrain(self._cast.pool, backend_name(number)))

    def configure(self, variant: int) -> None:
        """Writes another configuration in the place of the one that is there."""
        fresh = self._file.with_suffix(".new")
        fresh.write_text(
            self._cast.configuration(self._admin_path, self._workers, self.ports, variant))
        fresh.rename(self._file)

    def hang_up(self) -> None:
        """Sends SIGHUP: lbcore reads its configuration again."""
        self.running.root.send_signal(signal.SIGHUP)

    def reload(self) -> None:
        """The same over the admin address; returns when it is in force. Raises HarnessError."""
        self._tell(self._admin.reload)

    @staticmethod
    def _tell(command: Callable[[], object]) -> None:
        try:
            command()
        except (NotRunning, AdminError) as error:
            raise HarnessError(f"lbcore did not do as it was told: {error}") from error

    def workers(self) -> list[int]:
        """Process numbers of its workers."""
        return sorted(worker["pid"] for worker in self.status()["workers"] if worker["pid"])

    def left_open(self, seconds: float) -> int:
        """Client connections that are still open after at most ``seconds``."""
        deadline = time.monotonic() + seconds
        while True:
            count = sum(int(found["connections"]) for found in self.status()["listeners"])
            if not count or time.monotonic() > deadline:
                return count
            time.sleep(0.05)

    def stop(self, processes: Processes) -> int | None:
        """Tells it to end in an orderly way; its exit code, None if it had to be killed."""
        self.running.root.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + READY
        while self.running.root.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        code: int | None = self.running.root.poll()
        processes.stop(self.running)
        return code


class Stage:
    """lbcore and all its backends, up and found healthy."""

    def __init__(self, balancer: Balancer, backends: list[Backend]) -> None:
        self.balancer = balancer
        self.backends = backends

    def check(self) -> None:
        """Raises HarnessError if anything has ended that nobody ended."""
        self.balancer.running.check()
        for backend in self.backends:
            backend.check()


@contextmanager
def stage(
    processes: Processes, cast: Cast, backends: int, workers: int, out: Path
) -> Iterator[Stage]:
    """Sets the stage. ``out`` is for logs; sockets and lb.toml are in a temporary directory."""
    with tempfile.TemporaryDirectory(prefix="lbcore-load-") as name:
        ports = _ports(backends if cast.command else 0)
        there = [] if cast.command is None else [
            Backend(processes, cast.command, number, port, out)
            for number, port in enumerate(ports.backends, 1)]
        for one in there:
            one.launch()
        for one in there:
            one.wait()
        file, admin = Path(name) / "lb.toml", Path(name) / "admin.sock"
        file.write_text(cast.configuration(admin, workers, ports, 0))
        (out / "lb.toml").write_text(file.read_text())
        running = processes.start(
            "lbcore", [sys.executable, "-m", "lbcore", "-c", str(file)], all_cpus(), out,
            cwd=TREE, when_orphaned="INT")
        balancer = Balancer(running, cast, file, admin, workers, ports)
        wait_until(lambda: _ready(balancer, admin, workers, backends), READY, "the start of lbcore")
        yield Stage(balancer, there)


def _ports(backends: int) -> Ports:
    found: set[int] = set()
    while len(found) < backends + 2:
        found.add(free_port())
    listener, spare, *rest = found
    return Ports(listener, spare, tuple(rest))


def _ready(balancer: Balancer, admin: Path, workers: int, backends: int) -> bool:
    balancer.running.check()
    if not admin.exists():
        return False
    try:
        status = balancer.status()
    except HarnessError:        # the socket is there a moment before its server
        return False
    checked = [found for pool in status["pools"] for found in pool["backends"]
               if found["state"] == "up" and found["last_check"]]
    return len(checked) == backends and len(
        [w for w in status["workers"] if w["state"] == "serving"]) == workers
