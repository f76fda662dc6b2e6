# The line that a TCP connection leaves in the access log.

from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memset

from lbcore._access cimport NO_TIME, access_line, record_t, slice_t
from lbcore._loop cimport clock_us
from lbcore._plan cimport (
    listener_t, plan_header_t, plan_listeners, plan_pools, pool_backends, pool_t, text_of, text_t,
)
from lbcore._proxy cimport endpoint_from_sockaddr
from lbcore._session cimport HAS_DESTINATION
from lbcore.includes.linux cimport (
    CLOCK_REALTIME, clock_gettime, getpeername, sockaddr, sockaddr_storage, socklen_t, timespec,
)


cdef inline slice_t slice_of(const plan_header_t *plan, text_t text) noexcept nogil:
    cdef slice_t found
    found.data = text_of(plan, text)
    found.size = text.size
    return found


cdef void session_line(loop_t *loop, const session_t *s, int reason) noexcept nogil:
    cdef const plan_header_t *plan = s.seek.plan.image
    cdef const listener_t *listener = plan_listeners(plan) + s.listener
    cdef const pool_t *pool = plan_pools(plan) + s.seek.pool
    cdef record_t record
    cdef sockaddr_storage address
    cdef socklen_t length = sizeof(address)
    cdef timespec now
    memset(&record, 0, sizeof(record_t))
    clock_gettime(CLOCK_REALTIME, &now)
    record.total_us = clock_us() - s.opened_us
    record.started_us = (
        <uint64_t> now.tv_sec * 1000000 + <uint64_t> now.tv_nsec // 1000 - record.total_us)
    record.queue_us = s.queue_us
    record.connect_us = s.connect_us
    record.first_byte_us = NO_TIME
    record.reason = <uint8_t> reason
    record.attempts = s.seek.attempts
    record.bytes_up = s.bytes_up
    record.bytes_down = s.bytes_down
    record.client = s.source
    # A PROXY header has put another client in the place of who is connected.
    if (s.flags & HAS_DESTINATION
            and getpeername(s.client.fd, <sockaddr *> &address, &length) == 0):
        endpoint_from_sockaddr(&record.peer, &address, length)
    record.listener = slice_of(plan, listener.name)
    record.pool = slice_of(plan, pool.name)
    if s.seek.attempts:         # the last one that was tried
        record.backend = slice_of(plan, pool_backends(plan, pool)[s.seek.backend].name)
    access_line(&loop.access, &record, loop.now)
