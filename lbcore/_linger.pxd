# The end of a client's connection on which not all of its words were read.

from lbcore._loop cimport loop_t
from lbcore._web cimport conn_t, web_t

cdef enum LingerResult:
    LINGER_WAIT = 0             # for the client's words, or its end, or conn.timer
    LINGER_OVER = 1             # to be closed in order
    LINGER_CUT = 2              # it goes on and on: to be reset

# The last answer is out: the client is told so, and what it still sends is thrown away, for a
# while. The connection owns its socket and its timer from here on, and nothing else.
cdef int linger_begin(loop_t *loop, web_t *web, conn_t *conn) noexcept nogil

# There is something to read, and conn.timer has fired. A LingerResult each.
cdef int linger_read(loop_t *loop, web_t *web, conn_t *conn) noexcept nogil
cdef int linger_timeout(loop_t *loop, web_t *web, conn_t *conn) noexcept nogil
