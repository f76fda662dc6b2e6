"""HTTP/1.1 from the wire as lbcore reads it, and the claims that hold for any bytes at all.

The claims are what property tests, the corpus and the fuzz target share: each takes bytes, and
raises AssertionError where the parser contradicts itself.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from lbcore._http1 import (
    CHUNKS_BAD,
    CHUNKS_LAST,
    Chunked,
    FieldFlag,
    Framing,
    Head,
    HeadFlag,
    Method,
    parse_request,
    parse_response,
    parse_trailers,
)

EAGER = 4096            # heads from this size on are not parsed anew for every byte that arrives

Parse = Callable[[bytes, int], Head | int]


@dataclass(frozen=True)
class Meant:
    """A request as it is understood."""

    method: bytes
    target: bytes
    host: bytes
    body: bytes = b""
    trailers: tuple[tuple[bytes, bytes], ...] = ()


@dataclass
class Reader:
    """Reads requests from one connection, as its bytes arrive."""

    max_size: int = 65536
    meant: list[Meant] = field(default_factory=list)
    heads: list[Head] = field(default_factory=list)     # of those
    refused: int | None = None      # the status; nothing is read after it
    closed: bool = False            # after a request that is the last; what follows is not read
    waiting: str = "head"           # or "length", "chunks", "trailers"

    def __post_init__(self) -> None:
        self._arrived = bytearray()
        self._seen = 0
        self._head: Head | None = None
        self._body = bytearray()
        self._chunked = Chunked()

    def feed(self, data: bytes) -> None:
        self._arrived += data
        while self.refused is None and not self.closed and getattr(self, f"_read_{self.waiting}")():
            pass

    @property
    def left(self) -> bytes:
        """What has arrived and could not be understood so far."""
        return bytes(self._arrived)

    def _read_head(self) -> bool:
        if not self._arrived:
            return False
        head = parse_request(self._arrived, seen=self._seen, max_size=self.max_size)
        if isinstance(head, int):
            self._seen = len(self._arrived)
            return self._refuse(head)
        del self._arrived[:head.size]
        self._seen = 0
        self._head = head
        self._body = bytearray()
        self._chunked = Chunked()
        if head.framing == Framing.BODY_CHUNKED:
            self.waiting = "chunks"
        elif head.framing == Framing.BODY_LENGTH:
            self.waiting = "length"
        else:
            self._finish(())
        return True

    def _read_length(self) -> bool:
        assert self._head is not None
        take = min(self._head.length - len(self._body), len(self._arrived))
        self._body += self._arrived[:take]
        del self._arrived[:take]
        if len(self._body) < self._head.length:
            return False
        self._finish(())
        return True

    def _read_chunks(self) -> bool:
        if not self._arrived:
            return False
        got, taken, body = self._chunked.feed(self._arrived)
        self._body += body
        del self._arrived[:taken]
        if got == CHUNKS_BAD:
            return self._refuse(-400)
        if got == CHUNKS_LAST:
            self.waiting = "trailers"
        return got == CHUNKS_LAST

    def _read_trailers(self) -> bool:
        trailers = parse_trailers(self._arrived, max_size=self.max_size)
        if isinstance(trailers, int):
            return self._refuse(trailers)
        del self._arrived[:trailers.size]
        self._finish(tuple((line.name, line.value) for line in trailers.fields
                           if not line.flags & FieldFlag.FIELD_HOP))
        return True

    def _finish(self, trailers: tuple[tuple[bytes, bytes], ...]) -> None:
        assert self._head is not None
        self.meant.append(Meant(self._head.method_text, self._head.target, self._head.host,
                                bytes(self._body), trailers))
        self.heads.append(self._head)
        self.waiting = "head"
        self.closed = not self._head.flags & HeadFlag.HEAD_KEEP_ALIVE

    def _refuse(self, result: int) -> bool:
        if result < 0:
            self.refused = -result
        return False


def read(data: bytes, cuts: Iterable[int] = ()) -> Reader:
    """What a connection's bytes mean when they arrive in the parts between ``cuts``."""
    reader = Reader()
    start = 0
    for cut in [*sorted(cuts), len(data)]:
        reader.feed(data[start:cut])
        start = cut
    return reader


# ---- claims ------------------------------------------------------------------------------------


def requests(data: bytes, seen: int = 0) -> Head | int:
    return parse_request(data, seen=seen)


def responses(data: bytes, seen: int = 0) -> Head | int:
    return parse_response(data, Method.METHOD_GET, seen=seen)


def trailers(data: bytes, seen: int = 0) -> Head | int:
    return parse_trailers(data)


def parts_agree_with_the_whole(parse: Parse, data: bytes, cuts: Iterable[int]) -> None:
    """A beginning is incomplete, or gives what the whole gives; and more never takes it back."""
    whole = parse(data, 0)
    needed = whole.size if isinstance(whole, Head) else None
    decided = False
    for cut in sorted({*cuts, len(data)}):
        part = parse(data[:cut], 0)
        if needed is not None:
            assert part == (whole if cut >= needed else 0), (cut, part, whole)
            continue
        assert part in {0, whole}, (cut, part, whole)
        assert part == whole or not decided, (cut, part, whole)
        decided = decided or part == whole
        if part == 0:
            later = parse(data, cut)
            # A long head that is garbage may be found out later; a head never is found later.
            assert later == whole or (later == 0 and cut >= EAGER), (cut, later, whole)
    if needed is not None:
        for cut in cuts:
            if cut < needed:
                assert parse(data, cut) == whole, cut


def lines_of(head: Head) -> bytes:
    return b"".join(line.name + b": " + line.value + b"\r\n" for line in head.fields) + b"\r\n"


def request_text(head: Head) -> bytes:
    """The head written canonically."""
    return b"%s %s HTTP/1.%d\r\n%s" % (head.method_text, head.target, head.minor, lines_of(head))


def response_text(head: Head) -> bytes:
    return b"HTTP/1.%d %d %s\r\n%s" % (head.minor, head.status, head.reason, lines_of(head))


def meaning_of(head: Head) -> Head:
    """Without what depends on how it was written."""
    return head._replace(size=0, fields=tuple(line._replace(at=0) for line in head.fields))


def rebuilt_means_the_same(parse: Parse, text: Callable[[Head], bytes], data: bytes) -> None:
    head = parse(data, 0)
    if isinstance(head, int):
        return
    written = text(head)
    again = parse(written, 0)
    assert isinstance(again, Head), (again, written)
    assert meaning_of(again) == meaning_of(head)
    assert again.size == len(written)
    assert text(again) == written


def bodies_are_framed_once(head: Head) -> None:
    """By one length, read as Python reads it, or by one coding, or not at all."""
    values = {name: [line.value for line in head.fields if line.name.lower() == name]
              for name in (b"content-length", b"transfer-encoding")}
    lengths, codings = values[b"content-length"], values[b"transfer-encoding"]
    assert len(lengths) + len(codings) <= 1
    assert bool(head.flags & HeadFlag.HEAD_LENGTH_GIVEN) == bool(lengths)
    if lengths:
        assert int(lengths[0]) == head.length <= 2**62
    if head.framing == Framing.BODY_LENGTH:
        assert lengths
    if head.framing == Framing.BODY_CHUNKED:
        assert codings[0].lower() == b"chunked"
        assert head.minor == 1


def heads_are_clean(head: Head) -> None:
    """Nothing in the parts of a head could end a line, or hide from whoever reads on."""
    for line in head.fields:
        assert line.name and not set(line.name) & set(b" \t:\r\n\0"), line
        assert not set(line.value) & {*range(9), *range(10, 32), 127}, line
        assert line.value == line.value.strip(b" \t"), line
    assert not set(head.method_text) & {*range(33), *range(127, 256), ord(":")}
    assert not set(head.target) & {*range(33), 127, ord("#")}
    assert not set(head.host) & {*range(33), 127, *b"/\\@?#,%"}


SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:[ \t]*;[^\x00-\x08\x0a-\x1f\x7f]*)?\r\n")


def reference_body(data: bytes) -> tuple[int, bytes] | None:
    """Chunks read with an expression: where the last one ends, and the body. None: not all there,
    or bad."""
    body, at = b"", 0
    while True:
        line = SIZE_LINE.match(data, at)
        if line is None or len(line[0]) > 4096:
            return None
        at, size = line.end(), int(line[1], 16)
        if size == 0:
            return at, body
        if size > 2**62 or data[at + size:at + size + 2] != b"\r\n":
            return None
        body += data[at:at + size]
        at += size + 2


def chunks_agree(data: bytes, cuts: Sequence[int]) -> None:
    """However a chunked body is cut, the same body comes out, and the same end is found."""

    def decode(parts: Sequence[int]) -> tuple[int, int, bytes]:
        chunked = Chunked()
        body, total, start, got = b"", 0, 0, 0
        for cut in [*parts, len(data)]:
            got, taken, made = chunked.feed(data[start:cut])
            assert got != 0 or taken == cut - start
            body += made
            total += taken
            start = cut
            if got:
                break
        return got, total, body

    whole = decode(())
    assert decode(sorted(cuts)) == whole
    assert reference_body(data) == (whole[1:] if whole[0] == CHUNKS_LAST else None)
    if whole[0] == CHUNKS_LAST:
        written = b"%x\r\n%s\r\n0\r\n" % (len(whole[2]), whole[2]) if whole[2] else b"0\r\n"
        assert Chunked().feed(written) == (CHUNKS_LAST, len(written), whole[2])


def all_claims(data: bytes, cuts: Sequence[int]) -> None:
    """Everything that must hold for these bytes, whatever they are."""
    cuts = sorted({cut % (len(data) + 1) for cut in cuts})
    for parse, text in ((requests, request_text), (responses, response_text), (trailers, lines_of)):
        parts_agree_with_the_whole(parse, data, cuts)
        rebuilt_means_the_same(parse, text, data)
        head = parse(data, 0)
        if isinstance(head, Head):
            heads_are_clean(head)
            if parse is not trailers:
                bodies_are_framed_once(head)
    chunks_agree(data, cuts)
    whole, parts = read(data), read(data, cuts)
    assert (parts.meant, parts.refused) == (whole.meant, whole.refused)


def cuts_of(data: bytes) -> list[int]:
    """Some cuts, always the same ones for the same bytes."""
    mixed = zlib.crc32(data)
    return [mixed >> shift & 0xFFF for shift in range(0, 24, 4)]
