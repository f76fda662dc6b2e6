"""A whole lbcore for tests that break it: the real command, real workers, a directory of its own.

Everything the instance starts, however often it re-execs or is replaced, carries a mark in its
environment. By that mark processes are found that no longer have a parent to tell of them, so
that a test can ask what is left and cleaning up misses nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import itertools
import json
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest
import toml

from lbcore.admin.client import AdminClient, NotRunning
from lbcore.config.plan import Address

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0              # seconds until what must happen is held to have failed
MARK = "LBCORE_TEST_INSTANCE"
PORTS = range(15_000, 30_000)    # below those that the kernel gives to outgoing connections
# Between choosing a port and listening on it there is time for another process of tests to choose
# it too, and then one asks the other's lbcore. So a port belongs to the process that has its byte
# of this file locked, until that ends, and there comes again after all the others.
TAKEN = Path(tempfile.gettempdir()) / "lbcore-test-ports"
_NEXT = itertools.cycle(random.sample(PORTS, len(PORTS)))
# Puts descriptors where sd_listen_fds(3) looks for them, in the process that lbcore then is.
PASS_ON = """
import fcntl, os, sys
high = [fcntl.fcntl(int(fd), fcntl.F_DUPFD, 200) for fd in os.environ.pop("PASSED").split()]
for number, fd in enumerate(high):
    os.dup2(fd, 3 + number)
    os.close(fd)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[1], sys.argv[1:])
"""
Json = dict[str, Any]
T = TypeVar("T")


def until(what: Callable[[], T], why: str = "", patience: float = PATIENCE) -> T:
    """What the function returns, once that is true. For state that announces itself nowhere."""
    deadline = time.monotonic() + patience
    while not (found := what()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{why or 'it'} did not become true within {patience:g} s")
        time.sleep(0.01)
    return found


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nobody uses, and that no outgoing connection will take."""
    while True:
        port = next(_NEXT)
        with socket.socket() as sock, contextlib.suppress(OSError):
            fcntl.lockf(_taken(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
            sock.bind(("127.0.0.1", port))
            return port


@functools.cache
def _taken() -> int:
    """The file of locks: open once, because closing it anywhere in the process ends them all."""
    with contextlib.suppress(OSError):      # another user's, which all may write
        os.close(os.open(TAKEN, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666))
        TAKEN.chmod(0o666)
    return os.open(TAKEN, os.O_RDWR | os.O_CLOEXEC)


def resident(pid: int) -> int:
    """Bytes of a process in memory that are its own: unique set size, from smaps_rollup."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    kib = {line.split()[0]: int(line.split()[1]) for line in text.splitlines()[1:]}
    return 1024 * (kib["Private_Clean:"] + kib["Private_Dirty:"])


def as_user(user: int) -> list[str]:
    """The words that make root run a command as an ordinary user, who can run our Python.

    An interpreter in root's home is read as root could; nothing else is allowed to it then.
    """
    plain = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
    reading = [*plain, "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    for words in (plain, reading):
        # What setpriv may still start, the user himself perhaps may not.
        again = "import subprocess, sys; subprocess.run([sys.executable, '-c', ''], check=True)"
        if subprocess.run([*words, sys.executable, "-c", again], check=False, cwd="/",
                          capture_output=True).returncode == 0:
            return words
    pytest.skip("other users cannot run this Python")


def descriptors(pid: int) -> int:
    """How many descriptors a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))    # noqa: PTH208


class Instance:
    """One lbcore and its files. Change ``file``, then :meth:`write`; see also :func:`instance`.

    ``tree`` is the directory that lbcore is imported from.
    """

    def __init__(self, tree: Path = ROOT) -> None:
        self.tree = tree
        self.directory = Path(tempfile.mkdtemp(prefix="lbcore-fault-"))
        self.config = self.directory / "lb.toml"
        self.admin_path = self.directory / "admin.sock"
        self.log_path = self.directory / "output"
        self.port = free_port()
        self.address = ("127.0.0.1", self.port)
        self.mark = secrets.token_hex(8)
        self.process: subprocess.Popen[bytes] | None = None
        self.file: Json = {
            "lbcore": {"workers": 1, "pin_cpus": False},
            "admin": {"listen": f"unix:{self.admin_path}"},
            "log": {"format": "json"},
            "listener": [{"name": "main", "bind": f"127.0.0.1:{self.port}", "pool": "main"}],
            "pool": {"main": {"backends": []}},
        }

    # -- its configuration

    @property
    def pool(self) -> Json:
        """The pool behind the listener, as the next :meth:`write` puts it."""
        pool: Json = self.file["pool"]["main"]
        return pool

    def write(self, text: str | None = None) -> None:
        """Writes the configuration in one step, or this text instead of it."""
        fresh = self.config.with_suffix(".new")
        fresh.write_text(toml.dumps(self.file) if text is None else text)
        fresh.rename(self.config)

    # -- its life

    def start(self, *, descriptors: int | None = None, wait: bool = True,
              stdout: int | None = None, lacking: Sequence[str] = (),
              user: int | None = None, environment: Mapping[str, str] | None = None,
              passing: Sequence[tuple[str, socket.socket]] = ()) -> None:
        """Starts lbcore, with at most so many descriptors a process, and waits until it serves.

        What it prints goes to ``log_path``; its standard output alone to ``stdout``, if given.
        ``lacking``: capabilities that it does not have, as root otherwise does. ``user``: the
        ordinary user that it runs as. ``environment``: more variables. ``passing``: names and
        listening sockets that it is passed as systemd would.
        """
        command = [sys.executable, "-P", "-m", "lbcore", "-c", str(self.config)]
        if descriptors is not None:
            command = ["prlimit", f"--nofile={descriptors}:{descriptors}", *command]
            if os.geteuid() == 0:        # root would raise the limit again
                command = ["setpriv", "--bounding-set=-sys_resource", *command]
        if lacking:
            without = ",".join(f"-{capability}" for capability in lacking)
            command = ["setpriv", f"--bounding-set={without}", *command]
        if user is not None:
            os.chown(self.directory, user, user)
            os.chown(self.config, user, user)
            command = [*as_user(user), *command]
        more = dict(environment or {})
        if passing:
            command = [sys.executable, "-c", PASS_ON, *command]
            more |= {"LISTEN_FDS": str(len(passing)),
                     "LISTEN_FDNAMES": ":".join(name for name, _ in passing),
                     "PASSED": " ".join(str(sock.fileno()) for _, sock in passing)}
        with self.log_path.open("ab") as output:
            already = len(self.events("started"))
            self.process = subprocess.Popen(
                command, cwd=self.directory, stdin=subprocess.DEVNULL,
                stdout=output if stdout is None else stdout, stderr=output,
                env=os.environ | {"PYTHONPATH": str(self.tree), MARK: self.mark} | more,
                pass_fds=[sock.fileno() for _, sock in passing])
        if wait:
            self.wait_for("started", already + 1)

    def wait_until_serving(self) -> None:
        """Waits until it answers and every slot has its worker; for logs that say little."""
        self.wait_serving(int(self.file["lbcore"]["workers"]))

    @property
    def pid(self) -> int:
        """Process number of the supervisor."""
        assert self.process is not None
        return self.process.pid

    def signal(self, number: signal.Signals) -> None:
        """Sends the supervisor a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def exit_code(self, patience: float = PATIENCE) -> int:
        """Waits for the supervisor's end."""
        assert self.process is not None
        return self.process.wait(patience)

    def kill_supervisor(self) -> None:
        """SIGKILL to the supervisor alone; returns when it is gone."""
        self.signal(signal.SIGKILL)
        self.exit_code()

    # -- what it says

    @property
    def admin(self) -> AdminClient:
        """Its admin address."""
        return AdminClient(Address(path=str(self.admin_path)), timeout=PATIENCE)

    def output(self) -> list[str]:
        """Everything it has printed."""
        if not self.log_path.exists():
            return []
        return self.log_path.read_text(errors="replace").splitlines()

    def events(self, name: str, **fields: Any) -> list[Json]:
        """Log events of a name and with these fields, in order."""
        found = []
        for line in self.output():
            with contextlib.suppress(ValueError):
                said = json.loads(line)
                if said.get("event") == name and fields.items() <= said.items():
                    found.append(said)
        return found

    def wait_for(self, name: str, count: int = 1, patience: float = PATIENCE,
                 **fields: Any) -> Json:
        """Waits until an event has been logged so often; returns that one."""

        def looked() -> list[Json]:
            found = self.events(name, **fields)
            gone = self.process is not None and self.process.poll() is not None
            if gone and len(found) < count and len(self.events(name, **fields)) < count:
                raise AssertionError(f"lbcore ended before {name!r}:\n" + self.tail())
            return found if len(found) >= count else []

        try:
            return until(looked, f"event {name!r} {fields}", patience)[count - 1]
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.tail()}") from None

    def tail(self, lines: int = 50) -> str:
        """The end of what it has printed."""
        return "\n".join(self.output()[-lines:])

    def complaints(self) -> list[str]:
        """What it printed that no operator should ever see: internal errors and tracebacks."""
        return [line for line in self.output()
                if '"event": "internal"' in line or "Traceback" in line or "Error:" in line]

    def status(self) -> Json:
        """What the admin address says."""
        return self.admin.status()

    def serving(self) -> list[Json]:
        """The workers in slots, by slot."""
        return [w for w in self.status()["workers"] if w["state"] == "serving"]

    def wait_serving(self, count: int, but: Sequence[int] = ()) -> list[Json]:
        """Waits until so many workers serve and no others are left, none of these pids among them.
        """

        def looked() -> list[Json]:
            with contextlib.suppress(NotRunning):
                workers = self.status()["workers"]
                pids = {w["pid"] for w in workers}
                if (len(workers) == count and all(w["state"] == "serving" for w in workers)
                        and not pids & set(but)):
                    return list(workers)
            return []

        try:
            return until(looked, f"{count} workers serving")
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.status()['workers']}\n{self.tail()}") from None

    def backend(self, address: str) -> Json:
        """What status says of a backend of the pool ``main``."""
        return next(backend for pool in self.status()["pools"] if pool["name"] == "main"
                    for backend in pool["backends"] if backend["address"] == address)

    # -- what there is of it

    def processes(self) -> dict[int, str]:
        """Every living process of the instance, orphans included: pid and command."""
        mark, found = f"{MARK}={self.mark}".encode(), {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdecimal():
                continue
            with contextlib.suppress(OSError):
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    words = (entry / "cmdline").read_bytes().split(b"\0")
                    found[int(entry.name)] = b" ".join(words[:5]).decode()
        return found

    def leftovers(self) -> list[str]:
        """What is there of it although it has ended: processes, files, listeners."""
        found = [f"process {pid}: {words}" for pid, words in self.processes().items()]
        known = {self.config, self.log_path}
        found += [f"file {path}" for path in self.directory.rglob("*") if path not in known]
        wanted = f"0100007F:{self.port:04X}"
        listening = "0A"
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            fields = line.split()
            if (fields[1], fields[3]) == (wanted, listening):
                found.append(f"listener on port {self.port}")
        return found

    def close(self) -> None:
        """Ends everything of it, whatever state it is in."""
        deadline = time.monotonic() + PATIENCE
        while (left := self.processes()) and time.monotonic() < deadline:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if self.process is not None:
                self.process.poll()      # reaps it
            time.sleep(0.01)
        if self.process is not None:
            self.process.wait(PATIENCE)
        shutil.rmtree(self.directory, ignore_errors=True)


@contextlib.contextmanager
def instance(tree: Path = ROOT) -> Iterator[Instance]:
    """An instance that leaves nothing behind. pytest shows what it printed if the test fails."""
    made = Instance(tree)
    try:
        yield made
    finally:
        print(f"-- the last of what lbcore printed\n{made.tail()}", file=sys.stderr)
        made.close()
