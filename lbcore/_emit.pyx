# Sending what was just made: see _emit.pxd.

from libc.stdint cimport uint32_t, uint64_t

from lbcore._relay cimport WRITABLE
from lbcore._spool cimport SPOOL_OK, spool_put
from lbcore.includes.linux cimport (
    EAGAIN, EINTR, MSG_NOSIGNAL, errno, iovec, msghdr, send, sendmsg, ssize_t,
)


cdef ssize_t send_pieces(int fd, iovec *pieces, int count) noexcept nogil:
    cdef msghdr message
    if count == 1:
        return send(fd, pieces[0].iov_base, pieces[0].iov_len, MSG_NOSIGNAL)
    message.msg_name = NULL
    message.msg_namelen = 0
    message.msg_iov = pieces
    message.msg_iovlen = <size_t> count
    message.msg_control = NULL
    message.msg_controllen = 0
    message.msg_flags = 0
    return sendmsg(fd, &message, MSG_NOSIGNAL)


cdef int emit(relay_t *relay, spool_t *spool, end_t *end, uint32_t memory, const char *a,
              uint32_t a_size, const char *b, uint32_t b_size, const char *c,
              uint32_t c_size) noexcept nogil:
    cdef iovec pieces[3]
    cdef int count = 0, i
    cdef ssize_t sent = 0
    cdef size_t done
    relay.given = 0
    relay.taken = 0
    if a_size:
        pieces[count].iov_base = <void *> a
        pieces[count].iov_len = a_size
        count += 1
    if b_size:
        pieces[count].iov_base = <void *> b
        pieces[count].iov_len = b_size
        count += 1
    if c_size:
        pieces[count].iov_base = <void *> c
        pieces[count].iov_len = c_size
        count += 1
    if count == 0:
        return EMIT_OK
    if spool.size == 0 and end.flags & WRITABLE:
        sent = send_pieces(end.fd, pieces, count)
        if sent < 0:
            if errno == EAGAIN:
                end.flags &= ~<uint32_t> WRITABLE
            elif errno != EINTR:
                return EMIT_LOST
            sent = 0
        relay.given = <uint64_t> sent
        relay.taken = relay.given
    done = <size_t> sent
    if done == <size_t> a_size + b_size + c_size:
        return EMIT_OK
    if done:
        end.flags &= ~<uint32_t> WRITABLE
    for i in range(count):
        if done >= pieces[i].iov_len:
            done -= pieces[i].iov_len
            continue
        if spool_put(relay, spool, <const char *> pieces[i].iov_base + done,
                     <uint32_t> (pieces[i].iov_len - done), memory) != SPOOL_OK:
            return EMIT_NO_ROOM
        relay.taken += pieces[i].iov_len - done
        done = 0
    return EMIT_OK


cdef uint32_t chunk_head(uint32_t size, char *out) noexcept nogil:
    cdef uint32_t digits = 1, i
    while digits < 8 and size >> (4 * digits):
        digits += 1
    for i in range(digits):
        out[i] = b"0123456789abcdef"[(size >> (4 * (digits - 1 - i))) & 15]
    out[digits] = 13
    out[digits + 1] = 10
    return digits + 2
