# The plan image: what a worker needs of a plan, as C structs in one read-only mapping.
#
# The supervisor writes it once into a memfd (build_image); a worker maps it and swaps a pointer.
# Offsets count from the start of the image, so it means the same wherever it is mapped. Names,
# defaults and look-ups are gone by now: what is left are indexes and scoreboard rows.

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    PLAN_LAYOUT = 1

cpdef enum Algorithm:
    ROUND_ROBIN = 0
    LEAST_CONN = 1
    RANDOM = 2
    MAGLEV = 3
    KETAMA = 4

cpdef enum ListenerFlag:
    LISTENER_PROXY_IN = 1

cpdef enum PoolPlanFlag:
    POOL_KEEPALIVE = 1
    POOL_SOURCE_BIND = 2
    POOL_TRANSPARENT = 4

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
    uint32_t pad

ctypedef struct listener_t:
    uint32_t row
    uint32_t pool               # index
    uint32_t flags              # ListenerFlag
    uint32_t max_connections
    uint32_t max_per_source
    uint32_t client_idle        # ms; 0: none
    uint32_t half_closed        # ms; 0: none
    uint32_t proxy_timeout      # ms
    uint32_t trusted_offset     # cidr_t[trusted_count]
    uint32_t trusted_count

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

cdef inline const listener_t *plan_listeners(const plan_header_t *plan) noexcept nogil:
    return <const listener_t *> (<const char *> plan + plan.listeners_offset)

cdef inline const pool_t *plan_pools(const plan_header_t *plan) noexcept nogil:
    return <const pool_t *> (<const char *> plan + plan.pools_offset)

cdef inline const backend_t *pool_backends(
        const plan_header_t *plan, const pool_t *pool) noexcept nogil:
    return <const backend_t *> (<const char *> plan + pool.backends_offset)

cdef const plan_header_t *map_image(int fd) except NULL
cdef void unmap_image(const plan_header_t *plan) noexcept nogil
