# Reaching a backend: the socket, its source address, the connect.

from libc.stdint cimport uint32_t

from lbcore._loop cimport loop_t
from lbcore._plan cimport backend_t, pool_t
from lbcore._proxy cimport endpoint_t
from lbcore._relay cimport end_t

cdef enum Connect:
    CONNECT_PENDING = 0
    CONNECT_READY = 1
    CONNECT_FAILED = -1         # the backend's fault
    CONNECT_INTERNAL = -2       # ours: no descriptor, memory, port or permission

# Opens a socket to a backend and connects, sending `data` (or NULL) if it takes it already:
# relay.given says how much. `owner` and `tag` are whose events it brings. On failure the socket, if
# any, is the caller's to close.
cdef int connect_backend(loop_t *loop, void *owner, int tag, const pool_t *pool,
                         const backend_t *backend, const endpoint_t *source, end_t *server,
                         const char *data, uint32_t size) noexcept nogil

# Keep-alive probes and the user timeout, for a connection that has lived for a while.
cdef void tune_upstream(int fd, const pool_t *pool) noexcept nogil
