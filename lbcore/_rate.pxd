# Request rates over all workers: a bucket per key in shared memory (GCRA: one time a bucket).

from libc.stdint cimport uint32_t, uint64_t

from lbcore._scoreboard cimport board_t

# A keyed hash of what is limited, within a route; never 0.
cdef uint64_t rate_key(const board_t *board, uint32_t route_row, const char *data,
                       uint32_t size) noexcept nogil

# 0: it may pass, and is counted. Otherwise milliseconds until one may. Over all workers together at
# most burst + T / interval pass in any time T; more only when the table has no place left for a key
# (board_header_t.rates_forgotten counts that).
cdef uint32_t rate_take(const board_t *board, uint64_t key, uint32_t interval_us, uint32_t burst,
                        uint64_t now_us) noexcept nogil
