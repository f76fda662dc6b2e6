# HTTP/1.1 messages: heads parsed in place, bodies framed (RFC 9110, RFC 9112).
#
# Pure functions over bytes: no input or output, no memory of their own, no policy. Whatever is not
# certain to mean one thing is refused: what passes can be rebuilt canonically from head_t alone.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    MAX_FIELDS = 128            # of one head or trailer section
    HEAD_MORE = 0               # so far a head; not complete

cpdef enum Method:
    METHOD_OTHER = 0
    METHOD_GET = 1
    METHOD_HEAD = 2
    METHOD_POST = 3
    METHOD_PUT = 4
    METHOD_DELETE = 5
    METHOD_CONNECT = 6
    METHOD_OPTIONS = 7
    METHOD_TRACE = 8
    METHOD_PATCH = 9

cpdef enum TargetForm:
    FORM_ORIGIN = 0             # /path?query
    FORM_ABSOLUTE = 1           # http://host/path?query
    FORM_AUTHORITY = 2          # host:port, CONNECT only
    FORM_ASTERISK = 3           # *, OPTIONS only

cpdef enum Framing:
    BODY_NONE = 0
    BODY_LENGTH = 1             # head_t.length bytes; may be 0, when Content-Length says so
    BODY_CHUNKED = 2
    BODY_CLOSE = 3              # responses: until the connection ends

cpdef enum HeadFlag:
    HEAD_KEEP_ALIVE = 1         # another message may follow on this connection
    # Connection names upgrade, and there is an Upgrade field; in HTTP/1.1 only, and never for h2c:
    # a tunnel would hide the requests in it.
    HEAD_UPGRADE = 2
    HEAD_EXPECT = 4             # Expect: 100-continue, in HTTP/1.1
    HEAD_TRAILERS = 8           # TE: trailers
    HEAD_LENGTH_GIVEN = 16      # Content-Length was there, whatever the framing (HEAD, 304)
    HEAD_EXPECT_OTHER = 32      # Expect asks for something else, in HTTP/1.1: 417

# The rule that a request breaks. Names are those of the access log's `rule` (docs/guide/logs.md),
# without RULE_ and in small letters; they stay.
cpdef enum Rule:
    RULE_NONE = 0
    RULE_REQUEST_LINE = 1       # not "METHOD target HTTP/1.x"
    RULE_TLS = 2                # the first byte is that of a TLS handshake
    RULE_METHOD = 3
    RULE_TARGET = 4
    RULE_VERSION = 5
    RULE_LINE_TOO_LONG = 6
    RULE_HEAD_TOO_LONG = 7
    RULE_TOO_MANY_FIELDS = 8
    RULE_BARE_LF = 9
    RULE_BARE_CR = 10
    RULE_CONTROL_BYTE = 11      # in the value of a field
    RULE_FIELD_NAME = 12        # no name, or something else than a colon behind it
    RULE_FOLDED_LINE = 13
    RULE_NO_HOST = 14
    RULE_TWO_HOSTS = 15
    RULE_HOST = 16              # it is none
    RULE_HOST_DIFFERS = 17      # from the target's
    RULE_CONNECTION = 18        # it names what frames or routes the message, or too much
    RULE_BOTH_LENGTHS = 19      # Content-Length and Transfer-Encoding
    RULE_TWO_LENGTHS = 20
    RULE_LENGTH = 21            # Content-Length is no number, or too large
    RULE_CODING = 22            # Transfer-Encoding
    RULE_CHUNK = 23
    RULE_TRAILERS = 24          # too long
    RULE_PATH = 25
    RULE_EXPRESSION = 26        # the path or a field costs a regular expression its limit
    RULE_EXPECT = 27
    RULES = 28

# Fields that lbcore acts on. A field of another name is FIELD_OTHER.
cpdef enum FieldId:
    FIELD_OTHER = 0
    FIELD_HOST = 1
    FIELD_CONTENT_LENGTH = 2
    FIELD_TRANSFER_ENCODING = 3
    FIELD_CONNECTION = 4
    FIELD_KEEP_ALIVE = 5
    FIELD_PROXY_CONNECTION = 6
    FIELD_TE = 7
    FIELD_TRAILER = 8
    FIELD_UPGRADE = 9
    FIELD_EXPECT = 10
    FIELD_COOKIE = 11
    FIELD_SET_COOKIE = 12
    FIELD_AUTHORIZATION = 13
    FIELD_FORWARDED = 14
    FIELD_X_FORWARDED_FOR = 15
    FIELD_X_FORWARDED_PROTO = 16
    FIELD_X_FORWARDED_HOST = 17
    FIELD_X_REQUEST_ID = 18
    FIELD_VIA = 19
    FIELD_ACCEPT = 20
    FIELD_USER_AGENT = 21
    FIELD_REFERER = 22
    FIELD_DATE = 23
    FIELD_SERVER = 24
    FIELD_LOCATION = 25
    FIELD_CONTENT_TYPE = 26
    FIELD_X_ACCEL_BUFFERING = 27
    FIELD_ORIGIN = 28
    FIELD_RANGE = 29
    FIELD_IDS = 30

cpdef enum FieldFlag:
    FIELD_HOP = 1               # concerns one connection: hop-by-hop, or named by Connection
    FIELD_UNDERSCORE = 2        # a "_" in its name: CGI and WSGI cannot tell it from "-"

ctypedef struct field_t:        # 16 bytes; offsets count from the start of the head
    uint32_t name
    uint32_t value              # without the white space around it
    uint32_t value_size
    uint16_t name_size
    uint8_t id                  # FieldId
    uint8_t flags               # FieldFlag

ctypedef struct head_t:         # of a request, a response or trailers; scratch, made for one look
    uint32_t size               # bytes of the head, the empty line included
    uint32_t count              # of fields
    uint32_t flags              # HeadFlag
    uint16_t status             # responses
    uint8_t minor               # HTTP/1.minor; a higher minor than 1 counts as 1
    uint8_t framing             # Framing
    uint8_t method              # Method
    uint8_t form                # TargetForm
    uint16_t method_size        # the method stands at offset `start`
    uint32_t start              # 0; 2 behind an empty line
    uint64_t length             # of the body; BODY_LENGTH, or given for HEAD and 304
    uint32_t target             # as it was sent
    uint32_t target_size
    uint32_t path               # of target; the asterisk form has none (size 0)
    uint32_t path_size          # absolute form without a path: 0, and means "/"
    uint32_t query              # after the "?"; size 0 and query 0: there is no "?"
    uint32_t query_size
    uint32_t host               # authority in force: the target's, else Host's; with its port
    uint32_t host_size          # HTTP/1.0 without Host: 0
    uint32_t reason             # responses
    uint32_t reason_size
    uint8_t first[FIELD_IDS]    # 1 + index of the first field of that id, 0: there is none
    field_t fields[MAX_FIELDS]

# Parse what begins at `data`. `seen` bytes of it are known from an earlier call that said HEAD_MORE
# to hold no end of a head; they are not searched again. Returns the head's length, HEAD_MORE, or
# below 0 what refused_status and refused_rule understand: the status to refuse with (requests 400,
# 414, 431, 501, 505; responses 502), and for requests and trailers the rule that was broken. At
# most `max_size` bytes and `max_fields` fields are accepted. What can already be said of an
# incomplete head is: garbage is refused with its first line, or without one as soon as it cannot
# become a head. One empty line before a request is skipped (RFC 9112, 2.2): `head.size` counts it.
cdef int request_parse(head_t *head, const char *data, size_t size, size_t seen, uint32_t max_size,
                       uint32_t max_fields) noexcept nogil

# `method` is the one of the request (Method): what a response's framing depends on. A 1xx response
# has no body; 101 is the caller's to deal with.
cdef int response_parse(head_t *head, const char *data, size_t size, size_t seen,
                        uint32_t max_size, uint32_t max_fields, int method) noexcept nogil

# The trailer section, from behind the last chunk to its empty line: fields only. Those that must
# not be trailers (framing, routing, authentication, hop-by-hop: RFC 9110, 6.5.1) get FIELD_HOP.
cdef int trailers_parse(head_t *head, const char *data, size_t size, uint32_t max_size,
                        uint32_t max_fields) noexcept nogil

cdef enum:
    RULE_SHIFT = 10             # a status is below

cdef inline int refused_status(int result) noexcept nogil:
    return -result & ((1 << RULE_SHIFT) - 1)

cdef inline int refused_rule(int result) noexcept nogil:
    return -result >> RULE_SHIFT

cdef enum ChunkedResult:
    CHUNKED_MORE = 0            # all of it was taken, more is to come
    CHUNKED_LAST = 1            # the last chunk is behind it: trailers_parse goes on from `taken`
    CHUNKED_BAD = -1

ctypedef struct chunked_t:      # zeroed: before the first chunk; 16 bytes
    uint64_t left               # of the chunk being read
    uint16_t line               # bytes of the size line so far, extensions included
    uint8_t state
    uint8_t pad[5]

# Takes the framing out of data[0:size], in place: body bytes come to stand at its start, without
# gaps. `taken`: bytes looked at; `made`: body bytes. A size line of more than 4,096 bytes, a bare
# LF, a size beyond 2**62 or anything else that is not a chunk is CHUNKED_BAD.
cdef int chunked_decode(chunked_t *chunked, char *data, size_t size, size_t *taken,
                        size_t *made) noexcept nogil

# ASCII case-insensitive; `lower` is in lower case.
cdef bint same_text(const char *text, size_t size, const char *lower,
                    size_t lower_size) noexcept nogil

# The value of cookie `name` among the request's Cookie fields: its offset from the head's start, or
# -1; `size` is its length.
cdef int64_t cookie_find(const head_t *head, const char *base, const char *name, size_t name_size,
                         uint32_t *size) noexcept nogil

# Whether a comma-separated field value lists `lower` as a token.
cdef bint lists_token(const char *value, size_t size, const char *lower,
                      size_t lower_size) noexcept nogil
