# The line that a TCP connection leaves in the access log.

from lbcore._loop cimport loop_t
from lbcore._session cimport session_t

# To be called before anything of an ending connection is given back; `reason` is an EndReason.
cdef void session_line(loop_t *loop, const session_t *session, int reason) noexcept nogil
