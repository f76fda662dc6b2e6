# The HTTP side of a worker: client connections, exchanges and connections to backends. State only.
#
#   conn_t      a client's connection. Between two requests it is all there is.
#   exchange_t  a request and its response, from the request's head to the last byte and log line
#   origin_t    a connection to a backend: of an exchange, or idle and waiting for the next
#
# _httpside.pyx owns web_t, _conn.pyx conn_t, _exchange.pyx exchange_t, _origin.pyx origin_t. Calls
# go down that list; what happened comes back up as a result or a state.

from libc.stdint cimport int16_t, uint8_t, uint16_t, uint32_t, uint64_t

from lbcore._auth cimport AUTH_USER, auth_t
from lbcore._facts cimport facts_t
from lbcore._http1 cimport chunked_t, head_t
from lbcore._loop cimport loop_t, plan_ref_t, seeker_t
from lbcore._plan cimport (
    http_t, listener_http, listener_t, plan_listeners, plan_pools, pool_http, pool_http_t, pool_t,
    route_t,
)
from lbcore._proxy cimport endpoint_t
from lbcore._relay cimport buffer_t, end_t, flow_t
from lbcore._scoreboard cimport MAX_ROUTES, route_counters_t
from lbcore._spool cimport spool_t
from lbcore._timers cimport timer_node_t

ctypedef struct conn_t
ctypedef struct exchange_t

# ---- connections to backends -------------------------------------------------------------------

cdef enum OriginState:
    ORIGIN_FREE = 0
    ORIGIN_IDLE = 1             # in the pool, until the next request
    ORIGIN_CONNECTING = 2
    ORIGIN_BUSY = 3             # of an exchange
    ORIGIN_DEAD = 4             # freed at the end of the turn

ctypedef struct origin_t:
    timer_node_t timer          # first: a timer is its origin
    end_t end
    exchange_t *exchange        # NULL: idle
    origin_t *next              # idle list of its backend, newest first; free list; dead list
    origin_t *previous
    uint32_t backend_row
    uint32_t way                # pool_http_t.way it was made by
    uint64_t place              # backend_t.place that it leads to
    uint32_t wanted             # version of the last plan that has its backend
    uint32_t requests           # that it has carried
    uint32_t idle_limit         # ms
    uint32_t since              # ms since the loop started: idle from then on
    uint8_t state               # OriginState
    uint8_t gathers             # GatherState, see _gather.pxd
    uint8_t pad[2]

# ---- exchanges ---------------------------------------------------------------------------------

# The states of an exchange. docs/internals/life-of-a-request.md draws them.
cdef enum ExchangeState:
    X_COLLECT = 0               # the body is read before a backend is looked for
    X_QUEUED = 1                # waits for a place at a backend
    X_PAUSED = 2                # all candidates failed; waits a moment, then starts over
    X_CONNECTING = 3
    X_ANSWER = 4                # sent, or being sent: waits for the head of the response
    X_BODY = 5                  # the response's body is on its way
    X_FLUSH = 6                 # the backend is done, or had no part: the client lacks something
    X_DONE = 7                  # everything is said
    X_TUNNEL = 8                # the connection is a tunnel now
    X_ABORT = 9                 # the client's connection has to be cut

cdef enum ExchangeFlag:
    X_HTTP_10 = 1               # the client speaks HTTP/1.0
    X_KEEP_ALIVE = 2            # the client's connection may go on after this
    X_HEAD_ONLY = 4             # HEAD: the response has no body
    X_UPGRADE = 8               # an upgrade was asked for
    X_STREAM_UP = 16            # the request's body is passed on while it comes
    X_STREAM_CHUNKED = 32       # in chunks
    X_CONSUMED = 64             # bytes of the body are gone: it cannot be sent again
    X_UP_DONE = 128             # the whole request was read from the client
    X_SENT = 256                # and passed on
    X_EXPECT = 512              # the client waits for 100 Continue
    X_BUFFER = 1024             # the response is absorbed for a slow client
    X_CLOSE_FRAMED = 2048       # the response ends with the connection
    X_CHUNKED_OUT = 4096        # the response goes out in chunks
    X_ORIGIN_KEEP = 8192        # the backend's connection may be used again
    X_LATE = 16384              # the last connect that failed did so by taking too long
    X_LOGGED = 32768
    X_ORIGIN_EOF = 65536        # the response's body is complete
    X_COUNTED = 131072          # its backend counts this request
    X_STAYS = 262144            # its backend is only full: the cookie that names it stays
    X_HEAD_KEPT = 524288        # the response's head is in `answer` until some of its body is here

ctypedef struct mark_t:         # a piece of the request's head, for the log
    uint32_t at
    uint32_t size

ctypedef struct exchange_t:
    seeker_t seek
    conn_t *conn
    origin_t *origin
    exchange_t *next            # free list
    buffer_t *request           # the head as it came, and what of the body came with it
    uint32_t head_size          # of the head in `request`
    uint32_t early              # bytes of the body behind it
    spool_t body                # a collected body, kept until a response has begun
    spool_t up                  # on its way to the backend
    spool_t down                # on its way to the client
    buffer_t *over              # behind `down`, which has no room
    flow_t up_flow              # bodies of a known length, as a stream
    flow_t down_flow
    chunked_t up_chunked
    chunked_t down_chunked
    buffer_t *answer            # a response head (see X_HEAD_KEPT), trailers; what opens a tunnel
    buffer_t *tail              # the request's trailers that are not complete yet
    uint64_t replayed           # bytes of `body` that were sent
    uint64_t body_size          # of the request's body read so far, without framing
    uint64_t up_left            # of the request's body, still to be read
    uint64_t down_left          # of the response's
    uint64_t started_us         # CLOCK_MONOTONIC
    uint64_t sent_us            # when the request was sent
    uint64_t connect_us         # when the connect began
    uint64_t bytes_up
    uint64_t bytes_down
    uint32_t queue_time         # microseconds, NO_TIME: not reached
    uint32_t connect_time
    uint32_t first_byte_time
    uint32_t client_moved       # ms since the loop started
    uint32_t origin_moved
    uint32_t began              # likewise
    uint32_t pause_until
    uint32_t route              # index within the listener's
    uint32_t flags              # ExchangeFlag
    uint16_t status
    uint16_t tries              # times the request was sent
    uint8_t state               # ExchangeState
    uint8_t reason              # HttpEnd
    uint8_t method              # Method
    uint8_t framing             # of the request's body, as the client sends it
    uint8_t up_framing          # as the backend gets it
    uint8_t down_framing        # of the response, as the backend sends it
    uint8_t unfinished          # it could go on, but others come first
    uint8_t user_size
    uint8_t id_size
    uint8_t interims            # 1xx responses that came
    uint8_t rule                # Rule that the request broke, if that is the reason
    uint8_t pad[3]
    int16_t sticky              # index within the pool that a cookie names, or -1
    mark_t target
    mark_t host
    mark_t referer
    mark_t agent
    endpoint_t client           # after the word of trusted proxies
    uint32_t method_size
    uint32_t head_sent          # size of the head that went with the connect
    char id[128]
    char user[64]

# ---- client connections ------------------------------------------------------------------------

cdef enum ConnState:
    CONN_PROXY = 0              # waits for a PROXY header
    CONN_IDLE = 1               # waits for a request
    CONN_HEAD = 2               # has a part of a request's head
    CONN_BUSY = 3               # has an exchange
    CONN_LINGER = 4             # said all; reads on for a while, so that the client can read it
    CONN_DEAD = 5               # freed at the end of the turn

ctypedef struct conn_t:
    timer_node_t timer          # first: a timer is its connection
    end_t client
    plan_ref_t *plan
    exchange_t *exchange        # NULL: idle
    buffer_t *rest              # read, and not part of a request that was complete
    conn_t *next                # free list, or list of the dead
    conn_t *work                # list of deferred work
    uint64_t source_key
    uint32_t listener           # index in the plan
    uint32_t listener_row
    uint32_t seen               # bytes of `rest` without the end of a head
    uint32_t since              # ms since the loop started: of the state, or of its first byte
    uint32_t requests           # that were answered
    uint32_t lingers            # ms since the loop started: since when, in CONN_LINGER
    uint8_t state               # ConnState
    uint8_t listed              # on the list of deferred work
    uint8_t leaving             # its listener is in no plan any more
    uint8_t pad
    endpoint_t peer
    endpoint_t local            # family 0: not known yet

cdef enum:
    CONN_CHUNK = 64

ctypedef struct conn_chunk_t:
    conn_chunk_t *next
    conn_t *conns

ctypedef struct web_t:
    buffer_t *input             # what is read lands here first
    char *output                # heads are written here
    uint32_t output_room
    origin_t **idle             # by backend row: newest first
    uint32_t *idle_counts
    origin_t *free_origins
    origin_t *dead_origins
    exchange_t *free_exchanges
    conn_t *free_conns
    conn_t *dead_conns
    conn_t *work_head
    conn_t *work_tail
    conn_chunk_t *chunks
    auth_t *auth
    uint32_t *budgets           # by pool row: retries that may be made, in thousandths
    uint64_t random[2]          # for the id of the request that is being looked at
    uint64_t seed
    uint64_t key
    uint64_t date_second
    uint64_t date_due           # ms: when the next one begins
    uint64_t wall_offset        # CLOCK_REALTIME minus CLOCK_MONOTONIC, in microseconds
    char date[32]
    char *path                  # a normalised path
    head_t head                 # the request that is being looked at
    head_t reply                # the response
    exchange_t *current         # whose request is in `head` and `facts`
    facts_t facts

# ---- what of the plan concerns an exchange -----------------------------------------------------

cdef inline const listener_t *listener_of(const exchange_t *x) noexcept nogil:
    return plan_listeners(x.seek.plan.image) + x.conn.listener

cdef inline const http_t *http_of(const exchange_t *x) noexcept nogil:
    return listener_http(x.seek.plan.image, listener_of(x))

cdef inline const route_t *route_of(const exchange_t *x) noexcept nogil:
    return <const route_t *> (
        <const char *> x.seek.plan.image + http_of(x).routes.at) + x.route

cdef inline const pool_t *pool_of(const exchange_t *x) noexcept nogil:
    return plan_pools(x.seek.plan.image) + x.seek.pool

cdef inline const pool_http_t *pool_http_of(const exchange_t *x) noexcept nogil:
    return pool_http(x.seek.plan.image, pool_of(x))

cdef inline route_counters_t *route_counters(loop_t *loop, const exchange_t *x) noexcept nogil:
    return (loop.board.route_counters + <size_t> loop.seat_index * MAX_ROUTES
            + route_of(x).row)
