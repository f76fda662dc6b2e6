# Atomics on shared memory. Counters order nothing but themselves, so relaxed will do for them, and
# the hand-over of a plan goes through a socket. Only rates and learnt cookies hand a place from one
# key to another in memory, with acquire, release and cas64.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from *:
    """
    #include <stdint.h>
    static inline uint32_t lb_load32(const uint32_t *p)
    { return __atomic_load_n(p, __ATOMIC_RELAXED); }
    static inline uint64_t lb_load64(const uint64_t *p)
    { return __atomic_load_n(p, __ATOMIC_RELAXED); }
    static inline void lb_store32(uint32_t *p, uint32_t v)
    { __atomic_store_n(p, v, __ATOMIC_RELAXED); }
    static inline void lb_store64(uint64_t *p, uint64_t v)
    { __atomic_store_n(p, v, __ATOMIC_RELAXED); }
    static inline uint32_t lb_add32(uint32_t *p, uint32_t v)
    { return __atomic_fetch_add(p, v, __ATOMIC_RELAXED); }
    static inline void lb_add64(uint64_t *p, uint64_t v)
    { __atomic_fetch_add(p, v, __ATOMIC_RELAXED); }
    static inline uint64_t lb_acquire64(const uint64_t *p)
    { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
    static inline void lb_release64(uint64_t *p, uint64_t v)
    { __atomic_store_n(p, v, __ATOMIC_RELEASE); }
    static inline int lb_cas64(uint64_t *p, uint64_t from, uint64_t to)
    { return __atomic_compare_exchange_n(p, &from, to, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE); }
    static inline uint32_t lb_sub32(uint32_t *p, uint32_t v)
    { return __atomic_fetch_sub(p, v, __ATOMIC_RELAXED); }
    /* Adds 1 unless that would exceed limit. Never overshoots, not even for a moment: another
       worker must not see a full backend that has a place. */
    static inline int lb_add_below32(uint32_t *p, uint32_t limit) {
        uint32_t v = __atomic_load_n(p, __ATOMIC_RELAXED);
        while (v < limit)
            if (__atomic_compare_exchange_n(p, &v, v + 1, 1, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
                return 1;
        return 0;
    }
    """
    uint32_t load32 "lb_load32"(const uint32_t *p) noexcept nogil
    uint64_t load64 "lb_load64"(const uint64_t *p) noexcept nogil
    void store32 "lb_store32"(uint32_t *p, uint32_t v) noexcept nogil
    void store64 "lb_store64"(uint64_t *p, uint64_t v) noexcept nogil
    uint32_t add32 "lb_add32"(uint32_t *p, uint32_t v) noexcept nogil
    uint32_t sub32 "lb_sub32"(uint32_t *p, uint32_t v) noexcept nogil
    bint add_below32 "lb_add_below32"(uint32_t *p, uint32_t limit) noexcept nogil
    void add64 "lb_add64"(uint64_t *p, uint64_t v) noexcept nogil
    uint64_t acquire64 "lb_acquire64"(const uint64_t *p) noexcept nogil
    void release64 "lb_release64"(uint64_t *p, uint64_t v) noexcept nogil
    bint cas64 "lb_cas64"(uint64_t *p, uint64_t from_, uint64_t to) noexcept nogil
