# Hosts and ports in targets and Host fields.

from libc.stdint cimport uint8_t, uint32_t

ctypedef struct authority_t:
    const uint8_t *host         # an IPv6 address has its brackets
    uint32_t host_size
    int port                    # -1: none, or an empty one

# uri-host and, behind a colon, a port, which may be empty; no user information. False: neither a
# name that DNS could have nor an address.
cdef bint authority_parse(const uint8_t *text, uint32_t size, authority_t *out) noexcept nogil

# Whether a target and a Host field name the same. `default_port`: -1 when there is none, as with
# CONNECT; then Host may leave the port out.
cdef bint hosts_agree(const authority_t *target, const authority_t *host,
                      int default_port) noexcept nogil
