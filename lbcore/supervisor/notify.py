"""Telling a service manager how we are: sd_notify(3), without its library.

A datagram of ``NAME=VALUE`` lines to the socket that ``NOTIFY_SOCKET`` names. Without that
variable everything here does nothing. A message is never worth waiting for: it is dropped when
the other side does not take it at once, and the next one says what matters again.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

# What a service manager says to us alone: servers that we start must not take it for theirs.
OURS = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS",
        "LISTEN_FDNAMES", "FDSTORE")
EXTENSION = 10.0             # seconds asked for at once while we drain
RENEW = 3.0                  # seconds between two requests: several may be lost
MAX_STATUS = 300             # characters that `systemctl status` shows on its line


def for_children(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment without what the service manager says to us alone."""
    return {name: value for name, value in environment.items() if name not in OURS}


class Notifier:
    """The service manager of this process, if it has one that listens."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        found = os.environ if environment is None else environment
        self._address = _address(found.get("NOTIFY_SOCKET", ""))
        self._socket: socket.socket | None = None
        self._watchdog = _watchdog(found)
        self._next_beat = 0.0
        self._next_request = 0.0
        self._status = ""
        self._ending = False

    @property
    def watchdog(self) -> float:
        """Seconds within which the service manager wants a sign of life; 0: it wants none."""
        return self._watchdog

    def ready(self, status: str) -> bool:
        """We serve, or serve again after a reload. The pid tells who speaks after a takeover."""
        self._status = status[:MAX_STATUS]
        if self._ending:             # a reload was under way when we were told to end
            return False
        return self._send(f"READY=1\nMAINPID={os.getpid()}", f"STATUS={self._status}")

    @contextmanager
    def reload(self) -> Iterator[None]:
        """Says that a reload is under way within the block, and that we serve behind it.

        Also when it fails: what was in force before still is.
        """
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        before = self._status
        self._send("RELOADING=1", f"MONOTONIC_USEC={now}", "STATUS=reloading")
        try:
            yield
        finally:
            self.ready(before)

    def waiting(self, text: str) -> bool:
        """Asks for more time than the unit gives for a start, and says for what."""
        return self._extend(text)

    def status(self, text: str) -> bool:
        """A line for people, in `systemctl status`; said again only when it changes."""
        text = " ".join(text.split())[:MAX_STATUS]
        if text == self._status:
            return False
        self._status = text
        return self._send(f"STATUS={text}")

    def stopping(self) -> bool:
        """We end. From now on :meth:`draining` asks for time."""
        self._ending, self._next_request = True, 0.0
        return self._send("STOPPING=1", "STATUS=draining")

    def draining(self, connections: int) -> bool:
        """Asks for more time than the unit gives, as long as connections go on."""
        return self._extend(f"draining: {connections} connection(s) go on")

    def beat(self) -> bool:
        """A sign of life, at least twice in the time within which one is wanted.

        To be called from what must be alive, once a second or more often.
        """
        now = time.monotonic()
        if not self._watchdog or now < self._next_beat:
            return False
        # The next call may come a second late, so what is due until then is sent now.
        self._next_beat = now + max(0.0, self._watchdog / 2 - 1)
        return self._send("WATCHDOG=1")

    def _extend(self, text: str) -> bool:
        now = time.monotonic()
        if now < self._next_request:
            return False
        self._next_request = now + RENEW
        return self._send(f"EXTEND_TIMEOUT_USEC={round(EXTENSION * 1e6)}", f"STATUS={text}")

    def _send(self, *lines: str) -> bool:
        if self._address is None:
            return False
        try:
            if self._socket is None:
                self._socket = socket.socket(
                    socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
            self._socket.sendto("\n".join(lines).encode(), self._address)
        except OSError:
            return False
        return True


def _address(said: str) -> str | None:
    """The address of a notification socket: a path, or an abstract name behind "@"."""
    if said.startswith("@") and len(said) > 1:
        return "\0" + said[1:]
    return said if said.startswith("/") else None


def _watchdog(environment: Mapping[str, str]) -> float:
    pid = environment.get("WATCHDOG_PID", "")
    try:
        microseconds = int(environment.get("WATCHDOG_USEC", ""))
    except ValueError:
        return 0.0
    return microseconds / 1e6 if microseconds > 0 and pid in ("", str(os.getpid())) else 0.0
