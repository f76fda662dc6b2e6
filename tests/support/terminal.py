"""Commands on a terminal of 80 by 24, as a person has them."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence

from tests.support.instance import PATIENCE, ROOT

SIZE = struct.pack("4H", 24, 80, 0, 0)


def on_terminal(
    words: Sequence[str], wanted: str = "", keys: bytes = b"",
    environment: Mapping[str, str] | None = None,
) -> tuple[int, str]:
    """Runs a command, types the keys once the text is seen; exit code and all that it wrote."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, SIZE)
    env = {name: value for name, value in os.environ.items()
           if name not in ("NO_COLOR", "COLUMNS", "LINES")}
    env |= {"TERM": "xterm-256color", "PYTHONPATH": str(ROOT), **(environment or {})}
    # A session of its own with this terminal, so that Ctrl-C on it is SIGINT.
    process = subprocess.Popen(["setsid", "--ctty", "--wait", *words], stdin=theirs, stdout=theirs,
                               stderr=theirs, env=env)
    os.close(theirs)
    seen, typed, deadline = b"", not keys, time.monotonic() + PATIENCE
    try:
        while time.monotonic() < deadline:
            if select.select([ours], [], [], 0.2)[0]:
                try:
                    seen += os.read(ours, 65536)
                except OSError:          # EIO: nobody has the other end any more
                    break
            if not typed and wanted.encode() in seen:
                os.write(ours, keys)
                typed = True
        return process.wait(PATIENCE), seen.decode("utf-8", "replace")
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        os.close(ours)
