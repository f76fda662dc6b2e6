"""A process that the supervisor looks after: noticing its end without waiting for it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import lbcore
from lbcore.supervisor.notify import for_children

TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


class Process:
    """A running process, watched through a pidfd on the event loop.

    It need not be a child: of a process that an earlier supervisor started, the end is seen but
    not how it came.
    """

    def __init__(
        self, pid: int, child: subprocess.Popen[bytes] | None = None, began: int | None = None,
    ) -> None:
        """Raises ProcessLookupError when there is no such process any more, or another one has
        its pid by now: one that did not begin when ``began`` says, as :func:`began_at` does."""
        self.pid = pid
        self.pidfd = os.pidfd_open(pid)
        if began is not None and not _began(pid, began):
            os.close(self.pidfd)
            raise ProcessLookupError(f"process {pid} is another one by now")
        self.started = time.monotonic()
        self.ended = asyncio.Event()
        self.exit_code: int | None = None    # negative: killed by that signal; None: not known
        self.killed = ""                     # why we killed it
        self.cpu_s = 0.0                     # once it has ended: user and system
        self._child = child
        asyncio.get_running_loop().add_reader(self.pidfd, self._gone)

    def on_end(self) -> None:
        """Called once when the process is gone; for subclasses."""

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal; nothing happens when the process is gone."""
        if not self.ended.is_set():
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, number)

    def kill(self, why: str) -> None:
        """SIGKILL, for a process that does not listen; ``why`` goes to the log."""
        self.killed = self.killed or why
        self.signal(signal.SIGKILL)

    def how_it_ended(self) -> str:
        """The end of the process in words."""
        if self.exit_code is None:
            return "end not seen"
        if self.exit_code < 0:
            try:
                return f"killed by {signal.Signals(-self.exit_code).name}"
            except ValueError:
                return f"killed by signal {-self.exit_code}"
        return f"exit code {self.exit_code}"

    def _gone(self) -> None:
        asyncio.get_running_loop().remove_reader(self.pidfd)
        self.cpu_s = process_use(self.pid).cpu_s     # while it may be looked at still
        with suppress(ChildProcessError):
            result = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED)
            if result is not None:
                exited = result.si_code == os.CLD_EXITED
                self.exit_code = result.si_status if exited else -result.si_status
        if self._child is not None:
            self._child.returncode = self.exit_code or 0    # reaped here, not by Popen
        os.close(self.pidfd)
        self.ended.set()
        self.on_end()


@dataclass(frozen=True)
class ProcessUse:
    """What a process uses of the machine."""

    cpu_s: float = 0.0           # user and system, since it began
    resident: int = 0            # bytes


def process_use(pid: int) -> ProcessUse:
    """CPU and memory of a process, also of one that has ended and was not waited for yet.

    Zeros when it is gone. One read of proc_pid_stat(5): with many workers, anything more is felt.
    """
    with suppress(OSError, ValueError, IndexError):
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return ProcessUse((int(after_name[11]) + int(after_name[12])) / TICK,
                          int(after_name[21]) * PAGE)
    return ProcessUse()


def began_at(pid: int) -> int:
    """When a process began, in clock ticks since the machine did. Raises OSError."""
    stat = Path(f"/proc/{pid}/stat").read_text()
    return int(stat.rpartition(")")[2].split()[19])      # proc_pid_stat(5): starttime


def _began(pid: int, when: int) -> bool:
    with suppress(OSError):
        return began_at(pid) == when
    return False


def start(
    module: str, arguments: Sequence[str], descriptors: Sequence[int],
    uid: int | None = None, gid: int | None = None, output: int | None = None,
) -> subprocess.Popen[bytes]:
    """Runs a module of this installation in a process of its own, with these descriptors.

    ``output`` takes what it prints, otherwise that goes where ours goes. It gets a session of its
    own: Ctrl-C in a terminal is for the supervisor to handle. Raises OSError.
    """
    return subprocess.Popen(
        [*python_module(module), *arguments], stdin=subprocess.DEVNULL, pass_fds=descriptors,
        env=for_children(environment()), start_new_session=True, user=uid, group=gid,
        extra_groups=None if uid is None else [], stdout=output, stderr=output,
    )


def python_module(name: str) -> list[str]:
    """The command that runs a module, whatever the working directory holds (-P)."""
    return [sys.executable, "-P", "-m", name]


def environment() -> dict[str, str]:
    """Our environment, with lbcore importable when it runs from a source tree."""
    home = Path(lbcore.__file__).parent.parent
    env = dict(os.environ)
    if home.name not in ("site-packages", "dist-packages"):
        others = [p for p in env.get("PYTHONPATH", "").split(os.pathsep) if p and p != str(home)]
        env["PYTHONPATH"] = os.pathsep.join([str(home), *others])
    return env
