# The HTTP side of a worker as a whole: see _httpside.pxd. What one connection does is in _conn.pyx.

from libc.stdint cimport uint32_t
from libc.stdlib cimport calloc, free, malloc

from lbcore._auth cimport auth_free, auth_make
from lbcore._conn cimport (
    conn_drain, conn_found, conn_plan_changed, conn_shut_down, conn_tunnel_ended, conns_bury,
    conns_free, conns_work,
)
from lbcore._loop cimport SEEK_EXCHANGE
from lbcore._origin cimport origins_bury, origins_close, origins_keep
from lbcore._relay cimport SCRATCH, buffer_take
from lbcore._scoreboard cimport MAX_BACKENDS, MAX_POOLS
from lbcore._web cimport CONN_CHUNK, conn_chunk_t, origin_t

cdef enum:
    OUTPUT_ROOM = 131072        # the longest head that can be written
    OUTPUT_SLACK = 64           # behind it: the head of a first chunk


cdef web_t *web_make(loop_t *loop, const uint64_t *seed) noexcept nogil:
    cdef web_t *web = <web_t *> calloc(1, sizeof(web_t))
    if web == NULL:
        return NULL
    web.input = buffer_take(&loop.relay, SCRATCH)
    web.output = <char *> malloc(OUTPUT_ROOM + OUTPUT_SLACK)
    web.path = <char *> malloc(SCRATCH)
    web.output_room = OUTPUT_ROOM
    web.idle = <origin_t **> calloc(MAX_BACKENDS, sizeof(void *))
    web.idle_counts = <uint32_t *> calloc(MAX_BACKENDS, sizeof(uint32_t))
    web.budgets = <uint32_t *> calloc(MAX_POOLS, sizeof(uint32_t))
    web.auth = auth_make()
    web.seed = seed[0]
    web.key = seed[1]
    if (web.input == NULL or web.output == NULL or web.path == NULL or web.idle == NULL
            or web.idle_counts == NULL or web.budgets == NULL or web.auth == NULL):
        web_free(loop, web)
        return NULL
    loop.relay.buffers -= 1         # the input buffer is not a connection's
    loop.found[<int> SEEK_EXCHANGE] = conn_found
    loop.tunnel_ended = conn_tunnel_ended
    return web


cdef void web_free(loop_t *loop, web_t *web) noexcept nogil:
    cdef void *thing
    if web.idle != NULL:
        origins_close(loop, web)
        origins_bury(web)
    conns_free(web)
    while web.free_origins != NULL:
        thing = web.free_origins
        web.free_origins = web.free_origins.next
        free(thing)
    while web.free_exchanges != NULL:
        thing = web.free_exchanges
        web.free_exchanges = web.free_exchanges.next
        free(thing)
    if web.input != NULL:
        free(web.input)
    free(web.output)
    free(web.path)
    free(web.idle)
    free(web.idle_counts)
    free(web.budgets)
    if web.auth != NULL:
        auth_free(web.auth)
    free(web)


cdef bint web_work(loop_t *loop, web_t *web) noexcept nogil:
    if web.work_head != NULL:
        conns_work(loop, web)
    origins_bury(web)
    if web.dead_conns != NULL:
        conns_bury(web)
    return web.work_head != NULL or web.dead_conns != NULL


cdef void web_drain(loop_t *loop, web_t *web) noexcept nogil:
    cdef conn_chunk_t *chunk = web.chunks
    cdef int i
    origins_close(loop, web)
    while chunk != NULL:
        for i in range(CONN_CHUNK):
            conn_drain(loop, &chunk.conns[i])
        chunk = chunk.next


cdef void web_plan_changed(loop_t *loop, web_t *web) noexcept nogil:
    cdef conn_chunk_t *chunk = web.chunks
    cdef int i
    origins_keep(loop, web, loop.plan.image)
    while chunk != NULL:
        for i in range(CONN_CHUNK):
            conn_plan_changed(loop, &chunk.conns[i])
        chunk = chunk.next


cdef void web_end_all(loop_t *loop, web_t *web) noexcept nogil:
    cdef conn_chunk_t *chunk = web.chunks
    cdef int i
    while chunk != NULL:
        for i in range(CONN_CHUNK):
            conn_shut_down(loop, web, &chunk.conns[i])
        chunk = chunk.next
