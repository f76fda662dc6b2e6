"""The process between a program and the lbcore that it runs; it leaves nothing behind.

    python -I -S keeper.py PROGRAM DESCRIPTOR DIRECTORY COMMAND...

It starts COMMAND and ends with its exit code. DESCRIPTOR is the reading end of a pipe whose other
end the program has: a byte in it asks lbcore to end, D after its connections, N at once. When the
pipe or the program is gone (PROGRAM is its pid; a child that it has forked may hold the pipe),
however that came, lbcore ends at once. Whatever lbcore has started and left is this process's to
end, because orphans below it become its children (PR_SET_CHILD_SUBREAPER), and DIRECTORY is its to
remove. Standard library only, no lbcore.
"""

from __future__ import annotations

import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress

PR_SET_PDEATHSIG = 1         # prctl(2)
PR_SET_CHILD_SUBREAPER = 36
PATIENCE = 10.0              # seconds that lbcore may take when told to end at once

_libc = ctypes.CDLL(None, use_errno=True)


def main(arguments: list[str]) -> int:
    """The exit code of the command; 128 and the signal for one that a signal ended."""
    program, pipe, directory, command = (
        int(arguments[0]), int(arguments[1]), arguments[2], arguments[3:])
    os.set_inheritable(pipe, False)
    over = os.pidfd_open(program) if os.getppid() == program else -1
    if os.getppid() != program:              # gone already, perhaps before we looked
        shutil.rmtree(directory, ignore_errors=True)
        return 1
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)        # the pipe tells us when it is time
    try:
        # Alone in this process there is no thread that a fork could catch in the wrong moment.
        child = subprocess.Popen(command, preexec_fn=_die_with_us)    # noqa: PLW1509
        code = _wait(child, pipe, over)
    finally:
        _end_orphans()
        shutil.rmtree(directory, ignore_errors=True)
    return 128 - code if code < 0 else code


def _die_with_us() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGINT, 0, 0, 0)


def _wait(child: subprocess.Popen[bytes], pipe: int, program: int) -> int:
    """Passes on what the program asks for until lbcore has ended; returns how it did."""
    poll = select.poll()
    poll.register(pidfd := os.pidfd_open(child.pid), select.POLLIN)
    poll.register(pipe, select.POLLIN)
    poll.register(program, select.POLLIN)
    deadline = None
    while True:
        left = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
        ready = [fd for fd, _ in poll.poll(left)]
        if pidfd in ready:
            return child.wait()
        said = b"D"
        for source in set(ready):
            said = os.read(source, 1) if source == pipe else b""
            if not said:
                poll.unregister(source)
        if not ready:
            child.kill()
            return child.wait()
        if said == b"D":
            child.send_signal(signal.SIGTERM)
        else:
            child.send_signal(signal.SIGINT)
            deadline = deadline or time.monotonic() + PATIENCE


def _end_orphans() -> None:
    """Kills every process below this one; those of a killed one come up to be killed next."""
    while children := _children():
        for pid in children:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in children:
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)


def _children() -> list[int]:
    own, found = os.getpid(), []
    for entry in os.scandir("/proc"):
        if entry.name.isdecimal():
            with suppress(OSError), open(f"/proc/{entry.name}/stat", "rb") as file:  # noqa: PTH123
                # The command between parentheses may hold anything.
                if int(file.read().rpartition(b")")[2].split()[1]) == own:
                    found.append(int(entry.name))
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
