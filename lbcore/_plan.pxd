# The plan image: what a worker needs of a plan, as C structs in one read-only mapping.
#
# The supervisor writes it once into a memfd (build_image); a worker maps it and swaps a pointer.
# Offsets count from the start of the image, so it means the same wherever it is mapped. Names,
# defaults and look-ups are gone by now: what is left are indexes and scoreboard rows.

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    PLAN_LAYOUT = 3
    NO_INDEX = 0xFFFFFFFF       # of a pool or an expression, where there is none

cpdef enum Algorithm:
    ROUND_ROBIN = 0
    LEAST_CONN = 1
    RANDOM = 2
    MAGLEV = 3
    KETAMA = 4

cpdef enum ListenerFlag:
    LISTENER_PROXY_IN = 1
    LISTENER_HTTP = 2

cpdef enum PoolPlanFlag:
    POOL_KEEPALIVE = 1
    POOL_SOURCE_BIND = 2
    POOL_TRANSPARENT = 4

ctypedef struct text_t:         # bytes in the image
    uint32_t at
    uint32_t size

ctypedef struct expression_t:   # a regular expression (PCRE2)
    text_t pattern
    uint32_t anchored
    uint32_t pad

ctypedef struct span_t:         # an array in the image
    uint32_t at
    uint32_t count

ctypedef struct cidr_t:
    uint8_t family              # 4 or 6
    uint8_t bits
    uint8_t address[16]
    uint8_t pad[2]

ctypedef struct ring_point_t:   # ketama: sorted by hash
    uint32_t hash
    uint32_t backend            # index within the pool

ctypedef struct backend_t:
    uint32_t row                # in the scoreboard
    uint32_t weight             # configured; the one in force is in the scoreboard
    uint32_t max_connections    # over all workers; 0: none
    uint32_t address_length
    uint8_t address[112]        # struct sockaddr_in, _in6 or _un
    text_t name
    uint64_t name_hash          # text_hash of the name: what sticky cookies carry
    uint64_t place              # text_hash of the address: what a kept connection belongs to

ctypedef struct pool_t:
    uint32_t row
    uint32_t algorithm          # Algorithm
    uint32_t flags              # PoolPlanFlag
    uint32_t send_proxy         # 0, 1, 2
    uint32_t backends_offset    # backend_t[primary_count + backup_count], primaries first
    uint32_t primary_count
    uint32_t backup_count
    uint32_t load_bound         # per mille of the mean; 0: none
    uint32_t table_offset       # maglev: uint16_t[table_length]; ketama: ring_point_t[table_length]
    uint32_t table_length
    uint32_t backup_table_offset
    uint32_t backup_table_length
    uint32_t connect_timeout    # ms
    uint32_t connect_attempts
    uint32_t connect_budget     # ms
    uint32_t queue_timeout      # ms
    uint32_t max_queue
    uint32_t server_idle        # ms; 0: none
    uint32_t tcp_user_timeout   # ms; 0: system default
    uint32_t source_length
    uint8_t source[28]          # struct sockaddr_in or _in6 with port 0
    uint32_t http_at            # pool_http_t
    text_t name

ctypedef struct listener_t:
    uint32_t row
    uint32_t pool               # index; NO_INDEX: none, its routes say (http only)
    uint32_t flags              # ListenerFlag
    uint32_t max_connections
    uint32_t max_per_source
    uint32_t client_idle        # ms; 0: none
    uint32_t half_closed        # ms; 0: none
    uint32_t proxy_timeout      # ms
    uint32_t trusted_offset     # cidr_t[trusted_count]
    uint32_t trusted_count
    uint32_t http_at            # http_t; 0: a tcp listener
    text_t name

# ---- http --------------------------------------------------------------------------------------
#
# Offsets count from the start of the image, as everywhere in it. A text that is absent has size 0.

cpdef enum HttpFlag:
    HTTP_X_FORWARDED = 1        # X-Forwarded-For, -Proto, -Host are sent to backends
    HTTP_FORWARDED = 2          # Forwarded (RFC 7239) is
    HTTP_REQUEST_ID = 4         # X-Request-ID is kept or made
    HTTP_UNDERSCORES = 8        # fields with "_" in their names are forwarded, not dropped
    HTTP_ABORT_ON_CLOSE = 16    # a client that sends FIN has given up
    HTTP_ACCESS_LOG = 32        # requests are logged

ctypedef struct http_t:         # what only an http listener has
    uint32_t flags              # HttpFlag
    uint32_t head_timeout       # ms, from the first byte of a head to its last
    uint32_t keepalive_timeout  # ms between two requests, and before the first
    uint32_t max_requests       # on one connection; 0: no limit
    uint32_t max_head           # bytes
    uint32_t max_fields
    text_t name                 # the listener's
    text_t via                  # pseudonym in Via; size 0: no Via
    span_t trusted              # cidr_t[]: whose word on the client's address is taken
    span_t routes               # route_t[], most specific first; the last one takes what is left
    span_t hosts                # host_t[]: hash table over exact and wildcard hosts
    span_t any                  # uint32_t[]: routes to try when no host matches, in order
    span_t pages                # page_t[]

ctypedef struct host_t:         # open addressing, linear probing; count is a power of two
    uint64_t hash               # text_hash of `host`, never 0; 0: an empty place
    text_t host                 # lower case; wildcards as ".example.com"
    # uint32_t[]: all routes that can take this host, in order: also those of wildcards above it
    # and those without a host
    span_t routes

ctypedef struct page_t:         # an error page of the user's own
    uint16_t status             # 0: every status that has none
    uint16_t kind               # PageKind
    text_t type                 # its Content-Type
    text_t body

cpdef enum PageKind:
    PAGE_TEXT = 0
    PAGE_HTML = 1
    PAGE_JSON = 2

cpdef enum Part:                # what a template's segment stands for
    PART_TEXT = 0
    PART_CLIENT_IP = 1
    PART_CLIENT_PORT = 2
    PART_HOST = 3               # without port
    PART_PORT = 4               # of the listening address
    PART_METHOD = 5
    PART_SCHEME = 6
    PART_PATH = 7
    PART_QUERY = 8
    PART_URI = 9                # path, and "?" and query if there is one
    PART_REQUEST_ID = 10
    PART_LISTENER = 11
    PART_ROUTE = 12
    PART_POOL = 13
    PART_BACKEND = 14
    PART_HEADER = 15            # of the request; `text` names it, in lower case
    PART_COOKIE = 16            # of the request; `text` names it
    PART_CAPTURE = 17           # `number` of the route's path expression, 0 is all of it
    PART_TAIL = 18              # the path behind what the route's prefix matched, without slash

ctypedef struct segment_t:
    uint16_t part               # Part
    uint16_t number
    text_t text

cpdef enum FieldOp:
    FIELD_SET = 0               # replaces all of that name
    FIELD_ADD = 1
    FIELD_REMOVE = 2

ctypedef struct field_op_t:
    uint32_t op                 # FieldOp
    text_t name                 # as the user wrote it
    text_t lower                # in lower case, for comparing
    span_t value                # segment_t[]

cpdef enum MatchKind:
    MATCH_PRESENT = 0
    MATCH_EQUAL = 1
    MATCH_PREFIX = 2
    MATCH_REGEX = 3             # `regex` is the index of the expression

ctypedef struct match_t:        # a condition on a header field or a query parameter
    uint16_t kind               # MatchKind
    uint16_t negated
    uint32_t regex
    text_t name                 # in lower case for fields
    text_t value

cpdef enum PathKind:
    PATH_ANY = 0
    PATH_EXACT = 1
    PATH_PREFIX = 2             # whole segments: "/api" takes /api and /api/x, not /apiary
    PATH_REGEX = 3              # anchored at the start

cpdef enum RouteAction:
    ACTION_POOL = 0
    ACTION_REDIRECT = 1
    ACTION_RESPOND = 2

cpdef enum RouteFlag:
    ROUTE_BUFFER_REQUEST = 1    # the whole body is here before a backend is picked
    ROUTE_BUFFER_RESPONSE = 2   # the backend is let go before a slow client has everything
    ROUTE_RETRY_UNSAFE = 4      # requests that are not idempotent may be sent twice, too
    ROUTE_AUTH = 8              # `users` may enter, nobody else

cpdef enum RateKey:
    RATE_SOURCE = 0
    RATE_HEADER = 1
    RATE_COOKIE = 2
    RATE_ROUTE = 3              # one bucket for everybody

ctypedef struct user_t:         # basic authentication
    text_t name
    text_t hash                 # crypt(5)

ctypedef struct route_t:
    uint32_t row                # in the scoreboard
    uint32_t flags              # RouteFlag
    uint16_t action             # RouteAction
    uint16_t status             # of a redirect or a fixed response
    uint32_t pool               # index; ACTION_POOL, else NO_INDEX
    text_t name
    # -- what it matches
    text_t host                 # in lower case; "*.example.com" for a wildcard; size 0: any
    uint16_t path_kind          # PathKind
    uint16_t pad
    uint32_t path_regex         # index of the expression, else NO_INDEX
    text_t path
    span_t methods              # text_t[]; count 0: any
    span_t headers              # match_t[]
    span_t queries              # match_t[]
    # -- what it does to requests and responses
    uint32_t strip_prefix       # 1: the backend does not see what `path` took
    uint32_t rewrite_regex      # index, where `rewrite` has captures; else NO_INDEX
    span_t rewrite              # segment_t[]: the new path; count 0: it stays
    span_t location             # segment_t[]: of a redirect
    text_t type                 # Content-Type of a fixed response
    text_t body
    span_t request_fields       # field_op_t[], in order
    span_t response_fields
    # -- who may enter
    span_t allow                # cidr_t[]; count 0: everybody
    span_t deny                 # cidr_t[]; goes first
    span_t users                # user_t[]
    text_t realm
    uint32_t rate_key           # RateKey
    uint32_t rate_burst         # requests; 0: no limit
    uint32_t rate_interval      # microseconds for one request
    text_t rate_name            # header field in lower case, or cookie
    # -- limits
    uint64_t max_body           # bytes; 0: no limit
    uint32_t body_timeout       # ms between two reads of the request's body
    uint32_t first_byte_timeout  # ms from the end of the request to the response's first byte
    uint32_t read_timeout       # ms between two reads of the response
    uint32_t send_timeout       # ms in which a client must take something
    uint32_t total_timeout      # ms for the whole exchange; 0: no limit
    uint32_t tunnel_timeout     # ms of silence in a tunnel; 0: no limit
    uint32_t request_memory     # bytes of a buffered body in memory; the rest in a file
    uint32_t response_memory
    uint64_t response_disk      # bytes of a buffered response in a file at most
    # -- retries
    uint32_t retry_attempts     # tries in all, the first included
    uint64_t retry_statuses     # bit n: status 500 + n; bit 63: 429

cpdef enum StickyMode:
    STICKY_NONE = 0
    STICKY_INSERT = 1           # lbcore's own signed cookie
    STICKY_LEARN = 2            # the application's cookie, and who set it: _learn.pyx

cpdef enum HashOn:
    HASH_SOURCE = 0
    HASH_HEADER = 1
    HASH_COOKIE = 2
    HASH_QUERY = 3
    HASH_PATH = 4
    HASH_URI = 5

ctypedef struct pool_http_t:    # what a pool has for http
    text_t name                 # of the pool
    uint32_t idle_timeout       # ms an unused upstream connection is kept; 0: none is
    uint32_t idle_most          # of them, per worker and backend
    uint32_t slow_us            # a first byte later than this counts as a failure; 0: never
    uint32_t way                # differs when connections of before must not be used any more
    uint64_t failure_statuses   # bit n: status 500 + n counts as a failure; bit 63: 429
    uint32_t retry_share        # per mille of requests that may be retries
    uint16_t hash_on            # HashOn
    uint16_t sticky             # StickyMode
    text_t hash_name            # in lower case for a header
    text_t cookie               # its name
    text_t cookie_attributes    # "; Path=/; HttpOnly" and so on
    uint8_t cookie_key[16]      # signs lbcore's cookies
    uint64_t cookie_expiry      # ms that an application's cookie is known without being used

ctypedef struct plan_header_t:
    uint64_t magic
    uint32_t layout
    uint32_t version
    uint64_t size
    uint32_t listener_count
    uint32_t listeners_offset
    uint32_t pool_count
    uint32_t pools_offset
    uint32_t backend_count
    uint32_t max_pipes
    uint32_t access_format      # AccessFormat: how lines of the access log look; 0: there is none
    uint32_t pad
    span_t expressions          # expression_t[]

cdef inline const listener_t *plan_listeners(const plan_header_t *plan) noexcept nogil:
    return <const listener_t *> (<const char *> plan + plan.listeners_offset)

cdef inline const pool_t *plan_pools(const plan_header_t *plan) noexcept nogil:
    return <const pool_t *> (<const char *> plan + plan.pools_offset)

cdef inline const backend_t *pool_backends(
        const plan_header_t *plan, const pool_t *pool) noexcept nogil:
    return <const backend_t *> (<const char *> plan + pool.backends_offset)

cdef inline const char *text_of(const plan_header_t *plan, text_t text) noexcept nogil:
    return <const char *> plan + text.at

cdef inline const http_t *listener_http(
        const plan_header_t *plan, const listener_t *listener) noexcept nogil:
    return <const http_t *> (<const char *> plan + listener.http_at)

cdef inline const pool_http_t *pool_http(
        const plan_header_t *plan, const pool_t *pool) noexcept nogil:
    return <const pool_http_t *> (<const char *> plan + pool.http_at)

# FNV-1a, 64 bits; never 0. For look-ups among names of the configuration, not against attackers.
cdef inline uint64_t text_hash(const char *data, size_t size) noexcept nogil:
    cdef uint64_t value = 0xCBF29CE484222325ULL
    cdef size_t i
    for i in range(size):
        value = (value ^ <uint8_t> data[i]) * 0x100000001B3ULL
    return value if value else 1

cdef const plan_header_t *map_image(int fd) except NULL
cdef void unmap_image(const plan_header_t *plan) noexcept nogil
