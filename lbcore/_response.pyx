# The head of a response: see _response.pxd.

from libc.stdint cimport int16_t, int64_t, uint32_t, uint64_t
from libc.string cimport memcpy

from lbcore._download cimport download_begin
from lbcore._ending cimport answer_flags
from lbcore._facts cimport facts_t
from lbcore._http1 cimport (
    BODY_CHUNKED, BODY_CLOSE, BODY_LENGTH, BODY_NONE, FIELD_CONTENT_TYPE,
    FIELD_X_ACCEL_BUFFERING, HEAD_KEEP_ALIVE, HEAD_LENGTH_GIVEN, cookie_find, field_t, head_t,
    same_text,
)
from lbcore._learn cimport LEARN_ENDS, learn_forget, learn_key, learn_look, learn_reply
from lbcore._loop cimport backend_counters, clock_us, loop_t
from lbcore._message cimport response_write
from lbcore._plan cimport (
    ROUTE_BUFFER_RESPONSE, STICKY_INSERT, STICKY_LEARN, pool_http_t, route_t, text_of,
)
from lbcore._relay cimport SCRATCH, buffer_data, buffer_give, buffer_t, buffer_take
from lbcore._request cimport refocus
from lbcore._scoreboard cimport histogram_bucket
from lbcore._seek cimport suspect, trust
from lbcore._spool cimport spool_drop
from lbcore._sticky cimport STICKY_VALUE, sticky_write
from lbcore._web cimport (
    X_BUFFER, X_CHUNKED_OUT, X_CLOSE_FRAMED, X_EXPECT, X_HEAD_KEPT, X_HEAD_ONLY, X_HTTP_10,
    X_KEEP_ALIVE, X_ORIGIN_KEEP, X_SENT, X_STAYS, X_TUNNEL, exchange_t, pool_http_of, route_of,
    web_t,
)

cdef enum:
    COOKIE_ROOM = 1024          # the longest sticky cookie; the configuration's limits keep to it


cdef bint response_may_wait(web_t *web, const exchange_t *x, const char *head) noexcept nogil:
    """Applications often write head and body one after the other. Together they cost the client's
    side one write and one packet; and as long as nothing was passed on, an application that dies
    between the two has not answered, and another can."""
    return (route_of(x).flags & ROUTE_BUFFER_RESPONSE and x.flags & X_SENT
            and (web.reply.framing == BODY_CHUNKED
                 or (web.reply.framing == BODY_LENGTH and web.reply.length))
            and not wants_stream(web, head))


cdef bint response_agree(loop_t *loop, web_t *web, exchange_t *x, const char *data,
                         size_t total) noexcept nogil:
    """What the client hears first is put together now, as others come before that: interim
    responses that it has not taken yet, the head, and what came behind it."""
    cdef uint32_t size = response_write(
        &web.facts, &web.reply, data, 0, 0, 0, NULL, 0, web.output, web.output_room)
    cdef size_t extra = total - web.reply.size
    cdef buffer_t *first = buffer_take(&loop.relay, SCRATCH)
    cdef buffer_t *piece
    if (first == NULL or size == 0 or x.over != NULL or x.down.in_file
            or x.down.size + size + extra > first.size):
        if first != NULL:
            buffer_give(&loop.relay, first)
        return False
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
    return True


cdef inline void append(buffer_t *buffer, const char *data, size_t size) noexcept nogil:
    memcpy(buffer_data(buffer) + buffer.end, data, size)
    buffer.end += <uint32_t> size


cdef void response_judge(loop_t *loop, web_t *web, exchange_t *x) noexcept nogil:
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
    if status_in(http.failure_statuses, status) or (http.slow_us and waited > http.slow_us):
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


cdef int response_begin(loop_t *loop, web_t *web, exchange_t *x, const char *data, char *body,
                        size_t body_size) noexcept nogil:
    cdef head_t *reply = &web.reply
    cdef const route_t *route = route_of(x)
    cdef uint32_t flags, size, extra
    cdef uint64_t length = reply.length
    cdef int framing = reply.framing
    cdef char cookie[COOKIE_ROOM]
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
    flags = answer_flags(loop, x)
    if route.flags & ROUTE_BUFFER_RESPONSE and not wants_stream(web, data):
        x.flags |= X_BUFFER
    if route.response_fields.count:
        refocus(loop, web, x)
    extra = sticky_field(x, &web.facts, cookie)
    size = response_write(&web.facts, reply, data, framing, length, flags, cookie, extra,
                          web.output, web.output_room)
    if size == 0:
        return RESPONSE_TOO_LONG
    return download_begin(loop, web, x, size, body, body_size)
