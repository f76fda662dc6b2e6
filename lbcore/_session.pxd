# The life of a TCP connection, and the state of the worker it lives in.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t

from lbcore._balance cimport cursor_t, picker_t
from lbcore._plan cimport plan_header_t
from lbcore._proxy cimport endpoint_t
from lbcore._relay cimport end_t, flow_t, relay_t
from lbcore._scoreboard cimport board_t, seat_t
from lbcore._timers cimport timer_node_t, wheel_t
from lbcore.includes.linux cimport (
    CLOCK_MONOTONIC, EPOLLET, EPOLLIN, EPOLLPRI, EPOLLRDHUP, EPOLL_CTL_ADD, clock_gettime,
    epoll_ctl, epoll_event, timespec,
)

ctypedef struct plan_ref_t:     # a mapped plan and how many connections and listeners use it
    const plan_header_t *image
    uint32_t references
    uint32_t pad

# The states of a connection. Every transition is in _session.pyx, and the diagram in
# docs/internals/life-of-a-connection.md shows them all.
cdef enum SessionState:
    SESSION_PROXY = 0           # waits for a PROXY header
    SESSION_QUEUED = 1          # waits for a backend that may take it
    SESSION_PAUSED = 2          # all candidates failed; waits a moment, then starts over
    SESSION_CONNECTING = 3
    SESSION_RELAY = 4
    SESSION_DEAD = 5            # freed at the end of the turn

cdef enum SessionFlag:
    SOURCE_COUNTED = 1          # in the table of connections per source
    WORK_LISTED = 2             # on the list of deferred work
    TUNED = 4                   # long-lived: keep-alive probes and user timeout are set
    SERVER_LOST = 8             # writes to the server failed: reset when its last bytes are out
    NO_BACKEND = 16             # queued because nobody is eligible, not because all are full
    HAS_DESTINATION = 32        # a PROXY header said where the client had connected to

ctypedef struct session_t:      # a connection: both sockets and what is between them
    timer_node_t timer          # first: a timer is its session
    end_t client
    end_t server
    flow_t up                   # client to server
    flow_t down                 # server to client
    plan_ref_t *plan
    session_t *next             # queue or free list
    session_t *previous         # queue
    session_t *work             # list of deferred work, or of the dead
    uint64_t source_key
    uint64_t deadline           # ms: of the queue, or of the connect budget
    uint32_t client_active      # ms since the loop started, when its last byte moved
    uint32_t server_active
    uint32_t half_closed        # likewise, when one direction ended; 0: both open
    uint32_t connect_started    # microseconds, wrapping
    uint32_t listener           # index in the plan
    uint32_t listener_row
    uint32_t pool               # index in the plan
    uint32_t pool_row
    uint32_t backend_row        # NO_ROW: none reserved
    uint16_t backend            # index in the pool
    uint16_t attempts
    uint8_t state               # SessionState
    uint8_t flags               # SessionFlag
    uint8_t pad[2]
    cursor_t cursor
    endpoint_t source
    endpoint_t destination

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

ctypedef struct queue_t:        # connections of one pool that wait for a backend
    session_t *head
    session_t *tail
    queue_t *next               # list of queues that are not empty
    uint32_t length
    uint32_t active

ctypedef struct chunk_t:        # sessions are allocated 64 at a time and never given back
    chunk_t *next
    session_t *sessions

ctypedef struct loop_t:
    int epoll
    int bell
    uint32_t seat_index
    uint32_t listening          # listening sockets held
    uint32_t descriptor_limit
    uint32_t sessions
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
    session_t *free_sessions
    session_t *work_head
    session_t *work_tail
    session_t *dead
    chunk_t *chunks             # all sessions there are

cdef enum:
    CHUNK = 64                  # sessions allocated at once
    RESERVED_DESCRIPTORS = 64   # the interpreter's, the control channel's, pipes being opened

cdef enum NoticeFlag:
    NOTICE_DESCRIPTORS = 1      # accepting paused: descriptors or memory
    NOTICE_RESUMED = 2
    NOTICE_TROUBLE = 4          # an upstream socket could not be made or bound

cdef enum EventTag:             # low bits of epoll_event.data: whose event it is
    TAG_CLIENT = 0              # | session_t *
    TAG_SERVER = 1              # | session_t *
    TAG_ACCEPTOR = 2            # | acceptor_t *
    TAG_WATCH = 3               # | number << 3: a descriptor of the Python shell
    TAG_MASK = 7

cdef enum:
    INPUT = EPOLLIN | EPOLLRDHUP | EPOLLPRI | EPOLLET

cdef inline bint epoll_add(loop_t *loop, session_t *s, int fd, int tag,
                           uint32_t events) noexcept nogil:
    cdef epoll_event event
    event.events = events
    event.data.u64 = <uint64_t> <uintptr_t> s | <uint64_t> tag
    return epoll_ctl(loop.epoll, EPOLL_CTL_ADD, fd, &event) == 0

cdef inline uint32_t clock_us() noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC, &t)
    return <uint32_t> (<uint64_t> t.tv_sec * 1000000 + <uint64_t> t.tv_nsec // 1000)

cdef void plan_release(plan_ref_t *plan) noexcept nogil

# Pipes may take what connections leave, and no more than the plan allows. Each connection counts
# twice from the start: it will need a second socket when a backend is found.
cdef void share_descriptors(loop_t *loop) noexcept nogil

# A client socket fresh from accept, non-blocking, and its place among the listener's connections
# on the scoreboard. Owns both from here on, whatever happens.
cdef void session_open(loop_t *loop, acceptor_t *acceptor, int fd, const void *address,
                       uint32_t length) noexcept nogil
cdef void session_client_event(loop_t *loop, session_t *session, uint32_t events) noexcept nogil
cdef void session_server_event(loop_t *loop, session_t *session, uint32_t events) noexcept nogil
cdef void session_timeout(loop_t *loop, session_t *session) noexcept nogil
cdef void session_work(loop_t *loop, session_t *session) noexcept nogil
cdef void session_end(loop_t *loop, session_t *session, int reason, bint abort) noexcept nogil

# Gives connections that wait for a backend another try.
cdef void queues_poll(loop_t *loop) noexcept nogil

# Frees what ended in this turn. Not earlier: events of this turn may still name it.
cdef void sessions_bury(loop_t *loop) noexcept nogil
