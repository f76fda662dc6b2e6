# Clients' HTTP connections, and the HTTP side of a worker as a whole.

from libc.stdint cimport uint32_t, uint64_t

from lbcore._loop cimport acceptor_t, loop_t
from lbcore._web cimport conn_t, origin_t, web_t

# The HTTP side of a worker; NULL without memory. `seed`: two random numbers.
cdef web_t *web_make(loop_t *loop, const uint64_t *seed) noexcept nogil
cdef void web_free(loop_t *loop, web_t *web) noexcept nogil

# A client socket fresh from accept, non-blocking, and its place among the listener's connections on
# the scoreboard. Owns both from here on, whatever happens.
cdef void conn_open(loop_t *loop, acceptor_t *acceptor, int fd, const void *address,
                    uint32_t length) noexcept nogil
cdef void conn_event(loop_t *loop, conn_t *conn, uint32_t events) noexcept nogil
cdef void conn_origin_event(loop_t *loop, origin_t *origin, uint32_t events) noexcept nogil
cdef void conn_timeout(loop_t *loop, conn_t *conn) noexcept nogil

# Deferred work, and the burial of what ended, at the end of a turn. True: there is more to do.
cdef bint web_work(loop_t *loop, web_t *web) noexcept nogil

# No new requests but those on their way: idle connections are closed soon.
cdef void web_drain(loop_t *loop, web_t *web) noexcept nogil

# Another plan is in force: connections to backends that it does not have are closed.
cdef void web_plan_changed(loop_t *loop, web_t *web) noexcept nogil

# Ends every connection.
cdef void web_end_all(loop_t *loop, web_t *web) noexcept nogil
