# One direction of a relayed connection. What a flow is and owns: _relay.pxd.
#
# Rules:
# - Nothing is read while something read before is undelivered: a full writer stops its reader,
#   and a flow never holds more than one buffer or one pipe.
# - Edge-triggered readiness is remembered in end_t.flags and only ever cleared by a system call
#   that said EAGAIN, or by a short read, which on TCP means drained: data that comes later makes
#   a new edge. FIN is known from EPOLLRDHUP before the read, so a short read behind which FIN
#   stands is the end, and the read that would return 0 is saved.
# - The last bytes before an end go out with MSG_MORE: the FIN that follows rides on them.

from libc.stdint cimport UINT64_MAX, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from lbcore.includes.linux cimport (
    EAGAIN, EINTR, EINVAL, ENOSYS, F_GETPIPE_SZ, F_SETPIPE_SZ, MSG_MORE, MSG_NOSIGNAL, O_CLOEXEC,
    O_NONBLOCK, SPLICE_F_MOVE, SPLICE_F_NONBLOCK, close, errno, fcntl, pipe2, recv, send, splice,
    ssize_t,
)

cdef enum:
    TURN_BUDGET = 1 << 20       # bytes one flow may move before others get their turn
    PIPE_SIZE = 1 << 20
    DENIED = 1024               # asking costs four system calls
    FREE_BUFFERS_KEPT = 64      # per size; more are given back to the system

cdef uint32_t *SIZES = [SMALL_BUFFER, MEDIUM_BUFFER, SCRATCH]


cdef bint relay_init(relay_t *relay) noexcept nogil:
    """Zeroed memory in, a usable relay out; False without memory."""
    relay.scratch = <char *> malloc(SCRATCH)
    relay.most = UINT64_MAX
    return relay.scratch != NULL


cdef void relay_free(relay_t *relay) noexcept nogil:
    cdef int size
    cdef buffer_t *buffer
    for size in range(3):
        while relay.free_buffers[size] != NULL:
            buffer = relay.free_buffers[size]
            relay.free_buffers[size] = buffer.next
            free(buffer)
    pipes_trim(relay)
    free(relay.scratch)
    relay.scratch = NULL


# ---- memory ----------------------------------------------------------------------------------

cdef int size_class(uint32_t size) noexcept nogil:
    if size <= SMALL_BUFFER:
        return 0
    return 1 if size <= MEDIUM_BUFFER else 2


cdef buffer_t *buffer_take(relay_t *relay, uint32_t size) noexcept nogil:
    """An empty buffer of at least ``size`` (at most SCRATCH) bytes, or NULL without memory."""
    cdef int which = size_class(size)
    cdef buffer_t *buffer = relay.free_buffers[which]
    if buffer != NULL:
        relay.free_buffers[which] = buffer.next
        relay.free_counts[which] -= 1
    else:
        buffer = <buffer_t *> malloc(sizeof(buffer_t) + SIZES[which])
        if buffer == NULL:
            return NULL
        buffer.size = SIZES[which]
    buffer.start = 0
    buffer.end = 0
    relay.buffers += 1
    return buffer


cdef void buffer_give(relay_t *relay, buffer_t *buffer) noexcept nogil:
    cdef int which = size_class(buffer.size)
    relay.buffers -= 1
    if relay.free_counts[which] >= FREE_BUFFERS_KEPT:
        free(buffer)
        return
    buffer.next = relay.free_buffers[which]
    relay.free_buffers[which] = buffer
    relay.free_counts[which] += 1


cdef pipe_t *pipe_take(relay_t *relay) noexcept nogil:
    """An empty pipe, or NULL when the pool is spent: the caller copies instead."""
    cdef pipe_t *pipe = relay.free_pipes
    cdef int fds[2]
    if pipe != NULL:
        relay.free_pipes = pipe.next
        relay.pipes_free -= 1
        return pipe
    if relay.pipes_open >= relay.max_pipes:
        return NULL
    if relay.denied:
        relay.denied -= 1
        return NULL
    pipe = <pipe_t *> malloc(sizeof(pipe_t))
    if pipe == NULL:
        return NULL
    if pipe2(fds, O_NONBLOCK | O_CLOEXEC) < 0:
        free(pipe)
        return NULL
    # Refused to a user with many pipes already (pipe(7): pipe-user-pages-soft), whose further
    # pipes hold a page or two: copying is faster. A pipe of the default size is worth having.
    if fcntl(fds[1], F_SETPIPE_SZ, <int> PIPE_SIZE) < 0 and (
            fcntl(fds[1], F_GETPIPE_SZ) < <int> SCRATCH):
        close(fds[0])
        close(fds[1])
        free(pipe)
        relay.denied = DENIED
        return NULL
    pipe.read_fd = fds[0]
    pipe.write_fd = fds[1]
    pipe.held = 0
    relay.pipes_open += 1
    return pipe


cdef void pipe_give(relay_t *relay, flow_t *flow) noexcept nogil:
    cdef pipe_t *pipe = flow.pipe
    flow.pipe = NULL
    if pipe.held or relay.pipes_open > relay.max_pipes:
        pipe_close(relay, pipe)     # somebody else's bytes must never come out of it
        return
    pipe.next = relay.free_pipes
    relay.free_pipes = pipe
    relay.pipes_free += 1


cdef void pipe_close(relay_t *relay, pipe_t *pipe) noexcept nogil:
    close(pipe.read_fd)
    close(pipe.write_fd)
    relay.pipes_open -= 1
    free(pipe)


cdef void pipes_trim(relay_t *relay) noexcept nogil:
    cdef pipe_t *pipe
    while relay.free_pipes != NULL:
        pipe = relay.free_pipes
        relay.free_pipes = pipe.next
        pipe_close(relay, pipe)
    relay.pipes_free = 0


cdef void flow_drop(relay_t *relay, flow_t *flow) noexcept nogil:
    if flow.held != NULL:
        buffer_give(relay, flow.held)
        flow.held = NULL
    if flow.pipe != NULL:
        pipe_give(relay, flow)


# ---- moving bytes ------------------------------------------------------------------------------

cdef int deliver_held(relay_t *relay, flow_t *flow, end_t *destination) noexcept nogil:
    """Sends what is held. FLOW_DONE when nothing is left, else FLOW_WAIT or an error."""
    cdef buffer_t *held = flow.held
    cdef ssize_t sent
    while held.start < held.end:
        sent = send(destination.fd, buffer_data(held) + held.start, held.end - held.start,
                    MSG_NOSIGNAL | (MSG_MORE if flow.flags & EOF else 0))
        if sent < 0:
            if errno == EINTR:
                continue
            if errno != EAGAIN:
                return FLOW_DESTINATION_ERROR
            destination.flags &= ~<uint32_t> WRITABLE
            return FLOW_WAIT
        held.start += <uint32_t> sent
        relay.given += <uint64_t> sent
    flow.held = NULL
    buffer_give(relay, held)
    return FLOW_DONE


cdef int deliver_pipe(relay_t *relay, flow_t *flow, end_t *destination) noexcept nogil:
    cdef pipe_t *pipe = flow.pipe
    cdef ssize_t sent
    while pipe.held:
        sent = splice(pipe.read_fd, NULL, destination.fd, NULL, pipe.held,
                      SPLICE_F_MOVE | SPLICE_F_NONBLOCK)
        if sent <= 0:
            if sent < 0 and errno == EINTR:
                continue
            if sent < 0 and errno == EAGAIN:
                destination.flags &= ~<uint32_t> WRITABLE
                return FLOW_WAIT
            return FLOW_DESTINATION_ERROR
        pipe.held -= <uint32_t> sent
        relay.given += <uint64_t> sent
    return FLOW_DONE


cdef int hold(relay_t *relay, flow_t *flow, const char *data, uint32_t length) noexcept nogil:
    cdef buffer_t *buffer = buffer_take(relay, length)
    if buffer == NULL:
        return FLOW_SOURCE_ERROR
    memcpy(buffer_data(buffer), data, length)
    buffer.end = length
    flow.held = buffer
    return FLOW_DONE


cdef void source_drained(flow_t *flow, end_t *source) noexcept nogil:
    """The source is empty for now: does the stream that just ended still deserve a pipe?"""
    source.flags &= ~<uint32_t> READABLE
    if flow.burst >= STREAM_BURST:
        flow.flags |= SPLICE
        flow.small_bursts = 0
    elif flow.flags & SPLICE:
        flow.small_bursts += 1
        if flow.small_bursts >= 2:
            flow.flags &= ~SPLICE
            flow.small_bursts = 0
    flow.burst = 0


cdef int copy_once(relay_t *relay, flow_t *flow, end_t *source, end_t *destination) noexcept nogil:
    """One read into the scratch buffer and one write out of it; FLOW_DONE to go on."""
    cdef ssize_t got, sent
    cdef size_t room = SCRATCH
    if relay.most - relay.taken < room:
        room = relay.most - relay.taken
    got = recv(source.fd, relay.scratch, room, 0)
    if got <= 0:
        if got == 0:
            source.flags &= ~<uint32_t> READABLE
            flow.flags |= EOF
            return FLOW_DONE
        if errno == EAGAIN:
            source_drained(flow, source)
            return FLOW_DONE
        return FLOW_DONE if errno == EINTR else FLOW_SOURCE_ERROR
    relay.taken += <uint64_t> got
    flow.burst += <uint32_t> got
    if got == room:
        if got == SCRATCH:
            flow.flags |= SPLICE
    elif not source.flags & BOUNDARIES:
        source_drained(flow, source)
        if source.flags & FIN:
            flow.flags |= EOF
    sent = send(destination.fd, relay.scratch, <size_t> got,
                MSG_NOSIGNAL | (MSG_MORE if flow.flags & EOF else 0))
    if sent < 0:
        if errno != EAGAIN and errno != EINTR:
            return FLOW_DESTINATION_ERROR
        sent = 0
    relay.given += <uint64_t> sent
    if sent < got:
        destination.flags &= ~<uint32_t> WRITABLE
        return hold(relay, flow, relay.scratch + sent, <uint32_t> (got - sent))
    return FLOW_DONE


cdef int splice_once(
        relay_t *relay, flow_t *flow, end_t *source, end_t *destination) noexcept nogil:
    """One splice into the flow's pipe; FLOW_DONE to go on, which delivers it."""
    cdef ssize_t got
    cdef size_t room = PIPE_SIZE
    if flow.pipe == NULL:
        flow.pipe = pipe_take(relay)
        if flow.pipe == NULL:
            return copy_once(relay, flow, source, destination)
    # The pipe is empty here, so EAGAIN can only mean that the socket is.
    if relay.most - relay.taken < room:
        room = relay.most - relay.taken
    got = splice(source.fd, NULL, flow.pipe.write_fd, NULL, room,
                 SPLICE_F_MOVE | SPLICE_F_NONBLOCK)
    if got > 0:
        flow.pipe.held = <uint32_t> got
        relay.taken += <uint64_t> got
        flow.burst += <uint32_t> got
        return FLOW_DONE
    if got == 0:
        source.flags &= ~<uint32_t> READABLE
        flow.flags |= EOF
        return FLOW_DONE
    if errno == EAGAIN and not source.flags & URGENT:
        source_drained(flow, source)
        return FLOW_DONE
    if errno == EINTR:
        return FLOW_DONE
    if errno == EINVAL or errno == ENOSYS or errno == EAGAIN:
        # Not every kind of socket can be spliced, and none beyond the mark of urgent data.
        pipe_give(relay, flow)
        flow.flags &= ~SPLICE
        return copy_once(relay, flow, source, destination)
    return FLOW_SOURCE_ERROR


cdef int flow_flush(relay_t *relay, flow_t *flow, end_t *destination) noexcept nogil:
    cdef int result
    if flow.held != NULL:
        if not destination.flags & WRITABLE:
            return FLOW_WAIT
        result = deliver_held(relay, flow, destination)
        if result != FLOW_DONE:
            return result
    if flow.pipe != NULL and flow.pipe.held:
        if not destination.flags & WRITABLE:
            return FLOW_WAIT
        return deliver_pipe(relay, flow, destination)
    return FLOW_DONE


cdef int flow_pump(relay_t *relay, flow_t *flow, end_t *source, end_t *destination) noexcept nogil:
    """Moves what can be moved now and says (FlowResult) what comes next."""
    cdef int result
    relay.taken = 0
    relay.given = 0
    while True:
        result = flow_flush(relay, flow, destination)
        if result != FLOW_DONE:
            return result
        if flow.flags & EOF:
            if flow.pipe != NULL:
                pipe_give(relay, flow)
            return FLOW_DONE
        if relay.taken >= relay.most or not source.flags & READABLE:
            if flow.pipe != NULL:
                pipe_give(relay, flow)
            return FLOW_FULL if relay.taken >= relay.most else FLOW_WAIT
        if not destination.flags & WRITABLE:
            return FLOW_WAIT
        if relay.taken >= TURN_BUDGET:
            return FLOW_AGAIN
        if flow.flags & SPLICE:
            result = splice_once(relay, flow, source, destination)
        else:
            result = copy_once(relay, flow, source, destination)
        if result != FLOW_DONE:
            return result
