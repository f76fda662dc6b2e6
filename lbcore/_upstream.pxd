# The upstream side of a connection: its socket, its source address, the PROXY header, the connect.

from lbcore._plan cimport pool_t
from lbcore._session cimport loop_t, session_t

cdef enum Connect:
    CONNECT_PENDING = 0
    CONNECT_READY = 1
    CONNECT_FAILED = -1         # the backend's fault
    CONNECT_INTERNAL = -2       # ours: no descriptor, memory, port or permission

# Opens a socket to `session.backend` and connects, sending what is held for the server if it takes
# it already: relay.given says how much. On failure the socket, if any, is the caller's to close.
cdef int connect_backend(loop_t *loop, session_t *session, const pool_t *pool) noexcept nogil

# Keep-alive probes and the user timeout, for a connection that has lived for a while.
cdef void tune_upstream(session_t *session, const pool_t *pool) noexcept nogil
