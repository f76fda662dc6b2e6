# Hosts and ports. The doors are in _authority.pxd.

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memchr

from lbcore._bytes cimport IS_HEX, IS_HOST, KIND, lower_of


cdef bint ipv4_valid(const uint8_t *text, uint32_t size) noexcept nogil:
    cdef uint32_t at = 0, octet, value, start
    for octet in range(4):
        if octet:
            if at == size or text[at] != c'.':
                return False
            at += 1
        start = at
        value = 0
        while at < size and at - start < 3 and c'0' <= text[at] <= c'9':
            value = value * 10 + (text[at] - <uint8_t> c'0')
            at += 1
        if at == start or value > 255 or (text[start] == c'0' and at - start > 1):
            return False
    return at == size


cdef bint ipv6_valid(const uint8_t *text, uint32_t size) noexcept nogil:
    """RFC 3986, 3.2.2: without a zone."""
    cdef uint32_t at = 0, start, groups = 0
    cdef bint gap = False
    if size >= 2 and text[0] == c':' and text[1] == c':':
        if size == 2:
            return True
        gap = True
        at = 2
    while groups < 8:
        start = at
        while at < size and KIND[text[at]] & IS_HEX:
            at += 1
        if at < size and text[at] == c'.':
            return ((groups < 6 if gap else groups == 6)
                    and ipv4_valid(text + start, size - start))
        if at == start or at - start > 4:
            return False
        groups += 1
        if at == size:
            return gap if groups < 8 else not gap
        if text[at] != c':' or at + 1 == size:
            return False
        at += 1
        if text[at] == c':':
            if gap:
                return False
            gap = True
            at += 1
            if at == size:
                return groups < 8
    return False


cdef bint authority_parse(const uint8_t *text, uint32_t size, authority_t *out) noexcept nogil:
    cdef uint32_t at = 0, port = 0, start
    cdef const uint8_t *bracket
    out.host = text
    out.port = -1
    if size and text[0] == c'[':
        bracket = <const uint8_t *> memchr(text, c']', size)
        if bracket == NULL or not ipv6_valid(text + 1, <uint32_t> (bracket - text) - 1):
            return False
        at = <uint32_t> (bracket - text) + 1
    else:
        while at < size and KIND[text[at]] & IS_HOST:
            at += 1
    out.host_size = at
    if at == 0:
        return False
    if at == size:
        return True
    if text[at] != c':' or size - at > 6:
        return False
    at += 1
    start = at
    while at < size:
        if not c'0' <= text[at] <= c'9':
            return False
        port = port * 10 + (text[at] - <uint8_t> c'0')
        at += 1
    if port > 0xFFFF:
        return False
    if at > start:
        out.port = <int> port
    return True


cdef bint hosts_agree(const authority_t *target, const authority_t *host,
                      int default_port) noexcept nogil:
    cdef uint32_t i
    cdef int ours = target.port if target.port >= 0 else default_port
    cdef int theirs = host.port if host.port >= 0 else default_port
    if target.host_size != host.host_size:
        return False
    for i in range(host.host_size):
        if lower_of(target.host[i]) != lower_of(host.host[i]):
            return False
    return ours == theirs or theirs < 0
