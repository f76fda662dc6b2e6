# HTTP/1.1 messages. The doors and what they promise are in _http1.pxd.
#
# A head is read in one pass from left to right that starts over when more bytes have arrived: most
# heads arrive whole, so there is no state to keep. An error is one of a byte or of a whole line or
# head, and the leftmost one is reported: a head in parts is refused for the reason for which it is
# refused whole.
#
# Where RFC 9112 leaves a choice between repairing and refusing, this refuses: two parsers that
# repair differently are what request smuggling needs. Beyond that, refused although a grammar
# allows it:
#   Content-Length more than once, or as a list, also with equal values
#   any transfer coding but chunked (501 in requests), and empty members in Transfer-Encoding
#   an empty Host in HTTP/1.1: every http URI has a host (RFC 9110, 4.2.1)
#   a Host with bytes other than letters, digits, "-._~", or an IPv6 address: escapes and the
#     punctuation of a reg-name have no place in DNS, but a meaning in other fields and in logs
#   Host or Content-Length named by Connection: removing them would change what the message is
#   chunk sizes of more than 16 digits, white space behind a chunk size
#   a 1xx response that announces a body: it has none (RFC 9112, 6.3), but some read one
# Accepted although the grammar of URIs does not have them: the bytes "<>\^`{|} and those from 0x80
# on in targets, which browsers and scripts do send. They mean nothing in a request line.

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memchr, memcmp, memcpy, memmove, memset

from lbcore._authority cimport authority_parse, authority_t, hosts_agree
from lbcore._bytes cimport (
    CR, IS_HEX, IS_TOKEN, KIND, LF, TAB, blank, equals_lower, lists_lower, target_end, value_end,
)
from lbcore._fields cimport (
    MORE, NAME_HOP, NAME_NOT_TRAILER, broken, connection_finish, fields_parse, found,
    framing_finish, line_end, wishes_finish,
)

from collections import namedtuple
from time import perf_counter

cdef extern from *:
    """
    #define LB_MAX_LENGTH (1ull << 62)
    """
    uint64_t MAX_LENGTH "LB_MAX_LENGTH"
    int leading_zeros "__builtin_clzll" (uint64_t value) noexcept nogil

cdef enum:
    MAX_SIZE = 1 << 30          # of a head: offsets and results fit
    MAX_METHOD = 64             # RFC 9112, 3: 501 for a method longer than any that is known
    MAX_LINE = 4096             # of a chunk size and its extensions
    MAX_DIGITS = 16             # of a chunk size
    BAD_ANSWER = -502
    TLS_HANDSHAKE = 22          # RFC 8446, 5.1: the first byte of a client that speaks TLS
    EAGER = 4096                # heads up to this size are parsed again whenever bytes arrive


# ---- requests --------------------------------------------------------------------------------

cdef int version_parse(const uint8_t *data, uint32_t at, uint32_t limit,
                       uint8_t *minor) noexcept nogil:
    """HTTP/1.x at ``at``: behind it, MORE or broken."""
    cdef uint32_t i
    cdef const uint8_t *text = data + at
    if limit - at >= 8 and memcmp(text, b"HTTP/1.1", 8) == 0:
        minor[0] = 1
        return <int> at + 8
    for i in range(8):
        if at + i == limit:
            return MORE
        if i < 5 or i == 6:
            if text[i] != (<const uint8_t *> b"HTTP/1.1")[i]:
                return broken(400, RULE_REQUEST_LINE)
        elif not c'0' <= text[i] <= c'9':
            return broken(400, RULE_REQUEST_LINE)
    if text[5] != c'1':
        return broken(505, RULE_VERSION)
    minor[0] = text[7] != c'0'
    return <int> at + 8


cdef inline uint8_t method_of(const uint8_t *text, uint32_t size) noexcept nogil:
    if size == 3:
        if memcmp(text, b"GET", 3) == 0:
            return METHOD_GET
        if memcmp(text, b"PUT", 3) == 0:
            return METHOD_PUT
    elif size == 4:
        if memcmp(text, b"POST", 4) == 0:
            return METHOD_POST
        if memcmp(text, b"HEAD", 4) == 0:
            return METHOD_HEAD
    elif size == 5:
        if memcmp(text, b"PATCH", 5) == 0:
            return METHOD_PATCH
        if memcmp(text, b"TRACE", 5) == 0:
            return METHOD_TRACE
    elif size == 6:
        if memcmp(text, b"DELETE", 6) == 0:
            return METHOD_DELETE
    elif size == 7:
        if memcmp(text, b"OPTIONS", 7) == 0:
            return METHOD_OPTIONS
        if memcmp(text, b"CONNECT", 7) == 0:
            return METHOD_CONNECT
    return METHOD_OTHER


cdef void path_split(head_t *head, const uint8_t *data, uint32_t at, uint32_t end) noexcept nogil:
    cdef const uint8_t *mark = <const uint8_t *> memchr(data + at, c'?', end - at)
    head.path = at
    head.path_size = end - at
    head.query = 0
    head.query_size = 0
    if mark != NULL:
        head.path_size = <uint32_t> (mark - data) - at
        head.query = <uint32_t> (mark - data) + 1
        head.query_size = end - head.query


cdef bint target_parse(head_t *head, const uint8_t *data, authority_t *authority,
                       int *default_port) noexcept nogil:
    """The four forms (RFC 9112, 3.2). Whether it is one of them."""
    cdef uint32_t at = head.target, size = head.target_size, end = at + size
    cdef const uint8_t *text = data + at
    head.host = 0
    head.host_size = 0
    default_port[0] = -1
    if head.method == METHOD_CONNECT:
        head.form = FORM_AUTHORITY
        path_split(head, data, end, end)
        head.host = at
        head.host_size = size
        return authority_parse(text, size, authority) and authority.port >= 0
    if text[0] == c'/':
        head.form = FORM_ORIGIN
        path_split(head, data, at, end)
        return True
    if size == 1 and text[0] == c'*':
        head.form = FORM_ASTERISK
        path_split(head, data, end, end)
        return head.method == METHOD_OPTIONS
    head.form = FORM_ABSOLUTE
    if size > 7 and same_text(<const char *> text, 7, b"http://", 7):
        default_port[0] = 80
        at += 7
    elif size > 8 and same_text(<const char *> text, 8, b"https://", 8):
        default_port[0] = 443
        at += 8
    else:
        return False
    head.host = at
    while at < end and data[at] != c'/' and data[at] != c'?':
        at += 1
    head.host_size = at - head.host
    path_split(head, data, at, end)
    return authority_parse(data + head.host, head.host_size, authority)


cdef int host_finish(head_t *head, const uint8_t *data, uint32_t repeated,
                     const authority_t *target, int default_port) noexcept nogil:
    cdef authority_t given
    cdef const field_t *field
    if found(head, FIELD_HOST) == 0:
        return broken(400, RULE_NO_HOST) if head.minor else 0
    if repeated & <uint32_t> 1 << FIELD_HOST:
        return broken(400, RULE_TWO_HOSTS)
    field = &head.fields[found(head, FIELD_HOST) - 1]
    if field.value_size == 0:
        return broken(400, RULE_NO_HOST) if head.minor else 0
    if not authority_parse(data + field.value, field.value_size, &given):
        return broken(400, RULE_HOST)
    if head.form == FORM_ABSOLUTE or head.form == FORM_AUTHORITY:
        if not hosts_agree(target, &given, default_port):
            return broken(400, RULE_HOST_DIFFERS)
        return 0
    head.host = field.value
    head.host_size = field.value_size
    return 0


cdef bint nothing_new(const uint8_t *data, size_t size, size_t seen) noexcept nogil:
    """Whether another pass over a long head can wait: it got no end, and has not doubled. Without
    this, a client that sends byte by byte would have each read again for each that follows."""
    cdef size_t i
    if seen < EAGER or seen > size or leading_zeros(seen) != leading_zeros(size):
        return False
    for i in range(seen, size):
        if data[i] == LF and (data[i - 1] == LF or (data[i - 1] == CR and data[i - 2] == LF)):
            return False
    return True


cdef int method_fault(uint8_t byte, bint first) noexcept nogil:
    """The rule that a byte breaks which is not the space behind a method."""
    if byte == LF:
        return RULE_BARE_LF
    return RULE_TLS if first and byte == TLS_HANDSHAKE else RULE_REQUEST_LINE


cdef int target_fault(uint8_t byte, bint first) noexcept nogil:
    """The rule that a byte breaks which is not the space behind a target."""
    if byte == LF:
        return RULE_BARE_LF
    return RULE_REQUEST_LINE if first or byte == CR else RULE_TARGET


cdef int request_parse(head_t *head, const char *text, size_t size, size_t seen, uint32_t max_size,
                       uint32_t max_fields) noexcept nogil:
    cdef const uint8_t *data = <const uint8_t *> text
    cdef uint32_t limit, at = 0, repeated = 0
    cdef int next_, default_port, short_
    cdef authority_t authority
    if max_size > MAX_SIZE:
        max_size = MAX_SIZE
    if max_fields > MAX_FIELDS:
        max_fields = MAX_FIELDS
    if size < max_size and nothing_new(data, size, seen):
        return MORE
    limit = <uint32_t> size if size < max_size else max_size
    short_ = MORE if size < max_size else broken(414, RULE_LINE_TOO_LONG)
    if limit and data[0] == CR:
        next_ = line_end(data, 0, limit)
        if next_ <= 0:
            return next_ if next_ else short_
        at = 2
    head.start = at

    while at < limit and KIND[data[at]] & IS_TOKEN:
        at += 1
        if at - head.start > MAX_METHOD:
            return broken(501, RULE_METHOD)
    if at == limit:
        return short_
    if data[at] != c' ' or at == head.start:
        return broken(400, method_fault(data[at], at == head.start))
    head.method_size = <uint16_t> (at - head.start)
    head.method = method_of(data + head.start, head.method_size)
    at += 1
    head.target = at
    at = target_end(data, at, limit)
    if at == limit:
        return short_
    if data[at] != c' ' or at == head.target:
        return broken(400, target_fault(data[at], at == head.target))
    head.target_size = at - head.target
    next_ = version_parse(data, at + 1, limit, &head.minor)
    if next_ > 0:
        next_ = line_end(data, <uint32_t> next_, limit)
    if next_ <= 0:
        if next_ == broken(400, RULE_CONTROL_BYTE):
            return broken(400, RULE_REQUEST_LINE)       # any byte behind the version
        return next_ if next_ else short_
    at = <uint32_t> next_
    if not target_parse(head, data, &authority, &default_port):
        return broken(400, RULE_TARGET)

    memset(head.first, 0, sizeof(head.first))
    next_ = fields_parse(head, data, at, limit, max_fields, NAME_HOP, &repeated)
    if next_ <= 0:
        return next_ if next_ or size < max_size else broken(431, RULE_HEAD_TOO_LONG)
    head.size = <uint32_t> next_
    head.flags = 0
    head.status = 0
    head.length = 0
    head.reason = 0
    head.reason_size = 0
    next_ = host_finish(head, data, repeated, &authority, default_port)
    if next_ == 0:
        next_ = connection_finish(head, data)
    if next_ == 0:
        next_ = framing_finish(head, data, repeated)
    if next_ < 0:
        return next_
    wishes_finish(head, data)
    return <int> head.size


# ---- responses and trailers ------------------------------------------------------------------

cdef int response_read(head_t *head, const uint8_t *data, uint32_t limit, uint32_t max_fields,
                       int method) noexcept nogil:
    """Behind the head, MORE, or below 0 for what is no response."""
    cdef uint32_t at, i, repeated = 0
    cdef int next_ = version_parse(data, 0, limit, &head.minor)
    if next_ <= 0:
        return next_
    at = <uint32_t> next_
    for i in range(4):
        if at + i == limit:
            return MORE
        if data[at + i] != c' ' if i == 0 else not c'0' <= data[at + i] <= c'9':
            return BAD_ANSWER
    head.status = <uint16_t> ((data[at + 1] - <uint8_t> c'0') * 100
                              + (data[at + 2] - <uint8_t> c'0') * 10
                              + (data[at + 3] - <uint8_t> c'0'))
    if not 100 <= head.status <= 599:
        return BAD_ANSWER
    at += 4
    if at < limit and data[at] == c' ':
        at += 1
        head.reason = at
        at = value_end(data, at, limit)
        head.reason_size = at - head.reason
    else:
        head.reason = at        # RFC 9112, 4 wants a space; servers leave it out with the reason
        head.reason_size = 0
    next_ = line_end(data, at, limit)
    if next_ <= 0:
        return next_

    memset(head.first, 0, sizeof(head.first))
    next_ = fields_parse(head, data, <uint32_t> next_, limit, max_fields, NAME_HOP, &repeated)
    if next_ <= 0:
        return next_
    head.size = <uint32_t> next_
    head.flags = 0
    head.length = 0
    if connection_finish(head, data) != 0 or framing_finish(head, data, repeated) != 0:
        return BAD_ANSWER
    if head.status < 200 and (head.framing == BODY_CHUNKED or head.length):
        return BAD_ANSWER
    if head.status < 200 or head.status == 204 or head.status == 304 or method == METHOD_HEAD:
        head.framing = BODY_NONE
    elif head.framing == BODY_NONE:
        head.framing = BODY_CLOSE
        head.flags &= ~<uint32_t> HEAD_KEEP_ALIVE
    return next_


cdef int response_parse(head_t *head, const char *text, size_t size, size_t seen,
                        uint32_t max_size, uint32_t max_fields, int method) noexcept nogil:
    cdef int got
    if max_size > MAX_SIZE:
        max_size = MAX_SIZE
    if max_fields > MAX_FIELDS:
        max_fields = MAX_FIELDS
    if size < max_size and nothing_new(<const uint8_t *> text, size, seen):
        return MORE
    head.start = head.target = head.target_size = head.path = head.path_size = 0
    head.query = head.query_size = head.host = head.host_size = 0
    head.method = head.form = 0
    head.method_size = 0
    got = response_read(head, <const uint8_t *> text,
                        <uint32_t> size if size < max_size else max_size, max_fields, method)
    if got > 0 or (got == MORE and size < max_size):
        return got
    return BAD_ANSWER


cdef int trailers_parse(head_t *head, const char *data, size_t size, uint32_t max_size,
                        uint32_t max_fields) noexcept nogil:
    cdef uint32_t repeated = 0
    cdef int got
    if max_size > MAX_SIZE:
        max_size = MAX_SIZE
    if max_fields > MAX_FIELDS:
        max_fields = MAX_FIELDS
    memset(head, 0, sizeof(head_t) - sizeof(head.fields))
    got = fields_parse(head, <const uint8_t *> data, 0,
                       <uint32_t> size if size < max_size else max_size, max_fields,
                       NAME_HOP | NAME_NOT_TRAILER, &repeated)
    if got == MORE and size >= max_size:
        return broken(431, RULE_TRAILERS)
    if got > 0:
        head.size = <uint32_t> got
    return got


# ---- chunks ----------------------------------------------------------------------------------

cdef enum:
    AT_SIZE = 0                 # before the first digit
    IN_SIZE = 1
    IN_BLANKS = 2               # behind the digits; a ";" must follow (RFC 9112, 7.1.1)
    IN_EXTENSION = 3
    AT_LINE_LF = 4
    IN_DATA = 5
    AT_DATA_CR = 6
    AT_DATA_LF = 7
    AT_END = 8
    BROKEN = 9


cdef int size_line(chunked_t *chunked, uint8_t byte) noexcept nogil:
    """The next byte of a size line. Returns the next state."""
    cdef uint32_t digit
    chunked.line += 1
    if chunked.line > MAX_LINE:
        return BROKEN
    if chunked.state == AT_LINE_LF:
        chunked.line = 0
        if byte != LF:
            return BROKEN
        return IN_DATA if chunked.left else AT_END
    if chunked.state == IN_EXTENSION:
        if byte == CR:
            return AT_LINE_LF
        return BROKEN if (byte < 0x20 and byte != TAB) or byte == 0x7F else IN_EXTENSION
    if chunked.state != IN_BLANKS and KIND[byte] & IS_HEX:
        digit = byte - <uint32_t> c'0' if byte <= c'9' else (byte | 0x20) - <uint32_t> c'a' + 10
        if chunked.line > MAX_DIGITS or chunked.left > MAX_LENGTH >> 4:
            return BROKEN
        chunked.left = chunked.left << 4 | digit
        return IN_SIZE if chunked.left <= MAX_LENGTH else BROKEN
    if chunked.state == AT_SIZE:
        return BROKEN
    if byte == c';':
        return IN_EXTENSION
    if blank(byte):
        return IN_BLANKS
    return AT_LINE_LF if byte == CR and chunked.state == IN_SIZE else BROKEN


cdef int chunked_decode(chunked_t *chunked, char *data, size_t size, size_t *taken,
                        size_t *made) noexcept nogil:
    cdef size_t at = 0, out = 0, some
    while at < size and chunked.state < AT_END:
        if chunked.state == IN_DATA:
            some = size - at
            if some > chunked.left:
                some = <size_t> chunked.left
            if out != at:
                memmove(data + out, data + at, some)
            out += some
            at += some
            chunked.left -= some
            if chunked.left == 0:
                chunked.state = AT_DATA_CR
            continue
        if chunked.state == AT_DATA_CR:
            chunked.state = AT_DATA_LF if data[at] == CR else BROKEN
        elif chunked.state == AT_DATA_LF:
            chunked.state = AT_SIZE if data[at] == LF else BROKEN
        else:
            chunked.state = <uint8_t> size_line(chunked, <uint8_t> data[at])
        at += 1
    taken[0] = at
    made[0] = out
    if chunked.state == BROKEN:
        return CHUNKED_BAD
    return CHUNKED_LAST if chunked.state == AT_END else CHUNKED_MORE


# ---- text and cookies ------------------------------------------------------------------------

cdef bint same_text(const char *text, size_t size, const char *lower,
                    size_t lower_size) noexcept nogil:
    return equals_lower(text, size, lower, lower_size)


cdef bint lists_token(const char *value, size_t size, const char *lower,
                      size_t lower_size) noexcept nogil:
    return lists_lower(value, size, lower, lower_size)


cdef int64_t cookie_find(const head_t *head, const char *base, const char *name, size_t name_size,
                         uint32_t *size) noexcept nogil:
    cdef uint32_t i, at, end, stop
    cdef const char *semicolon
    if found(head, FIELD_COOKIE) == 0:
        return -1
    for i in range(found(head, FIELD_COOKIE) - 1, head.count):
        if head.fields[i].id != FIELD_COOKIE:
            continue
        at = head.fields[i].value
        end = at + head.fields[i].value_size
        while at < end:
            while at < end and blank(<uint8_t> base[at]):
                at += 1
            semicolon = <const char *> memchr(base + at, c';', end - at)
            stop = <uint32_t> (semicolon - base) if semicolon != NULL else end
            if (stop - at > name_size and base[at + name_size] == c'='
                    and memcmp(base + at, name, name_size) == 0):
                at += <uint32_t> name_size + 1
                while stop > at and blank(<uint8_t> base[stop - 1]):
                    stop -= 1
                size[0] = stop - at
                return at
            at = stop + 1
    return -1


# ---- for Python ------------------------------------------------------------------------------
#
# A head is parsed in a copy of exactly its size, so that a sanitizer sees the first byte read
# beyond it; offsets outside of it raise AssertionError.

FIELDS_MAX = MAX_FIELDS
CHUNKS_MORE = CHUNKED_MORE
CHUNKS_LAST = CHUNKED_LAST
CHUNKS_BAD = CHUNKED_BAD
HEAD_SIZE = sizeof(head_t)
CHUNKED_SIZE = sizeof(chunked_t)

Field = namedtuple("Field", "name value id flags at")
Head = namedtuple(
    "Head", "size flags status minor framing length method form method_text target path query host "
    "reason fields first")


cdef class _Copy:
    cdef char *data
    cdef size_t size

    def __cinit__(self, source):
        cdef Py_buffer view
        PyObject_GetBuffer(source, &view, PyBUF_SIMPLE)
        self.size = view.len
        self.data = <char *> malloc(self.size or 1)
        if self.data != NULL:
            memcpy(self.data, view.buf, self.size)
        PyBuffer_Release(&view)
        if self.data == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.data)

    cdef bytes part(self, size_t at, size_t length):
        if at > self.size or length > self.size - at:
            raise AssertionError(f"bytes {at} to {at + length} of {self.size}")
        return self.data[at:at + length]


cdef object result_of(int got, const head_t *head, _Copy copy):
    cdef const field_t *field
    cdef int i
    if got <= 0:
        return -refused_status(got)
    if <size_t> got > copy.size or <uint32_t> got != head.size or head.count > MAX_FIELDS:
        raise AssertionError(f"a head of {got} bytes, {head.size}, in {copy.size}")
    fields, first = [], {}
    for i in range(head.count):
        field = &head.fields[i]
        fields.append(Field(copy.part(field.name, field.name_size),
                            copy.part(field.value, field.value_size),
                            FieldId(field.id), FieldFlag(field.flags), field.name))
    for i in range(<int> FIELD_IDS):
        if head.first[i]:
            first[FieldId(i)] = head.first[i] - 1
    return Head(
        head.size, HeadFlag(head.flags), head.status, head.minor, Framing(head.framing),
        head.length, Method(head.method), TargetForm(head.form),
        copy.part(head.start, head.method_size),
        copy.part(head.target, head.target_size), copy.part(head.path, head.path_size),
        copy.part(head.query, head.query_size) if head.query else None,
        copy.part(head.host, head.host_size), copy.part(head.reason, head.reason_size),
        tuple(fields), first)


def parse_request(data, seen=0, max_size=65536, max_fields=MAX_FIELDS):
    """A Head; 0: more is to come; or minus the status to refuse with."""
    cdef head_t head
    cdef _Copy copy = _Copy(data)
    memset(&head, 0xAA, sizeof(head))
    return result_of(request_parse(&head, copy.data, copy.size, seen, max_size, max_fields),
                     &head, copy)


def broken_rule(data, seen=0, max_size=65536, max_fields=MAX_FIELDS):
    """The rule for which :func:`parse_request` refuses this; RULE_NONE: it does not."""
    cdef head_t head
    cdef _Copy copy = _Copy(data)
    cdef int got = request_parse(&head, copy.data, copy.size, seen, max_size, max_fields)
    return Rule(refused_rule(got) if got < 0 else <int> RULE_NONE)


def parse_response(data, method=METHOD_GET, seen=0, max_size=65536, max_fields=MAX_FIELDS):
    """A Head, 0 or -502. ``method``: of the request."""
    cdef head_t head
    cdef _Copy copy = _Copy(data)
    memset(&head, 0xAA, sizeof(head))
    return result_of(
        response_parse(&head, copy.data, copy.size, seen, max_size, max_fields, method),
        &head, copy)


def parse_trailers(data, max_size=65536, max_fields=MAX_FIELDS):
    """A Head that has fields only, 0, -400 or -431."""
    cdef head_t head
    cdef _Copy copy = _Copy(data)
    memset(&head, 0xAA, sizeof(head))
    return result_of(trailers_parse(&head, copy.data, copy.size, max_size, max_fields),
                     &head, copy)


cdef class Chunked:
    """A body being decoded."""
    cdef chunked_t state

    def __cinit__(self):
        memset(&self.state, 0, sizeof(chunked_t))

    @property
    def left(self):
        """Bytes of the chunk being read that are to come."""
        return self.state.left

    def feed(self, data):
        """(CHUNKS_MORE, CHUNKS_LAST or CHUNKS_BAD; bytes taken; body bytes)"""
        cdef _Copy copy = _Copy(data)
        cdef size_t taken = 0, made = 0
        cdef int got = chunked_decode(&self.state, copy.data, copy.size, &taken, &made)
        if taken > copy.size or made > taken:
            raise AssertionError(f"{taken} taken and {made} made of {copy.size}")
        return got, taken, copy.part(0, made)


def find_cookie(data, name):
    """The value of a cookie in a request that parses, or None."""
    cdef head_t head
    cdef _Copy copy = _Copy(data), wanted = _Copy(name)
    cdef uint32_t size = 0
    cdef int64_t at
    if request_parse(&head, copy.data, copy.size, 0, 65536, MAX_FIELDS) <= 0:
        raise ValueError("not a request")
    at = cookie_find(&head, copy.data, wanted.data, wanted.size, &size)
    return None if at < 0 else copy.part(at, size)


def lists(value, token):
    """Whether a field value lists a token, given in lower case."""
    cdef _Copy text = _Copy(value), lower = _Copy(token)
    return bool(lists_token(text.data, text.size, lower.data, lower.size))


def measure(data, rounds, response=False):
    """Seconds that it takes to parse a head so many times."""
    cdef head_t head
    cdef _Copy copy = _Copy(data)
    cdef long count = rounds
    cdef bint answers = response
    cdef int got = 1
    started = perf_counter()
    with nogil:
        for _ in range(count):
            if answers:
                got &= response_parse(&head, copy.data, copy.size, 0, 65536, 100, METHOD_GET) > 0
            else:
                got &= request_parse(&head, copy.data, copy.size, 0, 65536, 100) > 0
    ended = perf_counter()
    if not got:
        raise ValueError("not a head")
    return ended - started
