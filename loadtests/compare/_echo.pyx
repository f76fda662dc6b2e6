# cython: language_level=3, boundscheck=False, wraparound=False
"""A closed loop of small WebSocket messages: every connection sends one, waits for its echo and
sends the next. The handshake has been done by somebody else (``echo.py``).
"""

from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, strerror
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec


cdef extern from "<sys/epoll.h>" nogil:
    ctypedef union epoll_data_t:
        uint32_t u32
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    int EPOLL_CTL_ADD
    uint32_t EPOLLIN
    int epoll_create1(int flags)
    int epoll_ctl(int epoll, int operation, int descriptor, epoll_event *event)
    int epoll_wait(int epoll, epoll_event *events, int most, int timeout)


cdef extern from "<sys/socket.h>" nogil:
    int MSG_DONTWAIT
    int MSG_NOSIGNAL
    ssize_t send(int descriptor, const void *data, size_t length, int flags)
    ssize_t recv(int descriptor, void *data, size_t length, int flags)


cdef extern from "<unistd.h>" nogil:
    int close(int descriptor)


cdef enum:
    BATCH = 64
    PAYLOAD = 32
    SENT = 6 + PAYLOAD          # a client masks what it sends: four bytes more
    ECHOED = 2 + PAYLOAD
    CLOSED = -1
    WRONG = -2
    SILENT = -3
    PATIENCE_MS = 5000

cdef struct Connection:
    int descriptor
    int held                    # bytes of the echo that have come
    int64_t number              # of the message under way, its first eight bytes
    int64_t sent_at             # ns
    uint8_t echo[ECHOED]


cdef inline int64_t now_ns() noexcept nogil:
    cdef timespec ts
    clock_gettime(CLOCK_MONOTONIC, &ts)
    return <int64_t>ts.tv_sec * 1_000_000_000 + ts.tv_nsec


cdef class Echoes:
    """Messages over the given descriptors, which have been upgraded."""

    cdef Connection *connections
    cdef int count, epoll
    cdef int64_t *latencies
    cdef int64_t recorded, limit
    cdef readonly double seconds    # how long the last run took

    def __cinit__(self, list descriptors, int64_t most):
        cdef epoll_event event
        cdef int index
        self.count = len(descriptors)
        self.limit = most
        self.connections = <Connection *>calloc(self.count, sizeof(Connection))
        self.latencies = <int64_t *>malloc(most * sizeof(int64_t))
        self.epoll = epoll_create1(0)
        if not self.connections or not self.latencies or self.epoll < 0:
            raise MemoryError
        for index in range(self.count):
            self.connections[index].descriptor = descriptors[index]
            self.connections[index].number = <int64_t>index << 40
            event.events = EPOLLIN
            event.data.u32 = index
            if epoll_ctl(self.epoll, EPOLL_CTL_ADD, descriptors[index], &event) < 0:
                raise OSError(errno, "epoll_ctl")

    def __dealloc__(self):
        free(self.connections)
        free(self.latencies)
        if self.epoll >= 0:
            close(self.epoll)

    def run(self, double seconds):
        """Runs the loop; returns the sorted latencies of all messages, nanoseconds.

        Raises ConnectionError when a connection ended, an echo was wrong or none came for 5 s.
        """
        cdef int error
        self.recorded = 0
        with nogil:
            error = self._run(<int64_t>(seconds * 1e9))
        if error == CLOSED:
            raise ConnectionError("the balancer closed a connection in use")
        if error == WRONG:
            raise ConnectionError("an echo is not what was sent")
        if error == SILENT:
            raise ConnectionError("no echo came for 5 s")
        if error:
            raise ConnectionError(strerror(error).decode())
        return sorted([self.latencies[i] for i in range(self.recorded)])

    cdef int _run(self, int64_t length) noexcept nogil:
        cdef epoll_event events[BATCH]
        cdef int64_t start = now_ns(), end = start + length
        cdef int index, ready, error, under_way = self.count
        for index in range(self.count):
            error = self._send(&self.connections[index])
            if error:
                return error
        while under_way:
            ready = epoll_wait(self.epoll, events, BATCH, PATIENCE_MS)
            if ready == 0:
                return SILENT
            if ready < 0 and errno != EINTR:
                return errno
            for index in range(ready):
                error = self._receive(&self.connections[events[index].data.u32], end)
                if error == EAGAIN:         # this one has had its last echo
                    under_way -= 1
                elif error:
                    return error
        self.seconds = (now_ns() - start) / 1e9
        return 0

    cdef int _send(self, Connection *connection) noexcept nogil:
        cdef uint8_t message[SENT]
        cdef uint8_t *number = <uint8_t *>&connection.number
        cdef int index
        connection.number += 1
        connection.held = 0
        message[0] = 0x82                   # binary, whole
        message[1] = 0x80 | PAYLOAD
        for index in range(4):
            message[2 + index] = 0x5A + index
        for index in range(PAYLOAD):
            message[6 + index] = number[index & 7] ^ (0x5A + (index & 3))
        connection.sent_at = now_ns()
        if send(connection.descriptor, message, SENT, MSG_NOSIGNAL) != SENT:
            return errno if errno else CLOSED
        return 0

    cdef int _receive(self, Connection *connection, int64_t end) noexcept nogil:
        """Takes what has come. 0 to go on, EAGAIN when this connection is done, or an error."""
        cdef uint8_t wanted[ECHOED]
        cdef int index
        cdef int64_t now
        cdef ssize_t got = recv(connection.descriptor, connection.echo + connection.held,
                                ECHOED - connection.held, MSG_DONTWAIT)
        if got == 0:
            return CLOSED
        if got < 0:
            return 0 if errno == EAGAIN or errno == EINTR else errno
        connection.held += <int>got
        if connection.held < ECHOED:
            return 0
        wanted[0] = 0x82
        wanted[1] = PAYLOAD
        for index in range(0, PAYLOAD, 8):
            memcpy(wanted + 2 + index, &connection.number, 8)
        if memcmp(wanted, connection.echo, ECHOED):
            return WRONG
        now = now_ns()
        if self.recorded < self.limit:
            self.latencies[self.recorded] = now - connection.sent_at
            self.recorded += 1
        return EAGAIN if now >= end else self._send(connection)
