# When an exchange has waited for too long. All in ms, as loop.now.

from libc.stdint cimport uint32_t, uint64_t

from lbcore._loop cimport loop_t
from lbcore._web cimport exchange_t

# When `limit` ms since `since` are over; never with a limit of 0.
cdef uint64_t deadline_after(loop_t *loop, uint32_t since, uint32_t limit) noexcept nogil

# When what its state waits for is overdue.
cdef uint64_t deadline_of_state(loop_t *loop, exchange_t *x) noexcept nogil

# When the earliest of its timeouts can be due.
cdef uint64_t deadline_of(loop_t *loop, exchange_t *x) noexcept nogil
