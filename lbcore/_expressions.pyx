# Regular expressions. The doors and what they promise are in _expressions.pxd.
#
# What is matched comes from strangers, and what is matched with from a configuration whose author
# may not know what backtracking can cost. So every match has a limit that no sensible pair of them
# comes near, and reaching it is counted.

from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc

from lbcore._facts cimport CAPTURES
from lbcore._plan cimport expression_t, listener_http, listener_t, plan_listeners, text_of

cdef extern from *:
    """
    #define PCRE2_CODE_UNIT_WIDTH 8
    #include <pcre2.h>
    """
    ctypedef const unsigned char *PCRE2_SPTR
    enum:
        PCRE2_ANCHORED
        PCRE2_DOLLAR_ENDONLY
        PCRE2_DOTALL
        PCRE2_NEVER_BACKSLASH_C
        PCRE2_NEVER_UCP
        PCRE2_NEVER_UTF
        PCRE2_JIT_COMPLETE
        PCRE2_ERROR_NOMATCH
    void *pcre2_compile(PCRE2_SPTR pattern, size_t length, uint32_t options, int *error,
                        size_t *error_offset, void *context) noexcept nogil
    void pcre2_code_free(void *code) noexcept nogil
    int pcre2_jit_compile(void *code, uint32_t options) noexcept nogil
    int pcre2_match(const void *code, PCRE2_SPTR subject, size_t length, size_t start,
                    uint32_t options, void *data, void *context) noexcept nogil
    void *pcre2_match_data_create(uint32_t pairs, void *context) noexcept nogil
    void pcre2_match_data_free(void *data) noexcept nogil
    size_t *pcre2_get_ovector_pointer(void *data) noexcept nogil
    void *pcre2_match_context_create(void *context) noexcept nogil
    void pcre2_match_context_free(void *context) noexcept nogil
    int pcre2_set_match_limit(void *context, uint32_t value) noexcept nogil
    int pcre2_set_heap_limit(void *context, uint32_t value) noexcept nogil
    void *pcre2_jit_stack_create(size_t start, size_t most, void *context) noexcept nogil
    void pcre2_jit_stack_free(void *stack) noexcept nogil
    void pcre2_jit_stack_assign(void *context, void *callback, void *data) noexcept nogil
    int pcre2_get_error_message(int error, unsigned char *out, size_t room) noexcept nogil

cdef enum:
    # A match that backtracks this often takes a few milliseconds; /a.*b/ on a path of a kilobyte
    # needs two thousand.
    MATCH_LIMIT = 200_000
    HEAP_LIMIT = 8192           # KiB; only without JIT
    JIT_STACK_START = 32 << 10
    JIT_STACK_MOST = 512 << 10
    BUFFER_LEAST = 4096
    ERROR_ROOM = 256


cdef uint32_t options_of(bint anchored) noexcept nogil:
    # Bytes, not characters: nobody promised that a request is UTF-8. "$" is the end, not also a
    # newline before it, and "." is any byte: an encoded newline is no way around a rule.
    cdef uint32_t options = (<uint32_t> PCRE2_NEVER_UTF | <uint32_t> PCRE2_NEVER_UCP
                             | <uint32_t> PCRE2_NEVER_BACKSLASH_C
                             | <uint32_t> PCRE2_DOLLAR_ENDONLY | <uint32_t> PCRE2_DOTALL)
    if anchored:
        options |= <uint32_t> PCRE2_ANCHORED
    return options


cdef uint32_t longest_head(const plan_header_t *plan) noexcept nogil:
    cdef const listener_t *listener = plan_listeners(plan)
    cdef uint32_t longest = BUFFER_LEAST, i
    for i in range(plan.listener_count):
        if listener[i].http_at and listener_http(plan, &listener[i]).max_head > longest:
            longest = listener_http(plan, &listener[i]).max_head
    return longest


cdef expressions_t *expressions_make(const plan_header_t *plan) noexcept nogil:
    cdef const expression_t *wanted = <const expression_t *> (
        <const char *> plan + plan.expressions.at)
    cdef expressions_t *made = <expressions_t *> calloc(1, sizeof(expressions_t))
    cdef uint32_t i
    cdef size_t offset
    cdef int error
    if made == NULL:
        return NULL
    made.count = plan.expressions.count
    made.room = longest_head(plan)
    made.buffer = <char *> malloc(made.room)
    made.codes = <void **> calloc(made.count + 1, sizeof(void *))
    made.data = pcre2_match_data_create(CAPTURES, NULL)
    made.context = pcre2_match_context_create(NULL)
    if made.buffer == NULL or made.codes == NULL or made.data == NULL or made.context == NULL:
        expressions_free(made)
        return NULL
    pcre2_set_match_limit(made.context, MATCH_LIMIT)
    pcre2_set_heap_limit(made.context, HEAP_LIMIT)
    if made.count:
        made.stack = pcre2_jit_stack_create(JIT_STACK_START, JIT_STACK_MOST, NULL)
        pcre2_jit_stack_assign(made.context, NULL, made.stack)
    for i in range(made.count):
        made.codes[i] = pcre2_compile(
            <PCRE2_SPTR> text_of(plan, wanted[i].pattern), wanted[i].pattern.size,
            options_of(wanted[i].anchored != 0), &error, &offset, NULL)
        if made.codes[i] != NULL:
            # Where memory cannot be made executable this fails, and matches are interpreted.
            pcre2_jit_compile(made.codes[i], PCRE2_JIT_COMPLETE)
    return made


cdef void expressions_free(expressions_t *expressions) noexcept nogil:
    cdef uint32_t i
    if expressions == NULL:
        return
    if expressions.codes != NULL:
        for i in range(expressions.count):
            pcre2_code_free(expressions.codes[i])
    pcre2_match_data_free(expressions.data)
    pcre2_match_context_free(expressions.context)
    pcre2_jit_stack_free(expressions.stack)
    free(expressions.codes)
    free(expressions.buffer)
    free(expressions)


cdef uint64_t expressions_exceeded(const expressions_t *expressions) noexcept nogil:
    return expressions.exceeded if expressions != NULL else 0


cdef uint32_t expression_run(expressions_t *expressions, uint32_t index, const char *subject,
                             uint32_t size) noexcept nogil:
    cdef int got
    if expressions == NULL or index >= expressions.count or expressions.codes[index] == NULL:
        return 0
    got = pcre2_match(expressions.codes[index], <PCRE2_SPTR> subject, size, 0, 0, expressions.data,
                      expressions.context)
    if got > 0:
        return <uint32_t> got
    if got == 0:                        # it has more groups than there is room for
        return CAPTURES
    if got != PCRE2_ERROR_NOMATCH:
        expressions.exceeded += 1
    return 0


cdef const size_t *expressions_groups(const expressions_t *expressions) noexcept nogil:
    return pcre2_get_ovector_pointer(expressions.data)


cdef char *expressions_buffer(const expressions_t *expressions, uint32_t *room) noexcept nogil:
    room[0] = expressions.room
    return expressions.buffer


# ---- for Python ------------------------------------------------------------------------------

def check_pattern(pattern: str) -> str | None:
    """What is wrong with a regular expression, and where in it; None: nothing.

    It is compiled as for a worker: by PCRE2, over bytes.
    """
    cdef bytes raw = pattern.encode()
    cdef unsigned char text[ERROR_ROOM]
    cdef size_t offset
    cdef int error
    cdef void *code = pcre2_compile(<PCRE2_SPTR> PyBytes_AS_STRING(raw), len(raw),
                                    options_of(False), &error, &offset, NULL)
    if code != NULL:
        pcre2_code_free(code)
        return None
    size = pcre2_get_error_message(error, text, ERROR_ROOM)
    said = (<bytes> (<char *> text)[:size]).decode() if size > 0 else f"error {error}"
    at = len(raw[:offset].decode("utf-8", "replace")) + 1
    return f"{said} (at character {at})"
