# The life of a TCP connection: accept, PROXY header, selection, connect and fail-over, relay,
# half-close, end. The states are in _session.pxd; docs/internals/life-of-a-connection.md draws
# them.
#
# Rules:
# - Whatever ends a connection goes through session_end, which counts the reason, gives every
#   reservation back and defers the freeing to the end of the turn.
# - A client socket is edge-triggered for input only. EPOLLOUT is added, once, when a write first
#   finds the socket full: most connections never need it.
# - A timer is a hint to look. It is set early and checked late, so that traffic never touches it.
# - Data the client sent before a backend was reached stays in `up.held`, and survives fail-over.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from lbcore._balance cimport PICK_FULL, cursor_begin, pick, release
from lbcore._plan cimport (
    KETAMA, LISTENER_PROXY_IN, MAGLEV, cidr_t, listener_t, plan_listeners, plan_pools,
    pool_backends, pool_t, unmap_image,
)
from lbcore._proxy cimport (
    PROXY_MAX, PROXY_MORE, PROXY_OUT_MAX, cidr_contains, endpoint_from_sockaddr, endpoint_text,
    proxy_parse,
)
from lbcore._relay cimport (
    BOUNDARIES, CLOSED, EOF, FAILED, FIN, FLOW_AGAIN, FLOW_DONE, FLOW_SOURCE_ERROR, FLOW_WAIT,
    MEDIUM_BUFFER, OUT_ARMED, READABLE, SPOKE, URGENT, WRITABLE, buffer_data,
    buffer_give, buffer_t, buffer_take, end_t, flow_drop, flow_pump, flow_t,
)
from lbcore._scoreboard cimport (
    END_CLIENT_GONE, END_CLIENT_IDLE, END_CLIENT_RESET, END_CONNECT_FAILED, END_HALF_CLOSED,
    END_INTERNAL, END_NO_BACKEND, END_NORMAL, END_PROXY_MALFORMED, END_PROXY_TIMEOUT,
    END_QUEUE_FULL, END_QUEUE_TIMEOUT, END_SERVER_IDLE, END_SERVER_RESET, END_SOURCE_LIMIT,
    MAX_BACKENDS, MAX_LISTENERS, MAX_POOLS, NO_ROW, backend_counters_t, backend_live_t,
    histogram_bucket, listener_counters_t, pool_counters_t, source_add, source_count,
    source_key, source_remove,
)
from lbcore._timers cimport timer_clear, timer_set
from lbcore.includes.atomics cimport add32, load32, store32, sub32
from lbcore._upstream cimport (
    CONNECT_INTERNAL, CONNECT_PENDING, CONNECT_READY, connect_backend, tune_upstream,
)
from lbcore.includes.linux cimport (
    EAGAIN, EINTR, EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLPRI, EPOLLRDHUP, EPOLL_CTL_MOD,
    MSG_PEEK, SHUT_WR, SOL_SOCKET, SO_LINGER, close, epoll_ctl, epoll_event, errno, linger, recv,
    setsockopt, shutdown, ssize_t, write,
)

cdef enum:
    RETRY_PAUSE = 100           # ms before candidates that all failed are asked again
    QUEUE_POLL = 10             # ms: places freed by other workers are noticed so late
    TUNE_AFTER = 5000           # ms: a connection this old is long-lived
    EARLY_LIKELY = 4
    EARLY_MOST = 15


# ---- small things ------------------------------------------------------------------------------

cdef inline const listener_t *listener_of(const session_t *s) noexcept nogil:
    return plan_listeners(s.plan.image) + s.listener


cdef inline const pool_t *pool_of(const session_t *s) noexcept nogil:
    return plan_pools(s.plan.image) + s.pool


cdef inline backend_counters_t *backend_counters(loop_t *loop, uint32_t row) noexcept nogil:
    return loop.board.backend_counters + <size_t> loop.seat_index * MAX_BACKENDS + row


cdef inline listener_counters_t *listener_counters(loop_t *loop, uint32_t row) noexcept nogil:
    return loop.board.listener_counters + <size_t> loop.seat_index * MAX_LISTENERS + row


cdef inline pool_counters_t *pool_counters(loop_t *loop, uint32_t row) noexcept nogil:
    return loop.board.pool_counters + <size_t> loop.seat_index * MAX_POOLS + row


cdef inline uint32_t relative(const loop_t *loop) noexcept nogil:
    """Milliseconds since the loop started, never 0; wraps after 49 days, differences do not."""
    cdef uint32_t value = <uint32_t> (loop.now - loop.started)
    return value if value else 1


cdef void plan_release(plan_ref_t *plan) noexcept nogil:
    plan.references -= 1
    if plan.references == 0:
        unmap_image(plan.image)
        free(plan)


cdef void share_descriptors(loop_t *loop) noexcept nogil:
    cdef uint32_t taken = 2 * loop.sessions + loop.listening + RESERVED_DESCRIPTORS
    cdef uint32_t spare = (
        (loop.descriptor_limit - taken) // 2 if taken < loop.descriptor_limit else 0)
    cdef uint32_t wanted = loop.plan.image.max_pipes if loop.plan != NULL else 0
    loop.relay.max_pipes = wanted if wanted < spare else spare


cdef void close_socket(end_t *end, bint abort) noexcept nogil:
    cdef linger at_once
    if end.fd < 0:
        return
    if abort:
        at_once.l_onoff = 1
        at_once.l_linger = 0
        setsockopt(end.fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once))
    close(end.fd)
    end.fd = -1


cdef void arm_output(loop_t *loop, session_t *s, end_t *end, int tag) noexcept nogil:
    """Asks to hear when a full socket takes bytes again; from then on it stays asked."""
    cdef epoll_event event
    if end.flags & OUT_ARMED:
        return
    event.events = INPUT | EPOLLOUT
    event.data.u64 = <uint64_t> <uintptr_t> s | <uint64_t> tag
    epoll_ctl(loop.epoll, EPOLL_CTL_MOD, end.fd, &event)
    end.flags |= OUT_ARMED


# ---- memory ------------------------------------------------------------------------------------

cdef session_t *session_new(loop_t *loop) noexcept nogil:
    cdef session_t *s = loop.free_sessions
    cdef chunk_t *chunk
    cdef int i
    if s == NULL:
        chunk = <chunk_t *> malloc(sizeof(chunk_t))
        if chunk == NULL:
            return NULL
        # Sessions are multiples of 8 bytes: the low bits of a pointer are free for an event's tag.
        chunk.sessions = <session_t *> malloc(CHUNK * sizeof(session_t))
        if chunk.sessions == NULL:
            free(chunk)
            return NULL
        chunk.next = loop.chunks
        loop.chunks = chunk
        for i in range(CHUNK):
            chunk.sessions[i].state = SESSION_DEAD
            chunk.sessions[i].next = loop.free_sessions
            loop.free_sessions = &chunk.sessions[i]
        s = loop.free_sessions
    loop.free_sessions = s.next
    memset(s, 0, sizeof(session_t))
    return s


cdef void sessions_bury(loop_t *loop) noexcept nogil:
    cdef session_t *s = loop.dead
    cdef session_t *following
    loop.dead = NULL
    while s != NULL:
        following = s.next
        if s.flags & WORK_LISTED:
            s.next = loop.dead
            loop.dead = s
        else:
            s.next = loop.free_sessions
            loop.free_sessions = s
        s = following


cdef void defer(loop_t *loop, session_t *s) noexcept nogil:
    """Goes on with this connection in the next turn, after others had theirs."""
    if s.flags & WORK_LISTED:
        return
    s.flags |= WORK_LISTED
    s.work = NULL
    if loop.work_tail == NULL:
        loop.work_head = s
    else:
        loop.work_tail.work = s
    loop.work_tail = s


# ---- the end -----------------------------------------------------------------------------------

cdef void give_back(loop_t *loop, session_t *s) noexcept nogil:
    """Gives the reserved place at a backend back."""
    if s.backend_row == NO_ROW:
        return
    release(&loop.picker, s.backend_row, s.pool_row)
    s.backend_row = NO_ROW
    if loop.queues[s.pool_row].length:
        loop.queue_at = loop.now


cdef void session_end(loop_t *loop, session_t *s, int reason, bint abort) noexcept nogil:
    """Ends a connection. ``abort`` resets both sockets; otherwise they are closed."""
    cdef listener_counters_t *counters = listener_counters(loop, s.listener_row)
    if s.state == SESSION_DEAD:
        return
    if s.state == SESSION_QUEUED:
        queue_remove(loop, s)
    timer_clear(&loop.wheel, &s.timer)
    flow_drop(&loop.relay, &s.up)
    flow_drop(&loop.relay, &s.down)
    close_socket(&s.server, abort)
    close_socket(&s.client, abort)
    give_back(loop, s)
    if s.flags & SOURCE_COUNTED:
        source_remove(&loop.board, loop.seat_index, s.source_key)
    counters.connections -= 1
    counters.ended[reason] += 1
    sub32(&loop.board.listeners[s.listener_row].connections, 1)
    loop.sessions -= 1
    loop.seat.connections = loop.sessions
    share_descriptors(loop)
    plan_release(s.plan)
    s.state = SESSION_DEAD
    s.next = loop.dead
    loop.dead = s
    if loop.resume_at:
        loop.resume_at = loop.now


# ---- the beginning -----------------------------------------------------------------------------

cdef bint is_trusted(const session_t *s, const listener_t *listener) noexcept nogil:
    cdef const cidr_t *cidr
    cdef uint32_t i
    if listener.trusted_count == 0:
        return True
    cidr = <const cidr_t *> (<const char *> s.plan.image + listener.trusted_offset)
    for i in range(listener.trusted_count):
        if cidr_contains(&cidr[i], &s.source):
            return True
    return False


cdef void session_open(loop_t *loop, acceptor_t *acceptor, int fd, const void *address,
                       uint32_t length) noexcept nogil:
    cdef session_t *s = session_new(loop)
    cdef const listener_t *listener
    cdef listener_counters_t *counters
    cdef bint early
    if s == NULL:
        close(fd)
        loop.seat.accept_errors += 1
        sub32(&loop.board.listeners[
            plan_listeners(acceptor.plan.image)[acceptor.listener].row].connections, 1)
        return
    s.plan = acceptor.plan
    s.plan.references += 1
    s.listener = acceptor.listener
    listener = listener_of(s)
    s.listener_row = listener.row
    s.pool = listener.pool
    s.pool_row = pool_of(s).row
    s.backend_row = NO_ROW
    s.client.fd = fd
    s.client.flags = WRITABLE | (BOUNDARIES if acceptor.is_unix else 0)
    s.server.fd = -1
    endpoint_from_sockaddr(&s.source, address, length)
    counters = listener_counters(loop, s.listener_row)
    counters.accepted += 1
    counters.connections += 1
    loop.sessions += 1
    loop.seat.connections = loop.sessions
    share_descriptors(loop)
    loop.seat.accepted += 1

    if listener.flags & LISTENER_PROXY_IN and is_trusted(s, listener):
        s.state = SESSION_PROXY
        if not epoll_add(loop, s, fd, TAG_CLIENT, INPUT):
            session_end(loop, s, END_INTERNAL, True)
            return
        timer_set(&loop.wheel, &s.timer, loop.now + listener.proxy_timeout)
        read_proxy_header(loop, s)
        return

    # Data that is there already saves a wake-up and lets the first segment to the backend carry
    # it. Where the server speaks first, looking for it is a wasted call: so look often where it
    # was found, seldom where not.
    early = acceptor.early >= EARLY_LIKELY
    if not early:
        acceptor.probe = (acceptor.probe + 1) & 15
        early = acceptor.probe == 0
    if early:
        if not read_early(loop, s):
            return
        if s.up.held != NULL:
            acceptor.early = acceptor.early + 4 if acceptor.early + 4 < EARLY_MOST else EARLY_MOST
        elif acceptor.early:
            acceptor.early -= 1
    session_begin(loop, s)
    # It may have been filled by a server that spoke first already.
    if s.state != SESSION_DEAD and not epoll_add(
            loop, s, fd, TAG_CLIENT, INPUT | (EPOLLOUT if s.client.flags & OUT_ARMED else 0)):
        session_end(loop, s, END_INTERNAL, True)


cdef bint read_early(loop_t *loop, session_t *s) noexcept nogil:
    """Takes what the client has sent before a backend is chosen; False when the client left."""
    cdef buffer_t *buffer
    cdef uint32_t space
    cdef ssize_t got
    buffer = buffer_take(&loop.relay, MEDIUM_BUFFER)
    if buffer == NULL:
        return True
    buffer.start = PROXY_OUT_MAX        # room for a PROXY header before it
    buffer.end = PROXY_OUT_MAX
    space = buffer.size - PROXY_OUT_MAX
    got = recv(s.client.fd, buffer_data(buffer) + buffer.end, space, 0)
    if got > 0:
        buffer.end += <uint32_t> got
        s.up.held = buffer
        if got == space or s.client.flags & BOUNDARIES:
            s.client.flags |= READABLE
        else:
            s.client.flags &= ~<uint32_t> READABLE
            if s.client.flags & FIN:
                s.up.flags |= EOF
        return True
    buffer_give(&loop.relay, buffer)
    if got == 0:
        s.up.flags |= EOF
    elif errno == EAGAIN:
        s.client.flags &= ~<uint32_t> READABLE
    elif errno != EINTR:
        session_end(loop, s, END_CLIENT_GONE, True)
        return False
    return True


cdef void read_proxy_header(loop_t *loop, session_t *s) noexcept nogil:
    """Looks for a whole header without taking anything else out of the socket."""
    cdef ssize_t got = recv(s.client.fd, loop.relay.scratch, PROXY_MAX, MSG_PEEK)
    cdef int length
    if got < 0:
        if errno != EAGAIN and errno != EINTR:
            session_end(loop, s, END_CLIENT_GONE, True)
        return
    if got == 0:
        session_end(loop, s, END_CLIENT_GONE, False)
        return
    length = proxy_parse(
        <const uint8_t *> loop.relay.scratch, <size_t> got, &s.source, &s.destination)
    if length == PROXY_MORE and got < PROXY_MAX:
        if s.client.flags & FAILED:
            session_end(loop, s, END_CLIENT_GONE, True)
        elif s.client.flags & FIN:
            session_end(loop, s, END_PROXY_MALFORMED, True)
        return
    if length <= 0:
        session_end(loop, s, END_PROXY_MALFORMED, True)
        return
    recv(s.client.fd, loop.relay.scratch, <size_t> length, 0)
    if s.destination.family:
        s.flags |= HAS_DESTINATION
    s.client.flags |= READABLE
    timer_clear(&loop.wheel, &s.timer)
    if read_early(loop, s):
        session_begin(loop, s)


cdef void session_begin(loop_t *loop, session_t *s) noexcept nogil:
    """The client's address is known: limits, then a backend."""
    cdef const listener_t *listener = listener_of(s)
    if listener.max_per_source and s.source.family:
        s.source_key = source_key(&loop.board, listener.row, s.source.address,
                                  4 if s.source.family == 4 else 16)
        if source_count(&loop.board, s.source_key) >= listener.max_per_source:
            session_end(loop, s, END_SOURCE_LIMIT, True)
            return
        if source_add(&loop.board, loop.seat_index, s.source_key):
            s.flags |= SOURCE_COUNTED
        else:
            loop.seat.sources_untracked += 1
    if loop.queues[s.pool_row].length:
        queue_poll(loop, &loop.queues[s.pool_row])      # who waits comes first
    s.deadline = loop.now + pool_of(s).connect_budget
    start_cursor(s)
    dispatch(loop, s)


cdef void start_cursor(session_t *s) noexcept nogil:
    cdef const pool_t *pool = pool_of(s)
    cdef char key[48]
    cdef uint32_t length = 0
    if pool.algorithm == MAGLEV or pool.algorithm == KETAMA:
        length = endpoint_text(&s.source, key)
    cursor_begin(&s.cursor, pool, key, length)


# ---- waiting for a backend ---------------------------------------------------------------------

cdef void enqueue(loop_t *loop, session_t *s, bint no_backend) noexcept nogil:
    cdef const pool_t *pool = pool_of(s)
    cdef queue_t *queue = &loop.queues[s.pool_row]
    if pool.queue_timeout == 0 or pool.max_queue == 0:
        session_end(loop, s, END_NO_BACKEND if no_backend else END_QUEUE_FULL, True)
        return
    if add32(&loop.board.pools[s.pool_row].waiting, 1) >= pool.max_queue:
        sub32(&loop.board.pools[s.pool_row].waiting, 1)
        session_end(loop, s, END_NO_BACKEND if no_backend else END_QUEUE_FULL, True)
        return
    pool_counters(loop, s.pool_row).waiting += 1
    pool_counters(loop, s.pool_row).queued += 1
    if no_backend:
        s.flags |= NO_BACKEND
    s.state = SESSION_QUEUED
    s.deadline = loop.now + pool.queue_timeout
    timer_set(&loop.wheel, &s.timer, s.deadline)
    s.next = NULL
    s.previous = queue.tail
    if queue.tail == NULL:
        queue.head = s
    else:
        queue.tail.next = s
    queue.tail = s
    queue.length += 1
    if not queue.active:
        queue.active = 1
        queue.next = loop.waiting
        loop.waiting = queue
    if loop.queue_at == 0:
        loop.queue_at = loop.now + QUEUE_POLL


cdef void queue_remove(loop_t *loop, session_t *s) noexcept nogil:
    cdef queue_t *queue = &loop.queues[s.pool_row]
    if s.previous == NULL:
        queue.head = s.next
    else:
        s.previous.next = s.next
    if s.next == NULL:
        queue.tail = s.previous
    else:
        s.next.previous = s.previous
    queue.length -= 1
    s.state = SESSION_PAUSED
    pool_counters(loop, s.pool_row).waiting -= 1
    sub32(&loop.board.pools[s.pool_row].waiting, 1)


cdef bint queue_try(loop_t *loop, session_t *s) noexcept nogil:
    """Sends a waiting connection on its way; False when nobody can take it yet.

    It keeps its cursor and its attempts: who failed it before it waited is not asked again, or a
    dead backend beside a full one would be asked without end.
    """
    cdef int index = pick(&loop.picker, s.plan.image, pool_of(s), &s.cursor)
    if index == PICK_FULL or (index < 0 and s.cursor.tried_count == 0):
        return False
    queue_remove(loop, s)
    timer_clear(&loop.wheel, &s.timer)
    s.flags &= ~NO_BACKEND
    s.deadline = loop.now + pool_of(s).connect_budget
    dispatch_to(loop, s, index)
    return True


cdef void queue_poll(loop_t *loop, queue_t *queue) noexcept nogil:
    """First come, first served, among connections of the same plan."""
    cdef session_t *s = queue.head
    cdef session_t *following
    cdef plan_ref_t *stuck = NULL
    while s != NULL and stuck != loop.plan:
        following = s.next
        if s.plan != stuck and not queue_try(loop, s):
            stuck = s.plan      # backends of an old plan may be gone: look at who came after it
        s = following


cdef void queues_poll(loop_t *loop) noexcept nogil:
    cdef queue_t **link = &loop.waiting
    cdef queue_t *queue
    while link[0] != NULL:
        queue = link[0]
        queue_poll(loop, queue)
        if queue.head == NULL:
            link[0] = queue.next
            queue.active = 0
        else:
            link = &queue.next
    loop.queue_at = loop.now + QUEUE_POLL if loop.waiting != NULL else 0


# ---- reaching a backend ------------------------------------------------------------------------

cdef void dispatch(loop_t *loop, session_t *s) noexcept nogil:
    """Picks a candidate and connects to it."""
    dispatch_to(loop, s, pick(&loop.picker, s.plan.image, pool_of(s), &s.cursor))


cdef void dispatch_to(loop_t *loop, session_t *s, int index) noexcept nogil:
    """Connects to a picked candidate; goes on to the next while they fail at once."""
    cdef const pool_t *pool = pool_of(s)
    cdef int result
    cdef bint ours = False
    while True:
        if index < 0 and (index == PICK_FULL or s.cursor.tried_count == 0):
            enqueue(loop, s, index != PICK_FULL)
            return
        if s.attempts and (s.attempts >= pool.connect_attempts or loop.now >= s.deadline):
            if index >= 0:
                release(&loop.picker, pool_backends(s.plan.image, pool)[index].row, s.pool_row)
            session_end(loop, s, END_INTERNAL if ours else END_CONNECT_FAILED, True)
            return
        if index < 0:
            s.state = SESSION_PAUSED
            timer_set(&loop.wheel, &s.timer, loop.now + RETRY_PAUSE)
            return
        s.backend = <uint16_t> index
        s.backend_row = pool_backends(s.plan.image, pool)[index].row
        s.attempts += 1
        result = connect_backend(loop, s, pool)
        count_up(loop, s, loop.relay.given)
        if result == CONNECT_PENDING:
            s.state = SESSION_CONNECTING
            timer_set(&loop.wheel, &s.timer, min_time(loop.now + pool.connect_timeout, s.deadline))
            return
        if result == CONNECT_READY:
            established(loop, s)
            return
        ours = result == CONNECT_INTERNAL
        if ours:
            # No descriptor, memory, port or permission: no backend is to blame, and the next one
            # may do, since ports run out for each destination alone.
            loop.notices |= NOTICE_TROUBLE
            close_socket(&s.server, False)
            give_back(loop, s)
        else:
            backend_failed(loop, s, False)
        index = pick(&loop.picker, s.plan.image, pool, &s.cursor)


cdef inline uint64_t min_time(uint64_t a, uint64_t b) noexcept nogil:
    return a if a < b else b


cdef void backend_failed(loop_t *loop, session_t *s, bint timed_out) noexcept nogil:
    """Counts a connect that failed and gives the place back."""
    cdef backend_counters_t *counters = backend_counters(loop, s.backend_row)
    cdef const pool_t *pool = pool_of(s)
    if timed_out:
        counters.timeouts += 1
    else:
        counters.refused += 1
    if s.attempts < pool.connect_attempts:
        counters.redispatched += 1
    # A try that the budget cut short says little about the backend.
    if not timed_out or clock_us() - s.connect_started >= (pool.connect_timeout - 1) * 1000:
        suspect(loop, s.backend_row)
    close_socket(&s.server, False)
    give_back(loop, s)


cdef void suspect(loop_t *loop, uint32_t row) noexcept nogil:
    """One more failure in a row; rings the supervisor when it is the one too many."""
    cdef backend_live_t *live = &loop.board.backends[row]
    cdef uint64_t one = 1
    if add32(&live.failures, 1) + 1 == live.eject_after:
        write(loop.bell, &one, sizeof(one))


cdef void established(loop_t *loop, session_t *s) noexcept nogil:
    """A backend is reached: relay."""
    cdef backend_counters_t *counters = backend_counters(loop, s.backend_row)
    cdef uint32_t now = relative(loop)
    counters.connections += 1
    counters.connect_us[histogram_bucket(clock_us() - s.connect_started)] += 1
    s.state = SESSION_RELAY
    s.client_active = now
    s.server_active = now
    timer_set(&loop.wheel, &s.timer, next_look(loop, s))
    if s.up.held != NULL or s.up.flags & EOF or s.client.flags & READABLE:
        run_up(loop, s)


# ---- relaying ----------------------------------------------------------------------------------

cdef inline void count_up(loop_t *loop, session_t *s, uint64_t given) noexcept nogil:
    backend_counters(loop, s.backend_row).bytes_up += given
    listener_counters(loop, s.listener_row).bytes_up += given


cdef bint run_up(loop_t *loop, session_t *s) noexcept nogil:
    """Client to server. False when the connection has ended."""
    cdef int result
    if s.up.flags & CLOSED:
        return True
    result = flow_pump(&loop.relay, &s.up, &s.client, &s.server)
    if loop.relay.taken:
        s.client_active = relative(loop)
    if loop.relay.given:
        s.server_active = relative(loop)
        count_up(loop, s, loop.relay.given)
    if result == FLOW_WAIT:
        if not s.server.flags & WRITABLE:
            arm_output(loop, s, &s.server, TAG_SERVER)
        return True
    if result == FLOW_AGAIN:
        defer(loop, s)
        return True
    if result == FLOW_DONE:
        return pass_end(loop, s, &s.up, &s.down, &s.server)
    if result == FLOW_SOURCE_ERROR:
        session_end(loop, s, END_CLIENT_RESET, True)
        return False
    # The server takes no more. What it had still said goes to the client first: an answer that
    # explains why it stopped reading must not be lost to the reset.
    flow_drop(&loop.relay, &s.up)
    s.up.flags |= CLOSED
    if s.down.flags & CLOSED:
        # All it said was passed on, its end too. The error was reported to the write: no event
        # will tell of it again.
        session_end(loop, s, END_SERVER_RESET, False)
        return False
    s.flags |= SERVER_LOST
    # The end is to be found by a read alone: last bytes that wait for a FIN (MSG_MORE) would be
    # lost to the reset that comes instead.
    s.server.flags |= READABLE | BOUNDARIES
    return run_down(loop, s)


cdef bint run_down(loop_t *loop, session_t *s) noexcept nogil:
    """Server to client. False when the connection has ended."""
    cdef int result
    if s.down.flags & CLOSED:
        return True
    result = flow_pump(&loop.relay, &s.down, &s.server, &s.client)
    if loop.relay.taken:
        s.server_active = relative(loop)
        if not s.down.flags & SPOKE:
            s.down.flags |= SPOKE
            if load32(&loop.board.backends[s.backend_row].failures):
                store32(&loop.board.backends[s.backend_row].failures, 0)
    if loop.relay.given:
        s.client_active = relative(loop)
        backend_counters(loop, s.backend_row).bytes_down += loop.relay.given
        listener_counters(loop, s.listener_row).bytes_down += loop.relay.given
    if result == FLOW_WAIT:
        if not s.client.flags & WRITABLE:
            arm_output(loop, s, &s.client, TAG_CLIENT)
        return True
    if result == FLOW_AGAIN:
        defer(loop, s)
        return True
    if result == FLOW_DONE and not s.flags & SERVER_LOST:
        if s.server.flags & FAILED and not s.up.flags & CLOSED:
            # Reset behind its orderly end: its stream is complete, but it takes nothing more.
            session_end(loop, s, END_SERVER_RESET, False)
            return False
        return pass_end(loop, s, &s.down, &s.up, &s.client)
    if result == FLOW_DONE or result == FLOW_SOURCE_ERROR:
        if not s.down.flags & SPOKE:
            backend_counters(loop, s.backend_row).early_resets += 1
            suspect(loop, s.backend_row)
        session_end(loop, s, END_SERVER_RESET, True)
        return False
    session_end(loop, s, END_CLIENT_RESET, True)
    return False


cdef bint pass_end(loop_t *loop, session_t *s, flow_t *flow, flow_t *other,
                   end_t *destination) noexcept nogil:
    """One direction is complete: the other side sees the same end. False when that was all."""
    cdef uint32_t half_closed
    flow.flags |= CLOSED
    if other.flags & CLOSED:
        # An orderly end clears suspicion even of a server that never says anything.
        if load32(&loop.board.backends[s.backend_row].failures):
            store32(&loop.board.backends[s.backend_row].failures, 0)
        session_end(loop, s, END_NORMAL, False)
        return False
    shutdown(destination.fd, SHUT_WR)
    s.half_closed = relative(loop)
    half_closed = listener_of(s).half_closed
    if half_closed:
        timer_set(&loop.wheel, &s.timer, min_time(loop.now + half_closed, next_look(loop, s)))
    return True


cdef void note_events(end_t *end, uint32_t events) noexcept nogil:
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


cdef void session_client_event(loop_t *loop, session_t *s, uint32_t events) noexcept nogil:
    if s.state == SESSION_DEAD:
        return
    note_events(&s.client, events)
    if s.state == SESSION_RELAY:
        if events & EPOLLOUT and not run_down(loop, s):
            return
        if s.client.flags & READABLE and not run_up(loop, s):
            return
        if s.client.flags & FAILED:
            # A reset, and nothing of the client's is left to pass on.
            session_end(loop, s, END_CLIENT_RESET, True)
    elif s.state == SESSION_PROXY:
        read_proxy_header(loop, s)
    elif events & EPOLLERR:
        # Not EPOLLHUP: a unix socket reports it when the client has sent all it wanted and closed.
        session_end(loop, s, END_CLIENT_GONE, True)


cdef void session_server_event(loop_t *loop, session_t *s, uint32_t events) noexcept nogil:
    if s.state == SESSION_RELAY:
        note_events(&s.server, events)
        if s.server.flags & READABLE and not run_down(loop, s):
            return
        if events & EPOLLOUT and not run_up(loop, s):
            return
        if s.server.flags & FAILED and s.down.flags & CLOSED:
            session_end(loop, s, END_SERVER_RESET, False)
    elif s.state == SESSION_CONNECTING:
        if events & (EPOLLERR | EPOLLHUP):
            connect_lost(loop, s, False)
            return
        note_events(&s.server, events)
        established(loop, s)
        if s.state == SESSION_RELAY and s.server.flags & READABLE:
            run_down(loop, s)


cdef void connect_lost(loop_t *loop, session_t *s, bint timed_out) noexcept nogil:
    """A pending connect failed: on to the next candidate, if attempts and time allow."""
    timer_clear(&loop.wheel, &s.timer)
    backend_failed(loop, s, timed_out)
    dispatch(loop, s)


cdef void session_work(loop_t *loop, session_t *s) noexcept nogil:
    """Deferred: goes on with both directions."""
    s.flags &= ~WORK_LISTED
    if s.state == SESSION_RELAY and run_up(loop, s):
        run_down(loop, s)


# ---- time --------------------------------------------------------------------------------------

cdef uint64_t next_look(loop_t *loop, session_t *s) noexcept nogil:
    """When the earliest of this connection's timeouts can be due, in ms."""
    cdef const listener_t *listener = listener_of(s)
    cdef uint32_t server_idle = pool_of(s).server_idle
    cdef uint64_t look = loop.now + (1 << 30)
    cdef uint32_t now = relative(loop)
    if not s.flags & TUNED:
        look = loop.now + TUNE_AFTER
    if listener.client_idle:
        look = min_time(look, loop.now + left(listener.client_idle, now - s.client_active))
    if server_idle:
        look = min_time(look, loop.now + left(server_idle, now - s.server_active))
    if s.half_closed and listener.half_closed:
        look = min_time(look, loop.now + left(listener.half_closed, now - last_active(s, now)))
    return look


cdef inline uint32_t left(uint32_t limit, uint32_t elapsed) noexcept nogil:
    return limit - elapsed if elapsed < limit else 0


cdef inline uint32_t last_active(const session_t *s, uint32_t now) noexcept nogil:
    """The latest of: half-close, a byte of the client's, a byte of the server's."""
    cdef uint32_t latest = s.half_closed
    if now - s.client_active < now - latest:
        latest = s.client_active
    if now - s.server_active < now - latest:
        latest = s.server_active
    return latest


cdef void relay_timeout(loop_t *loop, session_t *s) noexcept nogil:
    cdef const listener_t *listener = listener_of(s)
    cdef uint32_t server_idle = pool_of(s).server_idle
    cdef uint32_t now = relative(loop)
    if listener.client_idle and now - s.client_active >= listener.client_idle:
        session_end(loop, s, END_CLIENT_IDLE, True)
    elif server_idle and now - s.server_active >= server_idle:
        session_end(loop, s, END_SERVER_IDLE, True)
    elif (s.half_closed and listener.half_closed
            and now - last_active(s, now) >= listener.half_closed):
        session_end(loop, s, END_HALF_CLOSED, True)
    else:
        if not s.flags & TUNED:
            tune_upstream(s, pool_of(s))
        timer_set(&loop.wheel, &s.timer, next_look(loop, s))


cdef void session_timeout(loop_t *loop, session_t *s) noexcept nogil:
    if s.state == SESSION_RELAY:
        relay_timeout(loop, s)
    elif s.state == SESSION_CONNECTING:
        connect_lost(loop, s, True)
    elif s.state == SESSION_PAUSED:
        start_cursor(s)
        dispatch(loop, s)
    elif s.state == SESSION_QUEUED:
        session_end(loop, s, END_NO_BACKEND if s.flags & NO_BACKEND else END_QUEUE_TIMEOUT, True)
    elif s.state == SESSION_PROXY:
        session_end(loop, s, END_PROXY_TIMEOUT, True)
