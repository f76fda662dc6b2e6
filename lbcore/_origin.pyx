# Connections to backends: see _origin.pxd.
#
# Rules:
# - Newest first: the connection that rested least is the one most likely to be alive, and what a
#   burst needed ages out behind it.
# - An idle connection that says anything, its end included, is closed: a backend that speaks
#   unasked would have its words taken for the answer to the next request.
# - A connection whose response was not read to its very end, or with bytes behind it, is never
#   kept.

from libc.stdint cimport uint32_t
from libc.stdlib cimport calloc

from lbcore._gather cimport GATHER_NOT, gather_end
from lbcore._loop cimport TAG_ORIGIN, TIMER_ORIGIN, relative
from lbcore._plan cimport backend_t, plan_pools, pool_backends, pool_http
from lbcore._relay cimport FAILED, FIN, READABLE, end_t
from lbcore._scoreboard cimport MAX_BACKENDS, STATE_GONE
from lbcore._seek cimport close_socket, share_descriptors
from lbcore._timers cimport timer_clear, timer_set
from lbcore._upstream cimport CONNECT_INTERNAL, CONNECT_READY, connect_backend
from lbcore.includes.linux cimport EAGAIN, MSG_PEEK, errno, recv
from lbcore._web cimport (
    ORIGIN_BUSY, ORIGIN_CONNECTING, ORIGIN_DEAD, ORIGIN_FREE, ORIGIN_IDLE,
)


cdef origin_t *origin_new(web_t *web) noexcept nogil:
    cdef origin_t *origin = web.free_origins
    if origin != NULL:
        web.free_origins = origin.next
    else:
        origin = <origin_t *> calloc(1, sizeof(origin_t))
        if origin == NULL:
            return NULL
    origin.next = NULL
    origin.previous = NULL
    origin.requests = 0
    origin.timer.kind = TIMER_ORIGIN
    return origin


cdef void unlink(loop_t *loop, web_t *web, origin_t *origin) noexcept nogil:
    """Out of the idle list."""
    if origin.previous != NULL:
        origin.previous.next = origin.next
    else:
        web.idle[origin.backend_row] = origin.next
    if origin.next != NULL:
        origin.next.previous = origin.previous
    web.idle_counts[origin.backend_row] -= 1
    loop.seat.idle_upstreams -= 1
    loop.extra -= 1


cdef void close_idle(loop_t *loop, web_t *web, uint32_t row) noexcept nogil:
    while web.idle[row] != NULL:
        origin_close(loop, web, web.idle[row], False)


cdef origin_t *origin_reuse(loop_t *loop, web_t *web, const backend_t *backend,
                            const pool_http_t *http) noexcept nogil:
    cdef origin_t *origin = web.idle[backend.row]
    if origin == NULL:
        return NULL
    if origin.place != backend.place or origin.way != http.way:
        # A row of the scoreboard outlives who it was given to, and a plan may want another source
        # address: what these lead to is not what is asked for.
        close_idle(loop, web, backend.row)
        return NULL
    unlink(loop, web, origin)
    share_descriptors(loop)
    origin.state = ORIGIN_BUSY
    return origin


cdef int origin_connect(loop_t *loop, web_t *web, exchange_t *exchange, const pool_t *pool,
                        const char *data, uint32_t size) noexcept nogil:
    cdef const backend_t *backend = (
        pool_backends(exchange.seek.plan.image, pool) + exchange.seek.backend)
    cdef origin_t *origin = origin_new(web)
    cdef int result
    if origin == NULL:
        return CONNECT_INTERNAL
    origin.end.fd = -1
    origin.end.flags = 0
    origin.gathers = GATHER_NOT
    origin.exchange = exchange
    origin.backend_row = backend.row
    origin.place = backend.place
    origin.way = pool_http(exchange.seek.plan.image, pool).way
    result = connect_backend(
        loop, origin, TAG_ORIGIN, pool, backend, &exchange.client, &origin.end, data, size)
    if result < 0:
        close_socket(&origin.end, False)
        origin.state = ORIGIN_FREE
        origin.next = web.free_origins
        web.free_origins = origin
        return result
    origin.state = ORIGIN_BUSY if result == CONNECT_READY else ORIGIN_CONNECTING
    exchange.origin = origin
    return result


cdef bint is_silent(end_t *end) noexcept nogil:
    """Whether nothing is left to be read.

    After a short read from TCP that is known. After a read that was no longer than the message, or
    from a unix socket, it has to be asked for: what is left there makes no edge any more.
    """
    cdef char byte
    if end.flags & READABLE:
        if recv(end.fd, &byte, 1, MSG_PEEK) < 0 and errno == EAGAIN:
            end.flags &= ~<uint32_t> READABLE
    return not end.flags & READABLE


cdef void origin_give(loop_t *loop, web_t *web, origin_t *origin, const pool_http_t *http,
                      bint keep) noexcept nogil:
    cdef uint32_t row = origin.backend_row
    cdef origin_t *oldest
    origin.exchange = NULL
    if (not keep or http.idle_timeout == 0 or http.idle_most == 0 or loop.draining
            or origin.end.flags & (FIN | FAILED)
            or loop.board.backends[row].state == STATE_GONE or not is_silent(&origin.end)):
        origin_close(loop, web, origin, False)
        return
    if web.idle_counts[row] >= http.idle_most:
        oldest = web.idle[row]
        while oldest.next != NULL:
            oldest = oldest.next
        origin_close(loop, web, oldest, False)
    if web.idle[row] != NULL and (
            web.idle[row].place != origin.place or web.idle[row].way != origin.way):
        close_idle(loop, web, row)
    gather_end(origin)
    origin.state = ORIGIN_IDLE
    origin.previous = NULL
    origin.next = web.idle[row]
    if origin.next != NULL:
        origin.next.previous = origin
    web.idle[row] = origin
    web.idle_counts[row] += 1
    loop.seat.idle_upstreams += 1
    loop.extra += 1
    origin.since = relative(loop)
    origin.idle_limit = http.idle_timeout
    # Set once and looked at when it fires: traffic never touches it.
    if not origin.timer.armed:
        timer_set(&loop.wheel, &origin.timer, loop.now + http.idle_timeout)


cdef void origin_close(loop_t *loop, web_t *web, origin_t *origin, bint abort) noexcept nogil:
    if origin.state == ORIGIN_DEAD:
        return
    if origin.state == ORIGIN_IDLE:
        unlink(loop, web, origin)
        share_descriptors(loop)
    timer_clear(&loop.wheel, &origin.timer)
    close_socket(&origin.end, abort)
    origin.exchange = NULL
    origin.state = ORIGIN_DEAD
    origin.next = web.dead_origins
    web.dead_origins = origin


cdef void origin_take_out(loop_t *loop, web_t *web, origin_t *origin) noexcept nogil:
    origin.end.fd = -1
    origin_close(loop, web, origin, False)


cdef void origin_idle_event(loop_t *loop, web_t *web, origin_t *origin) noexcept nogil:
    if origin.state == ORIGIN_IDLE:
        origin_close(loop, web, origin, False)


cdef void origin_timeout(loop_t *loop, web_t *web, origin_t *origin) noexcept nogil:
    cdef uint32_t rested = relative(loop) - origin.since
    if origin.state != ORIGIN_IDLE:
        return      # armed again when it comes back to the pool
    if rested >= origin.idle_limit:
        origin_close(loop, web, origin, False)
    else:
        timer_set(&loop.wheel, &origin.timer, loop.now + origin.idle_limit - rested)


cdef void origins_close(loop_t *loop, web_t *web) noexcept nogil:
    cdef uint32_t row
    for row in range(MAX_BACKENDS):
        close_idle(loop, web, row)


cdef void origins_keep(loop_t *loop, web_t *web, const plan_header_t *plan) noexcept nogil:
    cdef const pool_t *pool
    cdef const backend_t *backend
    cdef uint32_t i, j, row
    for i in range(plan.pool_count):
        pool = plan_pools(plan) + i
        for j in range(pool.primary_count + pool.backup_count):
            backend = pool_backends(plan, pool) + j
            if web.idle[backend.row] != NULL and web.idle[backend.row].place == backend.place:
                web.idle[backend.row].wanted = plan.version
    for row in range(MAX_BACKENDS):
        if web.idle[row] != NULL and web.idle[row].wanted != plan.version:
            close_idle(loop, web, row)


cdef void origins_bury(web_t *web) noexcept nogil:
    cdef origin_t *origin
    while web.dead_origins != NULL:
        origin = web.dead_origins
        web.dead_origins = origin.next
        origin.state = ORIGIN_FREE
        origin.next = web.free_origins
        web.free_origins = origin
