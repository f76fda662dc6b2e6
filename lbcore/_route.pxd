# Which route takes a request, and who may enter.

from libc.stdint cimport uint32_t, uint64_t

from lbcore._expressions cimport (
    expressions_exceeded, expressions_free, expressions_make, expressions_t,
)
from lbcore._facts cimport facts_t
from lbcore._plan cimport route_t

# Normalises the path (RFC 3986, 6.2.2: unreserved characters decoded, dot segments removed) into
# facts.path: the head's own bytes if nothing changes, else `scratch` (as long as the target).
# False: it cannot be normalised (bad escapes, %00, above the root): 400.
#
# Runs of slashes stay: an application may mean them. Routes see each of them as one slash, so that
# "//admin" does not pass by a rule on "/admin". The path of an asterisk or authority has size 0.
cdef bint path_normalize(facts_t *facts, char *scratch) noexcept nogil

# The route for facts.head at facts.http, with facts.matched and facts.captures filled in. Never
# NULL: the last route of a listener takes everything.
#
# Of the routes for the request's host, in their order, the first whose conditions hold. A host is
# compared in lower case, without port and trailing dot. `expressions` may be NULL: none matches.
# When expressions_exceeded has grown, a route that should have matched may have been passed over:
# refuse the request, lest costly bytes dodge a rule.
cdef const route_t *route_find(facts_t *facts, expressions_t *expressions) noexcept nogil

# The target as the backend sees it: path after strip_prefix and rewrite, and the query. A path
# made by a rewrite is normalised again, so that what a capture holds cannot climb out of it.
cdef uint32_t target_write(const facts_t *facts, char *out, uint32_t room) noexcept nogil

# Room that suffices for target_write.
cdef uint64_t target_room(const facts_t *facts) noexcept nogil

# Whether facts.client may enter: allow and deny of facts.route. A client on a unix socket is in no
# network: where there is an allow list, it stays outside.
cdef bint address_allowed(const facts_t *facts) noexcept nogil
