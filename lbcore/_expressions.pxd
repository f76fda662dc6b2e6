# A plan's regular expressions: PCRE2, on bytes, with limits on what a match may cost.

from libc.stdint cimport uint32_t, uint64_t

from lbcore._plan cimport plan_header_t

ctypedef struct expressions_t:  # a plan's regular expressions, compiled; nobody else looks inside
    uint32_t count
    uint32_t room               # of `buffer`
    uint64_t exceeded
    char *buffer
    void *data                  # what PCRE2 matches with: groups, limits, a stack for its JIT
    void *context
    void *stack                 # NULL: a JIT's matches run on the thread's own
    void **codes                # NULL among them: matches nothing

# NULL without memory. An expression that does not compile (the configuration was checked, with the
# same library) matches nothing.
cdef expressions_t *expressions_make(const plan_header_t *plan) noexcept nogil
cdef void expressions_free(expressions_t *expressions) noexcept nogil

# How often matching was given up because an expression had cost its limit.
cdef uint64_t expressions_exceeded(const expressions_t *expressions) noexcept nogil

# How many groups of the expression are known after a match, the whole of it included (at most
# CAPTURES); 0: it does not match, or not within the limits. `expressions` may be NULL.
cdef uint32_t expression_run(expressions_t *expressions, uint32_t index, const char *subject,
                             uint32_t size) noexcept nogil

# Start and end of each group of the latest match; of one that took no part, the greatest size_t.
cdef const size_t *expressions_groups(const expressions_t *expressions) noexcept nogil

# Room for a subject that must be made first: as long as the longest head that a listener accepts.
cdef char *expressions_buffer(const expressions_t *expressions, uint32_t *room) noexcept nogil
