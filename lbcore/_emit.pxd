# Sending what was just made: at once if the socket takes it, otherwise into a spool.

from libc.stdint cimport uint32_t

from lbcore._relay cimport end_t, relay_t
from lbcore._spool cimport spool_t

cdef enum EmitResult:
    EMIT_OK = 0                 # sent or spooled
    EMIT_LOST = -1              # the other side is gone
    EMIT_NO_ROOM = -2           # no memory, or disk

# Sends up to three pieces in one call, behind what the spool holds. relay.given: bytes that went
# out at once; relay.taken: those and what was spooled, all of it unless there was no room. At most
# `memory` bytes of a spool stay in memory.
cdef int emit(relay_t *relay, spool_t *spool, end_t *end, uint32_t memory, const char *a,
              uint32_t a_size, const char *b, uint32_t b_size, const char *c,
              uint32_t c_size) noexcept nogil

# Writes "hex\r\n", the head of a chunk, to `out` (10 bytes); returns its length.
cdef uint32_t chunk_head(uint32_t size, char *out) noexcept nogil
