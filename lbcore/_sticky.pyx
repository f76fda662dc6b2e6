# The signed cookie that keeps a client with its backend.
#
# A value is 32 hexadecimal digits: a tag of 64 bits, which is SipHash-2-4 of the hash of the
# backend's name under the pool's key, and that hash, masked by the tag's own SipHash under the same
# key (a synthetic initialisation vector, as in RFC 5297). So it cannot be made up, and it does not
# give away how backends are called, which hashes of guessed names would.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from lbcore._plan cimport (
    backend_t, plan_header_t, pool_backends, pool_http_t, pool_t, text_hash,
)
from lbcore.includes.siphash cimport le64toh, siphash

cdef enum:
    VALUE = 32                  # every value is as long as this


cdef uint64_t keyed(const pool_http_t *http, uint64_t what, uint64_t purpose) noexcept nogil:
    cdef uint64_t key[2]
    cdef uint64_t said[2]
    memcpy(key, http.cookie_key, sizeof(key))
    said[0] = le64toh(what)
    said[1] = le64toh(purpose)
    return siphash(<const char *> said, sizeof(said), le64toh(key[0]), le64toh(key[1]))


cdef inline uint64_t tag_of(const pool_http_t *http, uint64_t name_hash) noexcept nogil:
    return keyed(http, name_hash, 1)


cdef inline uint64_t mask_of(const pool_http_t *http, uint64_t tag) noexcept nogil:
    return keyed(http, tag, 2)


cdef void write_hex(uint64_t number, char *out) noexcept nogil:
    cdef int n
    for n in range(16):
        out[n] = b"0123456789abcdef"[number >> (60 - 4 * n) & 15]


cdef bint read_hex(const char *text, uint64_t *number) noexcept nogil:
    """Lower case only: each value is written in one way."""
    cdef int n
    cdef uint8_t byte
    number[0] = 0
    for n in range(16):
        byte = <uint8_t> text[n]
        if byte >= c'0' and byte <= c'9':
            number[0] = number[0] << 4 | (byte - c'0')
        elif byte >= c'a' and byte <= c'f':
            number[0] = number[0] << 4 | (byte - c'a' + 10)
        else:
            return False
    return True


cdef uint32_t sticky_write(const pool_http_t *http, const backend_t *backend,
                           char *out) noexcept nogil:
    cdef uint64_t tag = tag_of(http, backend.name_hash)
    write_hex(tag, out)
    write_hex(backend.name_hash ^ mask_of(http, tag), out + 16)
    return VALUE


cdef int sticky_named(const plan_header_t *plan, const pool_t *pool,
                      uint64_t name_hash) noexcept nogil:
    cdef const backend_t *backends = pool_backends(plan, pool)
    cdef uint32_t n
    for n in range(pool.primary_count + pool.backup_count):
        if backends[n].name_hash == name_hash:
            return <int> n
    return -1


cdef int sticky_find(const plan_header_t *plan, const pool_t *pool, const pool_http_t *http,
                     const char *value, uint32_t size) noexcept nogil:
    cdef uint64_t tag, name_hash
    if size != VALUE or not read_hex(value, &tag) or not read_hex(value + 16, &name_hash):
        return -1
    name_hash ^= mask_of(http, tag)
    if tag_of(http, name_hash) ^ tag:       # of one word: its time tells nothing
        return -1
    return sticky_named(plan, pool, name_hash)


# ---- the same door for Python ------------------------------------------------------------------

cdef class Sticky:
    """A pool of backends with these names and this key of 16 bytes, for tests and tools."""
    cdef pool_t pool
    cdef pool_http_t http
    cdef char *image

    def __cinit__(self, names, key: bytes):
        cdef backend_t *backends
        if len(key) != sizeof(self.http.cookie_key):
            raise ValueError("the key of a sticky cookie has 16 bytes")
        self.image = <char *> calloc(1, (len(names) + 1) * sizeof(backend_t))
        if self.image == NULL:
            raise MemoryError
        memset(&self.pool, 0, sizeof(pool_t))
        memset(&self.http, 0, sizeof(pool_http_t))
        self.pool.backends_offset = sizeof(backend_t)
        self.pool.primary_count = <uint32_t> len(names)
        memcpy(self.http.cookie_key, <const char *> key, sizeof(self.http.cookie_key))
        backends = <backend_t *> self.image + 1
        for n, name in enumerate(names):
            backends[<size_t> n].name_hash = text_hash(name, len(name))

    def __dealloc__(self):
        free(self.image)

    def write(self, index: int) -> bytes:
        """The value that names a backend."""
        cdef char out[STICKY_VALUE]
        if not 0 <= index < self.pool.primary_count:
            raise IndexError(f"there is no backend {index}")
        return out[:sticky_write(&self.http, <backend_t *> self.image + 1 + <size_t> index, out)]

    def find(self, value: bytes) -> int:
        """The backend that a value names, or -1."""
        return sticky_find(<const plan_header_t *> self.image, &self.pool, &self.http, value,
                           <uint32_t> len(value))
