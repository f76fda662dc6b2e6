# The upstream side of a connection: its socket, its source address, the PROXY header that goes
# first, and the connect. What a failure means for the connection is decided in _session.pyx.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from lbcore._plan cimport (
    POOL_KEEPALIVE, POOL_SOURCE_BIND, POOL_TRANSPARENT, backend_t, pool_backends, pool_t,
)
from lbcore._proxy cimport (
    PROXY_OUT_MAX, endpoint_from_sockaddr, endpoint_to_sockaddr, proxy_build,
)
from lbcore._relay cimport (
    BOUNDARIES, OUT_ARMED, SMALL_BUFFER, WRITABLE, buffer_data, buffer_give, buffer_t, buffer_take,
)
from lbcore._session cimport (
    HAS_DESTINATION, INPUT, TAG_SERVER, TUNED, clock_us, epoll_add, loop_t, session_t,
)
from lbcore.includes.linux cimport (
    AF_INET6, AF_UNIX, EADDRINUSE, EADDRNOTAVAIL, EAGAIN, EINPROGRESS, EINTR, ENOBUFS, ENOMEM,
    EPERM, EPOLLOUT, IPPROTO_IP, IPPROTO_IPV6, IPPROTO_TCP, IPV6_TRANSPARENT,
    IP_BIND_ADDRESS_NO_PORT, IP_TRANSPARENT, MSG_NOSIGNAL, SOCK_CLOEXEC, SOCK_NONBLOCK,
    SOCK_STREAM, SOL_SOCKET, SO_KEEPALIVE, TCP_KEEPCNT, TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_NODELAY,
    TCP_QUICKACK, TCP_USER_TIMEOUT, bind, connect, errno, getsockname, send, setsockopt, sockaddr,
    sockaddr_storage, socket, socklen_t, ssize_t,
)

cdef enum:
    PROBE_AFTER = 60            # seconds of silence before the first keep-alive probe
    PROBE_EVERY = 15            # seconds between probes
    PROBES = 4                  # unanswered ones that end the connection


cdef void set_int(int fd, int level, int name, int value) noexcept nogil:
    setsockopt(fd, level, name, &value, sizeof(int))


cdef bint bind_source(session_t *s, const pool_t *pool, int fd, int family) noexcept nogil:
    """Gives an upstream socket the source address that the pool wants."""
    cdef uint8_t address[28]
    cdef uint32_t length
    if pool.flags & POOL_TRANSPARENT:
        if (s.source.family == 6) != (family == AF_INET6) or s.source.family == 0:
            return True     # the client's address is of another family: use our own
        length = endpoint_to_sockaddr(&s.source, False, address)
        if family == AF_INET6:
            set_int(fd, IPPROTO_IPV6, IPV6_TRANSPARENT, 1)
        else:
            set_int(fd, IPPROTO_IP, IP_TRANSPARENT, 1)
        set_int(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        return bind(fd, <const sockaddr *> address, <socklen_t> length) == 0
    if (<const sockaddr *> pool.source).sa_family != family:
        return True
    set_int(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
    return bind(fd, <const sockaddr *> pool.source, <socklen_t> pool.source_length) == 0


cdef bint hold_proxy_header(loop_t *loop, session_t *s, int version) noexcept nogil:
    """Puts the PROXY header before what is held for the server. Once: fail-over keeps it."""
    cdef uint8_t header[PROXY_OUT_MAX]
    cdef sockaddr_storage local
    cdef socklen_t length = sizeof(local)
    cdef uint32_t size, i
    cdef buffer_t *held = s.up.held
    if held != NULL and held.start < PROXY_OUT_MAX:
        return True     # it is there already
    if not s.flags & HAS_DESTINATION:
        if getsockname(s.client.fd, <sockaddr *> &local, &length) == 0:
            endpoint_from_sockaddr(&s.destination, &local, length)
    if held == NULL:
        held = buffer_take(&loop.relay, SMALL_BUFFER)
        if held == NULL:
            return False
        held.start = PROXY_OUT_MAX
        held.end = PROXY_OUT_MAX
        s.up.held = held
    size = <uint32_t> proxy_build(version, &s.source, &s.destination, header)
    held.start -= size
    for i in range(size):
        buffer_data(held)[held.start + i] = <char> header[i]
    return True


cdef bint is_ours(int error) noexcept nogil:
    """Whether a connect failed for want of a local port, memory or permission."""
    return (error == EADDRNOTAVAIL or error == EADDRINUSE or error == ENOBUFS or error == ENOMEM
            or error == EPERM)


cdef int connect_backend(loop_t *loop, session_t *s, const pool_t *pool) noexcept nogil:
    cdef const backend_t *backend = pool_backends(s.plan.image, pool) + s.backend
    cdef const sockaddr *address = <const sockaddr *> backend.address
    cdef int family = address.sa_family
    cdef int fd
    cdef bint pending
    cdef buffer_t *held
    cdef ssize_t sent
    loop.relay.given = 0
    if pool.send_proxy and not hold_proxy_header(loop, s, <int> pool.send_proxy):
        return CONNECT_INTERNAL
    fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
    if fd < 0:
        return CONNECT_INTERNAL
    s.server.fd = fd
    s.server.flags = WRITABLE | (BOUNDARIES if family == AF_UNIX else 0)
    held = s.up.held
    if family != AF_UNIX:
        set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1)
        if (pool.flags & (POOL_SOURCE_BIND | POOL_TRANSPARENT)
                and not bind_source(s, pool, fd, family)):
            return CONNECT_INTERNAL     # our address, our rights: no backend is to blame
        if held != NULL:
            # Data follows at once: let the last acknowledgement of the handshake ride on it.
            # Without data it must not be held back, or a server that speaks first would wait.
            set_int(fd, IPPROTO_TCP, TCP_QUICKACK, 0)
    s.connect_started = clock_us()
    pending = connect(fd, address, <socklen_t> backend.address_length) < 0
    if pending and errno != EINPROGRESS:
        return CONNECT_INTERNAL if is_ours(errno) else CONNECT_FAILED
    if held != NULL:
        # Over a short path the handshake is done by now, although connect said "in progress".
        sent = send(fd, buffer_data(held) + held.start, held.end - held.start, MSG_NOSIGNAL)
        if sent >= 0:
            pending = False
            loop.relay.given = <uint64_t> sent
            held.start += <uint32_t> sent
            if held.start == held.end:
                s.up.held = NULL
                buffer_give(&loop.relay, held)
            else:
                s.server.flags &= ~<uint32_t> WRITABLE
        elif errno != EAGAIN and errno != EINTR:
            return CONNECT_FAILED
    if pending or not s.server.flags & WRITABLE:
        s.server.flags |= OUT_ARMED
    if not epoll_add(loop, s, fd, TAG_SERVER,
                     INPUT | (EPOLLOUT if s.server.flags & OUT_ARMED else 0)):
        return CONNECT_INTERNAL
    return CONNECT_PENDING if pending else CONNECT_READY


cdef void tune_upstream(session_t *s, const pool_t *pool) noexcept nogil:
    """What only a long-lived connection needs: short ones never pay for it.

    The client's socket has inherited the like from its listening socket.
    """
    cdef int fd = s.server.fd
    s.flags |= TUNED
    if pool.flags & POOL_KEEPALIVE:
        set_int(fd, SOL_SOCKET, SO_KEEPALIVE, 1)
        set_int(fd, IPPROTO_TCP, TCP_KEEPIDLE, PROBE_AFTER)
        set_int(fd, IPPROTO_TCP, TCP_KEEPINTVL, PROBE_EVERY)
        set_int(fd, IPPROTO_TCP, TCP_KEEPCNT, PROBES)
    if pool.tcp_user_timeout:
        set_int(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, <int> pool.tcp_user_timeout)
