# The end of a client's connection on which not all of its words were read: see _linger.pxd.

from libc.stdint cimport uint32_t

from lbcore._loop cimport relative
from lbcore._relay cimport READABLE, buffer_data, buffer_give
from lbcore._timers cimport timer_set
from lbcore._web cimport CONN_LINGER
from lbcore.includes.linux cimport EAGAIN, EINTR, SHUT_WR, errno, recv, shutdown, ssize_t

cdef enum:
    LINGER_SILENT = 2000        # ms without a byte from a client that has its last answer
    LINGER_MOST = 10000         # ms in all
    LINGER_READS = 32           # in a row before others get their turn
    LINGER_PACE = 100           # ms until one that keeps on sending is looked at again


cdef int linger_begin(loop_t *loop, web_t *web, conn_t *conn) noexcept nogil:
    """Closing now would send a reset, and that may destroy the answer before the client has read
    it."""
    conn.state = CONN_LINGER
    conn.since = relative(loop)
    conn.lingers = conn.since
    shutdown(conn.client.fd, SHUT_WR)
    if conn.rest != NULL:
        buffer_give(&loop.relay, conn.rest)
        conn.rest = NULL
    timer_set(&loop.wheel, &conn.timer, loop.now + LINGER_SILENT)
    return linger_read(loop, web, conn)


cdef int linger_read(loop_t *loop, web_t *web, conn_t *conn) noexcept nogil:
    cdef ssize_t got
    cdef int reads = 0
    while conn.client.flags & READABLE and reads < LINGER_READS:
        got = recv(conn.client.fd, buffer_data(web.input), web.input.size, 0)
        reads += 1
        if got > 0:
            conn.since = relative(loop)
            continue
        if got < 0 and errno == EINTR:
            continue
        if got < 0 and errno == EAGAIN:
            conn.client.flags &= ~<uint32_t> READABLE
            return LINGER_WAIT
        return LINGER_OVER
    if relative(loop) - conn.lingers >= LINGER_MOST:
        return LINGER_CUT
    if conn.client.flags & READABLE:
        # It keeps on sending: looked at again when the timer fires, not at its pace.
        timer_set(&loop.wheel, &conn.timer, loop.now + LINGER_PACE)
    return LINGER_WAIT


cdef int linger_timeout(loop_t *loop, web_t *web, conn_t *conn) noexcept nogil:
    if relative(loop) - conn.since >= LINGER_SILENT:
        return LINGER_OVER
    timer_set(&loop.wheel, &conn.timer, loop.now + LINGER_SILENT)
    return linger_read(loop, web, conn)
