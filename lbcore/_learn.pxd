# Sessions that follow the application's own cookie: which backend set which value, known to all
# workers.

from libc.stdint cimport uint32_t, uint64_t

from lbcore._http1 cimport head_t
from lbcore._scoreboard cimport board_t

# A keyed hash of a cookie's value, within a pool; never 0.
cdef uint64_t learn_key(const board_t *board, uint32_t pool_row, const char *value,
                        uint32_t size) noexcept nogil

# name_hash of the backend that set the value, known from now on for another `expiry` (ms); 0:
# nobody did, or it was too long ago.
cdef uint64_t learn_find(const board_t *board, uint64_t key, uint64_t expiry,
                         uint64_t now) noexcept nogil

# Whoever comes with this value belongs to that backend.
cdef void learn_store(const board_t *board, uint64_t key, uint64_t name_hash, uint64_t expiry,
                      uint64_t now) noexcept nogil

cdef void learn_forget(const board_t *board, uint64_t key, uint64_t now) noexcept nogil

cdef enum LearnResult:
    LEARN_SETS = 1              # the response sets the cookie
    LEARN_ENDS = 2              # it takes it away from the client

# What a response's Set-Cookie fields say of the cookie `name`: bits of LearnResult.
cdef int learn_look(const head_t *reply, const char *base, const char *name,
                    uint32_t name_size) noexcept nogil

# Learns and forgets the values in them.
cdef void learn_reply(const board_t *board, uint32_t pool_row, const head_t *reply,
                      const char *base, const char *name, uint32_t name_size, uint64_t name_hash,
                      uint64_t expiry, uint64_t now) noexcept nogil
