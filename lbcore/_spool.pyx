# Bytes that the other side does not take yet. What a spool is and promises: _spool.pxd.
#
# Rules:
# - Order is memory first, then the file: nothing goes to memory while anything is in the file.
# - The file has no name, so it ends with its descriptor, whatever becomes of the worker. Disk that
#   has been read is given back every MiB: a response that a client takes slowly but steadily may be
#   larger than the disk.
# - Files are written and read directly. That can block while the disk is busy; the page cache makes
#   it rare, and there is no non-blocking way to a disk that costs less than the wait.
#
# Files are in the directory that LBCORE_SPOOL_DIR names; without it in the first of $TMPDIR,
# /var/tmp and /tmp that takes one. /var/tmp comes before /tmp, which is often in memory.

from libc.stdint cimport uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport getenv
from libc.string cimport memcpy, memset, strdup

from lbcore._relay cimport (
    FLOW_AGAIN, FLOW_DESTINATION_ERROR, FLOW_DONE, FLOW_SOURCE_ERROR, FLOW_WAIT, SCRATCH,
    WRITABLE, buffer_data, buffer_give, buffer_t, buffer_take, end_t,
    relay_free, relay_init, relay_t,
)
from lbcore.includes.linux cimport (
    EAGAIN, EINTR, EINVAL, EMFILE, ENFILE, ENOSYS, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE,
    MSG_MORE, MSG_NOSIGNAL, O_CLOEXEC, close, errno, fallocate, fcntl, send, ssize_t,
)

import os

cdef extern from "<errno.h>" nogil:
    enum:
        EIO
        ENOSPC

cdef extern from "<fcntl.h>" nogil:
    enum:
        O_EXCL
        O_RDWR
        O_TMPFILE
        F_DUPFD_CLOEXEC
    int open(const char *path, int flags, ...)

cdef extern from "<stdlib.h>" nogil:
    int mkostemp(char *template, int flags)

cdef extern from "<sys/sendfile.h>" nogil:
    ssize_t sendfile(int out_fd, int in_fd, long *offset, size_t count)

cdef extern from "<unistd.h>" nogil:
    int unlink(const char *path)
    ssize_t pread(int fd, void *data, size_t length, long offset)
    ssize_t pwrite(int fd, const void *data, size_t length, long offset)

cdef enum:
    TURN_BUDGET = 1 << 20       # bytes one call may send before others get their turn
    GIVE_BACK = 1 << 20         # of the file that has been read: so much at a time
    MAX_PATH = 4096


# ---- files -------------------------------------------------------------------------------------

cdef const char *directories[4]     # in which to try, in order; read from the environment once
cdef bint directories_known = False


cdef void learn_directories() noexcept nogil:
    global directories_known
    cdef const char *named = getenv("LBCORE_SPOOL_DIR")
    cdef const char *temporary
    cdef int count = 0
    if named != NULL and named[0]:
        directories[0] = strdup(named)      # and no other: a disk was chosen for it
        count = 1
    else:
        temporary = getenv("TMPDIR")
        if temporary != NULL and temporary[0]:
            directories[0] = strdup(temporary)
            count = 1
        directories[count] = "/var/tmp"
        directories[count + 1] = "/tmp"
        count += 2
    directories[count] = NULL
    directories_known = True


cdef int open_nameless(const char *directory) noexcept nogil:
    """A new file without a name, or -1 and errno."""
    cdef char path[MAX_PATH]
    cdef int length, fd
    # O_EXCL: nobody can give it a name either.
    fd = open(directory, O_TMPFILE | O_EXCL | O_RDWR | O_CLOEXEC, 0o600)
    if fd >= 0 or errno == EMFILE or errno == ENFILE or errno == ENOSPC:
        return fd
    # Not every filesystem can do that (overlayfs before Linux 6.6, NFS, FUSE).
    length = snprintf(path, MAX_PATH, "%s/lbcore-spool-XXXXXX", directory)
    if length < 0 or length >= MAX_PATH:
        return -1
    fd = mkostemp(path, O_CLOEXEC)
    if fd >= 0:
        unlink(path)
    return fd


cdef int open_file() noexcept nogil:
    """A new spool file; never descriptor 0, which means none. -1 and errno."""
    cdef const char **directory
    cdef int fd = -1, moved
    if not directories_known:
        learn_directories()
    directory = directories
    while directory[0] != NULL:
        fd = open_nameless(directory[0])
        if fd >= 0 or errno == EMFILE or errno == ENFILE:
            break
        directory += 1
    if fd == 0:
        moved = fcntl(fd, F_DUPFD_CLOEXEC, 3)
        close(fd)
        fd = moved
    return fd


cdef void release_file(relay_t *relay, spool_t *spool) noexcept nogil:
    """Closes the file if nothing is in it. errno stays, as close leaves it when it succeeds."""
    if spool.in_file == 0 and spool.fd:
        close(spool.fd)
        relay.files -= 1
        spool.fd = 0
        spool.file_at = 0


cdef int put_in_file(relay_t *relay, spool_t *spool, const char *data,
                     uint32_t size) noexcept nogil:
    cdef uint64_t at = spool.file_at + spool.in_file
    cdef uint32_t written = 0
    cdef ssize_t got
    if spool.fd == 0:
        spool.fd = open_file()
        if spool.fd < 0:
            spool.fd = 0
            return SPOOL_NO_FILE
        relay.files += 1
    while written < size:
        got = pwrite(spool.fd, data + written, size - written, <long> (at + written))
        if got < 0 and errno == EINTR:
            continue
        if got <= 0:
            # What was written lies behind the end that the spool knows of, to be overwritten.
            release_file(relay, spool)
            return SPOOL_NO_FILE
        written += <uint32_t> got
    spool.in_file += size
    return SPOOL_OK


# ---- in ----------------------------------------------------------------------------------------

cdef int put_in_memory(relay_t *relay, spool_t *spool, const char *data,
                       uint32_t size) noexcept nogil:
    cdef buffer_t *tail = spool.tail
    cdef buffer_t *first = NULL
    cdef buffer_t *last = NULL
    cdef buffer_t *buffer
    cdef uint32_t room = tail.size - tail.end if tail != NULL else 0
    cdef uint32_t rest = size - room if size > room else 0
    cdef uint32_t wanted, part
    while rest:     # all the memory first, so that nothing has to be taken back
        # What was spooled so far says how much more is likely to come.
        wanted = rest if rest > spool.in_memory else spool.in_memory
        buffer = buffer_take(relay, wanted if wanted < SCRATCH else SCRATCH)
        if buffer == NULL:
            while first != NULL:
                buffer = first
                first = buffer.next
                buffer_give(relay, buffer)
            return SPOOL_NO_MEMORY
        buffer.next = NULL
        if last == NULL:
            first = buffer
        else:
            last.next = buffer
        last = buffer
        rest -= rest if rest < buffer.size else buffer.size
    if tail == NULL:
        spool.head = first
    else:
        tail.next = first
    buffer = tail if room else first
    rest = size
    while rest:
        part = buffer.size - buffer.end
        if part > rest:
            part = rest
        memcpy(buffer_data(buffer) + buffer.end, data, part)
        buffer.end += part
        data += part
        rest -= part
        buffer = buffer.next
    if last != NULL:
        spool.tail = last
    spool.in_memory += size
    return SPOOL_OK


cdef int spool_put(relay_t *relay, spool_t *spool, const char *data, uint32_t size,
                   uint32_t memory) noexcept nogil:
    cdef int result
    if size == 0:
        return SPOOL_OK
    if spool.in_file == 0 and <uint64_t> spool.in_memory + size <= memory:
        result = put_in_memory(relay, spool, data, size)
    else:
        result = put_in_file(relay, spool, data, size)
    if result == SPOOL_OK:
        spool.size += size
    return result


# ---- out ---------------------------------------------------------------------------------------

cdef int failed_send(end_t *destination) noexcept nogil:
    """What errno says after a send: FLOW_AGAIN to try at once again."""
    if errno == EINTR:
        return FLOW_AGAIN
    if errno != EAGAIN:
        return FLOW_DESTINATION_ERROR
    destination.flags &= ~<uint32_t> WRITABLE
    return FLOW_WAIT


cdef int send_bytes(relay_t *relay, end_t *destination, const char *data, uint32_t size,
                    bint more) noexcept nogil:
    """Sends as much as goes; FLOW_DONE when that was all."""
    cdef ssize_t sent
    cdef uint32_t done = 0
    cdef int result
    while done < size:
        sent = send(destination.fd, data + done, size - done,
                    MSG_NOSIGNAL | (MSG_MORE if more else 0))
        if sent < 0:
            result = failed_send(destination)
            if result != FLOW_AGAIN:
                return result
            continue
        done += <uint32_t> sent
        relay.given += <uint64_t> sent
    return FLOW_DONE


cdef int send_file(relay_t *relay, int fd, uint64_t at, uint64_t size, end_t *destination,
                   bint more) noexcept nogil:
    """Sends ``size`` bytes of a file from ``at`` on; FLOW_DONE when that was all."""
    cdef long offset = <long> at
    cdef long end = <long> (at + size)
    cdef ssize_t got
    cdef uint64_t before
    cdef int result
    while offset < end:
        got = sendfile(destination.fd, fd, &offset, <size_t> (end - offset))
        if got > 0:
            relay.given += <uint64_t> got
            continue
        if got == 0 or errno == EIO:
            return FLOW_SOURCE_ERROR        # shorter than it was, or unreadable
        if errno != EINVAL and errno != ENOSYS:
            result = failed_send(destination)
            if result != FLOW_AGAIN:
                return result
            continue
        # Not every filesystem and every kind of socket can do that.
        got = pread(fd, relay.scratch, SCRATCH if end - offset > SCRATCH else end - offset, offset)
        if got < 0 and errno == EINTR:
            continue
        if got <= 0:
            return FLOW_SOURCE_ERROR
        before = relay.given
        result = send_bytes(relay, destination, relay.scratch, <uint32_t> got,
                            more or offset + got < end)
        offset += <long> (relay.given - before)
        if result != FLOW_DONE:
            return result
    return FLOW_DONE


cdef inline uint64_t turn(const relay_t *relay, uint64_t size) noexcept nogil:
    """How many of ``size`` bytes may still go out in this call."""
    return size if size < TURN_BUDGET - relay.given else TURN_BUDGET - relay.given


cdef void forget_memory(relay_t *relay, spool_t *spool, uint32_t count) noexcept nogil:
    """Of the first buffer."""
    cdef buffer_t *head = spool.head
    head.start += count
    spool.in_memory -= count
    spool.size -= count
    if head.start == head.end:
        spool.head = head.next
        if spool.head == NULL:
            spool.tail = NULL
        buffer_give(relay, head)


cdef void forget_file(relay_t *relay, spool_t *spool, uint64_t count) noexcept nogil:
    cdef uint64_t before = spool.file_at & ~<uint64_t> (GIVE_BACK - 1)
    cdef uint64_t now
    spool.file_at += count
    spool.in_file -= count
    spool.size -= count
    now = spool.file_at & ~<uint64_t> (GIVE_BACK - 1)
    if spool.in_file == 0:
        release_file(relay, spool)
    elif now != before:
        # A filesystem that cannot do that keeps it until the file ends.
        fallocate(spool.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, <long> before,
                  <long> (now - before))


cdef int spool_send(relay_t *relay, spool_t *spool, end_t *destination, bint more) noexcept nogil:
    cdef uint64_t part, before
    cdef int result
    relay.given = 0
    while spool.size:
        if not destination.flags & WRITABLE:
            return FLOW_WAIT
        if relay.given >= TURN_BUDGET:
            return FLOW_AGAIN
        before = relay.given
        if spool.head != NULL:
            part = turn(relay, spool.head.end - spool.head.start)
            result = send_bytes(relay, destination, buffer_data(spool.head) + spool.head.start,
                                <uint32_t> part, more or part < spool.size)
            forget_memory(relay, spool, <uint32_t> (relay.given - before))
        else:
            part = turn(relay, spool.in_file)
            result = send_file(relay, spool.fd, spool.file_at, part, destination,
                               more or part < spool.size)
            forget_file(relay, spool, relay.given - before)
        if result != FLOW_DONE:
            return result
    return FLOW_DONE


cdef int spool_replay(relay_t *relay, const spool_t *spool, uint64_t at, end_t *destination,
                      bint more) noexcept nogil:
    cdef const buffer_t *buffer = spool.head
    cdef uint64_t skip = at     # from the start of `buffer`
    cdef uint64_t part, before
    cdef int result
    relay.given = 0
    while at + relay.given < spool.size:
        if not destination.flags & WRITABLE:
            return FLOW_WAIT
        if relay.given >= TURN_BUDGET:
            return FLOW_AGAIN
        while buffer != NULL and skip >= buffer.end - buffer.start:
            skip -= buffer.end - buffer.start
            buffer = buffer.next
        before = relay.given
        if buffer != NULL:
            part = turn(relay, buffer.end - buffer.start - skip)
            result = send_bytes(relay, destination,
                                buffer_data(<buffer_t *> buffer) + buffer.start + skip,
                                <uint32_t> part, more or at + before + part < spool.size)
        else:
            part = turn(relay, spool.in_file - skip)
            result = send_file(relay, spool.fd, spool.file_at + skip, part, destination,
                               more or at + before + part < spool.size)
        if result != FLOW_DONE:
            return result
        skip += part
    return FLOW_DONE


cdef void spool_drop(relay_t *relay, spool_t *spool) noexcept nogil:
    cdef buffer_t *buffer
    while spool.head != NULL:
        buffer = spool.head
        spool.head = buffer.next
        buffer_give(relay, buffer)
    if spool.fd:
        close(spool.fd)
        relay.files -= 1
    memset(spool, 0, sizeof(spool_t))


# ---- the same door for Python ------------------------------------------------------------------

RESULTS = {FLOW_WAIT: "wait", FLOW_AGAIN: "again", FLOW_DONE: "done",
           FLOW_SOURCE_ERROR: "source error", FLOW_DESTINATION_ERROR: "destination error"}


cdef class Spool:
    """A spool with buffers of its own, for tests and tools.

    :meth:`send` and :meth:`replay` return what comes next and how many bytes went out: ``done``,
    ``wait`` (the socket is full), ``again`` (others first), ``source error`` (the file cannot be
    read) or ``destination error``.
    """
    cdef relay_t relay
    cdef spool_t spool

    def __cinit__(self):
        if not relay_init(&self.relay):
            raise MemoryError

    def __dealloc__(self):
        spool_drop(&self.relay, &self.spool)
        relay_free(&self.relay)

    def put(self, data: bytes, memory: int) -> None:
        """Takes ``data`` in, to memory while there are at most ``memory`` bytes in it.

        Raises OSError when there is no file to put it in; the spool is then as before.
        """
        result = spool_put(&self.relay, &self.spool, data, <uint32_t> len(data),
                           <uint32_t> memory)
        if result == SPOOL_NO_FILE:
            raise OSError(errno, os.strerror(errno))
        if result != SPOOL_OK:
            raise MemoryError

    def send(self, fd: int, more: bool = False) -> tuple:
        """Sends to a non-blocking socket what it takes, and forgets that."""
        cdef end_t destination
        destination.fd = fd
        destination.flags = WRITABLE
        result = spool_send(&self.relay, &self.spool, &destination, more)
        assert (result == FLOW_WAIT) == (destination.flags & WRITABLE == 0)
        return RESULTS[result], self.relay.given

    def replay(self, at: int, fd: int, more: bool = False) -> tuple:
        """Sends what lies ``at`` bytes behind the oldest one, and forgets nothing."""
        cdef end_t destination
        destination.fd = fd
        destination.flags = WRITABLE
        result = spool_replay(&self.relay, &self.spool, at, &destination, more)
        return RESULTS[result], self.relay.given

    def drop(self) -> None:
        """Forgets everything."""
        spool_drop(&self.relay, &self.spool)

    @property
    def owned(self) -> dict:
        """``size``, of which ``in_memory`` and ``in_file``; the ``buffers``, the ``files`` that are
        counted, and the file's ``fd`` (0: none)."""
        return {"size": self.spool.size, "in_memory": self.spool.in_memory,
                "in_file": self.spool.in_file, "buffers": self.relay.buffers,
                "files": self.relay.files, "fd": self.spool.fd}
