"""What applications print: taken from their pumps, labelled, logged, and remembered for a while.

Every application server has a pump (``lbcore/apps/pump.py``) that sends lines to a socket in the
runtime directory. Whoever is supervisor owns that socket, so output finds a supervisor that has
taken over as it finds one that was there from the start.
"""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress

from lbcore.supervisor.instance import Instance
from lbcore.supervisor.log import Log

SOCKET_NAME = "apps.out"
BUFFER = 1 << 20                 # bytes that may wait for us
LARGEST = 1 << 18                # of a datagram
MOST_PER_READ = 32               # datagrams; more than the kernel keeps for us
TURN = 0.005                     # seconds after which others get the loop, give or take a datagram
REST = 4                         # times as long as that took, until the next turn
ROOM_EVERY = 0.05                # seconds, for a pump that has something to deliver
KEPT_LINES = 200                 # of each server
TELLING_LINES = 12               # shown of a server that does not come up
TRACEBACK = "Traceback (most recent call last)"
CHAINED = ("During handling of", "The above exception")
ServerKey = tuple[str, str, int]     # pool, backend, generation
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), 127) if code != 9}


class Output:
    """The socket that pumps send to, and the last lines of each server."""

    def __init__(self, instance: Instance, log: Log) -> None:
        self.dropped = 0                 # lines that pumps could not deliver
        self._instance = instance
        self._log = log
        self._sock: socket.socket | None = None
        self._rest: asyncio.TimerHandle | None = None    # after a turn that took long
        self._last: dict[ServerKey, deque[str]] = {}

    def open(self) -> None:
        """Begins to listen, in the place of an earlier supervisor. Raises OSError."""
        if self._sock is not None:
            return
        path = self._instance.runtime_dir / SOCKET_NAME
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
            path.unlink(missing_ok=True)
            sock.bind(self._instance.path_of(SOCKET_NAME))
            path.chmod(0o600)
        except BaseException:
            sock.close()
            raise
        self._sock = sock
        self._listen()

    def close(self, unlink: bool) -> None:
        """Stops listening; the path stays for a successor unless this is the end."""
        if self._sock is None:
            return
        self.read()
        self._ignore()
        self._sock.close()
        self._sock = None
        if unlink:
            with suppress(OSError):
                (self._instance.runtime_dir / SOCKET_NAME).unlink()

    def read(self) -> None:
        """Takes what has come."""
        for _ in range(MOST_PER_READ):
            if not self._receive():
                return

    def last(self, key: ServerKey) -> list[str]:
        """The last lines of a server."""
        return list(self._last.get(key, ()))

    def forget(self, key: ServerKey) -> None:
        """The server is gone."""
        self._last.pop(key, None)

    def _listen(self) -> None:
        if self._sock is not None:
            asyncio.get_running_loop().add_reader(self._sock, self._turn)

    def _ignore(self) -> None:
        if self._rest is not None:
            self._rest.cancel()
        if self._sock is not None:
            asyncio.get_running_loop().remove_reader(self._sock)

    def _turn(self) -> None:
        """Takes some of what has come. An application that prints without end leaves most of the
        loop to others: its pump drops what does not wait in the kernel."""
        began = time.monotonic()
        while self._receive():
            took = time.monotonic() - began
            if took >= TURN:
                self._ignore()
                self._rest = asyncio.get_running_loop().call_later(REST * took, self._listen)
                return

    def _receive(self) -> bool:
        """Takes one datagram; False when there is none."""
        if self._sock is None:
            return False
        try:
            data = self._sock.recv(LARGEST)
        except OSError:
            return False
        with suppress(ValueError, KeyError, TypeError):
            self._take(json.loads(data))
        return True

    def _take(self, said: dict[str, object]) -> None:
        label, lines, dropped = said["label"], said["lines"], said["dropped"]
        if not (isinstance(label, dict) and isinstance(lines, list) and isinstance(dropped, int)):
            return
        key = (str(label["pool"]), str(label["backend"]), int(label["generation"]))
        fields = {"pool": key[0], "backend": key[1], "pid": label["pid"]}
        kept = self._last.setdefault(key, deque(maxlen=KEPT_LINES))
        if dropped:
            self.dropped += dropped
            self._log.warning("app.output_dropped", message="it wrote faster than lbcore could log",
                              lines=dropped, **fields)
        for line in lines:
            text = str(line).rstrip("\r").translate(_CONTROLS)
            kept.append(text)
            self._log.info("app.output", message=text, **fields)


def telling(lines: Sequence[str], most: int = TELLING_LINES) -> list[str]:
    """The lines that tell most about why a server ended.

    That is the end of the first exception, with those that it led to directly: servers that give
    up often add one of their own. Without any exception, it is the last lines.
    """
    lines = [line for line in lines if line.strip()]
    start = next((at for at, line in enumerate(lines) if TRACEBACK in line), None)
    if start is None:
        return lines[-most:]
    end = start + 1
    while end < len(lines) and (
        lines[end].startswith((" ", *CHAINED)) or TRACEBACK in lines[end]
        or (end + 1 < len(lines) and lines[end + 1].startswith(CHAINED))
    ):
        end += 1
    return lines[max(start, end + 1 - most):end + 1]


def summary(lines: Sequence[str]) -> str:
    """The telling lines as they stand in an error for a person: indented, one to a line."""
    return "".join(f"\n    {line}" for line in telling(lines))


async def settle(output: Output, ended: asyncio.Event, patience: float) -> None:
    """Waits until a pump has delivered everything, at most so many seconds."""
    until = time.monotonic() + patience
    while not ended.is_set() and (left := until - time.monotonic()) > 0:
        with suppress(TimeoutError):
            await asyncio.wait_for(ended.wait(), min(ROOM_EVERY, left))
        output.read()            # room for what it has to say, though others print without end
    output.read()
