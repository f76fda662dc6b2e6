# One direction of a relayed connection: bytes from one socket to another.
#
# A flow copies through the worker's scratch buffer while messages are small, and splices through
# a pooled pipe while a stream keeps coming. It owns memory (a buffer, a pipe) only while bytes
# are under way: an idle flow owns nothing.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from lbcore.includes.linux cimport EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLPRI, EPOLLRDHUP

cdef enum EndFlag:              # what is known about one socket
    READABLE = 1                # a read may find something
    WRITABLE = 2                # a write may succeed
    FIN = 4                     # the peer sent FIN: it is behind what can be read
    BOUNDARIES = 8              # a short read does not mean drained: unix socket, urgent data
    OUT_ARMED = 16              # EPOLLOUT is in its interest set
    FAILED = 32                 # an error is pending
    URGENT = 64                 # urgent data has come: splice stops at its mark for good

cdef enum FlowFlag:
    SPLICE = 1                  # stream: through a pipe
    EOF = 2                     # the source has ended; what is held still has to go out
    CLOSED = 4                  # the end was passed on to the destination
    SPOKE = 8                   # at least one byte was delivered

cdef enum FlowResult:
    FLOW_WAIT = 0               # until a socket becomes ready
    FLOW_AGAIN = 1              # more to do, but others come first
    FLOW_DONE = 2               # source ended and everything is delivered
    FLOW_SOURCE_ERROR = 3
    FLOW_DESTINATION_ERROR = 4
    FLOW_FULL = 5               # relay.most bytes were read, and everything is delivered

cdef enum:
    SCRATCH = 65536             # bytes read at once
    STREAM_BURST = 12288        # a burst this long is worth a pipe: at 16 KiB it already costs less
    SMALL_BUFFER = 4096
    MEDIUM_BUFFER = 16384

ctypedef struct buffer_t:
    buffer_t *next              # in the free list
    uint32_t size
    uint32_t start              # first byte not yet delivered
    uint32_t end
    uint32_t pad

ctypedef struct pipe_t:
    pipe_t *next
    int read_fd
    int write_fd
    uint32_t held               # bytes in it
    uint32_t pad

ctypedef struct end_t:
    int fd
    uint32_t flags              # EndFlag

ctypedef struct flow_t:
    buffer_t *held              # read but not delivered
    pipe_t *pipe
    uint32_t burst              # bytes since the source was last empty
    uint8_t flags               # FlowFlag
    uint8_t small_bursts        # in a row, while splicing
    uint16_t pad

ctypedef struct relay_t:        # one per worker
    char *scratch
    buffer_t *free_buffers[3]
    uint32_t free_counts[3]
    uint32_t buffers            # in use
    pipe_t *free_pipes
    uint32_t pipes_open
    uint32_t pipes_free
    uint32_t max_pipes
    uint32_t denied             # times still to copy before a new pipe is tried again
    uint32_t files              # temporary files of spools
    uint32_t pad
    uint64_t most               # flow_pump reads no more than this; UINT64_MAX but for a moment
    uint64_t taken              # bytes the last flow_pump read
    uint64_t given              # bytes the last flow_pump delivered

cdef inline char *buffer_data(buffer_t *buffer) noexcept nogil:
    return <char *> buffer + sizeof(buffer_t)

cdef inline void note_events(end_t *end, uint32_t events) noexcept nogil:
    """Remembers what an epoll event says about a socket."""
    if events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR):
        end.flags |= READABLE
    if events & EPOLLOUT:
        end.flags |= WRITABLE
    if events & EPOLLPRI:
        # Reads stop at the mark of urgent data, so a short read says nothing any more.
        end.flags |= BOUNDARIES | URGENT
    if events & EPOLLERR:
        # EPOLLRDHUP comes with a reset too. What was received before it is read up to the error:
        # a short read must not pass for the end.
        end.flags |= FAILED | BOUNDARIES
    elif events & EPOLLRDHUP:
        end.flags |= FIN

cdef bint relay_init(relay_t *relay) noexcept nogil
cdef void relay_free(relay_t *relay) noexcept nogil
cdef buffer_t *buffer_take(relay_t *relay, uint32_t size) noexcept nogil
cdef void buffer_give(relay_t *relay, buffer_t *buffer) noexcept nogil

# Closes the pipes that no flow uses.
cdef void pipes_trim(relay_t *relay) noexcept nogil

# Moves what can be moved now. Sets relay.taken and relay.given.
cdef int flow_pump(relay_t *relay, flow_t *flow, end_t *source, end_t *destination) noexcept nogil

# Delivers what is held, and reads nothing. FLOW_DONE when nothing is left.
cdef int flow_flush(relay_t *relay, flow_t *flow, end_t *destination) noexcept nogil

# Gives back what a flow of an ending connection still owns.
cdef void flow_drop(relay_t *relay, flow_t *flow) noexcept nogil
