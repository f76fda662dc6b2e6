# Field lines, and what they say of the connection and the body. The doors are in _fields.pxd; what
# is refused beyond the grammar stands at the head of _http1.pyx.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset

from lbcore._bytes cimport (
    CR, IS_TOKEN, IS_UNDERSCORE, KIND, LF, SPACES, blank, eight, equals_lower, lists_lower,
    lower_of, next_member, rare, value_end,
)
from lbcore._http1 cimport (
    BODY_CHUNKED, BODY_LENGTH, BODY_NONE, FIELD_ACCEPT, FIELD_AUTHORIZATION, FIELD_CONNECTION,
    FIELD_CONTENT_LENGTH, FIELD_CONTENT_TYPE, FIELD_COOKIE, FIELD_DATE, FIELD_EXPECT,
    FIELD_FORWARDED, FIELD_HOP, FIELD_HOST, FIELD_KEEP_ALIVE, FIELD_LOCATION, FIELD_ORIGIN,
    FIELD_OTHER, FIELD_PROXY_CONNECTION, FIELD_RANGE, FIELD_REFERER, FIELD_SERVER,
    FIELD_SET_COOKIE, FIELD_TE, FIELD_TRAILER, FIELD_TRANSFER_ENCODING, FIELD_UNDERSCORE,
    FIELD_UPGRADE, FIELD_USER_AGENT, FIELD_VIA, FIELD_X_ACCEL_BUFFERING, FIELD_X_FORWARDED_FOR,
    FIELD_X_FORWARDED_HOST, FIELD_X_FORWARDED_PROTO, FIELD_X_REQUEST_ID, HEAD_EXPECT,
    HEAD_EXPECT_OTHER, HEAD_KEEP_ALIVE, HEAD_LENGTH_GIVEN, HEAD_TRAILERS, HEAD_UPGRADE,
    RULE_BARE_LF, RULE_BOTH_LENGTHS, RULE_CODING, RULE_CONNECTION, RULE_FIELD_NAME,
    RULE_FOLDED_LINE, RULE_HEAD_TOO_LONG, RULE_LENGTH, RULE_TOO_MANY_FIELDS, RULE_TWO_LENGTHS,
    field_t, head_t,
)

cdef extern from *:
    """
    #define LB_MAX_LENGTH (1ull << 62)
    """
    uint64_t MAX_LENGTH "LB_MAX_LENGTH"

cdef enum:
    MAX_OPTIONS = 32            # names in Connection: bounds the work of looking for each

# ---- names -----------------------------------------------------------------------------------
#
# One look finds a name: SLOTS is a perfect hash table over length, first and last two letters. The
# multipliers were found by trying; a new name that collides fails the import.

cdef enum:
    KNOWN = 56                  # at least as many as names below; 0 is none of them
    WORDS = 4                   # a name has at most 32 bytes

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


cdef int learn(int field, bytes name, int traits) except -1:
    cdef uint32_t index = 0, slot = slot_of(<const uint8_t *> name, <uint32_t> len(name)), i
    cdef bytes padded = name.ljust(8 * WORDS, b"\0")
    cdef bytes mask = (b"\xff" * len(name)).ljust(8 * WORDS, b"\0")
    while index < KNOWN and (index == 0 or NAMES[index].size):
        index += 1
    if index == KNOWN or len(padded) > 8 * WORDS or SLOTS[slot]:
        raise ImportError(f"the table of field names has no place for {name.decode()}")
    for i in range(WORDS):
        NAMES[index].key[i] = eight(<const char *> padded + 8 * i)
        NAMES[index].mask[i] = eight(<const char *> mask + 8 * i)
    NAMES[index].size = <uint16_t> len(name)
    NAMES[index].id = <uint8_t> field
    NAMES[index].traits = <uint8_t> traits
    SLOTS[slot] = <uint8_t> index
    return 0


cdef int learn_all() except -1:
    cdef int hop = NAME_HOP | NAME_NOT_TRAILER, kept = NAME_KEPT | NAME_NOT_TRAILER
    memset(NAMES, 0, sizeof(NAMES))
    memset(SLOTS, 0, sizeof(SLOTS))

    # Concerning one connection (RFC 9110, 7.6.1). Credentials for proxies are for the proxy that
    # asked for them, and only it (RFC 9110, 11.7): the backend's are not the client's business, nor
    # the other way round. Trailer goes from end to end.
    learn(FIELD_CONNECTION, b"connection", hop)
    learn(FIELD_KEEP_ALIVE, b"keep-alive", hop)
    learn(FIELD_PROXY_CONNECTION, b"proxy-connection", hop)
    learn(FIELD_TE, b"te", hop)
    learn(FIELD_TRANSFER_ENCODING, b"transfer-encoding", hop)
    learn(FIELD_UPGRADE, b"upgrade", hop)
    for name in (b"http2-settings", b"proxy-authenticate", b"proxy-authentication-info",
                 b"proxy-authorization"):
        learn(FIELD_OTHER, name, hop)
    learn(FIELD_TRAILER, b"trailer", NAME_NOT_TRAILER)

    # Meant for all recipients. Connection must not name them, and a client that does hopes to take
    # from a request what a proxy before lbcore put there, or what a backend relies on: they stay.
    learn(FIELD_HOST, b"host", kept)
    learn(FIELD_CONTENT_LENGTH, b"content-length", kept)
    learn(FIELD_EXPECT, b"expect", kept)
    learn(FIELD_COOKIE, b"cookie", kept)
    learn(FIELD_SET_COOKIE, b"set-cookie", kept)
    learn(FIELD_AUTHORIZATION, b"authorization", kept)
    learn(FIELD_FORWARDED, b"forwarded", kept)
    learn(FIELD_X_FORWARDED_FOR, b"x-forwarded-for", kept)
    learn(FIELD_X_FORWARDED_PROTO, b"x-forwarded-proto", kept)
    learn(FIELD_X_FORWARDED_HOST, b"x-forwarded-host", kept)
    learn(FIELD_X_REQUEST_ID, b"x-request-id", kept)
    learn(FIELD_VIA, b"via", kept)
    learn(FIELD_ACCEPT, b"accept", kept)
    learn(FIELD_USER_AGENT, b"user-agent", kept)
    learn(FIELD_REFERER, b"referer", kept)
    learn(FIELD_DATE, b"date", kept)
    learn(FIELD_SERVER, b"server", kept)
    learn(FIELD_LOCATION, b"location", kept)
    learn(FIELD_CONTENT_TYPE, b"content-type", kept)
    learn(FIELD_X_ACCEL_BUFFERING, b"x-accel-buffering", kept)
    learn(FIELD_ORIGIN, b"origin", kept)
    learn(FIELD_RANGE, b"range", kept)
    for name in (
        b"age", b"cache-control", b"content-encoding", b"content-range", b"expires", b"if-match",
        b"if-modified-since", b"if-none-match", b"if-range", b"if-unmodified-since",
        b"max-forwards", b"pragma", b"retry-after", b"vary", b"warning", b"www-authenticate",
        b"x-forwarded-port", b"x-forwarded-prefix", b"x-forwarded-server", b"x-real-ip",
    ):
        learn(FIELD_OTHER, name, kept)
    return 0


learn_all()


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


# ---- field lines -----------------------------------------------------------------------------

cdef int name_fault(uint8_t byte, uint32_t width) noexcept nogil:
    """The rule that a byte breaks which is not the colon behind a name of ``width`` bytes."""
    if byte == LF:
        return RULE_BARE_LF
    return RULE_FOLDED_LINE if width == 0 and blank(byte) else RULE_FIELD_NAME


cdef int fields_parse(head_t *head, const uint8_t *data, uint32_t at, uint32_t limit,
                      uint32_t max_fields, uint8_t hop, uint32_t *repeated) noexcept nogil:
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
            return broken(431, RULE_TOO_MANY_FIELDS)
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
            return broken(431, RULE_HEAD_TOO_LONG)
        if at == limit:
            return MORE
        if data[at] != c':' or width == 0:
            return broken(400, name_fault(data[at], width))
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
    """Marks the fields that Connection names. Not 0 for those that frame or route the message."""
    cdef const name_t *entry
    cdef uint32_t i, j
    cdef field_t *field
    for i in range(size):
        if not KIND[option[i]] & IS_TOKEN:
            return 0            # names no field
    entry = name_find(option, <uint32_t> size, <uint32_t> size)
    if entry != NULL and entry.traits & NAME_KEPT:
        return entry.id == FIELD_HOST or entry.id == FIELD_CONTENT_LENGTH
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
    """What the Connection fields list, as OPTION bits, with the fields they name marked; below 0:
    broken."""
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
            if equals_lower(value + start, length, b"keep-alive", 10):
                options |= OPTION_KEEP_ALIVE
                continue
            if equals_lower(value + start, length, b"close", 5):
                options |= OPTION_CLOSE
                continue
            if equals_lower(value + start, length, b"upgrade", 7):
                options |= OPTION_UPGRADE
                continue
            if length == 0:
                continue
            count += 1
            if count > MAX_OPTIONS or option_hops(
                    head, data, <const uint8_t *> value + start, length) != 0:
                return broken(400, RULE_CONNECTION)
    return options


cdef bint h2c_offered(const head_t *head, const uint8_t *data) noexcept nogil:
    cdef uint32_t i
    for i in range(found(head, FIELD_UPGRADE) - 1, head.count):
        if head.fields[i].id == FIELD_UPGRADE and lists_lower(
                <const char *> data + head.fields[i].value, head.fields[i].value_size, b"h2c", 3):
            return True
    return False


cdef int connection_finish(head_t *head, const uint8_t *data) noexcept nogil:
    cdef int options = 0
    if found(head, FIELD_CONNECTION):
        options = options_read(head, data)
        if options < 0:
            return options
    if not options & OPTION_CLOSE and (head.minor or options & OPTION_KEEP_ALIVE):
        head.flags |= HEAD_KEEP_ALIVE
    # RFC 9110, 7.8: Upgrade in HTTP/1.0 is ignored.
    if (options & OPTION_UPGRADE and head.minor and found(head, FIELD_UPGRADE)
            and not h2c_offered(head, data)):
        head.flags |= HEAD_UPGRADE
    return 0


cdef int codings_judge(const head_t *head, const uint8_t *data) noexcept nogil:
    """Transfer-Encoding over all its fields: 0 for exactly one "chunked"; or broken, with 501 for
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
                return broken(400, RULE_CODING)     # chunked is not last, or is repeated
            if equals_lower(value + start, length, b"chunked", 7):
                chunked = 1
                continue
            for j in range(length):
                if not KIND[<uint8_t> value[start + j]] & IS_TOKEN:
                    return broken(400, RULE_CODING)
            others = 1
    return broken(501, RULE_CODING) if others else 0


cdef int framing_finish(head_t *head, const uint8_t *data, uint32_t repeated) noexcept nogil:
    cdef const field_t *field
    cdef const uint8_t *digits
    cdef uint32_t i
    cdef uint64_t length = 0
    head.framing = BODY_NONE
    if found(head, FIELD_TRANSFER_ENCODING):
        if found(head, FIELD_CONTENT_LENGTH):
            return broken(400, RULE_BOTH_LENGTHS)
        if head.minor == 0:
            return broken(400, RULE_CODING)     # RFC 9112, 6.1: the framing is faulty
        head.framing = BODY_CHUNKED
        return codings_judge(head, data)
    if found(head, FIELD_CONTENT_LENGTH) == 0:
        return 0
    field = &head.fields[found(head, FIELD_CONTENT_LENGTH) - 1]
    if repeated & <uint32_t> 1 << FIELD_CONTENT_LENGTH:
        return broken(400, RULE_TWO_LENGTHS)
    if field.value_size == 0:
        return broken(400, RULE_LENGTH)
    digits = data + field.value
    for i in range(field.value_size):
        # One digit more than MAX_LENGTH has, and it could wrap.
        if not c'0' <= digits[i] <= c'9' or length > MAX_LENGTH // 10:
            return broken(400, RULE_LENGTH)
        length = length * 10 + (digits[i] - <uint8_t> c'0')
    if length > MAX_LENGTH:
        return broken(400, RULE_LENGTH)
    head.length = length
    head.framing = BODY_LENGTH
    head.flags |= HEAD_LENGTH_GIVEN
    return 0


cdef void expect_finish(head_t *head, const uint8_t *data) noexcept nogil:
    cdef uint32_t i
    if found(head, FIELD_EXPECT) == 0 or head.minor == 0:
        return                  # RFC 9110, 10.1.1: ignored in HTTP/1.0
    for i in range(found(head, FIELD_EXPECT) - 1, head.count):
        if head.fields[i].id == FIELD_EXPECT:
            head.flags |= HEAD_EXPECT if equals_lower(
                <const char *> data + head.fields[i].value, head.fields[i].value_size,
                b"100-continue", 12) else HEAD_EXPECT_OTHER


cdef void trailers_offered(head_t *head, const uint8_t *data) noexcept nogil:
    cdef uint32_t i
    for i in range(found(head, FIELD_TE) - 1, head.count):
        if head.fields[i].id == FIELD_TE and lists_lower(
                <const char *> data + head.fields[i].value, head.fields[i].value_size,
                b"trailers", 8):
            head.flags |= HEAD_TRAILERS


cdef void wishes_finish(head_t *head, const uint8_t *data) noexcept nogil:
    expect_finish(head, data)
    if found(head, FIELD_TE):
        trailers_offered(head, data)
