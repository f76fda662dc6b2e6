# Which route takes a request, and who may enter.

from libc.stdint cimport uint32_t

from lbcore._facts cimport facts_t
from lbcore._plan cimport plan_header_t, route_t

ctypedef struct expressions_t   # a plan's regular expressions, compiled

# NULL without memory. An expression that does not compile (the configuration was checked, with the
# same library) matches nothing.
cdef expressions_t *expressions_make(const plan_header_t *plan) noexcept nogil
cdef void expressions_free(expressions_t *expressions) noexcept nogil

# Normalises the path (RFC 3986, 6.2.2: unreserved characters decoded, dot segments removed) into
# facts.path: the head's own bytes if nothing changes, else `scratch` (as long as the target).
# False: it cannot be normalised (bad escapes, %00, above the root): 400.
cdef bint path_normalize(facts_t *facts, char *scratch) noexcept nogil

# The route for facts.head at facts.http, with facts.matched and facts.captures filled in. Never
# NULL: the last route of a listener takes everything.
cdef const route_t *route_find(facts_t *facts, expressions_t *expressions) noexcept nogil

# The target as the backend sees it: path after strip_prefix and rewrite, and the query.
cdef uint32_t target_write(const facts_t *facts, char *out, uint32_t room) noexcept nogil

# Whether facts.client may enter: allow and deny of facts.route.
cdef bint address_allowed(const facts_t *facts) noexcept nogil
