# A second try of a request: whether it may be made, and what has to be taken back before it.
#
# A request is sent again only if that is safe: nothing of it is gone (X_CONSUMED), and either no
# backend can have seen it, or it may be seen twice (RFC 9110, 9.2.2), and the budget allows.

from lbcore._loop cimport loop_t
from lbcore._web cimport exchange_t, web_t

# A request earns its pool a share of a retry.
cdef void retry_earn(web_t *web, exchange_t *x) noexcept nogil

# Whether it may reach a backend a second time; if so, that is taken from the pool's budget.
cdef bint retry_take(web_t *web, exchange_t *x) noexcept nogil

# What was taken was not used.
cdef void retry_return(web_t *web, const exchange_t *x) noexcept nogil

# Whether it is idempotent, or its route says that this does not matter.
cdef bint retry_is_safe(const exchange_t *x) noexcept nogil

# Whether all of it is still here.
cdef bint retry_is_possible(const exchange_t *x) noexcept nogil

# Whether a backend whose connection was lost cannot have seen it.
cdef bint retry_is_unheard(const exchange_t *x) noexcept nogil

# Whether the end of the backend's connection was on its way when the request was sent.
cdef bint retry_was_closing(const exchange_t *x) noexcept nogil

# Takes back what the last try left, so that the next one begins anew.
cdef void retry_forget(loop_t *loop, web_t *web, exchange_t *x) noexcept nogil
