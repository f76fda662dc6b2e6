# Clients' HTTP connections: see _conn.pxd and _web.pxd.
#
# Rules:
# - One exchange at a time: requests that a client sent ahead wait in `rest` and in the socket.
# - Everything that happens to an exchange ends in settle(), which acts on the state it is left in.
# - Between two requests a connection owns neither buffer nor exchange, and its timer is set early
#   and looked at late, so that requests never touch it.
# - Each request is served by the plan in force when it began.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from lbcore._arrive cimport (
    ARRIVAL_DONE, ARRIVAL_MALFORMED, ARRIVAL_MORE, ARRIVAL_RESET, proxy_expected,
    proxy_read, source_enter,
)
from lbcore._deadline cimport deadline_of
from lbcore._ending cimport exchange_abort, exchange_free, exchange_refuse
from lbcore._exchange cimport (
    exchange_begin, exchange_client, exchange_found, exchange_new, exchange_origin,
    exchange_timeout, exchange_work,
)
from lbcore._http1 cimport (
    RULE_HEAD_TOO_LONG, RULE_NONE, refused_rule, refused_status, request_parse,
)
from lbcore._linger cimport (
    LINGER_CUT, LINGER_WAIT, linger_begin, linger_read, linger_timeout,
)
from lbcore._loop cimport (
    INPUT, TAG_CONN, TIMER_CONN, clock_us, epoll_add, listener_counters, relative,
)
from lbcore._message cimport date_write
from lbcore._origin cimport origin_idle_event
from lbcore._plan cimport (
    LISTENER_HTTP, http_t, listener_http, listener_t, plan_header_t, plan_listeners,
)
from lbcore._proxy cimport endpoint_from_sockaddr
from lbcore._relay cimport (
    BOUNDARIES, FAILED, FIN, READABLE, SCRATCH, SMALL_BUFFER, WRITABLE, buffer_data,
    buffer_give, buffer_t, buffer_take, note_events,
)
from lbcore._scoreboard cimport (
    END_CLIENT_GONE, END_CLIENT_IDLE, END_CLIENT_RESET, END_INTERNAL, END_NORMAL,
    END_PROXY_MALFORMED, END_PROXY_TIMEOUT, END_SHUTDOWN, END_SOURCE_LIMIT, HTTP_BAD_REQUEST,
    HTTP_HEAD_TIMEOUT, HTTP_INTERNAL, HTTP_SHUTDOWN, source_remove,
)
from lbcore._seek cimport close_socket, plan_release, share_descriptors
from lbcore._timers cimport TICK_MS, timer_clear, timer_set
from lbcore._tunnel cimport tunnel_begin, tunnel_end
from lbcore._web cimport (
    CONN_BUSY, CONN_CHUNK, CONN_DEAD, CONN_HEAD, CONN_IDLE, CONN_LINGER, CONN_PROXY, X_ABORT,
    X_DONE, X_KEEP_ALIVE, X_TUNNEL, X_UP_DONE, conn_chunk_t, exchange_t,
)
from lbcore.includes.atomics cimport sub32
from lbcore.includes.linux cimport (
    CLOCK_REALTIME, EAGAIN, EINTR, clock_gettime, close, errno, recv, ssize_t, timespec,
)

cdef enum:
    IN_A_ROW = 32               # requests of one connection before others get their turn
    DRAIN_IDLE = 1000           # ms in which an idle client may still send a request while draining


# ---- memory ------------------------------------------------------------------------------------

cdef conn_t *conn_new(web_t *web) noexcept nogil:
    cdef conn_t *conn = web.free_conns
    cdef conn_chunk_t *chunk
    cdef int i
    if conn == NULL:
        chunk = <conn_chunk_t *> malloc(sizeof(conn_chunk_t))
        if chunk == NULL:
            return NULL
        # Multiples of 8 bytes: the low bits of a pointer are free for an event's tag.
        chunk.conns = <conn_t *> malloc(CONN_CHUNK * sizeof(conn_t))
        if chunk.conns == NULL:
            free(chunk)
            return NULL
        chunk.next = web.chunks
        web.chunks = chunk
        for i in range(CONN_CHUNK):
            chunk.conns[i].state = CONN_DEAD
            chunk.conns[i].next = web.free_conns
            web.free_conns = &chunk.conns[i]
        conn = web.free_conns
    web.free_conns = conn.next
    memset(conn, 0, sizeof(conn_t))
    return conn


cdef void conns_bury(web_t *web) noexcept nogil:
    cdef conn_t *conn = web.dead_conns
    cdef conn_t *following
    web.dead_conns = NULL
    while conn != NULL:
        following = conn.next
        if conn.listed:
            conn.next = web.dead_conns
            web.dead_conns = conn
        else:
            conn.next = web.free_conns
            web.free_conns = conn
        conn = following


cdef void conns_free(web_t *web) noexcept nogil:
    cdef conn_chunk_t *chunk
    while web.chunks != NULL:
        chunk = web.chunks
        web.chunks = chunk.next
        free(chunk.conns)
        free(chunk)


# ---- beginning and end of a connection ---------------------------------------------------------

cdef inline const listener_t *listener_of(const conn_t *conn) noexcept nogil:
    return plan_listeners(conn.plan.image) + conn.listener


cdef void conn_open(loop_t *loop, acceptor_t *acceptor, int fd, const void *address,
                    uint32_t length) noexcept nogil:
    cdef web_t *web = <web_t *> loop.web
    cdef conn_t *conn = conn_new(web)
    cdef const listener_t *listener = (
        plan_listeners(acceptor.plan.image) + acceptor.listener)
    if conn == NULL:
        close(fd)
        loop.seat.accept_errors += 1
        sub32(&loop.board.listeners[listener.row].connections, 1)
        return
    conn.timer.kind = TIMER_CONN
    conn.plan = acceptor.plan
    conn.plan.references += 1
    conn.listener = acceptor.listener
    conn.listener_row = listener.row
    conn.client.fd = fd
    conn.client.flags = READABLE | WRITABLE | (BOUNDARIES if acceptor.is_unix else 0)
    conn.since = relative(loop)
    endpoint_from_sockaddr(&conn.peer, address, length)
    listener_counters(loop, conn.listener_row).accepted += 1
    listener_counters(loop, conn.listener_row).connections += 1
    loop.sessions += 1
    loop.seat.connections = loop.sessions
    loop.seat.accepted += 1
    share_descriptors(loop)
    if not epoll_add(loop, conn, fd, TAG_CONN, INPUT):
        conn_end(loop, web, conn, END_INTERNAL, True)
        return
    if proxy_expected(conn.plan.image, listener, &conn.peer):
        conn.state = CONN_PROXY
        timer_set(&loop.wheel, &conn.timer, loop.now + listener.proxy_timeout)
        read_proxy_header(loop, web, conn)
    else:
        arrive(loop, web, conn)


cdef void read_proxy_header(loop_t *loop, web_t *web, conn_t *conn) noexcept nogil:
    cdef int arrival = proxy_read(loop, &conn.client, &conn.peer, &conn.local)
    if arrival == ARRIVAL_MORE:
        return
    if arrival == ARRIVAL_DONE:
        timer_clear(&loop.wheel, &conn.timer)
        arrive(loop, web, conn)
    elif arrival == ARRIVAL_MALFORMED:
        conn_end(loop, web, conn, END_PROXY_MALFORMED, True)
    else:
        conn_end(loop, web, conn, END_CLIENT_GONE, arrival == ARRIVAL_RESET)


cdef void arrive(loop_t *loop, web_t *web, conn_t *conn) noexcept nogil:
    """The client's address is known."""
    if not source_enter(loop, listener_of(conn), &conn.peer, &conn.source_key):
        conn_end(loop, web, conn, END_SOURCE_LIMIT, True)
        return
    conn.state = CONN_IDLE
    next_request(loop, web, conn)


cdef void conn_end(loop_t *loop, web_t *web, conn_t *conn, int reason, bint abort) noexcept nogil:
    if conn.state == CONN_DEAD:
        return
    close_socket(&conn.client, abort)
    if conn.source_key:
        source_remove(&loop.board, loop.seat_index, conn.source_key)
    listener_counters(loop, conn.listener_row).connections -= 1
    listener_counters(loop, conn.listener_row).ended[reason] += 1
    sub32(&loop.board.listeners[conn.listener_row].connections, 1)
    loop.sessions -= 1
    loop.seat.connections = loop.sessions
    share_descriptors(loop)
    if loop.resume_at:
        loop.resume_at = loop.now
    conn_forget(loop, web, conn)


cdef void conn_forget(loop_t *loop, web_t *web, conn_t *conn) noexcept nogil:
    """Frees what is left of a connection whose socket is closed, or a tunnel's."""
    timer_clear(&loop.wheel, &conn.timer)
    if conn.rest != NULL:
        buffer_give(&loop.relay, conn.rest)
        conn.rest = NULL
    plan_release(conn.plan)
    conn.state = CONN_DEAD
    conn.next = web.dead_conns
    web.dead_conns = conn


cdef void conn_drain(loop_t *loop, conn_t *conn) noexcept nogil:
    if conn.state == CONN_IDLE:
        conn.since = relative(loop)
        timer_set(&loop.wheel, &conn.timer, loop.now + DRAIN_IDLE)


cdef void conn_plan_changed(loop_t *loop, conn_t *conn) noexcept nogil:
    if conn.state != CONN_DEAD and not conn.leaving and listener_in_force(loop, conn) < 0:
        # What its listener allowed is not allowed any more: this request, and no other.
        conn.leaving = 1
        conn_drain(loop, conn)


cdef void conn_shut_down(loop_t *loop, web_t *web, conn_t *conn) noexcept nogil:
    if conn.state == CONN_BUSY:
        exchange_abort(loop, web, conn.exchange, HTTP_SHUTDOWN)
        settle(loop, web, conn)
    elif conn.state != CONN_DEAD:
        conn_end(loop, web, conn, END_SHUTDOWN, conn.state == CONN_HEAD)


cdef void lingered(loop_t *loop, web_t *web, conn_t *conn, int result) noexcept nogil:
    """Acts on a LingerResult."""
    if result != LINGER_WAIT:
        conn_end(loop, web, conn, END_NORMAL, result == LINGER_CUT)


# ---- requests ----------------------------------------------------------------------------------

cdef int listener_in_force(loop_t *loop, const conn_t *conn) noexcept nogil:
    """Index in the plan in force of the listener that this connection came in by, or -1."""
    cdef const plan_header_t *plan = loop.plan.image
    cdef const listener_t *listeners = plan_listeners(plan)
    cdef uint32_t i
    for i in range(plan.listener_count):
        if listeners[i].row == conn.listener_row and listeners[i].flags & LISTENER_HTTP:
            return <int> i
    return -1


cdef void refresh_plan(loop_t *loop, conn_t *conn) noexcept nogil:
    """Takes the plan in force for the next request, if this listener is in it."""
    cdef int listener = listener_in_force(loop, conn)
    if listener < 0:
        conn.leaving = 1
        return
    conn.leaving = 0
    plan_release(conn.plan)
    conn.plan = loop.plan
    conn.plan.references += 1
    conn.listener = <uint32_t> listener


cdef void next_request(loop_t *loop, web_t *web, conn_t *conn) noexcept nogil:
    """Reads and serves requests until one has to wait."""
    cdef int _served
    for _served in range(IN_A_ROW):
        if not read_request(loop, web, conn):
            return
        if not settled(loop, web, conn):
            return
    defer(web, conn)


cdef void settle(loop_t *loop, web_t *web, conn_t *conn) noexcept nogil:
    if settled(loop, web, conn):
        next_request(loop, web, conn)


cdef bint read_request(loop_t *loop, web_t *web, conn_t *conn) noexcept nogil:
    """True when a request has become an exchange. Otherwise it waits, or the connection ended."""
    cdef const http_t *http
    cdef buffer_t *rest = conn.rest
    cdef buffer_t *larger
    cdef const char *data
    cdef size_t size, room
    cdef ssize_t got
    cdef int result
    while True:
        if rest != NULL and conn.seen < rest.end:
            data = buffer_data(rest)        # sent ahead, and not looked at yet
            size = rest.end
        else:
            if not conn.client.flags & READABLE:
                if conn.client.flags & (FIN | FAILED):
                    conn_end(loop, web, conn, END_NORMAL if rest == NULL else END_CLIENT_GONE,
                             False)
                else:
                    wait_for_request(loop, conn)
                return False
            if rest != NULL and rest.end == SCRATCH:
                # Longer than any head that is allowed.
                refuse(loop, web, conn, 431, RULE_HEAD_TOO_LONG)
                return True
            if rest != NULL and rest.end == rest.size:
                larger = buffer_take(&loop.relay, rest.size + 1)
                if larger == NULL:
                    conn_end(loop, web, conn, END_INTERNAL, True)
                    return False
                memcpy(buffer_data(larger), buffer_data(rest), rest.end)
                larger.end = rest.end
                buffer_give(&loop.relay, rest)
                rest = conn.rest = larger
            if rest != NULL:
                room = rest.size - rest.end
                got = recv(conn.client.fd, buffer_data(rest) + rest.end, room, 0)
            else:
                room = web.input.size
                got = recv(conn.client.fd, buffer_data(web.input), room, 0)
            if got <= 0:
                if got < 0 and errno == EINTR:
                    continue
                if got < 0 and errno == EAGAIN:
                    conn.client.flags &= ~<uint32_t> READABLE
                    continue
                conn_end(loop, web, conn,
                         END_CLIENT_RESET if got < 0 else (
                             END_NORMAL if rest == NULL else END_CLIENT_GONE), got < 0)
                return False
            if <size_t> got < room and not conn.client.flags & BOUNDARIES:
                conn.client.flags &= ~<uint32_t> READABLE
            listener_counters(loop, conn.listener_row).bytes_up += <uint64_t> got
            if rest != NULL:
                rest.end += <uint32_t> got
                data = buffer_data(rest)
                size = rest.end
            else:
                data = buffer_data(web.input)
                size = <size_t> got
        if conn.plan != loop.plan and conn.seen == 0 and loop.plan != NULL:
            refresh_plan(loop, conn)
        http = listener_http(conn.plan.image, listener_of(conn))
        result = request_parse(
            &web.head, data, size, conn.seen, http.max_head, http.max_fields)
        web.current = NULL
        if result > 0:
            return begin(loop, web, conn, rest, size)
        if result < 0:
            refuse(loop, web, conn, refused_status(result), refused_rule(result))
            return True
        if conn.state == CONN_IDLE:
            conn.state = CONN_HEAD
            conn.since = relative(loop)
        if rest == NULL:
            rest = conn.rest = buffer_take(&loop.relay, <uint32_t> size)
            if rest == NULL:
                conn_end(loop, web, conn, END_INTERNAL, True)
                return False
            memcpy(buffer_data(rest), data, size)
            rest.end = <uint32_t> size
        conn.seen = <uint32_t> size


cdef bint begin(loop_t *loop, web_t *web, conn_t *conn, buffer_t *rest,
                size_t size) noexcept nogil:
    cdef exchange_t *x = exchange_new(loop, web, conn)
    if x == NULL:
        conn_end(loop, web, conn, END_INTERNAL, True)
        return False
    tick_if_due(loop, web)
    conn.state = CONN_BUSY
    conn.exchange = x
    conn.seen = 0
    conn.rest = NULL
    if rest != NULL:
        x.request = rest
    elif size <= SMALL_BUFFER:
        x.request = buffer_take(&loop.relay, SMALL_BUFFER)
        if x.request != NULL:
            memcpy(buffer_data(x.request), buffer_data(web.input), size)
    else:
        # Long: rather than copying it, the buffer changes hands.
        x.request = web.input
        web.input = buffer_take(&loop.relay, SCRATCH)
        if web.input == NULL:
            web.input = x.request
            x.request = NULL
    if x.request == NULL:
        exchange_refuse(loop, web, x, 503, HTTP_INTERNAL)
        return True
    x.request.start = 0
    x.request.end = <uint32_t> size
    exchange_begin(loop, web, x)
    return True


cdef inline void tick_if_due(loop_t *loop, web_t *web) noexcept nogil:
    if loop.now >= web.date_due:
        tick(loop, web)


cdef void tick(loop_t *loop, web_t *web) noexcept nogil:
    """Keeps the date of this second, which responses carry."""
    cdef timespec now
    clock_gettime(CLOCK_REALTIME, &now)
    if <uint64_t> now.tv_sec == web.date_second:
        return
    web.date_second = <uint64_t> now.tv_sec
    web.date_due = loop.now + 1000 - <uint64_t> now.tv_nsec // 1000000
    web.wall_offset = (<uint64_t> now.tv_sec * 1000000 + <uint64_t> now.tv_nsec // 1000
                       - clock_us())
    date_write(web.date_second, web.date)


cdef void refuse(loop_t *loop, web_t *web, conn_t *conn, int status, int rule) noexcept nogil:
    """What came is no request, or not one that can be served."""
    cdef exchange_t *x = exchange_new(loop, web, conn)
    if x == NULL:
        conn_end(loop, web, conn, END_INTERNAL, True)
        return
    tick_if_due(loop, web)
    conn.state = CONN_BUSY
    conn.exchange = x
    x.rule = <uint8_t> rule
    exchange_refuse(loop, web, x, status,
                    HTTP_HEAD_TIMEOUT if status == 408 else HTTP_BAD_REQUEST)


cdef void arm(loop_t *loop, conn_t *conn, uint64_t when) noexcept nogil:
    """Sets the timer unless it fires early enough anyway."""
    cdef uint32_t tick
    if when > loop.now + (1 << 30):
        when = loop.now + (1 << 30)
    tick = <uint32_t> ((when + TICK_MS - 1) // TICK_MS)
    if conn.timer.armed and <int> (tick - conn.timer.due) >= 0:
        return
    timer_set(&loop.wheel, &conn.timer, when)


cdef void wait_for_request(loop_t *loop, conn_t *conn) noexcept nogil:
    arm(loop, conn, loop.now + wait_left(loop, conn))


cdef uint32_t wait_left(loop_t *loop, conn_t *conn) noexcept nogil:
    """Milliseconds that this connection may go on waiting for a request, or for all of its head."""
    cdef const http_t *http = listener_http(conn.plan.image, listener_of(conn))
    cdef uint32_t elapsed = relative(loop) - conn.since
    cdef uint32_t limit = http.keepalive_timeout
    if conn.state == CONN_HEAD:
        limit = http.head_timeout
    elif (loop.draining or conn.leaving) and limit > DRAIN_IDLE:
        limit = DRAIN_IDLE
    return limit - elapsed if elapsed < limit else 0


cdef bint settled(loop_t *loop, web_t *web, conn_t *conn) noexcept nogil:
    """Acts on the state of the exchange. True: it is over, and the next request may come."""
    cdef exchange_t *x = conn.exchange
    cdef bint keep, heard
    if conn.state != CONN_BUSY:
        return False
    if x.state == X_DONE:
        keep = x.flags & X_KEEP_ALIVE
        heard = x.flags & X_UP_DONE
        exchange_free(loop, web, x)
        conn.exchange = NULL
        conn.requests += 1
        conn.state = CONN_IDLE
        conn.since = relative(loop)
        if keep:
            return True
        if heard and conn.rest == NULL and not conn.client.flags & READABLE:
            conn_end(loop, web, conn, END_NORMAL, False)
        else:
            lingered(loop, web, conn, linger_begin(loop, web, conn))
        return False
    if x.state == X_ABORT:
        exchange_free(loop, web, x)
        conn.exchange = NULL
        conn_end(loop, web, conn, END_CLIENT_RESET if conn.client.flags & FAILED else END_NORMAL,
                 True)
        return False
    if x.state == X_TUNNEL:
        if not tunnel_begin(loop, web, conn):
            conn_end(loop, web, conn, END_INTERNAL, True)
        return False
    if x.unfinished:
        x.unfinished = 0
        defer(web, conn)
    arm(loop, conn, deadline_of(loop, x))
    return False


# ---- deferred work -----------------------------------------------------------------------------

cdef void defer(web_t *web, conn_t *conn) noexcept nogil:
    """Another turn for this connection, when others had theirs."""
    if conn.listed:
        return
    conn.listed = 1
    conn.work = NULL
    if web.work_tail == NULL:
        web.work_head = conn
    else:
        web.work_tail.work = conn
    web.work_tail = conn


cdef void conns_work(loop_t *loop, web_t *web) noexcept nogil:
    cdef conn_t *conn = web.work_head
    cdef conn_t *following
    web.work_head = NULL
    web.work_tail = NULL
    while conn != NULL:
        following = conn.work
        conn.listed = 0
        if conn.state == CONN_BUSY:
            exchange_work(loop, web, conn.exchange)
            settle(loop, web, conn)
        elif conn.state == CONN_IDLE or conn.state == CONN_HEAD:
            next_request(loop, web, conn)
        conn = following


# ---- events ------------------------------------------------------------------------------------

cdef void conn_event(loop_t *loop, conn_t *conn, uint32_t events) noexcept nogil:
    cdef web_t *web = <web_t *> loop.web
    if conn.state == CONN_DEAD:
        return
    note_events(&conn.client, events)
    if conn.state == CONN_BUSY:
        if conn.exchange.state == X_TUNNEL:
            return
        exchange_client(loop, web, conn.exchange)
        settle(loop, web, conn)
    elif conn.state == CONN_PROXY:
        read_proxy_header(loop, web, conn)
    elif conn.state == CONN_LINGER:
        lingered(loop, web, conn, linger_read(loop, web, conn))
    elif conn.client.flags & READABLE:
        next_request(loop, web, conn)


cdef void conn_origin_event(loop_t *loop, origin_t *origin, uint32_t events) noexcept nogil:
    cdef web_t *web = <web_t *> loop.web
    cdef conn_t *conn
    if origin.exchange == NULL:
        origin_idle_event(loop, web, origin)
        return
    conn = origin.exchange.conn
    exchange_origin(loop, web, origin.exchange, events)
    settle(loop, web, conn)


cdef void conn_found(loop_t *loop, void *exchange, int result) noexcept nogil:
    cdef exchange_t *x = <exchange_t *> exchange
    cdef conn_t *conn = x.conn
    exchange_found(loop, <web_t *> loop.web, x, result)
    # Not settled here: the queue that called is being walked.
    defer(<web_t *> loop.web, conn)


cdef void conn_tunnel_ended(loop_t *loop, void *exchange, int reason) noexcept nogil:
    cdef exchange_t *x = <exchange_t *> exchange
    cdef web_t *web = <web_t *> loop.web
    cdef conn_t *conn = x.conn
    tunnel_end(loop, web, x, reason)
    conn_forget(loop, web, conn)


cdef void conn_timeout(loop_t *loop, conn_t *conn) noexcept nogil:
    cdef web_t *web = <web_t *> loop.web
    if conn.state == CONN_BUSY:
        if conn.exchange.state == X_TUNNEL:
            return
        exchange_timeout(loop, web, conn.exchange)
        settle(loop, web, conn)
    elif conn.state == CONN_PROXY:
        conn_end(loop, web, conn, END_PROXY_TIMEOUT, True)
    elif conn.state == CONN_LINGER:
        lingered(loop, web, conn, linger_timeout(loop, web, conn))
    elif conn.state == CONN_DEAD:
        return
    elif wait_left(loop, conn):
        wait_for_request(loop, conn)
    elif conn.state == CONN_HEAD:
        refuse(loop, web, conn, 408, RULE_NONE)
        settle(loop, web, conn)
    else:
        conn_end(loop, web, conn, END_CLIENT_IDLE, False)
