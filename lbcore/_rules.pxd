# Fields of a head: copied, and changed by a route's rules.
#
# A rule may name any field but those that frame a message or concern one connection; the
# configuration refuses these, and here they are passed over.

from libc.stdint cimport uint32_t, uint64_t

from lbcore._facts cimport facts_t
from lbcore._http1 cimport head_t
from lbcore._plan cimport span_t
from lbcore._writer cimport writer_t

# Copies the fields of `head`, in their order and spelling, but those whose bit by FieldId is set in
# `dropped`, that have one of `flags` (FieldFlag), that a rule replaces or removes, and, with
# `request`, those that only ever deceive: Proxy, and what _forwarded.pxd calls strangers.
cdef void fields_copy(const facts_t *facts, const head_t *head, const char *base, uint64_t dropped,
                      uint32_t flags, span_t rules, bint request,
                      writer_t *writer) noexcept nogil

# Writes what rules set and add. A value that turns out empty leaves its field out.
cdef void rules_write(const facts_t *facts, span_t rules, writer_t *writer) noexcept nogil

# Room that suffices for rules_write.
cdef uint64_t rules_room(const facts_t *facts, span_t rules) noexcept nogil

# Whether a rule replaces or removes the field; `lower` is in lower case.
cdef bint rules_take(const facts_t *facts, span_t rules, const char *lower) noexcept nogil

# The same for all fields with a FieldId that lbcore itself writes: their bits.
cdef uint64_t rules_taken(const facts_t *facts, span_t rules) noexcept nogil

# Writes the value that a rule sets Host to. False, and nothing is written: none does, or to what
# could not be one.
cdef bint rules_host(const facts_t *facts, span_t rules, writer_t *writer) noexcept nogil
