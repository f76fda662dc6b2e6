# The signed cookie that keeps a client with its backend.

from libc.stdint cimport uint32_t, uint64_t

from lbcore._plan cimport backend_t, plan_header_t, pool_http_t, pool_t

cdef enum:
    STICKY_VALUE = 32           # longest value

# Writes the value for a backend to `out`; returns its length. It names the backend by its name, so
# it outlives reloads and restarts.
cdef uint32_t sticky_write(const pool_http_t *http, const backend_t *backend,
                           char *out) noexcept nogil

# Index within the pool of the backend with this name_hash; -1: it is not there.
cdef int sticky_named(const plan_header_t *plan, const pool_t *pool,
                      uint64_t name_hash) noexcept nogil

# Index within the pool of the backend that a cookie's value names; -1: a bad signature, or unknown.
cdef int sticky_find(const plan_header_t *plan, const pool_t *pool, const pool_http_t *http,
                     const char *value, uint32_t size) noexcept nogil
