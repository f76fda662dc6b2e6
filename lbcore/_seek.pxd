# Looking for a backend: selection, attempts, and the queue when nobody has a place. What a TCP
# connection and an HTTP request have in common on their way there.

from libc.stdint cimport uint32_t

from lbcore._loop cimport loop_t, plan_ref_t, seeker_t
from lbcore._plan cimport pool_t
from lbcore._relay cimport end_t

cdef enum:
    RETRY_PAUSE = 100           # ms before candidates that all failed are asked again

cdef enum SeekResult:
    SEEK_READY = 0              # `backend` has a place reserved: connect to it
    SEEK_QUEUED = 1             # waits until `deadline`; loop.found is called when there is news
    SEEK_PAUSE = 2              # all candidates failed: start over after RETRY_PAUSE
    SEEK_SPENT = -1             # attempts or time are spent
    SEEK_NO_BACKEND = -2        # nobody to ask, and no waiting
    SEEK_FULL = -3              # nobody has a place, and the queue is full or off

cdef void plan_release(plan_ref_t *plan) noexcept nogil

# The next candidate. `deadline` is the end of the connect budget, and set anew to the queue's while
# it waits.
cdef int seek(loop_t *loop, seeker_t *seeker) noexcept nogil

# What a picked candidate (or PICK_NONE, PICK_FULL) means. `seek` is pick and this.
cdef int seek_judge(loop_t *loop, seeker_t *seeker, int index) noexcept nogil

# Leaves the queue without a backend.
cdef void seek_cancel(loop_t *loop, seeker_t *seeker) noexcept nogil

# Gives the reserved place at a backend back.
cdef void seek_release(loop_t *loop, seeker_t *seeker) noexcept nogil

# Counts a connect that failed, since `started_us`, and gives the place back.
cdef void seek_failed(loop_t *loop, seeker_t *seeker, uint32_t started_us,
                      bint timed_out) noexcept nogil

# One more failure in a row of a backend; rings the supervisor when it is the one too many.
cdef void suspect(loop_t *loop, uint32_t row) noexcept nogil

# It did what was asked of it: earlier failures are forgotten.
cdef void trust(loop_t *loop, uint32_t row) noexcept nogil

# Gives those that wait for a backend another try.
cdef void queue_poll(loop_t *loop, uint32_t pool_row) noexcept nogil
cdef void queues_poll(loop_t *loop) noexcept nogil

# Pipes may take what connections leave, and no more than the plan allows. Each connection counts
# twice from the start: it will need a second socket when a backend is found.
cdef void share_descriptors(loop_t *loop) noexcept nogil

cdef void close_socket(end_t *end, bint abort) noexcept nogil
