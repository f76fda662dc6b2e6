# Who the client is, and what backends are told of it.
#
# The word of a peer in `trusted_proxies` is taken; a peer on a unix socket is trusted as soon as
# that list names anybody, since files' permissions decide who can be one. Which fields are read
# is what the listener sends on: X-Forwarded-* unless only Forwarded is configured. With both, a
# request without X-Forwarded-For is asked for Forwarded.

from libc.stdint cimport uint64_t

from lbcore._facts cimport facts_t
from lbcore._http1 cimport field_t
from lbcore._writer cimport writer_t

# Fills in client, trusted, secure and id, from peer and the head. `random`: 128 bits for a new id.
#
# client: the rightmost address that is not a trusted proxy's; behind trusted proxies only, the
# leftmost; at an element that is no address, the one before it. secure: the first element of
# X-Forwarded-Proto, or `proto` of the client's element in Forwarded, is https.
# id: the client's X-Request-ID if it is 1 to 128 visible ASCII characters, whoever sent it; else
# 32 hexadecimal digits. Whether it is sent on is for HTTP_REQUEST_ID to say.
cdef void facts_forwarded(facts_t *facts, const uint64_t *random) noexcept nogil

# Fields of the request that are not copied: bits by FieldId. What lbcore writes itself, and what a
# peer without trust says in fields of this kind.
cdef uint64_t forwarded_dropped(const facts_t *facts) noexcept nogil

# The same for fields that have no FieldId: X-Real-IP and any X-Forwarded-* of a peer without trust,
# with "_" for "-" of any peer.
cdef bint forwarded_stranger(const facts_t *facts, const field_t *field) noexcept nogil

# X-Forwarded-For, -Proto and -Host, Forwarded and X-Request-ID as configured, but for those whose
# bits are set in `skipped` (by FieldId): rules of the route write them.
cdef void forwarded_write(const facts_t *facts, uint64_t skipped, writer_t *writer) noexcept nogil
