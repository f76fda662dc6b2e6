# Long bodies come in fewer, longer pieces: see _gather.pxd.
#
# Rules:
# - No more is waited for than is left of the body: its end is not held back.
# - FIN, errors and a full receive buffer are said whatever the mark is (tcp(7), SO_RCVLOWAT in
#   socket(7)); lowering the mark makes the kernel look again, and say so if there is something.
# - Unix sockets do not know it: theirs is not set.

from lbcore._http1 cimport BODY_LENGTH
from lbcore._loop cimport loop_t, relative
from lbcore._relay cimport BOUNDARIES, FAILED, FIN, READABLE
from lbcore._web cimport X_BODY, exchange_t, origin_t
from lbcore.includes.linux cimport SOL_SOCKET, SO_RCVLOWAT, setsockopt


cdef bint mark(origin_t *origin, int bytes) noexcept nogil:
    return setsockopt(origin.end.fd, SOL_SOCKET, SO_RCVLOWAT, &bytes, sizeof(bytes)) == 0


cdef void gather_more(exchange_t *x) noexcept nogil:
    cdef origin_t *origin = x.origin
    if (x.down_framing != BODY_LENGTH or origin.gathers == GATHER_NO_MORE
            or origin.end.flags & (BOUNDARIES | FIN | FAILED | READABLE)):
        return
    if x.down_left >= GATHER_SIZE:
        if origin.gathers == GATHER_NOT:
            origin.gathers = GATHER_PIECE if mark(origin, GATHER_SIZE) else GATHER_NO_MORE
    elif origin.gathers == GATHER_PIECE:
        mark(origin, <int> x.down_left)
        origin.gathers = GATHER_REST


cdef bint gather_holds(const exchange_t *x) noexcept nogil:
    return x.state == X_BODY and x.origin != NULL and (
        x.origin.gathers == GATHER_PIECE or x.origin.gathers == GATHER_REST)


cdef void gather_stop(loop_t *loop, exchange_t *x) noexcept nogil:
    mark(x.origin, 1)
    x.origin.gathers = GATHER_NO_MORE
    x.origin_moved = relative(loop)     # it may have: the event tells


cdef void gather_end(origin_t *origin) noexcept nogil:
    if origin.gathers == GATHER_PIECE or origin.gathers == GATHER_REST:
        mark(origin, 1)
    origin.gathers = GATHER_NOT
