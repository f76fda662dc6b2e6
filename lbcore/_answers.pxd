# What lbcore itself says to a client: errors, redirects, fixed responses.

from libc.stdint cimport uint32_t

from lbcore._facts cimport facts_t

cpdef enum AnswerFlag:
    ANSWER_CLOSE = 1            # Connection: close
    ANSWER_HTTP_10 = 2          # the client speaks HTTP/1.0
    ANSWER_NO_BODY = 4          # to HEAD
    ANSWER_KEEP_ALIVE = 8       # HTTP/1.0 client that asked for it: say so

# A whole response of lbcore's own, body included: an error as text, HTML or JSON after Accept or
# the user's page; a redirect; a fixed response. 401 carries WWW-Authenticate, 429 and 503
# Retry-After (`retry_after` in seconds, 0: none), 405 and 501 what belongs to them.
#
# A route that redirects or responds does so when `status` is its own. The route's rules for
# response fields are kept, in errors too: a browser shows a script only what CORS fields allow.
cdef uint32_t answer_write(const facts_t *facts, int status, uint32_t flags, uint32_t retry_after,
                           char *out, uint32_t room) noexcept nogil

# Room that suffices for any answer to this request: pages of the user's own can be long.
cdef uint32_t answer_room(const facts_t *facts, int status) noexcept nogil

# "OK" for 200 and so on; "Unknown" for what nobody registered.
cdef const char *reason_of(int status) noexcept nogil
