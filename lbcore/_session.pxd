# The life of a TCP connection.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from lbcore._loop cimport acceptor_t, loop_t, seeker_t
from lbcore._proxy cimport endpoint_t
from lbcore._relay cimport buffer_t, end_t, flow_t
from lbcore._timers cimport timer_node_t
from lbcore._web cimport conn_t, exchange_t

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
    WORK_LISTED = 1             # on the list of deferred work
    TUNED = 2                   # long-lived: keep-alive probes and user timeout are set
    SERVER_LOST = 4             # writes to the server failed: reset when its last bytes are out
    HAS_DESTINATION = 8         # a PROXY header said where the client had connected to
    TUNNEL = 16                 # an HTTP request became it: `tunnel` is told of its end

ctypedef struct session_t:      # a connection: both sockets and what is between them
    timer_node_t timer          # first: a timer is its session
    end_t client
    end_t server
    flow_t up                   # client to server
    flow_t down                 # server to client
    seeker_t seek
    session_t *next             # free list, or list of the dead
    session_t *work             # list of deferred work
    void *tunnel                # the exchange that it came from
    uint64_t source_key         # 0: not in the table of connections per source
    uint64_t opened_us          # CLOCK_MONOTONIC, for a line of the access log; 0: it gets none
    uint64_t bytes_up           # delivered to the server
    uint64_t bytes_down
    uint32_t queue_us           # until a backend had a place; NO_TIME: not yet
    uint32_t connect_us         # of the connect that succeeded
    uint32_t client_active      # ms since the loop started, when its last byte moved
    uint32_t server_active
    uint32_t half_closed        # likewise, when one direction ended; 0: both open
    uint32_t connect_started    # microseconds, wrapping
    uint32_t idle               # ms of silence on both sides that end a tunnel; 0: no limit
    uint32_t listener           # index in the plan
    uint32_t listener_row
    uint8_t state               # SessionState
    uint8_t flags               # SessionFlag
    uint8_t pad[2]
    endpoint_t source
    endpoint_t destination

ctypedef struct chunk_t:        # sessions are allocated together and never given back
    chunk_t *next
    session_t *sessions         # CHUNK of them

cdef enum:
    CHUNK = 64

# A client socket fresh from accept, non-blocking, and its place among the listener's connections
# on the scoreboard. Owns both from here on, whatever happens.
cdef void session_open(loop_t *loop, acceptor_t *acceptor, int fd, const void *address,
                       uint32_t length) noexcept nogil
cdef void session_client_event(loop_t *loop, session_t *session, uint32_t events) noexcept nogil
cdef void session_server_event(loop_t *loop, session_t *session, uint32_t events) noexcept nogil
cdef void session_timeout(loop_t *loop, session_t *session) noexcept nogil
cdef void session_work(loop_t *loop, session_t *session) noexcept nogil
cdef void session_end(loop_t *loop, session_t *session, int reason, bint abort) noexcept nogil

# Makes a tunnel of an HTTP connection: takes both sockets, the reservation, what was read of the
# client's bytes (conn.rest) and `down`, which is for the client. False: no memory, nothing is
# taken.
cdef bint session_tunnel(loop_t *loop, conn_t *conn, exchange_t *exchange,
                         buffer_t *down) noexcept nogil

# Called when a session that waited for a backend may go on.
cdef void session_found(loop_t *loop, void *session, int result) noexcept nogil

# Frees what ended in this turn. Not earlier: events of this turn may still name it.
cdef void sessions_bury(loop_t *loop) noexcept nogil
