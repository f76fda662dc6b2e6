"""Server-sent events as bytes come in: the part of the format that lbcore speaks.

Source: the HTML standard, "Server-sent events". Lines end with LF or CRLF; a lone CR, which the
standard allows too, lbcore never sends.
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_MESSAGE = 64 << 20       # bytes: the state of 16,384 backends is a quarter of that


@dataclass(frozen=True)
class Message:
    """One event of a stream."""

    event: str
    data: str
    id: str


class TooLong(ValueError):
    """A message without an end."""


class Parser:
    """Feed it bytes; it gives the messages that are complete by then."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []    # of a line whose end has not come
        self._event = ""
        self._data: list[str] = []
        self._size = 0                   # since the last message
        self._id = ""

    def feed(self, data: bytes) -> list[Message]:
        """The messages that end in ``data``. Raises TooLong."""
        self._parts.append(data)
        self._size += len(data)
        if self._size > MAX_MESSAGE:
            raise TooLong(f"a message of the stream is longer than {MAX_MESSAGE} bytes")
        if b"\n" not in data:
            return []
        *lines, rest = b"".join(self._parts).split(b"\n")
        self._parts = [rest]
        texts = (line.removesuffix(b"\r").decode("utf-8", "replace") for line in lines)
        return [message for text in texts if (message := self._line(text)) is not None]

    def _line(self, line: str) -> Message | None:
        if not line:
            return self._end()
        name, _, value = line.partition(":")     # a comment is a line without a name
        value = value.removeprefix(" ")
        if name == "event":
            self._event = value
        elif name == "data":
            self._data.append(value)
        elif name == "id" and "\0" not in value:
            self._id = value
        return None

    def _end(self) -> Message | None:
        event, data = self._event or "message", self._data
        self._event, self._data, self._size = "", [], 0
        return Message(event, "\n".join(data), self._id) if data else None
