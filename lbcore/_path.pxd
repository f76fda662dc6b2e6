# The path of a request: normalised for routes, and as the backend is asked for it.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from lbcore._facts cimport facts_t

# Normalises the path (RFC 3986, 6.2.2: unreserved characters decoded, dot segments removed) into
# facts.path: the head's own bytes if nothing changes, else `scratch` (as long as the target).
# False: it cannot be normalised (bad escapes, %00, above the root): 400.
#
# Runs of slashes stay: an application may mean them. Routes see each of them as one slash, so that
# "//admin" does not pass by a rule on "/admin". The path of an asterisk or authority has size 0.
cdef bint path_normalize(facts_t *facts, char *scratch) noexcept nogil

# The target as the backend sees it: path after strip_prefix and rewrite, and the query. Segments
# "." and ".." that a rewrite puts together are left out: a capture of "../x" does not climb out of
# where the template puts it. Bytes that no URI has as they are (RFC 3986, 2) are percent-encoded.
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
