"""Sending log events to the journal or to syslog: one datagram each, never waited for.

``[log] path = "journal:"`` speaks systemd's native protocol, so that every field can be searched
for (``journalctl LBCORE_POOL=web``). ``"syslog:"``, or ``"syslog:FACILITY"``, writes to /dev/log
in the form of RFC 3164, which is what local syslog daemons read there. Standard error that is the
journal's gets the level in front of each line, as sd-daemon(3) has it.
"""

from __future__ import annotations

import os
import re
import socket
import struct
import time
from collections.abc import Mapping
from typing import Any

JOURNAL = "journal:"
SYSLOG = "syslog:"
JOURNAL_SOCKET = "/run/systemd/journal/socket"
SYSLOG_SOCKET = "/dev/log"
PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3}
FACILITIES = {
    "kern": 0, "user": 1, "mail": 2, "daemon": 3, "auth": 4, "syslog": 5, "lpr": 6, "news": 7,
    "uucp": 8, "cron": 9, "authpriv": 10, "ftp": 11,
    **{f"local{number}": 16 + number for number in range(8)},
}
# English whatever the locale: RFC 3164, 4.1.2.
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_UNFIT = re.compile(r"[^A-Z0-9_]")


class Datagrams:
    """Where events go as datagrams: a journal or a syslog daemon that may come and go."""

    def __init__(self, address: str) -> None:
        """Raises OSError when nobody listens at the address."""
        self.address = address
        self._socket = socket.socket(
            socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            # Each is sent by name: whoever listens there after a restart gets the next one.
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
                probe.connect(address)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Gives the socket back."""
        self._socket.close()

    def event(
        self, level: str, event: str, message: str, fields: Mapping[str, Any], line: str
    ) -> bool:
        """Sends one event; ``line`` is all of it as text. False when it was not taken."""
        try:
            self._socket.sendto(self.datagram(level, event, message, fields, line), self.address)
        except OSError:
            return False
        return True

    def datagram(
        self, level: str, event: str, message: str, fields: Mapping[str, Any], line: str
    ) -> bytes:
        """An event as it is sent."""
        raise NotImplementedError


class Journal(Datagrams):
    """systemd's journal (https://systemd.io/JOURNAL_NATIVE_PROTOCOL)."""

    def datagram(
        self, level: str, event: str, message: str, fields: Mapping[str, Any], line: str
    ) -> bytes:
        """One field a line, or with its length where a value has lines of its own."""
        pairs: dict[str, Any] = {
            "MESSAGE": line, "PRIORITY": PRIORITIES.get(level, 6), "SYSLOG_IDENTIFIER": "lbcore",
            "LBCORE_EVENT": event,
        }
        if message:
            pairs["LBCORE_MESSAGE"] = message
        for name, value in fields.items():
            pairs[field_name(name)] = value
        return b"".join(_pair(name, value) for name, value in pairs.items())


class Syslog(Datagrams):
    """A syslog daemon of this machine (RFC 3164)."""

    def __init__(self, address: str, facility: str = "daemon") -> None:
        super().__init__(address)
        self.facility = FACILITIES[facility]

    def datagram(
        self, level: str, event: str, message: str, fields: Mapping[str, Any], line: str
    ) -> bytes:
        """A line with facility and severity, the local time, and who we are."""
        now = time.localtime()
        when = (f"{MONTHS[now.tm_mon - 1]} {now.tm_mday:2} "
                f"{now.tm_hour:02}:{now.tm_min:02}:{now.tm_sec:02}")
        priority = 8 * self.facility + PRIORITIES.get(level, 6)
        flat = line.replace("\n", "\\n")
        return f"<{priority}>{when} lbcore[{os.getpid()}]: {flat}".encode("utf-8", "replace")


def open_datagrams(path: str) -> Datagrams | None:
    """What a path of ``[log]`` names, or None when it is a file's. Raises OSError."""
    if path == JOURNAL:
        return Journal(JOURNAL_SOCKET)
    if path.startswith(SYSLOG):
        return Syslog(SYSLOG_SOCKET, path.removeprefix(SYSLOG) or "daemon")
    return None


def field_name(name: str) -> str:
    """A field's name as the journal takes it, such as LBCORE_POOL for ``pool``."""
    return "LBCORE_" + _UNFIT.sub("_", name.upper())[:56]


def is_journal(fd: int, environment: Mapping[str, str]) -> bool:
    """Whether a descriptor is the stream that the service manager connected to the journal."""
    device, _, inode = environment.get("JOURNAL_STREAM", "").partition(":")
    try:
        there = os.fstat(fd)
        return (there.st_dev, there.st_ino) == (int(device), int(inode))
    except (OSError, ValueError):
        return False


def _pair(name: str, value: Any) -> bytes:
    data = str(value).encode("utf-8", "replace")
    if b"\n" in data:
        return name.encode() + b"\n" + struct.pack("<Q", len(data)) + data + b"\n"
    return name.encode() + b"=" + data + b"\n"
