# Templates filled in. Segments were made of the user's text when the configuration was compiled:
# what is left is to copy. The doors and what they promise are in _template.pxd.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from lbcore._http1 cimport cookie_find, field_t, same_text
from lbcore._path cimport after_slashes
from lbcore._plan cimport (
    PART_BACKEND, PART_CAPTURE, PART_CLIENT_IP, PART_CLIENT_PORT, PART_COOKIE, PART_HEADER,
    PART_HOST, PART_LISTENER, PART_METHOD, PART_PATH, PART_POOL, PART_PORT, PART_QUERY,
    PART_REQUEST_ID, PART_ROUTE, PART_SCHEME, PART_TAIL, PART_TEXT, PART_URI, segment_t, text_of,
    text_t,
)
from lbcore._proxy cimport endpoint_text, endpoint_t
from lbcore._writer cimport lower_byte, put, put_byte, put_number, put_text

cdef enum Origin:               # of bytes that go into a URI
    FROM_USER = 0               # the configuration: URI syntax, wherever it has any
    FROM_TARGET = 1             # a request target: fit for another one
    FROM_DATA = 2               # anything else: data, which must not become syntax

cdef enum:
    ADDRESS_ROOM = 48           # of endpoint_text
    SMALL_ROOM = 256            # what any part needs that is not made of the head or a name

cdef const char *HEX = b"0123456789ABCDEF"


cdef const char *host_name(const facts_t *facts, uint32_t *size) noexcept nogil:
    cdef const char *host
    cdef uint32_t i
    size[0] = 0
    if facts.head == NULL or facts.head.host_size == 0:
        return b""
    host = facts.base + facts.head.host
    size[0] = facts.head.host_size
    if host[0] == c'[':                 # an IPv6 address has colons of its own
        for i in range(size[0]):
            if host[i] == c']':
                size[0] = i + 1
                break
        return host
    for i in range(size[0]):
        if host[i] == c':':
            size[0] = i
            break
    if size[0] and host[size[0] - 1] == c'.':
        size[0] -= 1
    return host


# ---- bytes -----------------------------------------------------------------------------------

cdef void put_lower(writer_t *writer, const char *data, uint32_t size) noexcept nogil:
    cdef uint32_t i
    for i in range(size):
        put_byte(writer, lower_byte(data[i]))


cdef bint stays(uint8_t byte, int origin) noexcept nogil:
    """Whether a byte may stand in a URI as it is."""
    if byte <= 0x20 or byte >= 0x7F:
        return False
    if origin == FROM_USER:
        return True
    if byte == c'#' or byte == c'"' or byte == c'<' or byte == c'>':
        return False
    if origin == FROM_TARGET:
        return True
    return byte != c'?' and byte != c'&' and byte != c'%' and byte != c'\\'


cdef void put_part(writer_t *writer, const char *data, uint32_t size, int purpose,
                   int origin) noexcept nogil:
    cdef uint32_t i
    cdef uint8_t byte
    if purpose == TEMPLATE_FIELD:
        put(writer, data, size)
        return
    for i in range(size):
        byte = <uint8_t> data[i]
        if stays(byte, origin):
            put_byte(writer, <char> byte)
        else:
            put_byte(writer, c'%')
            put_byte(writer, HEX[byte >> 4])
            put_byte(writer, HEX[byte & 15])


cdef void put_name(const facts_t *facts, text_t name, int purpose, int origin,
                   writer_t *writer) noexcept nogil:
    put_part(writer, text_of(facts.plan, name), name.size, purpose, origin)


cdef void put_address(writer_t *writer, const endpoint_t *endpoint) noexcept nogil:
    cdef char text[ADDRESS_ROOM]
    cdef uint32_t size = endpoint_text(endpoint, text)
    put(writer, text, size)


# ---- parts -----------------------------------------------------------------------------------

cdef void put_host(const facts_t *facts, writer_t *writer) noexcept nogil:
    cdef uint32_t size
    cdef const char *host = host_name(facts, &size)
    if size:
        put_lower(writer, host, size)
    elif facts.local.family == 6:
        put_byte(writer, c'[')
        put_address(writer, &facts.local)
        put_byte(writer, c']')
    elif facts.local.family:
        put_address(writer, &facts.local)
    else:
        put_text(writer, b"localhost")


cdef void put_field(const facts_t *facts, text_t name, int purpose,
                    writer_t *writer) noexcept nogil:
    """All fields of a name as one list (RFC 9110, 5.3)."""
    cdef const char *wanted = text_of(facts.plan, name)
    cdef const field_t *field
    cdef bint before = False
    cdef uint32_t i
    for i in range(facts.head.count):
        field = &facts.head.fields[i]
        if same_text(facts.base + field.name, field.name_size, wanted, name.size):
            if before:
                put_text(writer, b", ")
            put_part(writer, facts.base + field.value, field.value_size, purpose, FROM_DATA)
            before = True


cdef void put_query(const facts_t *facts, int purpose, writer_t *writer) noexcept nogil:
    put_part(writer, facts.base + facts.head.query, facts.head.query_size, purpose, FROM_TARGET)


cdef void put_capture(const facts_t *facts, uint32_t number, int purpose,
                      writer_t *writer) noexcept nogil:
    cdef uint32_t start, end
    if number >= facts.captures.count:
        return
    start = facts.captures.start[number]
    end = facts.captures.end[number]
    if start < end <= facts.path_size:
        put_part(writer, facts.path + start, end - start, purpose, FROM_TARGET)


cdef void put_tail(const facts_t *facts, int purpose, writer_t *writer) noexcept nogil:
    cdef uint32_t at = after_slashes(facts.path, facts.path_size, facts.matched)
    if at < facts.path_size:
        put_part(writer, facts.path + at, facts.path_size - at, purpose, FROM_TARGET)


cdef void put_of_request(const facts_t *facts, const segment_t *segment, int purpose,
                         writer_t *writer) noexcept nogil:
    """Parts that only a parsed head has."""
    cdef int64_t found
    cdef uint32_t size
    if segment.part == PART_METHOD:
        # The request line is "METHOD target": the method ends one byte before the target.
        put_part(writer, facts.base + facts.head.target - 1 - facts.head.method_size,
                 facts.head.method_size, purpose, FROM_DATA)
    elif segment.part == PART_PATH:
        put_part(writer, facts.path, facts.path_size, purpose, FROM_TARGET)
    elif segment.part == PART_QUERY:
        put_query(facts, purpose, writer)
    elif segment.part == PART_URI:
        put_part(writer, facts.path, facts.path_size, purpose, FROM_TARGET)
        if facts.head.query:
            put_byte(writer, c'?')
            put_query(facts, purpose, writer)
    elif segment.part == PART_HEADER:
        put_field(facts, segment.text, purpose, writer)
    elif segment.part == PART_COOKIE:
        found = cookie_find(facts.head, facts.base, text_of(facts.plan, segment.text),
                            segment.text.size, &size)
        if found >= 0:
            put_part(writer, facts.base + found, size, purpose, FROM_DATA)
    elif segment.part == PART_CAPTURE:
        put_capture(facts, segment.number, purpose, writer)
    elif segment.part == PART_TAIL:
        put_tail(facts, purpose, writer)


cdef void put_segment(const facts_t *facts, const segment_t *segment, int purpose,
                      writer_t *writer) noexcept nogil:
    if segment.part == PART_TEXT:
        put_name(facts, segment.text, purpose, FROM_USER, writer)
    elif segment.part == PART_CLIENT_IP:
        put_address(writer, &facts.client)
    elif segment.part == PART_CLIENT_PORT:
        put_number(writer, facts.client.port)
    elif segment.part == PART_HOST:
        put_host(facts, writer)
    elif segment.part == PART_PORT:
        if facts.local.family:
            put_number(writer, facts.local.port)
    elif segment.part == PART_SCHEME:
        put_text(writer, b"https" if facts.secure else b"http")
    elif segment.part == PART_REQUEST_ID:
        put_part(writer, facts.id, facts.id_size, purpose, FROM_DATA)
    elif segment.part == PART_LISTENER:
        put_name(facts, facts.http.name, purpose, FROM_DATA, writer)
    elif segment.part == PART_ROUTE:
        if facts.route != NULL:
            put_name(facts, facts.route.name, purpose, FROM_DATA, writer)
    elif segment.part == PART_POOL:
        if facts.pool != NULL:
            put_name(facts, facts.pool.name, purpose, FROM_DATA, writer)
    elif segment.part == PART_BACKEND:
        if facts.backend != NULL:
            put_name(facts, facts.backend.name, purpose, FROM_DATA, writer)
    elif facts.head != NULL:
        put_of_request(facts, segment, purpose, writer)


cdef void template_write(const facts_t *facts, span_t segments, int purpose,
                         writer_t *writer) noexcept nogil:
    cdef const segment_t *segment = <const segment_t *> (<const char *> facts.plan + segments.at)
    cdef char *start = writer.at
    cdef char *at
    cdef uint32_t i
    for i in range(segments.count):
        put_segment(facts, &segment[i], purpose, writer)
    # No parsed head and no checked configuration holds these. A line that ended here would be a
    # field, or a message, that nobody wrote: so it is seen to once more.
    at = start
    while at < writer.at:
        if (<uint8_t> at[0] < 0x20 and at[0] != c'\t') or at[0] == 0x7F:
            at[0] = c' ' if purpose == TEMPLATE_FIELD else c'_'
        at += 1


cdef uint64_t template_room(const facts_t *facts, span_t segments) noexcept nogil:
    cdef const segment_t *segment = <const segment_t *> (<const char *> facts.plan + segments.at)
    cdef uint64_t room = 0, any
    cdef uint32_t i
    any = SMALL_ROOM + facts.http.name.size
    any += facts.head.size if facts.head != NULL else 0
    any += facts.route.name.size if facts.route != NULL else 0
    any += facts.pool.name.size if facts.pool != NULL else 0
    any += facts.backend.name.size if facts.backend != NULL else 0
    for i in range(segments.count):     # three: every byte of it encoded
        room += 3 * (segment[i].text.size if segment[i].part == PART_TEXT else any)
    return room
