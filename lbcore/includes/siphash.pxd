# SipHash-2-4 with a key of 128 bits (Aumasson, Bernstein 2012): for what an attacker must not
# foretell or forge. The keyless SipHash-1-3 of consistent hashing is in _tables.

from libc.stdint cimport uint64_t
from libc.string cimport memcpy

cdef extern from "<endian.h>" nogil:
    uint64_t le64toh(uint64_t value)


cdef inline void sip_round(uint64_t *v) noexcept nogil:
    v[0] += v[1]
    v[2] += v[3]
    v[1] = ((v[1] << 13) | (v[1] >> 51)) ^ v[0]
    v[3] = ((v[3] << 16) | (v[3] >> 48)) ^ v[2]
    v[0] = (v[0] << 32) | (v[0] >> 32)
    v[2] += v[1]
    v[0] += v[3]
    v[1] = ((v[1] << 17) | (v[1] >> 47)) ^ v[2]
    v[3] = ((v[3] << 21) | (v[3] >> 43)) ^ v[0]
    v[2] = (v[2] << 32) | (v[2] >> 32)


cdef inline uint64_t siphash(const char *data, size_t length, uint64_t key0,
                             uint64_t key1) noexcept nogil:
    """The hash of ``length`` bytes; ``key0`` and ``key1`` are the key's halves, little-endian."""
    cdef uint64_t v[4]
    cdef uint64_t block
    cdef size_t whole = length & ~<size_t> 7
    cdef size_t at = 0
    cdef int _round
    v[0] = key0 ^ 0x736F6D6570736575ULL
    v[1] = key1 ^ 0x646F72616E646F6DULL
    v[2] = key0 ^ 0x6C7967656E657261ULL
    v[3] = key1 ^ 0x7465646279746573ULL
    while at < whole:
        memcpy(&block, data + at, 8)
        block = le64toh(block)
        v[3] ^= block
        sip_round(v)
        sip_round(v)
        v[0] ^= block
        at += 8
    block = 0
    if length > whole:
        memcpy(&block, data + whole, length - whole)
    block = le64toh(block) | (<uint64_t> length << 56)
    v[3] ^= block
    sip_round(v)
    sip_round(v)
    v[0] ^= block
    v[2] ^= 0xFF
    for _round in range(4):
        sip_round(v)
    return v[0] ^ v[1] ^ v[2] ^ v[3]
