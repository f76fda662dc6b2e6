# Backend selection: which backend takes this connection, and which is next if it fails.
#
# An algorithm is a function that, given a cursor, yields candidates in its own order. Fail-over
# is "next": keys of healthy backends never move because another one failed.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from lbcore._plan cimport plan_header_t, pool_t
from lbcore._scoreboard cimport board_t

cdef enum:
    MAX_TRIED = 8
    PICK_NONE = -1              # nobody is eligible
    PICK_FULL = -2              # somebody is eligible, but everybody is at a limit: worth waiting

ctypedef struct picker_t:       # one per worker
    const board_t *board
    uint32_t seat
    uint32_t offset             # where in a cycle this worker starts, in 1/2^32
    uint64_t rng
    int64_t *lag                # smooth weighted round robin, by backend row
    uint8_t *seen               # rows whose lag is set
    uint64_t *shape             # what lags were last checked against: two tiers by pool row

ctypedef struct cursor_t:       # one per connection that looks for a backend; 28 bytes
    uint32_t hash               # of the key: where in the table to start; consistent only
    uint32_t second             # independent of it: slow start, last resort; consistent only
    uint16_t tried[8]           # indexes within the pool, already given out
    uint8_t tried_count
    uint8_t flags
    uint16_t pad

cdef bint picker_init(picker_t *picker, const board_t *board, uint32_t seat) noexcept nogil
cdef void picker_free(picker_t *picker) noexcept nogil

# Starts a walk over a pool's candidates. The key is what `hash_on` names (for source_ip the
# address as text, as nginx's $remote_addr); algorithms that do not hash ignore it.
cdef void cursor_begin(cursor_t *cursor, const pool_t *pool, const char *key,
                       size_t length) noexcept nogil

# The next candidate: an index within the pool, whose place is now reserved (counted in flight),
# or PICK_NONE or PICK_FULL. Never gives the same backend twice for one cursor; PICK_NONE after
# MAX_TRIED of them.
cdef int pick(picker_t *picker, const plan_header_t *plan, const pool_t *pool,
              cursor_t *cursor) noexcept nogil

# Reserves the backend at `index` for a session that it keeps: returns `index` when it is there for
# it (up, or drained by hand or by weight 0, which keep their sessions) and below its limit. The
# cursor will not give it again. Otherwise PICK_FULL when only its limit is in the way, or
# PICK_NONE: pick another one.
cdef int pick_this(picker_t *picker, const plan_header_t *plan, const pool_t *pool,
                   cursor_t *cursor, int index) noexcept nogil

# Gives a reserved place back. Rows, not indexes: the plan may be gone by then.
cdef void release(picker_t *picker, uint32_t backend_row, uint32_t pool_row) noexcept nogil
