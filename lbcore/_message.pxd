# What is sent on, and what lbcore says itself: heads rebuilt from what was understood.
#
# Pure: bytes in, bytes out, into room that the caller gives. A writer returns how much it wrote, or
# 0 when the room does not suffice.

from libc.stdint cimport uint32_t, uint64_t

from lbcore._answers cimport (
    ANSWER_CLOSE, ANSWER_HTTP_10, ANSWER_KEEP_ALIVE, ANSWER_NO_BODY, answer_room, answer_write,
    reason_of,
)
from lbcore._facts cimport facts_t
from lbcore._forwarded cimport facts_forwarded
from lbcore._http1 cimport head_t

# The head for the backend: request line, Host, end-to-end fields in their order and spelling,
# forwarded fields, rules of the route. `framing` and `length` say how the body will come (Framing).
# `expect`: whether Expect: 100-continue is sent on.
cdef uint32_t request_write(const facts_t *facts, int framing, uint64_t length, bint expect,
                            char *out, uint32_t room) noexcept nogil

# The head of an Upgrade request: as request_write, with Connection: upgrade and the Upgrade field.
# Its body, if it has one, comes as the client frames it.
cdef uint32_t upgrade_write(const facts_t *facts, char *out, uint32_t room) noexcept nogil

# Room that suffices for request_write and upgrade_write.
cdef uint32_t request_room(const facts_t *facts) noexcept nogil

# The head for the client of a backend's response, at `base`. `extra`: whole field lines to add,
# with their CRLFs (a sticky cookie), or size 0. To HEAD, and with 304, the length that the backend
# said is repeated, if it said one. Of facts, route, http and date are looked at, and what the
# route's rules for responses name: the head only for them. For 1xx and 101 the head is sent on with
# its fields and no framing: nothing is added to 1xx; Connection and Upgrade, rules and `extra` to
# 101. BODY_CLOSE implies Connection: close.
cdef uint32_t response_write(const facts_t *facts, const head_t *response, const char *base,
                             int framing, uint64_t length, uint32_t flags, const char *extra,
                             uint32_t extra_size, char *out, uint32_t room) noexcept nogil

# Room that suffices for response_write.
cdef uint32_t response_room(const facts_t *facts, const head_t *response,
                            uint32_t extra_size) noexcept nogil

# A trailer section with what may be forwarded of it, the empty line included; at least "\r\n".
cdef uint32_t trailers_write(const head_t *trailers, const char *base, char *out,
                             uint32_t room) noexcept nogil

# The 29 bytes of an IMF-fixdate (RFC 9110, 5.6.7).
cdef void date_write(uint64_t unix_seconds, char *out) noexcept nogil
