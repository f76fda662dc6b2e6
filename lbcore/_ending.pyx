# How an exchange ends, and what lbcore says itself: see _ending.pxd.

from libc.stdint cimport uint32_t, uint64_t, uint8_t
from libc.stdlib cimport free, malloc

from lbcore._access cimport NO_TIME
from lbcore._download cimport download_arm_client
from lbcore._emit cimport EMIT_OK, emit
from lbcore._loop cimport clock_us, listener_counters, loop_t, min_time, relative
from lbcore._message cimport (
    ANSWER_CLOSE, ANSWER_HTTP_10, ANSWER_KEEP_ALIVE, ANSWER_NO_BODY, answer_room, answer_write,
)
from lbcore._origin cimport origin_close, origin_give
from lbcore._record cimport exchange_record
from lbcore._relay cimport buffer_give, flow_drop
from lbcore._request cimport focus, refocus
from lbcore._scoreboard cimport (
    HTTP_CLIENT_GONE, HTTP_INTERNAL, HTTP_OK, NO_ROW, histogram_bucket, route_counters_t,
)
from lbcore._seek cimport plan_release, seek_cancel, seek_release
from lbcore._spool cimport spool_drop
from lbcore._web cimport (
    X_ABORT, X_BODY, X_DONE, X_FLUSH, X_HEAD_ONLY, X_HTTP_10, X_KEEP_ALIVE, X_TUNNEL, X_UP_DONE,
    exchange_t, origin_t, pool_http_of, route_counters, web_t,
)


cdef void exchange_free(loop_t *loop, web_t *web, exchange_t *x) noexcept nogil:
    cdef uint64_t total = clock_us() - x.started_us
    cdef int group = x.status // 100 if 100 <= x.status < 600 else 0
    cdef uint32_t time
    cdef route_counters_t *counters
    exchange_let_go(loop, web, x, False)
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


cdef void exchange_let_go(loop_t *loop, web_t *web, exchange_t *x, bint keep) noexcept nogil:
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
    exchange_let_go(loop, web, x, False)


cdef void exchange_refuse(loop_t *loop, web_t *web, exchange_t *x, int status,
                          int reason) noexcept nogil:
    focus(loop, web, x, False)
    x.flags &= ~<uint32_t> X_KEEP_ALIVE
    exchange_respond(loop, web, x, status, reason, 0)


cdef void exchange_answer(loop_t *loop, web_t *web, exchange_t *x, int status, int reason,
                          uint32_t retry_after) noexcept nogil:
    if x.state >= X_BODY:
        exchange_abort(loop, web, x, reason)
        return
    refocus(loop, web, x)
    exchange_respond(loop, web, x, status, reason, retry_after)


cdef uint32_t answer_flags(loop_t *loop, exchange_t *x) noexcept nogil:
    cdef uint32_t flags = 0
    # A request that was not read to its end leaves its body in the way of the next one.
    if not x.flags & X_UP_DONE or loop.draining:
        x.flags &= ~<uint32_t> X_KEEP_ALIVE
    if not x.flags & X_KEEP_ALIVE:
        flags |= ANSWER_CLOSE
    if x.flags & X_HTTP_10:
        flags |= ANSWER_HTTP_10
        if x.flags & X_KEEP_ALIVE:
            flags |= ANSWER_KEEP_ALIVE
    return flags


cdef void exchange_respond(loop_t *loop, web_t *web, exchange_t *x, int status, int reason,
                           uint32_t retry_after) noexcept nogil:
    cdef uint32_t flags, size, room
    cdef char *own = NULL
    cdef char *out = web.output
    cdef int result
    if x.origin != NULL:
        origin_close(loop, web, x.origin, True)
        x.origin = NULL
    exchange_let_go(loop, web, x, False)
    x.status = <unsigned short> status
    x.reason = <uint8_t> reason
    flags = answer_flags(loop, x)
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
        download_arm_client(loop, x)
    else:
        x.state = X_DONE
