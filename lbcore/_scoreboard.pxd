# The scoreboard: live state shared by the supervisor and every worker process.
#
# One memfd, mapped read-write by all. Nothing in it is ever locked:
#   backend_live_t, pool_live_t   state and weight are written by the supervisor only;
#                                 counts of all workers together are atomics
#   seat_t, *_counters_t          single writer: the worker process that sits there
# A seat belongs to one worker *process*, so that an old and a new worker of the same slot never
# write the same line. Seat 0 is the supervisor's: it collects what ended workers had counted.
#
# The segment is sparse: rows that nobody touches cost no memory.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    LAYOUT_VERSION = 2
    MAX_SEATS = 128
    MAX_BACKENDS = 16384
    MAX_POOLS = 4096
    MAX_LISTENERS = 1024
    MAX_ROUTES = 8192
    SOURCE_SLOTS = 65536        # per seat; a power of two
    RATE_SLOTS = 262144         # of all workers together; a power of two
    LEARN_SLOTS = 1048576       # likewise
    HISTOGRAM_BUCKETS = 96      # log-linear: 4 per power of two, microseconds
    NO_ROW = 0xFFFFFFFF

cpdef enum BackendState:
    STATE_UP = 0
    STATE_DOWN = 1              # active checks say so
    STATE_EJECTED = 2           # passive checks say so
    STATE_DRAIN = 3             # an operator says so: no new connections
    STATE_GONE = 4              # not in the plan any more

cpdef enum PoolFlag:
    POOL_PANIC = 1              # too few healthy: DOWN and EJECTED are tried as if UP
    POOL_BACKUP = 2             # no primary left: backups take the traffic

cpdef enum SeatState:
    SEAT_FREE = 0
    SEAT_STARTING = 1
    SEAT_SERVING = 2
    SEAT_DRAINING = 3

# Why a client connection ended; also the index of its counter. Order is part of the layout.
cpdef enum EndReason:
    END_NORMAL = 0              # both sides closed
    END_CLIENT_RESET = 1
    END_SERVER_RESET = 2
    END_CLIENT_IDLE = 3
    END_SERVER_IDLE = 4
    END_HALF_CLOSED = 5
    END_CONNECT_FAILED = 6      # attempts or budget spent
    END_NO_BACKEND = 7          # nobody to ask
    END_QUEUE_TIMEOUT = 8
    END_QUEUE_FULL = 9
    END_SOURCE_LIMIT = 10
    END_PROXY_MALFORMED = 11
    END_PROXY_TIMEOUT = 12
    END_CLIENT_GONE = 13        # left before a backend was reached
    END_SHUTDOWN = 14           # drain time spent, or stopped
    END_INTERNAL = 15           # no memory or descriptor for the upstream side
    END_REASONS = 16

# How an HTTP exchange ended; also the index of its counter. Order is part of the layout.
cpdef enum HttpEnd:
    HTTP_OK = 0                 # the response is complete, whatever its status
    HTTP_BAD_REQUEST = 1        # 400, 414, 417, 431, 501, 505: refused for how it is written
    HTTP_HEAD_TIMEOUT = 2       # 408 while the head or the body was on its way
    HTTP_TOO_LARGE = 3          # 413
    HTTP_DENIED = 4             # 403 by address
    HTTP_UNAUTHORIZED = 5       # 401
    HTTP_LIMITED = 6            # 429
    HTTP_NO_BACKEND = 7         # 503
    HTTP_QUEUE_TIMEOUT = 8      # 503
    HTTP_QUEUE_FULL = 9         # 503
    HTTP_CONNECT_FAILED = 10    # 502: attempts or budget spent
    HTTP_CONNECT_TIMEOUT = 11   # 504
    HTTP_EMPTY_ANSWER = 12      # 502: the backend closed before it answered
    HTTP_BAD_ANSWER = 13        # 502: what it said is no response
    HTTP_FIRST_BYTE = 14        # 504: first-byte timeout
    HTTP_TOTAL = 15             # 504: the time for the whole exchange is spent
    HTTP_ANSWER_CUT = 16        # the backend ended, or fell silent, in the middle of a response
    HTTP_CLIENT_GONE = 17       # 499: the client left before it had everything
    HTTP_CLIENT_SLOW = 18       # the client took nothing for too long
    HTTP_SHUTDOWN = 19
    HTTP_INTERNAL = 20          # 500, 503: no memory, descriptor or disk
    HTTP_SOURCE_LIMIT = 21      # connection refused: too many from this address
    HTTP_TUNNEL_IDLE = 22       # a tunnel in which nothing moved for too long
    HTTP_ENDS = 24

ctypedef struct backend_live_t:     # 32 bytes, two to a cache line
    uint32_t inflight               # atomic, all workers: connecting and connected
    uint32_t failures               # atomic: consecutive failed connects or resets before any byte
    uint16_t weight                 # 0..1000, as in force now
    uint16_t ramp                   # slow start: share of the weight, 0..256
    uint8_t state                   # BackendState
    uint8_t pad[3]
    uint32_t eject_after            # failures at which workers ring the supervisor; 0: never
    uint32_t spare[3]

ctypedef struct pool_live_t:        # 64 bytes
    uint32_t inflight               # atomic, all workers
    uint32_t waiting                # atomic, all workers: connections in the queue
    uint32_t flags                  # PoolFlag bits, supervisor only
    uint32_t total_weight           # of the eligible backends, supervisor only
    uint32_t spare[12]

ctypedef struct listener_live_t:    # 64 bytes
    uint32_t connections            # atomic, all workers
    uint32_t spare[15]

ctypedef struct backend_counters_t:     # 1024 bytes
    uint32_t inflight
    uint32_t spare0
    uint64_t connections            # established
    uint64_t refused                # connect failed at once or with an error
    uint64_t timeouts               # connect timed out
    uint64_t early_resets           # reset after the connect, before any byte
    uint64_t redispatched           # connections that went on to another backend after this one
    uint64_t bytes_up               # client to backend
    uint64_t bytes_down             # backend to client
    uint32_t connect_us[96]
    uint64_t requests               # HTTP exchanges that were sent to it
    uint64_t status[6]              # its responses by class: [2] is 2xx; [0]: no response
    uint64_t retries                # exchanges that went on to another backend after a response
    uint64_t reused                 # exchanges on a connection that was there already
    uint32_t response_us[96]        # from the end of the request to the response's first byte
    uint64_t spare[15]

ctypedef struct listener_counters_t:    # 512 bytes
    uint32_t connections            # open now
    uint32_t spare0
    uint64_t accepted
    uint64_t ended[16]              # by EndReason
    uint64_t paused                 # times accepting paused at max_connections
    uint64_t bytes_up
    uint64_t bytes_down
    uint64_t requests               # HTTP exchanges begun
    uint64_t http_ended[24]         # by HttpEnd
    uint64_t spare[18]

ctypedef struct route_counters_t:       # 512 bytes
    uint64_t requests
    uint64_t status[6]              # responses to clients by class; [0]: none was sent
    uint64_t retries
    uint64_t bytes_up
    uint64_t bytes_down
    uint64_t spare0[2]
    uint32_t total_us[96]           # of the whole exchange
    uint64_t spare[4]

ctypedef struct rate_bucket_t:          # GCRA: one per key, shared by all workers
    uint64_t key                        # 0: free
    uint64_t due_us                     # CLOCK_MONOTONIC: when its burst is whole again

ctypedef struct learnt_t:           # a cookie's value and its backend, shared by all workers
    uint64_t check                      # its key, exclusive or name_hash: see _learn.pyx
    uint64_t name_hash                  # of the backend
    uint64_t due_ms                     # CLOCK_MONOTONIC: when it is forgotten; 0: free

ctypedef struct pool_counters_t:    # 32 bytes
    uint32_t inflight
    uint32_t waiting
    uint64_t queued                 # connections that had to wait
    uint64_t spare[2]

ctypedef struct source_entry_t:     # open addressing, one writer
    uint64_t key                    # keyed hash of the source address; 0: never used
    uint32_t count
    uint32_t spare

ctypedef struct seat_t:             # 256 bytes
    uint64_t heartbeat_ms           # CLOCK_MONOTONIC of the last turn of the loop
    uint32_t pid
    uint32_t slot
    uint32_t state                  # SeatState
    uint32_t plan_version
    uint32_t connections            # open client connections
    uint32_t pipes                  # splice pipes in use
    uint64_t accepted
    uint64_t turns                  # of the event loop
    uint64_t accept_pauses          # descriptor or memory exhaustion
    uint64_t accept_errors
    uint64_t buffers                # relay buffers held by blocked connections
    uint64_t sources_untracked      # source table full: counted, not limited
    uint32_t idle_upstreams         # connections to backends that wait for a request
    uint32_t requests               # HTTP exchanges under way
    uint64_t log_dropped            # lines that the access log could not take
    uint64_t log_lines
    uint64_t spool_bytes            # of buffered bodies, in memory and files
    uint64_t spare[18]

ctypedef struct board_header_t:     # 4096 bytes
    uint64_t magic
    uint32_t layout
    uint32_t size_kib
    uint64_t secret[2]              # keys the tables of sources and of rates
    uint64_t rates_forgotten        # atomic: buckets that made room for others before their time
    uint64_t learnt_forgotten       # atomic: cookies that made room for others before their time
    uint64_t spare[250]
    uint64_t rate_locks[256]        # CLOCK_MONOTONIC in us when taken, or 0: see _rate.pyx

ctypedef struct board_t:            # pointers into the mapping
    board_header_t *header
    backend_live_t *backends        # [MAX_BACKENDS]
    pool_live_t *pools              # [MAX_POOLS]
    listener_live_t *listeners      # [MAX_LISTENERS]
    seat_t *seats                   # [MAX_SEATS]
    backend_counters_t *backend_counters    # [MAX_SEATS][MAX_BACKENDS]
    listener_counters_t *listener_counters  # [MAX_SEATS][MAX_LISTENERS]
    pool_counters_t *pool_counters          # [MAX_SEATS][MAX_POOLS]
    source_entry_t *sources                 # [MAX_SEATS][SOURCE_SLOTS]
    route_counters_t *route_counters        # [MAX_SEATS][MAX_ROUTES]
    learnt_t *learnt                        # [LEARN_SLOTS]
    rate_bucket_t *rates                    # [RATE_SLOTS]

cdef class Scoreboard:
    cdef board_t board
    cdef void *base
    cdef size_t size
    cdef readonly int fd
    cdef map(self, int fd)

cdef uint32_t histogram_bucket(uint32_t value) noexcept nogil
cdef uint64_t source_key(const board_t *board, uint32_t listener_row, const void *address,
                         uint32_t length) noexcept nogil
cdef uint32_t source_count(const board_t *board, uint64_t key) noexcept nogil
cdef bint source_add(const board_t *board, uint32_t seat, uint64_t key) noexcept nogil
cdef void source_remove(const board_t *board, uint32_t seat, uint64_t key) noexcept nogil
