# Basic authentication (RFC 7617) against crypt(5) hashes, with what was verified remembered.

from libc.stdint cimport uint32_t, uint64_t

from lbcore._plan cimport plan_header_t, route_t

cdef enum AuthResult:
    AUTH_NO = 0
    AUTH_YES = 1
    AUTH_LATER = 2              # too many to verify at this moment

cdef enum:
    AUTH_USER = 64              # longest user name, in bytes

ctypedef void auth_t            # one per worker: what was verified, and the budget; opaque

cdef auth_t *auth_make() noexcept nogil
cdef void auth_free(auth_t *auth) noexcept nogil

# `value`: of the Authorization field. With AUTH_YES, the name is in `user` (AUTH_USER bytes).
cdef int auth_check(auth_t *auth, const plan_header_t *plan, const route_t *route,
                    const char *value, uint32_t size, char *user, uint32_t *user_size,
                    uint64_t now_ms) noexcept nogil
