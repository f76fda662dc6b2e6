"""The PROXY protocol against an independent reading of its specification.

The reference reads whole headers only, with `re`, `ipaddress` and `struct`. What it accepts the
parser must accept with the same result; of what it does not, the parser may ask for more only
while some continuation would be accepted.
"""

from __future__ import annotations

import ipaddress
import re
import struct

from hypothesis import assume, example, given
from hypothesis import strategies as st

from lbcore._proxy import MALFORMED, MAX, MORE, OUT_MAX, Endpoint, build, contains, parse, text

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
V1_MAX = 107
BEFORE: tuple[Endpoint, Endpoint] = ((b"\x09" * 4, 9), (b"\x08" * 16, 8))
Result = tuple[int, Endpoint, Endpoint]

LINE = re.compile(
    rb"PROXY (?:(UNKNOWN)(?: [^\r\n]*)?"
    rb"|TCP([46]) (\S+) (\S+) (0|[1-9]\d{0,4}) (0|[1-9]\d{0,4}))\r\n"
)


def address_of(family: int, word: bytes) -> bytes | None:
    if not re.fullmatch(rb"[0-9A-Fa-f:.]+", word):      # no scopes
        return None
    try:
        address = ipaddress.ip_address(word.decode())
    except ValueError:
        return None
    return address.packed if address.version == family else None


def reference_v1(data: bytes) -> Result | None:
    found = LINE.match(data)
    if not found or found.end() > V1_MAX:
        return None
    if found[1]:
        return found.end(), *BEFORE
    ends = [address_of(int(found[2]), word) for word in found.group(3, 4)]
    ports = [int(word) for word in found.group(5, 6)]
    if ends[0] is None or ends[1] is None or max(ports) > 65535:
        return None
    return found.end(), (ends[0], ports[0]), (ends[1], ports[1])


def reference_v2(data: bytes) -> Result | None:
    if len(data) < 16 or not data.startswith(SIGNATURE):
        return None
    command, kind, length = struct.unpack_from("!BBH", data, 12)
    total = 16 + length
    if command not in (0x20, 0x21) or total > MAX or total > len(data):
        return None
    if command == 0x20:
        return total, *BEFORE
    family, protocol = divmod(kind, 16)
    if family > 3 or protocol > 2:
        return None
    if not family or not protocol:
        return total, *BEFORE
    shape = {1: "!4s4sHH", 2: "!16s16sHH", 3: "!108s108s"}[family]
    if length < struct.calcsize(shape):
        return None
    rest = data[16 + struct.calcsize(shape) : total]
    while rest:
        if len(rest) < 3 or len(rest) < 3 + struct.unpack_from("!H", rest, 1)[0]:
            return None
        rest = rest[3 + struct.unpack_from("!H", rest, 1)[0] :]
    if family == 3 or protocol != 1:
        return total, *BEFORE
    source, destination, *ports = struct.unpack_from(shape, data, 16)
    return total, (source, ports[0]), (destination, ports[1])


def reference(data: bytes) -> Result | None:
    return reference_v1(data) or reference_v2(data)


# ---- a witness that a beginning can be completed -------------------------------------------------


def finish_line(part: bytes) -> bytes | None:
    """Some line that begins with ``part``, however long, or None."""
    for head in (b"PROXY UNKNOWN\r\n", b"PROXY TCP4 ", b"PROXY TCP6 "):
        if head.startswith(part):
            part = head
    if part.startswith(b"PROXY UNKNOWN"):
        tails = (b"", b"\n", b"\r\n")
        return next((part + t for t in tails if re.fullmatch(LINE, part + t)), None)
    if not part.startswith((b"PROXY TCP4 ", b"PROXY TCP6 ")):
        return None
    family = part[9] - 48
    words = part[11:].split(b" ")
    last = words.pop()
    if last.endswith(b"\r"):
        last += b"\n"
    if len(words) < 2:
        octets = [b".0" * n for n in range(4)]
        groups = [b":0" * n for n in range(8)]
        more = octets + [b"0" + t for t in octets]
        if family == 6:
            more += [*groups, *[b"0" + t for t in groups], b":", b"::", b"0::"]
        tail = next((t for t in more if address_of(family, last + t)), None)
        if tail is None:
            return None
        last += tail
    elif not last:
        last = b"0"
    words.append(last)
    while len(words) < 4:
        words.append((b"::" if family == 6 else b"0.0.0.0") if len(words) < 2 else b"0")
    line = part[:11] + b" ".join(words)
    return line if line.endswith(b"\r\n") else line + b"\r\n"


def is_line(line: bytes | None) -> bool:
    """Like reference_v1, but of any length."""
    found = LINE.fullmatch(line or b"")
    if not found:
        return False
    return bool(found[1]) or (
        all(address_of(int(found[2]), word) for word in found.group(3, 4))
        and max(map(int, found.group(5, 6))) <= 65535
    )


def finish_binary(part: bytes) -> bytes | None:
    """Some version 2 header that begins with ``part``, or None."""
    if len(part) < 16:
        base = SIGNATURE + b"\x21\x11\x00\x0c"
        if not base.startswith(part[:12]):
            return None
        starts = [part + base[len(part) :]]
        if len(part) >= 14:
            high = part[14:15] or b"\0"
            starts = [part[:14] + high + bytes([low]) for low in range(256)]
    else:
        starts = [part]
    return next((whole for start in starts if (whole := fill(start)) is not None), None)


def fill(part: bytes) -> bytes | None:
    """The same of 16 bytes or more: whatever is missing is zeros and one TLV, or two."""
    total = 16 + int.from_bytes(part[14:16], "big")
    if total > MAX:
        return None
    kind = part[13]
    at = 16 + {1: 12, 2: 36, 3: 216}.get(kind >> 4, 0)
    if part[12] == 0x21 and kind >> 4 and kind & 15:
        while at + 3 <= len(part):
            at += 3 + int.from_bytes(part[at + 1 : at + 3], "big")
        part = part.ljust(at, b"\0")            # the addresses, or the value that is under way
        left = total - at - 3                   # what a TLV that begins here may hold
        if left >= 0:
            begun = len(part) - at
            lengths = [left]
            if begun == 2:                      # the high byte of its length stands
                lengths = [part[-1] << 8 | low for low in range(256)]
            for length in lengths:
                if length == left or length <= left - 3:
                    part += (b"\4" + struct.pack("!H", length))[begun:] + bytes(length)
                    if length < left:
                        part += b"\4" + struct.pack("!H", left - length - 3)
                    break
    whole = part.ljust(total, b"\0")
    found = reference_v2(whole)
    return whole if found and found[0] == len(whole) else None


# ---- what headers and near-headers look like -----------------------------------------------------

ports = st.one_of(st.sampled_from([0, 1, 9, 10, 9999, 10000, 65535]), st.integers(0, 65535))
v4 = st.binary(min_size=4, max_size=4)
v6 = st.one_of(
    st.binary(min_size=16, max_size=16),
    st.lists(st.sampled_from([b"\0\0", b"\0\1", b"\xff\xff", b"\1\2"]), min_size=8, max_size=8)
    .map(b"".join),
)


@st.composite
def spellings(draw: st.DrawFn, packed: bytes) -> str:
    """One of the ways to write an address."""
    address = ipaddress.ip_address(packed)
    if address.version == 4:
        return str(address)
    dotted = draw(st.booleans())
    shapes = st.sampled_from(["{:x}", "{:X}", "{:04x}", "{:02x}"])
    words = [draw(shapes).format(group) for group in struct.unpack("!8H", packed)]
    if dotted:
        words[6:] = [str(ipaddress.IPv4Address(packed[12:]))]
    zeros = [i for i, word in enumerate(words) if not word.strip("0")]
    gapped = draw(st.booleans())
    if not zeros or not gapped:
        return ":".join(words)
    first = end = draw(st.sampled_from(zeros))
    while end in zeros:
        end += 1
    end = draw(st.integers(first + 1, end))
    return ":".join(words[:first]) + "::" + ":".join(words[end:])


@st.composite
def lines(draw: st.DrawFn) -> bytes:
    if draw(st.integers(0, 5)) == 0:
        junk = draw(st.one_of(st.just(b""), st.binary(max_size=92).map(lambda b: b" " + b)))
        assume(not set(junk) & set(b"\r\n") and len(junk) <= 92)
        return b"PROXY UNKNOWN" + junk + b"\r\n"
    six = draw(st.booleans())
    ends = [draw(spellings(draw(v6 if six else v4))) for _ in range(2)]
    line = f"PROXY TCP{6 if six else 4} {ends[0]} {ends[1]} {draw(ports)} {draw(ports)}\r\n"
    assume(len(line) <= V1_MAX)
    return line.encode()


@st.composite
def binaries(draw: st.DrawFn) -> bytes:
    command = draw(st.sampled_from([0x20, 0x21, 0x21, 0x21]))
    kind = draw(st.sampled_from([0x11, 0x21, 0x12, 0x22, 0x31, 0x32, 0x00, 0x10, 0x01]))
    if command == 0x21 and kind >> 4 and kind & 15:
        width = {1: 12, 2: 36, 3: 216}[kind >> 4]
        body = draw(st.binary(min_size=width, max_size=width))
        values = st.one_of(st.binary(max_size=8), st.integers(0, 600).map(bytes))
        for value in draw(st.lists(values, max_size=3)):
            body += bytes([draw(st.integers(0, 255))]) + struct.pack("!H", len(value)) + value
    else:
        kind = draw(st.integers(0, 255)) if command == 0x20 else kind
        body = draw(st.binary(max_size=40))
    return SIGNATURE + struct.pack("!BBH", command, kind, len(body)) + body


headers = st.one_of(lines(), binaries())


@st.composite
def near_headers(draw: st.DrawFn) -> bytes:
    """A header with a few bytes changed, left out or put in, mostly by bytes of its own kind."""
    data = bytearray(draw(headers))
    alphabet = st.one_of(
        st.sampled_from(b"0123456789abcfF:. \r\nPU"), st.integers(0, 255), st.sampled_from([*data])
    )
    for _ in range(draw(st.integers(1, 3))):
        # The interesting bytes of a binary header are its first.
        place = draw(st.one_of(st.integers(0, len(data)), st.integers(0, min(len(data), 48))))
        deed = draw(st.sampled_from(["change", "drop", "insert", "cut"]))
        if deed == "change":
            data[place : place + 1] = bytes([draw(alphabet)])
        elif deed == "drop":
            del data[place : place + draw(st.integers(1, 4))]
        elif deed == "insert":
            data[place:place] = bytes([draw(alphabet)])
        else:
            del data[place:]
    return bytes(data)


# ---- the properties ------------------------------------------------------------------------------


@given(headers, st.binary(max_size=20))
def test_a_header_is_read_as_the_reference_reads_it_whatever_follows(
    header: bytes, rest: bytes
) -> None:
    expected = reference(header)
    assert expected is not None
    assert expected[0] == len(header)
    assert parse(header + rest, *BEFORE) == expected


@given(headers)
def test_every_cut_of_a_header_asks_for_more_and_touches_nothing(header: bytes) -> None:
    whole = memoryview(header)      # so that the missing bytes do stand behind the cut
    for cut in range(len(header)):
        assert parse(whole[:cut], *BEFORE) == (MORE, *BEFORE)


def judge(data: bytes) -> None:
    expected = reference(data)
    result = parse(data, *BEFORE)
    if expected is not None:
        assert result == expected
        return
    assert result in ((MORE, *BEFORE), (MALFORMED, *BEFORE))
    completed = finish_line(data) if data[:1] != b"\r" else finish_binary(data)
    completable = is_line(completed) if data[:1] != b"\r" else completed is not None
    if result[0] == MORE:
        assert completable, "waits for a header that cannot come"
        assert len(data) < (MAX if data[:1] == b"\r" else V1_MAX), "waits without end"
    elif completable and completed is not None:
        assert len(completed) > V1_MAX, "refuses what could become a header"


@given(near_headers())
@example(b"PROXY TCP6 1111:2222:3333:4444:5555:6666:100.100.100.100 ::1 1 2\r\n")
@example(b"PROXY TCP6 1:2:3:4:5:6:7:8")
@example(b"PROXY TCP6 1:2:3:4:5:6:7::")
@example(SIGNATURE + b"\x21\x11\x00\x10" + bytes(12) + b"\4\1")
def test_what_is_nearly_a_header_is_judged_as_early_as_can_be(data: bytes) -> None:
    judge(data)


@given(st.one_of(
    st.binary(max_size=200),
    st.builds(bytes.__add__, st.sampled_from([b"PROXY ", b"PROXY TCP4 ", b"PROXY TCP6 "]),
              st.text("0123456789abcdf:. \r\n", max_size=60).map(str.encode)),
    st.builds(bytes.__add__, st.just(SIGNATURE), st.binary(max_size=60)),
    st.builds(bytes.__add__, st.sampled_from([SIGNATURE + b"\x21\x11\x00", SIGNATURE + b"\x21"]),
              st.binary(max_size=60)),
))
def test_garbage_is_never_taken_for_a_header(data: bytes) -> None:
    judge(data)


@given(near_headers())
def test_a_verdict_does_not_change_when_more_arrives(data: bytes) -> None:
    verdict = MORE
    for cut in range(len(data) + 1):
        result = parse(data[:cut])[0]
        assert verdict in (MORE, result)
        verdict = result


endpoints = st.one_of(st.tuples(v4, ports), st.tuples(v6, ports), st.none())


@given(st.sampled_from([1, 2]), endpoints, endpoints)
def test_what_is_written_is_read_back(
    version: int, source: Endpoint, destination: Endpoint
) -> None:
    header = build(version, source, destination)
    assert len(header) <= OUT_MAX
    same = source and destination and len(source[0]) == len(destination[0])
    ends = (source, destination) if same else BEFORE
    assert parse(header, *BEFORE) == (len(header), *ends)
    assert reference(header) == (len(header), *ends)


@given(st.one_of(v4, v6))
def test_text_names_the_address_and_is_as_short_as_can_be(packed: bytes) -> None:
    written = text((packed, 1))
    assert ipaddress.ip_address(written).packed == packed
    assert len(written) < 48
    if "." not in written:
        assert written == ipaddress.IPv6Address(packed).compressed


@given(st.one_of(v4, v6), st.data())
def test_networks_contain_what_ipaddress_says(packed: bytes, data: st.DataObject) -> None:
    bits = data.draw(st.integers(0, 8 * len(packed)))
    network = ipaddress.ip_network((packed, bits), strict=False)
    # An address beside the network: one bit differs.
    flip = data.draw(st.integers(0, 8 * len(packed) - 1))
    other = (int.from_bytes(packed, "big") ^ 1 << flip).to_bytes(len(packed), "big")
    for address in (packed, other):
        inside = ipaddress.ip_address(address) in network
        assert contains(packed, bits, (address, 0)) is inside
        if len(packed) == 4:
            assert contains(packed, bits, (bytes(10) + b"\xff\xff" + address, 0)) is inside
