# The HTTP side of a worker as a whole: all its client connections, and those to backends that rest.

from libc.stdint cimport uint64_t

from lbcore._loop cimport loop_t
from lbcore._web cimport web_t

# NULL without memory. `seed`: two random numbers.
cdef web_t *web_make(loop_t *loop, const uint64_t *seed) noexcept nogil
cdef void web_free(loop_t *loop, web_t *web) noexcept nogil

# Deferred work, and the burial of what ended, at the end of a turn. True: there is more to do.
cdef bint web_work(loop_t *loop, web_t *web) noexcept nogil

# No new requests but those on their way: idle connections are closed soon.
cdef void web_drain(loop_t *loop, web_t *web) noexcept nogil

# Another plan is in force: connections to backends that it does not have are closed.
cdef void web_plan_changed(loop_t *loop, web_t *web) noexcept nogil

# Ends every connection.
cdef void web_end_all(loop_t *loop, web_t *web) noexcept nogil
