# The lines of a head behind its first, and what they say of the connection and the body. For the
# doors of _http1.pxd, which promise what comes of it.

from libc.stdint cimport uint8_t, uint32_t

from lbcore._bytes cimport CR, LF
from lbcore._http1 cimport (
    RULE_BARE_CR, RULE_BARE_LF, RULE_CONTROL_BYTE, RULE_SHIFT, head_t,
)

cdef enum:                      # of every parser here: where it got to, broken() below 0, or
    MORE = 0                    # HEAD_MORE

cdef enum:                      # what is known of a name, beside its FieldId
    NAME_HOP = 1                # concerns one connection
    NAME_NOT_TRAILER = 2        # RFC 9110, 6.5.1
    NAME_KEPT = 4               # also when Connection names it


cdef inline int broken(int status, int rule) noexcept nogil:
    """What a parser returns for bytes that break a rule: see refused_status and refused_rule."""
    return -(status | rule << RULE_SHIFT)


cdef inline int line_end(const uint8_t *data, uint32_t at, uint32_t limit) noexcept nogil:
    """Behind the CRLF that must stand at ``at``; MORE or broken."""
    if at == limit:
        return MORE
    if data[at] != CR:
        return broken(400, RULE_BARE_LF if data[at] == LF else RULE_CONTROL_BYTE)
    if at + 1 == limit:
        return MORE
    return <int> at + 2 if data[at + 1] == LF else broken(400, RULE_BARE_CR)


# Field lines and the empty line from `at` on, into head.fields, first and count: behind them, MORE
# or broken. `hop`: traits that make a field FIELD_HOP. `repeated`: a bit is set per FieldId
# that was found again.
cdef int fields_parse(head_t *head, const uint8_t *data, uint32_t at, uint32_t limit,
                      uint32_t max_fields, uint8_t hop, uint32_t *repeated) noexcept nogil

# HEAD_KEEP_ALIVE, HEAD_UPGRADE, and FIELD_HOP for what Connection names. 0 or broken.
cdef int connection_finish(head_t *head, const uint8_t *data) noexcept nogil

# BODY_CHUNKED or BODY_LENGTH after what the fields say, BODY_NONE for nothing. 0 or broken.
cdef int framing_finish(head_t *head, const uint8_t *data, uint32_t repeated) noexcept nogil

# HEAD_EXPECT, HEAD_EXPECT_OTHER, HEAD_TRAILERS.
cdef void wishes_finish(head_t *head, const uint8_t *data) noexcept nogil


cdef inline uint32_t found(const head_t *head, int field) noexcept nogil:
    """1 + index of the first field of that id, or 0."""
    return head.first[field]
