# The access log: how lines get out without ever waiting for who reads them. How they look is in
# _logline.pyx.
#
# Rules:
# - A line is whole or it is not there. What reads the log may be slow or gone, the disk full: lines
#   are dropped and counted then, and traffic goes on.
# - Several workers write to the same place, each on its own. What keeps their lines apart is that
#   the kernel does not mix single writes: to files (appended under the inode's lock), of up to
#   PIPE_BUF bytes to pipes (pipe(7)), and of one buffer to unix sockets. So a file gets all that is
#   gathered in one write, everything else pieces of whole lines up to PIECE bytes, and no line is
#   longer than what its destination takes in one.
# - O_NONBLOCK belongs to an open file description, and that of standard output is shared with
#   whoever started lbcore: it is never set here. The supervisor opens pipes and terminals anew;
#   where that is forbidden, see `put`.
# - Regular files are written directly. The kernel has no way to write to them that never waits, but
#   its page cache takes a batch in microseconds unless it is full of other files' unwritten data.

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memmove, memset

from lbcore._logline cimport line_most, line_write
from lbcore._proxy cimport endpoint_of
from lbcore.includes.linux cimport (
    CLOCK_MONOTONIC, EAGAIN, EINTR, ENOSPC, F_GETFL, MSG_DONTWAIT, MSG_NOSIGNAL, O_APPEND,
    O_CLOEXEC, O_NONBLOCK, POLLOUT, SEEK_CUR, SPLICE_F_NONBLOCK, S_ISFIFO, S_ISREG,
    S_ISSOCK, clock_gettime, close, errno, fcntl, fstat, ftruncate, lseek, pipe2, poll, pollfd,
    read, send, splice, ssize_t, stat_t, timespec, write,
)

cdef extern from "<string.h>" nogil:
    void *memrchr(const void *data, int byte, size_t size)

cdef extern from "<time.h>" nogil:
    void tzset()

cdef enum:
    BUFFER = 65536
    NEARLY_FULL = 49152
    PIECE = 4096                # PIPE_BUF
    LONG_LINE = 32768           # the longest in a file
    FLUSH_AFTER = 200           # ms from the first line gathered until it is written
    PAUSE_MOST = 200            # ms between two tries to write to who takes nothing
    LAST_PATIENCE = 250         # ms for a reader when the worker ends

cdef enum Way:
    WAY_FILE = 0                # all at once
    WAY_OWN_FILE = 1            # appended, and nobody else has this open file description
    WAY_WRITE = 2               # non-blocking by itself
    WAY_SEND = 3
    WAY_SPLICE = 4


# ---- gathering lines ---------------------------------------------------------------------------

cdef void access_line(access_t *access, const record_t *record, uint64_t now_ms) noexcept nogil:
    cdef uint32_t most
    if access.buffer == NULL:
        return
    most = line_most(record, access.limit)
    if access.used + most > BUFFER:
        if access.pause == 0 or now_ms >= access.flush_at:
            access_flush(access, now_ms)
        if access.used + most > BUFFER:
            access.dropped += 1
            return
    access.used = <uint32_t> (
        line_write(access.buffer + access.used, access, record) - access.buffer)
    access.lines += 1
    if access.flush_at == 0:
        access.flush_at = now_ms + FLUSH_AFTER
    if access.used >= NEARLY_FULL and (access.pause == 0 or now_ms >= access.flush_at):
        access_flush(access, now_ms)


# ---- writing out -------------------------------------------------------------------------------

cdef ssize_t put(access_t *access, const char *data, size_t size) noexcept nogil:
    """One write that does not wait; -1 with errno, EAGAIN when nothing was taken."""
    cdef ssize_t got
    if access.way == WAY_SEND:
        return send(access.fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL)
    if access.way == WAY_SPLICE:
        # A pipe of somebody else's user, which cannot be opened anew (a container's standard
        # output when lbcore does not run as root). A whole page moves from pipe to pipe, or none.
        got = write(access.pipe[1], data, size)
        if got != <ssize_t> size:
            return -1
        got = splice(access.pipe[0], NULL, access.fd, NULL, size, SPLICE_F_NONBLOCK)
        if got != <ssize_t> size:
            size -= 0 if got < 0 else <size_t> got
            empty_pipe(access, size)
        return got
    return write(access.fd, data, size)


cdef void empty_pipe(access_t *access, size_t size) noexcept nogil:
    """Takes out of our own pipe what could not be moved on: the buffer has it still."""
    cdef char page[PIECE]
    cdef int error = errno
    cdef ssize_t got
    while size:
        got = read(access.pipe[0], page, size if size < PIECE else PIECE)
        if got <= 0:
            break
        size -= <size_t> got
    (&errno)[0] = error


cdef uint32_t write_pieces(access_t *access, int *error) noexcept nogil:
    """Whole lines, up to PIECE bytes at a time; returns how many bytes were taken."""
    cdef uint32_t at = 0, size
    cdef const char *end
    cdef ssize_t got
    while at < access.used:
        size = access.used - at
        if size > PIECE:
            end = <const char *> memrchr(access.buffer + at, c'\n', PIECE)
            size = <uint32_t> (end - (access.buffer + at)) + 1 if end != NULL else PIECE
        got = put(access, access.buffer + at, size)
        if got > 0:
            at += <uint32_t> got
        elif got == 0:
            error[0] = EAGAIN
            break
        elif errno != EINTR:
            error[0] = errno
            break
    return at


cdef uint32_t write_file(access_t *access, int *error) noexcept nogil:
    """All at once. On a full disk, what was written of the last line is taken back if it can be."""
    cdef stat_t found
    cdef const char *end
    cdef uint32_t whole
    cdef ssize_t got = write(access.fd, access.buffer, access.used)
    if got < 0:
        error[0] = errno
        return 0
    if <uint32_t> got == access.used or access.way != WAY_OWN_FILE:
        return <uint32_t> got
    end = <const char *> memrchr(access.buffer, c'\n', <size_t> got)
    whole = <uint32_t> (end - access.buffer) + 1 if end != NULL else 0
    # The position of a description of our own is where our bytes ended. Another worker may have
    # appended to them since; then the line is torn, and goes on behind the other's.
    if (fstat(access.fd, &found) == 0 and lseek(access.fd, 0, SEEK_CUR) == found.st_size
            and ftruncate(access.fd, found.st_size - (got - whole)) == 0):
        return whole
    return <uint32_t> got


cdef void discard(access_t *access, uint32_t size) noexcept nogil:
    """Drops the lines in the first so many bytes of the buffer, and counts them."""
    cdef uint32_t i, lines = 0
    for i in range(size):
        if access.buffer[i] == c'\n':
            lines += 1
    access.lines -= lines
    access.dropped += lines
    access.used -= size
    memmove(access.buffer, access.buffer + size, access.used)
    access.torn = 0


cdef void access_flush(access_t *access, uint64_t now_ms) noexcept nogil:
    cdef uint32_t gone
    cdef int error = 0
    if access.buffer == NULL or access.used == 0:
        access.flush_at = 0
        return
    if access.way == WAY_FILE or access.way == WAY_OWN_FILE:
        gone = write_file(access, &error)
    else:
        gone = write_pieces(access, &error)
        if error and error != EAGAIN and error != ENOSPC:
            discard(access, access.used)        # nobody is there to read
            gone = 0
    if gone:
        access.torn = access.buffer[gone - 1] != c'\n'
        access.used -= gone
        memmove(access.buffer, access.buffer + gone, access.used)
    if access.used == 0:
        access.pause = 0
        access.flush_at = 0
        return
    if access.way == WAY_FILE or access.way == WAY_OWN_FILE:
        access.pause = PAUSE_MOST
    elif gone or access.pause == 0:
        access.pause = 1        # a reader that reads makes room soon
    elif access.pause < PAUSE_MOST:
        access.pause = access.pause * 2 if access.pause * 2 < PAUSE_MOST else PAUSE_MOST
    access.flush_at = now_ms + access.pause


# ---- the descriptor ----------------------------------------------------------------------------

cdef bint find_way(access_t *access) noexcept nogil:
    """How to write to the descriptor. False when it takes a pipe that cannot be had."""
    cdef stat_t found
    cdef int flags = fcntl(access.fd, F_GETFL)
    cdef bint ours = flags >= 0 and flags & O_NONBLOCK      # only the supervisor sets it
    access.limit = PIECE
    access.way = WAY_WRITE
    if fstat(access.fd, &found) != 0:
        return False
    if S_ISREG(found.st_mode):
        access.limit = LONG_LINE
        access.way = WAY_OWN_FILE if ours and flags & O_APPEND else WAY_FILE
    elif S_ISSOCK(found.st_mode):
        access.way = WAY_SEND
    elif S_ISFIFO(found.st_mode) and not ours:
        if pipe2(access.pipe, O_NONBLOCK | O_CLOEXEC) != 0:
            return False
        access.way = WAY_SPLICE
    return True


cdef void let_go(access_t *access) noexcept nogil:
    if access.way == WAY_SPLICE:
        close(access.pipe[0])
        close(access.pipe[1])
    access.way = WAY_FILE
    if access.fd >= 0:
        close(access.fd)
    access.fd = -1


cdef void end_log(access_t *access) noexcept nogil:
    discard(access, access.used)
    let_go(access)
    free(access.buffer)
    access.buffer = NULL
    access.format = ACCESS_NONE
    access.flush_at = 0
    access.pause = 0


cdef bint access_open(access_t *access, int fd, uint32_t format) noexcept nogil:
    if access.buffer != NULL:
        access_flush(access, 0)
        if fd < 0 or format != access.format:
            discard(access, access.used)
        elif access.torn:       # its beginning is in the old file
            discard(access, first_line(access))
        let_go(access)
    if fd < 0 or format == ACCESS_NONE:
        if access.buffer != NULL:
            end_log(access)
        if fd >= 0:
            close(fd)
        access.fd = -1
        return True
    tzset()
    access.fd = fd
    if access.buffer == NULL:
        access.buffer = <char *> malloc(BUFFER)
        access.used = 0
        access.json_second = -1
        access.combined_second = -1
    if access.buffer == NULL or not find_way(access):
        access.way = WAY_FILE
        if access.buffer != NULL:
            end_log(access)
        else:
            let_go(access)
        return False
    access.format = format
    access.pause = 0
    return True


cdef uint32_t first_line(const access_t *access) noexcept nogil:
    cdef uint32_t i
    for i in range(access.used):
        if access.buffer[i] == c'\n':
            return i + 1
    return access.used


cdef void access_close(access_t *access) noexcept nogil:
    cdef pollfd ready
    cdef uint64_t until
    if access.buffer == NULL:
        return
    access_flush(access, 0)
    until = clock_ms() + LAST_PATIENCE
    ready.fd = access.fd
    ready.events = POLLOUT
    while access.used and access.limit == PIECE and clock_ms() < until:
        poll(&ready, 1, <int> (until - clock_ms()))
        access_flush(access, 0)
    end_log(access)


cdef uint64_t clock_ms() noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC, &t)
    return <uint64_t> t.tv_sec * 1000 + <uint64_t> t.tv_nsec // 1000000


# ---- for tests and tools -----------------------------------------------------------------------

BUFFER_SIZE = BUFFER
LONGEST = LONG_LINE
LONGEST_PIECE = PIECE


cdef slice_t slice_of(record, str name):
    cdef slice_t found
    value = record.get(name, b"")       # stays alive in the record
    found.data = <const char *> value
    found.size = <uint32_t> len(value)
    return found


cdef record_t record_of(record) except *:
    """``record_t``'s fields by name: texts as bytes, endpoints as (4 or 16 bytes, port) or None.

    Phases that are absent were not reached.
    """
    cdef record_t r
    memset(&r, 0, sizeof(record_t))
    r.http = record.get("http", 1)
    r.minor = record.get("minor", 1)
    r.status = record.get("status", 0)
    r.attempts = record.get("attempts", 0)
    r.reason = record.get("reason", 0)
    r.rule = record.get("rule", 0)
    r.tunnel = record.get("tunnel", 0)
    r.started_us = record.get("started_us", 0)
    r.queue_us = record.get("queue_us", <uint32_t> NO_TIME)
    r.connect_us = record.get("connect_us", <uint32_t> NO_TIME)
    r.first_byte_us = record.get("first_byte_us", <uint32_t> NO_TIME)
    r.total_us = record.get("total_us", 0)
    r.bytes_up = record.get("bytes_up", 0)
    r.bytes_down = record.get("bytes_down", 0)
    r.client = endpoint_of(record.get("client"))
    r.peer = endpoint_of(record.get("peer"))
    r.listener = slice_of(record, "listener")
    r.route = slice_of(record, "route")
    r.pool = slice_of(record, "pool")
    r.backend = slice_of(record, "backend")
    r.method = slice_of(record, "method")
    r.target = slice_of(record, "target")
    r.host = slice_of(record, "host")
    r.referer = slice_of(record, "referer")
    r.user_agent = slice_of(record, "user_agent")
    r.user = slice_of(record, "user")
    r.request_id = slice_of(record, "request_id")
    return r


cdef class AccessLog:
    """One worker's end of the log. Owns the descriptor; times are milliseconds of any clock."""

    cdef access_t access

    def __cinit__(self, fd: int, format: int):
        if not access_open(&self.access, fd, format):
            raise MemoryError

    def __dealloc__(self):
        access_close(&self.access)

    @property
    def gathered(self) -> int:
        """Bytes that wait to be written."""
        return self.access.used

    @property
    def lines(self) -> int:
        """Lines written, or gathered to be."""
        return self.access.lines

    @property
    def dropped(self) -> int:
        """Lines that found no place, or no reader."""
        return self.access.dropped

    @property
    def flush_at(self) -> int:
        """When :meth:`flush` is to be called; 0: nothing is gathered."""
        return self.access.flush_at

    def line(self, record: dict, now_ms: int = 1) -> None:
        """Adds a line; ``record`` has fields of ``record_t`` by name, see ``record_of``."""
        cdef record_t r = record_of(record)
        access_line(&self.access, &r, now_ms)

    def flush(self, now_ms: int = 1) -> None:
        """Writes what is gathered, as far as it is taken."""
        access_flush(&self.access, now_ms)

    def open(self, fd: int, format: int) -> None:
        """Goes on with another descriptor; -1 ends the log."""
        if not access_open(&self.access, fd, format):
            raise MemoryError

    def close(self) -> None:
        """Ends the log; waits for a reader up to a quarter of a second."""
        access_close(&self.access)


def measure(record: dict, format: int, rounds: int) -> float:
    """Nanoseconds that it takes to make one line, writing not included."""
    cdef access_t access
    cdef record_t r = record_of(record)
    cdef timespec began, ended
    cdef long _i, count = rounds
    memset(&access, 0, sizeof(access_t))
    access.format = format
    access.limit = LONG_LINE
    access.json_second = -1
    access.combined_second = -1
    access.buffer = <char *> malloc(BUFFER)
    if access.buffer == NULL:
        raise MemoryError
    clock_gettime(CLOCK_MONOTONIC, &began)
    for _i in range(count):
        access.used = 0
        access_line(&access, &r, 1)
    clock_gettime(CLOCK_MONOTONIC, &ended)
    free(access.buffer)
    return ((ended.tv_sec - began.tv_sec) * 1e9 + ended.tv_nsec - began.tv_nsec) / count
