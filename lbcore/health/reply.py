"""The answer to an HTTP check, judged while it arrives.

Bytes go in as they come, in pieces of any size; nothing but the unfinished head and the last few
bytes of the body is kept. This is a judge, not a client: it reads as much as the verdict needs
(the status line, or the body up to a limit) and does not mind what follows.

Framing is RFC 9112: chunked before Content-Length before "until closed".
"""

from __future__ import annotations

import re
from typing import Final

HEAD_LIMIT: Final = 16 * 1024
BODY_LIMIT: Final = 64 * 1024
CHUNK_LINE_LIMIT: Final = 1024

STATUS_LINE: Final = re.compile(rb"HTTP/1\.[01] ([1-9][0-9]{2})(?:[ \t].*)?\Z")
HEAD_END: Final = re.compile(rb"\r?\n\r?\n")
CHUNKED: Final = re.compile(rb"^transfer-encoding:[^\n]*\bchunked[ \t]*\r?$", re.I | re.M)
LENGTH: Final = re.compile(rb"^content-length:[ \t]*([0-9]{1,18})[ \t]*\r?$", re.I | re.M)
CHUNK_SIZE: Final = re.compile(rb"([0-9a-fA-F]{1,15})[ \t]*(?:;.*)?\Z")


def describe_ranges(ranges: tuple[tuple[int, int], ...]) -> str:
    """``((200, 299), (404, 404))`` as "200-299, 404"."""
    return ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in ranges)


class Reply:
    """Judges one answer. ``verdict`` is None until (passed, text) is known.

    ``over`` is True when nothing that can still come is worth reading.
    """

    __slots__ = (
        "_body_done", "_chunk_line", "_chunked", "_head", "_needle", "_read", "_remaining",
        "_seen", "_status", "_tail", "_wanted", "over", "verdict",
    )

    def __init__(self, wanted: tuple[tuple[int, int], ...], needle: bytes = b"") -> None:
        self._wanted = wanted
        self._needle = needle
        self._head: bytearray | None = bytearray()
        self._status = 0
        self._chunked = False
        self._chunk_line = b""
        self._remaining: int | None = None      # of the body, or of the current chunk
        self._tail = b""
        self._seen = 0                          # of the body, framing taken off
        self._read = 0                          # of everything
        self._body_done = False
        self.verdict: tuple[bool, str] | None = None
        self.over = False

    @property
    def started(self) -> bool:
        """Whether anything has come."""
        return self._read > 0

    def feed(self, data: bytes) -> None:
        """The next bytes. May set ``verdict`` and ``over``."""
        self._read += len(data)
        if self.over:
            return
        if self._head is not None:
            self._feed_head(data)
        else:
            self._feed_body(data)
        if self._read > HEAD_LIMIT + BODY_LIMIT:
            if self.verdict is None:
                self._lacking(f"the first {BODY_LIMIT // 1024} KiB")
            self.over = True

    def closed(self) -> None:
        """The backend has closed its side. Sets ``verdict`` if it was not known."""
        self.over = True
        if self.verdict is not None:
            return
        if self._head is None:
            self._lacking("the body")
        elif self._status:
            self.verdict = (False, f"closed in the head of an answer with status {self._status}")
        elif self._read:
            self.verdict = (False, "closed before the status line was complete")
        else:
            self.verdict = (False, "closed without an answer")

    # -- head

    def _feed_head(self, data: bytes) -> None:
        head = self._head
        assert head is not None
        scan_from = max(0, len(head) - 3)
        head += data
        while True:
            if not self._status and not self._judge_status(head):
                return
            end = HEAD_END.search(head, scan_from)
            if end is None:
                if len(head) > HEAD_LIMIT:
                    self._refuse(f"head longer than {HEAD_LIMIT // 1024} KiB")
                return
            if self._status >= 200:
                break
            # An interim answer (RFC 9110 15.2): the real one follows.
            del head[:end.end()]
            self._status = 0
            scan_from = 0
        rest = bytes(head[end.end():])
        fields = bytes(head[:end.start()])
        self._head = None
        self._frame(fields)
        if self._body_done:
            self._finish_body()
        elif rest:
            self._feed_body(rest)

    def _judge_status(self, head: bytearray) -> bool:
        """Reads the status line; False while it is incomplete or once the answer is refused."""
        if not b"HTTP/1.".startswith(head[:7]):
            self._refuse(f"not an HTTP/1 answer, begins with {bytes(head[:16])!r}")
            return False
        end = head.find(b"\n", 0, HEAD_LIMIT)
        if end < 0:
            if len(head) > HEAD_LIMIT:
                self._refuse(f"status line longer than {HEAD_LIMIT // 1024} KiB")
            return False
        match = STATUS_LINE.match(bytes(head[:end]).removesuffix(b"\r"))
        if match is None:
            self._refuse(f"malformed status line {bytes(head[:min(end, 48)])!r}")
            return False
        self._status = int(match[1])
        if self._status < 200:
            return True
        if not any(low <= self._status <= high for low, high in self._wanted):
            self.verdict = (
                False, f"status {self._status}, wanted {describe_ranges(self._wanted)}")
        elif not self._needle:
            self.verdict = (True, f"status {self._status}")
        return True

    def _frame(self, fields: bytes) -> None:
        if self._status in (204, 304):
            self._body_done = True
        elif CHUNKED.search(fields):
            self._chunked = True
            self._remaining = 0
        elif match := LENGTH.search(fields):
            self._remaining = int(match[1])
            self._body_done = self._remaining == 0

    # -- body

    def _feed_body(self, data: bytes) -> None:
        if self.verdict is not None:
            return      # only waiting for the end
        if self._chunked:
            self._feed_chunks(data)
        else:
            if self._remaining is not None:
                data = data[:self._remaining]
                self._remaining -= len(data)
                self._body_done = self._remaining == 0
            self._look(data)
        if self._body_done and self.verdict is None:
            self._finish_body()

    def _feed_chunks(self, data: bytes) -> None:
        at = 0
        while at < len(data) and self.verdict is None and not self._body_done:
            if self._remaining:
                piece = data[at:at + self._remaining]
                self._remaining -= len(piece)
                at += len(piece)
                self._look(piece)
                continue
            end = data.find(b"\n", at)
            line = self._chunk_line + (data[at:] if end < 0 else data[at:end])
            if len(line) > CHUNK_LINE_LIMIT:
                self._refuse("malformed chunked body")
                return
            if end < 0:
                self._chunk_line = line
                return
            at = end + 1
            self._chunk_line = b""
            line = line.removesuffix(b"\r")
            if not line:        # the line end after a chunk's data
                continue
            match = CHUNK_SIZE.match(line)
            if match is None:
                self._refuse("malformed chunked body")
                return
            self._remaining = int(match[1], 16)
            self._body_done = self._remaining == 0

    def _look(self, piece: bytes) -> None:
        """Looks for the needle in the next bytes of the body and across the seam before them."""
        piece = piece[:BODY_LIMIT - self._seen]
        self._seen += len(piece)
        window = self._tail + piece
        if self._needle in window:
            self.verdict = (True, f"status {self._status}, body matches")
        elif self._seen >= BODY_LIMIT:
            self._lacking(f"the first {BODY_LIMIT // 1024} KiB")
        else:
            keep = len(self._needle) - 1
            self._tail = window[-keep:] if keep else b""

    def _finish_body(self) -> None:
        if self.verdict is None:
            self._lacking("the body")

    def _lacking(self, what: str) -> None:
        wanted = self._needle.decode("utf-8", "replace")
        self.verdict = (False, f"status {self._status}, but {what} has no {wanted!r}")

    def _refuse(self, text: str) -> None:
        if self.verdict is None:
            self.verdict = (False, text)
        self.over = True
