# Which route takes a request, and who may enter.

from lbcore._expressions cimport (
    expressions_exceeded, expressions_free, expressions_make, expressions_t,
)
from lbcore._facts cimport facts_t
from lbcore._path cimport path_normalize, target_room, target_write
from lbcore._plan cimport route_t

# The route for facts.head at facts.http, with facts.matched and facts.captures filled in. Never
# NULL: the last route of a listener takes everything.
#
# Of the routes for the request's host, in their order, the first whose conditions hold. A host is
# compared in lower case, without port and trailing dot. `expressions` may be NULL: none matches.
# When expressions_exceeded has grown, a route that should have matched may have been passed over:
# refuse the request, lest costly bytes dodge a rule.
cdef const route_t *route_find(facts_t *facts, expressions_t *expressions) noexcept nogil

# Whether facts.client may enter: allow and deny of facts.route. A client on a unix socket is in no
# network: where there is an allow list, it stays outside.
cdef bint address_allowed(const facts_t *facts) noexcept nogil
