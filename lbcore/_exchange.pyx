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

from libc.stdint cimport uint32_t, uint64_t, uint8_t
from libc.stdlib cimport malloc
from libc.string cimport memset

from lbcore._access cimport NO_TIME
from lbcore._balance cimport PICK_FULL, PICK_NONE, pick, pick_this
from lbcore._deadline cimport deadline_after, deadline_of_state
from lbcore._download cimport (
    DOWNLOAD_AGAIN, DOWNLOAD_BAD, DOWNLOAD_CLIENT_GONE, DOWNLOAD_COMPLETE, DOWNLOAD_CUT,
    DOWNLOAD_DONE, DOWNLOAD_HEAD, DOWNLOAD_LOST, DOWNLOAD_NO_ROOM, DOWNLOAD_SWITCH, DOWNLOAD_WAIT,
    download_behind_head, download_head, download_keep_head, download_parse_kept,
    download_pending, download_pump,
)
from lbcore._emit cimport EMIT_OK, emit
from lbcore._ending cimport (
    exchange_abort, exchange_answer, exchange_let_go, exchange_refuse, exchange_respond,
)
from lbcore._http1 cimport (
    BODY_CHUNKED, BODY_LENGTH, BODY_NONE, HEAD_EXPECT, RULE_HEAD_TOO_LONG,
)
from lbcore._gather cimport gather_holds, gather_more, gather_stop
from lbcore._loop cimport (
    NOTICE_TROUBLE, SEEK_EXCHANGE, SEEK_NOBODY, backend_counters, clock_us, listener_counters,
    loop_t, relative,
)
from lbcore._message cimport request_write, upgrade_write
from lbcore._origin cimport origin_close, origin_connect, origin_reuse
from lbcore._plan cimport (
    HTTP_ABORT_ON_CLOSE, POOL_TRANSPARENT, ROUTE_BUFFER_REQUEST, pool_backends, pool_t, route_t,
)
from lbcore._proxy cimport proxy_build
from lbcore._relay cimport FAILED, FIN, READABLE, WRITABLE, buffer_data, note_events
from lbcore._request cimport focus, know_local, refocus, request_begin, verdict_t
from lbcore._response cimport (
    RESPONSE_TOO_LONG, response_agree, response_begin, response_judge, response_may_wait,
    status_in,
)
from lbcore._retry cimport (
    retry_earn, retry_forget, retry_is_possible, retry_is_safe, retry_is_unheard, retry_return,
    retry_take, retry_was_closing,
)
from lbcore._scoreboard cimport (
    HTTP_ANSWER_CUT, HTTP_BAD_ANSWER, HTTP_BAD_REQUEST, HTTP_CLIENT_GONE, HTTP_CLIENT_SLOW,
    HTTP_CONNECT_FAILED, HTTP_CONNECT_TIMEOUT, HTTP_EMPTY_ANSWER, HTTP_FIRST_BYTE,
    HTTP_HEAD_TIMEOUT, HTTP_INTERNAL, HTTP_NO_BACKEND, HTTP_QUEUE_FULL, HTTP_QUEUE_TIMEOUT,
    HTTP_TOO_LARGE, HTTP_TOTAL, NO_ROW, histogram_bucket,
)
from lbcore._seek cimport (
    RETRY_PAUSE, SEEK_NO_BACKEND, SEEK_PAUSE, SEEK_QUEUED, SEEK_READY, SEEK_SPENT, queue_poll,
    seek, seek_failed, seek_judge, seek_release, suspect,
)
from lbcore._spool cimport spool_drop
from lbcore._upload cimport (
    UPLOAD_AGAIN, UPLOAD_BAD, UPLOAD_CLIENT_GONE, UPLOAD_DONE, UPLOAD_LOST, UPLOAD_TOO_LARGE,
    upload_collect, upload_pump, upload_send, upload_sent,
)
from lbcore._upstream cimport CONNECT_INTERNAL, CONNECT_PENDING, CONNECT_READY
from lbcore._web cimport (
    ORIGIN_BUSY, ORIGIN_CONNECTING, X_ANSWER, X_BODY, X_COLLECT, X_CONNECTING, X_COUNTED,
    X_DONE, X_EXPECT, X_FLUSH, X_HEAD_KEPT, X_KEEP_ALIVE, X_LATE, X_ORIGIN_KEEP, X_PAUSED,
    X_QUEUED, X_SENT, X_STAYS, X_STREAM_CHUNKED, X_STREAM_UP, X_UPGRADE, X_UP_DONE, conn_t,
    exchange_t, http_of, origin_t, pool_http_of, pool_of, route_counters, route_of, web_t,
)
from lbcore.includes.linux cimport EPOLLERR, EPOLLHUP


# ---- a request ---------------------------------------------------------------------------------

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


cdef void exchange_begin(loop_t *loop, web_t *web, exchange_t *x) noexcept nogil:
    cdef verdict_t verdict
    cdef const route_t *route
    request_begin(loop, web, x, &verdict)
    if verdict.status == -1:
        exchange_refuse(loop, web, x, 400, verdict.reason)
        return
    if verdict.status:
        exchange_respond(loop, web, x, verdict.status, verdict.reason, verdict.wait)
        return
    route = route_of(x)
    if web.head.flags & HEAD_EXPECT and not x.flags & X_UP_DONE:
        x.flags |= X_EXPECT
    retry_earn(web, x)
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
        exchange_answer(loop, web, x, 400, HTTP_BAD_REQUEST, 0)
    elif result == UPLOAD_TOO_LARGE:
        exchange_answer(loop, web, x, 413, HTTP_TOO_LARGE, 0)
    elif result == UPLOAD_LOST:
        # It takes no more, but may have said why.
        x.flags |= X_SENT
        x.flags &= ~<uint32_t> X_KEEP_ALIVE
        x.sent_us = clock_us()
        x.origin.end.flags |= READABLE
        if x.state == X_ANSWER:
            read_answer(loop, web, x)
            if x.state == X_ANSWER and x.origin != NULL and x.origin.end.flags & (FIN | FAILED):
                lost(loop, web, x)
    else:
        exchange_answer(loop, web, x, 503, HTTP_INTERNAL, 0)


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
        exchange_answer(loop, web, x, 504, HTTP_CONNECT_TIMEOUT, 0)
    elif result == SEEK_SPENT:
        exchange_answer(loop, web, x, 503 if ours else 502,
                        HTTP_INTERNAL if ours else HTTP_CONNECT_FAILED, 0)
    else:
        exchange_answer(loop, web, x, 503,
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
        x.rule = RULE_HEAD_TOO_LONG
        exchange_answer(loop, web, x, 431, HTTP_BAD_REQUEST, 0)
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

cdef void again(loop_t *loop, web_t *web, exchange_t *x, int index) noexcept nogil:
    """Another try, at another backend: a picked one, or with PICK_NONE the next."""
    backend_counters(loop, x.seek.backend_row).retries += 1
    route_counters(loop, x).retries += 1
    x.flags &= ~<uint32_t> X_COUNTED
    retry_forget(loop, web, x)
    seek_release(loop, &x.seek)
    x.state = X_PAUSED
    # What connecting may cost begins anew: the time until now went into an answer.
    x.seek.attempts = 0
    x.seek.deadline = loop.now + pool_of(x).connect_budget
    dispatch(loop, web, x, seek(loop, &x.seek) if index < 0 else (
        seek_judge(loop, &x.seek, index)))


cdef void lost(loop_t *loop, web_t *web, exchange_t *x) noexcept nogil:
    """The backend's connection ended before a response began."""
    cdef int connected
    if retry_was_closing(x) and retry_is_possible(x) and x.answer == NULL and (
            retry_is_safe(x) or retry_is_unheard(x)):
        # It closed a connection that rested, and the request met that end on its way. At once
        # again, on a new connection to the same backend.
        retry_forget(loop, web, x)
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
    if retry_take(web, x):
        again(loop, web, x, PICK_NONE)
        return
    exchange_answer(loop, web, x, 502, HTTP_EMPTY_ANSWER, 0)


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
        if size == web.reply.size and response_may_wait(web, x, data) and (
                download_keep_head(loop, x, data, size)):
            x.flags |= X_HEAD_KEPT
            x.first_byte_time = <uint32_t> (clock_us() - x.started_us)
            x.unfinished = x.origin.end.flags & READABLE != 0
            return
        begin_response(loop, web, x, data, data + web.reply.size, size - web.reply.size)
    elif result == DOWNLOAD_SWITCH:
        if not response_agree(loop, web, x, data, size):
            exchange_answer(loop, web, x, 503, HTTP_INTERNAL, 0)
    elif result == DOWNLOAD_LOST:
        lost(loop, web, x)
    elif result == DOWNLOAD_BAD:
        bad_answer(loop, web, x)
    elif result == DOWNLOAD_CLIENT_GONE:
        exchange_abort(loop, web, x, HTTP_CLIENT_GONE)
    elif result == DOWNLOAD_NO_ROOM:
        exchange_answer(loop, web, x, 503, HTTP_INTERNAL, 0)


cdef void bad_answer(loop_t *loop, web_t *web, exchange_t *x) noexcept nogil:
    """What the backend says is no response, and nothing of it went to the client."""
    backend_counters(loop, x.seek.backend_row).status[0] += 1
    suspect(loop, x.seek.backend_row)
    exchange_answer(loop, web, x, 502, HTTP_BAD_ANSWER, 0)


cdef void begin_response(loop_t *loop, web_t *web, exchange_t *x, const char *data, char *body,
                         size_t body_size) noexcept nogil:
    """The response whose head is web.reply, at `data`, with what of its body is here already."""
    cdef uint64_t retried = route_of(x).retry_statuses
    cdef int index, result
    response_judge(loop, web, x)
    x.flags &= ~<uint32_t> X_HEAD_KEPT
    if retried and status_in(retried, web.reply.status) and retry_take(web, x):
        index = pick(&loop.picker, x.seek.plan.image, pool_of(x), &x.seek.cursor)
        if index == PICK_NONE and x.seek.cursor.tried_count:
            x.seek.cursor.tried_count = 0       # all were asked once: begin with the first again
            index = pick(&loop.picker, x.seek.plan.image, pool_of(x), &x.seek.cursor)
        if index >= 0:
            again(loop, web, x, index)
            return
        # Nobody else to ask: this answer is better than none, and costs nothing.
        retry_return(web, x)
    result = response_begin(loop, web, x, data, body, body_size)
    if result == RESPONSE_TOO_LONG:
        exchange_answer(loop, web, x, 502, HTTP_BAD_ANSWER, 0)
    elif result == DOWNLOAD_BAD:
        bad_answer(loop, web, x)
    else:
        x.state = X_BODY
        received(loop, web, x, result)


cdef void received(loop_t *loop, web_t *web, exchange_t *x, int result) noexcept nogil:
    """Goes on from a DownloadResult within the body."""
    if result == DOWNLOAD_WAIT and x.state == X_BODY:
        gather_more(x)
    elif result == DOWNLOAD_AGAIN:
        # No event will come for what is ready already: to be read, or to be sent on.
        if (x.origin != NULL and x.origin.end.flags & READABLE) or (
                download_pending(x) and x.conn.client.flags & WRITABLE):
            x.unfinished = 1
    elif result == DOWNLOAD_COMPLETE:
        x.state = X_FLUSH
        if x.origin != NULL:
            x.origin.requests += 1
        if x.flags & X_SENT:
            exchange_let_go(loop, web, x, x.flags & X_ORIGIN_KEEP)
        else:
            # It answered without hearing all: the rest of the request goes nowhere. The client may
            # go on if all of it was read (begin_response).
            exchange_let_go(loop, web, x, False)
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

cdef void exchange_timeout(loop_t *loop, web_t *web, exchange_t *x) noexcept nogil:
    """Acts if a timeout is due; otherwise there is nothing to do yet."""
    if x.route != NO_ROW and deadline_after(loop, x.began, route_of(x).total_timeout) <= loop.now:
        exchange_answer(loop, web, x, 504, HTTP_TOTAL, 0)
        return
    if deadline_of_state(loop, x) > loop.now:
        return
    if x.state == X_COLLECT:
        exchange_answer(loop, web, x, 408, HTTP_HEAD_TIMEOUT, 0)
    elif x.state == X_QUEUED:
        exchange_answer(loop, web, x, 503,
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
        begin_response(loop, web, x, buffer_data(x.answer), buffer_data(web.input), 0)
    elif x.state == X_ANSWER:
        if not x.flags & (X_SENT | X_UP_DONE) and x.origin != NULL and (
                x.origin.end.flags & WRITABLE):
            exchange_answer(loop, web, x, 408, HTTP_HEAD_TIMEOUT, 0)
        else:
            backend_counters(loop, x.seek.backend_row).status[0] += 1
            suspect(loop, x.seek.backend_row)
            if status_in(route_of(x).retry_statuses, 504) and retry_take(web, x):
                again(loop, web, x, PICK_NONE)
            else:
                exchange_answer(loop, web, x, 504, HTTP_FIRST_BYTE, 0)
    elif download_pending(x):
        exchange_abort(loop, web, x, HTTP_CLIENT_SLOW)
    elif gather_holds(x):
        gather_stop(loop, x)
    else:
        suspect_cut(loop, x)
        exchange_abort(loop, web, x, HTTP_ANSWER_CUT)
