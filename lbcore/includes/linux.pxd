# The system interfaces of the fast path, declared once.

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from "<sys/types.h>" nogil:
    ctypedef int socklen_t
    ctypedef long ssize_t

cdef extern from "<errno.h>" nogil:
    int errno
    enum:
        EAGAIN
        EINTR
        EINVAL
        EIO
        ENOSPC
        EPIPE
        EDQUOT
        EFBIG
        ECONNRESET
        ENOTCONN
        ENOSYS
        EMFILE
        ENFILE
        ENOMEM
        ENOBUFS
        ECONNABORTED
        ECONNREFUSED
        EINPROGRESS
        EPROTO
        EPERM
        ETIMEDOUT
        EADDRINUSE
        EADDRNOTAVAIL

cdef extern from "<sys/uio.h>" nogil:
    struct iovec:
        void *iov_base
        size_t iov_len

cdef extern from "<sys/socket.h>" nogil:
    struct sockaddr:
        uint16_t sa_family
    struct sockaddr_storage:
        uint16_t ss_family
    struct linger:
        int l_onoff
        int l_linger
    enum:
        AF_INET
        AF_INET6
        AF_UNIX
        SOCK_STREAM
        SOCK_NONBLOCK
        SOCK_CLOEXEC
        SOL_SOCKET
        SO_ERROR
        SO_KEEPALIVE
        SO_LINGER
        SO_RCVLOWAT
        SHUT_WR
        MSG_DONTWAIT
        MSG_NOSIGNAL
        MSG_MORE
        MSG_PEEK
    int socket(int domain, int type, int protocol)
    int bind(int fd, const sockaddr *address, socklen_t length)
    int connect(int fd, const sockaddr *address, socklen_t length)
    int accept4(int fd, sockaddr *address, socklen_t *length, int flags)
    int getpeername(int fd, sockaddr *address, socklen_t *length)
    int getsockname(int fd, sockaddr *address, socklen_t *length)
    int getsockopt(int fd, int level, int name, void *value, socklen_t *length)
    int setsockopt(int fd, int level, int name, const void *value, socklen_t length)
    int shutdown(int fd, int how)
    struct msghdr:
        void *msg_name
        socklen_t msg_namelen
        iovec *msg_iov
        size_t msg_iovlen
        void *msg_control
        size_t msg_controllen
        int msg_flags
    ssize_t sendmsg(int fd, const msghdr *message, int flags)
    ssize_t recv(int fd, void *data, size_t length, int flags)
    ssize_t send(int fd, const void *data, size_t length, int flags)

cdef extern from "<netinet/in.h>" nogil:
    enum:
        IPPROTO_IP
        IPPROTO_IPV6
        IPPROTO_TCP
        IP_BIND_ADDRESS_NO_PORT
        IP_TRANSPARENT
        IPV6_TRANSPARENT

cdef extern from "<netinet/tcp.h>" nogil:
    enum:
        TCP_NODELAY
        TCP_QUICKACK
        TCP_KEEPCNT
        TCP_KEEPIDLE
        TCP_KEEPINTVL
        TCP_USER_TIMEOUT

cdef extern from "<sys/epoll.h>" nogil:
    enum:
        EPOLLIN
        EPOLLOUT
        EPOLLPRI
        EPOLLERR
        EPOLLHUP
        EPOLLRDHUP
        EPOLLET
        EPOLLEXCLUSIVE
        EPOLL_CLOEXEC
        EPOLL_CTL_ADD
        EPOLL_CTL_MOD
        EPOLL_CTL_DEL
    ctypedef union epoll_data_t:
        void *ptr
        uint64_t u64
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_create1(int flags)
    int epoll_ctl(int epfd, int op, int fd, epoll_event *event)
    int epoll_wait(int epfd, epoll_event *events, int maxevents, int timeout)

cdef extern from "<fcntl.h>" nogil:
    enum:
        O_APPEND
        O_NONBLOCK
        O_CLOEXEC
        F_GETFL
        F_GETPIPE_SZ
        F_SETPIPE_SZ
        SPLICE_F_MOVE
        SPLICE_F_NONBLOCK
        FALLOC_FL_KEEP_SIZE
        FALLOC_FL_PUNCH_HOLE
    int fallocate(int fd, int mode, long offset, long length)
    int fcntl(int fd, int command, ...)
    ssize_t splice(int fd_in, void *off_in, int fd_out, void *off_out, size_t length,
                   unsigned flags)

cdef extern from "<unistd.h>" nogil:
    int close(int fd)
    int pipe2(int fds[2], int flags)
    ssize_t read(int fd, void *data, size_t length)
    ssize_t write(int fd, const void *data, size_t length)
    int ftruncate(int fd, long length)
    long lseek(int fd, long offset, int whence)
    enum:
        SEEK_CUR
        SEEK_END

cdef extern from "<sys/stat.h>" nogil:
    struct stat_t "stat":
        unsigned st_mode
        long st_size
    int fstat(int fd, stat_t *found)
    bint S_ISCHR(unsigned mode)
    bint S_ISFIFO(unsigned mode)
    bint S_ISREG(unsigned mode)
    bint S_ISSOCK(unsigned mode)

cdef extern from "<poll.h>" nogil:
    enum:
        POLLOUT
    struct pollfd:
        int fd
        short events
        short revents
    int poll(pollfd *fds, unsigned long count, int timeout)

cdef extern from "<time.h>" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    enum:
        CLOCK_MONOTONIC
        CLOCK_REALTIME
    int clock_gettime(int clock, timespec *now)
