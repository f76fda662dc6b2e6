# PROXY protocol versions 1 and 2, and addresses in a form that outlives sockaddr kinds.
#
# Pure functions over bytes: no input or output, no allocation. The protocol is specified by
# HAProxy's doc/proxy-protocol.txt (2020/03/05).

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from lbcore._plan cimport cidr_t

cdef enum:
    PROXY_MORE = 0              # so far a header; not complete
    PROXY_MALFORMED = -1        # whatever follows, this is no header
    PROXY_MAX = 4096            # longest header accepted, TLVs included: bounds what is buffered
    PROXY_OUT_MAX = 108         # longest header written

ctypedef struct endpoint_t:     # 20 bytes
    uint8_t family              # 4, 6; 0: unknown or a unix socket
    uint8_t pad
    uint16_t port               # host order
    uint8_t address[16]         # network order; IPv4 in the first 4

# Length of the complete header at the start of `data` (> 0), PROXY_MORE or PROXY_MALFORMED.
# Never PROXY_MORE for PROXY_MAX bytes or more. Endpoints are written only with a complete header
# that names TCP over IPv4 or IPv6; all others (LOCAL, UNKNOWN, UNSPEC, datagrams, unix) leave them
# as they were, so that they keep naming the connection itself.
cdef int proxy_parse(const uint8_t *data, size_t length, endpoint_t *source,
                     endpoint_t *destination) noexcept nogil

# Writes a header of version 1 or 2 to `out` (PROXY_OUT_MAX bytes); returns its length. Endpoints of
# different or unknown families become `PROXY UNKNOWN` or a LOCAL header.
cdef int proxy_build(int version, const endpoint_t *source, const endpoint_t *destination,
                     uint8_t *out) noexcept nogil

# `length` is what accept or getpeername gave; anything but a whole sockaddr_in or _in6 is family 0.
cdef void endpoint_from_sockaddr(
    endpoint_t *out, const void *sockaddr_, uint32_t length) noexcept nogil

# Writes a sockaddr_in or _in6 to `out` (28 bytes), with port 0 unless `keep_port`; returns its
# length, 0 for family 0. A link-local address has lost its interface (scope 0).
cdef uint32_t endpoint_to_sockaddr(
    const endpoint_t *endpoint, bint keep_port, void *out) noexcept nogil

# The numeric address as nginx's $remote_addr has it, "unix:" for family 0, with a NUL, to `out`
# (48 bytes); returns the length without the NUL.
cdef uint32_t endpoint_text(const endpoint_t *endpoint, char *out) noexcept nogil

# IPv4 networks also contain IPv4-mapped IPv6 addresses. Nothing contains family 0.
cdef bint cidr_contains(const cidr_t *cidr, const endpoint_t *endpoint) noexcept nogil

# For the doors of tests and tools: an endpoint is (address, port) with the address as 4 or 16
# bytes, or None for family 0.
cdef endpoint_t endpoint_of(value) except *
cdef endpoint_value(const endpoint_t *endpoint)
