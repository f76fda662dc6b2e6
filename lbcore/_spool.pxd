# Bytes on their way that the other side does not take yet: in memory up to a limit, then in an
# unlinked temporary file, first in, first out. An empty spool owns nothing. Files lie where
# LBCORE_SPOOL_DIR says, else in $TMPDIR, /var/tmp or /tmp.

from libc.stdint cimport uint32_t, uint64_t

from lbcore._relay cimport buffer_t, end_t, relay_t

ctypedef struct spool_t:        # zeroed: empty
    buffer_t *head              # memory: goes out first
    buffer_t *tail
    uint64_t size               # bytes in it, memory and file
    uint64_t in_file            # of these, in the file
    uint64_t file_at            # where in the file the next byte to go out is
    int fd                      # of the file, or 0
    uint32_t in_memory

cdef enum SpoolResult:
    SPOOL_OK = 0
    SPOOL_NO_MEMORY = -1
    SPOOL_NO_FILE = -2          # disk full, or no descriptor: errno says which

# Takes bytes in: to memory if no more than `memory` are there with them and nothing is in the file,
# otherwise to the file. All or nothing.
cdef int spool_put(relay_t *relay, spool_t *spool, const char *data, uint32_t size,
                   uint32_t memory) noexcept nogil

# Sends what can be sent now, oldest first, and forgets it; sets relay.given. `more`: other bytes
# follow at once (MSG_MORE). FLOW_DONE when empty, FLOW_WAIT when the socket is full (its WRITABLE
# flag is cleared), FLOW_AGAIN after 1 MiB, FLOW_DESTINATION_ERROR; FLOW_SOURCE_ERROR: the file
# cannot be read.
cdef int spool_send(relay_t *relay, spool_t *spool, end_t *destination, bint more) noexcept nogil

# As spool_send, but forgets nothing: sends from `at` bytes behind the oldest one, so that a body
# can be sent to another backend again. The caller adds relay.given to `at`.
cdef int spool_replay(relay_t *relay, const spool_t *spool, uint64_t at, end_t *destination,
                      bint more) noexcept nogil

# Forgets everything and gives back what it owns.
cdef void spool_drop(relay_t *relay, spool_t *spool) noexcept nogil
