# The life of an HTTP exchange: see _exchange.pxd. The states are in _web.pxd;
# docs/internals/life-of-a-request.md draws them.
#
# Rules:
# - A request is understood once, in exchange_begin: route, rules, key and cookie of the selection.
#   A second look (another try, a rule of the response) parses the same bytes again.
# - It is sent again only if that is safe: nothing of it is gone (X_CONSUMED), and either no backend
#   can have seen it, or it may be seen twice (RFC 9110, 9.2.2), and the budget for retries allows.
# - From the first byte of a response that went to the client there is no way back: what fails then
#   cuts the client's connection, so that a short body never looks whole.
# - A place at a backend is held from selection until the backend has said all.

from libc.stdint cimport UINT64_MAX, int16_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from lbcore._access cimport NO_TIME
from lbcore._balance cimport PICK_FULL, PICK_NONE, pick, pick_this
from lbcore._download cimport (
    DOWNLOAD_AGAIN, DOWNLOAD_BAD, DOWNLOAD_CLIENT_GONE, DOWNLOAD_COMPLETE, DOWNLOAD_CUT,
    DOWNLOAD_DONE, DOWNLOAD_HEAD, DOWNLOAD_LOST, DOWNLOAD_NO_ROOM, DOWNLOAD_SWITCH,
    download_begin, download_behind_head, download_head, download_keep_head, download_parse_kept,
    download_pending, download_pump,
)
from lbcore._emit cimport EMIT_OK, emit
from lbcore._facts cimport facts_t
from lbcore._http1 cimport (
    BODY_CHUNKED, BODY_CLOSE, BODY_LENGTH, BODY_NONE, FIELD_CONTENT_TYPE, FIELD_X_ACCEL_BUFFERING,
    HEAD_EXPECT, HEAD_KEEP_ALIVE, HEAD_LENGTH_GIVEN, METHOD_DELETE, METHOD_GET, METHOD_HEAD,
    METHOD_OPTIONS, METHOD_PUT, cookie_find, field_t, head_t, same_text,
)
from lbcore._learn cimport LEARN_ENDS, learn_forget, learn_key, learn_look, learn_reply
from lbcore._loop cimport (
    INPUT, NOTICE_TROUBLE, SEEK_EXCHANGE, SEEK_NOBODY, TAG_CONN, backend_counters, clock_us,
    epoll_change, listener_counters, min_time, relative,
)
from lbcore._message cimport (
    ANSWER_CLOSE, ANSWER_HTTP_10, ANSWER_KEEP_ALIVE, ANSWER_NO_BODY, answer_room, answer_write,
    request_write, response_write, upgrade_write,
)
from lbcore._origin cimport origin_close, origin_connect, origin_give, origin_reuse
from lbcore._plan cimport (
    HTTP_ABORT_ON_CLOSE, POOL_TRANSPARENT, ROUTE_BUFFER_REQUEST, ROUTE_BUFFER_RESPONSE,
    ROUTE_RETRY_UNSAFE, STICKY_INSERT, STICKY_LEARN, backend_t, pool_backends, pool_http_t, pool_t,
    route_t, text_of,
)
from lbcore._proxy cimport proxy_build
from lbcore._record cimport exchange_record
from lbcore._relay cimport (
    FAILED, FIN, OUT_ARMED, READABLE, SCRATCH, WRITABLE, buffer_data, buffer_give, buffer_t,
    buffer_take, flow_drop, note_events,
)
from lbcore._request cimport focus, know_local, refocus, request_begin, verdict_t
from lbcore._scoreboard cimport (
    HTTP_ANSWER_CUT, HTTP_BAD_ANSWER, HTTP_BAD_REQUEST, HTTP_CLIENT_GONE, HTTP_CLIENT_SLOW,
    HTTP_CONNECT_FAILED, HTTP_CONNECT_TIMEOUT, HTTP_EMPTY_ANSWER, HTTP_FIRST_BYTE,
    HTTP_HEAD_TIMEOUT, HTTP_INTERNAL, HTTP_NO_BACKEND, HTTP_OK, HTTP_QUEUE_FULL,
    HTTP_QUEUE_TIMEOUT, HTTP_TOO_LARGE, HTTP_TOTAL, NO_ROW, histogram_bucket, route_counters_t,
)
from lbcore._seek cimport (
    RETRY_PAUSE, SEEK_NO_BACKEND, SEEK_PAUSE, SEEK_QUEUED, SEEK_READY, SEEK_SPENT, plan_release,
    queue_poll, seek, seek_cancel, seek_failed, seek_judge, seek_release, suspect, trust,
)
from lbcore._spool cimport spool_drop
from lbcore._sticky cimport STICKY_VALUE, sticky_write
from lbcore._upload cimport (
    UPLOAD_AGAIN, UPLOAD_BAD, UPLOAD_CLIENT_GONE, UPLOAD_DONE, UPLOAD_LOST, UPLOAD_TOO_LARGE,
    upload_collect, upload_pump, upload_send, upload_sent,
)
from lbcore._upstream cimport CONNECT_INTERNAL, CONNECT_PENDING, CONNECT_READY
from lbcore._web cimport (
    ORIGIN_BUSY, ORIGIN_CONNECTING, X_ABORT, X_ANSWER, X_BODY, X_BUFFER, X_CHUNKED_OUT,
    X_CLOSE_FRAMED, X_COLLECT, X_CONNECTING, X_CONSUMED, X_COUNTED, X_DONE, X_EXPECT, X_FLUSH,
    X_HEAD_KEPT, X_HEAD_ONLY, X_HTTP_10, X_KEEP_ALIVE, X_LATE, X_ORIGIN_KEEP, X_PAUSED, X_QUEUED,
    X_SENT, X_STAYS, X_STREAM_CHUNKED, X_STREAM_UP, X_TUNNEL, X_UPGRADE, X_UP_DONE, http_of,
    origin_t, pool_http_of, pool_of, route_counters, route_of,
)
from lbcore.includes.linux cimport AF_UNIX, EPOLLERR, EPOLLHUP, EPOLLOUT, sockaddr

cdef extern from "<sys/ioctl.h>" nogil:
    int ioctl(int fd, unsigned long request, ...)

cdef extern from "<linux/sockios.h>" nogil:
    enum:
        SIOCOUTQ

cdef enum:
    BUDGET_MOST = 10000         # thousandths: a quiet pool may make 10 retries in a row
    RETRY_COST = 1000
    COOKIE_ROOM = 1024          # the longest sticky cookie; the configuration's limits keep to it
    HEAD_WAIT = 100             # ms that a response's head waits for the first of its body
    CLOSING = 50000             # microseconds: an end that shows so soon was under way before


# ---- beginning and end -------------------------------------------------------------------------

cdef exchange_t *exchange_new(loop_t *loop, web_t *web, conn_t *conn) noexcept nogil:
    cdef exchange_t *x = web.free_exchanges
    if x != NULL:
        web.free_exchanges = x.next
    else:
        x = <exchange_t *> malloc(sizeof(exchange_t))
        if x == NULL:
            return NULL
    memset(x, 0, <size_t> (<char *> &x.id - <char *> x))    # id and user have their sizes in here
    x.conn = conn
    x.seek.kind = SEEK_EXCHANGE
    x.seek.owner = x
    x.seek.plan = conn.plan
    x.seek.plan.references += 1
    x.seek.backend_row = NO_ROW
    x.route = NO_ROW
    x.sticky = -1
    x.started_us = clock_us()
    x.queue_time = NO_TIME
    x.connect_time = NO_TIME
    x.first_byte_time = NO_TIME
    x.began = relative(loop)
    x.client_moved = x.began
    x.client = conn.peer
    loop.seat.requests += 1
    listener_counters(loop, conn.listener_row).requests += 1
    return x


cdef void exchange_free(loop_t *loop, web_t *web, exchange_t *x) noexcept nogil:
    cdef uint64_t total = clock_us() - x.started_us
    cdef int group = x.status // 100 if 100 <= x.status < 600 else 0
    cdef uint32_t time
    cdef route_counters_t *counters
    let_go(loop, web, x, False)
    listener_counters(loop, x.conn.listener_row).http_ended[x.reason] += 1
    if x.route != NO_ROW:
        counters = route_counters(loop, x)
        time = <uint32_t> min_time(total, NO_TIME)
        counters.requests += 1
        counters.status[group] += 1
        counters.bytes_up += x.bytes_up
        counters.bytes_down += x.bytes_down
        if x.state != X_TUNNEL:
            counters.total_us[histogram_bucket(time)] += 1
    if x.seek.plan.image.access_format:
        exchange_record(loop, web, x, total)
    if x.request != NULL:
        buffer_give(&loop.relay, x.request)
    if x.answer != NULL:
        buffer_give(&loop.relay, x.answer)
    if x.tail != NULL:
        buffer_give(&loop.relay, x.tail)
    if x.over != NULL:
        buffer_give(&loop.relay, x.over)
    if x.body.size:
        spool_drop(&loop.relay, &x.body)
    if x.up.size:
        spool_drop(&loop.relay, &x.up)
    if x.down.size:
        spool_drop(&loop.relay, &x.down)
    flow_drop(&loop.relay, &x.up_flow)
    flow_drop(&loop.relay, &x.down_flow)
    plan_release(x.seek.plan)
    loop.seat.requests -= 1
    if web.current == x:
        web.current = NULL
    x.next = web.free_exchanges
    web.free_exchanges = x


cdef void let_go(loop_t *loop, web_t *web, exchange_t *x, bint keep) noexcept nogil:
    """Gives the backend's connection and the place there back."""
    cdef origin_t *origin = x.origin
    if origin != NULL:
        x.origin = NULL
        origin_give(loop, web, origin, pool_http_of(x), keep)
    seek_cancel(loop, &x.seek)
    seek_release(loop, &x.seek)


cdef void exchange_abort(loop_t *loop, web_t *web, exchange_t *x, int reason) noexcept nogil:
    if x.state == X_ABORT or x.state == X_DONE or x.state == X_TUNNEL:
        return
    if x.reason == HTTP_OK:
        x.reason = <uint8_t> reason
    if x.status == 0 and reason == HTTP_CLIENT_GONE:
        x.status = 499
    x.state = X_ABORT
    if x.origin != NULL:
        origin_close(loop, web, x.origin, True)
        x.origin = NULL
    let_go(loop, web, x, False)


# ---- lbcore's own answers ----------------------------------------------------------------------

cdef void exchange_refuse(loop_t *loop, web_t *web, exchange_t *x, int status,
                          int reason) noexcept nogil:
    focus(loop, web, x, False)
    x.flags &= ~<uint32_t> X_KEEP_ALIVE
    respond(loop, web, x, status, reason, 0)


cdef void answer(loop_t *loop, web_t *web, exchange_t *x, int status, int reason,
                 uint32_t retry_after) noexcept nogil:
    """Answers instead of a backend, if nothing was answered yet."""
    if x.state >= X_BODY:
        exchange_abort(loop, web, x, reason)
        return
    refocus(loop, web, x)
    respond(loop, web, x, status, reason, retry_after)


cdef void respond(loop_t *loop, web_t *web, exchange_t *x, int status, int reason,
                  uint32_t retry_after) noexcept nogil:
    cdef uint32_t flags = 0, size, room
    cdef char *own = NULL
    cdef char *out = web.output
    cdef int result
    if x.origin != NULL:
        origin_close(loop, web, x.origin, True)
        x.origin = NULL
    let_go(loop, web, x, False)
    x.status = <unsigned short> status
    x.reason = <uint8_t> reason
    # A request that was not read to its end leaves its body in the way of the next one.
    if not x.flags & X_UP_DONE or loop.draining:
        x.flags &= ~<uint32_t> X_KEEP_ALIVE
    if not x.flags & X_KEEP_ALIVE:
        flags |= ANSWER_CLOSE
    if x.flags & X_HTTP_10:
        flags |= ANSWER_HTTP_10
        if x.flags & X_KEEP_ALIVE:
            flags |= ANSWER_KEEP_ALIVE
    if x.flags & X_HEAD_ONLY:
        flags |= ANSWER_NO_BODY
    room = answer_room(&web.facts, status)
    if room > web.output_room:
        own = <char *> malloc(room)
        if own == NULL:
            exchange_abort(loop, web, x, HTTP_INTERNAL)
            return
        out = own
    else:
        room = web.output_room
    size = answer_write(&web.facts, status, flags, retry_after, out, room)
    result = emit(&loop.relay, &x.down, &x.conn.client, room + 1, out, size, NULL, 0, NULL, 0)
    x.bytes_down += loop.relay.given
    listener_counters(loop, x.conn.listener_row).bytes_down += loop.relay.given
    x.client_moved = relative(loop)
    free(own)
    if size == 0 or result != EMIT_OK:
        x.state = X_FLUSH
        exchange_abort(loop, web, x, HTTP_CLIENT_GONE)
        return
    x.state = X_FLUSH
    if x.down.size:
        arm_client(loop, x)
    else:
        x.state = X_DONE


cdef void arm_client(loop_t *loop, exchange_t *x) noexcept nogil:
    if not x.conn.client.flags & OUT_ARMED:
        epoll_change(loop, x.conn, x.conn.client.fd, TAG_CONN, INPUT | EPOLLOUT)
        x.conn.client.flags |= OUT_ARMED


# ---- a request ---------------------------------------------------------------------------------

cdef void exchange_begin(loop_t *loop, web_t *web, exchange_t *x) noexcept nogil:
    cdef verdict_t verdict
    cdef const route_t *route
    request_begin(loop, web, x, &verdict)
    if verdict.status == -1:
        exchange_refuse(loop, web, x, 400, verdict.reason)
        return
    if verdict.status:
        respond(loop, web, x, verdict.status, verdict.reason, verdict.wait)
        return
    route = route_of(x)
    if web.head.flags & HEAD_EXPECT and not x.flags & X_UP_DONE:
        x.flags |= X_EXPECT
    earn_budget(web, x)
    if x.flags & X_UP_DONE:
        search(loop, web, x)
    elif route.flags & ROUTE_BUFFER_REQUEST and not x.flags & X_UPGRADE:
        collect(loop, web, x)
    else:
        x.flags |= X_STREAM_UP
        if x.framing == BODY_CHUNKED:
            x.flags |= X_STREAM_CHUNKED
        search(loop, web, x)


# ---- the request's body first ------------------------------------------------------------------

cdef void collect(loop_t *loop, web_t *web, exchange_t *x) noexcept nogil:
    cdef int result
    x.state = X_COLLECT
    if x.flags & X_EXPECT:
        x.flags &= ~<uint32_t> X_EXPECT
        if emit(&loop.relay, &x.down, &x.conn.client, 4096, b"HTTP/1.1 100 Continue\r\n\r\n", 25,
                NULL, 0, NULL, 0) != EMIT_OK:
            exchange_abort(loop, web, x, HTTP_CLIENT_GONE)
            return
    result = upload_collect(loop, web, x)
    if result == UPLOAD_DONE:
        search(loop, web, x)
    elif result == UPLOAD_AGAIN:
        x.unfinished = 1        # asks the connection for another turn
    elif result < 0:
        upload_failed(loop, web, x, result)


cdef void upload_failed(loop_t *loop, web_t *web, exchange_t *x, int result) noexcept nogil:
    if result == UPLOAD_CLIENT_GONE:
        exchange_abort(loop, web, x, HTTP_CLIENT_GONE)
    elif result == UPLOAD_BAD:
        answer(loop, web, x, 400, HTTP_BAD_REQUEST, 0)
    elif result == UPLOAD_TOO_LARGE:
        answer(loop, web, x, 413, HTTP_TOO_LARGE, 0)
    elif result == UPLOAD_LOST:
        # It takes no more, but may have said why.
        x.flags |= X_SENT
        x.flags &= ~<uint32_t> X_KEEP_ALIVE
        x.origin.end.flags |= READABLE
        if x.state == X_ANSWER:
            read_answer(loop, web, x)
            if x.state == X_ANSWER and x.origin != NULL and x.origin.end.flags & (FIN | FAILED):
                lost(loop, web, x)
    else:
        answer(loop, web, x, 503, HTTP_INTERNAL, 0)


# ---- reaching a backend ------------------------------------------------------------------------

cdef void search(loop_t *loop, web_t *web, exchange_t *x) noexcept nogil:
    """The first look for a backend: the one that a cookie names, else by the algorithm."""
    cdef const pool_t *pool = pool_of(x)
    cdef int kept
    if loop.queues[x.seek.pool_row].length:
        queue_poll(loop, x.seek.pool_row)       # who waits comes first
    x.up_framing = BODY_NONE
    if x.framing != BODY_NONE:
        x.up_framing = BODY_CHUNKED if x.flags & X_STREAM_CHUNKED else BODY_LENGTH
    x.seek.deadline = loop.now + pool.connect_budget
    if x.sticky >= 0:
        kept = pick_this(&loop.picker, x.seek.plan.image, pool, &x.seek.cursor, x.sticky)
        if kept >= 0:
            dispatch(loop, web, x, seek_judge(loop, &x.seek, kept))
            return
        if kept == PICK_FULL:
            x.flags |= X_STAYS          # full for a moment is no reason to lose a session
        x.sticky = -1
    dispatch(loop, web, x, seek(loop, &x.seek))


cdef void dispatch(loop_t *loop, web_t *web, exchange_t *x, int result) noexcept nogil:
    """Goes on from a SeekResult: sends the request to the candidate, or to the next."""
    cdef bint ours = False
    cdef int connected
    while result == SEEK_READY:
        if x.queue_time == NO_TIME:
            x.queue_time = <uint32_t> (clock_us() - x.started_us)
        if may_reuse(x) and reuse(loop, web, x):
            return
        if x.state >= X_BODY:
            return
        connected = connect(loop, web, x)
        if connected == CONNECT_PENDING:
            x.state = X_CONNECTING
            return
        if connected == CONNECT_READY:
            established(loop, web, x)
            return
        ours = connected == CONNECT_INTERNAL
        if ours:
            loop.notices |= NOTICE_TROUBLE
            seek_release(loop, &x.seek)
        else:
            x.flags &= ~<uint32_t> X_LATE
            seek_failed(loop, &x.seek, <uint32_t> x.connect_us, False)
        result = seek(loop, &x.seek)
    if result == SEEK_QUEUED:
        x.state = X_QUEUED
    elif result == SEEK_PAUSE:
        x.state = X_PAUSED
        x.pause_until = relative(loop) + RETRY_PAUSE
    elif result == SEEK_SPENT and x.flags & X_LATE and not ours:
        answer(loop, web, x, 504, HTTP_CONNECT_TIMEOUT, 0)
    elif result == SEEK_SPENT:
        answer(loop, web, x, 503 if ours else 502,
               HTTP_INTERNAL if ours else HTTP_CONNECT_FAILED, 0)
    else:
        answer(loop, web, x, 503,
               HTTP_NO_BACKEND if result == SEEK_NO_BACKEND else HTTP_QUEUE_FULL, 1)


cdef bint may_reuse(const exchange_t *x) noexcept nogil:
    """Whether a connection that carried other requests will do.

    Not for a request that cannot be sent again: the backend may close the connection at this
    moment. Not where each connection belongs to one client.
    """
    cdef const pool_t *pool = pool_of(x)
    return not (x.flags & (X_STREAM_UP | X_UPGRADE) or pool.send_proxy
                or pool.flags & POOL_TRANSPARENT)


cdef bint reuse(loop_t *loop, web_t *web, exchange_t *x) noexcept nogil:
    """Sends the request on an idle connection. False: there is none that is alive."""
    cdef origin_t *origin
    cdef unsigned short tries
    while True:
        origin = origin_reuse(
            loop, web, pool_backends(x.seek.plan.image, pool_of(x)) + x.seek.backend,
            pool_http_of(x))
        if origin == NULL:
            return False
        origin.exchange = x
        x.origin = origin
        backend_counters(loop, x.seek.backend_row).reused += 1
        tries = x.tries
        if send_request(loop, web, x) != UPLOAD_LOST:
            return True
        if x.tries != tries:
            # It took a part: what it has to say about that is to be heard first.
            upload_failed(loop, web, x, UPLOAD_LOST)
            return True
        origin_close(loop, web, origin, False)
        x.origin = NULL


cdef int connect(loop_t *loop, web_t *web, exchange_t *x) noexcept nogil:
    """Connects to the candidate. A request without a body goes with it, if it can go at once."""
    cdef uint32_t size = 0
    if x.framing == BODY_NONE and not pool_of(x).send_proxy:
        size = write_head(loop, web, x)
    x.head_sent = size
    x.connect_us = clock_us()
    return origin_connect(loop, web, x, pool_of(x), web.output, size)


cdef void established(loop_t *loop, web_t *web, exchange_t *x) noexcept nogil:
    cdef uint32_t took = <uint32_t> (clock_us() - x.connect_us)
    cdef uint8_t header[108]
    cdef uint32_t size
    cdef int result
    x.connect_time = took
    backend_counters(loop, x.seek.backend_row).connections += 1
    backend_counters(loop, x.seek.backend_row).connect_us[histogram_bucket(took)] += 1
    if pool_of(x).send_proxy:
        know_local(x.conn)
        size = <uint32_t> proxy_build(
            <int> pool_of(x).send_proxy, &x.client, &x.conn.local, header)
        if emit(&loop.relay, &x.up, &x.origin.end, 4096, <const char *> header, size, NULL, 0,
                NULL, 0) != EMIT_OK:
            lost(loop, web, x)
            return
    if x.head_sent and loop.relay.given:
        x.state = X_ANSWER
        x.origin_moved = relative(loop)
        result = sent_request(loop, web, x, upload_sent(loop, web, x, x.head_sent))
    else:
        result = send_request(loop, web, x)
    if result == UPLOAD_LOST:
        upload_failed(loop, web, x, UPLOAD_LOST)


cdef uint32_t write_head(loop_t *loop, web_t *web, exchange_t *x) noexcept nogil:
    """The request's head for the backend, in web.output; 0 when it does not fit."""
    refocus(loop, web, x)
    if x.flags & X_UPGRADE:
        return upgrade_write(&web.facts, web.output, web.output_room)
    return request_write(&web.facts, x.up_framing,
                         x.body_size if x.flags & X_UP_DONE else x.body_size + x.up_left,
                         x.flags & X_EXPECT != 0, web.output, web.output_room)


cdef int send_request(loop_t *loop, web_t *web, exchange_t *x) noexcept nogil:
    """Sends head and body on x.origin. UPLOAD_LOST: its end has come."""
    cdef uint32_t size = write_head(loop, web, x)
    if size == 0:
        answer(loop, web, x, 431, HTTP_BAD_REQUEST, 0)
        return UPLOAD_DONE
    x.head_sent = size
    x.state = X_ANSWER
    x.origin_moved = relative(loop)
    return sent_request(loop, web, x, upload_send(loop, web, x, size))


cdef int sent_request(loop_t *loop, web_t *web, exchange_t *x, int result) noexcept nogil:
    """Goes on from the first UploadResult; UPLOAD_LOST is for the caller."""
    if result == UPLOAD_LOST:
        if x.up.size:
            spool_drop(&loop.relay, &x.up)
        return result
    if not x.flags & X_COUNTED:
        x.flags |= X_COUNTED
        backend_counters(loop, x.seek.backend_row).requests += 1
    if result == UPLOAD_AGAIN:
        x.unfinished = 1
    elif result < 0:
        upload_failed(loop, web, x, result)
    return UPLOAD_DONE


# ---- when a backend fails ----------------------------------------------------------------------

cdef void earn_budget(web_t *web, exchange_t *x) noexcept nogil:
    cdef uint32_t share = pool_http_of(x).retry_share
    cdef uint32_t *debt = &web.budgets[x.seek.pool_row]
    debt[0] = debt[0] - share if debt[0] > share else 0


cdef bint may_retry(web_t *web, exchange_t *x) noexcept nogil:
    """Whether the request may reach a backend a second time, at the cost of the budget."""
    cdef const route_t *route = route_of(x)
    cdef uint32_t *debt = &web.budgets[x.seek.pool_row]
    if not is_repeatable(x) or x.tries >= route.retry_attempts:
        return False
    if not may_be_seen_twice(x):
        return False
    if pool_http_of(x).retry_share == 0 or debt[0] + RETRY_COST > BUDGET_MOST:
        return False
    debt[0] += RETRY_COST
    return True


cdef inline bint may_be_seen_twice(const exchange_t *x) noexcept nogil:
    """Whether it is idempotent (RFC 9110, 9.2.2), or its route says that this does not matter."""
    return (route_of(x).flags & ROUTE_RETRY_UNSAFE or x.method == METHOD_GET
            or x.method == METHOD_HEAD or x.method == METHOD_OPTIONS or x.method == METHOD_PUT
            or x.method == METHOD_DELETE)


cdef inline bint is_repeatable(const exchange_t *x) noexcept nogil:
    return not x.flags & X_CONSUMED


cdef bint is_unheard(const exchange_t *x) noexcept nogil:
    """Whether a backend whose connection was lost cannot have seen the request.

    TCP: nothing of what was sent has been acknowledged, so the connection was closed before it
    came. A unix socket that is closed with bytes unread ends with an error, otherwise with an end.
    """
    cdef const backend_t *backend = pool_backends(x.seek.plan.image, pool_of(x)) + x.seek.backend
    cdef uint64_t sent = x.head_sent + x.early + x.replayed - x.up.size
    cdef int queued = 0
    if (<const sockaddr *> backend.address).sa_family == AF_UNIX:
        return not x.origin.end.flags & FIN
    return ioctl(x.origin.end.fd, SIOCOUTQ, &queued) == 0 and <uint64_t> queued >= sent


cdef void forget_try(loop_t *loop, web_t *web, exchange_t *x) noexcept nogil:
    """Takes back what the last try left, so that the next one begins anew."""
    if x.origin != NULL:
        origin_close(loop, web, x.origin, True)
        x.origin = NULL
    if x.up.size:
        spool_drop(&loop.relay, &x.up)
    if x.answer != NULL:
        buffer_give(&loop.relay, x.answer)
        x.answer = NULL
    x.flags &= ~<uint32_t> (X_SENT | X_HEAD_KEPT)
    x.replayed = 0


cdef void again(loop_t *loop, web_t *web, exchange_t *x, int index) noexcept nogil:
    """Another try, at another backend: a picked one, or with PICK_NONE the next."""
    backend_counters(loop, x.seek.backend_row).retries += 1
    route_counters(loop, x).retries += 1
    x.flags &= ~<uint32_t> X_COUNTED
    forget_try(loop, web, x)
    seek_release(loop, &x.seek)
    x.state = X_PAUSED
    # What connecting may cost begins anew: the time until now went into an answer.
    x.seek.attempts = 0
    x.seek.deadline = loop.now + pool_of(x).connect_budget
    dispatch(loop, web, x, seek(loop, &x.seek) if index < 0 else (
        seek_judge(loop, &x.seek, index)))


cdef bint was_closing(const exchange_t *x) noexcept nogil:
    """Whether the end of the backend's connection was on its way when the request was sent.

    Only a connection that had rested ends like that, and it shows at once. An end that comes later
    is the application's: it may have done what was asked, and a second time is for may_retry.
    """
    return (x.origin != NULL and x.origin.requests > 0 and x.flags & X_SENT != 0
            and clock_us() - x.sent_us <= CLOSING)


cdef void lost(loop_t *loop, web_t *web, exchange_t *x) noexcept nogil:
    """The backend's connection ended before a response began."""
    cdef int connected
    if was_closing(x) and is_repeatable(x) and x.answer == NULL and (
            may_be_seen_twice(x) or is_unheard(x)):
        # It closed a connection that rested, and the request met that end on its way. At once
        # again, on a new connection to the same backend.
        forget_try(loop, web, x)
        x.tries -= 1
        x.state = X_PAUSED
        connected = connect(loop, web, x)
        if connected == CONNECT_PENDING:
            x.state = X_CONNECTING
        elif connected == CONNECT_READY:
            established(loop, web, x)
        else:
            connect_lost(loop, web, x, False)
        return
    backend_counters(loop, x.seek.backend_row).early_resets += 1
    backend_counters(loop, x.seek.backend_row).status[0] += 1
    suspect(loop, x.seek.backend_row)
    if may_retry(web, x):
        again(loop, web, x, PICK_NONE)
        return
    answer(loop, web, x, 502, HTTP_EMPTY_ANSWER, 0)


cdef void connect_lost(loop_t *loop, web_t *web, exchange_t *x, bint timed_out) noexcept nogil:
    if x.origin != NULL:
        origin_close(loop, web, x.origin, False)
        x.origin = NULL
    if timed_out:
        x.flags |= X_LATE
    else:
        x.flags &= ~<uint32_t> X_LATE
    seek_failed(loop, &x.seek, <uint32_t> x.connect_us, timed_out)
    x.state = X_PAUSED
    dispatch(loop, web, x, seek(loop, &x.seek))


# ---- the response ------------------------------------------------------------------------------

cdef inline bint has_bit(uint64_t statuses, int status) noexcept nogil:
    """Bit n stands for 500 + n, bit 63 for 429."""
    if status == 429:
        return statuses >> 63 != 0
    return 500 <= status < 563 and (statuses >> (status - 500)) & 1 != 0


cdef void read_answer(loop_t *loop, web_t *web, exchange_t *x) noexcept nogil:
    cdef char *data
    cdef size_t size
    cdef int result
    focus(loop, web, x, web.current == x)
    if x.flags & X_HEAD_KEPT:
        result = download_behind_head(loop, web, x, &size)
        if result == DOWNLOAD_HEAD:
            begin_response(loop, web, x, buffer_data(x.answer), buffer_data(web.input), size)
        elif result == DOWNLOAD_LOST:
            lost(loop, web, x)
        return
    result = download_head(loop, web, x, &data, &size)
    if result == DOWNLOAD_HEAD:
        if size == web.reply.size and may_wait_for_body(web, x, data) and (
                download_keep_head(loop, x, data, size)):
            x.flags |= X_HEAD_KEPT
            x.first_byte_time = <uint32_t> (clock_us() - x.started_us)
            x.unfinished = x.origin.end.flags & READABLE != 0
            return
        begin_response(loop, web, x, data, data + web.reply.size, size - web.reply.size)
    elif result == DOWNLOAD_SWITCH:
        agree(loop, web, x, data, size)
    elif result == DOWNLOAD_LOST:
        lost(loop, web, x)
    elif result == DOWNLOAD_BAD:
        bad_answer(loop, web, x)
    elif result == DOWNLOAD_CLIENT_GONE:
        exchange_abort(loop, web, x, HTTP_CLIENT_GONE)
    elif result == DOWNLOAD_NO_ROOM:
        answer(loop, web, x, 503, HTTP_INTERNAL, 0)


cdef bint may_wait_for_body(web_t *web, const exchange_t *x, const char *head) noexcept nogil:
    """Whether the head waits a moment for the body that it announces.

    Applications often write them one after the other. Together they cost the client's side one
    write and one packet; and as long as nothing was passed on, an application that dies between
    the two has not answered, and another can.
    """
    return (route_of(x).flags & ROUTE_BUFFER_RESPONSE and x.flags & X_SENT
            and (web.reply.framing == BODY_CHUNKED
                 or (web.reply.framing == BODY_LENGTH and web.reply.length))
            and not wants_stream(web, head))


cdef void bad_answer(loop_t *loop, web_t *web, exchange_t *x) noexcept nogil:
    """What the backend says is no response, and nothing of it went to the client."""
    backend_counters(loop, x.seek.backend_row).status[0] += 1
    suspect(loop, x.seek.backend_row)
    answer(loop, web, x, 502, HTTP_BAD_ANSWER, 0)


cdef void agree(loop_t *loop, web_t *web, exchange_t *x, const char *data,
                size_t total) noexcept nogil:
    """The backend agreed to another protocol: the connection makes a tunnel of this.

    What the client hears first is put together now, as others come before that: interim responses
    that it has not taken yet, the head, and what came behind it.
    """
    cdef uint32_t size = response_write(
        &web.facts, &web.reply, data, 0, 0, 0, NULL, 0, web.output, web.output_room)
    cdef size_t extra = total - web.reply.size
    cdef buffer_t *first = buffer_take(&loop.relay, SCRATCH)
    cdef buffer_t *piece
    if (first == NULL or size == 0 or x.over != NULL or x.down.in_file
            or x.down.size + size + extra > first.size):
        if first != NULL:
            buffer_give(&loop.relay, first)
        answer(loop, web, x, 503, HTTP_INTERNAL, 0)
        return
    piece = x.down.head
    while piece != NULL:
        append(first, buffer_data(piece) + piece.start, piece.end - piece.start)
        piece = piece.next
    append(first, web.output, size)
    append(first, data + web.reply.size, extra)
    if x.down.size:
        spool_drop(&loop.relay, &x.down)
    if x.answer != NULL:
        buffer_give(&loop.relay, x.answer)
    x.answer = first
    x.state = X_TUNNEL
    x.status = 101


cdef inline void append(buffer_t *buffer, const char *data, size_t size) noexcept nogil:
    memcpy(buffer_data(buffer) + buffer.end, data, size)
    buffer.end += <uint32_t> size


cdef void judge(loop_t *loop, web_t *web, exchange_t *x) noexcept nogil:
    """What the response says about its backend."""
    cdef const pool_http_t *http = pool_http_of(x)
    cdef int status = web.reply.status
    cdef uint64_t now = clock_us()
    cdef uint32_t waited
    if x.flags & X_HEAD_KEPT:
        now = x.started_us + x.first_byte_time
    x.first_byte_time = <uint32_t> (now - x.started_us)
    waited = <uint32_t> (now - x.sent_us) if x.flags & X_SENT else 0
    backend_counters(loop, x.seek.backend_row).response_us[histogram_bucket(waited)] += 1
    backend_counters(loop, x.seek.backend_row).status[status // 100 if status < 600 else 0] += 1
    if has_bit(http.failure_statuses, status) or (http.slow_us and waited > http.slow_us):
        suspect(loop, x.seek.backend_row)
    else:
        trust(loop, x.seek.backend_row)


cdef bint wants_stream(web_t *web, const char *base) noexcept nogil:
    """Whether the response says that it must not be held back."""
    cdef const field_t *field
    if web.reply.first[<int> FIELD_X_ACCEL_BUFFERING]:
        field = &web.reply.fields[web.reply.first[<int> FIELD_X_ACCEL_BUFFERING] - 1]
        if same_text(base + field.value, field.value_size, b"no", 2):
            return True
    if web.reply.first[<int> FIELD_CONTENT_TYPE]:
        field = &web.reply.fields[web.reply.first[<int> FIELD_CONTENT_TYPE] - 1]
        if field.value_size >= 17 and same_text(
                base + field.value, 17, b"text/event-stream", 17):
            return True
    return False


cdef uint32_t sticky_field(exchange_t *x, const facts_t *facts, char *out) noexcept nogil:
    """Set-Cookie for a client that was not with this backend yet, and has no other to return to."""
    cdef const pool_http_t *http = pool_http_of(x)
    cdef uint32_t size = 12 + http.cookie.size + 1 + STICKY_VALUE + http.cookie_attributes.size + 2
    if (http.sticky != STICKY_INSERT or x.sticky == <int16_t> x.seek.backend
            or x.flags & X_STAYS or size > COOKIE_ROOM):
        return 0
    memcpy(out, b"Set-Cookie: ", 12)
    size = 12
    memcpy(out + size, text_of(facts.plan, http.cookie), http.cookie.size)
    size += http.cookie.size
    out[size] = c"="
    size += 1
    size += sticky_write(http, facts.backend, out + size)
    memcpy(out + size, text_of(facts.plan, http.cookie_attributes), http.cookie_attributes.size)
    size += http.cookie_attributes.size
    out[size] = 13
    out[size + 1] = 10
    return size + 2


cdef void learn(loop_t *loop, web_t *web, exchange_t *x, const char *data) noexcept nogil:
    """Remembers that this backend set the application's cookie; forgets a cookie that ended."""
    cdef const pool_http_t *http = pool_http_of(x)
    cdef const char *name = text_of(x.seek.plan.image, http.cookie)
    cdef int said = learn_look(&web.reply, data, name, http.cookie.size)
    cdef uint32_t size
    cdef int64_t at
    if said & LEARN_ENDS:
        refocus(loop, web, x)
        at = -1
        if web.facts.head != NULL:
            at = cookie_find(web.facts.head, web.facts.base, name, http.cookie.size, &size)
        if at >= 0:
            learn_forget(&loop.board, learn_key(
                &loop.board, x.seek.pool_row, web.facts.base + at, size), loop.now)
    if said:
        learn_reply(&loop.board, x.seek.pool_row, &web.reply, data, name, http.cookie.size,
                    web.facts.backend.name_hash, http.cookie_expiry, loop.now)


cdef void begin_response(loop_t *loop, web_t *web, exchange_t *x, const char *data, char *body,
                         size_t body_size) noexcept nogil:
    """The response whose head is web.reply, at `data`, with what of its body is here already."""
    cdef head_t *reply = &web.reply
    cdef const route_t *route = route_of(x)
    cdef uint32_t flags = 0, size, extra
    cdef uint64_t length = reply.length
    cdef int framing = reply.framing
    cdef char cookie[COOKIE_ROOM]
    cdef int index, result
    judge(loop, web, x)
    x.flags &= ~<uint32_t> X_HEAD_KEPT
    if route.retry_statuses and has_bit(route.retry_statuses, reply.status) and may_retry(web, x):
        index = pick(&loop.picker, x.seek.plan.image, pool_of(x), &x.seek.cursor)
        if index == PICK_NONE and x.seek.cursor.tried_count:
            x.seek.cursor.tried_count = 0       # all were asked once: begin with the first again
            index = pick(&loop.picker, x.seek.plan.image, pool_of(x), &x.seek.cursor)
        if index >= 0:
            again(loop, web, x, index)
            return
        # Nobody else to ask: this answer is better than none, and costs nothing.
        web.budgets[x.seek.pool_row] -= RETRY_COST
    if pool_http_of(x).sticky == STICKY_LEARN:
        learn(loop, web, x, data)
    x.status = reply.status
    x.down_framing = reply.framing
    x.down_left = reply.length if framing == BODY_LENGTH else 0
    x.flags &= ~<uint32_t> X_EXPECT
    if reply.flags & HEAD_KEEP_ALIVE and framing != BODY_CLOSE:
        x.flags |= X_ORIGIN_KEEP
    if framing == BODY_CHUNKED or framing == BODY_CLOSE:
        if x.flags & X_HTTP_10:
            framing = BODY_CLOSE
            x.flags |= X_CLOSE_FRAMED
            x.flags &= ~<uint32_t> X_KEEP_ALIVE
        else:
            framing = BODY_CHUNKED
            x.flags |= X_CHUNKED_OUT
    elif framing == BODY_NONE and reply.flags & HEAD_LENGTH_GIVEN and (
            x.flags & X_HEAD_ONLY or reply.status == 304):
        framing = BODY_LENGTH       # repeats what it said, and sends nothing
    if not x.flags & X_UP_DONE or loop.draining:
        x.flags &= ~<uint32_t> X_KEEP_ALIVE
    if not x.flags & X_KEEP_ALIVE:
        flags |= ANSWER_CLOSE
    if x.flags & X_HTTP_10:
        flags |= ANSWER_HTTP_10
        if x.flags & X_KEEP_ALIVE:
            flags |= ANSWER_KEEP_ALIVE
    if route.flags & ROUTE_BUFFER_RESPONSE and not wants_stream(web, data):
        x.flags |= X_BUFFER
    if route.response_fields.count:
        refocus(loop, web, x)
    extra = sticky_field(x, &web.facts, cookie)
    size = response_write(&web.facts, reply, data, framing, length, flags, cookie, extra,
                          web.output, web.output_room)
    if size == 0:
        answer(loop, web, x, 502, HTTP_BAD_ANSWER, 0)
        return
    result = download_begin(loop, web, x, size, body, body_size)
    if result == DOWNLOAD_BAD:
        bad_answer(loop, web, x)
        return
    x.state = X_BODY
    received(loop, web, x, result)


cdef void received(loop_t *loop, web_t *web, exchange_t *x, int result) noexcept nogil:
    """Goes on from a DownloadResult within the body."""
    if result == DOWNLOAD_AGAIN:
        # No event will come for what is ready already: to be read, or to be sent on.
        if (x.origin != NULL and x.origin.end.flags & READABLE) or (
                download_pending(x) and x.conn.client.flags & WRITABLE):
            x.unfinished = 1
    elif result == DOWNLOAD_COMPLETE:
        x.state = X_FLUSH
        if x.origin != NULL:
            x.origin.requests += 1
        if x.flags & X_SENT:
            let_go(loop, web, x, x.flags & X_ORIGIN_KEEP)
        else:
            # It answered without hearing all: the rest of the request goes nowhere. The client may
            # go on if all of it was read (begin_response).
            let_go(loop, web, x, False)
        if not download_pending(x):
            x.state = X_DONE
    elif result == DOWNLOAD_DONE and x.state == X_FLUSH:
        x.state = X_DONE
    elif result == DOWNLOAD_CUT:
        suspect_cut(loop, x)
        exchange_abort(loop, web, x, HTTP_ANSWER_CUT)
    elif result == DOWNLOAD_CLIENT_GONE:
        exchange_abort(loop, web, x, HTTP_CLIENT_GONE)
    elif result == DOWNLOAD_NO_ROOM:
        exchange_abort(loop, web, x, HTTP_INTERNAL)


cdef void suspect_cut(loop_t *loop, exchange_t *x) noexcept nogil:
    if x.seek.backend_row != NO_ROW:
        suspect(loop, x.seek.backend_row)


# ---- events ------------------------------------------------------------------------------------

cdef void run_upload(loop_t *loop, web_t *web, exchange_t *x) noexcept nogil:
    cdef int result = upload_pump(loop, web, x)
    if result == UPLOAD_AGAIN:
        x.unfinished = 1
    elif result < 0:
        upload_failed(loop, web, x, result)


cdef void exchange_client(loop_t *loop, web_t *web, exchange_t *x) noexcept nogil:
    if x.conn.client.flags & FAILED:
        exchange_abort(loop, web, x, HTTP_CLIENT_GONE)
        return
    if (x.conn.client.flags & FIN and x.state != X_FLUSH
            and http_of(x).flags & HTTP_ABORT_ON_CLOSE):
        exchange_abort(loop, web, x, HTTP_CLIENT_GONE)
        return
    exchange_work(loop, web, x)


cdef void exchange_work(loop_t *loop, web_t *web, exchange_t *x) noexcept nogil:
    if x.state == X_COLLECT:
        collect(loop, web, x)
        return
    if (x.state == X_ANSWER or x.state == X_BODY) and not x.flags & X_SENT:
        run_upload(loop, web, x)
    if x.state == X_ANSWER and x.origin != NULL and x.origin.end.flags & READABLE:
        read_answer(loop, web, x)
    if x.state == X_BODY or x.state == X_FLUSH:
        received(loop, web, x, download_pump(loop, web, x))


cdef void exchange_origin(loop_t *loop, web_t *web, exchange_t *x,
                          uint32_t events) noexcept nogil:
    cdef origin_t *origin = x.origin
    if origin.state == ORIGIN_CONNECTING:
        if events & (EPOLLERR | EPOLLHUP):
            connect_lost(loop, web, x, False)
            return
        origin.state = ORIGIN_BUSY
        note_events(&origin.end, events)
        loop.relay.given = 0
        established(loop, web, x)
        return
    note_events(&origin.end, events)
    exchange_work(loop, web, x)


cdef void exchange_found(loop_t *loop, web_t *web, exchange_t *x, int result) noexcept nogil:
    x.state = X_PAUSED
    dispatch(loop, web, x, result)


# ---- time --------------------------------------------------------------------------------------

cdef inline uint64_t after(loop_t *loop, uint32_t since, uint32_t limit) noexcept nogil:
    """When `limit` ms since `since` are over; never with a limit of 0."""
    cdef uint32_t elapsed = relative(loop) - since
    if limit == 0:
        return UINT64_MAX
    return loop.now + (limit - elapsed if elapsed < limit else 0)


cdef uint64_t state_look(loop_t *loop, exchange_t *x) noexcept nogil:
    cdef const route_t *route
    cdef uint64_t elapsed, limit
    if x.route == NO_ROW:
        return after(loop, x.client_moved, http_of(x).head_timeout)
    route = route_of(x)
    if x.state == X_COLLECT:
        return after(loop, x.client_moved, route.body_timeout)
    if x.state == X_QUEUED:
        return x.seek.deadline
    if x.state == X_PAUSED:
        return after(loop, x.pause_until - RETRY_PAUSE, RETRY_PAUSE)
    if x.state == X_CONNECTING:
        elapsed = (clock_us() - x.connect_us) // 1000
        limit = pool_of(x).connect_timeout
        return min_time(x.seek.deadline, loop.now + (limit - elapsed if elapsed < limit else 0))
    if x.state == X_ANSWER:
        if x.flags & X_HEAD_KEPT:
            return after(loop, x.origin_moved, HEAD_WAIT)
        if x.flags & X_SENT:
            return after(loop, x.origin_moved, route.first_byte_timeout)
        if not x.flags & X_UP_DONE and x.origin != NULL and x.origin.end.flags & WRITABLE:
            return after(loop, x.client_moved, route.body_timeout)
        return after(loop, x.origin_moved, route.first_byte_timeout)
    if download_pending(x):
        return after(loop, x.client_moved, route.send_timeout)
    return after(loop, x.origin_moved, route.read_timeout)


cdef uint64_t exchange_look(loop_t *loop, exchange_t *x) noexcept nogil:
    cdef uint64_t look = state_look(loop, x)
    if x.route != NO_ROW:
        look = min_time(look, after(loop, x.began, route_of(x).total_timeout))
    return look


cdef void exchange_timeout(loop_t *loop, web_t *web, exchange_t *x) noexcept nogil:
    """Acts if a timeout is due; otherwise there is nothing to do yet."""
    if x.route != NO_ROW and after(loop, x.began, route_of(x).total_timeout) <= loop.now:
        answer(loop, web, x, 504, HTTP_TOTAL, 0)
        return
    if state_look(loop, x) > loop.now:
        return
    if x.state == X_COLLECT:
        answer(loop, web, x, 408, HTTP_HEAD_TIMEOUT, 0)
    elif x.state == X_QUEUED:
        answer(loop, web, x, 503,
               HTTP_NO_BACKEND if x.seek.flags & SEEK_NOBODY else HTTP_QUEUE_TIMEOUT, 1)
    elif x.state == X_PAUSED:
        memset(x.seek.cursor.tried, 0, sizeof(x.seek.cursor.tried))
        x.seek.cursor.tried_count = 0
        dispatch(loop, web, x, seek(loop, &x.seek))
    elif x.state == X_CONNECTING:
        connect_lost(loop, web, x, True)
    elif x.state == X_ANSWER and x.flags & X_HEAD_KEPT:
        focus(loop, web, x, web.current == x)
        download_parse_kept(web, x)
        begin_response(loop, web, x, buffer_data(x.answer), NULL, 0)
    elif x.state == X_ANSWER:
        if not x.flags & (X_SENT | X_UP_DONE) and x.origin != NULL and (
                x.origin.end.flags & WRITABLE):
            answer(loop, web, x, 408, HTTP_HEAD_TIMEOUT, 0)
        else:
            backend_counters(loop, x.seek.backend_row).status[0] += 1
            suspect(loop, x.seek.backend_row)
            if has_bit(route_of(x).retry_statuses, 504) and may_retry(web, x):
                again(loop, web, x, PICK_NONE)
            else:
                answer(loop, web, x, 504, HTTP_FIRST_BYTE, 0)
    elif download_pending(x):
        exchange_abort(loop, web, x, HTTP_CLIENT_SLOW)
    else:
        suspect_cut(loop, x)
        exchange_abort(loop, web, x, HTTP_ANSWER_CUT)
