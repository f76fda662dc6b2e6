"""The process of a program's lbcore: starting it, hearing what it says, ending it."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

import lbcore
from lbcore.admin.calls import ClientError
from lbcore.config.plan import Address

KEEPER = Path(__file__).with_name("keeper.py")
KEPT_LINES = 200
SHOWN_LINES = 12
ROOM_FOR_NAMES = 60          # bytes of a unix socket's path that are for what is in the directory
MAX_UNIX_PATH = 107
LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING,
          "error": logging.ERROR}
FROM_SYSTEMD = {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID",
                "LISTEN_FDNAMES"}
log = logging.getLogger("lbcore")


class BalancerError(ClientError):
    """lbcore did not start, or has ended by itself. ``output``: the last lines that it printed."""

    def __init__(self, message: str, output: tuple[str, ...] = ()) -> None:
        super().__init__("\n    ".join([message, *output[-SHOWN_LINES:]]))
        self.output = output


class Running:
    """One lbcore below its keeper."""

    def __init__(self, directory: Path, config: Path) -> None:
        """Starts it; it owns the directory from here on. Raises OSError."""
        self.directory = directory
        self._last: deque[str] = deque(maxlen=KEPT_LINES)
        self._asking = threading.Lock()      # nobody writes to a descriptor that is closed
        reading, self._pipe = os.pipe2(os.O_CLOEXEC)
        try:
            self._keeper = subprocess.Popen(
                [sys.executable, "-I", "-S", str(KEEPER), str(os.getpid()), str(reading),
                 str(directory), sys.executable, "-P", "-m", "lbcore", "-c", str(config)],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                pass_fds=[reading], start_new_session=True, env=_environment())
        except BaseException:
            os.close(self._pipe)
            raise
        finally:
            os.close(reading)
        assert self._keeper.stdout is not None and self._keeper.stderr is not None
        self._listeners = [self._listen(self._keeper.stderr, self._log_line),
                           self._listen(self._keeper.stdout, self._access_line)]

    @property
    def pid(self) -> int:
        """The keeper's process number; lbcore is its child."""
        return self._keeper.pid

    def ended(self) -> bool:
        """Whether it is over."""
        return self._keeper.poll() is not None

    def error(self, what: str) -> BalancerError:
        """What to raise, with the last lines it printed."""
        if self.ended():
            for listener in self._listeners:
                listener.join(1.0)
            what = f"{what} (exit code {self._keeper.returncode})"
        return BalancerError(what, tuple(self._last))

    def wait_until_up(self, admin: Address, timeout: float) -> None:
        """Returns when its admin address listens. Raises BalancerError.

        It answers there once every worker serves.
        """
        until = time.monotonic() + timeout
        while not _listens(admin):
            if self.ended():
                raise self.error("lbcore did not start")
            if time.monotonic() > until:
                raise self.error(f"lbcore did not start within {timeout:g} seconds")
            time.sleep(0.01)

    def ask_to_end(self, now: bool) -> None:
        """After its connections, or at once."""
        with self._asking, suppress(BrokenPipeError):
            if self._pipe >= 0:
                os.write(self._pipe, b"N" if now else b"D")

    def wait(self, timeout: float | None) -> bool:
        """Waits for its end; whether that came."""
        with suppress(subprocess.TimeoutExpired):
            self._keeper.wait(timeout)
            return True
        return False

    def close(self) -> None:
        """Ends it at once unless it has ended; returns when nothing is left."""
        with self._asking:
            if self._pipe >= 0:
                os.close(self._pipe)
            self._pipe = -1
        self._keeper.wait()
        for listener in self._listeners:
            listener.join()

    # -- what it prints

    def _listen(self, stream: IO[bytes], take: Callable[[str], None]) -> threading.Thread:
        def listen() -> None:
            with stream:
                for line in stream:
                    with suppress(Exception):    # whatever a handler of the program's does
                        take(line.decode("utf-8", "replace").rstrip("\n"))

        thread = threading.Thread(target=listen, name="lbcore-output", daemon=True)
        thread.start()
        return thread

    def _log_line(self, line: str) -> None:
        said = None
        with suppress(ValueError):
            said = json.loads(line)
        if not isinstance(said, dict) or "event" not in said:
            self._last.append(line)
            log.info("%s", line)
            return
        fields = {key: value for key, value in said.items()
                  if key not in ("time", "level", "event", "message")}
        words = [str(said["event"]), str(said.get("message", "")),
                 *(f"{key}={value}" for key, value in fields.items())]
        text = " ".join(filter(None, words))
        self._last.append(text)
        log.log(LEVELS.get(str(said.get("level")), logging.INFO), "%s", text,
                extra={"lbcore": said})

    def _access_line(self, line: str) -> None:
        logging.getLogger("lbcore.access").info("%s", line)


def private_directory() -> Path:
    """A new directory for an instance, with a name short enough for sockets in it."""
    for parent in (None, "/tmp"):            # $TMPDIR may be long
        made = Path(tempfile.mkdtemp(prefix="lbcore-", dir=parent))
        if len(os.fsencode(made)) <= MAX_UNIX_PATH - ROOM_FOR_NAMES:
            # Workers that become another user pass through to demonstration backends.
            made.chmod(0o711)
            return made
        made.rmdir()
    raise OSError("there is no directory with a short name for sockets")


def _listens(admin: Address) -> bool:
    family = socket.AF_UNIX if admin.path else socket.AF_INET6 if ":" in admin.host else (
        socket.AF_INET)
    with socket.socket(family, socket.SOCK_STREAM) as sock, suppress(OSError):
        sock.settimeout(1.0)
        sock.connect(admin.path or (admin.host, admin.port))
        return True
    return False


def _environment() -> dict[str, str]:
    """Our environment, with lbcore importable when it runs from a source tree.

    What a service manager tells a program is for the program alone.
    """
    home = Path(lbcore.__file__).parent.parent
    env = {name: value for name, value in os.environ.items() if name not in FROM_SYSTEMD}
    if home.name not in ("site-packages", "dist-packages"):
        others = [path for path in env.get("PYTHONPATH", "").split(os.pathsep)
                  if path and path != str(home)]
        env["PYTHONPATH"] = os.pathsep.join([str(home), *others])
    return env
