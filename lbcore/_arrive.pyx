# What every client connection goes through first: see _arrive.pxd.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from lbcore._plan cimport LISTENER_PROXY_IN, cidr_t
from lbcore._proxy cimport PROXY_MAX, PROXY_MORE, cidr_contains, proxy_parse
from lbcore._relay cimport FAILED, FIN, READABLE
from lbcore._scoreboard cimport source_add, source_count, source_key
from lbcore.includes.linux cimport EAGAIN, EINTR, MSG_PEEK, errno, recv, ssize_t


cdef bint proxy_expected(const plan_header_t *plan, const listener_t *listener,
                         const endpoint_t *source) noexcept nogil:
    cdef const cidr_t *cidr = <const cidr_t *> (<const char *> plan + listener.trusted_offset)
    cdef uint32_t i
    if not listener.flags & LISTENER_PROXY_IN:
        return False
    if listener.trusted_count == 0:
        return True
    for i in range(listener.trusted_count):
        if cidr_contains(&cidr[i], source):
            return True
    return False


cdef int proxy_read(loop_t *loop, end_t *client, endpoint_t *source,
                    endpoint_t *destination) noexcept nogil:
    cdef ssize_t got = recv(client.fd, loop.relay.scratch, PROXY_MAX, MSG_PEEK)
    cdef int length
    if got < 0:
        return ARRIVAL_MORE if errno == EAGAIN or errno == EINTR else ARRIVAL_RESET
    if got == 0:
        return ARRIVAL_GONE
    length = proxy_parse(<const uint8_t *> loop.relay.scratch, <size_t> got, source, destination)
    if length == PROXY_MORE and got < PROXY_MAX:
        if client.flags & FAILED:
            return ARRIVAL_RESET
        return ARRIVAL_MALFORMED if client.flags & FIN else ARRIVAL_MORE
    if length <= 0:
        return ARRIVAL_MALFORMED
    recv(client.fd, loop.relay.scratch, <size_t> length, 0)
    client.flags |= READABLE
    return ARRIVAL_DONE


cdef bint source_enter(loop_t *loop, const listener_t *listener, const endpoint_t *source,
                       uint64_t *key) noexcept nogil:
    cdef uint64_t found
    key[0] = 0
    if not listener.max_per_source or not source.family:
        return True
    found = source_key(&loop.board, listener.row, source.address, 4 if source.family == 4 else 16)
    if source_count(&loop.board, found) >= listener.max_per_source:
        return False
    if source_add(&loop.board, loop.seat_index, found):
        key[0] = found
    else:
        loop.seat.sources_untracked += 1
    return True
