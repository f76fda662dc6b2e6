"""Starting, pinning, reading and ending the processes that are measured.

Everything a run starts goes through :class:`Processes`, a context manager: whatever happens,
leaving it ends what was started, and a parent that dies takes its children along
(``setpriv --pdeathsig``).
"""

from __future__ import annotations

import contextlib
import os
import random
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from types import TracebackType

import psutil


class HarnessError(Exception):
    """Something that the person who runs the comparison must put right."""


def free_port() -> int:
    """A TCP port of the loopback address that nobody listens on at the moment.

    Taken from below the range of ephemeral ports, so that no outgoing connection of the
    measured programs can occupy it between two starts.
    """
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    start = random.randrange(10_000, lowest)
    for port in chain(range(start, lowest), range(10_000, start)):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise HarnessError(f"no free TCP port between 10000 and {lowest}")


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Polls ``condition`` every 10 ms; raises HarnessError naming ``what`` after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise HarnessError(f"{what} did not happen within {seconds:g} s")
        time.sleep(0.01)


def raise_descriptor_limit(wanted: int) -> None:
    """Lets this process and what it starts open ``wanted`` descriptors, or says it cannot."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
        except (OSError, ValueError):
            raise HarnessError(
                f"the descriptor limit is {hard}, {wanted} are needed: raise it with `ulimit -n`"
            ) from None
        return
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted if hard < 0 else hard, hard))


@dataclass
class Running:
    """One started program: its first process and where its output goes."""

    name: str
    root: psutil.Popen
    log: Path

    def tree(self) -> list[psutil.Process]:
        """The first process and all its living descendants."""
        children = self.root.children(recursive=True)
        return [p for p in [psutil.Process(self.root.pid), *children] if alive(p)]

    def output(self) -> str:
        """The last 2000 characters the program wrote."""
        return self.log.read_text(errors="replace")[-2000:]

    def check(self) -> None:
        """Raises HarnessError with the program's own words when it has ended."""
        if self.root.poll() is not None:
            raise HarnessError(
                f"{self.name} ended with code {self.root.returncode}; it said:\n{self.output()}"
            )


def alive(process: psutil.Process) -> bool:
    """Whether the process runs (a zombie does not)."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _exit_orderly(number: int, _frame: object) -> None:
    """Turns a request to end into an exception, so that what was started is ended as well."""
    raise SystemExit(128 + number)


class Processes:
    """Everything that was started, and the promise to end it."""

    def __init__(self) -> None:
        self._running: list[Running] = []

    def __enter__(self) -> Processes:
        signal.signal(signal.SIGTERM, _exit_orderly)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for running in reversed(self._running[:]):
            self.stop(running)

    def start(
        self, name: str, command: Sequence[str], cpus: Iterable[int], directory: Path, *,
        cwd: Path | None = None, when_orphaned: str = "KILL",
    ) -> Running:
        """Starts ``command`` pinned to ``cpus``; its output goes to ``directory``/NAME.log.

        ``when_orphaned``: the signal it gets if this process dies without having ended it.
        """
        log = directory / f"{name}.log"
        pinned = ["setpriv", "--pdeathsig", when_orphaned, "--", "taskset", "-c",
                  ",".join(map(str, cpus)), *command]
        with log.open("ab") as output:
            root = psutil.Popen(
                pinned,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=cwd or directory,
                start_new_session=True,
            )
        running = Running(name, root, log)
        self._running.append(running)
        return running

    def stop(self, running: Running, grace: float = 3.0) -> None:
        """Ends the program and its descendants: INT first, KILL after ``grace`` seconds."""
        tree = running.tree() if running.root.is_running() else []
        with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
            running.root.send_signal(signal.SIGINT)
        with contextlib.suppress(psutil.TimeoutExpired, subprocess.TimeoutExpired):
            running.root.wait(timeout=grace)
        _, remaining = psutil.wait_procs(tree, timeout=0.5)
        for process in remaining:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        with contextlib.suppress(psutil.TimeoutExpired, subprocess.TimeoutExpired):
            running.root.wait(timeout=grace)
        if running in self._running:
            self._running.remove(running)


def cpu_ns(pids: Iterable[int]) -> int:
    """User and system time of the processes so far, nanoseconds, over all their threads.

    ``schedstat`` counts in nanoseconds what ``/proc/PID/stat`` shows in ticks of 10 ms. A
    process that has gone counts nothing.
    """
    total = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                total += int(task.read_text().split()[0])
    return total


def children_cpu_ns() -> int:
    """User and system time of this process's children that have ended, nanoseconds."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return int((usage.ru_utime + usage.ru_stime) * 1e9)


def settled_cpu_ns(pids: Sequence[int], seconds: float = 1.0) -> int:
    """As :func:`cpu_ns`, once the work has ebbed away (below 2 % of a core over 20 ms)."""
    deadline = time.monotonic() + seconds
    before = cpu_ns(pids)
    while True:
        time.sleep(0.02)
        now = cpu_ns(pids)
        if now - before < 400_000 or time.monotonic() > deadline:
            return now
        before = now


def core_busy_ns(cpus: Iterable[int]) -> int:
    """Time these cores were not idle so far, nanoseconds together, whoever used them."""
    ticks = os.sysconf("SC_CLK_TCK")
    lines = {line.split()[0]: line.split()[1:9]
             for line in Path("/proc/stat").read_text().splitlines() if line.startswith("cpu")}
    busy = 0
    for cpu in cpus:
        if f"cpu{cpu}" not in lines:
            raise HarnessError(f"there is no CPU {cpu} on this machine")
        user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, lines[f"cpu{cpu}"])
        busy += user + nice + system + irq + softirq + steal
    return busy * 1_000_000_000 // ticks


def unique_bytes(pids: Iterable[int]) -> int:
    """Memory that only these processes have (unique set size), bytes."""
    total = 0
    for pid in pids:
        try:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        for line in rollup.splitlines():
            if line.startswith(("Private_Clean:", "Private_Dirty:", "Private_Hugetlb:")):
                total += int(line.split()[1]) * 1024
    return total
