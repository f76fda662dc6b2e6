# PROXY protocol: reading and writing headers, and addresses without sockets. The doors and what
# they promise are in _proxy.pxd.
#
# Reading is one pass that starts over whenever more bytes have arrived: a header is short and
# nearly always arrives whole, so there is no state to keep. The pass stops at the first byte that
# no header could have there, so a client that speaks something else is not waited for.

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memcmp, memcpy, memset

from lbcore._plan cimport cidr_t

from typing import Optional

cdef extern from "<netinet/in.h>":
    enum:
        AF_INET
        AF_INET6
    struct in_addr:
        pass
    struct in6_addr:
        pass
    struct sockaddr_in:
        unsigned short sin_family
        uint16_t sin_port
        in_addr sin_addr
    struct sockaddr_in6:
        unsigned short sin6_family
        uint16_t sin6_port
        in6_addr sin6_addr
    uint16_t ntohs(uint16_t value) noexcept nogil
    uint16_t htons(uint16_t value) noexcept nogil

cdef enum:
    V1_MAX = 107                # with CRLF, as the specification counts
    V2_FIXED = 16               # signature, version and command, family and protocol, length
    V2_SIGNATURE = 12
    V2_PROXY_COMMAND = 0x21
    V2_LOCAL_COMMAND = 0x20

cdef const uint8_t *SIGNATURE = <const uint8_t *> b"\r\n\r\n\0\r\nQUIT\n"
cdef const uint8_t *MAPPED = <const uint8_t *> b"\0\0\0\0\0\0\0\0\0\0\xff\xff"

ctypedef struct reader_t:       # the part of a line that has not been understood yet
    const uint8_t *at
    const uint8_t *end


# ---- version 1 -------------------------------------------------------------------------------
#
# Each of these reads one element and moves the reader behind it. They return 1, PROXY_MORE when
# the bytes so far could become the element, or PROXY_MALFORMED when they cannot. An element ends
# where its successor begins, so a number is not complete before a byte that is not part of it.

cdef int read_literal(reader_t *line, const char *text, size_t length) noexcept nogil:
    cdef size_t there = <size_t> (line.end - line.at)
    if memcmp(line.at, text, there if there < length else length) != 0:
        return PROXY_MALFORMED
    if there < length:
        return PROXY_MORE
    line.at += length
    return 1


cdef int read_number(reader_t *line, uint32_t most, uint32_t *value) noexcept nogil:
    """A decimal number up to ``most`` without leading zeros."""
    cdef const uint8_t *start = line.at
    cdef uint32_t digit
    value[0] = 0
    while line.at < line.end:
        digit = <uint32_t> line.at[0] - <uint32_t> c'0'
        if digit > 9:
            return 1 if line.at > start else PROXY_MALFORMED
        if line.at > start and value[0] == 0:
            return PROXY_MALFORMED
        value[0] = value[0] * 10 + digit
        if value[0] > most:
            return PROXY_MALFORMED
        line.at += 1
    return PROXY_MORE


cdef int read_ipv4(reader_t *line, uint8_t *address) noexcept nogil:
    cdef uint32_t octet, i
    cdef int got
    for i in range(4):
        if i:
            got = read_literal(line, b".", 1)
            if got <= 0:
                return got
        got = read_number(line, 255, &octet)
        if got <= 0:
            return got
        address[i] = <uint8_t> octet
    return 1


cdef inline int hex_value(uint8_t character) noexcept nogil:
    if c'0' <= character <= c'9':
        return character - c'0'
    character |= 0x20
    if c'a' <= character <= c'f':
        return character - c'a' + 10
    return -1


cdef int read_ipv6(reader_t *line, uint8_t *address) noexcept nogil:
    """Groups of up to four hexadecimal digits, one ``::`` for one group or more.

    The last two groups may be a dotted IPv4 address (RFC 4291 section 2.2). The specification
    does not list that form, but inet_ntop writes it for mapped addresses, and so do proxies.
    """
    cdef uint8_t groups[16]
    cdef uint32_t count = 0             # bytes of `groups` that are filled
    cdef uint32_t before = 0            # of which stand before the gap
    cdef uint32_t most = 16
    cdef bint gap = False
    cdef const uint8_t *start
    cdef uint32_t value
    cdef int digit, got
    memset(address, 0, 16)
    if line.at < line.end and line.at[0] == c':':
        got = read_literal(line, b"::", 2)
        if got <= 0:
            return got
        gap = True
        most = 14
    while True:
        # A group begins here, or the address ends in "::".
        start = line.at
        value = 0
        digit = -1
        while line.at < line.end:
            digit = hex_value(line.at[0])
            if digit < 0:
                break
            if count == most or line.at - start == 4:
                return PROXY_MALFORMED
            value = value << 4 | <uint32_t> digit
            line.at += 1
        if line.at == line.end:
            return PROXY_MORE
        if line.at == start:
            if not gap or count != before:
                return PROXY_MALFORMED
            break
        if line.at[0] == c'.':
            if count + 4 > most or (not gap and count != 12):
                return PROXY_MALFORMED
            line.at = start
            got = read_ipv4(line, &groups[count])
            if got <= 0:
                return got
            count += 4
            break
        groups[count] = <uint8_t> (value >> 8)
        groups[count + 1] = <uint8_t> value
        count += 2
        if line.at[0] != c':':
            break
        if count == most:
            return PROXY_MALFORMED
        line.at += 1
        if line.at < line.end and line.at[0] == c':':
            if gap:
                return PROXY_MALFORMED
            gap = True
            before = count
            most = 14
            line.at += 1
    if not gap:
        if count != 16:
            return PROXY_MALFORMED
        before = 16
    memcpy(address, groups, before)
    memcpy(address + 16 - (count - before), groups + before, count - before)
    return 1


cdef int read_address(reader_t *line, endpoint_t *endpoint) noexcept nogil:
    cdef int got
    if endpoint.family == 4:
        got = read_ipv4(line, endpoint.address)
    else:
        got = read_ipv6(line, endpoint.address)
    return read_literal(line, b" ", 1) if got > 0 else got


cdef int read_port(reader_t *line, endpoint_t *endpoint, const char *after,
                   size_t length) noexcept nogil:
    cdef uint32_t port
    cdef int got = read_number(line, 65535, &port)
    endpoint.port = <uint16_t> port
    return read_literal(line, after, length) if got > 0 else got


cdef int skip_line(reader_t *line) noexcept nogil:
    """Whatever stands before CRLF. A CR or LF alone could end the line for somebody else."""
    while line.at < line.end:
        if line.at[0] == c'\r':
            return read_literal(line, b"\r\n", 2)
        if line.at[0] == c'\n':
            return PROXY_MALFORMED
        line.at += 1
    return PROXY_MORE


cdef int parse_line(reader_t *line, endpoint_t *source, endpoint_t *destination) noexcept nogil:
    cdef int got = read_literal(line, b"PROXY ", 6)
    if got <= 0:
        return got
    if line.at < line.end and line.at[0] == c'U':
        got = read_literal(line, b"UNKNOWN", 7)
        if got > 0 and line.at < line.end and line.at[0] != c' ' and line.at[0] != c'\r':
            return PROXY_MALFORMED
        return skip_line(line) if got > 0 else got
    got = read_literal(line, b"TCP", 3)
    if got <= 0:
        return got
    if line.at == line.end:
        return PROXY_MORE
    if line.at[0] != c'4' and line.at[0] != c'6':
        return PROXY_MALFORMED
    source.family = destination.family = line.at[0] - c'0'
    line.at += 1
    got = read_literal(line, b" ", 1)
    if got > 0:
        got = read_address(line, source)
    if got > 0:
        got = read_address(line, destination)
    if got > 0:
        got = read_port(line, source, b" ", 1)
    if got > 0:
        got = read_port(line, destination, b"\r\n", 2)
    return got


cdef int parse_v1(const uint8_t *data, size_t length, endpoint_t *source,
                  endpoint_t *destination) noexcept nogil:
    cdef reader_t line
    cdef int got
    line.at = data
    line.end = data + (length if length < V1_MAX else V1_MAX)
    got = parse_line(&line, source, destination)
    if got > 0:
        return <int> (line.at - data)
    # At least a CRLF is still to come; after a CR, a LF.
    if got == PROXY_MORE and length + (1 if data[length - 1] == c'\r' else 2) > V1_MAX:
        return PROXY_MALFORMED
    return got


# ---- version 2 -------------------------------------------------------------------------------

cdef int parse_v2(const uint8_t *data, size_t length, endpoint_t *source,
                  endpoint_t *destination) noexcept nogil:
    cdef size_t total, at, width
    cdef uint32_t family, protocol
    if memcmp(data, SIGNATURE, length if length < V2_SIGNATURE else V2_SIGNATURE) != 0:
        return PROXY_MALFORMED
    if length > 12 and data[12] != V2_PROXY_COMMAND and data[12] != V2_LOCAL_COMMAND:
        return PROXY_MALFORMED
    if length < 14:
        return PROXY_MORE
    family = data[13] >> 4
    protocol = data[13] & 15
    # The family of a LOCAL header is to be ignored, whatever it says.
    if data[12] == V2_PROXY_COMMAND and (family > 3 or protocol > 2):
        return PROXY_MALFORMED
    if length == 14:
        return PROXY_MORE
    if V2_FIXED + (<size_t> data[14] << 8) > PROXY_MAX:
        return PROXY_MALFORMED
    if length == 15:
        return PROXY_MORE
    total = V2_FIXED + (<size_t> data[14] << 8 | data[15])
    if total > PROXY_MAX:
        return PROXY_MALFORMED
    if data[12] == V2_LOCAL_COMMAND or family == 0 or protocol == 0:
        # What these carry is undefined, so it is skipped unseen.
        return <int> total if length >= total else PROXY_MORE
    width = 4 if family == 1 else 16 if family == 2 else 108
    at = V2_FIXED + 2 * width + (4 if family < 3 else 0)
    if at > total:
        return PROXY_MALFORMED
    while at < total:                   # TLVs: type, two bytes of length, value
        if at + 3 > total:
            return PROXY_MALFORMED
        if at + 2 <= length and at + 3 + (<size_t> data[at + 1] << 8) > total:
            return PROXY_MALFORMED
        if at + 3 > length:
            return PROXY_MORE
        at += 3 + (<size_t> data[at + 1] << 8 | data[at + 2])
        if at > total:
            return PROXY_MALFORMED
    if length < total:
        return PROXY_MORE
    # Datagrams and unix sockets are no origin that a stream over IP could have: those headers
    # are valid, and treated as UNSPEC, which the specification asks of who does not use them.
    if family < 3 and protocol == 1:
        source.family = destination.family = 4 if family == 1 else 6
        memcpy(source.address, data + V2_FIXED, width)
        memcpy(destination.address, data + V2_FIXED + width, width)
        data += V2_FIXED + 2 * width
        source.port = <uint16_t> (data[0] << 8 | data[1])
        destination.port = <uint16_t> (data[2] << 8 | data[3])
    return <int> total


cdef int proxy_parse(const uint8_t *data, size_t length, endpoint_t *source,
                     endpoint_t *destination) noexcept nogil:
    cdef endpoint_t from_, to
    cdef int got
    if length == 0:
        return PROXY_MORE
    memset(&from_, 0, sizeof(endpoint_t))
    memset(&to, 0, sizeof(endpoint_t))
    if data[0] == c'P':
        got = parse_v1(data, length, &from_, &to)
    else:
        got = parse_v2(data, length, &from_, &to)
    if got > 0 and from_.family:
        source[0] = from_
        destination[0] = to
    return got


# ---- writing ---------------------------------------------------------------------------------

cdef uint32_t write_number(uint32_t value, uint8_t *out) noexcept nogil:
    cdef uint8_t digits[10]
    cdef uint32_t count = 0, i
    while True:
        digits[count] = <uint8_t> (c'0' + value % 10)
        count += 1
        value //= 10
        if value == 0:
            break
    for i in range(count):
        out[i] = digits[count - 1 - i]
    return count


cdef uint32_t write_ipv4(const uint8_t *address, uint8_t *out) noexcept nogil:
    cdef uint32_t at = 0, i
    for i in range(4):
        if i:
            out[at] = c'.'
            at += 1
        at += write_number(address[i], out + at)
    return at


cdef uint32_t write_group(uint32_t value, uint8_t *out) noexcept nogil:
    cdef uint32_t at = 0, digit
    cdef int shift = 12
    while shift >= 0:
        digit = value >> shift & 15
        if at or digit or shift == 0:
            out[at] = <uint8_t> (digit + (c'0' if digit < 10 else c'a' - 10))
            at += 1
        shift -= 4
    return at


cdef uint32_t write_ipv6(const uint8_t *address, bint dotted, uint8_t *out) noexcept nogil:
    """RFC 5952: lower case, the first longest run of two or more zero groups as ``::``.

    ``dotted``: IPv4-mapped and IPv4-compatible addresses end in a dotted address.
    """
    cdef uint32_t group[8]
    cdef uint32_t i, run = 0, gap = 8, gap_length = 1, last = 8, at = 0
    for i in range(8):
        group[i] = <uint32_t> address[2 * i] << 8 | address[2 * i + 1]
        run = 0 if group[i] else run + 1
        if run > gap_length:
            gap_length = run
            gap = i + 1 - run
    # nginx's rule, oddities of ::/112 included: ::102 is written ::0.0.1.2, but ::101 stays.
    if dotted and gap == 0 and (
            gap_length == 6 or (gap_length == 5 and group[5] == 0xFFFF)
            or (gap_length == 7 and address[14] != 0 and address[15] != 1)):
        last = 6
    i = 0
    while i < last:
        if i == gap:
            out[at] = c':'
            at += 1
            if i == 0:
                out[at] = c':'
                at += 1
            i += gap_length
            continue
        at += write_group(group[i], out + at)
        i += 1
        if i < 8:
            out[at] = c':'
            at += 1
    if last == 6:
        at += write_ipv4(address + 12, out + at)
    return at


cdef inline uint32_t write_text(const char *text, uint32_t length, uint8_t *out) noexcept nogil:
    memcpy(out, text, length)
    return length


cdef uint32_t write_v1_address(const endpoint_t *endpoint, uint8_t *out) noexcept nogil:
    # Without the dotted form, which the specification does not list.
    if endpoint.family == 4:
        return write_ipv4(endpoint.address, out)
    return write_ipv6(endpoint.address, False, out)


cdef int build_v1(const endpoint_t *source, const endpoint_t *destination, bint known,
                  uint8_t *out) noexcept nogil:
    cdef uint32_t at
    if not known:
        return <int> write_text(b"PROXY UNKNOWN\r\n", 15, out)
    at = write_text(b"PROXY TCP4 " if source.family == 4 else b"PROXY TCP6 ", 11, out)
    at += write_v1_address(source, out + at)
    at += write_text(b" ", 1, out + at)
    at += write_v1_address(destination, out + at)
    at += write_text(b" ", 1, out + at)
    at += write_number(source.port, out + at)
    at += write_text(b" ", 1, out + at)
    at += write_number(destination.port, out + at)
    at += write_text(b"\r\n", 2, out + at)
    return <int> at


cdef int build_v2(const endpoint_t *source, const endpoint_t *destination, bint known,
                  uint8_t *out) noexcept nogil:
    cdef uint32_t width = 0, total = V2_FIXED
    memcpy(out, SIGNATURE, V2_SIGNATURE)
    if known:
        width = 4 if source.family == 4 else 16
        total += 2 * width + 4
    # LOCAL rather than PROXY with UNSPEC: the one a receiver must accept, the other it may refuse.
    out[12] = V2_PROXY_COMMAND if known else V2_LOCAL_COMMAND
    out[13] = 0 if not known else 0x11 if width == 4 else 0x21
    out[14] = 0
    out[15] = <uint8_t> (total - V2_FIXED)
    if known:
        memcpy(out + V2_FIXED, source.address, width)
        memcpy(out + V2_FIXED + width, destination.address, width)
        out += V2_FIXED + 2 * width
        out[0] = <uint8_t> (source.port >> 8)
        out[1] = <uint8_t> source.port
        out[2] = <uint8_t> (destination.port >> 8)
        out[3] = <uint8_t> destination.port
    return <int> total


cdef int proxy_build(int version, const endpoint_t *source, const endpoint_t *destination,
                     uint8_t *out) noexcept nogil:
    cdef bint known = (source.family == destination.family
                       and (source.family == 4 or source.family == 6))
    if version == 1:
        return build_v1(source, destination, known, out)
    return build_v2(source, destination, known, out)


# ---- addresses -------------------------------------------------------------------------------

cdef void endpoint_from_sockaddr(
        endpoint_t *out, const void *sockaddr_, uint32_t length) noexcept nogil:
    cdef const sockaddr_in *v4 = <const sockaddr_in *> sockaddr_
    cdef const sockaddr_in6 *v6 = <const sockaddr_in6 *> sockaddr_
    memset(out, 0, sizeof(endpoint_t))
    if length >= sizeof(sockaddr_in) and v4.sin_family == AF_INET:
        out.family = 4
        out.port = ntohs(v4.sin_port)
        memcpy(out.address, &v4.sin_addr, 4)
    elif length >= sizeof(sockaddr_in6) and v6.sin6_family == AF_INET6:
        out.family = 6
        out.port = ntohs(v6.sin6_port)
        memcpy(out.address, &v6.sin6_addr, 16)


cdef uint32_t endpoint_to_sockaddr(
        const endpoint_t *endpoint, bint keep_port, void *out) noexcept nogil:
    cdef sockaddr_in *v4 = <sockaddr_in *> out
    cdef sockaddr_in6 *v6 = <sockaddr_in6 *> out
    cdef uint16_t port = htons(endpoint.port) if keep_port else 0
    if endpoint.family == 4:
        memset(out, 0, sizeof(sockaddr_in))
        v4.sin_family = AF_INET
        v4.sin_port = port
        memcpy(&v4.sin_addr, endpoint.address, 4)
        return sizeof(sockaddr_in)
    if endpoint.family == 6:
        memset(out, 0, sizeof(sockaddr_in6))
        v6.sin6_family = AF_INET6
        v6.sin6_port = port
        memcpy(&v6.sin6_addr, endpoint.address, 16)
        return sizeof(sockaddr_in6)
    return 0


cdef uint32_t endpoint_text(const endpoint_t *endpoint, char *out) noexcept nogil:
    cdef uint32_t length
    if endpoint.family == 4:
        length = write_ipv4(endpoint.address, <uint8_t *> out)
    elif endpoint.family == 6:
        length = write_ipv6(endpoint.address, True, <uint8_t *> out)
    else:
        length = write_text(b"unix:", 5, <uint8_t *> out)
    out[length] = 0
    return length


cdef bint cidr_contains(const cidr_t *cidr, const endpoint_t *endpoint) noexcept nogil:
    cdef uint32_t whole = cidr.bits >> 3, rest = cidr.bits & 7, skip = 0
    if endpoint.family == 6 and cidr.family == 4 and memcmp(endpoint.address, MAPPED, 12) == 0:
        skip = 12
    elif endpoint.family != cidr.family or cidr.family == 0:
        return False
    if cidr.bits > (32 if cidr.family == 4 else 128):
        return False
    if memcmp(&endpoint.address[skip], cidr.address, whole) != 0:
        return False
    return rest == 0 or (endpoint.address[skip + whole] ^ cidr.address[whole]) >> (8 - rest) == 0


# ---- for Python ------------------------------------------------------------------------------
#
# An endpoint is (address, port) with the address as 4 or 16 bytes, or None for family 0.

MORE = PROXY_MORE
MALFORMED = PROXY_MALFORMED
MAX = PROXY_MAX
OUT_MAX = PROXY_OUT_MAX
ENDPOINT_SIZE = sizeof(endpoint_t)
Endpoint = Optional[tuple[bytes, int]]


cdef endpoint_t endpoint_of(value) except *:
    cdef endpoint_t endpoint
    memset(&endpoint, 0, sizeof(endpoint_t))
    if value is not None:
        address, port = value
        if len(address) not in (4, 16):
            raise ValueError("an address has 4 or 16 bytes")
        endpoint.family = 4 if len(address) == 4 else 6
        endpoint.port = port
        memcpy(endpoint.address, <const char *> address, len(address))
    return endpoint


cdef endpoint_value(const endpoint_t *endpoint):
    if endpoint.family == 0:
        return None
    return (<const char *> endpoint.address)[:4 if endpoint.family == 4 else 16], endpoint.port


def parse(data, source=None, destination=None) -> tuple:
    """(result, source, destination): the header's length, MORE or MALFORMED, and the endpoints,
    which stay as given unless the header names others. ``data``: any buffer of bytes."""
    cdef endpoint_t from_ = endpoint_of(source), to = endpoint_of(destination)
    cdef Py_buffer view
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    cdef int got = proxy_parse(<const uint8_t *> view.buf, view.len, &from_, &to)
    PyBuffer_Release(&view)
    return got, endpoint_value(&from_), endpoint_value(&to)


def build(version: int, source, destination) -> bytes:
    """A header of version 1 or 2. Raises ValueError for another version or a bad address."""
    cdef endpoint_t from_ = endpoint_of(source), to = endpoint_of(destination)
    cdef uint8_t out[PROXY_OUT_MAX]
    if version not in (1, 2):
        raise ValueError("the PROXY protocol has versions 1 and 2")
    return (<const char *> out)[:proxy_build(version, &from_, &to, out)]


def text(endpoint) -> str:
    """The address as nginx's ``$remote_addr`` has it."""
    cdef endpoint_t value = endpoint_of(endpoint)
    cdef char out[48]
    cdef uint32_t length = endpoint_text(&value, out)
    if out[length] != 0:
        raise AssertionError("text is not terminated")
    return out[:length].decode("ascii")


def from_sockaddr(raw: bytes):
    """The endpoint of a ``struct sockaddr`` of any kind."""
    cdef endpoint_t value
    endpoint_from_sockaddr(&value, <const char *> raw, len(raw))
    return endpoint_value(&value)


def to_sockaddr(endpoint, keep_port: bool) -> bytes:
    """A ``struct sockaddr_in`` or ``_in6``; empty for None."""
    cdef endpoint_t value = endpoint_of(endpoint)
    cdef char out[28]
    return out[:endpoint_to_sockaddr(&value, keep_port, out)]


def contains(network: bytes, bits: int, endpoint) -> bool:
    """Whether a network, as 4 or 16 bytes and a prefix length, contains an endpoint."""
    cdef endpoint_t value = endpoint_of(endpoint)
    cdef endpoint_t base = endpoint_of((network, 0))
    cdef cidr_t cidr
    memset(&cidr, 0, sizeof(cidr_t))
    cidr.family = base.family
    cidr.bits = bits
    memcpy(cidr.address, base.address, 16)
    return cidr_contains(&cidr, &value)
