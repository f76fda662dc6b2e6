# When an exchange has waited for too long: see _deadline.pxd.

from libc.stdint cimport UINT64_MAX, uint32_t, uint64_t

from lbcore._download cimport download_pending
from lbcore._gather cimport GATHER_WAIT, gather_holds
from lbcore._loop cimport clock_us, loop_t, min_time, relative
from lbcore._plan cimport route_t
from lbcore._relay cimport WRITABLE
from lbcore._scoreboard cimport NO_ROW
from lbcore._seek cimport RETRY_PAUSE
from lbcore._web cimport (
    X_ANSWER, X_COLLECT, X_CONNECTING, X_HEAD_KEPT, X_PAUSED, X_QUEUED, X_SENT, X_UP_DONE,
    exchange_t, http_of, pool_of, route_of,
)

cdef enum:
    HEAD_WAIT = 100             # ms that a response's head waits for the first of its body


cdef uint64_t deadline_after(loop_t *loop, uint32_t since, uint32_t limit) noexcept nogil:
    cdef uint32_t elapsed = relative(loop) - since
    if limit == 0:
        return UINT64_MAX
    return loop.now + (limit - elapsed if elapsed < limit else 0)


cdef uint64_t deadline_of_state(loop_t *loop, exchange_t *x) noexcept nogil:
    cdef const route_t *route
    cdef uint64_t elapsed, limit
    if x.route == NO_ROW:
        return deadline_after(loop, x.client_moved, http_of(x).head_timeout)
    route = route_of(x)
    if x.state == X_COLLECT:
        return deadline_after(loop, x.client_moved, route.body_timeout)
    if x.state == X_QUEUED:
        return x.seek.deadline
    if x.state == X_PAUSED:
        return deadline_after(loop, x.pause_until - RETRY_PAUSE, RETRY_PAUSE)
    if x.state == X_CONNECTING:
        elapsed = (clock_us() - x.connect_us) // 1000
        limit = pool_of(x).connect_timeout
        return min_time(x.seek.deadline, loop.now + (limit - elapsed if elapsed < limit else 0))
    if x.state == X_ANSWER:
        if x.flags & X_HEAD_KEPT:
            return deadline_after(loop, x.origin_moved, HEAD_WAIT)
        if x.flags & X_SENT:
            return deadline_after(loop, x.origin_moved, route.first_byte_timeout)
        if not x.flags & X_UP_DONE and x.origin != NULL and x.origin.end.flags & WRITABLE:
            return deadline_after(loop, x.client_moved, route.body_timeout)
        return deadline_after(loop, x.origin_moved, route.first_byte_timeout)
    if download_pending(x):
        return deadline_after(loop, x.client_moved, route.send_timeout)
    limit = deadline_after(loop, x.origin_moved, route.read_timeout)
    if gather_holds(x):
        return min_time(limit, deadline_after(loop, x.origin_moved, GATHER_WAIT))
    return limit


cdef uint64_t deadline_of(loop_t *loop, exchange_t *x) noexcept nogil:
    cdef uint64_t look = deadline_of_state(loop, x)
    if x.route != NO_ROW:
        look = min_time(look, deadline_after(loop, x.began, route_of(x).total_timeout))
    return look
