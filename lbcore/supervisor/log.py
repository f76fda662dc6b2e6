"""What lbcore says of itself: one line per event, as text or as JSON.

An event has a name (``worker.started``), a level, an optional sentence for people and fields.
A line is never worth waiting for: when standard error is a pipe that nobody reads, or the disk
is full, the line is dropped and counted.
"""

from __future__ import annotations

import json
import logging
import os
import select
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from lbcore.config.plan import LogPlan
from lbcore.supervisor.journal import PRIORITIES, Datagrams, is_journal, open_datagrams

Tap = Callable[[str, str, str, Mapping[str, Any]], None]    # level, event, message, fields
LEVELS = {"debug": 0, "info": 1, "warning": 2, "error": 3}
# A pipe that poll() calls writable takes this much without blocking (PIPE_BUF of pipe(7)).
MAX_LINE = 4096
# What applications and backends say must neither look like lines of ours nor move a cursor.
_VISIBLE = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}
_VISIBLE |= {ord("\n"): "\\n", ord("\t"): "\t"}


class Log:
    """Writes events to standard error or to a file that can be reopened after rotation."""

    def __init__(self, plan: LogPlan | None = None) -> None:
        self.dropped = 0
        self.taps: list[Tap] = []        # told of every event, whatever its level
        self._fd = -1
        self._datagrams: Datagrams | None = None     # instead of a descriptor
        self._prefixed = False           # the journal reads the level from in front of each line
        self._plan = plan or LogPlan()
        self._take(self._plan.path)

    def configure(self, plan: LogPlan) -> None:
        """Takes over level, format and path of a new plan.

        Raises OSError, and changes nothing, when the file of the new plan cannot be opened.
        """
        if plan.path != self._plan.path:
            self._take(plan.path)
        self._plan = plan

    def reopen(self) -> None:
        """Opens the file again under its name; keeps the old one if that fails."""
        try:
            self._take(self._plan.path)
        except OSError as error:
            self.error("log.reopen_failed", path=self._plan.path, error=error.strerror)
            return
        self.info("log.reopened", path=self._plan.path)

    def event(
        self, level: str, event: str, message: str = "", fields: Mapping[str, Any] | None = None
    ) -> None:
        """Writes one event if its level is at or above the configured one."""
        for tap in self.taps:
            tap(level, event, message, fields or {})
        if LEVELS.get(level, 1) < LEVELS[self._plan.level]:
            return
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        fields = {name: _clip(value) for name, value in (fields or {}).items()}
        message = str(_clip(message))
        if self._plan.format == "json":
            record = {"time": now, "level": level, "event": event}
            if message:
                record["message"] = message
            line = json.dumps(record | fields, default=str)
        else:
            # The journal and syslog have time and level of their own.
            bare = self._prefixed or self._datagrams is not None
            parts = [event if bare else f"{now} {level:<7} {event}"]
            if message:
                parts.append(message)
            parts += [f"{name}={_text(value)}" for name, value in fields.items()]
            line = " ".join(parts).translate(_VISIBLE)
        if self._datagrams is not None:
            self.dropped += not self._datagrams.event(level, event, message, fields, line)
            return
        if self._prefixed:
            line = f"<{PRIORITIES.get(level, 6)}>{line}"
        self._write(line.encode("utf-8", "replace") + b"\n")

    def debug(self, event: str, /, message: str = "", **fields: Any) -> None:
        """An event that only somebody looking for a fault wants to see."""
        self.event("debug", event, message, fields)

    def info(self, event: str, /, message: str = "", **fields: Any) -> None:
        """An event of ordinary operation."""
        self.event("info", event, message, fields)

    def warning(self, event: str, /, message: str = "", **fields: Any) -> None:
        """Something an operator should know; lbcore copes."""
        self.event("warning", event, message, fields)

    def error(self, event: str, /, message: str = "", **fields: Any) -> None:
        """Something an operator has to act upon."""
        self.event("error", event, message, fields)

    def _take(self, path: str) -> None:
        """Writes to this place from now on. Raises OSError, and changes nothing then."""
        datagrams = open_datagrams(path)
        fd = _open_file(path) if datagrams is None else -1
        if self._fd > 2:
            os.close(self._fd)
        if self._datagrams is not None:
            self._datagrams.close()
        self._fd, self._datagrams = fd, datagrams
        self._prefixed = path == "-" and is_journal(fd, os.environ)

    def _write(self, line: bytes) -> None:
        if len(line) > MAX_LINE:
            line = line[: MAX_LINE - 4] + b"...\n"
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        try:
            if not poll.poll(0):
                raise BlockingIOError
            os.write(self._fd, line)
        except OSError:
            self.dropped += 1


class LogHandler(logging.Handler):
    """Puts what libraries log the standard way among our events."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """One record of the standard library's logging."""
        level = "error" if record.levelno >= logging.ERROR else "warning"
        fields = {"logger": record.name}
        if record.exc_info and record.exc_info[1] is not None:
            fields["error"] = repr(record.exc_info[1])
        self._log.event(level, "library", record.getMessage(), fields)


def _open_file(path: str) -> int:
    if path == "-":
        return sys.__stderr__.fileno() if sys.__stderr__ else 2
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    return os.open(path, flags, 0o644)


def _clip(value: object) -> object:
    """A value short enough for several of its kind to fit into a line."""
    if isinstance(value, str) and len(value) > MAX_LINE // 4:
        return value[: MAX_LINE // 4] + "..."
    return value


def _text(value: object) -> str:
    """A field's value as it stands in a text line: quoted when it has spaces."""
    text = str(value)
    if not text or any(c.isspace() or c in '"=' for c in text):
        return json.dumps(text, ensure_ascii=False)
    return text
