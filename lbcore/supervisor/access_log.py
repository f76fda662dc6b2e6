"""The access log as the supervisor sees it: it opens the file, and workers write to it.

Every worker gets a descriptor over its control channel and writes its lines itself. Descriptors
carry what the worker has to know: one that is non-blocking was opened by lbcore and by nobody
else. Standard output is shared with whoever started lbcore, so its mode stays as it is: a pipe or
a terminal is opened anew, by the name that /proc has for it.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any
from weakref import WeakKeyDictionary

from lbcore.config.plan import LogPlan
from lbcore.supervisor.channel import ChannelClosed
from lbcore.supervisor.log import Log
from lbcore.supervisor.worker import Worker

Json = dict[str, Any]
STANDARD_OUTPUT = 1
TIOCGDEV = 0x80045432            # which terminal is behind a descriptor
FLAGS = os.O_WRONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
MODE = 0o640                     # addresses of clients are nobody else's business
# What a busy worker writes in some 50 ms: a reader that has to wait for a CPU costs no lines.
PIPE_SIZE = 1 << 20
COMPLAIN_EVERY = 60.0            # seconds between two log lines that say that lines are dropped


class AccessLog:
    """Where access lines go, and which workers have been told."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.path = ""                       # "-": standard output; "": there is none
        self.format = "json"
        self.fd = -1
        self.past_lines = 0                  # of workers that have ended
        self.past_dropped = 0
        self._edition = 0                    # counts descriptors and formats; 0: never any
        self._told: WeakKeyDictionary[Worker, int] = WeakKeyDictionary()
        self._complained_of = 0
        self._complain_at = 0.0

    # -- what is in force

    def open(self, plan: LogPlan) -> None:
        """Takes over path and format of a plan. Raises OSError, and changes nothing then."""
        if (plan.access, plan.access_format) == (self.path, self.format):
            return
        if plan.access != self.path:
            fd = _open(plan.access) if plan.access else -1
            self.close()
            self.fd = fd
        self.path, self.format = plan.access, plan.access_format
        self._edition += 1

    def configure(self, plan: LogPlan, workers: Iterable[Worker]) -> str:
        """Takes over a new plan and tells the workers.

        What cannot be opened stays as it was: returns why, "" if all is well.
        """
        why = ""
        try:
            self.open(plan)
        except OSError as error:
            self.log.error("access_log.open_failed", message="it goes on where it was",
                           path=plan.access, error=error.strerror)
            why = f"{plan.access} cannot be opened: {error.strerror}"
        self._tell(workers)
        return why

    def reopen(self, workers: Iterable[Worker]) -> None:
        """After rotation: a new file under the old name, for every worker that lives."""
        if self.path in ("", "-"):
            return
        try:
            fd = _open(self.path)
        except OSError as error:
            self.log.error("access_log.reopen_failed", message="the old file is written on",
                           path=self.path, error=error.strerror)
            return
        self.close()
        self.fd = fd
        self._edition += 1
        self._tell(workers)
        self.log.info("access_log.reopened", path=self.path)

    def close(self) -> None:
        """Closes the supervisor's own descriptor; workers keep theirs."""
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = -1

    # -- the workers

    def give(self, worker: Worker) -> None:
        """Hands a worker what is in force, unless it has it. Raises ChannelClosed."""
        if self._told.get(worker, 0) == self._edition:
            return
        if self.fd < 0:
            worker.send({"op": "access", "format": "none"})
        else:
            fd = self._descriptor()
            try:
                worker.send({"op": "access", "format": self.format}, [fd])
            finally:
                os.close(fd)
        self._told[worker] = self._edition

    def _tell(self, workers: Iterable[Worker]) -> None:
        for worker in workers:
            with suppress(ChannelClosed):
                self.give(worker)

    def _descriptor(self) -> int:
        """A file is opened once more for each worker: it can then tell where its own line ended."""
        if self.path != "-" and stat.S_ISREG(os.fstat(self.fd).st_mode):
            with suppress(OSError):
                return os.open(f"/proc/self/fd/{self.fd}", FLAGS | os.O_APPEND)
        return os.dup(self.fd)

    # -- what came of it

    def worker_ended(self, seat: Mapping[str, Any]) -> None:
        """Keeps what an ended worker had counted."""
        self.past_lines += seat["log_lines"]
        self.past_dropped += seat["log_dropped"]

    def status(self, seats: Iterable[Mapping[str, Any]]) -> Json:
        """Path, format, and lines written and dropped since the start; ``seats`` of those alive."""
        seats = list(seats)
        return {"path": self.path, "format": self.format if self.path else "none",
                "lines": self.past_lines + sum(seat["log_lines"] for seat in seats),
                "dropped": self.past_dropped + sum(seat["log_dropped"] for seat in seats)}

    def look(self, seats: Iterable[Mapping[str, Any]], now: float) -> None:
        """Says in lbcore's log that lines are dropped: at once, then once a minute."""
        dropped = self.status(seats)["dropped"]
        if dropped > self._complained_of and now >= self._complain_at:
            self.log.warning(
                "access_log.dropped", path=self.path, lines=dropped - self._complained_of,
                message="lines were dropped: its reader is slow or gone, or the disk is full")
            self._complained_of = dropped
            self._complain_at = now + COMPLAIN_EVERY

    # -- upgrades

    def export(self, passed: Callable[[int], int]) -> Json:
        """What the next version needs; ``passed`` notes a descriptor that it inherits."""
        return {"path": self.path, "format": self.format,
                "fd": passed(self.fd) if self.fd >= 0 else -1,
                "lines": self.past_lines, "dropped": self.past_dropped}

    def restore(self, state: Mapping[str, Any] | None, plan: LogPlan) -> None:
        """Goes on where the earlier version was; then, or without a state, what the plan says."""
        if state is not None:
            self.past_lines, self.past_dropped = state["lines"], state["dropped"]
            if state["fd"] >= 0:
                os.set_inheritable(state["fd"], False)
                self.path, self.format, self.fd = state["path"], state["format"], state["fd"]
            self._edition += 1
        self.configure(plan, ())


def _open(path: str) -> int:
    """A descriptor of the log: only a regular one, or standard output, may be blocking."""
    if path == "-":
        return _standard_output()
    with suppress(OSError):
        if stat.S_ISFIFO(os.stat(path).st_mode):     # noqa: PTH116
            # For reading too: so its reader may come and go, and come later than lbcore.
            return _grown(os.open(path, FLAGS & ~os.O_WRONLY | os.O_RDWR))
    fd = os.open(path, FLAGS | os.O_APPEND | os.O_CREAT, MODE)
    if stat.S_ISREG(os.fstat(fd).st_mode):
        os.set_blocking(fd, True)
    return fd


def _standard_output() -> int:
    mode = os.fstat(STANDARD_OUTPUT).st_mode
    if stat.S_ISCHR(mode):
        return _terminal()
    if stat.S_ISFIFO(mode):
        # Not permitted if it is another user's. Workers can do with the one there is.
        with suppress(OSError):
            return _grown(os.open(f"/proc/self/fd/{STANDARD_OUTPUT}", FLAGS))
    return _grown(os.dup(STANDARD_OUTPUT))


def _terminal() -> int:
    """Standard output, opened anew: a stopped terminal would stop whoever writes to it."""
    try:
        return os.open(f"/proc/self/fd/{STANDARD_OUTPUT}", FLAGS)
    except PermissionError:
        # Somebody else's, as after `su`; it may be ours by being our session's.
        fd = os.open("/dev/tty", FLAGS)
        if _device(fd) != _device(STANDARD_OUTPUT):
            os.close(fd)
            raise
        return fd


def _device(fd: int) -> bytes:
    return fcntl.ioctl(fd, TIOCGDEV, bytes(4))


def _grown(fd: int) -> int:
    with suppress(OSError):
        if stat.S_ISFIFO(os.fstat(fd).st_mode):
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
    return fd
