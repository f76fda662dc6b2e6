# Hashes of consistent hashing, for those who look a key up. The tables are built by the Python
# functions of this module and travel in the plan image.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

# SipHash-1-3 with the key (key, 0): 0 for what clients send, 1 and 2 for names of backends.
cdef uint64_t sip(const uint8_t *data, size_t length, uint64_t key) noexcept nogil

# The CRC of IEEE 802.3, as zlib and nginx compute it; `before` is that of what precedes.
cdef uint32_t crc32(const uint8_t *data, size_t length, uint32_t before) noexcept nogil

cdef inline uint64_t mix(uint64_t x) noexcept nogil:
    """A bijection whose output bits each depend on every input bit (SplitMix64's finaliser)."""
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ULL
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBULL
    return x ^ (x >> 31)
