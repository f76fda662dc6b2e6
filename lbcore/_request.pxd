# Understanding a request: route, rules, and what the selection of a backend goes by.
#
# A request is understood once, in request_begin. A second look (another try, a rule of the
# response) parses the same bytes again: refocus.

from lbcore._loop cimport loop_t
from lbcore._web cimport conn_t, exchange_t, web_t

ctypedef struct verdict_t:
    int status                  # 0: it goes to a backend; -1: a bad request; else what to answer
    int reason                  # HttpEnd
    unsigned wait               # seconds, for Retry-After

# web.head is parsed from x.request, which holds all that was read. Fills the exchange in, takes the
# body's first bytes, and applies the route's rules.
cdef void request_begin(loop_t *loop, web_t *web, exchange_t *x, verdict_t *verdict) noexcept nogil

# Makes web.facts speak of this exchange; with `parsed`, web.head is its request's.
cdef void focus(loop_t *loop, web_t *web, exchange_t *x, bint parsed) noexcept nogil

# As focus, parsing the request again unless it was the last that was looked at.
cdef void refocus(loop_t *loop, web_t *web, exchange_t *x) noexcept nogil

# The local address of the client's connection, for those who name it.
cdef void know_local(conn_t *conn) noexcept nogil
