# Long bodies come in fewer, longer pieces.
#
# A body of a known length is asked for in pieces of GATHER_SIZE: until so much is there, the kernel
# does not say that there is something (SO_RCVLOWAT). Every piece costs a wake-up, two calls of
# splice and, to the backend, an acknowledgement of its own, so fewer cost less. Nobody waits for
# the sake of it: what has not become a piece within GATHER_WAIT is passed on as it is, and the rest
# of that body as it comes.

from lbcore._loop cimport loop_t
from lbcore._web cimport exchange_t, origin_t

cdef enum:
    GATHER_SIZE = 262144        # bytes
    GATHER_WAIT = 32            # ms, and up to a tick of the timers more

cdef enum GatherState:          # origin_t.gathers
    GATHER_NOT = 0              # not asked for yet
    GATHER_PIECE = 1
    GATHER_REST = 2             # what is left, and is less
    GATHER_NO_MORE = 3          # this body comes too slowly

# All that there was of the body was passed on, and more is to come.
cdef void gather_more(exchange_t *x) noexcept nogil

# Whether what is there may be held back: for GATHER_WAIT since the last of it was passed on.
cdef bint gather_holds(const exchange_t *x) noexcept nogil

# It has waited for long enough: an event comes for what is there, and for all that follows.
cdef void gather_stop(loop_t *loop, exchange_t *x) noexcept nogil

# The body is over: the connection is as it was.
cdef void gather_end(origin_t *origin) noexcept nogil
