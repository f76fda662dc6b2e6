# Timers in constant time: a hierarchical timing wheel (Varghese and Lauck, SOSP 1987) of nodes that
# live inside what they time. Four levels of 64 slots, ticks of 16 ms, a horizon of 397 days.
#
# Firing is a hint to look, not a verdict: the owner compares its own deadline with the clock and
# re-arms when it has moved. So a deadline that moves with every byte costs nothing until it fires.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef enum:
    TICK_MS = 16
    WHEEL_LEVELS = 4
    WHEEL_SLOTS = 64
    WHEEL_CASCADE_MAX = 512     # nodes one wheel_advance moves to a finer level at most

ctypedef struct timer_node_t    # embed it; a zeroed one is valid and unarmed

ctypedef struct timer_node_t:   # 24 bytes; read `armed`, leave the rest alone
    timer_node_t *next
    timer_node_t **prev         # the pointer that points here
    uint32_t due                # in ticks, low 32 bits
    uint8_t armed
    uint8_t slot                # level * 64 + slot, where it was last put
    uint8_t kind                # the owner's: what the node is in
    uint8_t pad

ctypedef struct wheel_t:        # not movable while nodes are armed
    uint64_t tick               # everything due up to here has left the slots
    uint64_t now                # the latest wheel_advance was asked for, in ticks; >= tick
    uint64_t bitmap[4]          # a bit per slot that is not empty
    timer_node_t *expired       # to be popped in this round
    timer_node_t *late          # was past when it was set: to be popped in the next round
    uint8_t walking             # a round is on: since its first wheel_advance, until NULL
    uint8_t cascading           # level whose current slot is being moved down, or 0
    timer_node_t *slots[256]

# All times are milliseconds of one clock that never goes back (CLOCK_MONOTONIC).
cdef void wheel_init(wheel_t *wheel, uint64_t now_ms) noexcept nogil

# Arms or re-arms. Fires at the first wheel_advance at or after `due_ms`, rounded up to a tick;
# never before, except that a time beyond the horizon is cut to it. A time that the latest
# wheel_advance had already reached fires in the next round of calls, not in the one that is on: a
# handler that re-arms in the past cannot hold the loop.
cdef void timer_set(wheel_t *wheel, timer_node_t *node, uint64_t due_ms) noexcept nogil

# Disarms; harmless on an unarmed node. Any node, popped or still to be popped, may be freed after
# it.
cdef void timer_clear(wheel_t *wheel, timer_node_t *node) noexcept nogil

# Pops one expired node, now unarmed, or NULL. Call it in a loop; earlier ticks come first. Stopping
# before NULL is fine: the round goes on with the next call. Work per call is bounded by
# WHEEL_CASCADE_MAX; where that was spent it is NULL too, and wheel_timeout is 0.
cdef timer_node_t *wheel_advance(wheel_t *wheel, uint64_t now_ms) noexcept nogil

# Milliseconds until something may expire, at most `most_ms` (-1: no limit; then -1 also means that
# nothing is armed). For epoll_wait.
cdef int wheel_timeout(const wheel_t *wheel, uint64_t now_ms, int most_ms) noexcept nogil
