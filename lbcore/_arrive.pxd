# What every client connection goes through first: the PROXY header and the limit per source.

from libc.stdint cimport uint64_t

from lbcore._loop cimport loop_t
from lbcore._plan cimport listener_t, plan_header_t
from lbcore._proxy cimport endpoint_t
from lbcore._relay cimport end_t

cdef enum Arrival:
    ARRIVAL_DONE = 1            # the header is read
    ARRIVAL_MORE = 0
    ARRIVAL_GONE = -1           # the client left; with a reset if the end says FAILED
    ARRIVAL_RESET = -2
    ARRIVAL_MALFORMED = -3

# Whether a connection from `source` begins with a PROXY header.
cdef bint proxy_expected(const plan_header_t *plan, const listener_t *listener,
                         const endpoint_t *source) noexcept nogil

# Looks for a whole header without taking anything else out of the socket. With ARRIVAL_DONE the
# endpoints are what it says; `destination.family` stays 0 if it says nothing.
cdef int proxy_read(loop_t *loop, end_t *client, endpoint_t *source,
                    endpoint_t *destination) noexcept nogil

# Counts a connection from `source` against the listener's limit. False: there are too many. `key`:
# what source_remove is to be called with at its end, or 0.
cdef bint source_enter(loop_t *loop, const listener_t *listener, const endpoint_t *source,
                       uint64_t *key) noexcept nogil
