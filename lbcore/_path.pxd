# The path of a request: normalised for routes, and as the backend is asked for it.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from lbcore._facts cimport facts_t

# Normalises the path (RFC 3986, 6.2.2: unreserved characters decoded, dot segments removed) into
# facts.path: the head's own bytes if nothing changes, else `scratch` (as long as the target).
# False: it cannot be normalised (bad escapes, %00, above the root): 400.
#
# Other escapes stay, and so do runs of slashes: an application may mean them. Routes see neither:
# they see what an application sees that decodes the path (as every WSGI server does), with runs of
# slashes as one. So neither "/%2Fadmin" nor "/%40admin" passes by a rule on "/admin" or "/@admin".
# "." and ".." beside an encoded slash, or a backslash, are refused: who decodes them goes
# elsewhere. The path of an asterisk or authority has size 0.
cdef bint path_normalize(facts_t *facts, char *scratch) noexcept nogil

# The target as the backend sees it: path after strip_prefix and rewrite, and the query. Segments
# "." and ".." that a rewrite puts together are left out: a capture of "../x" does not climb out of
# where the template puts it. What strip_prefix and rewrite make does not begin with two slashes: an
# application that redirects to its own path would name another host (RFC 3986, 4.2). Bytes that no
# URI has as they are (RFC 3986, 2) are percent-encoded.
cdef uint32_t target_write(const facts_t *facts, char *out, uint32_t room) noexcept nogil

# Room that suffices for target_write.
cdef uint64_t target_room(const facts_t *facts) noexcept nogil

# The value of a hexadecimal digit; -1: it is none.
cdef inline int hex_value(uint8_t byte) noexcept nogil:
    if c'0' <= byte <= c'9':
        return byte - c'0'
    byte |= 0x20
    if c'a' <= byte <= c'f':
        return byte - c'a' + 10
    return -1

# The byte at `at` as routes see it, an escape decoded; moves `at` behind it.
cdef inline uint8_t path_byte(const char *path, uint32_t size, uint32_t *at) noexcept nogil:
    cdef uint32_t from_ = at[0]
    cdef int high, low
    at[0] = from_ + 1
    if path[from_] != c'%' or from_ + 3 > size:
        return <uint8_t> path[from_]
    high = hex_value(<uint8_t> path[from_ + 1])
    low = hex_value(<uint8_t> path[from_ + 2])
    if high < 0 or low < 0:
        return <uint8_t> path[from_]
    at[0] = from_ + 3
    return <uint8_t> (high << 4 | low)

# Where the slashes end that begin at `at`, encoded ones among them; `at` if there is none.
cdef inline uint32_t after_slashes(const char *path, uint32_t size, uint32_t at) noexcept nogil:
    cdef uint32_t following = at
    while at < size and path_byte(path, size, &following) == c'/':
        at = following
    return at
