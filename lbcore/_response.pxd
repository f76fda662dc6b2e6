# The head of a response: what it says of its backend, what the client gets instead of it.

from libc.stdint cimport uint64_t

from lbcore._loop cimport loop_t
from lbcore._web cimport exchange_t, web_t

cdef enum:
    RESPONSE_TOO_LONG = -100    # beside DownloadResult: its head as rewritten

# Whether a set of statuses has one. Bit n stands for 500 + n, bit 63 for 429.
cdef inline bint status_in(uint64_t statuses, int status) noexcept nogil:
    if status == 429:
        return statuses >> 63 != 0
    return 500 <= status < 563 and (statuses >> (status - 500)) & 1 != 0

# Whether the head at `head` waits a moment for the body that it announces.
cdef bint response_may_wait(web_t *web, const exchange_t *x, const char *head) noexcept nogil

# Counts the response, and trusts or suspects its backend.
cdef void response_judge(loop_t *loop, web_t *web, exchange_t *x) noexcept nogil

# The backend agreed to another protocol: makes the exchange X_TUNNEL, with what opens the tunnel in
# exchange.answer. False, and nothing has changed: it does not fit.
cdef bint response_agree(loop_t *loop, web_t *web, exchange_t *x, const char *data,
                         size_t total) noexcept nogil

# Sends the head in web.reply, at `data`, as the client gets it, with what of its body is here
# already. A DownloadResult; DOWNLOAD_BAD, RESPONSE_TOO_LONG: nothing was sent.
cdef int response_begin(loop_t *loop, web_t *web, exchange_t *x, const char *data, char *body,
                        size_t body_size) noexcept nogil
