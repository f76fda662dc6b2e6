# The client behind proxies. The doors and what they promise are in _forwarded.pxd.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from lbcore._http1 cimport (
    FIELD_FORWARDED, FIELD_OTHER, FIELD_UNDERSCORE, FIELD_X_FORWARDED_FOR, FIELD_X_FORWARDED_HOST,
    FIELD_X_FORWARDED_PROTO, FIELD_X_REQUEST_ID, head_t, same_text,
)
from lbcore._facts cimport ID_MAX
from lbcore._plan cimport (
    HTTP_FORWARDED, HTTP_REQUEST_ID, HTTP_X_FORWARDED, cidr_t, http_t, plan_header_t,
)
from lbcore._proxy cimport cidr_contains, endpoint_t, endpoint_text
from lbcore._writer cimport lower_byte, put, put_byte, put_text

cdef extern from "<arpa/inet.h>":
    int inet_pton(int family, const char *text, void *out) noexcept nogil
    enum:
        AF_INET
        AF_INET6

cdef enum:
    HOPS = 100                  # addresses that are looked at: bounds what a long list costs
    ADDRESS_ROOM = 48

cdef const char *HEX = b"0123456789abcdef"

ctypedef struct slice_t:
    const char *data
    uint32_t size


# ---- lists from the right ----------------------------------------------------------------------

cdef slice_t trimmed(const char *data, uint32_t size) noexcept nogil:
    cdef slice_t slice
    while size and (data[0] == c' ' or data[0] == c'\t'):
        data += 1
        size -= 1
    while size and (data[size - 1] == c' ' or data[size - 1] == c'\t'):
        size -= 1
    slice.data = data
    slice.size = size
    return slice


cdef uint32_t quote_begins(const char *data, uint32_t end) noexcept nogil:
    """Where the quoted string begins whose closing quote is data[end]; ``end`` if nowhere."""
    cdef uint32_t at = end, slashes
    while at:
        at -= 1
        if data[at] != c'"':
            continue
        slashes = 0
        while slashes < at and data[at - 1 - slashes] == c'\\':
            slashes += 1
        if slashes % 2 == 0:
            return at
    return end


cdef slice_t last_element(slice_t *list_, bint quotes) noexcept nogil:
    """Takes the last element off a comma-separated list.

    From the right, because only what trusted proxies appended is sure to be well-formed: an open
    quote to the left of it swallows nothing.
    """
    cdef uint32_t at = list_.size
    cdef slice_t element
    while at and list_.data[at - 1] != c',':
        at -= 1
        if quotes and list_.data[at] == c'"':
            at = quote_begins(list_.data, at)
    element = trimmed(list_.data + at, list_.size - at)
    list_.size = at - 1 if at else 0
    return element


# ---- addresses as text -------------------------------------------------------------------------

cdef bint parse_port(const char *text, uint32_t size, uint16_t *port) noexcept nogil:
    cdef uint32_t value = 0, i
    port[0] = 0
    if size and text[0] == c'_':
        return True                     # obfuscated (RFC 7239, 6.3)
    if size == 0 or size > 5:
        return False
    for i in range(size):
        if not c'0' <= text[i] <= c'9':
            return False
        value = value * 10 + (text[i] - c'0')
    port[0] = <uint16_t> value
    return value <= 65535


cdef bint parse_address(slice_t word, endpoint_t *out) noexcept nogil:
    """``192.0.2.1``, ``192.0.2.1:80``, ``2001:db8::1``, ``[2001:db8::1]``, ``[2001:db8::1]:80``."""
    cdef char text[ADDRESS_ROOM]
    cdef uint32_t i, colons = 0, colon = 0, size = word.size
    cdef const char *data = word.data
    cdef endpoint_t found
    cdef bint six
    memset(&found, 0, sizeof(endpoint_t))
    if size and data[0] == c'[':
        for i in range(size):
            if data[i] == c']':
                break
        else:
            return False
        if i + 1 < size and (data[i + 1] != c':'
                             or not parse_port(data + i + 2, size - i - 2, &found.port)):
            return False
        data += 1
        size = i - 1
        six = True
    else:
        for i in range(size):
            if data[i] == c':':
                colons += 1
                colon = i
        if colons == 1:
            if not parse_port(data + colon + 1, size - colon - 1, &found.port):
                return False
            size = colon
        six = colons > 1
    if size == 0 or size >= ADDRESS_ROOM:
        return False
    memcpy(text, data, size)
    text[size] = 0
    found.family = 6 if six else 4
    for i in range(size):
        if text[i] == 0:
            return False
    if inet_pton(AF_INET6 if six else AF_INET, text, found.address) != 1:
        return False
    out[0] = found
    return True


# ---- who the client is -------------------------------------------------------------------------

cdef bint is_trusted(const plan_header_t *plan, const http_t *http,
                     const endpoint_t *endpoint) noexcept nogil:
    cdef const cidr_t *trusted = <const cidr_t *> (<const char *> plan + http.trusted.at)
    cdef uint32_t i
    if endpoint.family == 0:
        return http.trusted.count > 0
    for i in range(http.trusted.count):
        if cidr_contains(&trusted[i], endpoint):
            return True
    return False


cdef slice_t parameter(slice_t element, const char *name, uint32_t name_size) noexcept nogil:
    """The value of ``name=value`` in an element of Forwarded, without quotes; size 0: none."""
    cdef uint32_t at = 0, start, equals
    cdef bint quoted
    cdef slice_t pair, value
    while at < element.size:
        start = at
        equals = 0
        quoted = False
        while at < element.size and (quoted or element.data[at] != c';'):
            if element.data[at] == c'"':
                quoted = not quoted
            elif element.data[at] == c'\\' and quoted and at + 1 < element.size:
                at += 1
            elif element.data[at] == c'=' and equals == 0 and not quoted:
                equals = at
            at += 1
        if equals:
            pair = trimmed(element.data + start, equals - start)
            if same_text(pair.data, pair.size, name, name_size):
                value = trimmed(element.data + equals + 1, at - equals - 1)
                if value.size > 1 and value.data[0] == c'"' \
                        and value.data[value.size - 1] == c'"':
                    value.data += 1
                    value.size -= 2
                return value
        at += 1
    value.data = element.data
    value.size = 0
    return value


cdef bint has(const head_t *head, int id_) noexcept nogil:
    return head.first[id_] != 0


cdef void walk(facts_t *facts, int id_) noexcept nogil:
    """The client after a list of addresses, read from the nearest to the farthest."""
    cdef const head_t *head = facts.head
    cdef uint32_t left = head.count, hops = 0
    cdef slice_t list_, element, word
    cdef endpoint_t found
    while left:
        left -= 1
        if head.fields[left].id != id_:
            continue
        list_.data = facts.base + head.fields[left].value
        list_.size = head.fields[left].value_size
        while list_.size:
            element = last_element(&list_, id_ == FIELD_FORWARDED)
            if element.size == 0:
                continue                # an empty element means nothing (RFC 9110, 5.6.1)
            word = element
            if id_ == FIELD_FORWARDED:
                word = parameter(element, b"for", 3)
            if not parse_address(word, &found):
                return
            facts.client = found
            if id_ == FIELD_FORWARDED:
                word = parameter(element, b"proto", 5)
                facts.secure = same_text(word.data, word.size, b"https", 5)
            hops += 1
            if hops == HOPS or not is_trusted(facts.plan, facts.http, &found):
                return


cdef bint proto_secure(const facts_t *facts) noexcept nogil:
    cdef const head_t *head = facts.head
    cdef uint32_t i = head.first[<int> FIELD_X_FORWARDED_PROTO], size = 0
    cdef const char *value
    cdef slice_t word
    if i == 0:
        return False
    value = facts.base + head.fields[i - 1].value
    while size < head.fields[i - 1].value_size and value[size] != c',':
        size += 1
    word = trimmed(value, size)
    return same_text(word.data, word.size, b"https", 5)


cdef void take_id(facts_t *facts, const uint64_t *random) noexcept nogil:
    cdef const head_t *head = facts.head
    cdef const char *value
    cdef uint32_t i, first, size = 0
    cdef uint64_t bits
    first = head.first[<int> FIELD_X_REQUEST_ID] if head != NULL else 0
    if first:
        value = facts.base + head.fields[first - 1].value
        size = head.fields[first - 1].value_size
        if size > ID_MAX:
            size = 0
        for i in range(size):
            if not 0x20 < <uint8_t> value[i] < 0x7F:
                size = 0
                break
        for i in range(first, head.count):
            if head.fields[i].id == FIELD_X_REQUEST_ID:
                size = 0                # two ids: neither is one
    if size:
        memcpy(facts.id, value, size)
        facts.id_size = <uint8_t> size
        return
    for i in range(32):
        bits = random[i >> 4] >> (4 * (i & 15))
        facts.id[i] = HEX[bits & 15]
    facts.id_size = 32


cdef void facts_forwarded(facts_t *facts, const uint64_t *random) noexcept nogil:
    cdef uint32_t flags = facts.http.flags
    facts.client = facts.peer
    facts.secure = 0
    facts.trusted = is_trusted(facts.plan, facts.http, &facts.peer)
    take_id(facts, random)
    if not facts.trusted or facts.head == NULL:
        return
    if flags & HTTP_FORWARDED and (not flags & HTTP_X_FORWARDED
                                   or not has(facts.head, FIELD_X_FORWARDED_FOR)):
        walk(facts, FIELD_FORWARDED)
    else:
        walk(facts, FIELD_X_FORWARDED_FOR)
    if flags & HTTP_X_FORWARDED or not flags & HTTP_FORWARDED:
        if has(facts.head, FIELD_X_FORWARDED_PROTO):
            facts.secure = proto_secure(facts)


# ---- what backends are told --------------------------------------------------------------------

cdef uint64_t forwarded_dropped(const facts_t *facts) noexcept nogil:
    cdef uint32_t flags = facts.http.flags
    cdef uint64_t dropped = 0
    if flags & HTTP_X_FORWARDED or not facts.trusted:
        dropped |= 1ULL << FIELD_X_FORWARDED_FOR
        dropped |= 1ULL << FIELD_X_FORWARDED_PROTO
        dropped |= 1ULL << FIELD_X_FORWARDED_HOST
    if flags & HTTP_FORWARDED or not facts.trusted:
        dropped |= 1ULL << FIELD_FORWARDED
    if flags & HTTP_REQUEST_ID:
        dropped |= 1ULL << FIELD_X_REQUEST_ID
    return dropped


cdef bint begins(const char *name, uint32_t size, const char *lower,
                 uint32_t lower_size) noexcept nogil:
    """Whether a name begins so, with "_" taken for "-" as CGI and WSGI do."""
    cdef uint32_t i
    cdef char byte
    if size < lower_size:
        return False
    for i in range(lower_size):
        byte = lower_byte(name[i])
        if byte != lower[i] and not (byte == c'_' and lower[i] == c'-'):
            return False
    return True


cdef bint forwarded_stranger(const facts_t *facts, const field_t *field) noexcept nogil:
    cdef const char *name = facts.base + field.name
    cdef uint32_t size = field.name_size
    if field.id != FIELD_OTHER or lower_byte(name[0]) != c'x':
        return False
    if facts.trusted and not field.flags & FIELD_UNDERSCORE:
        return False
    if begins(name, size, b"x-forwarded-", 12):
        return True
    if size == 9 and begins(name, size, b"x-real-ip", 9):
        return True
    return facts.http.flags & HTTP_REQUEST_ID != 0 and size == 12 \
        and begins(name, size, b"x-request-id", 12)


cdef bint put_list(const facts_t *facts, int id_, writer_t *writer) noexcept nogil:
    """What all fields of a kind say, as one list. Returns whether there was anything."""
    cdef const head_t *head = facts.head
    cdef bint before = False
    cdef uint32_t i, first = head.first[id_]
    if first == 0:
        return False
    for i in range(first - 1, head.count):
        if head.fields[i].id == id_ and head.fields[i].value_size:
            if before:
                put_text(writer, b", ")
            put(writer, facts.base + head.fields[i].value, head.fields[i].value_size)
            before = True
    return before


cdef void put_for(const facts_t *facts, writer_t *writer) noexcept nogil:
    """X-Forwarded-For: the list of a trusted peer, and the peer. A unix socket has no address."""
    cdef char address[ADDRESS_ROOM]
    cdef char *start = writer.at
    cdef bint before
    put_text(writer, b"X-Forwarded-For: ")
    before = facts.trusted and put_list(facts, FIELD_X_FORWARDED_FOR, writer)
    if facts.peer.family:
        if before:
            put_text(writer, b", ")
        put(writer, address, endpoint_text(&facts.peer, address))
    elif not before:
        writer.at = start
        return
    put_text(writer, b"\r\n")


cdef void put_proto(const facts_t *facts, writer_t *writer) noexcept nogil:
    put_text(writer, b"X-Forwarded-Proto: ")
    if not facts.trusted or not put_list(facts, FIELD_X_FORWARDED_PROTO, writer):
        put_text(writer, b"https" if facts.secure else b"http")
    put_text(writer, b"\r\n")


cdef void put_host(const facts_t *facts, writer_t *writer) noexcept nogil:
    cdef char *start = writer.at
    put_text(writer, b"X-Forwarded-Host: ")
    if not facts.trusted or not put_list(facts, FIELD_X_FORWARDED_HOST, writer):
        if facts.head.host_size == 0:
            writer.at = start
            return
        put(writer, facts.base + facts.head.host, facts.head.host_size)
    put_text(writer, b"\r\n")


cdef bint is_token(const char *data, uint32_t size) noexcept nogil:
    cdef uint32_t i
    cdef char byte
    for i in range(size):
        byte = data[i]
        if not (c'a' <= byte <= c'z' or c'A' <= byte <= c'Z' or c'0' <= byte <= c'9'
                or byte == c'.' or byte == c'-' or byte == c'_'):
            return False
    return size > 0


cdef void put_forwarded(const facts_t *facts, writer_t *writer) noexcept nogil:
    """Forwarded (RFC 7239): the elements of a trusted peer, and one for this hop."""
    cdef char address[ADDRESS_ROOM]
    cdef const char *host = facts.base + facts.head.host
    cdef uint32_t i
    put_text(writer, b"Forwarded: ")
    if facts.trusted and put_list(facts, FIELD_FORWARDED, writer):
        put_text(writer, b", ")
    put_text(writer, b"for=")
    if facts.peer.family == 6:
        put_text(writer, b"\"[")
        put(writer, address, endpoint_text(&facts.peer, address))
        put_text(writer, b"]\"")
    elif facts.peer.family:
        put(writer, address, endpoint_text(&facts.peer, address))
    else:
        put_text(writer, b"unknown")
    if facts.head.host_size:
        put_text(writer, b";host=")
        if is_token(host, facts.head.host_size):
            put(writer, host, facts.head.host_size)
        else:
            put_byte(writer, c'"')
            for i in range(facts.head.host_size):
                if host[i] == c'"' or host[i] == c'\\':
                    put_byte(writer, c'\\')
                put_byte(writer, host[i])
            put_byte(writer, c'"')
    # `secure` is the trusted peer's word on the client; the hop to here is what this element tells.
    put_text(writer, b";proto=https\r\n" if facts.secure and not facts.trusted
             else b";proto=http\r\n")


cdef void forwarded_write(const facts_t *facts, uint64_t skipped,
                          writer_t *writer) noexcept nogil:
    if facts.http.flags & HTTP_X_FORWARDED:
        if not skipped >> FIELD_X_FORWARDED_FOR & 1:
            put_for(facts, writer)
        if not skipped >> FIELD_X_FORWARDED_PROTO & 1:
            put_proto(facts, writer)
        if not skipped >> FIELD_X_FORWARDED_HOST & 1:
            put_host(facts, writer)
    if facts.http.flags & HTTP_FORWARDED and not skipped >> FIELD_FORWARDED & 1:
        put_forwarded(facts, writer)
    if facts.http.flags & HTTP_REQUEST_ID and not skipped >> FIELD_X_REQUEST_ID & 1:
        put_text(writer, b"X-Request-ID: ")
        put(writer, facts.id, facts.id_size)
        put_text(writer, b"\r\n")
