# Reaching a backend: the socket, its source address, the connect. What a failure means is decided
# by who asked: _session.pyx for TCP, _exchange.pyx for HTTP.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from lbcore._loop cimport INPUT, epoll_add
from lbcore._plan cimport POOL_KEEPALIVE, POOL_SOURCE_BIND, POOL_TRANSPARENT
from lbcore._proxy cimport endpoint_to_sockaddr
from lbcore._relay cimport BOUNDARIES, OUT_ARMED, WRITABLE
from lbcore.includes.linux cimport (
    AF_INET6, AF_UNIX, EADDRINUSE, EADDRNOTAVAIL, EAGAIN, EINPROGRESS, EINTR, ENOBUFS, ENOMEM,
    EPERM, EPOLLOUT, IPPROTO_IP, IPPROTO_IPV6, IPPROTO_TCP, IPV6_TRANSPARENT,
    IP_BIND_ADDRESS_NO_PORT, IP_TRANSPARENT, MSG_NOSIGNAL, SOCK_CLOEXEC, SOCK_NONBLOCK,
    SOCK_STREAM, SOL_SOCKET, SO_KEEPALIVE, TCP_KEEPCNT, TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_NODELAY,
    TCP_QUICKACK, TCP_USER_TIMEOUT, bind, connect, errno, send, setsockopt, sockaddr, socket,
    socklen_t, ssize_t,
)

cdef enum:
    PROBE_AFTER = 60            # seconds of silence before the first keep-alive probe
    PROBE_EVERY = 15            # seconds between probes
    PROBES = 4                  # unanswered ones that end the connection


cdef void set_int(int fd, int level, int name, int value) noexcept nogil:
    setsockopt(fd, level, name, &value, sizeof(int))


cdef bint bind_source(
        const endpoint_t *source, const pool_t *pool, int fd, int family) noexcept nogil:
    """Gives an upstream socket the source address that the pool wants."""
    cdef uint8_t address[28]
    cdef uint32_t length
    if pool.flags & POOL_TRANSPARENT:
        if (source.family == 6) != (family == AF_INET6) or source.family == 0:
            return True     # the client's address is of another family: use our own
        length = endpoint_to_sockaddr(source, False, address)
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


cdef bint is_ours(int error) noexcept nogil:
    """Whether a connect failed for want of a local port, memory or permission."""
    return (error == EADDRNOTAVAIL or error == EADDRINUSE or error == ENOBUFS or error == ENOMEM
            or error == EPERM)


cdef int connect_backend(loop_t *loop, void *owner, int tag, const pool_t *pool,
                         const backend_t *backend, const endpoint_t *source, end_t *server,
                         const char *data, uint32_t size) noexcept nogil:
    cdef const sockaddr *address = <const sockaddr *> backend.address
    cdef int family = address.sa_family
    cdef int fd
    cdef bint pending
    cdef ssize_t sent
    loop.relay.given = 0
    fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
    if fd < 0:
        return CONNECT_INTERNAL
    server.fd = fd
    server.flags = WRITABLE | (BOUNDARIES if family == AF_UNIX else 0)
    if family != AF_UNIX:
        set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1)
        if (pool.flags & (POOL_SOURCE_BIND | POOL_TRANSPARENT)
                and not bind_source(source, pool, fd, family)):
            return CONNECT_INTERNAL     # our address, our rights: no backend is to blame
        if size:
            # Data follows at once: let the last acknowledgement of the handshake ride on it.
            # Without data it must not be held back, or a server that speaks first would wait.
            set_int(fd, IPPROTO_TCP, TCP_QUICKACK, 0)
    pending = connect(fd, address, <socklen_t> backend.address_length) < 0
    if pending and errno != EINPROGRESS:
        return CONNECT_INTERNAL if is_ours(errno) else CONNECT_FAILED
    if size:
        # Over a short path the handshake is done by now, although connect said "in progress".
        sent = send(fd, data, size, MSG_NOSIGNAL)
        if sent >= 0:
            pending = False
            loop.relay.given = <uint64_t> sent
            if sent < size:
                server.flags &= ~<uint32_t> WRITABLE
        elif errno != EAGAIN and errno != EINTR:
            return CONNECT_FAILED
    if pending or not server.flags & WRITABLE:
        server.flags |= OUT_ARMED
    if not epoll_add(loop, owner, fd, tag,
                     INPUT | (EPOLLOUT if server.flags & OUT_ARMED else 0)):
        return CONNECT_INTERNAL
    return CONNECT_PENDING if pending else CONNECT_READY


cdef void tune_upstream(int fd, const pool_t *pool) noexcept nogil:
    """What only a long-lived connection needs: short ones never pay for it.

    The client's socket has inherited the like from its listening socket.
    """
    if pool.flags & POOL_KEEPALIVE:
        set_int(fd, SOL_SOCKET, SO_KEEPALIVE, 1)
        set_int(fd, IPPROTO_TCP, TCP_KEEPIDLE, PROBE_AFTER)
        set_int(fd, IPPROTO_TCP, TCP_KEEPINTVL, PROBE_EVERY)
        set_int(fd, IPPROTO_TCP, TCP_KEEPCNT, PROBES)
    if pool.tcp_user_timeout:
        set_int(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, <int> pool.tcp_user_timeout)
