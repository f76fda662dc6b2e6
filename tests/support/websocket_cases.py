"""What a WebSocket client may say, by the rules of RFC 6455 and against them.

A case is the frames that a client sends to an echo server, and how it ends. What comes back is not
said here: whatever a server answers, it must answer the same through lbcore.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Literal

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
MASK = b"\x5a\x01\xfe\x80"
SIZES = (0, 1, 124, 125, 126, 127, 128, 4095, 4096, 16383, 16384, 65535, 65536, 65537, 1 << 20)
Ending = Literal["close", "read", "half-close"]


def frame(opcode: int, data: bytes = b"", *, fin: bool = True, rsv: int = 0,
          masked: bool = True, size: int | None = None) -> bytes:
    """One frame of a client. ``size``: what it says its length is, if that is wrong."""
    length = len(data) if size is None else size
    head = bytes([fin << 7 | rsv << 4 | opcode])
    bit = 128 if masked else 0
    if length < 126:
        head += bytes([bit | length])
    elif length < 65536:
        head += struct.pack("!BH", bit | 126, length)
    else:
        head += struct.pack("!BQ", bit | 127, length)
    if not masked:
        return head + data
    key = MASK if len(data) < 1 << 21 else bytes(4)      # masking much in Python takes long
    return head + key + (apply(data, key) if any(key) else data)


def apply(data: bytes, key: bytes) -> bytes:
    """Data, masked or unmasked."""
    long = (key * (len(data) // 4 + 1))[: len(data)]
    number = int.from_bytes(data, "big") ^ int.from_bytes(long, "big")
    return number.to_bytes(len(data), "big")


@dataclass(frozen=True)
class Case:
    """Frames to send, in pieces of ``cut`` bytes (0: as many as go), and how the client ends.

    "close": all at once; when every message is answered, it closes. "read": one by one, each
    message answered before the next is sent, until the server ends. "half-close": so, too, and
    then the client ends its side without another word.
    """

    name: str
    frames: tuple[bytes, ...]
    ending: Ending = "close"
    cut: int = 0
    deflate: bool = False


def bad(name: str, *frames: bytes) -> Case:
    """A violation: the server ends the connection."""
    return Case(name, (*frames, frame(TEXT, b"not to be answered")), "read")


def closing(name: str, payload: bytes) -> Case:
    return Case(f"close with {name}", (frame(TEXT, b"a"), frame(CLOSE, payload)), "read")


def text(size: int) -> bytes:
    return ("*" * size).encode()


def pieces(data: bytes, count: int, opcode: int = TEXT, between: bytes = b"") -> tuple[bytes, ...]:
    """A message in so many fragments, with something between them."""
    step = max(1, -(-len(data) // count))
    parts = [data[at : at + step] for at in range(0, len(data), step)] or [b""]
    made: list[bytes] = []
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        made.append(frame(CONTINUATION if number else opcode, part, fin=last))
        if between and not last:
            made.append(between)
    return tuple(made)


MESSAGES = [
    *(Case(f"text of {size}", (frame(TEXT, text(size)),)) for size in SIZES),
    *(Case(f"binary of {size}", (frame(BINARY, bytes(range(256)) * (size // 256 + 1)),))
      for size in SIZES),
    *(Case(f"text of {size}, cut every {cut}", (frame(TEXT, text(size)),), cut=cut)
      for size, cut in ((0, 1), (125, 1), (126, 1), (300, 7), (65536, 997), (1 << 20, 65521))),
    Case("16 MiB", (frame(BINARY, bytes(16 << 20)),)),
    Case("many small", tuple(frame(TEXT, b"%d" % number) for number in range(5000))),
    Case("lengths in longer forms than needed", (
        bytes([0x81, 128 | 126, 0, 5]) + bytes(4) + b"Hello",
        bytes([0x81, 128 | 127]) + struct.pack("!Q", 5) + bytes(4) + b"Hello")),
]
CONTROL = [
    *(Case(f"ping of {size}", (frame(PING, text(size)),)) for size in (0, 1, 124, 125)),
    Case("ping of bytes that are no text", (frame(PING, b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff"),)),
    bad("ping of 126", frame(PING, text(126))),
    bad("ping in fragments", frame(PING, b"a", fin=False), frame(CONTINUATION, b"b")),
    bad("pong in fragments", frame(PONG, b"a", fin=False), frame(CONTINUATION, b"b")),
    Case("pong unasked", (frame(PONG, b"unasked"), frame(PING, b"asked"))),
    Case("ten pings at once", tuple(frame(PING, b"%d" % number) for number in range(10))),
    Case("ten pings, byte by byte", tuple(frame(PING, b"%d" % n) for n in range(10)), cut=1),
]
FRAGMENTS = [
    *(Case(f"fragments {count} of {size}", pieces(text(size), count))
      for size, count in ((2, 2), (300, 10), (65536, 3), (1 << 18, 256))),
    Case("fragments that are empty", (frame(TEXT, b"", fin=False), frame(CONTINUATION, fin=False),
                                      frame(CONTINUATION))),
    Case("fragments with pings between", pieces(text(50), 5, between=frame(PING, b"between"))),
    Case("fragments with pings between, byte by byte",
         pieces(text(50), 5, between=frame(PING, b"between")), cut=1),
    Case("fragments with a close between",
         (frame(TEXT, b"a", fin=False), frame(CLOSE, b"\x03\xe8")), "read"),
    bad("continuation of nothing", frame(CONTINUATION, b"a")),
    bad("continuation of nothing, unfinished", frame(CONTINUATION, b"a", fin=False)),
    bad("continuation after the end", *pieces(b"ab", 2), frame(CONTINUATION, b"c")),
    bad("message within a message", frame(TEXT, b"a", fin=False), frame(TEXT, b"b")),
]
BITS = [
    *(bad(f"reserved bits {rsv}", frame(TEXT, b"a", rsv=rsv))
      for rsv in range(1, 8)),
    bad("reserved bits in a ping", frame(PING, b"a", rsv=4)),
    bad("reserved bits in a close", frame(CLOSE, b"\x03\xe8", rsv=4)),
    *(bad(f"opcode {opcode}", frame(opcode, b"b"))
      for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)),
    bad("frame without a mask", frame(TEXT, b"a", masked=False)),
    bad("ping without a mask", frame(PING, b"a", masked=False)),
    Case("length beyond 63 bits", (frame(BINARY, b"a", size=(1 << 63) + 1),), "half-close"),
]
INVALID = {
    "a lone continuation byte": b"\x80",
    "an unfinished character": b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce",
    "an overlong slash": b"\xc0\xaf",
    "an overlong NUL": b"\xe0\x80\x80",
    "a surrogate": b"\xed\xa0\x80",
    "a pair of surrogates": b"\xed\xa0\x80\xed\xb0\x80",
    "something beyond U+10FFFF": b"\xf4\x90\x80\x80",
    "five bytes": b"\xf8\x88\x80\x80\x80",
    "0xFE and 0xFF": b"\xfe\xff",
}
VALID = "κόσμε \u0080\u07ff\u0800\uffff\U00010000\U0010ffff\ufeff".encode()
UTF8 = [
    Case("UTF-8 of every length", (frame(TEXT, VALID),)),
    Case("UTF-8 in fragments of a byte", pieces(VALID, len(VALID))),
    Case("UTF-8 invalid in binary", (frame(BINARY, b"\xff\xfe"),)),
    *(bad(f"UTF-8 with {name}", frame(TEXT, b"a" + data)) for name, data in INVALID.items()),
    *(bad(f"UTF-8 with {name} in fragments", *pieces(b"abc" + data, 2))
      for name, data in INVALID.items()),
]
CODES = (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999)
BAD_CODES = (0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 5000, 65535)
CLOSES = [
    closing("nothing", b""),
    closing("one byte", b"\x03"),
    *(closing(f"code {code}", struct.pack("!H", code)) for code in (*CODES, *BAD_CODES)),
    closing("a reason", b"\x03\xe8bye"),
    closing("the longest reason", b"\x03\xe8" + text(123)),
    closing("too long a reason", b"\x03\xe8" + text(124)),
    closing("a reason that is no UTF-8", b"\x03\xe8\xff\xfe"),
    Case("close twice", (frame(CLOSE, b"\x03\xe8"), frame(CLOSE, b"\x03\xe8")), "read"),
    Case("close, then a message", (frame(CLOSE, b"\x03\xe8"), frame(TEXT, b"late")), "read"),
    Case("close, then a ping", (frame(CLOSE, b"\x03\xe8"), frame(PING, b"late")), "read"),
    Case("close behind a long message",
         (frame(BINARY, bytes(1 << 18)), frame(CLOSE, b"\x03\xe8")), "read"),
    Case("end without a close", (frame(TEXT, b"a"),), "half-close"),
    Case("end in a message", (frame(TEXT, b"a"), frame(TEXT, b"b", fin=False)), "half-close"),
    Case("end in a frame", (frame(TEXT, b"a"), frame(TEXT, b"abc", size=9)), "half-close"),
    Case("end in a head", (frame(TEXT, b"a"), b"\x81"), "half-close"),
    Case("end at once", (), "half-close"),
]


def deflated(*messages: bytes, context: bool = True) -> tuple[bytes, ...]:
    """Messages compressed as permessage-deflate has it (RFC 7692), with one context for all."""
    made, packer = [], zlib.compressobj(wbits=-15)
    for message in messages:
        data = packer.compress(message) + packer.flush(zlib.Z_SYNC_FLUSH)
        made.append(frame(TEXT, data[:-4], rsv=4))
        if not context:
            packer = zlib.compressobj(wbits=-15)
    return tuple(made)


DEFLATE = [
    *(Case(f"compressed text of {size}", deflated(text(size)), deflate=True) for size in SIZES),
    Case("compressed with a context that is kept", deflated(*[b"again and again"] * 50),
         deflate=True),
    Case("compressed with new contexts", deflated(*[b"again"] * 5, context=False), deflate=True),
    Case("compressed and not, in turn",
         (*deflated(b"compressed"), frame(TEXT, b"plain"), frame(PING, b"ping")), deflate=True),
    Case("compressed, byte by byte", deflated(b"slow " * 20), cut=1, deflate=True),
    Case("compressed garbage", (frame(TEXT, b"\xff\xff\xff\xff", rsv=4),), "read", deflate=True),
    Case("compressed 16 MiB of the same", deflated(bytes(16 << 20)), deflate=True),
    Case("compressed ping", (frame(PING, b"a", rsv=4),), "read", deflate=True),
    Case("compressed invalid UTF-8", deflated(b"\xff\xfe"), "read", deflate=True),
]
GROUPS = {"messages": MESSAGES, "control frames": CONTROL, "fragments": FRAGMENTS, "bits": BITS,
          "UTF-8": UTF8, "closing": CLOSES, "compression": DEFLATE}


@dataclass
class Frames:
    """The frames in what a server sends; data and control frames, whose order is the server's
    choice, by themselves."""

    data: bytearray
    at: int = 0
    answers: int = 0        # complete messages

    def __post_init__(self) -> None:
        self.messages: list[tuple[int, bytes]] = []
        self.control: list[tuple[int, bytes]] = []

    def look(self) -> None:
        """Takes up what has come."""
        while len(self.data) >= self.at + 2:
            first, size, body = self.data[self.at], self.data[self.at + 1], self.at + 2
            long = {126: 2, 127: 8}.get(size, 0)
            if long:
                size = int.from_bytes(self.data[body : body + long], "big")
                body += long
            if len(self.data) < body + size:
                return
            kind = self.control if first & 8 else self.messages
            kind.append((first, bytes(self.data[body : body + size])))
            self.answers += first & 0x88 == 0x80
            self.at = body + size


def asks(sent: bytes) -> bool:
    """Whether this is a whole frame that ends a message."""
    if len(sent) < 2 or sent[0] & 0x88 != 0x80:
        return False
    size, head = sent[1] & 127, 2
    if long := {126: 2, 127: 8}.get(size, 0):
        size, head = int.from_bytes(sent[2 : 2 + long], "big"), 2 + long
    return len(sent) >= head + size
