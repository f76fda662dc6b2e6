# What a byte may be in HTTP, and how to get over many of them fast. Inline all of it: no module.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memchr

cdef extern from *:
    """
    #include <endian.h>
    #include <string.h>
    /* Eight bytes, the first of them lowest. */
    static inline unsigned long long lb_eight(const void *at) {
        unsigned long long word;
        memcpy(&word, at, 8);
        return le64toh(word);
    }
    #define lb_lowest(mask) ((unsigned) __builtin_ctzll(mask) >> 3)
    #define lb_rare(condition) __builtin_expect(!!(condition), 0)
    #define LB_ONES 0x0101010101010101ull
    #define LB_HIGHS 0x8080808080808080ull
    #define LB_SPACES 0x2020202020202020ull

    /* IS_TOKEN, IS_UNDERSCORE, IS_HOST, IS_HEX, as below. */
    static const unsigned char lb_kind[256] = {
        ['0' ... '9'] = 13, ['A' ... 'F'] = 13, ['G' ... 'Z'] = 5, ['a' ... 'f'] = 13,
        ['g' ... 'z'] = 5, ['-'] = 5, ['.'] = 5, ['~'] = 5, ['_'] = 7, ['!'] = 1, ['#'] = 1,
        ['$'] = 1, ['%'] = 1, ['&'] = 1, [0x27] = 1, ['*'] = 1, ['+'] = 1, ['^'] = 1, ['`'] = 1,
        ['|'] = 1,
    };
    """
    uint64_t eight "lb_eight" (const void *at) noexcept nogil
    uint32_t lowest "lb_lowest" (uint64_t mask) noexcept nogil
    bint rare "lb_rare" (bint condition) noexcept nogil
    uint64_t ONES "LB_ONES"
    uint64_t HIGHS "LB_HIGHS"
    uint64_t SPACES "LB_SPACES"
    const uint8_t KIND "lb_kind" [256]

cdef enum:
    TAB = 9
    LF = 10
    CR = 13

    # What a byte may be, in KIND.
    IS_TOKEN = 1                # RFC 9110, 5.6.2
    IS_UNDERSCORE = 2
    IS_HOST = 4                 # of a name in Host
    IS_HEX = 8

# Eight bytes at once: of the marks that `below` and `equal` leave in HIGHS, the lowest is right;
# only those above a right one may be wrong.


cdef inline uint64_t below(uint64_t word, uint64_t bound) noexcept nogil:
    return (word - ONES * bound) & ~word


cdef inline uint64_t equal(uint64_t word, uint64_t byte) noexcept nogil:
    word ^= ONES * byte
    return (word - ONES) & ~word


cdef inline uint32_t value_end(const uint8_t *data, uint32_t at, uint32_t limit) noexcept nogil:
    """Where the first byte stands that no field value has, from ``at`` on; or ``limit``."""
    cdef uint64_t word, found
    while True:
        if limit - at >= 8:
            word = eight(data + at)
            found = (below(word, 0x20) | equal(word, 0x7F)) & HIGHS
            if found == 0:
                at += 8
                continue
            at += lowest(found)
        else:
            while at < limit and data[at] >= 0x20 and data[at] != 0x7F:
                at += 1
        if at == limit or data[at] != TAB:
            return at
        at += 1


cdef inline uint32_t target_end(const uint8_t *data, uint32_t at, uint32_t limit) noexcept nogil:
    """Where the first byte stands that no target has, from ``at`` on; or ``limit``."""
    cdef uint64_t word, found
    while limit - at >= 8:
        word = eight(data + at)
        found = (below(word, 0x21) | equal(word, 0x7F) | equal(word, c'#')) & HIGHS
        if found:
            return at + lowest(found)
        at += 8
    while at < limit and data[at] > 0x20 and data[at] != 0x7F and data[at] != c'#':
        at += 1
    return at


cdef inline bint blank(uint8_t byte) noexcept nogil:
    return byte == c' ' or byte == TAB


cdef inline uint8_t lower_of(uint8_t byte) noexcept nogil:
    return byte | 0x20 if c'A' <= byte <= c'Z' else byte


cdef inline bint equals_lower(const char *text, size_t size, const char *lower,
                              size_t lower_size) noexcept nogil:
    cdef size_t i
    if size != lower_size:
        return False
    for i in range(size):
        if lower_of(<uint8_t> text[i]) != <uint8_t> lower[i]:
            return False
    return True


cdef inline bint next_member(const char *value, size_t size, size_t *at, size_t *start,
                             size_t *length) noexcept nogil:
    """The list member from ``at`` on, which moves behind it; False: there is none. Members may be
    empty, and a value has at least one."""
    cdef size_t end
    cdef const char *comma
    if at[0] > size:
        return False
    start[0] = at[0]
    comma = <const char *> memchr(value + at[0], c',', size - at[0])
    end = <size_t> (comma - value) if comma != NULL else size
    at[0] = end + 1
    while start[0] < end and blank(<uint8_t> value[start[0]]):
        start[0] += 1
    while end > start[0] and blank(<uint8_t> value[end - 1]):
        end -= 1
    length[0] = end - start[0]
    return True


cdef inline bint lists_lower(const char *value, size_t size, const char *lower,
                             size_t lower_size) noexcept nogil:
    cdef size_t at = 0, start, length
    while next_member(value, size, &at, &start, &length):
        if equals_lower(value + start, length, lower, lower_size):
            return True
    return False
