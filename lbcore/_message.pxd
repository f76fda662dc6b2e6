# What is sent on, and what lbcore says itself: heads rebuilt from what was understood.
#
# Pure: bytes in, bytes out, into room that the caller gives. A writer returns how much it wrote, or
# 0 when the room does not suffice.

from libc.stdint cimport uint32_t, uint64_t

from lbcore._facts cimport facts_t
from lbcore._http1 cimport head_t

cpdef enum AnswerFlag:
    ANSWER_CLOSE = 1            # Connection: close
    ANSWER_HTTP_10 = 2          # the client speaks HTTP/1.0
    ANSWER_NO_BODY = 4          # to HEAD
    ANSWER_KEEP_ALIVE = 8       # HTTP/1.0 client that asked for it: say so

# Fills in client, trusted, secure and id, from peer and the head. `random`: 128 bits for a new id.
cdef void facts_forwarded(facts_t *facts, const uint64_t *random) noexcept nogil

# The head for the backend: request line, Host, end-to-end fields in their order and spelling,
# forwarded fields, rules of the route. `framing` and `length` say how the body will come (Framing).
# `expect`: whether Expect: 100-continue is sent on.
cdef uint32_t request_write(const facts_t *facts, int framing, uint64_t length, bint expect,
                            char *out, uint32_t room) noexcept nogil

# The head of an Upgrade request: as request_write, with Connection: upgrade and the Upgrade field.
cdef uint32_t upgrade_write(const facts_t *facts, char *out, uint32_t room) noexcept nogil

# The head for the client of a backend's response, at `base`. `extra`: whole field lines to add, with
# their CRLFs (a sticky cookie), or size 0. BODY_LENGTH with HEAD or 304 repeats what the backend
# said, if it said anything. For 1xx and 101 the head is sent on with its fields and no framing.
cdef uint32_t response_write(const facts_t *facts, const head_t *response, const char *base,
                             int framing, uint64_t length, uint32_t flags, const char *extra,
                             uint32_t extra_size, char *out, uint32_t room) noexcept nogil

# A trailer section with what may be forwarded of it, the empty line included; at least "\r\n".
cdef uint32_t trailers_write(const head_t *trailers, const char *base, char *out,
                             uint32_t room) noexcept nogil

# A whole response of lbcore's own, body included: an error as text, HTML or JSON after Accept or
# the user's page; a redirect; a fixed response. 401 carries WWW-Authenticate, 429 and 503
# Retry-After (`retry_after` in seconds, 0: none), 405 and 501 what belongs to them.
cdef uint32_t answer_write(const facts_t *facts, int status, uint32_t flags, uint32_t retry_after,
                           char *out, uint32_t room) noexcept nogil

# Room that suffices for any answer to this request: pages of the user's own can be long.
cdef uint32_t answer_room(const facts_t *facts, int status) noexcept nogil

cdef void date_write(uint64_t unix_seconds, char *out) noexcept nogil
