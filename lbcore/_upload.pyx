# The request on its way: see _upload.pxd.
#
# Rules:
# - What was read but is not this request's goes back to the connection, byte for byte.
# - Bytes that are gone from here once they were sent (X_CONSUMED) rule out a second try. The head
#   and what came with it stay in `request`, a collected body in `body`, until the response has
#   begun.
# - Chunks are taken apart and made anew: a backend sees lbcore's framing, never the client's.

from libc.stdint cimport UINT64_MAX, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from lbcore._emit cimport EMIT_LOST, EMIT_OK, chunk_head, emit
from lbcore._http1 cimport (
    BODY_LENGTH, BODY_NONE, CHUNKED_BAD, CHUNKED_LAST, HEAD_MORE, MAX_FIELDS, RULE_CHUNK,
    RULE_TRAILERS, chunked_decode, refused_rule, trailers_parse,
)
from lbcore._loop cimport TAG_ORIGIN, clock_us, epoll_change, listener_counters, relative, INPUT
from lbcore._loop cimport NOTICE_SPOOL, backend_counters
from lbcore._message cimport trailers_write
from lbcore._plan cimport route_t
from lbcore._relay cimport (
    BOUNDARIES, FIN, FLOW_AGAIN, FLOW_DESTINATION_ERROR, FLOW_DONE, FLOW_FULL,
    FLOW_SOURCE_ERROR, FLOW_WAIT, OUT_ARMED, READABLE, SCRATCH, SMALL_BUFFER, WRITABLE,
    buffer_data, buffer_give, buffer_t, buffer_take, end_t, flow_pump,
)
from lbcore._spool cimport SPOOL_OK, spool_put, spool_replay, spool_send
from lbcore._web cimport (
    X_CONSUMED, X_SENT, X_STREAM_CHUNKED, X_STREAM_UP, X_UP_DONE, conn_t, route_of,
)
from lbcore.includes.linux cimport EAGAIN, EINTR, EPOLLOUT, errno, recv, ssize_t

cdef enum:
    TURN_BUDGET = 1 << 20       # bytes of one body before others get their turn
    MAX_TRAILERS = 16384
    UNLIMITED = 0x7FFFFFFF      # memory of a spool that has a bound elsewhere


cdef void arm_origin(loop_t *loop, exchange_t *x) noexcept nogil:
    if not x.origin.end.flags & OUT_ARMED:
        epoll_change(loop, x.origin, x.origin.end.fd, TAG_ORIGIN, INPUT | EPOLLOUT)
        x.origin.end.flags |= OUT_ARMED


# ---- reading -----------------------------------------------------------------------------------

cdef int put_back(loop_t *loop, exchange_t *x, const char *data, uint32_t size) noexcept nogil:
    """Bytes that belong to a later request. The connection had none: all it had were read."""
    cdef conn_t *conn = x.conn
    if size == 0:
        return UPLOAD_DONE
    conn.rest = buffer_take(&loop.relay, size)
    if conn.rest == NULL:
        return UPLOAD_NO_ROOM
    memcpy(buffer_data(conn.rest), data, size)
    conn.rest.end = size
    conn.seen = 0
    return UPLOAD_DONE


cdef int bad(exchange_t *x, int rule) noexcept nogil:
    x.rule = <uint8_t> rule
    return UPLOAD_BAD


cdef int end_of_chunks(loop_t *loop, web_t *web, exchange_t *x, const char *data,
                       uint32_t size) noexcept nogil:
    """Behind the last chunk: trailers. They are checked, and passed on only while streaming."""
    cdef int result
    cdef uint32_t length
    cdef buffer_t *tail = x.tail
    cdef buffer_t *larger
    if tail != NULL:
        if tail.end + size > tail.size:
            if tail.end + size > MAX_TRAILERS + SCRATCH:
                return bad(x, RULE_TRAILERS)
            larger = buffer_take(&loop.relay, SCRATCH)
            if larger == NULL or tail.size >= SCRATCH:
                if larger != NULL:
                    buffer_give(&loop.relay, larger)
                return bad(x, RULE_TRAILERS)
            memcpy(buffer_data(larger), buffer_data(tail), tail.end)
            larger.end = tail.end
            buffer_give(&loop.relay, tail)
            tail = x.tail = larger
            if tail.end + size > tail.size:
                return bad(x, RULE_TRAILERS)
        memcpy(buffer_data(tail) + tail.end, data, size)
        tail.end += size
        data = buffer_data(tail)
        size = tail.end
    result = trailers_parse(&web.reply, data, size, MAX_TRAILERS, MAX_FIELDS)
    if result < 0:
        return bad(x, refused_rule(result))
    if result == HEAD_MORE:
        if tail == NULL:
            tail = x.tail = buffer_take(&loop.relay, size if size else SMALL_BUFFER)
            if tail == NULL:
                return UPLOAD_NO_ROOM
            memcpy(buffer_data(tail), data, size)
            tail.end = size
        return UPLOAD_WAIT
    if x.flags & X_STREAM_CHUNKED:
        web.output[0] = b"0"
        web.output[1] = 13
        web.output[2] = 10
        length = trailers_write(&web.reply, data, web.output + 3, web.output_room - 3)
        if length == 0:
            return bad(x, RULE_TRAILERS)
        result_emit(loop, x, web.output, length + 3, NULL, 0, NULL, 0)
        result = <int> web.reply.size
    x.flags |= X_UP_DONE
    length = <uint32_t> result
    result = put_back(loop, x, data + length, size - length)
    if tail != NULL:
        buffer_give(&loop.relay, tail)
        x.tail = NULL
    return result


cdef int result_emit(loop_t *loop, exchange_t *x, const char *a, uint32_t a_size, const char *b,
                     uint32_t b_size, const char *c, uint32_t c_size) noexcept nogil:
    """Sends to the backend, or keeps for it; an UploadResult."""
    cdef int result
    if x.origin == NULL:
        return UPLOAD_LOST
    result = emit(&loop.relay, &x.up, &x.origin.end, UNLIMITED, a, a_size, b, b_size, c, c_size)
    if loop.relay.given:
        backend_counters(loop, x.seek.backend_row).bytes_up += loop.relay.given
        x.origin_moved = relative(loop)
    if x.up.size:
        arm_origin(loop, x)
    if result == EMIT_OK:
        return UPLOAD_DONE
    return UPLOAD_LOST if result == EMIT_LOST else UPLOAD_NO_ROOM


cdef int upload_begin(loop_t *loop, web_t *web, exchange_t *x) noexcept nogil:
    cdef char *data = buffer_data(x.request) + x.head_size
    cdef uint32_t size = x.request.end - x.head_size
    cdef size_t taken, made
    cdef int result
    cdef uint64_t most = route_of(x).max_body
    if x.framing == BODY_NONE:
        x.flags |= X_UP_DONE
        result = put_back(loop, x, data, size)
        x.request.end = x.head_size
        return result
    if x.framing == BODY_LENGTH:
        x.early = size if size < x.up_left else <uint32_t> x.up_left
        x.up_left -= x.early
        x.body_size = x.early
        result = put_back(loop, x, data + x.early, size - x.early)
        x.request.end = x.head_size + x.early
        if x.up_left == 0:
            x.flags |= X_UP_DONE
            return result
        return UPLOAD_WAIT
    result = chunked_decode(&x.up_chunked, data, size, &taken, &made)
    x.early = <uint32_t> made
    x.body_size = made
    x.request.end = x.head_size + x.early
    if result == CHUNKED_BAD:
        return bad(x, RULE_CHUNK)
    if most and x.body_size > most:
        return UPLOAD_TOO_LARGE
    if result == CHUNKED_LAST:
        return end_of_chunks(loop, web, x, data + taken, size - <uint32_t> taken)
    return UPLOAD_WAIT


cdef int read_some(loop_t *loop, web_t *web, exchange_t *x, ssize_t *got) noexcept nogil:
    """One read from the client into web.input; UPLOAD_DONE when there is something."""
    cdef end_t *client = &x.conn.client
    cdef size_t room = web.input.size
    if x.framing == BODY_LENGTH and x.up_left < room:
        room = <size_t> x.up_left
    got[0] = recv(client.fd, buffer_data(web.input), room, 0)
    if got[0] > 0:
        if <size_t> got[0] < room and not client.flags & BOUNDARIES:
            client.flags &= ~<uint32_t> READABLE
        x.bytes_up += <uint64_t> got[0]
        x.client_moved = relative(loop)
        listener_counters(loop, x.conn.listener_row).bytes_up += <uint64_t> got[0]
        return UPLOAD_DONE
    if got[0] == 0:
        return UPLOAD_CLIENT_GONE
    if errno == EAGAIN:
        client.flags &= ~<uint32_t> READABLE
        # A FIN that came with the last bytes: there will be no more.
        return UPLOAD_CLIENT_GONE if client.flags & FIN else UPLOAD_WAIT
    return UPLOAD_WAIT if errno == EINTR else UPLOAD_CLIENT_GONE


cdef int upload_collect(loop_t *loop, web_t *web, exchange_t *x) noexcept nogil:
    cdef const route_t *route = route_of(x)
    cdef char *data
    cdef ssize_t got
    cdef size_t taken, made, moved = 0
    cdef int result
    while not x.flags & X_UP_DONE:
        if not x.conn.client.flags & READABLE:
            return UPLOAD_CLIENT_GONE if x.conn.client.flags & FIN else UPLOAD_WAIT
        if moved >= TURN_BUDGET:
            return UPLOAD_AGAIN
        result = read_some(loop, web, x, &got)
        if result != UPLOAD_DONE:
            return result
        moved += <size_t> got
        data = buffer_data(web.input)
        if x.tail != NULL:
            result = end_of_chunks(loop, web, x, data, <uint32_t> got)
            if result < 0:
                return result
            continue
        if x.framing == BODY_LENGTH:
            made = <size_t> got
            x.up_left -= made
            result = 0
            if x.up_left == 0:
                x.flags |= X_UP_DONE
        else:
            result = chunked_decode(&x.up_chunked, data, <size_t> got, &taken, &made)
            if result == CHUNKED_BAD:
                return bad(x, RULE_CHUNK)
        x.body_size += made
        if route.max_body and x.body_size > route.max_body:
            return UPLOAD_TOO_LARGE
        if made and spool_put(&loop.relay, &x.body, data, <uint32_t> made,
                              route.request_memory) != SPOOL_OK:
            loop.notices |= NOTICE_SPOOL
            return UPLOAD_NO_ROOM
        if result == CHUNKED_LAST:
            result = end_of_chunks(loop, web, x, data + taken, <uint32_t> (got - <ssize_t> taken))
            if result < 0:
                return result
    return UPLOAD_DONE


# ---- sending -----------------------------------------------------------------------------------

cdef int upload_sent(loop_t *loop, web_t *web, exchange_t *x, unsigned size) noexcept nogil:
    cdef uint32_t sent = <uint32_t> loop.relay.given
    x.replayed = 0
    x.tries += 1
    backend_counters(loop, x.seek.backend_row).bytes_up += sent
    if sent < size:
        if spool_put(&loop.relay, &x.up, web.output + sent, size - sent, UNLIMITED) != SPOOL_OK:
            return UPLOAD_NO_ROOM
        return UPLOAD_WAIT
    return upload_pump(loop, web, x)


cdef int upload_send(loop_t *loop, web_t *web, exchange_t *x, unsigned size) noexcept nogil:
    cdef char frame[12]
    cdef uint32_t frame_size = 0
    cdef int result
    x.replayed = 0
    if x.flags & X_STREAM_CHUNKED and x.early:
        frame_size = chunk_head(x.early, frame)
        memcpy(web.output + size, frame, frame_size)
        size += frame_size
    result = result_emit(
        loop, x, web.output, size, buffer_data(x.request) + x.head_size, x.early,
        b"\r\n", 2 if frame_size else 0)
    if result != UPLOAD_DONE:
        return result
    x.tries += 1
    return upload_pump(loop, web, x)


cdef int upload_pump(loop_t *loop, web_t *web, exchange_t *x) noexcept nogil:
    cdef end_t *server = &x.origin.end
    cdef int result
    if x.flags & X_SENT:
        return UPLOAD_DONE
    if x.up.size:
        if not server.flags & WRITABLE:
            return UPLOAD_WAIT
        result = spool_send(&loop.relay, &x.up, server, False)
        if count_sent(loop, x, result) != UPLOAD_DONE:
            return upload_result(loop, x, result)
    while x.replayed < x.body.size:
        if not server.flags & WRITABLE:
            arm_origin(loop, x)
            return UPLOAD_WAIT
        result = spool_replay(&loop.relay, &x.body, x.replayed, server, False)
        x.replayed += loop.relay.given
        if count_sent(loop, x, result) != UPLOAD_DONE:
            return upload_result(loop, x, result)
    if x.flags & X_STREAM_UP and (not x.flags & X_UP_DONE or x.up_flow.held != NULL
                                  or x.up_flow.pipe != NULL):
        result = (stream_chunks(loop, web, x) if x.flags & X_STREAM_CHUNKED
                  else stream_length(loop, x))
        if result != UPLOAD_DONE:
            return result
        if x.up.size:
            return UPLOAD_WAIT
    x.flags |= X_SENT
    x.sent_us = clock_us()
    x.origin_moved = relative(loop)
    return UPLOAD_DONE


cdef int count_sent(loop_t *loop, exchange_t *x, int result) noexcept nogil:
    if loop.relay.given:
        backend_counters(loop, x.seek.backend_row).bytes_up += loop.relay.given
        x.origin_moved = relative(loop)
    return UPLOAD_DONE if result == FLOW_DONE else UPLOAD_WAIT


cdef int upload_result(loop_t *loop, exchange_t *x, int result) noexcept nogil:
    """What a FlowResult towards the backend means."""
    if result == FLOW_WAIT:
        arm_origin(loop, x)
        return UPLOAD_WAIT
    if result == FLOW_AGAIN:
        return UPLOAD_AGAIN
    return UPLOAD_NO_ROOM if result == FLOW_SOURCE_ERROR else UPLOAD_LOST


cdef int stream_length(loop_t *loop, exchange_t *x) noexcept nogil:
    """A body of a known length, from socket to socket."""
    cdef int result
    if x.conn.client.flags & FIN:
        # It may have come with the head, and then its event is spent: the end has to be read.
        x.conn.client.flags |= READABLE
    loop.relay.most = x.up_left
    result = flow_pump(&loop.relay, &x.up_flow, &x.conn.client, &x.origin.end)
    loop.relay.most = UINT64_MAX
    if loop.relay.taken:
        x.flags |= X_CONSUMED
        x.up_left -= loop.relay.taken
        x.body_size += loop.relay.taken
        x.bytes_up += loop.relay.taken
        x.client_moved = relative(loop)
        listener_counters(loop, x.conn.listener_row).bytes_up += loop.relay.taken
    if x.up_left == 0:
        x.flags |= X_UP_DONE
    count_sent(loop, x, result)
    if result == FLOW_FULL:
        return UPLOAD_DONE
    if result == FLOW_DONE or result == FLOW_SOURCE_ERROR:
        return UPLOAD_CLIENT_GONE       # in the middle of its body
    if result == FLOW_DESTINATION_ERROR:
        return UPLOAD_LOST
    if result == FLOW_WAIT and not x.origin.end.flags & WRITABLE:
        arm_origin(loop, x)
    return UPLOAD_AGAIN if result == FLOW_AGAIN else UPLOAD_WAIT


cdef int stream_chunks(loop_t *loop, web_t *web, exchange_t *x) noexcept nogil:
    """A body of an unknown length: one read, one chunk."""
    cdef uint64_t most = route_of(x).max_body
    cdef char frame[12]
    cdef char *data
    cdef ssize_t got
    cdef size_t taken, made, moved = 0
    cdef int decoded, result
    while not x.flags & X_UP_DONE:
        if x.up.size:
            return UPLOAD_WAIT      # what was read last has to go out first
        if not x.conn.client.flags & READABLE:
            return UPLOAD_CLIENT_GONE if x.conn.client.flags & FIN else UPLOAD_WAIT
        if moved >= TURN_BUDGET:
            return UPLOAD_AGAIN
        result = read_some(loop, web, x, &got)
        if result != UPLOAD_DONE:
            return result
        moved += <size_t> got
        x.flags |= X_CONSUMED
        data = buffer_data(web.input)
        if x.tail != NULL:
            result = end_of_chunks(loop, web, x, data, <uint32_t> got)
            if result < 0:
                return result
            continue
        decoded = chunked_decode(&x.up_chunked, data, <size_t> got, &taken, &made)
        if decoded == CHUNKED_BAD:
            return bad(x, RULE_CHUNK)
        x.body_size += made
        if most and x.body_size > most:
            return UPLOAD_TOO_LARGE
        if made:
            result = result_emit(loop, x, frame, chunk_head(<uint32_t> made, frame), data,
                                 <uint32_t> made, b"\r\n", 2)
            if result != UPLOAD_DONE:
                return result
        if decoded == CHUNKED_LAST:
            result = end_of_chunks(loop, web, x, data + taken, <uint32_t> (got - <ssize_t> taken))
            if result < 0:
                return result
    return UPLOAD_DONE
