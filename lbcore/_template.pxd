# Templates of the configuration, filled in with what is known of a request.

from libc.stdint cimport uint32_t, uint64_t

from lbcore._facts cimport facts_t
from lbcore._plan cimport span_t
from lbcore._writer cimport writer_t

cdef enum TemplatePurpose:
    TEMPLATE_FIELD = 0          # a field's value: no byte that could end its line
    TEMPLATE_TARGET = 1         # a request target: what a target cannot hold is percent-encoded
    TEMPLATE_LOCATION = 2       # a URI reference: that, and bytes beyond ASCII

cdef void template_write(const facts_t *facts, span_t segments, int purpose,
                         writer_t *writer) noexcept nogil

# Room that suffices for template_write.
cdef uint64_t template_room(const facts_t *facts, span_t segments) noexcept nogil

# The host of the authority in force, as the client spelled it: without port and trailing dot.
# Size 0: it named none.
cdef const char *host_name(const facts_t *facts, uint32_t *size) noexcept nogil
