# Understanding a request: see _request.pxd.

from libc.stdint cimport int16_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from lbcore._auth cimport AUTH_LATER, AUTH_NO, AUTH_YES, auth_check
from lbcore._balance cimport cursor_begin
from lbcore._expressions cimport expressions_exceeded, expressions_t
from lbcore._facts cimport facts_t
from lbcore._http1 cimport (
    BODY_LENGTH, BODY_NONE, FIELD_AUTHORIZATION, FIELD_REFERER, FIELD_UPGRADE, FIELD_USER_AGENT,
    HEAD_EXPECT_OTHER, HEAD_KEEP_ALIVE, HEAD_UPGRADE, METHOD_CONNECT, METHOD_HEAD, METHOD_TRACE,
    RULE_EXPECT, RULE_EXPRESSION, RULE_PATH, cookie_find, field_t, head_t, lists_token,
    request_parse, same_text,
)
from lbcore._learn cimport learn_find, learn_key
from lbcore._loop cimport clock_us
from lbcore._message cimport facts_forwarded
from lbcore._plan cimport (
    ACTION_POOL, HASH_COOKIE, HASH_HEADER, HASH_PATH, HASH_QUERY, HASH_URI, KETAMA, MAGLEV,
    RATE_COOKIE, RATE_HEADER, RATE_ROUTE, ROUTE_AUTH, STICKY_INSERT, STICKY_NONE, http_t,
    pool_backends, pool_http_t, pool_t, route_t, text_of, text_t,
)
from lbcore._proxy cimport endpoint_from_sockaddr, endpoint_text
from lbcore._rate cimport rate_key, rate_take
from lbcore._relay cimport buffer_data
from lbcore._route cimport address_allowed, path_normalize, route_find
from lbcore._scoreboard cimport (
    HTTP_BAD_REQUEST, HTTP_DENIED, HTTP_INTERNAL, HTTP_LIMITED, HTTP_OK, HTTP_TOO_LARGE,
    HTTP_UNAUTHORIZED, NO_ROW,
)
from lbcore._sticky cimport sticky_find, sticky_named
from lbcore._upload cimport UPLOAD_BAD, UPLOAD_NO_ROOM, UPLOAD_TOO_LARGE, upload_begin
from lbcore._web cimport (
    X_HEAD_ONLY, X_HTTP_10, X_KEEP_ALIVE, X_UPGRADE, http_of, listener_of, mark_t, pool_http_of,
    pool_of, route_of,
)
from lbcore.includes.linux cimport getsockname, sockaddr, sockaddr_storage, socklen_t


cdef void focus(loop_t *loop, web_t *web, exchange_t *x, bint parsed) noexcept nogil:
    cdef facts_t *facts = &web.facts
    facts.plan = x.seek.plan.image
    facts.listener = listener_of(x)
    facts.http = http_of(x)
    facts.route = NULL
    if x.route != NO_ROW:
        facts.route = route_of(x)
    facts.pool = NULL
    facts.backend = NULL
    if facts.route != NULL and facts.route.action == ACTION_POOL:
        facts.pool = pool_of(x)
        if x.seek.backend_row != NO_ROW:
            facts.backend = pool_backends(facts.plan, facts.pool) + x.seek.backend
    facts.base = buffer_data(x.request) if x.request != NULL else NULL
    facts.head = &web.head if parsed else NULL
    facts.client = x.client
    facts.peer = x.conn.peer
    facts.local = x.conn.local
    facts.date = web.date
    if x.id_size:
        memcpy(facts.id, x.id, x.id_size)
    facts.id_size = x.id_size
    web.current = x if parsed else NULL


cdef void refocus(loop_t *loop, web_t *web, exchange_t *x) noexcept nogil:
    cdef const http_t *http = http_of(x)
    if web.current == x:
        focus(loop, web, x, True)
        return
    if x.request == NULL or x.head_size == 0 or request_parse(
            &web.head, buffer_data(x.request), x.head_size, 0, http.max_head,
            http.max_fields) <= 0:
        focus(loop, web, x, False)
        return
    focus(loop, web, x, True)
    facts_forwarded(&web.facts, web.random)
    memcpy(web.facts.id, x.id, x.id_size)
    web.facts.id_size = x.id_size
    web.facts.client = x.client
    path_normalize(&web.facts, web.path)
    web.facts.route = route_find(&web.facts, <expressions_t *> x.seek.plan.expressions)
    web.facts.route = route_of(x)


cdef void mark(mark_t *out, const head_t *head, int id) noexcept nogil:
    cdef const field_t *field
    if head.first[id]:
        field = &head.fields[head.first[id] - 1]
        out.at = field.value
        out.size = field.value_size


cdef void request_begin(loop_t *loop, web_t *web, exchange_t *x,
                        verdict_t *verdict) noexcept nogil:
    cdef head_t *head = &web.head
    cdef facts_t *facts = &web.facts
    cdef const http_t *http = http_of(x)
    cdef const route_t *route
    cdef expressions_t *expressions = <expressions_t *> x.seek.plan.expressions
    cdef uint64_t exceeded
    cdef int result
    x.head_size = head.size
    x.method = head.method
    x.method_size = head.method_size
    x.framing = head.framing
    x.up_left = head.length if head.framing == BODY_LENGTH else 0
    x.target.at = head.target
    x.target.size = head.target_size
    x.host.at = head.host
    x.host.size = head.host_size
    mark(&x.referer, head, FIELD_REFERER)
    mark(&x.agent, head, FIELD_USER_AGENT)
    if head.minor == 0:
        x.flags |= X_HTTP_10
    if head.flags & HEAD_KEEP_ALIVE:
        x.flags |= X_KEEP_ALIVE
    if head.method == METHOD_HEAD:
        x.flags |= X_HEAD_ONLY
    if x.conn.leaving:
        x.flags &= ~<uint32_t> X_KEEP_ALIVE
    if http.max_requests and x.conn.requests + 1 >= http.max_requests:
        x.flags &= ~<uint32_t> X_KEEP_ALIVE
    next_random(web)
    focus(loop, web, x, True)
    facts_forwarded(facts, web.random)
    x.client = facts.client
    x.id_size = facts.id_size
    memcpy(x.id, facts.id, facts.id_size)
    verdict.status = -1
    verdict.reason = HTTP_BAD_REQUEST
    verdict.wait = 0
    if not path_normalize(facts, web.path):
        x.rule = RULE_PATH
        return
    exceeded = expressions_exceeded(expressions) if expressions != NULL else 0
    route = route_find(facts, expressions)
    if expressions != NULL and expressions_exceeded(expressions) != exceeded:
        # Bytes that cost an expression its limit do not dodge the rule behind it.
        x.rule = RULE_EXPRESSION
        return
    facts.route = route
    x.route = <uint32_t> (
        route - <const route_t *> (<const char *> x.seek.plan.image + http.routes.at))
    if (route.request_fields.count or route.response_fields.count or route.location.count
            or route.rewrite.count):
        know_local(x.conn)
        facts.local = x.conn.local
    result = upload_begin(loop, web, x)
    x.bytes_up = x.head_size + x.early
    if result == UPLOAD_BAD:
        return
    may_enter(loop, web, x, route, verdict)
    if verdict.status:
        return
    if result == UPLOAD_TOO_LARGE or (
            route.max_body and head.framing == BODY_LENGTH and head.length > route.max_body):
        verdict.status = 413
        verdict.reason = HTTP_TOO_LARGE
        return
    if result == UPLOAD_NO_ROOM:
        verdict.status = 503
        verdict.reason = HTTP_INTERNAL
        return
    if head.method == METHOD_TRACE or head.method == METHOD_CONNECT:
        verdict.status = 405
        return
    if head.flags & HEAD_EXPECT_OTHER:
        verdict.status = 417
        verdict.reason = HTTP_BAD_REQUEST
        x.rule = RULE_EXPECT
        return
    if route.action != ACTION_POOL:
        verdict.status = route.status
        return
    x.seek.pool = route.pool
    x.seek.pool_row = pool_of(x).row
    facts.pool = pool_of(x)
    if head.flags & HEAD_UPGRADE and not head.minor == 0 and may_upgrade(facts):
        x.flags |= X_UPGRADE
    begin_cursor(loop, web, x)


cdef void know_local(conn_t *conn) noexcept nogil:
    cdef sockaddr_storage local
    cdef socklen_t length = sizeof(local)
    if conn.local.family == 0 and conn.peer.family and getsockname(
            conn.client.fd, <sockaddr *> &local, &length) == 0:
        endpoint_from_sockaddr(&conn.local, &local, <uint32_t> length)


cdef void next_random(web_t *web) noexcept nogil:
    """Two numbers for a request id. They differ; that nobody can guess them is not promised."""
    cdef int i
    cdef uint64_t z
    for i in range(2):
        web.seed += 0x9E3779B97F4A7C15ULL       # splitmix64 (Steele, Lea, Flood, OOPSLA 2014)
        z = web.seed ^ web.key
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL
        web.random[i] = z ^ (z >> 31)


cdef bint may_upgrade(const facts_t *facts) noexcept nogil:
    """Not to HTTP/2 in clear text: its requests would pass by every rule here."""
    cdef const field_t *field
    cdef uint32_t i
    for i in range(facts.head.count):
        field = &facts.head.fields[i]
        if field.id == FIELD_UPGRADE and lists_token(
                facts.base + field.value, field.value_size, b"h2c", 3):
            return False
    return facts.head.framing == BODY_NONE


cdef const field_t *find_field(const facts_t *facts, text_t name) noexcept nogil:
    cdef const field_t *field
    cdef uint32_t i
    for i in range(facts.head.count):
        field = &facts.head.fields[i]
        if field.name_size == name.size and same_text(
                facts.base + field.name, field.name_size, text_of(facts.plan, name), name.size):
            return field
    return NULL


cdef uint32_t limited_key(const facts_t *facts, const exchange_t *x, const route_t *route,
                          char *text, const char **key) noexcept nogil:
    """Whose bucket pays: a key and its size. `text`: 9 bytes of room.

    An address begins with a byte that no header can have, or a client could name somebody's
    address in the header and use up that bucket. Of an IPv6 address a client has 64 bits to itself.
    """
    cdef const field_t *field
    cdef uint32_t size = 0
    cdef int64_t at
    key[0] = text
    if route.rate_key == RATE_ROUTE:
        return 0
    if route.rate_key == RATE_HEADER:
        field = find_field(facts, route.rate_name)
        if field != NULL:
            key[0] = facts.base + field.value
            return field.value_size
    elif route.rate_key == RATE_COOKIE:
        at = cookie_find(facts.head, facts.base, text_of(facts.plan, route.rate_name),
                         route.rate_name.size, &size)
        if at >= 0:
            key[0] = facts.base + at
            return size
    text[0] = 0
    size = 4 if x.client.family == 4 else 8 if x.client.family == 6 else 0
    memcpy(text + 1, x.client.address, size)
    return size + 1


cdef void may_enter(loop_t *loop, web_t *web, exchange_t *x, const route_t *route,
                    verdict_t *verdict) noexcept nogil:
    """The rules of the route: addresses, rate, password."""
    cdef facts_t *facts = &web.facts
    cdef const field_t *field
    cdef uint32_t wait, size = 0
    cdef int known
    cdef const char *key
    cdef char text[9]
    verdict.status = 0
    verdict.reason = HTTP_OK
    if (route.allow.count or route.deny.count) and not address_allowed(facts):
        verdict.status = 403
        verdict.reason = HTTP_DENIED
        return
    if route.rate_burst:
        size = limited_key(facts, x, route, text, &key)
        wait = rate_take(&loop.board, rate_key(&loop.board, route.row, key, size),
                         route.rate_interval, route.rate_burst, clock_us())
        if wait:
            verdict.status = 429
            verdict.reason = HTTP_LIMITED
            verdict.wait = (wait + 999) // 1000
            return
    if route.flags & ROUTE_AUTH:
        known = AUTH_NO
        if facts.head.first[<int> FIELD_AUTHORIZATION]:
            field = &facts.head.fields[facts.head.first[<int> FIELD_AUTHORIZATION] - 1]
            known = auth_check(web.auth, facts.plan, route, facts.base + field.value,
                               field.value_size, x.user, &size, loop.now)
        if known == AUTH_LATER:
            verdict.status = 429
            verdict.reason = HTTP_LIMITED
            verdict.wait = 1
            return
        if known != AUTH_YES:
            verdict.status = 401
            verdict.reason = HTTP_UNAUTHORIZED
            return
        x.user_size = <uint8_t> size


cdef void begin_cursor(loop_t *loop, web_t *web, exchange_t *x) noexcept nogil:
    """What the selection goes by: the key to hash, the cookie that names a backend."""
    cdef facts_t *facts = &web.facts
    cdef const pool_t *pool = facts.pool
    cdef const pool_http_t *http = pool_http_of(x)
    cdef const field_t *field
    cdef const char *key = NULL
    cdef uint32_t size = 0
    cdef int64_t at
    cdef char text[48]
    if pool.algorithm == MAGLEV or pool.algorithm == KETAMA:
        if http.hash_on == HASH_HEADER:
            field = find_field(facts, http.hash_name)
            if field != NULL:
                key = facts.base + field.value
                size = field.value_size
        elif http.hash_on == HASH_COOKIE:
            at = cookie_find(facts.head, facts.base, text_of(facts.plan, http.hash_name),
                             http.hash_name.size, &size)
            if at >= 0:
                key = facts.base + at
        elif http.hash_on == HASH_QUERY:
            key = query_find(facts, http.hash_name, &size)
        elif http.hash_on == HASH_PATH:
            key = facts.path
            size = facts.path_size
        elif http.hash_on == HASH_URI:
            key = facts.base + facts.head.target
            size = facts.head.target_size
        if key == NULL:
            # Who lacks what is hashed is told apart by address.
            size = endpoint_text(&x.client, text)
            key = text
    cursor_begin(&x.seek.cursor, pool, key, size)
    if http.sticky != STICKY_NONE:
        at = cookie_find(facts.head, facts.base, text_of(facts.plan, http.cookie),
                         http.cookie.size, &size)
        if at >= 0 and http.sticky == STICKY_INSERT:
            x.sticky = <int16_t> sticky_find(facts.plan, pool, http, facts.base + at, size)
        elif at >= 0:
            x.sticky = <int16_t> sticky_named(facts.plan, pool, learn_find(
                &loop.board, learn_key(&loop.board, pool.row, facts.base + at, size),
                http.cookie_expiry, loop.now))


cdef const char *query_find(const facts_t *facts, text_t name, uint32_t *size) noexcept nogil:
    """The value of a query parameter, as it was sent; NULL if there is none."""
    cdef const char *query = facts.base + facts.head.query
    cdef const char *wanted = text_of(facts.plan, name)
    cdef uint32_t at = 0, end, equals, i
    cdef bint same
    while at < facts.head.query_size:
        end = at
        while end < facts.head.query_size and query[end] != c"&":
            end += 1
        equals = at
        while equals < end and query[equals] != c"=":
            equals += 1
        if equals - at == name.size:
            same = True
            for i in range(name.size):
                if query[at + i] != wanted[i]:
                    same = False
                    break
            if same:
                size[0] = end - equals - 1 if equals < end else 0
                return query + (equals + 1 if equals < end else end)
        at = end + 1
    return NULL
