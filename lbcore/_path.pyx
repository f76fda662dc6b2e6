# Paths of requests. The doors and what they promise are in _path.pxd.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memchr, memmove

from lbcore._http1 cimport FORM_ASTERISK, FORM_AUTHORITY, METHOD_OPTIONS, head_t
from lbcore._plan cimport route_t
from lbcore._template cimport TEMPLATE_TARGET, template_room, template_write
from lbcore._writer cimport put, put_byte, writer_begin, writer_end, writer_t

cdef const char *HEX = b"0123456789ABCDEF"


# ---- as routes see them ------------------------------------------------------------------------

cdef inline bint is_unreserved(int byte) noexcept nogil:
    return (c'a' <= byte <= c'z' or c'A' <= byte <= c'Z' or c'0' <= byte <= c'9'
            or byte == c'-' or byte == c'.' or byte == c'_' or byte == c'~')


cdef inline uint32_t dots(const char *path, uint32_t size, uint32_t at) noexcept nogil:
    """1 or 2 when the segment that begins at ``at`` is "." or "..", else 0."""
    if at == size or path[at] != c'.':
        return 0
    if at + 1 == size or path[at + 1] == c'/':
        return 1
    if path[at + 1] == c'.' and (at + 2 == size or path[at + 2] == c'/'):
        return 2
    return 0


cdef bint is_normal(const char *path, uint32_t size) noexcept nogil:
    """Whether nothing would change. Nearly every path is."""
    cdef uint32_t i
    for i in range(size):
        if path[i] == c'%' or path[i] == c'\\':
            return False
        if path[i] == c'/' and i + 1 < size and path[i + 1] == c'.' and dots(path, size, i + 1):
            return False
    return True


cdef int64_t decode(const char *path, uint32_t size, char *out) noexcept nogil:
    """Decodes unreserved characters and writes other escapes in upper case. -1: a bad escape."""
    cdef uint32_t at = 0, made = 0
    cdef int high, low, byte
    while at < size:
        if path[at] != c'%':
            out[made] = path[at]
            made += 1
            at += 1
            continue
        if at + 3 > size:
            return -1
        high = hex_value(<uint8_t> path[at + 1])
        low = hex_value(<uint8_t> path[at + 2])
        if high < 0 or low < 0 or (high == 0 and low == 0):
            return -1
        byte = high << 4 | low
        at += 3
        if is_unreserved(byte):
            out[made] = <char> byte
            made += 1
        else:
            out[made] = c'%'
            out[made + 1] = HEX[high]
            out[made + 2] = HEX[low]
            made += 3
    return made


cdef int64_t remove_dots(char *path, uint32_t size) noexcept nogil:
    """Resolves dot segments (RFC 3986, 5.2.4) of a path that begins with a slash, in place; -1:
    above the root."""
    cdef uint32_t at = 0, made = 0, end, dot
    cdef const char *slash
    while at < size:
        slash = <const char *> memchr(path + at + 1, c'/', size - at - 1)
        end = <uint32_t> (slash - path) if slash != NULL else size
        dot = dots(path, size, at + 1)
        if dot == 0:
            memmove(path + made, path + at, end - at)
            made += end - at
            at = end
            continue
        if dot == 2:
            if made == 0:
                return -1
            while made:
                made -= 1
                if path[made] == c'/':
                    break
        if end == size:                 # "/a/.." is "/a/"
            path[made] = c'/'
            made += 1
        at = end
    return made


cdef inline uint32_t separator(const char *path, uint32_t size, uint32_t at) noexcept nogil:
    """How many bytes of a separator begin at ``at``: a slash or a backslash, encoded or not."""
    cdef uint32_t following = at
    cdef uint8_t byte
    if at == size:
        return 0
    byte = path_byte(path, size, &following)
    return following - at if byte == c'/' or byte == c'\\' else 0


cdef uint32_t drop_dots(char *path, uint32_t size, bint only_look) noexcept nogil:
    """Leaves dot segments out of a path that begins with a slash, in place, whatever separates
    them. Returns the size of what is left."""
    cdef uint32_t at = 0, made = 0, begin, end
    while at < size:
        begin = end = at + separator(path, size, at)
        while end < size and separator(path, size, end) == 0:
            end += 1
        if begin + 1 <= end <= begin + 2 and path[begin] == c'.' and path[end - 1] == c'.':
            if end < size:
                at = end
                continue
            end = begin                 # "/a/.." is "/a/"
            size = begin
        if not only_look:
            memmove(path + made, path + at, end - at)
        made += end - at
        at = end
    return made


cdef bint path_normalize(facts_t *facts, char *scratch) noexcept nogil:
    cdef const head_t *head = facts.head
    cdef int64_t size
    facts.path = facts.base + head.path
    facts.path_size = head.path_size
    if head.form == FORM_ASTERISK or head.form == FORM_AUTHORITY:
        facts.path = facts.base + head.target
        facts.path_size = 0
        return True
    if head.path_size == 0:
        # http://host: the root, but to OPTIONS the server as a whole (RFC 9112, 3.2.4).
        facts.path = b"/"
        facts.path_size = 0 if head.method == METHOD_OPTIONS and head.query == 0 else 1
        return True
    if facts.path[0] != c'/':
        return False
    if is_normal(facts.path, facts.path_size):
        return True
    size = decode(facts.path, facts.path_size, scratch)
    if size < 0:
        return False
    size = remove_dots(scratch, <uint32_t> size)
    # What is left of dot segments stands beside an encoded slash, or a backslash. Nobody sends that
    # by accident; an application that decodes it goes where no route let it.
    if size < 0 or drop_dots(scratch, <uint32_t> size, True) != size:
        return False
    facts.path = scratch
    facts.path_size = <uint32_t> size
    return True


# ---- as backends see them ----------------------------------------------------------------------

cdef void put_rewritten(const facts_t *facts, writer_t *writer) noexcept nogil:
    """The path of a rewrite, and "?" if the user's template has a query of its own."""
    cdef char *start = writer.at
    cdef char *query
    cdef uint32_t size, behind, made, slashes
    put_byte(writer, c'/')
    template_write(facts, facts.route.rewrite, TEMPLATE_TARGET, writer)
    if writer.full:
        return
    query = <char *> memchr(start, c'?', writer.at - start)
    size = <uint32_t> (query - start if query != NULL else writer.at - start)
    behind = <uint32_t> (writer.at - start) - size
    made = drop_dots(start, size, False)
    slashes = after_slashes(start, made, 0) - 1
    start[slashes] = c'/'               # also where the last of them was encoded
    memmove(start, start + slashes, made - slashes)
    made -= slashes
    memmove(start + made, start + size, behind)
    writer.at = start + made + behind


cdef void put_path(const facts_t *facts, writer_t *writer) noexcept nogil:
    """The path without what strip_prefix takes."""
    cdef const route_t *route = facts.route
    cdef uint32_t skip = 0
    if route != NULL and route.strip_prefix:
        skip = after_slashes(facts.path, facts.path_size, facts.matched)
        put_byte(writer, c'/')
    put(writer, facts.path + skip, facts.path_size - skip)


cdef inline bint must_be_encoded(uint8_t byte) noexcept nogil:
    """Whether no URI has this byte as it is, though the parser lets clients send it."""
    if byte >= 0x80 or c'{' <= byte <= c'}':
        return True
    return (byte == c'"' or byte == c'<' or byte == c'>' or byte == c'\\' or byte == c'^'
            or byte == c'`')


cdef void encode(writer_t *writer) noexcept nogil:
    """Encodes, in place, what no URI has as it is (RFC 3986, 2).

    Servers that split the request line at white space of Unicode would find the end of the target
    at a raw 0x85 or 0xA0.
    """
    cdef uint8_t byte
    cdef size_t i, size = writer.at - writer.start, more = 0
    cdef char *at
    for i in range(size):
        more += 2 * must_be_encoded(<uint8_t> writer.start[i])
    if more == 0:
        return
    if more > <size_t> (writer.end - writer.at):
        writer.full = True
        return
    at = writer.at = writer.at + more
    for i in range(size, 0, -1):        # from the end: what is not read yet is not written over
        byte = <uint8_t> writer.start[i - 1]
        if must_be_encoded(byte):
            at -= 3
            at[0] = c'%'
            at[1] = HEX[byte >> 4]
            at[2] = HEX[byte & 15]
        else:
            at -= 1
            at[0] = <char> byte


cdef uint32_t target_write(const facts_t *facts, char *out, uint32_t room) noexcept nogil:
    cdef const head_t *head = facts.head
    cdef writer_t writer
    writer_begin(&writer, out, room)
    if head.form == FORM_AUTHORITY:
        put(&writer, facts.base + head.target, head.target_size)
        return writer_end(&writer)
    if facts.path_size == 0:
        put_byte(&writer, c'*')
        return writer_end(&writer)
    if facts.route != NULL and facts.route.rewrite.count:
        put_rewritten(facts, &writer)
    else:
        put_path(facts, &writer)
    if head.query and not writer.full:
        put_byte(&writer, c'&' if memchr(out, c'?', writer.at - out) != NULL else c'?')
        put(&writer, facts.base + head.query, head.query_size)
    if not writer.full:
        encode(&writer)
    return writer_end(&writer)


cdef uint64_t target_room(const facts_t *facts) noexcept nogil:
    # Two: a slash before it, and the question mark. Three: every byte of it encoded.
    cdef uint64_t room = 2 + 3 * <uint64_t> facts.head.target_size + facts.path_size
    if facts.route != NULL:
        room += template_room(facts, facts.route.rewrite)
    return room
