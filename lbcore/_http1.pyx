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
# Accepted although the grammar of URIs does not have them: the bytes "<>\^`{|} and those from 0x80
# on in targets, which browsers and scripts do send. They mean nothing in a request line.

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memchr, memcmp, memcpy, memmove, memset

from collections import namedtuple
from time import perf_counter

cdef extern from *:
    """
    #include <endian.h>
    #include <string.h>
    /* Eight bytes, the first of them lowest. */
    static inline unsigned long long lb_eight(const void *at) {
        unsigned long long word;
        memcpy(&word, at, 8);
        return le64toh(word);
    }
    #define lb_lowest(mask) ((unsigned) __builtin_ctzll(mask) >> 3)
    #define lb_rare(condition) __builtin_expect(!!(condition), 0)
    #define LB_ONES 0x0101010101010101ull
    #define LB_HIGHS 0x8080808080808080ull
    #define LB_SPACES 0x2020202020202020ull
    #define LB_MAX_LENGTH (1ull << 62)
    """
    uint64_t ONES "LB_ONES"
    uint64_t HIGHS "LB_HIGHS"
    uint64_t SPACES "LB_SPACES"
    uint64_t MAX_LENGTH "LB_MAX_LENGTH"
    uint64_t eight "lb_eight" (const void *at) noexcept nogil
    uint32_t lowest "lb_lowest" (uint64_t mask) noexcept nogil
    bint rare "lb_rare" (bint condition) noexcept nogil
    int leading_zeros "__builtin_clzll" (uint64_t value) noexcept nogil

cdef enum:
    MORE = 0                    # HEAD_MORE, and CHUNKED_MORE
    BAD = -400
    TOO_LONG_LINE = -414
    TOO_LARGE = -431
    UNKNOWN = -501
    BAD_VERSION = -505
    BAD_ANSWER = -502

    TAB = 9
    LF = 10
    CR = 13

    MAX_SIZE = 1 << 30          # of a head: offsets and results fit
    MAX_METHOD = 64             # RFC 9112, 3: 501 for a method longer than any that is known
    MAX_OPTIONS = 32            # names in Connection: bounds the work of looking for each
    MAX_LINE = 4096             # of a chunk size and its extensions
    MAX_DIGITS = 16             # of a chunk size
    EAGER = 4096                # heads up to this size are parsed again whenever bytes arrive

    # What a byte may be, in KIND.
    IS_TOKEN = 1                # RFC 9110, 5.6.2
    IS_UNDERSCORE = 2
    IS_HOST = 4                 # of a name in Host
    IS_HEX = 8

cdef uint8_t KIND[256]


def _mark(text, kind):
    for byte in bytearray(text):
        KIND[<int> byte] |= <uint8_t> kind


memset(KIND, 0, sizeof(KIND))
_LETTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_mark(b"!#$%&'*+-.^_`|~0123456789" + _LETTERS, IS_TOKEN)
_mark(b"-._~0123456789" + _LETTERS, IS_HOST)
_mark(b"0123456789ABCDEFabcdef", IS_HEX)
_mark(b"_", IS_UNDERSCORE)


# ---- names of fields -------------------------------------------------------------------------
#
# One look finds a name: SLOTS is a perfect hash table over length, first and last two letters. The
# multipliers were found by trying; a new name that collides fails the import.

cdef enum:
    KNOWN = 56                  # at least as many as names below; 0 is none of them
    WORDS = 4                   # a name has at most 32 bytes

    # What is known of a name, beside its FieldId.
    NAME_HOP = 1                # = FIELD_HOP
    NAME_NOT_TRAILER = 2        # RFC 9110, 6.5.1
    NAME_KEPT = 4               # also when Connection names it

ctypedef struct name_t:
    uint64_t key[WORDS]         # lower case, padded with zeros
    uint64_t mask[WORDS]
    uint16_t size
    uint8_t id
    uint8_t traits

cdef name_t NAMES[KNOWN]
cdef uint8_t SLOTS[256]


cdef inline uint32_t slot_of(const uint8_t *name, uint32_t size) noexcept nogil:
    return (size * 71 + (name[0] | 0x20) * 32 + (name[size - 1] | 0x20) * 66
            + (name[size - 2] | 0x20) * 248) & 255


# Concerning one connection (RFC 9110, 7.6.1). Credentials for proxies are for the proxy that asked
# for them, and only it (RFC 9110, 11.7): the backend's are not the client's business, nor the other
# way round. Trailer goes from end to end.
_HOP = {
    FIELD_CONNECTION: b"connection", FIELD_KEEP_ALIVE: b"keep-alive",
    FIELD_PROXY_CONNECTION: b"proxy-connection", FIELD_TE: b"te",
    FIELD_TRANSFER_ENCODING: b"transfer-encoding", FIELD_UPGRADE: b"upgrade",
}
_HOP_OTHER = (b"http2-settings", b"proxy-authenticate", b"proxy-authentication-info",
              b"proxy-authorization")

# Meant for all recipients. Connection must not name them, and a client that does hopes to take from
# a request what a proxy before lbcore put there, or what a backend relies on: they stay.
_END_TO_END = {
    FIELD_HOST: b"host", FIELD_CONTENT_LENGTH: b"content-length", FIELD_EXPECT: b"expect",
    FIELD_COOKIE: b"cookie", FIELD_SET_COOKIE: b"set-cookie",
    FIELD_AUTHORIZATION: b"authorization", FIELD_FORWARDED: b"forwarded",
    FIELD_X_FORWARDED_FOR: b"x-forwarded-for", FIELD_X_FORWARDED_PROTO: b"x-forwarded-proto",
    FIELD_X_FORWARDED_HOST: b"x-forwarded-host", FIELD_X_REQUEST_ID: b"x-request-id",
    FIELD_VIA: b"via", FIELD_ACCEPT: b"accept", FIELD_USER_AGENT: b"user-agent",
    FIELD_REFERER: b"referer", FIELD_DATE: b"date", FIELD_SERVER: b"server",
    FIELD_LOCATION: b"location", FIELD_CONTENT_TYPE: b"content-type",
    FIELD_X_ACCEL_BUFFERING: b"x-accel-buffering", FIELD_ORIGIN: b"origin",
    FIELD_RANGE: b"range",
}
_END_TO_END_OTHER = (
    b"age", b"cache-control", b"content-encoding", b"content-range", b"expires", b"if-match",
    b"if-modified-since", b"if-none-match", b"if-range", b"if-unmodified-since", b"max-forwards",
    b"pragma", b"retry-after", b"vary", b"warning", b"www-authenticate", b"x-forwarded-port",
    b"x-forwarded-prefix", b"x-forwarded-server", b"x-real-ip",
)


cdef int learn(int index, int field, bytes name, int traits) except -1:
    cdef name_t *entry = &NAMES[index]
    cdef const uint8_t *text = <const uint8_t *> name
    cdef bytes padded = name.ljust(8 * WORDS, b"\0")
    cdef bytes mask = (b"\xff" * len(name)).ljust(8 * WORDS, b"\0")
    cdef uint32_t slot = slot_of(text, len(name)), i
    if index >= KNOWN or len(padded) > 8 * WORDS or SLOTS[slot]:
        raise ImportError(f"the table of field names has no place for {name.decode()}")
    for i in range(WORDS):
        entry.key[i] = eight(<const char *> padded + 8 * i)
        entry.mask[i] = eight(<const char *> mask + 8 * i)
    entry.size = len(name)
    entry.id = field
    entry.traits = traits
    SLOTS[slot] = index
    return 0


def _learn_all():
    cdef int index = 0
    memset(SLOTS, 0, sizeof(SLOTS))
    names = [
        *((field, name, NAME_HOP | NAME_NOT_TRAILER) for field, name in _HOP.items()),
        *((FIELD_OTHER, name, NAME_HOP | NAME_NOT_TRAILER) for name in _HOP_OTHER),
        *((field, name, NAME_KEPT | NAME_NOT_TRAILER) for field, name in _END_TO_END.items()),
        *((FIELD_OTHER, name, NAME_KEPT | NAME_NOT_TRAILER) for name in _END_TO_END_OTHER),
        (FIELD_TRAILER, b"trailer", NAME_NOT_TRAILER),
    ]
    for field, name, traits in names:
        index += 1
        learn(index, field, name, traits)


_learn_all()
del _learn_all


cdef bint same_name(const name_t *entry, const uint8_t *name, uint32_t size) noexcept nogil:
    # Known names have letters, digits and "-" only, and no other byte of a token becomes one of
    # those by setting 0x20.
    cdef uint32_t i
    if entry.size != size:
        return False
    for i in range(size):
        if name[i] | 0x20 != (<const uint8_t *> entry.key)[i]:
            return False
    return True


cdef inline const name_t *name_find(const uint8_t *name, uint32_t size,
                                    uint32_t readable) noexcept nogil:
    """What is known of a token; NULL: nothing. `readable`: bytes from `name` on."""
    cdef const name_t *entry
    cdef uint32_t i
    if size < 2:
        return NULL
    entry = &NAMES[SLOTS[slot_of(name, size)]]
    if entry.size != size:
        return NULL
    if rare(readable < 8 * WORDS):
        return entry if same_name(entry, name, size) else NULL
    for i in range((size + 7) >> 3):
        if (eight(name + 8 * i) | SPACES) & entry.mask[i] != entry.key[i]:
            return NULL
    return entry


# ---- scanning --------------------------------------------------------------------------------
#
# Eight bytes at once: of the marks that `below` and `equal` leave in HIGHS, the lowest is right;
# only those above a right one may be wrong.

cdef inline uint64_t below(uint64_t word, uint64_t bound) noexcept nogil:
    return (word - ONES * bound) & ~word


cdef inline uint64_t equal(uint64_t word, uint64_t byte) noexcept nogil:
    word ^= ONES * byte
    return (word - ONES) & ~word


cdef inline uint32_t value_end(const uint8_t *data, uint32_t at, uint32_t limit) noexcept nogil:
    """Where the first byte stands that no field value has, from ``at`` on; or ``limit``."""
    cdef uint64_t word, found
    while True:
        if limit - at >= 8:
            word = eight(data + at)
            found = (below(word, 0x20) | equal(word, 0x7F)) & HIGHS
            if found == 0:
                at += 8
                continue
            at += lowest(found)
        else:
            while at < limit and data[at] >= 0x20 and data[at] != 0x7F:
                at += 1
        if at == limit or data[at] != TAB:
            return at
        at += 1


cdef inline uint32_t target_end(const uint8_t *data, uint32_t at, uint32_t limit) noexcept nogil:
    """Where the first byte stands that no target has, from ``at`` on; or ``limit``."""
    cdef uint64_t word, found
    while limit - at >= 8:
        word = eight(data + at)
        found = (below(word, 0x21) | equal(word, 0x7F) | equal(word, c'#')) & HIGHS
        if found:
            return at + lowest(found)
        at += 8
    while at < limit and data[at] > 0x20 and data[at] != 0x7F and data[at] != c'#':
        at += 1
    return at


cdef inline int line_end(const uint8_t *data, uint32_t at, uint32_t limit) noexcept nogil:
    """Behind the CRLF that must stand at ``at``; MORE or BAD."""
    if at == limit:
        return MORE
    if data[at] != CR:
        return BAD
    if at + 1 == limit:
        return MORE
    return <int> at + 2 if data[at + 1] == LF else BAD


cdef inline bint blank(uint8_t byte) noexcept nogil:
    return byte == c' ' or byte == TAB


cdef inline uint8_t lower_of(uint8_t byte) noexcept nogil:
    return byte | 0x20 if c'A' <= byte <= c'Z' else byte


cdef bint same_text(const char *text, size_t size, const char *lower,
                    size_t lower_size) noexcept nogil:
    cdef size_t i
    if size != lower_size:
        return False
    for i in range(size):
        if lower_of(<uint8_t> text[i]) != <uint8_t> lower[i]:
            return False
    return True


cdef bint next_member(const char *value, size_t size, size_t *at, size_t *start,
                      size_t *length) noexcept nogil:
    """The list member from ``at`` on, which moves behind it; False: there is none. Members may be
    empty, and a value has at least one."""
    cdef size_t end
    cdef const char *comma
    if at[0] > size:
        return False
    start[0] = at[0]
    comma = <const char *> memchr(value + at[0], c',', size - at[0])
    end = <size_t> (comma - value) if comma != NULL else size
    at[0] = end + 1
    while start[0] < end and blank(<uint8_t> value[start[0]]):
        start[0] += 1
    while end > start[0] and blank(<uint8_t> value[end - 1]):
        end -= 1
    length[0] = end - start[0]
    return True


cdef bint lists_token(const char *value, size_t size, const char *lower,
                      size_t lower_size) noexcept nogil:
    cdef size_t at = 0, start, length
    while next_member(value, size, &at, &start, &length):
        if same_text(value + start, length, lower, lower_size):
            return True
    return False


# ---- fields ----------------------------------------------------------------------------------

cdef inline uint32_t found(const head_t *head, int field) noexcept nogil:
    """1 + index of the first field of that id, or 0."""
    return head.first[field]


cdef int fields_parse(head_t *head, const uint8_t *data, uint32_t at, uint32_t limit,
                      uint32_t max_fields, uint8_t hop, uint32_t *repeated) noexcept nogil:
    """Field lines and the empty line from ``at`` on: behind them, MORE, BAD or TOO_LARGE.

    ``hop``: traits that make a field FIELD_HOP. ``repeated``: a bit per FieldId found again.
    """
    cdef uint32_t count = 0, start, end, width
    cdef uint8_t kinds, kind
    cdef const name_t *entry
    cdef field_t *field
    cdef int next_
    while True:
        if at == limit:
            return MORE
        if data[at] == CR:
            head.count = count
            return line_end(data, at, limit)
        if count == max_fields:
            return TOO_LARGE
        start = at
        kinds = 0
        kind = 0
        while at < limit:
            kind = KIND[data[at]]
            if not kind & IS_TOKEN:
                break
            kinds |= kind
            at += 1
        width = at - start
        if rare(width > 0xFFFF):
            return TOO_LARGE
        if at == limit:
            return MORE
        if data[at] != c':' or width == 0:
            return BAD
        at += 1
        while at < limit and blank(data[at]):
            at += 1
        field = &head.fields[count]
        count += 1
        field.name = start
        field.name_size = <uint16_t> width
        field.value = at
        end = value_end(data, at, limit)
        next_ = line_end(data, end, limit)
        if next_ <= 0:
            return next_
        while end > at and blank(data[end - 1]):
            end -= 1
        field.value_size = end - at
        field.id = FIELD_OTHER
        field.flags = FIELD_UNDERSCORE if kinds & IS_UNDERSCORE else 0
        entry = name_find(data + start, width, limit - start)
        if entry != NULL:
            field.id = entry.id
            if entry.traits & hop:
                field.flags |= FIELD_HOP
            if entry.id:
                if head.first[entry.id]:
                    repeated[0] |= <uint32_t> 1 << entry.id
                else:
                    head.first[entry.id] = <uint8_t> count
        at = <uint32_t> next_


cdef int option_hops(head_t *head, const uint8_t *data, const uint8_t *option,
                     size_t size) noexcept nogil:
    """Marks the fields that Connection names. BAD for those that frame or route the message."""
    cdef const name_t *entry
    cdef uint32_t i, j
    cdef field_t *field
    for i in range(size):
        if not KIND[option[i]] & IS_TOKEN:
            return 0            # names no field
    entry = name_find(option, <uint32_t> size, <uint32_t> size)
    if entry != NULL and entry.traits & NAME_KEPT:
        return BAD if entry.id == FIELD_HOST or entry.id == FIELD_CONTENT_LENGTH else 0
    for i in range(head.count):
        field = &head.fields[i]
        if field.name_size != size:
            continue
        for j in range(size):
            if lower_of(data[field.name + j]) != lower_of(option[j]):
                break
        else:
            field.flags |= FIELD_HOP
    return 0


cdef enum:
    OPTION_CLOSE = 1
    OPTION_KEEP_ALIVE = 2
    OPTION_UPGRADE = 4


cdef int options_read(head_t *head, const uint8_t *data) noexcept nogil:
    """What the Connection fields list, as OPTION bits, with the fields they name marked; or BAD."""
    cdef uint32_t i, count = 0
    cdef int options = 0
    cdef const char *value
    cdef size_t at, start, length
    for i in range(found(head, FIELD_CONNECTION) - 1, head.count):
        if head.fields[i].id != FIELD_CONNECTION:
            continue
        value = <const char *> data + head.fields[i].value
        at = 0
        while next_member(value, head.fields[i].value_size, &at, &start, &length):
            if same_text(value + start, length, b"keep-alive", 10):
                options |= OPTION_KEEP_ALIVE
                continue
            if same_text(value + start, length, b"close", 5):
                options |= OPTION_CLOSE
                continue
            if same_text(value + start, length, b"upgrade", 7):
                options |= OPTION_UPGRADE
                continue
            if length == 0:
                continue
            count += 1
            if count > MAX_OPTIONS:
                return BAD
            if option_hops(head, data, <const uint8_t *> value + start, length) != 0:
                return BAD
    return options


cdef bint h2c_offered(const head_t *head, const uint8_t *data) noexcept nogil:
    cdef uint32_t i
    for i in range(found(head, FIELD_UPGRADE) - 1, head.count):
        if head.fields[i].id == FIELD_UPGRADE and lists_token(
                <const char *> data + head.fields[i].value, head.fields[i].value_size, b"h2c", 3):
            return True
    return False


cdef int connection_finish(head_t *head, const uint8_t *data) noexcept nogil:
    """HEAD_KEEP_ALIVE and HEAD_UPGRADE. Returns 0, or BAD."""
    cdef int options = 0
    if found(head, FIELD_CONNECTION):
        options = options_read(head, data)
        if options < 0:
            return BAD
    if not options & OPTION_CLOSE and (head.minor or options & OPTION_KEEP_ALIVE):
        head.flags |= HEAD_KEEP_ALIVE
    # RFC 9110, 7.8: Upgrade in HTTP/1.0 is ignored.
    if (options & OPTION_UPGRADE and head.minor and found(head, FIELD_UPGRADE)
            and not h2c_offered(head, data)):
        head.flags |= HEAD_UPGRADE
    return 0


cdef int codings_judge(const head_t *head, const uint8_t *data) noexcept nogil:
    """Transfer-Encoding over all its fields: 0 for exactly one "chunked"; BAD; or UNKNOWN for
    codings that could be meant."""
    cdef uint32_t i
    cdef uint32_t chunked = 0, others = 0
    cdef size_t at, start, length, j
    cdef const char *value
    for i in range(found(head, FIELD_TRANSFER_ENCODING) - 1, head.count):
        if head.fields[i].id != FIELD_TRANSFER_ENCODING:
            continue
        value = <const char *> data + head.fields[i].value
        at = 0
        while next_member(value, head.fields[i].value_size, &at, &start, &length):
            if chunked or length == 0:
                return BAD      # chunked is not last, or is repeated
            if same_text(value + start, length, b"chunked", 7):
                chunked = 1
                continue
            for j in range(length):
                if not KIND[<uint8_t> value[start + j]] & IS_TOKEN:
                    return BAD
            others = 1
    return UNKNOWN if others else 0


cdef int framing_finish(head_t *head, const uint8_t *data, uint32_t repeated) noexcept nogil:
    """What the fields say: BODY_CHUNKED, BODY_LENGTH, or BODY_NONE for nothing. Returns 0, BAD or
    UNKNOWN."""
    cdef const field_t *field
    cdef const uint8_t *digits
    cdef uint32_t i
    cdef uint64_t length = 0
    head.framing = BODY_NONE
    if found(head, FIELD_TRANSFER_ENCODING):
        # RFC 9112, 6.1: in HTTP/1.0 the framing is faulty.
        if found(head, FIELD_CONTENT_LENGTH) or head.minor == 0:
            return BAD
        head.framing = BODY_CHUNKED
        return codings_judge(head, data)
    if found(head, FIELD_CONTENT_LENGTH) == 0:
        return 0
    field = &head.fields[found(head, FIELD_CONTENT_LENGTH) - 1]
    if repeated & <uint32_t> 1 << FIELD_CONTENT_LENGTH or field.value_size == 0:
        return BAD
    digits = data + field.value
    for i in range(field.value_size):
        if not c'0' <= digits[i] <= c'9':
            return BAD
        length = length * 10 + (digits[i] - <uint8_t> c'0')
        if length > MAX_LENGTH:
            return BAD
    head.length = length
    head.framing = BODY_LENGTH
    head.flags |= HEAD_LENGTH_GIVEN
    return 0


# ---- authorities -----------------------------------------------------------------------------

ctypedef struct authority_t:
    const uint8_t *host
    uint32_t host_size
    int port                    # -1: none, or an empty one


cdef bint ipv4_valid(const uint8_t *text, uint32_t size) noexcept nogil:
    cdef uint32_t at = 0, octet, value, start
    for octet in range(4):
        if octet:
            if at == size or text[at] != c'.':
                return False
            at += 1
        start = at
        value = 0
        while at < size and at - start < 3 and c'0' <= text[at] <= c'9':
            value = value * 10 + (text[at] - <uint8_t> c'0')
            at += 1
        if at == start or value > 255 or (text[start] == c'0' and at - start > 1):
            return False
    return at == size


cdef bint ipv6_valid(const uint8_t *text, uint32_t size) noexcept nogil:
    """RFC 3986, 3.2.2: without a zone."""
    cdef uint32_t at = 0, start, groups = 0
    cdef bint gap = False
    if size >= 2 and text[0] == c':' and text[1] == c':':
        if size == 2:
            return True
        gap = True
        at = 2
    while groups < 8:
        start = at
        while at < size and KIND[text[at]] & IS_HEX:
            at += 1
        if at < size and text[at] == c'.':
            return ((groups < 6 if gap else groups == 6)
                    and ipv4_valid(text + start, size - start))
        if at == start or at - start > 4:
            return False
        groups += 1
        if at == size:
            return gap if groups < 8 else not gap
        if text[at] != c':' or at + 1 == size:
            return False
        at += 1
        if text[at] == c':':
            if gap:
                return False
            gap = True
            at += 1
            if at == size:
                return groups < 8
    return False


cdef bint authority_parse(const uint8_t *text, uint32_t size, authority_t *out) noexcept nogil:
    """uri-host and, behind a colon, a port, which may be empty. No user information."""
    cdef uint32_t at = 0, port = 0, start
    cdef const uint8_t *bracket
    out.host = text
    out.port = -1
    if size and text[0] == c'[':
        bracket = <const uint8_t *> memchr(text, c']', size)
        if bracket == NULL or not ipv6_valid(text + 1, <uint32_t> (bracket - text) - 1):
            return False
        at = <uint32_t> (bracket - text) + 1
    else:
        while at < size and KIND[text[at]] & IS_HOST:
            at += 1
    out.host_size = at
    if at == 0:
        return False
    if at == size:
        return True
    if text[at] != c':' or size - at > 6:
        return False
    at += 1
    start = at
    while at < size:
        if not c'0' <= text[at] <= c'9':
            return False
        port = port * 10 + (text[at] - <uint8_t> c'0')
        at += 1
    if port > 0xFFFF:
        return False
    if at > start:
        out.port = <int> port
    return True


cdef bint hosts_agree(const authority_t *target, const authority_t *host,
                      int default_port) noexcept nogil:
    """``default_port``: -1 when there is none, as with CONNECT; then Host may leave it out."""
    cdef uint32_t i
    cdef int ours = target.port if target.port >= 0 else default_port
    cdef int theirs = host.port if host.port >= 0 else default_port
    if target.host_size != host.host_size:
        return False
    for i in range(host.host_size):
        if lower_of(target.host[i]) != lower_of(host.host[i]):
            return False
    return ours == theirs or theirs < 0


# ---- requests --------------------------------------------------------------------------------

cdef int version_parse(const uint8_t *data, uint32_t at, uint32_t limit,
                       uint8_t *minor) noexcept nogil:
    """HTTP/1.x at ``at``: behind it, MORE, BAD or BAD_VERSION."""
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
                return BAD
        elif not c'0' <= text[i] <= c'9':
            return BAD
    if text[5] != c'1':
        return BAD_VERSION
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


cdef int target_parse(head_t *head, const uint8_t *data, authority_t *authority,
                      int *default_port) noexcept nogil:
    """The four forms (RFC 9112, 3.2). Returns 0 or BAD."""
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
        return 0 if authority_parse(text, size, authority) and authority.port >= 0 else BAD
    if text[0] == c'/':
        head.form = FORM_ORIGIN
        path_split(head, data, at, end)
        return 0
    if size == 1 and text[0] == c'*':
        head.form = FORM_ASTERISK
        path_split(head, data, end, end)
        return 0 if head.method == METHOD_OPTIONS else BAD
    head.form = FORM_ABSOLUTE
    if size > 7 and same_text(<const char *> text, 7, b"http://", 7):
        default_port[0] = 80
        at += 7
    elif size > 8 and same_text(<const char *> text, 8, b"https://", 8):
        default_port[0] = 443
        at += 8
    else:
        return BAD
    head.host = at
    while at < end and data[at] != c'/' and data[at] != c'?':
        at += 1
    head.host_size = at - head.host
    path_split(head, data, at, end)
    return 0 if authority_parse(data + head.host, head.host_size, authority) else BAD


cdef int host_finish(head_t *head, const uint8_t *data, uint32_t repeated,
                     const authority_t *target, int default_port) noexcept nogil:
    cdef authority_t given
    cdef const field_t *field
    if found(head, FIELD_HOST) == 0:
        return BAD if head.minor else 0
    if repeated & <uint32_t> 1 << FIELD_HOST:
        return BAD
    field = &head.fields[found(head, FIELD_HOST) - 1]
    if field.value_size == 0:
        return BAD if head.minor else 0
    if not authority_parse(data + field.value, field.value_size, &given):
        return BAD
    if head.form == FORM_ABSOLUTE or head.form == FORM_AUTHORITY:
        return 0 if hosts_agree(target, &given, default_port) else BAD
    head.host = field.value
    head.host_size = field.value_size
    return 0


cdef void expect_finish(head_t *head, const uint8_t *data) noexcept nogil:
    cdef uint32_t i
    if found(head, FIELD_EXPECT) == 0 or head.minor == 0:
        return                  # RFC 9110, 10.1.1: ignored in HTTP/1.0
    for i in range(found(head, FIELD_EXPECT) - 1, head.count):
        if head.fields[i].id == FIELD_EXPECT:
            head.flags |= HEAD_EXPECT if same_text(
                <const char *> data + head.fields[i].value, head.fields[i].value_size,
                b"100-continue", 12) else HEAD_EXPECT_OTHER


cdef void trailers_offered(head_t *head, const uint8_t *data) noexcept nogil:
    cdef uint32_t i
    for i in range(found(head, FIELD_TE) - 1, head.count):
        if head.fields[i].id == FIELD_TE and lists_token(
                <const char *> data + head.fields[i].value, head.fields[i].value_size,
                b"trailers", 8):
            head.flags |= HEAD_TRAILERS


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
    short_ = MORE if size < max_size else TOO_LONG_LINE
    if limit and data[0] == CR:
        next_ = line_end(data, 0, limit)
        if next_ <= 0:
            return next_ if next_ else short_
        at = 2
    head.start = at

    while at < limit and KIND[data[at]] & IS_TOKEN:
        at += 1
        if at - head.start > MAX_METHOD:
            return UNKNOWN
    if at == limit:
        return short_
    if data[at] != c' ' or at == head.start:
        return BAD
    head.method_size = <uint16_t> (at - head.start)
    head.method = method_of(data + head.start, head.method_size)
    at += 1
    head.target = at
    at = target_end(data, at, limit)
    if at == limit:
        return short_
    if data[at] != c' ' or at == head.target:
        return BAD
    head.target_size = at - head.target
    next_ = version_parse(data, at + 1, limit, &head.minor)
    if next_ > 0:
        next_ = line_end(data, <uint32_t> next_, limit)
    if next_ <= 0:
        return next_ if next_ else short_
    at = <uint32_t> next_
    if target_parse(head, data, &authority, &default_port) != 0:
        return BAD

    memset(head.first, 0, sizeof(head.first))
    next_ = fields_parse(head, data, at, limit, max_fields, NAME_HOP, &repeated)
    if next_ <= 0:
        return next_ if next_ or size < max_size else TOO_LARGE
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
    expect_finish(head, data)
    if found(head, FIELD_TE):
        trailers_offered(head, data)
    return <int> head.size


# ---- responses and trailers ------------------------------------------------------------------

cdef int response_read(head_t *head, const uint8_t *data, uint32_t limit, uint32_t max_fields,
                       int method) noexcept nogil:
    """Behind the head, MORE, or below 0."""
    cdef uint32_t at, i, repeated = 0
    cdef int next_ = version_parse(data, 0, limit, &head.minor)
    if next_ <= 0:
        return next_
    at = <uint32_t> next_
    for i in range(4):
        if at + i == limit:
            return MORE
        if data[at + i] != c' ' if i == 0 else not c'0' <= data[at + i] <= c'9':
            return BAD
    head.status = <uint16_t> ((data[at + 1] - <uint8_t> c'0') * 100
                              + (data[at + 2] - <uint8_t> c'0') * 10
                              + (data[at + 3] - <uint8_t> c'0'))
    if not 100 <= head.status <= 599:
        return BAD
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
        return BAD
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
        return TOO_LARGE
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


# ---- cookies ---------------------------------------------------------------------------------

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
        return got
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
        """(0: more, 1: the last chunk is behind it, -1: bad; bytes taken; body bytes)"""
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
    cdef long i, count = rounds
    cdef bint answers = response
    cdef int got = 1
    started = perf_counter()
    with nogil:
        for i in range(count):
            if answers:
                got &= response_parse(&head, copy.data, copy.size, 0, 65536, 100, METHOD_GET) > 0
            else:
                got &= request_parse(&head, copy.data, copy.size, 0, 65536, 100) > 0
    ended = perf_counter()
    if not got:
        raise ValueError("not a head")
    return ended - started
