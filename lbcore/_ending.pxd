# How an exchange ends: lbcore's own answers, a cut, and giving everything back.

from libc.stdint cimport uint32_t

from lbcore._loop cimport loop_t
from lbcore._web cimport exchange_t, web_t

# There is no usable request: answers with an error and closes.
cdef void exchange_refuse(loop_t *loop, web_t *web, exchange_t *x, int status,
                          int reason) noexcept nogil

# Answers instead of a backend. If a response has begun the client's connection is cut instead.
cdef void exchange_answer(loop_t *loop, web_t *web, exchange_t *x, int status, int reason,
                          uint32_t retry_after) noexcept nogil

# The same where nothing can have begun, and web.facts is in place.
cdef void exchange_respond(loop_t *loop, web_t *web, exchange_t *x, int status, int reason,
                           uint32_t retry_after) noexcept nogil

# Gives the backend's connection and the place there back.
cdef void exchange_let_go(loop_t *loop, web_t *web, exchange_t *x, bint keep) noexcept nogil

# The client is gone, or has to go: the backend is let go of.
cdef void exchange_abort(loop_t *loop, web_t *web, exchange_t *x, int reason) noexcept nogil

# Counts, logs, gives everything back. Also for what became a tunnel, when that has ended.
cdef void exchange_free(loop_t *loop, web_t *web, exchange_t *x) noexcept nogil

# Decides whether the client's connection stays, and returns what a head has to say about it
# (ANSWER_*).
cdef uint32_t answer_flags(loop_t *loop, exchange_t *x) noexcept nogil
