# The response on its way: see _download.pxd.
#
# Two ways for a body. One of a known length that goes out as it comes in is a stream (flow_pump:
# copied while short, spliced while long). Any other is read, taken apart, framed anew and sent.
#
# Rules:
# - Bytes for the client wait in this order: flow, then spool. Nothing overtakes.
# - While something waits, the backend is read on only with X_BUFFER, and then into the spool.
# - A body that ends early never looks complete: the client's connection is cut.

from libc.stdint cimport UINT64_MAX, uint32_t, uint64_t
from libc.string cimport memcpy

from lbcore._emit cimport EMIT_LOST, EMIT_NO_ROOM, EMIT_OK, chunk_head, emit
from lbcore._http1 cimport (
    BODY_CHUNKED, BODY_CLOSE, BODY_LENGTH, BODY_NONE, CHUNKED_BAD, CHUNKED_LAST, CHUNKED_MORE,
    HEAD_MORE, MAX_FIELDS, chunked_decode, response_parse, trailers_parse,
)
from lbcore._loop cimport (
    INPUT, NOTICE_SPOOL, TAG_CONN, backend_counters, epoll_change, listener_counters, relative,
)
from lbcore._message cimport response_write, trailers_write
from lbcore._plan cimport route_t
from lbcore._relay cimport (
    BOUNDARIES, EOF, FAILED, FIN, FLOW_AGAIN, FLOW_DESTINATION_ERROR, FLOW_DONE, FLOW_FULL,
    FLOW_SOURCE_ERROR, FLOW_WAIT, OUT_ARMED, READABLE, SCRATCH, SPLICE, STREAM_BURST, WRITABLE,
    buffer_data, buffer_give, buffer_t, buffer_take, end_t, flow_flush, flow_pump,
)
from lbcore._spool cimport SPOOL_OK, spool_put, spool_send
from lbcore._web cimport (
    X_BODY, X_BUFFER, X_CHUNKED_OUT, X_EXPECT, X_HTTP_10, X_ORIGIN_KEEP, X_UPGRADE, route_of,
)
from lbcore.includes.linux cimport EAGAIN, EINTR, EPOLLOUT, errno, recv, ssize_t

cdef enum:
    TURN_BUDGET = 1 << 20       # bytes of one body before others get their turn
    FIRST_READ = 34816          # a head and 32 KiB behind it: of a longer body no more is copied
    MAX_REPLY = 65536           # a response's head
    MAX_AGREED = 49152          # to an upgrade, with what is behind it: fits a buffer as rewritten
    MAX_TRAILERS = 16384
    SHORT_BODY = 4096
    INTERIMS = 32               # 1xx responses before the one that counts
    UNLIMITED = 0x7FFFFFFF
    FRAMING = 16                # bytes around a chunk, at most
    STREAM_SPOOL = 65536        # bytes that may wait while the backend is held back


cdef bint download_pending(const exchange_t *x) noexcept nogil:
    return (x.down.size != 0 or x.over != NULL or x.down_flow.held != NULL
            or (x.down_flow.pipe != NULL and x.down_flow.pipe.held != 0))


cdef void download_arm_client(loop_t *loop, exchange_t *x) noexcept nogil:
    if not x.conn.client.flags & OUT_ARMED:
        epoll_change(loop, x.conn, x.conn.client.fd, TAG_CONN, INPUT | EPOLLOUT)
        x.conn.client.flags |= OUT_ARMED


cdef int say(loop_t *loop, exchange_t *x, const char *a, uint32_t a_size, const char *b,
             uint32_t b_size, const char *c, uint32_t c_size) noexcept nogil:
    """Sends to the client, or keeps for it. DOWNLOAD_DONE, or an error."""
    cdef uint32_t memory = STREAM_SPOOL * 2
    cdef uint64_t skip = 0
    cdef int result = EMIT_NO_ROOM
    if x.flags & X_BUFFER:
        memory = route_of(x).response_memory
    if x.over == NULL and (x.down_flow.held == NULL and (
            x.down_flow.pipe == NULL or x.down_flow.pipe.held == 0)):
        result = emit(
            &loop.relay, &x.down, &x.conn.client, memory, a, a_size, b, b_size, c, c_size)
        skip = loop.relay.taken
        given(loop, x)
        if result == EMIT_LOST:
            return DOWNLOAD_CLIENT_GONE
    if result != EMIT_OK and not (
            keep(loop, x, a, a_size, &skip, memory) and keep(loop, x, b, b_size, &skip, memory)
            and keep(loop, x, c, c_size, &skip, memory)):
        return DOWNLOAD_NO_ROOM
    if x.down.size or x.over != NULL:
        download_arm_client(loop, x)
    return DOWNLOAD_DONE


cdef bint keep(loop_t *loop, exchange_t *x, const char *data, uint32_t size, uint64_t *skip,
               uint32_t memory) noexcept nogil:
    """Keeps a piece for the client, but for `skip` bytes that are dealt with.

    Behind what the flow holds: in the spool. When that has no room (a full disk, no directory to
    write to), in one buffer behind it, and from then on the backend waits for the client.
    """
    cdef buffer_t *over
    if skip[0] >= size:
        skip[0] -= size
        return True
    data += skip[0]
    size -= <uint32_t> skip[0]
    skip[0] = 0
    if x.over == NULL:
        if spool_put(&loop.relay, &x.down, data, size, memory) == SPOOL_OK:
            return True
        x.flags &= ~<uint32_t> X_BUFFER
        loop.notices |= NOTICE_SPOOL
        over = buffer_take(&loop.relay, SCRATCH)
        if over == NULL:
            return False
        over.end = 0
        x.over = over
    over = x.over
    if over.end + size > over.size:
        # One read and its framing can be longer than a buffer: then memory has to do.
        if x.down.in_file or spool_put(
                &loop.relay, &x.down, buffer_data(over), over.end, UNLIMITED) != SPOOL_OK:
            return False
        over.end = 0
        return spool_put(&loop.relay, &x.down, data, size, UNLIMITED) == SPOOL_OK
    memcpy(buffer_data(over) + over.end, data, size)
    over.end += size
    return True


cdef inline void given(loop_t *loop, exchange_t *x) noexcept nogil:
    if loop.relay.given:
        x.client_moved = relative(loop)
        x.bytes_down += loop.relay.given
        listener_counters(loop, x.conn.listener_row).bytes_down += loop.relay.given


cdef inline void taken(loop_t *loop, exchange_t *x, uint64_t bytes) noexcept nogil:
    x.origin_moved = relative(loop)
    backend_counters(loop, x.seek.backend_row).bytes_down += bytes


# ---- the head ----------------------------------------------------------------------------------

cdef int keep_answer(loop_t *loop, exchange_t *x, const char *data, size_t size) noexcept nogil:
    """Keeps a part of a head, or of trailers, until the rest is here. False: no memory."""
    cdef buffer_t *larger
    if x.answer != NULL and x.answer.end + size > x.answer.size:
        larger = buffer_take(&loop.relay, SCRATCH)
        if larger == NULL:
            return False
        memcpy(buffer_data(larger), buffer_data(x.answer), x.answer.end)
        larger.end = x.answer.end
        buffer_give(&loop.relay, x.answer)
        x.answer = larger
    if x.answer == NULL:
        x.answer = buffer_take(&loop.relay, <uint32_t> size)
        if x.answer == NULL:
            return False
    if x.answer.end + size > x.answer.size:
        return False
    memcpy(buffer_data(x.answer) + x.answer.end, data, size)
    x.answer.end += <uint32_t> size
    return True


cdef int read_origin(loop_t *loop, web_t *web, exchange_t *x, size_t room,
                     ssize_t *got) noexcept nogil:
    """One read from the backend into web.input. DOWNLOAD_DONE: got[0] bytes, 0 at its end."""
    cdef end_t *server = &x.origin.end
    got[0] = recv(server.fd, buffer_data(web.input), room, 0)
    if got[0] > 0:
        if <size_t> got[0] < room and not server.flags & BOUNDARIES:
            server.flags &= ~<uint32_t> READABLE
            if server.flags & FIN:
                # Behind this there is the end: known without a read that returns 0.
                server.flags |= READABLE
        taken(loop, x, <uint64_t> got[0])
        return DOWNLOAD_DONE
    if got[0] == 0:
        server.flags &= ~<uint32_t> READABLE
        server.flags |= FIN
        return DOWNLOAD_DONE
    if errno == EAGAIN:
        server.flags &= ~<uint32_t> READABLE
        return DOWNLOAD_WAIT
    return DOWNLOAD_WAIT if errno == EINTR else DOWNLOAD_LOST


cdef int download_head(loop_t *loop, web_t *web, exchange_t *x, char **data,
                       size_t *size) noexcept nogil:
    cdef ssize_t got
    cdef size_t seen, room
    cdef int result
    while x.origin.end.flags & READABLE:
        # No more than fits behind what is here already.
        room = MAX_AGREED if x.flags & X_UPGRADE else MAX_REPLY
        if x.answer != NULL:
            room -= x.answer.end
        if room == 0:
            return DOWNLOAD_BAD
        if room > FIRST_READ:
            room = FIRST_READ
        result = read_origin(loop, web, x, room, &got)
        if result != DOWNLOAD_DONE:
            return result
        if got == 0:
            return DOWNLOAD_LOST
        data[0] = buffer_data(web.input)
        size[0] = <size_t> got
        seen = 0
        if x.answer != NULL:
            seen = x.answer.end
            if not keep_answer(loop, x, data[0], size[0]):
                return DOWNLOAD_BAD
            data[0] = buffer_data(x.answer)
            size[0] = x.answer.end
        while True:
            result = response_parse(&web.reply, data[0], size[0], seen, MAX_REPLY, MAX_FIELDS,
                                    x.method)
            if result < 0:
                return DOWNLOAD_BAD
            if result == HEAD_MORE:
                if x.answer == NULL and not keep_answer(loop, x, data[0], size[0]):
                    return DOWNLOAD_NO_ROOM
                break
            if web.reply.status >= 200:
                return DOWNLOAD_HEAD
            if web.reply.status == 101:
                return DOWNLOAD_SWITCH if x.flags & X_UPGRADE else DOWNLOAD_BAD
            x.interims += 1
            if x.interims > INTERIMS:
                return DOWNLOAD_BAD
            result = pass_interim(loop, web, x, data[0])
            if result < 0:
                return result
            data[0] += web.reply.size
            size[0] -= web.reply.size
            seen = 0
            if size[0] == 0:
                drop_answer(loop, x)
                break
            if x.answer != NULL:
                # Kept bytes move to the front: what was passed on is done with.
                memmove_front(x.answer, <uint32_t> size[0])
                data[0] = buffer_data(x.answer)
    return DOWNLOAD_LOST if x.origin.end.flags & FAILED else DOWNLOAD_WAIT


cdef bint download_keep_head(loop_t *loop, exchange_t *x, const char *data,
                             size_t size) noexcept nogil:
    if x.answer != NULL:
        return True             # it came in pieces, and is there already
    return keep_answer(loop, x, data, size)


cdef int download_behind_head(loop_t *loop, web_t *web, exchange_t *x,
                              size_t *size) noexcept nogil:
    cdef ssize_t got = 0
    cdef int result = DOWNLOAD_WAIT
    if x.origin.end.flags & READABLE:
        result = read_origin(loop, web, x, web.input.size - FRAMING, &got)
    if result == DOWNLOAD_WAIT:
        return DOWNLOAD_LOST if x.origin.end.flags & FAILED else DOWNLOAD_WAIT
    if result < 0 or got == 0:
        return DOWNLOAD_LOST
    size[0] = <size_t> got
    download_parse_kept(web, x)
    return DOWNLOAD_HEAD


cdef void download_parse_kept(web_t *web, exchange_t *x) noexcept nogil:
    response_parse(&web.reply, buffer_data(x.answer), x.answer.end, 0, MAX_REPLY, MAX_FIELDS,
                   x.method)


cdef void memmove_front(buffer_t *buffer, uint32_t size) noexcept nogil:
    cdef char *data = buffer_data(buffer)
    cdef uint32_t i, skipped = buffer.end - size
    for i in range(size):
        data[i] = data[skipped + i]
    buffer.end = size


cdef void drop_answer(loop_t *loop, exchange_t *x) noexcept nogil:
    if x.answer != NULL:
        buffer_give(&loop.relay, x.answer)
        x.answer = NULL


cdef int pass_interim(loop_t *loop, web_t *web, exchange_t *x, const char *base) noexcept nogil:
    """A 1xx response. 100 only for who waits for it; none for HTTP/1.0."""
    cdef uint32_t length
    if x.flags & X_HTTP_10 or (web.reply.status == 100 and not x.flags & X_EXPECT):
        return DOWNLOAD_WAIT
    if web.reply.status == 100:
        x.flags &= ~<uint32_t> X_EXPECT
    length = response_write(&web.facts, &web.reply, base, BODY_NONE, 0, 0, NULL, 0, web.output,
                            web.output_room)
    if length == 0:
        return DOWNLOAD_BAD
    return say(loop, x, web.output, length, NULL, 0, NULL, 0)


# ---- the body ----------------------------------------------------------------------------------

cdef int download_begin(loop_t *loop, web_t *web, exchange_t *x, unsigned size, char *body,
                        size_t extra) noexcept nogil:
    cdef uint32_t part
    cdef int result
    if x.down_framing == BODY_NONE or x.down_framing == BODY_LENGTH:
        part = 0
        if x.down_framing == BODY_LENGTH:
            part = <uint32_t> extra if extra < x.down_left else <uint32_t> x.down_left
            x.down_left -= part
        if extra > part:
            x.flags &= ~<uint32_t> X_ORIGIN_KEEP    # it says more than it was asked
        if part <= SHORT_BODY and size + part <= web.output_room:
            # One piece costs the kernel less than two, and copying so little costs nothing.
            memcpy(web.output + size, body, part)
            size += part
            result = say(loop, x, web.output, size, NULL, 0, NULL, 0)
        else:
            result = say(loop, x, web.output, size, body, part, NULL, 0)
        drop_answer(loop, x)
        if result < 0:
            return result
        return DOWNLOAD_COMPLETE if x.down_framing == BODY_NONE or x.down_left == 0 else (
            DOWNLOAD_AGAIN)
    result = pass_on(loop, web, x, size, body, extra)
    return DOWNLOAD_AGAIN if result == DOWNLOAD_WAIT else result


cdef int pass_on(loop_t *loop, web_t *web, exchange_t *x, uint32_t head, char *body,
                 size_t size) noexcept nogil:
    """Takes a read apart and sends it, behind a head of `head` bytes in web.output."""
    cdef size_t used = size, made = size
    cdef int decoded = CHUNKED_MORE, result
    cdef uint32_t framed
    if x.down_framing == BODY_CHUNKED:
        decoded = chunked_decode(&x.down_chunked, body, size, &used, &made)
        if decoded == CHUNKED_BAD:
            return DOWNLOAD_BAD if head else DOWNLOAD_CUT
    if made and x.flags & X_CHUNKED_OUT:
        framed = chunk_head(<uint32_t> made, web.output + head)
        result = say(loop, x, web.output, head + framed, body, <uint32_t> made, b"\r\n", 2)
    else:
        result = say(loop, x, web.output, head, body, <uint32_t> made, NULL, 0)
    if result < 0:
        return result
    if decoded == CHUNKED_LAST:
        return end_of_chunks(loop, web, x, body + used, size - used)
    if head:
        drop_answer(loop, x)
    return DOWNLOAD_WAIT


cdef int end_of_chunks(loop_t *loop, web_t *web, exchange_t *x, char *data,
                       size_t size) noexcept nogil:
    """Behind the last chunk: trailers, passed on to HTTP/1.1 clients."""
    cdef uint32_t length
    cdef int result
    x.down_left = 1                     # marks that the rest is trailers
    result = trailers_parse(&web.reply, data, size, MAX_TRAILERS, MAX_FIELDS)
    if result < 0:
        return DOWNLOAD_CUT
    if result == HEAD_MORE:
        if x.answer != NULL and data >= buffer_data(x.answer) and (
                data <= buffer_data(x.answer) + x.answer.end):
            memmove_front(x.answer, <uint32_t> size)
            return DOWNLOAD_WAIT
        drop_answer(loop, x)
        return DOWNLOAD_WAIT if keep_answer(loop, x, data, size) else DOWNLOAD_NO_ROOM
    if size > <size_t> result:
        x.flags &= ~<uint32_t> X_ORIGIN_KEEP
    if x.flags & X_CHUNKED_OUT:
        web.output[0] = b"0"
        web.output[1] = 13
        web.output[2] = 10
        length = trailers_write(&web.reply, data, web.output + 3, web.output_room - 3)
        if length == 0:
            return DOWNLOAD_CUT
        result = say(loop, x, web.output, length + 3, NULL, 0, NULL, 0)
        if result < 0:
            return result
    drop_answer(loop, x)
    return DOWNLOAD_COMPLETE


cdef int deliver(loop_t *loop, exchange_t *x) noexcept nogil:
    """Sends what waits for the client. DOWNLOAD_DONE when nothing is left."""
    cdef buffer_t *over
    cdef int result
    loop.relay.given = 0
    result = flow_flush(&loop.relay, &x.down_flow, &x.conn.client)
    given(loop, x)
    if result == FLOW_DONE and x.down.size:
        if not x.conn.client.flags & WRITABLE:
            result = FLOW_WAIT
        else:
            result = spool_send(&loop.relay, &x.down, &x.conn.client, False)
            given(loop, x)
    if result == FLOW_DONE and x.over != NULL:
        # What had no room behind the file goes on from memory.
        over = x.over
        if spool_put(&loop.relay, &x.down, buffer_data(over), over.end, UNLIMITED) != SPOOL_OK:
            return DOWNLOAD_NO_ROOM
        x.over = NULL
        buffer_give(&loop.relay, over)
        return deliver(loop, x)
    if result == FLOW_DONE:
        return DOWNLOAD_DONE
    if result == FLOW_WAIT:
        download_arm_client(loop, x)
        return DOWNLOAD_WAIT
    if result == FLOW_AGAIN:
        return DOWNLOAD_AGAIN
    return DOWNLOAD_NO_ROOM if result == FLOW_SOURCE_ERROR else DOWNLOAD_CLIENT_GONE


cdef bint may_absorb(exchange_t *x) noexcept nogil:
    """Whether the backend is read on although the client has not taken what is here."""
    cdef const route_t *route
    if not x.flags & X_BUFFER:
        return False
    route = route_of(x)
    return x.down.size < route.response_memory + route.response_disk


cdef int download_pump(loop_t *loop, web_t *web, exchange_t *x) noexcept nogil:
    cdef int result = deliver(loop, x)
    cdef size_t moved = 0
    cdef ssize_t got
    if result < 0 or result == DOWNLOAD_AGAIN:
        return result
    if x.state != X_BODY:
        return result
    if x.origin == NULL or not x.origin.end.flags & READABLE:
        # A stream that met the end while the client was slow has read it: no event will tell.
        if x.origin != NULL and (x.origin.end.flags & FAILED or x.down_flow.flags & EOF):
            return DOWNLOAD_CUT
        return DOWNLOAD_WAIT
    if result == DOWNLOAD_DONE and x.down_framing == BODY_LENGTH:
        result = stream(loop, x)
        if result != DOWNLOAD_WAIT or x.conn.client.flags & WRITABLE:
            return result
        # The client is slow: from here on into the spool.
    while x.origin.end.flags & READABLE:
        if download_pending(x) and not may_absorb(x):
            return DOWNLOAD_WAIT
        if moved >= TURN_BUDGET:
            return DOWNLOAD_AGAIN
        result = read_origin(loop, web, x, room_for(web, x), &got)
        if result == DOWNLOAD_LOST:
            return DOWNLOAD_CUT
        if result != DOWNLOAD_DONE:
            return result
        moved += <size_t> got
        if got == 0:
            if x.down_framing != BODY_CLOSE:
                return DOWNLOAD_CUT
            if x.flags & X_CHUNKED_OUT:
                result = say(loop, x, b"0\r\n\r\n", 5, NULL, 0, NULL, 0)
                if result < 0:
                    return result
            return DOWNLOAD_COMPLETE
        if x.down_framing == BODY_LENGTH:
            x.down_left -= <uint64_t> got
            result = say(loop, x, buffer_data(web.input), <uint32_t> got, NULL, 0, NULL, 0)
            if result < 0:
                return result
            if x.down_left == 0:
                return DOWNLOAD_COMPLETE
            if not download_pending(x):
                return DOWNLOAD_AGAIN       # it keeps up again: as a stream
        elif x.down_framing == BODY_CHUNKED and x.down_left:
            # The trailers go on.
            if x.answer == NULL:
                result = end_of_chunks(loop, web, x, buffer_data(web.input), <size_t> got)
            elif not keep_answer(loop, x, buffer_data(web.input), <size_t> got):
                result = DOWNLOAD_CUT
            else:
                result = end_of_chunks(loop, web, x, buffer_data(x.answer), x.answer.end)
            if result != DOWNLOAD_WAIT:
                return result
        else:
            result = pass_on(loop, web, x, 0, buffer_data(web.input), <size_t> got)
            if result != DOWNLOAD_WAIT:
                return result
    return DOWNLOAD_CUT if x.origin.end.flags & FAILED else DOWNLOAD_WAIT


cdef inline size_t room_for(web_t *web, exchange_t *x) noexcept nogil:
    """How much to read at once: with its framing, it fits into one buffer."""
    cdef size_t room = web.input.size - FRAMING
    if x.down_framing == BODY_LENGTH and x.down_left < room:
        return <size_t> x.down_left
    return room


cdef int stream(loop_t *loop, exchange_t *x) noexcept nogil:
    """A body of a known length, from socket to socket."""
    cdef int result
    loop.relay.most = x.down_left
    if x.down_left >= STREAM_BURST:
        x.down_flow.flags |= SPLICE     # how long it is need not be found out
    result = flow_pump(&loop.relay, &x.down_flow, &x.origin.end, &x.conn.client)
    loop.relay.most = UINT64_MAX
    given(loop, x)
    if loop.relay.taken:
        taken(loop, x, loop.relay.taken)
        x.down_left -= loop.relay.taken
    if result == FLOW_FULL or (x.down_left == 0 and result == FLOW_WAIT):
        if download_pending(x):
            download_arm_client(loop, x)
        return DOWNLOAD_COMPLETE
    if result == FLOW_WAIT:
        if not x.conn.client.flags & WRITABLE:
            download_arm_client(loop, x)
        elif x.origin.end.flags & FAILED and not x.origin.end.flags & READABLE:
            return DOWNLOAD_CUT
        return DOWNLOAD_WAIT
    if result == FLOW_AGAIN:
        return DOWNLOAD_AGAIN
    if result == FLOW_DESTINATION_ERROR:
        return DOWNLOAD_CLIENT_GONE
    return DOWNLOAD_CUT         # its end, or an error, before its length was reached
