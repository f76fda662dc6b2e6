# Which route takes a request. The doors and what they promise are in _route.pxd.
#
# Hosts are looked up; what is left is a short list of routes, most specific first, whose
# conditions are tried in turn. The configuration put them in that order (_plan.pxd).

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memset

from lbcore._expressions cimport (
    expression_run, expressions_buffer, expressions_free, expressions_groups, expressions_make,
)
from lbcore._http1 cimport (
    FIELD_UNDERSCORE, MAX_FIELDS, field_t, head_t, refused_status, request_parse, same_text,
)
from lbcore._plan cimport (
    HTTP_UNDERSCORES, LISTENER_HTTP, MATCH_EQUAL, MATCH_PREFIX, MATCH_PRESENT, PATH_ANY, PATH_EXACT,
    PATH_PREFIX, cidr_t, host_t, listener_http, map_image, match_t, plan_header_t, plan_listeners,
    span_t, text_hash, text_of, text_t, unmap_image,
)
from lbcore._path cimport after_slashes, hex_value, path_byte
from lbcore._proxy cimport cidr_contains
from lbcore._template cimport host_name
from lbcore._writer cimport lower_byte

from lbcore._expressions import check_pattern  # no-cython-lint: what a route asks, one room

cdef enum:
    HOST_ROOM = 256             # longer names are in no DNS: no route has one
    LABELS = 32                 # of a host that are tried against wildcards, from the right


# ---- what a path matches -----------------------------------------------------------------------

cdef int64_t match_plain(const facts_t *facts, const route_t *route) noexcept nogil:
    """How much of the path an exact path or a prefix takes; -1: it is another one.

    Both are compared as routes see paths (_path.pxd): decoded, runs of slashes as one.
    """
    cdef const char *wanted = text_of(facts.plan, route.path)
    cdef uint32_t size = route.path.size, at = 0, i = 0
    cdef uint8_t byte = 0
    if facts.path_size == 0 or size == 0:
        return -1
    while i < size:
        byte = path_byte(wanted, size, &i)
        if at == facts.path_size or path_byte(facts.path, facts.path_size, &at) != byte:
            return -1
        if byte == c'/':
            i = after_slashes(wanted, size, i)
            at = after_slashes(facts.path, facts.path_size, at)
    if at == facts.path_size:
        return at
    if route.path_kind == PATH_PREFIX and (
            byte == c'/' or after_slashes(facts.path, facts.path_size, at) > at):
        return at
    return -1


cdef bint is_as_seen(const char *path, uint32_t size) noexcept nogil:
    """Whether routes see the path as it is."""
    cdef uint32_t i
    for i in range(size):
        if path[i] == c'%' or (path[i] == c'/' and i and path[i - 1] == c'/'):
            return False
    return True


cdef uint32_t as_seen(const char *path, uint32_t size, char *out) noexcept nogil:
    """The path as routes see it; returns its size."""
    cdef uint32_t at = 0, made = 0
    while at < size:
        out[made] = <char> path_byte(path, size, &at)
        if out[made] == c'/':
            at = after_slashes(path, size, at)
        made += 1
    return made


cdef uint32_t before_seen(const char *path, uint32_t size, uint32_t seen) noexcept nogil:
    """Where the byte stands in the path that as_seen put at ``seen``; ``size`` beyond the last."""
    cdef uint32_t at = 0, made = 0
    while at < size and made < seen:
        if path_byte(path, size, &at) == c'/':
            at = after_slashes(path, size, at)
        made += 1
    return at


cdef bint match_regex(facts_t *facts, expressions_t *expressions,
                      const route_t *route) noexcept nogil:
    """The path against a regular expression. Fills in matched and captures, for facts.path."""
    cdef const char *subject = facts.path
    cdef const size_t *groups
    cdef uint32_t size = facts.path_size, room, count, i
    cdef char *buffer
    cdef bint changed
    if facts.path_size == 0 or expressions == NULL:
        return False
    changed = not is_as_seen(subject, size)
    if changed:
        buffer = expressions_buffer(expressions, &room)
        if size > room:
            return False
        size = as_seen(subject, size, buffer)
        subject = buffer
    count = expression_run(expressions, route.path_regex, subject, size)
    if count == 0:
        return False
    groups = expressions_groups(expressions)
    facts.captures.count = count
    for i in range(count):
        facts.captures.start[i] = facts.captures.end[i] = 0
        if groups[2 * i] > size or groups[2 * i + 1] > size or groups[2 * i] > groups[2 * i + 1]:
            continue                    # a group that took no part, or \K beyond the end
        facts.captures.start[i] = <uint32_t> groups[2 * i]
        facts.captures.end[i] = <uint32_t> groups[2 * i + 1]
        if changed:
            facts.captures.start[i] = before_seen(facts.path, facts.path_size,
                                                  facts.captures.start[i])
            facts.captures.end[i] = before_seen(facts.path, facts.path_size,
                                                facts.captures.end[i])
    facts.matched = facts.captures.end[0]
    return True


# ---- other conditions --------------------------------------------------------------------------

cdef bint match_method(const facts_t *facts, span_t methods) noexcept nogil:
    cdef const text_t *method = <const text_t *> (<const char *> facts.plan + methods.at)
    # The request line is "METHOD target".
    cdef const char *own = facts.base + facts.head.target - 1 - facts.head.method_size
    cdef uint32_t i
    for i in range(methods.count):
        if method[i].size == facts.head.method_size and memcmp(
                text_of(facts.plan, method[i]), own, method[i].size) == 0:
            return True
    return methods.count == 0


cdef bint match_value(const facts_t *facts, expressions_t *expressions, const match_t *match,
                      const char *value, uint32_t size) noexcept nogil:
    cdef const char *wanted = text_of(facts.plan, match.value)
    if match.kind == MATCH_PRESENT:
        return True
    if match.kind == MATCH_EQUAL:
        return size == match.value.size and memcmp(value, wanted, size) == 0
    if match.kind == MATCH_PREFIX:
        return size >= match.value.size and memcmp(value, wanted, match.value.size) == 0
    return expression_run(expressions, match.regex, value, size) > 0


cdef bint any_field(const facts_t *facts, expressions_t *expressions,
                    const match_t *match) noexcept nogil:
    """Whether one of the fields of that name is as wanted."""
    cdef const char *name = text_of(facts.plan, match.name)
    cdef const field_t *field
    cdef uint32_t i
    for i in range(facts.head.count):
        field = &facts.head.fields[i]
        if field.flags & FIELD_UNDERSCORE and not facts.http.flags & HTTP_UNDERSCORES:
            continue                    # it is not sent on either
        if same_text(facts.base + field.name, field.name_size, name, match.name.size) \
                and match_value(facts, expressions, match, facts.base + field.value,
                                field.value_size):
            return True
    return False


cdef uint32_t decode_query(const char *text, uint32_t size, char *out) noexcept nogil:
    """``+`` and escapes decoded, as forms are; a bad escape is what it looks like."""
    cdef uint32_t at = 0, made = 0
    cdef int high, low
    while at < size:
        out[made] = c' ' if text[at] == c'+' else text[at]
        if text[at] == c'%' and at + 3 <= size:
            high = hex_value(<uint8_t> text[at + 1])
            low = hex_value(<uint8_t> text[at + 2])
            if high >= 0 and low >= 0:
                out[made] = <char> (high << 4 | low)
                at += 2
        made += 1
        at += 1
    return made


cdef bint any_query(const facts_t *facts, expressions_t *expressions,
                    const match_t *match) noexcept nogil:
    """Whether one of the query's parameters of that name is as wanted."""
    cdef const char *name = text_of(facts.plan, match.name)
    cdef const char *query = facts.base + facts.head.query
    cdef uint32_t size = facts.head.query_size, start = 0, end, equals, room, made
    cdef char *buffer
    if expressions == NULL:
        return False
    buffer = expressions_buffer(expressions, &room)
    if size > room:
        return False
    while start < size:
        end = start
        while end < size and query[end] != c'&':
            end += 1
        equals = start
        while equals < end and query[equals] != c'=':
            equals += 1
        made = decode_query(query + start, equals - start, buffer)
        if made == match.name.size and memcmp(buffer, name, made) == 0:
            made = 0
            if equals < end:
                made = decode_query(query + equals + 1, end - equals - 1, buffer)
            if match_value(facts, expressions, match, buffer, made):
                return True
        start = end + 1
    return False


cdef bint match_all(const facts_t *facts, expressions_t *expressions, span_t conditions,
                    bint queries) noexcept nogil:
    cdef const match_t *match = <const match_t *> (<const char *> facts.plan + conditions.at)
    cdef bint found
    cdef uint32_t i
    for i in range(conditions.count):
        found = (any_query(facts, expressions, &match[i]) if queries
                 else any_field(facts, expressions, &match[i]))
        if found == (match[i].negated != 0):
            return False
    return True


cdef bint takes(facts_t *facts, expressions_t *expressions, const route_t *route) noexcept nogil:
    cdef int64_t matched = 0
    if not match_method(facts, route.methods):
        return False
    if route.path_kind == PATH_EXACT or route.path_kind == PATH_PREFIX:
        matched = match_plain(facts, route)
        if matched < 0:
            return False
    if not match_all(facts, expressions, route.headers, False) \
            or not match_all(facts, expressions, route.queries, True):
        return False
    facts.matched = <uint32_t> matched
    facts.captures.count = 0
    if route.path_kind == PATH_ANY or route.path_kind == PATH_EXACT \
            or route.path_kind == PATH_PREFIX:
        return True
    return match_regex(facts, expressions, route)


# ---- hosts -------------------------------------------------------------------------------------

cdef const host_t *host_find(const facts_t *facts, const char *host,
                             uint32_t size) noexcept nogil:
    cdef const host_t *hosts = <const host_t *> (<const char *> facts.plan + facts.http.hosts.at)
    cdef uint32_t mask = facts.http.hosts.count - 1, at, _
    cdef uint64_t hash_ = text_hash(host, size)
    at = <uint32_t> hash_ & mask
    for _ in range(facts.http.hosts.count):
        if hosts[at].hash == 0:
            return NULL
        if hosts[at].hash == hash_ and hosts[at].host.size == size \
                and memcmp(text_of(facts.plan, hosts[at].host), host, size) == 0:
            return &hosts[at]
        at = (at + 1) & mask
    return NULL


cdef span_t routes_for(const facts_t *facts) noexcept nogil:
    """The routes that can take the request's host: of the host itself, or of the longest wildcard
    above it, or without any."""
    cdef char lower[HOST_ROOM]
    cdef uint32_t size, i, labels = 0
    cdef const char *host = host_name(facts, &size)
    cdef const host_t *found
    if facts.http.hosts.count == 0 or size == 0 or size > HOST_ROOM:
        return facts.http.any
    for i in range(size):
        lower[i] = lower_byte(host[i])
        labels += lower[i] == c'.'
    found = host_find(facts, lower, size)
    if found != NULL:
        return found.routes
    for i in range(1, size):
        if lower[i] != c'.':
            continue
        labels -= 1
        if labels >= LABELS:
            continue
        found = host_find(facts, lower + i, size - i)
        if found != NULL:
            return found.routes
    return facts.http.any


cdef const route_t *route_find(facts_t *facts, expressions_t *expressions) noexcept nogil:
    cdef const route_t *routes = <const route_t *> (
        <const char *> facts.plan + facts.http.routes.at)
    cdef span_t candidates = routes_for(facts)
    cdef const uint32_t *index = <const uint32_t *> (<const char *> facts.plan + candidates.at)
    cdef uint32_t i
    for i in range(candidates.count):
        if takes(facts, expressions, &routes[index[i]]):
            return &routes[index[i]]
    facts.matched = 0
    facts.captures.count = 0
    return &routes[facts.http.routes.count - 1]


# ---- who may enter -----------------------------------------------------------------------------

cdef bint in_any(const facts_t *facts, span_t networks) noexcept nogil:
    cdef const cidr_t *network = <const cidr_t *> (<const char *> facts.plan + networks.at)
    cdef uint32_t i
    for i in range(networks.count):
        if cidr_contains(&network[i], &facts.client):
            return True
    return False


cdef bint address_allowed(const facts_t *facts) noexcept nogil:
    if in_any(facts, facts.route.deny):
        return False
    return facts.route.allow.count == 0 or in_any(facts, facts.route.allow)


# ---- for Python ------------------------------------------------------------------------------

def match(image: int, listener: int, method: str, target: str, headers) -> dict:
    """Which route takes a request, as a worker decides it.

    ``image``: descriptor of a plan image. ``listener``: index of an http listener. ``target``: as
    in a request line, ``/path?query`` or a whole URL. ``headers``: (name, value) pairs; Host is
    taken from a URL if it is not among them.

    Returns ``route`` (index among the listener's), ``path`` (normalised, its escapes kept),
    ``matched`` (bytes of it that the route's path took), ``captures`` (of its expression),
    ``target`` (what the backend would be asked for) and ``exceeded`` (how often an expression
    reached its limit). Raises ValueError for a request that would be refused, and for an index
    that names no http listener.
    """
    cdef facts_t facts
    cdef head_t head
    cdef const plan_header_t *plan
    cdef expressions_t *expressions
    cdef bytes raw, scratch, out
    cdef int size
    cdef uint32_t room, i
    fields = [(name, value) for name, value in headers]
    if target[:1] not in ("/", "*") and not any(name.lower() == "host" for name, _ in fields):
        fields.insert(0, ("Host", target.partition("//")[2].partition("/")[0].partition("?")[0]))
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields)]
    raw = ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "surrogateescape")
    size = request_parse(&head, raw, len(raw), 0, 1 << 20, MAX_FIELDS)
    if size != len(raw):
        raise ValueError(f"such a request is refused with status {refused_status(size)}" if size < 0
                         else "a field's value cannot have line breaks")
    plan = map_image(image)
    try:
        if not 0 <= listener < plan.listener_count \
                or not plan_listeners(plan)[listener].flags & LISTENER_HTTP:
            raise ValueError(f"there is no http listener {listener}")
        memset(&facts, 0, sizeof(facts_t))
        facts.plan = plan
        facts.listener = &plan_listeners(plan)[listener]
        facts.http = listener_http(plan, facts.listener)
        facts.base = raw
        facts.head = &head
        scratch = bytes(len(raw))
        if not path_normalize(&facts, <char *> scratch):
            raise ValueError("such a request is refused with status 400: its path means nothing")
        expressions = expressions_make(plan)
        if expressions == NULL:
            raise MemoryError
        facts.route = route_find(&facts, expressions)
        exceeded = expressions_exceeded(expressions)
        expressions_free(expressions)
        room = <uint32_t> target_room(&facts)
        out = bytes(room)
        made = target_write(&facts, <char *> out, room)
        first = <const route_t *> (<const char *> plan + facts.http.routes.at)
        return {
            "route": facts.route - first,
            "path": as_text(facts.path[:facts.path_size]),
            "matched": facts.matched,
            "captures": [
                as_text(facts.path[facts.captures.start[i]:facts.captures.end[i]])
                for i in range(facts.captures.count)
            ],
            "target": as_text(out[:made]),
            "exceeded": exceeded,
        }
    finally:
        unmap_image(plan)


cdef as_text(bytes raw):
    return raw.decode("utf-8", "surrogateescape")
