# What is known of a request: for routes, templates, forwarded fields, answers and logs.

from libc.stdint cimport uint8_t, uint32_t

from lbcore._http1 cimport head_t
from lbcore._plan cimport backend_t, http_t, listener_t, plan_header_t, pool_t, route_t
from lbcore._proxy cimport endpoint_t

cdef enum:
    CAPTURES = 10
    ID_MAX = 128                # longest X-Request-ID that is kept

ctypedef struct captures_t:     # of the route's path expression, in facts_t.path
    uint32_t count
    uint32_t start[10]
    uint32_t end[10]

ctypedef struct facts_t:        # what is known of a request; scratch, made anew for every look
    const plan_header_t *plan
    const listener_t *listener
    const http_t *http
    const route_t *route        # NULL: refused before there was one
    const pool_t *pool          # NULL: none
    const backend_t *backend    # NULL: none, or none yet
    const char *base            # the request's head
    const head_t *head          # parsed; NULL: it could not be
    const char *path            # normalised (_path.pxd): what is sent on
    uint32_t path_size
    uint32_t matched            # bytes of it that a prefix route matched
    captures_t captures
    endpoint_t client           # who it is, after the word of trusted proxies
    endpoint_t peer             # who is connected
    endpoint_t local            # where it is connected to; family 0: a unix socket
    uint8_t trusted             # the peer is a trusted proxy
    uint8_t secure              # the client's scheme is https, after the word of trusted proxies
    uint8_t id_size
    uint8_t pad
    char id[128]                # X-Request-ID
    const char *date            # "Sun, 06 Nov 1994 08:49:37 GMT": 29 bytes, of this second
