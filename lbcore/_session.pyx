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

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from lbcore._access cimport NO_TIME
from lbcore._arrive cimport (
    ARRIVAL_GONE, ARRIVAL_MALFORMED, ARRIVAL_MORE, ARRIVAL_RESET, proxy_expected, proxy_read,
    source_enter,
)
from lbcore._balance cimport cursor_begin
from lbcore._loop cimport (
    INPUT, NOTICE_TROUBLE, SEEK_NOBODY, SEEK_SESSION, TAG_CLIENT, TAG_SERVER, backend_counters,
    clock_us, epoll_add, epoll_change, listener_counters, min_time, relative,
)
from lbcore._plan cimport (
    KETAMA, MAGLEV, listener_t, plan_listeners, plan_pools, pool_backends, pool_t,
)
from lbcore._proxy cimport (
    PROXY_OUT_MAX, endpoint_from_sockaddr, endpoint_text, proxy_build,
)
from lbcore._relay cimport (
    BOUNDARIES, CLOSED, EOF, FAILED, FIN, FLOW_AGAIN, FLOW_DONE, FLOW_SOURCE_ERROR, FLOW_WAIT,
    MEDIUM_BUFFER, OUT_ARMED, READABLE, SMALL_BUFFER, SPOKE, WRITABLE, buffer_data,
    buffer_give, buffer_t, buffer_take, flow_drop, flow_pump, note_events,
)
from lbcore._scoreboard cimport (
    END_CLIENT_GONE, END_CLIENT_IDLE, END_CLIENT_RESET, END_CONNECT_FAILED, END_HALF_CLOSED,
    END_INTERNAL, END_NO_BACKEND, END_NORMAL, END_PROXY_MALFORMED, END_PROXY_TIMEOUT,
    END_QUEUE_FULL, END_QUEUE_TIMEOUT, END_SERVER_IDLE, END_SERVER_RESET, END_SOURCE_LIMIT,
    NO_ROW, backend_counters_t, histogram_bucket, listener_counters_t, source_remove,
)
from lbcore._seek cimport (
    RETRY_PAUSE, SEEK_NO_BACKEND, SEEK_PAUSE, SEEK_QUEUED, SEEK_READY, SEEK_SPENT, close_socket,
    plan_release, queue_poll, seek, seek_cancel, seek_failed, seek_release, share_descriptors,
    suspect, trust,
)
from lbcore._sessionlog cimport session_line
from lbcore._timers cimport timer_clear, timer_set
from lbcore._upstream cimport (
    CONNECT_INTERNAL, CONNECT_PENDING, CONNECT_READY, connect_backend, tune_upstream,
)
from lbcore._web cimport route_of
from lbcore.includes.atomics cimport sub32
from lbcore.includes.linux cimport (
    EAGAIN, EINTR, EPOLLERR, EPOLLHUP, EPOLLOUT, SHUT_WR,
    close, errno, getsockname, recv, shutdown, sockaddr, sockaddr_storage, socklen_t, ssize_t,
)

cdef enum:
    TUNE_AFTER = 5000           # ms: a connection this old is long-lived
    EARLY_LIKELY = 4
    EARLY_MOST = 15


# ---- small things ------------------------------------------------------------------------------

cdef inline const listener_t *listener_of(const session_t *s) noexcept nogil:
    return plan_listeners(s.seek.plan.image) + s.listener


cdef inline const pool_t *pool_of(const session_t *s) noexcept nogil:
    return plan_pools(s.seek.plan.image) + s.seek.pool


cdef void arm_output(loop_t *loop, session_t *s, end_t *end, int tag) noexcept nogil:
    """Asks to hear when a full socket takes bytes again; from then on it stays asked."""
    if end.flags & OUT_ARMED:
        return
    epoll_change(loop, s, end.fd, tag, INPUT | EPOLLOUT)
    end.flags |= OUT_ARMED


# ---- memory ------------------------------------------------------------------------------------

cdef session_t *session_new(loop_t *loop) noexcept nogil:
    cdef session_t *s = <session_t *> loop.free_sessions
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
        chunk.next = <chunk_t *> loop.chunks
        loop.chunks = chunk
        for i in range(CHUNK):
            chunk.sessions[i].state = SESSION_DEAD
            chunk.sessions[i].next = <session_t *> loop.free_sessions
            loop.free_sessions = &chunk.sessions[i]
        s = <session_t *> loop.free_sessions
    loop.free_sessions = s.next
    memset(s, 0, sizeof(session_t))
    return s


cdef void sessions_bury(loop_t *loop) noexcept nogil:
    cdef session_t *s = <session_t *> loop.dead
    cdef session_t *following
    loop.dead = NULL
    while s != NULL:
        following = s.next
        if s.flags & WORK_LISTED:
            s.next = <session_t *> loop.dead
            loop.dead = s
        else:
            s.next = <session_t *> loop.free_sessions
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
        (<session_t *> loop.work_tail).work = s
    loop.work_tail = s


# ---- the end -----------------------------------------------------------------------------------

cdef void session_end(loop_t *loop, session_t *s, int reason, bint abort) noexcept nogil:
    """Ends a connection. ``abort`` resets both sockets; otherwise they are closed."""
    cdef listener_counters_t *counters = listener_counters(loop, s.listener_row)
    if s.state == SESSION_DEAD:
        return
    if s.opened_us:
        session_line(loop, s, reason)
    seek_cancel(loop, &s.seek)
    timer_clear(&loop.wheel, &s.timer)
    flow_drop(&loop.relay, &s.up)
    flow_drop(&loop.relay, &s.down)
    close_socket(&s.server, abort)
    close_socket(&s.client, abort)
    seek_release(loop, &s.seek)
    if s.source_key:
        source_remove(&loop.board, loop.seat_index, s.source_key)
    counters.connections -= 1
    counters.ended[reason] += 1
    sub32(&loop.board.listeners[s.listener_row].connections, 1)
    loop.sessions -= 1
    loop.seat.connections = loop.sessions
    share_descriptors(loop)
    if s.flags & TUNNEL:
        (<exchange_t *> s.tunnel).bytes_up += s.bytes_up
        (<exchange_t *> s.tunnel).bytes_down += s.bytes_down
        loop.tunnel_ended(loop, s.tunnel, reason)
    plan_release(s.seek.plan)
    s.state = SESSION_DEAD
    s.next = <session_t *> loop.dead
    loop.dead = s
    if loop.resume_at:
        loop.resume_at = loop.now


# ---- the beginning -----------------------------------------------------------------------------

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
    s.seek.plan = acceptor.plan
    s.seek.plan.references += 1
    s.listener = acceptor.listener
    listener = listener_of(s)
    s.listener_row = listener.row
    s.seek.pool = listener.pool
    s.seek.pool_row = pool_of(s).row
    s.seek.owner = s
    s.seek.backend_row = NO_ROW
    s.client.fd = fd
    s.client.flags = WRITABLE | (BOUNDARIES if acceptor.is_unix else 0)
    s.server.fd = -1
    endpoint_from_sockaddr(&s.source, address, length)
    if s.seek.plan.image.access_format:
        s.opened_us = clock_us()
        s.queue_us = NO_TIME
        s.connect_us = NO_TIME
    counters = listener_counters(loop, s.listener_row)
    counters.accepted += 1
    counters.connections += 1
    loop.sessions += 1
    loop.seat.connections = loop.sessions
    share_descriptors(loop)
    loop.seat.accepted += 1

    if proxy_expected(s.seek.plan.image, listener, &s.source):
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
    cdef int arrival = proxy_read(loop, &s.client, &s.source, &s.destination)
    if arrival == ARRIVAL_MORE:
        return
    if arrival == ARRIVAL_GONE or arrival == ARRIVAL_RESET:
        session_end(loop, s, END_CLIENT_GONE, arrival == ARRIVAL_RESET)
        return
    if arrival == ARRIVAL_MALFORMED:
        session_end(loop, s, END_PROXY_MALFORMED, True)
        return
    if s.destination.family:
        s.flags |= HAS_DESTINATION
    timer_clear(&loop.wheel, &s.timer)
    if read_early(loop, s):
        session_begin(loop, s)


cdef void session_begin(loop_t *loop, session_t *s) noexcept nogil:
    """The client's address is known: limits, then a backend."""
    cdef const listener_t *listener = listener_of(s)
    if not source_enter(loop, listener, &s.source, &s.source_key):
        session_end(loop, s, END_SOURCE_LIMIT, True)
        return
    if loop.queues[s.seek.pool_row].length:
        queue_poll(loop, s.seek.pool_row)       # who waits comes first
    s.seek.deadline = loop.now + pool_of(s).connect_budget
    start_cursor(s)
    dispatch(loop, s, seek(loop, &s.seek))


cdef void start_cursor(session_t *s) noexcept nogil:
    cdef const pool_t *pool = pool_of(s)
    cdef char key[48]
    cdef uint32_t length = 0
    if pool.algorithm == MAGLEV or pool.algorithm == KETAMA:
        length = endpoint_text(&s.source, key)
    cursor_begin(&s.seek.cursor, pool, key, length)


# ---- reaching a backend ------------------------------------------------------------------------

cdef void dispatch(loop_t *loop, session_t *s, int result) noexcept nogil:
    """Goes on from a SeekResult: connects to the candidate, and to the next while they fail."""
    cdef const pool_t *pool = pool_of(s)
    cdef bint ours = False
    cdef int connected
    while result == SEEK_READY:
        connected = reach(loop, s, pool)
        if connected == CONNECT_PENDING:
            s.state = SESSION_CONNECTING
            timer_set(&loop.wheel, &s.timer,
                      min_time(loop.now + pool.connect_timeout, s.seek.deadline))
            return
        if connected == CONNECT_READY:
            established(loop, s)
            return
        close_socket(&s.server, False)
        ours = connected == CONNECT_INTERNAL
        if ours:
            # No descriptor, memory, port or permission: no backend is to blame, and the next one
            # may do, since ports run out for each destination alone.
            loop.notices |= NOTICE_TROUBLE
            seek_release(loop, &s.seek)
        else:
            seek_failed(loop, &s.seek, s.connect_started, False)
        result = seek(loop, &s.seek)
    if result == SEEK_QUEUED:
        s.state = SESSION_QUEUED
        timer_set(&loop.wheel, &s.timer, s.seek.deadline)
    elif result == SEEK_PAUSE:
        s.state = SESSION_PAUSED
        timer_set(&loop.wheel, &s.timer, loop.now + RETRY_PAUSE)
    elif result == SEEK_SPENT:
        session_end(loop, s, END_INTERNAL if ours else END_CONNECT_FAILED, True)
    else:
        session_end(loop, s, END_NO_BACKEND if result == SEEK_NO_BACKEND else END_QUEUE_FULL, True)


cdef void session_found(loop_t *loop, void *session, int result) noexcept nogil:
    cdef session_t *s = <session_t *> session
    timer_clear(&loop.wheel, &s.timer)
    s.state = SESSION_PAUSED
    dispatch(loop, s, result)


cdef int reach(loop_t *loop, session_t *s, const pool_t *pool) noexcept nogil:
    """Connects to the candidate, sending what is held for it if it takes it already."""
    cdef buffer_t *held
    cdef int result
    if pool.send_proxy and not hold_proxy_header(loop, s, <int> pool.send_proxy):
        loop.relay.given = 0
        return CONNECT_INTERNAL
    held = s.up.held
    s.connect_started = <uint32_t> clock_us()
    if s.queue_us == NO_TIME:
        s.queue_us = s.connect_started - <uint32_t> s.opened_us
    result = connect_backend(
        loop, s, TAG_SERVER, pool, pool_backends(s.seek.plan.image, pool) + s.seek.backend,
        &s.source, &s.server, buffer_data(held) + held.start if held != NULL else NULL,
        held.end - held.start if held != NULL else 0)
    if loop.relay.given:
        count_up(loop, s, loop.relay.given)
        held.start += <uint32_t> loop.relay.given
        if held.start == held.end:
            s.up.held = NULL
            buffer_give(&loop.relay, held)
    return result


cdef bint hold_proxy_header(loop_t *loop, session_t *s, int version) noexcept nogil:
    """Puts the PROXY header before what is held for the server. Once: fail-over keeps it."""
    cdef uint8_t header[PROXY_OUT_MAX]
    cdef sockaddr_storage local
    cdef socklen_t length = sizeof(local)
    cdef uint32_t size
    cdef buffer_t *held = s.up.held
    if held != NULL and held.start < PROXY_OUT_MAX:
        return True     # it is there already
    if not s.flags & HAS_DESTINATION:
        if getsockname(s.client.fd, <sockaddr *> &local, &length) == 0:
            endpoint_from_sockaddr(&s.destination, &local, length)
    if held == NULL:
        held = buffer_take(&loop.relay, SMALL_BUFFER)
        if held == NULL:
            return False
        held.start = PROXY_OUT_MAX
        held.end = PROXY_OUT_MAX
        s.up.held = held
    size = <uint32_t> proxy_build(version, &s.source, &s.destination, header)
    held.start -= size
    memcpy(buffer_data(held) + held.start, header, size)
    return True


cdef void established(loop_t *loop, session_t *s) noexcept nogil:
    """A backend is reached: relay."""
    cdef backend_counters_t *counters = backend_counters(loop, s.seek.backend_row)
    cdef uint32_t now = relative(loop), now_us = <uint32_t> clock_us()
    counters.connections += 1
    counters.connect_us[histogram_bucket(now_us - s.connect_started)] += 1
    if s.connect_us == NO_TIME:
        s.connect_us = now_us - s.connect_started
    s.state = SESSION_RELAY
    s.client_active = now
    s.server_active = now
    timer_set(&loop.wheel, &s.timer, next_look(loop, s))
    if s.up.held != NULL or s.up.flags & EOF or s.client.flags & READABLE:
        run_up(loop, s)


cdef bint session_tunnel(loop_t *loop, conn_t *conn, exchange_t *exchange,
                         buffer_t *down) noexcept nogil:
    cdef session_t *s = session_new(loop)
    if s == NULL:
        return False
    s.seek = exchange.seek
    s.seek.kind = SEEK_SESSION
    s.seek.owner = s
    s.seek.plan.references += 1
    exchange.seek.backend_row = NO_ROW      # the place at the backend is the session's now
    s.listener = conn.listener
    s.listener_row = conn.listener_row
    s.source = conn.peer
    s.source_key = conn.source_key
    s.client = conn.client
    s.server = exchange.origin.end
    s.client.flags |= READABLE
    s.server.flags |= READABLE
    s.up.held = conn.rest
    s.down.held = down
    s.flags = TUNNEL
    s.tunnel = exchange
    s.idle = route_of(exchange).tunnel_timeout
    epoll_change(loop, s, s.client.fd, TAG_CLIENT,
                 INPUT | (EPOLLOUT if s.client.flags & OUT_ARMED else 0))
    epoll_change(loop, s, s.server.fd, TAG_SERVER,
                 INPUT | (EPOLLOUT if s.server.flags & OUT_ARMED else 0))
    s.state = SESSION_RELAY
    s.client_active = relative(loop)
    s.server_active = s.client_active
    timer_set(&loop.wheel, &s.timer, next_look(loop, s))
    defer(loop, s)
    return True


# ---- relaying ----------------------------------------------------------------------------------

cdef inline void count_up(loop_t *loop, session_t *s, uint64_t given) noexcept nogil:
    backend_counters(loop, s.seek.backend_row).bytes_up += given
    listener_counters(loop, s.listener_row).bytes_up += given
    s.bytes_up += given


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
            trust(loop, s.seek.backend_row)
    if loop.relay.given:
        s.client_active = relative(loop)
        backend_counters(loop, s.seek.backend_row).bytes_down += loop.relay.given
        listener_counters(loop, s.listener_row).bytes_down += loop.relay.given
        s.bytes_down += loop.relay.given
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
            backend_counters(loop, s.seek.backend_row).early_resets += 1
            suspect(loop, s.seek.backend_row)
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
        trust(loop, s.seek.backend_row)
        session_end(loop, s, END_NORMAL, False)
        return False
    shutdown(destination.fd, SHUT_WR)
    s.half_closed = relative(loop)
    half_closed = listener_of(s).half_closed
    if half_closed:
        timer_set(&loop.wheel, &s.timer, min_time(loop.now + half_closed, next_look(loop, s)))
    return True


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
    close_socket(&s.server, False)
    seek_failed(loop, &s.seek, s.connect_started, timed_out)
    dispatch(loop, s, seek(loop, &s.seek))


cdef void session_work(loop_t *loop, session_t *s) noexcept nogil:
    """Deferred: goes on with both directions."""
    s.flags &= ~WORK_LISTED
    if s.state == SESSION_RELAY and run_up(loop, s):
        run_down(loop, s)


# ---- time --------------------------------------------------------------------------------------

cdef uint64_t next_look(loop_t *loop, session_t *s) noexcept nogil:
    """When the earliest of this connection's timeouts can be due, in ms."""
    cdef const listener_t *listener = listener_of(s)
    cdef uint32_t server_idle = idle_limit(s, pool_of(s).server_idle)
    cdef uint32_t client_idle = idle_limit(s, listener.client_idle)
    cdef uint64_t look = loop.now + (1 << 30)
    cdef uint32_t now = relative(loop)
    if not s.flags & TUNED:
        look = loop.now + TUNE_AFTER
    if client_idle:
        look = min_time(look, loop.now + left(client_idle, now - s.client_active))
    if server_idle:
        look = min_time(look, loop.now + left(server_idle, now - s.server_active))
    if s.half_closed and listener.half_closed:
        look = min_time(look, loop.now + left(listener.half_closed, now - last_active(s, now)))
    return look


cdef inline uint32_t idle_limit(const session_t *s, uint32_t configured) noexcept nogil:
    """A tunnel has a limit of its own for both sides: its route's."""
    return s.idle if s.flags & TUNNEL else configured


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
    cdef uint32_t server_idle = idle_limit(s, pool_of(s).server_idle)
    cdef uint32_t client_idle = idle_limit(s, listener.client_idle)
    cdef uint32_t now = relative(loop)
    if client_idle and now - s.client_active >= client_idle:
        session_end(loop, s, END_CLIENT_IDLE, True)
    elif server_idle and now - s.server_active >= server_idle:
        session_end(loop, s, END_SERVER_IDLE, True)
    elif (s.half_closed and listener.half_closed
            and now - last_active(s, now) >= listener.half_closed):
        session_end(loop, s, END_HALF_CLOSED, True)
    else:
        if not s.flags & TUNED:
            s.flags |= TUNED
            tune_upstream(s.server.fd, pool_of(s))
        timer_set(&loop.wheel, &s.timer, next_look(loop, s))


cdef void session_timeout(loop_t *loop, session_t *s) noexcept nogil:
    if s.state == SESSION_RELAY:
        relay_timeout(loop, s)
    elif s.state == SESSION_CONNECTING:
        connect_lost(loop, s, True)
    elif s.state == SESSION_PAUSED:
        start_cursor(s)
        dispatch(loop, s, seek(loop, &s.seek))
    elif s.state == SESSION_QUEUED:
        session_end(
            loop, s, END_NO_BACKEND if s.seek.flags & SEEK_NOBODY else END_QUEUE_TIMEOUT, True)
    elif s.state == SESSION_PROXY:
        session_end(loop, s, END_PROXY_TIMEOUT, True)
