# The state of a worker: what its loop, its listeners and its connections share. No code of its own
# but one-liners.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t

from lbcore._access cimport access_t
from lbcore._balance cimport cursor_t, picker_t
from lbcore._plan cimport plan_header_t
from lbcore._relay cimport end_t, relay_t
from lbcore._scoreboard cimport (
    MAX_BACKENDS, MAX_LISTENERS, MAX_POOLS, backend_counters_t, board_t, listener_counters_t,
    pool_counters_t, seat_t,
)
from lbcore._timers cimport wheel_t
from lbcore.includes.linux cimport (
    CLOCK_MONOTONIC, EPOLLET, EPOLLIN, EPOLLOUT, EPOLLPRI, EPOLLRDHUP, EPOLL_CTL_ADD,
    EPOLL_CTL_MOD, clock_gettime, epoll_ctl, epoll_event, timespec,
)

ctypedef struct plan_ref_t:     # a mapped plan and how many connections and listeners use it
    const plan_header_t *image
    void *expressions           # its regular expressions, compiled; NULL: none
    uint32_t references
    uint32_t pad

ctypedef struct acceptor_t:     # a listening socket
    acceptor_t *next
    plan_ref_t *plan            # NULL: not served yet
    uint32_t id
    int fd
    uint32_t listener           # index in its plan
    uint16_t budget             # connections to accept in a row: follows what is there
    uint8_t is_unix
    uint8_t paused
    uint8_t retiring            # closes when its queue is empty
    uint8_t empty               # the last call found nothing more in its queue
    uint8_t early               # 0..15: how often data was there right after accept
    uint8_t probe               # counts connections since early data was looked for

cdef enum SeekKind:             # who looks for a backend; index of loop_t.found
    SEEK_SESSION = 0
    SEEK_EXCHANGE = 1
    SEEK_KINDS = 2

cdef enum SeekFlag:
    SEEK_WAITS = 1              # in a queue
    SEEK_NOBODY = 2             # because nobody is eligible, not because all are full

ctypedef struct seeker_t:       # a connection or a request that looks for a backend: _seek.pxd
    seeker_t *next              # in the queue
    seeker_t *previous
    void *owner
    plan_ref_t *plan
    uint64_t deadline           # ms: of the queue, or of the connect budget
    uint32_t pool               # index in the plan
    uint32_t pool_row
    uint32_t backend_row        # NO_ROW: none reserved
    uint16_t backend            # index in the pool
    uint16_t attempts
    uint8_t kind                # SeekKind
    uint8_t flags               # SeekFlag
    uint8_t pad[2]
    cursor_t cursor

ctypedef struct queue_t:        # seekers of one pool that wait for a backend
    seeker_t *head
    seeker_t *tail
    queue_t *next               # list of queues that are not empty
    uint32_t length
    uint32_t active

ctypedef struct loop_t:
    int epoll
    int bell
    uint32_t seat_index
    uint32_t listening          # listening sockets held
    uint32_t descriptor_limit
    uint32_t sessions           # client connections, of every protocol
    uint32_t extra              # connections to backends that rest; see descriptors_taken
    uint32_t draining           # 1: no listening socket any more
    uint32_t exhausted          # 1: no descriptors were left, and it was said
    uint64_t exhausted_at       # ms: the last time there were none
    uint64_t trouble_at         # ms: when NOTICE_TROUBLE was last told
    uint32_t notices            # NoticeFlag bits for the Python shell
    uint64_t now                # ms, at the start of the turn
    uint64_t started            # ms
    uint64_t resume_at          # ms: when paused acceptors are looked at again; 0: none paused
    board_t board
    seat_t *seat
    picker_t picker
    relay_t relay
    wheel_t wheel
    plan_ref_t *plan
    acceptor_t *acceptors
    queue_t *queues             # by pool row
    queue_t *waiting            # those that are not empty
    uint64_t queue_at           # ms: when they are looked at again
    void *free_sessions         # session_t *: this and the next four
    void *work_head
    void *work_tail
    void *dead
    void *chunks                # chunk_t *: all sessions there are
    void *web                   # web_t *: the HTTP side; NULL before the first http listener
    uint32_t web_busy           # it has deferred work
    access_t access
    # Called when a seeker that waited may go on; `result` is a SeekResult.
    void (*found[2])(loop_t *loop, void *owner, int result) noexcept nogil
    # Called when a tunnel has ended: the exchange that it came from, and an EndReason.
    void (*tunnel_ended)(loop_t *loop, void *exchange, int reason) noexcept nogil

cdef enum:
    RESERVED_DESCRIPTORS = 64   # the interpreter's, the control channel's, pipes being opened

cdef enum NoticeFlag:
    NOTICE_DESCRIPTORS = 1      # accepting paused: descriptors or memory
    NOTICE_RESUMED = 2
    NOTICE_TROUBLE = 4          # an upstream socket could not be made or bound
    NOTICE_SPOOL = 8            # a body could not be written to a temporary file

cdef enum EventTag:             # low bits of epoll_event.data: whose event it is
    TAG_CLIENT = 0              # | session_t *
    TAG_SERVER = 1              # | session_t *
    TAG_ACCEPTOR = 2            # | acceptor_t *
    TAG_WATCH = 3               # | number << 3: a descriptor of the Python shell
    TAG_CONN = 4                # | conn_t *
    TAG_ORIGIN = 5              # | origin_t *
    TAG_MASK = 7

cdef enum TimerKind:            # timer_node_t.kind: what it is in
    TIMER_SESSION = 0
    TIMER_CONN = 1
    TIMER_ORIGIN = 2

cdef enum:
    INPUT = EPOLLIN | EPOLLRDHUP | EPOLLPRI | EPOLLET

cdef inline bint epoll_add(loop_t *loop, void *owner, int fd, int tag,
                           uint32_t events) noexcept nogil:
    cdef epoll_event event
    event.events = events
    event.data.u64 = <uint64_t> <uintptr_t> owner | <uint64_t> tag
    return epoll_ctl(loop.epoll, EPOLL_CTL_ADD, fd, &event) == 0

cdef inline bint epoll_change(loop_t *loop, void *owner, int fd, int tag,
                              uint32_t events) noexcept nogil:
    cdef epoll_event event
    event.events = events
    event.data.u64 = <uint64_t> <uintptr_t> owner | <uint64_t> tag
    return epoll_ctl(loop.epoll, EPOLL_CTL_MOD, fd, &event) == 0

cdef inline uint64_t clock_us() noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC, &t)
    return <uint64_t> t.tv_sec * 1000000 + <uint64_t> t.tv_nsec // 1000

cdef inline uint32_t relative(const loop_t *loop) noexcept nogil:
    """Milliseconds since the loop started, never 0; wraps after 49 days, differences do not."""
    cdef uint32_t value = <uint32_t> (loop.now - loop.started)
    return value if value else 1

cdef inline uint32_t descriptors_taken(const loop_t *loop) noexcept nogil:
    """Descriptors in use or promised, pipes aside: two for each client connection, one for each
    connection to a backend that rests and for each temporary file."""
    return (2 * loop.sessions + loop.extra + loop.relay.files + loop.listening
            + RESERVED_DESCRIPTORS)

cdef inline uint64_t min_time(uint64_t a, uint64_t b) noexcept nogil:
    return a if a < b else b

cdef inline backend_counters_t *backend_counters(loop_t *loop, uint32_t row) noexcept nogil:
    return loop.board.backend_counters + <size_t> loop.seat_index * MAX_BACKENDS + row

cdef inline listener_counters_t *listener_counters(loop_t *loop, uint32_t row) noexcept nogil:
    return loop.board.listener_counters + <size_t> loop.seat_index * MAX_LISTENERS + row

cdef inline pool_counters_t *pool_counters(loop_t *loop, uint32_t row) noexcept nogil:
    return loop.board.pool_counters + <size_t> loop.seat_index * MAX_POOLS + row
