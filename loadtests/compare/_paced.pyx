# cython: language_level=3, boundscheck=False, wraparound=False
"""An open-loop client: requests leave at Poisson times whatever the answers do.

An answer's latency counts from the moment its request was due, so that a stall is charged to
every request it held up and not only to the ones that were under way (no coordinated omission).
"""

from libc.errno cimport EAGAIN, EINTR, errno
from libc.math cimport log
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport strerror
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
    int epoll_pwait2(int epoll, epoll_event *events, int most, const timespec *timeout,
                     const void *mask)


cdef extern from "<sys/socket.h>" nogil:
    int MSG_DONTWAIT
    int MSG_NOSIGNAL
    ssize_t send(int descriptor, const void *data, size_t length, int flags)
    ssize_t recv(int descriptor, void *data, size_t length, int flags)


cdef extern from "<sys/prctl.h>" nogil:
    int PR_SET_TIMERSLACK
    int prctl(int option, unsigned long value)


cdef extern from "<unistd.h>" nogil:
    int close(int descriptor)


cdef enum:
    BATCH = 64
    BUFFER = 65536

cdef struct Connection:
    int descriptor
    int64_t due             # when the outstanding request was due, ns
    int64_t missing         # bytes of its answer still to come


cdef inline int64_t now_ns() noexcept nogil:
    cdef timespec ts
    clock_gettime(CLOCK_MONOTONIC, &ts)
    return <int64_t>ts.tv_sec * 1_000_000_000 + ts.tv_nsec


cdef inline int64_t exponential(uint64_t *state, double mean) noexcept nogil:
    """The next gap, ns (xorshift64*; good enough to draw arrival times)."""
    state[0] ^= state[0] >> 12
    state[0] ^= state[0] << 25
    state[0] ^= state[0] >> 27
    cdef double uniform = <double>((state[0] * 0x2545F4914F6CDD1DULL) >> 11) / 9007199254740992.0
    return <int64_t>(-mean * log(1.0 - uniform))


cdef class Pacer:
    """Sends ``message`` at Poisson times of ``rate`` a second over the given descriptors.

    ``answer_bytes`` is the size of a whole answer. Answers to requests that were due in the
    first ``warmup`` seconds are not counted.
    """

    cdef Connection *connections
    cdef int *idle                  # ring of connections without an outstanding request
    cdef int64_t *waiting           # ring of due times that found no idle connection
    cdef int count, idle_head, idle_count, epoll
    cdef int64_t capacity, waiting_head, waiting_count
    cdef int64_t *latencies
    cdef int64_t recorded, limit
    cdef bytes message              # keeps ``data`` alive
    cdef const char *data
    cdef ssize_t length
    cdef int64_t answer_bytes
    cdef double rate
    cdef int error                  # errno, or -1 for a closed connection
    cdef readonly int64_t late_ns   # how late this client itself was at worst, ns

    def __cinit__(self, list descriptors, bytes message, int64_t answer_bytes, double rate):
        cdef int index
        self.count = len(descriptors)
        self.message = message
        self.data = message
        self.length = len(message)
        self.answer_bytes = answer_bytes
        self.rate = rate
        self.capacity = 1 << 20
        self.connections = <Connection *>calloc(self.count, sizeof(Connection))
        self.idle = <int *>calloc(self.count, sizeof(int))
        self.waiting = <int64_t *>malloc(self.capacity * sizeof(int64_t))
        self.epoll = epoll_create1(0)
        if not self.connections or not self.idle or not self.waiting or self.epoll < 0:
            raise MemoryError
        cdef epoll_event event
        for index in range(self.count):
            self.connections[index].descriptor = descriptors[index]
            self.idle[index] = index
            event.events = EPOLLIN
            event.data.u32 = index
            if epoll_ctl(self.epoll, EPOLL_CTL_ADD, descriptors[index], &event) < 0:
                raise OSError(errno, "epoll_ctl")
        self.idle_count = self.count

    def __dealloc__(self):
        free(self.connections)
        free(self.idle)
        free(self.waiting)
        free(self.latencies)
        if self.epoll >= 0:
            close(self.epoll)

    def run(self, double seconds, double warmup, uint64_t seed):
        """Runs the load; returns the sorted latencies in nanoseconds.

        Raises ConnectionError when a connection was closed or failed, OverflowError when the
        answers fell hopelessly behind.
        """
        self.limit = <int64_t>((seconds + warmup) * self.rate * 1.5) + 1000
        free(self.latencies)
        self.latencies = <int64_t *>malloc(self.limit * sizeof(int64_t))
        if not self.latencies:
            raise MemoryError
        self.recorded = self.error = 0
        self.late_ns = 0
        with nogil:
            prctl(PR_SET_TIMERSLACK, 1)
            self._run(<int64_t>(seconds * 1e9), <int64_t>(warmup * 1e9), seed | 1)
        if self.error == -1:
            raise ConnectionError("the balancer closed a connection in use")
        if self.error == -2:
            raise OverflowError("answers came slower than requests were due")
        if self.error:
            raise ConnectionError(strerror(self.error).decode())
        return sorted([self.latencies[i] for i in range(self.recorded)])

    cdef void _run(self, int64_t seconds, int64_t warmup, uint64_t seed) noexcept nogil:
        cdef epoll_event events[BATCH]
        cdef timespec timeout
        cdef double gap = 1e9 / self.rate
        cdef int64_t start = now_ns()
        cdef int64_t counted = start + warmup
        cdef int64_t end = counted + seconds
        cdef int64_t due = start + exponential(&seed, gap)
        cdef int64_t now, left
        cdef int64_t too_late = end + 5 * <int64_t>1_000_000_000    # then answers are given up
        cdef int ready, index
        while True:
            now = now_ns()
            while due <= now and due < end:
                if due >= counted and now - due > self.late_ns:
                    self.late_ns = now - due
                self._request(due)
                if self.error:
                    return
                due += exponential(&seed, gap)
            if due >= end and self.waiting_count == 0 and self.idle_count == self.count:
                return
            left = due - now if due < end else 1_000_000_000
            timeout.tv_sec = left // 1_000_000_000
            timeout.tv_nsec = left % 1_000_000_000
            ready = epoll_pwait2(self.epoll, events, BATCH, &timeout, NULL)
            if ready < 0 and errno != EINTR:
                self.error = errno
                return
            if ready <= 0 and due >= end and now_ns() > too_late:
                self.error = -2
                return
            for index in range(ready):
                self._receive(<int>events[index].data.u32, counted)
                if self.error:
                    return

    cdef void _request(self, int64_t due) noexcept nogil:
        """Sends on an idle connection, or lets the request wait for one."""
        cdef int index
        if self.idle_count == 0:
            if self.waiting_count == self.capacity:
                self.error = -2
                return
            self.waiting[(self.waiting_head + self.waiting_count) % self.capacity] = due
            self.waiting_count += 1
            return
        index = self.idle[self.idle_head]
        self.idle_head = (self.idle_head + 1) % self.count
        self.idle_count -= 1
        self._send(index, due)

    cdef void _send(self, int index, int64_t due) noexcept nogil:
        cdef Connection *connection = &self.connections[index]
        connection.due = due
        connection.missing = self.answer_bytes
        if send(connection.descriptor, self.data, self.length, MSG_NOSIGNAL) != self.length:
            self.error = errno

    cdef void _receive(self, int index, int64_t counted) noexcept nogil:
        """Takes what has come; a whole answer is recorded and frees its connection."""
        cdef char buffer[BUFFER]
        cdef int64_t due
        cdef Connection *connection = &self.connections[index]
        cdef ssize_t got = recv(connection.descriptor, buffer, BUFFER, MSG_DONTWAIT)
        if got <= 0:
            if got == 0:
                self.error = -1
            elif errno != EAGAIN and errno != EINTR:
                self.error = errno
            return
        connection.missing -= got
        if connection.missing > 0:
            return
        if connection.missing < 0:
            self.error = -1
            return
        if connection.due >= counted and self.recorded < self.limit:
            self.latencies[self.recorded] = now_ns() - connection.due
            self.recorded += 1
        if self.waiting_count:
            due = self.waiting[self.waiting_head]
            self.waiting_head = (self.waiting_head + 1) % self.capacity
            self.waiting_count -= 1
            self._send(index, due)
        else:
            self.idle[(self.idle_head + self.idle_count) % self.count] = index
            self.idle_count += 1
