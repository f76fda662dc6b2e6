# cython: language_level=3, boundscheck=False, wraparound=False
"""The origin for what nginx does not do: it reads a request's body to its end before it answers,
and it echoes WebSocket messages. As cheap as it can be, so that the balancer is what is measured.

A tool for requests of the comparison, not a server: heads of up to ROOM bytes, bodies with
Content-Length, messages of up to 125 bytes.
"""

from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.stdio cimport snprintf
from libc.stdlib cimport calloc, free
from libc.string cimport memmove

import hashlib
from base64 import b64encode


cdef extern from "<sys/epoll.h>" nogil:
    ctypedef union epoll_data_t:
        void *ptr
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    int EPOLL_CTL_ADD
    uint32_t EPOLLIN
    int epoll_create1(int flags)
    int epoll_ctl(int epoll, int operation, int descriptor, epoll_event *event)
    int epoll_wait(int epoll, epoll_event *events, int most, int timeout)


cdef extern from "<sys/socket.h>" nogil:
    int MSG_NOSIGNAL
    int SOCK_NONBLOCK
    int accept4(int descriptor, void *address, void *length, int flags)
    ssize_t send(int descriptor, const void *data, size_t length, int flags)
    ssize_t recv(int descriptor, void *data, size_t length, int flags)


cdef extern from "<string.h>" nogil:
    void *memmem(const void *where, size_t length, const void *what, size_t size)
    int strncasecmp(const char *one, const char *other, size_t length)


cdef extern from "<unistd.h>" nogil:
    int close(int descriptor)


cdef enum:
    BATCH = 64
    ROOM = 65536

cdef struct Connection:
    int descriptor
    bint upgraded           # carries WebSocket frames from now on
    int64_t body            # bytes of the request's body still to come
    bint asked              # a head has come and waits for its body and answer
    bint last               # the answer is the connection's last
    int held                # bytes in ``data``
    char data[ROOM]


cdef const char *ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n"
cdef const char *CLOSING = b"Connection: close\r\n\r\nok"
cdef const char *STAYING = b"\r\nok"


cdef const char *field(const char *head, int length, const char *name, int size) noexcept nogil:
    """The value of the field, after the colon and blanks; NULL when there is none."""
    cdef int at
    for at in range(length - size - 2):
        if head[at] == 10 and head[at + size + 1] == 58 and \
                strncasecmp(head + at + 1, name, size) == 0:
            at += size + 2
            while head[at] == 32:
                at += 1
            return head + at
    return NULL


cdef bint send_all(int descriptor, const char *data, int length) noexcept nogil:
    """Answers are far smaller than a socket's buffer: one that does not fit is an error."""
    return send(descriptor, data, length, MSG_NOSIGNAL) == length


cdef bint accepted(Connection *connection, const char *key) noexcept with gil:
    """Answers the handshake with the proof that RFC 6455 asks for."""
    text = (<bytes>key[:24]) + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    proof = b64encode(hashlib.sha1(text).digest())
    answer = (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
              b"Sec-WebSocket-Accept: " + proof + b"\r\n\r\n")
    return send_all(connection.descriptor, answer, <int>len(answer))


cdef int take_request(Connection *connection) noexcept nogil:
    """Does what can be done with what is held; bytes that are done with, or -1."""
    cdef const char *found
    cdef char answer[256]
    cdef int length, size
    if not connection.asked:
        found = <const char *>memmem(connection.data, connection.held, b"\r\n\r\n", 4)
        if found == NULL:
            return 0 if connection.held < ROOM else -1
        length = <int>(found - connection.data) + 4
        if field(connection.data, length, b"upgrade", 7) != NULL:
            found = field(connection.data, length, b"sec-websocket-key", 17)
            if found == NULL or found - connection.data + 24 > length:
                return -1
            connection.upgraded = True
            return length if accepted(connection, found) else -1
        connection.asked = True
        connection.body = 0
        found = field(connection.data, length, b"content-length", 14)
        while found != NULL and 48 <= found[0] <= 57:
            connection.body = connection.body * 10 + found[0] - 48
            found += 1
        found = field(connection.data, length, b"connection", 10)
        connection.last = found != NULL and strncasecmp(found, b"close", 5) == 0
        return length
    if connection.body:
        length = <int>min(connection.body, connection.held)
        connection.body -= length
        if connection.body:
            return length
    else:
        length = 0
    connection.asked = False
    size = snprintf(answer, sizeof(answer), b"%s%s", ANSWER,
                    CLOSING if connection.last else STAYING)
    if not send_all(connection.descriptor, answer, size) or connection.last:
        return -1
    return length


cdef int take_messages(Connection *connection) noexcept nogil:
    """Echoes every whole message that is held; bytes that are done with, or -1."""
    cdef uint8_t *data = <uint8_t *>connection.data
    cdef uint8_t answer[ROOM]
    cdef int at = 0, out = 0, index, length
    while connection.held - at >= 6:
        length = data[at + 1] & 0x7F
        if not data[at + 1] & 0x80 or length > 125:
            return -1
        if connection.held - at < 6 + length:
            break
        answer[out] = data[at]
        answer[out + 1] = length
        for index in range(length):
            answer[out + 2 + index] = data[at + 6 + index] ^ data[at + 2 + (index & 3)]
        out += 2 + length
        at += 6 + length
    if out and not send_all(connection.descriptor, <char *>answer, out):
        return -1
    return at


cdef bint take(Connection *connection) noexcept nogil:
    """Reads what has come and answers it; False when the connection has ended."""
    cdef ssize_t got = recv(connection.descriptor, connection.data + connection.held,
                            ROOM - connection.held, 0)
    cdef int done, before
    cdef bint asked
    if got <= 0:
        return got < 0 and (errno == EAGAIN or errno == EINTR)
    connection.held += <int>got
    while True:
        before, asked = connection.held, connection.asked
        done = take_messages(connection) if connection.upgraded else take_request(connection)
        if done < 0:
            return False
        connection.held -= done
        if done and connection.held:
            memmove(connection.data, connection.data + done, connection.held)
        if connection.held == before and connection.asked == asked:
            return True


def serve(int listening):
    """Serves the listening socket until something breaks: raises OSError."""
    cdef epoll_event events[BATCH]
    cdef epoll_event event
    cdef Connection *connection
    cdef int epoll = epoll_create1(0), ready = 0, index, descriptor
    event.events = EPOLLIN
    event.data.ptr = NULL
    if epoll < 0 or epoll_ctl(epoll, EPOLL_CTL_ADD, listening, &event) < 0:
        raise OSError(errno, "epoll")
    while ready >= 0:
        with nogil:
            ready = epoll_wait(epoll, events, BATCH, -1)
            for index in range(ready):
                connection = <Connection *>events[index].data.ptr
                if connection != NULL:
                    if not take(connection):
                        close(connection.descriptor)
                        free(connection)
                    continue
                descriptor = accept4(listening, NULL, NULL, SOCK_NONBLOCK)
                if descriptor < 0:
                    continue
                connection = <Connection *>calloc(1, sizeof(Connection))
                event.data.ptr = connection
                if connection != NULL:
                    connection.descriptor = descriptor
                if connection == NULL or \
                        epoll_ctl(epoll, EPOLL_CTL_ADD, descriptor, &event) < 0:
                    free(connection)
                    close(descriptor)
        if ready < 0 and errno == EINTR:
            ready = 0
    raise OSError(errno, "epoll_wait")
