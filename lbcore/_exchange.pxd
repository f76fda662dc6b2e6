# The life of an HTTP exchange: from a complete request head to the last byte of the response.

from libc.stdint cimport uint32_t

from lbcore._loop cimport loop_t
from lbcore._web cimport conn_t, exchange_t, web_t

# A new exchange of a connection, with a reference to its plan. NULL without memory.
cdef exchange_t *exchange_new(loop_t *loop, web_t *web, conn_t *conn) noexcept nogil

# The head is in web.head, parsed from x.request, which holds all that was read.
cdef void exchange_begin(loop_t *loop, web_t *web, exchange_t *x) noexcept nogil

# A socket has become ready, or it was this exchange's turn: goes on as far as it can. All of these
# leave it in a state; X_DONE, X_TUNNEL and X_ABORT are for the connection to act on.
cdef void exchange_client(loop_t *loop, web_t *web, exchange_t *x) noexcept nogil
cdef void exchange_origin(loop_t *loop, web_t *web, exchange_t *x, uint32_t events) noexcept nogil
cdef void exchange_work(loop_t *loop, web_t *web, exchange_t *x) noexcept nogil
cdef void exchange_found(loop_t *loop, web_t *web, exchange_t *x, int result) noexcept nogil
cdef void exchange_timeout(loop_t *loop, web_t *web, exchange_t *x) noexcept nogil
