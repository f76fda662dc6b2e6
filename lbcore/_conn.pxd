# Clients' HTTP connections: one exchange after the other, from accept to the end.

from libc.stdint cimport uint32_t

from lbcore._loop cimport acceptor_t, loop_t
from lbcore._web cimport conn_t, origin_t, web_t

# A client socket fresh from accept, non-blocking, and its place among the listener's connections on
# the scoreboard. Owns both from here on, whatever happens.
cdef void conn_open(loop_t *loop, acceptor_t *acceptor, int fd, const void *address,
                    uint32_t length) noexcept nogil
cdef void conn_event(loop_t *loop, conn_t *conn, uint32_t events) noexcept nogil
cdef void conn_origin_event(loop_t *loop, origin_t *origin, uint32_t events) noexcept nogil
cdef void conn_timeout(loop_t *loop, conn_t *conn) noexcept nogil

# loop_t.found of an exchange, and loop_t.tunnel_ended.
cdef void conn_found(loop_t *loop, void *exchange, int result) noexcept nogil
cdef void conn_tunnel_ended(loop_t *loop, void *exchange, int reason) noexcept nogil

# What _httpside.pyx tells each connection, also those that are dead: no more requests but those on
# their way; another plan is in force; the end.
cdef void conn_drain(loop_t *loop, conn_t *conn) noexcept nogil
cdef void conn_plan_changed(loop_t *loop, conn_t *conn) noexcept nogil
cdef void conn_shut_down(loop_t *loop, web_t *web, conn_t *conn) noexcept nogil

# All that asked for another turn; the burial of those that ended; and of their memory.
cdef void conns_work(loop_t *loop, web_t *web) noexcept nogil
cdef void conns_bury(web_t *web) noexcept nogil
cdef void conns_free(web_t *web) noexcept nogil
