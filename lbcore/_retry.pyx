# A second try: see _retry.pxd.

from libc.stdint cimport uint32_t, uint64_t

from lbcore._access cimport NO_TIME
from lbcore._http1 cimport METHOD_DELETE, METHOD_GET, METHOD_HEAD, METHOD_OPTIONS, METHOD_PUT
from lbcore._loop cimport clock_us, loop_t
from lbcore._origin cimport origin_close
from lbcore._plan cimport ROUTE_RETRY_UNSAFE, backend_t, pool_backends, route_t
from lbcore._relay cimport FIN, buffer_give
from lbcore._spool cimport spool_drop
from lbcore._web cimport (
    X_CONSUMED, X_HEAD_KEPT, X_SENT, exchange_t, pool_http_of, pool_of, route_of, web_t,
)
from lbcore.includes.linux cimport AF_UNIX, sockaddr

cdef extern from "<sys/ioctl.h>" nogil:
    int ioctl(int fd, unsigned long request, ...)

cdef extern from "<linux/sockios.h>" nogil:
    enum:
        SIOCOUTQ

cdef enum:
    BUDGET_MOST = 10000         # thousandths: a quiet pool may make 10 retries in a row
    RETRY_COST = 1000
    CLOSING = 50000             # microseconds: an end that shows so soon was under way before


cdef void retry_earn(web_t *web, exchange_t *x) noexcept nogil:
    cdef uint32_t share = pool_http_of(x).retry_share
    cdef uint32_t *debt = &web.budgets[x.seek.pool_row]
    debt[0] = debt[0] - share if debt[0] > share else 0


cdef bint retry_take(web_t *web, exchange_t *x) noexcept nogil:
    """Whether the request may reach a backend a second time, at the cost of the budget."""
    cdef const route_t *route = route_of(x)
    cdef uint32_t *debt = &web.budgets[x.seek.pool_row]
    if not retry_is_possible(x) or x.tries >= route.retry_attempts:
        return False
    if not retry_is_safe(x):
        return False
    if pool_http_of(x).retry_share == 0 or debt[0] + RETRY_COST > BUDGET_MOST:
        return False
    debt[0] += RETRY_COST
    return True


cdef void retry_return(web_t *web, const exchange_t *x) noexcept nogil:
    web.budgets[x.seek.pool_row] -= RETRY_COST


cdef bint retry_is_safe(const exchange_t *x) noexcept nogil:
    """Whether it is idempotent (RFC 9110, 9.2.2), or its route says that this does not matter."""
    return (route_of(x).flags & ROUTE_RETRY_UNSAFE or x.method == METHOD_GET
            or x.method == METHOD_HEAD or x.method == METHOD_OPTIONS or x.method == METHOD_PUT
            or x.method == METHOD_DELETE)


cdef bint retry_is_possible(const exchange_t *x) noexcept nogil:
    return not x.flags & X_CONSUMED


cdef bint retry_is_unheard(const exchange_t *x) noexcept nogil:
    """Whether a backend whose connection was lost cannot have seen the request.

    TCP: nothing of what was sent has been acknowledged, so the connection was closed before it
    came. A unix socket that is closed with bytes unread ends with an error, otherwise with an end.
    """
    cdef const backend_t *backend = pool_backends(x.seek.plan.image, pool_of(x)) + x.seek.backend
    cdef uint64_t sent = x.head_sent + x.early + x.replayed - x.up.size
    cdef int queued = 0
    if (<const sockaddr *> backend.address).sa_family == AF_UNIX:
        return not x.origin.end.flags & FIN
    return ioctl(x.origin.end.fd, SIOCOUTQ, &queued) == 0 and <uint64_t> queued >= sent


cdef bint retry_was_closing(const exchange_t *x) noexcept nogil:
    """Whether the end of the backend's connection was on its way when the request was sent.

    Only a connection that had rested ends like that, and it shows at once. An end that comes later
    is the application's: it may have done what was asked, and a second time is for retry_take.
    """
    return (x.origin != NULL and x.origin.requests > 0 and x.flags & X_SENT != 0
            and clock_us() - x.sent_us <= CLOSING)


cdef void retry_forget(loop_t *loop, web_t *web, exchange_t *x) noexcept nogil:
    """Takes back what the last try left, so that the next one begins anew."""
    if x.origin != NULL:
        origin_close(loop, web, x.origin, True)
        x.origin = NULL
    if x.up.size:
        spool_drop(&loop.relay, &x.up)
    if x.answer != NULL:
        buffer_give(&loop.relay, x.answer)
        x.answer = NULL
    x.flags &= ~<uint32_t> (X_SENT | X_HEAD_KEPT)
    x.replayed = 0
    x.connect_time = NO_TIME
    x.first_byte_time = NO_TIME
