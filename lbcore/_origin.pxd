# Connections to backends: made, kept for the next request, used again, closed.

from libc.stdint cimport uint32_t

from lbcore._loop cimport loop_t
from lbcore._plan cimport backend_t, plan_header_t, pool_http_t, pool_t
from lbcore._web cimport exchange_t, origin_t, web_t

# An idle connection to a backend that may be used now, or NULL.
cdef origin_t *origin_reuse(loop_t *loop, web_t *web, const backend_t *backend,
                            const pool_http_t *http) noexcept nogil

# Connects to exchange.seek.backend, sending `data` if it takes it already: relay.given says how
# much. The result is a Connect; exchange.origin is set unless it is negative.
cdef int origin_connect(loop_t *loop, web_t *web, exchange_t *exchange, const pool_t *pool,
                        const char *data, uint32_t size) noexcept nogil

# The exchange is over for this connection: kept for the next one, or closed.
cdef void origin_give(loop_t *loop, web_t *web, origin_t *origin, const pool_http_t *http,
                      bint keep) noexcept nogil

# Closes it; with a reset if `abort`.
cdef void origin_close(loop_t *loop, web_t *web, origin_t *origin, bint abort) noexcept nogil

# Takes the socket out of it, for a tunnel, and frees it.
cdef void origin_take_out(loop_t *loop, web_t *web, origin_t *origin) noexcept nogil

# An event of a connection without an exchange: it is of no use any more.
cdef void origin_idle_event(loop_t *loop, web_t *web, origin_t *origin) noexcept nogil

cdef void origin_timeout(loop_t *loop, web_t *web, origin_t *origin) noexcept nogil

# Closes all idle ones.
cdef void origins_close(loop_t *loop, web_t *web) noexcept nogil

# Closes the idle ones whose backend is not in this plan.
cdef void origins_keep(loop_t *loop, web_t *web, const plan_header_t *plan) noexcept nogil

# Frees what was closed in this turn.
cdef void origins_bury(web_t *web) noexcept nogil
