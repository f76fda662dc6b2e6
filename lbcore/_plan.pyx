# The plan image: written once by the supervisor, mapped read-only by every worker. The layout is
# in _plan.pxd.

from libc.stdint cimport uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset
from posix.mman cimport MAP_FAILED, MAP_SHARED, PROT_READ, mmap, munmap

import fcntl
import ipaddress
import os
import socket
import struct

cdef uint64_t MAGIC = 0x6E616C706263626C    # "lbcbplan"

ALGORITHMS = {"round_robin": ROUND_ROBIN, "least_conn": LEAST_CONN, "random": RANDOM,
              "maglev": MAGLEV, "ketama": KETAMA}
MAX_UNIX_PATH = 107
ACCESS_FORMATS = {"json": 1, "combined": 2}      # AccessFormat of _access.pxd
ACTIONS = {"pool": ACTION_POOL, "redirect": ACTION_REDIRECT, "respond": ACTION_RESPOND}
FIELD_OPS = {"set": FIELD_SET, "add": FIELD_ADD, "remove": FIELD_REMOVE}
FORWARDED_FLAGS = {"none": 0, "x-forwarded": HTTP_X_FORWARDED, "rfc7239": HTTP_FORWARDED,
                   "both": HTTP_X_FORWARDED | HTTP_FORWARDED}
HASH_KEYS = {"source_ip": HASH_SOURCE, "header": HASH_HEADER, "cookie": HASH_COOKIE,
             "query": HASH_QUERY, "path": HASH_PATH, "uri": HASH_URI}
MATCH_KINDS = {"present": MATCH_PRESENT, "equal": MATCH_EQUAL, "prefix": MATCH_PREFIX,
               "regex": MATCH_REGEX}
PAGE_KINDS = {"text": (PAGE_TEXT, "text/plain; charset=utf-8"),
              "html": (PAGE_HTML, "text/html; charset=utf-8"),
              "json": (PAGE_JSON, "application/json")}
PARTS = {"text": PART_TEXT, "client_ip": PART_CLIENT_IP, "client_port": PART_CLIENT_PORT,
         "host": PART_HOST, "port": PART_PORT, "method": PART_METHOD, "scheme": PART_SCHEME,
         "path": PART_PATH, "query": PART_QUERY, "uri": PART_URI, "request_id": PART_REQUEST_ID,
         "listener": PART_LISTENER, "route": PART_ROUTE, "pool": PART_POOL,
         "backend": PART_BACKEND, "header": PART_HEADER, "cookie": PART_COOKIE,
         "capture": PART_CAPTURE, "tail": PART_TAIL}
PATH_KINDS = {"any": PATH_ANY, "exact": PATH_EXACT, "prefix": PATH_PREFIX, "regex": PATH_REGEX}
RATE_KEYS = {"source": RATE_SOURCE, "header": RATE_HEADER, "cookie": RATE_COOKIE,
             "route": RATE_ROUTE}


class ImageError(Exception):
    """The descriptor holds no plan image that this version of lbcore understands."""


def sockaddr(host: str = "", port: int = 0, path: str = "") -> bytes:
    """A ``struct sockaddr_in``, ``_in6`` or ``_un`` for a numeric host or a unix path.

    Raises ValueError when the host is not numeric or the path is longer than 107 bytes.
    """
    if path:
        raw = os.fsencode(path)
        if raw.startswith(b"@"):
            raw = b"\0" + raw[1:]
        elif len(raw) <= MAX_UNIX_PATH:
            raw += b"\0"
        if len(raw) > MAX_UNIX_PATH + 1:
            raise ValueError(f"unix socket path is longer than {MAX_UNIX_PATH} bytes: {path}")
        return struct.pack("=H", socket.AF_UNIX) + raw
    host, _, zone = host.partition("%")
    address = ipaddress.ip_address(host)
    if address.version == 4:
        return struct.pack("=HH4s8x", socket.AF_INET, socket.htons(port), address.packed)
    scope = socket.if_nametoindex(zone) if zone else 0
    return struct.pack("=HHI16sI", socket.AF_INET6, socket.htons(port), 0, address.packed, scope)


cdef class Image:
    """The bytes of an image while it is written; what is put in has its place from then on."""

    cdef bytearray data
    cdef dict texts              # bytes -> offset: a name that occurs often is stored once
    cdef dict expressions        # (pattern, anchored) -> index

    def __cinit__(self):
        self.data = bytearray()
        self.texts = {}
        self.expressions = {}

    cdef uint32_t reserve(self, size_t size) except? 0xFFFFFFFF:
        """A place, on a cache line of its own if it fills one.

        Raises ValueError beyond what 32 bits address.
        """
        cdef size_t mask = 63 if size >= 64 else 7
        cdef size_t at = (len(self.data) + mask) & ~mask
        if at + size >= 1 << 32:
            raise ValueError("plan image would exceed 4 GiB: too many backends in consistent pools")
        self.data.extend(bytes(at + size - len(self.data)))
        return <uint32_t> at

    cdef int write(self, uint32_t at, const void *value, size_t size) except -1:
        memcpy(<char *> self.data + at, value, size)
        return 0

    cdef uint32_t put(self, bytes value) except? 0xFFFFFFFF:
        cdef uint32_t at = self.reserve(len(value))
        memcpy(<char *> self.data + at, <const char *> value, len(value))
        return at

    cdef span_t span(self, list items) except *:
        """An array of structs, each as bytes."""
        cdef span_t made
        made.count = <uint32_t> len(items)
        made.at = self.put(b"".join(items)) if items else 0
        return made

    cdef text_t text(self, object value) except *:
        cdef text_t made
        raw = value if isinstance(value, bytes) else value.encode()
        made.size = <uint32_t> len(raw)
        made.at = 0
        if raw:
            at = self.texts.get(raw)
            if at is None:
                at = self.texts[raw] = len(self.data)
                if at + len(raw) >= 1 << 32:
                    raise ValueError("plan image would exceed 4 GiB")
                self.data.extend(raw)
            made.at = at
        return made

    cdef uint32_t expression(self, str pattern, bint anchored) except? 0xFFFFFFFE:
        return self.expressions.setdefault((pattern, anchored), len(self.expressions))


cdef bytes raw_text(text_t text):
    return (<char *> &text)[:sizeof(text_t)]


cdef span_t cidrs(Image image, networks) except *:
    cdef cidr_t cidr
    items = []
    for text in networks:
        network = ipaddress.ip_network(text, strict=False)
        packed = network.network_address.packed
        memset(&cidr, 0, sizeof(cidr))
        cidr.family = network.version
        cidr.bits = network.prefixlen
        memcpy(cidr.address, <const char *> packed, len(packed))
        items.append((<char *> &cidr)[:sizeof(cidr)])
    return image.span(items)


cdef uint64_t status_bits(statuses) except? 0:
    """429 is bit 63, 500 + n is bit n."""
    cdef uint64_t bits = 0
    for status in statuses:
        if status != 429 and not 500 <= status <= 562:
            raise ValueError(f"status {status} cannot be in this list: 429, and 500 to 562")
        bits |= <uint64_t> 1 << <int> (63 if status == 429 else status - 500)
    return bits


def build_image(version: int, max_pipes: int, listeners: list, pools: list,
                routes=None, access_format: int = 0) -> int:
    """Writes a plan into a new sealed memfd and returns its descriptor.

    ``listeners``: (row, ListenerPlan) pairs. ``pools``: (row, PoolPlan, members, table,
    backup_table), where members are (row, BackendPlan, sockaddr bytes), primaries first, and the
    tables are what ``_balance`` built for a consistent pool, else ``b""``. ``routes``: rows of
    routes by (listener name, route name); those not in it are numbered from 0.
    ``access_format``: an AccessFormat; http listeners log requests unless it is 0.
    """
    cdef Image image = Image()
    cdef plan_header_t header
    cdef listener_t listener
    cdef pool_t pool
    cdef expression_t expression
    memset(&header, 0, sizeof(header))
    image.reserve(sizeof(header))
    header.magic = MAGIC
    header.layout = PLAN_LAYOUT
    header.version = version
    header.listener_count = len(listeners)
    header.listeners_offset = image.reserve(len(listeners) * sizeof(listener_t))
    header.pool_count = len(pools)
    header.pools_offset = image.reserve(len(pools) * sizeof(pool_t))
    header.max_pipes = max_pipes
    header.access_format = access_format
    rows = dict(routes or {})
    for index, (row, plan) in enumerate(listeners):
        listener = make_listener(image, row, plan)
        if plan.protocol == "http":
            listener.flags |= LISTENER_HTTP
            listener.http_at = put_http(image, plan, rows, access_format != 0)
        image.write(header.listeners_offset + index * sizeof(listener_t), &listener,
                    sizeof(listener_t))
    for index, (row, plan, members, table, backup_table) in enumerate(pools):
        pool = make_pool(image, row, plan, members, table, backup_table)
        image.write(header.pools_offset + index * sizeof(pool_t), &pool, sizeof(pool_t))
        header.backend_count += <uint32_t> len(members)
    items = []
    for pattern, anchored in image.expressions:
        memset(&expression, 0, sizeof(expression))
        expression.pattern = image.text(pattern)
        expression.anchored = anchored
        items.append((<char *> &expression)[:sizeof(expression)])
    header.expressions = image.span(items)
    header.size = len(image.data)
    image.write(0, &header, sizeof(header))

    fd = os.memfd_create("lbcore-plan", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        view = memoryview(image.data)
        while view:
            view = view[os.write(fd, view):]
        seal(fd)
    except BaseException:
        os.close(fd)
        raise
    return fd


cdef listener_t make_listener(Image image, row, plan) except *:
    cdef listener_t listener
    cdef span_t trusted
    memset(&listener, 0, sizeof(listener))
    listener.row = row
    listener.pool = plan.pool if plan.pool >= 0 else NO_INDEX
    listener.flags = LISTENER_PROXY_IN if plan.proxy_protocol else 0
    listener.max_connections = plan.max_connections
    listener.max_per_source = plan.max_connections_per_source
    listener.client_idle = plan.client_idle_ms
    listener.half_closed = plan.half_closed_ms
    listener.proxy_timeout = plan.proxy_header_timeout_ms
    trusted = cidrs(image, plan.proxy_trusted)
    listener.trusted_offset = trusted.at
    listener.trusted_count = trusted.count
    listener.name = image.text(plan.name)
    return listener


cdef pool_t make_pool(Image image, row, plan, members, table, backup_table) except *:
    cdef pool_t pool
    memset(&pool, 0, sizeof(pool))
    pool.row = row
    name = plan.hash if plan.balance == "consistent" else plan.balance
    pool.algorithm = ALGORITHMS[name]
    pool.flags = POOL_KEEPALIVE if plan.keepalive else 0
    pool.send_proxy = plan.send_proxy
    pool.primary_count = sum(1 for _, b, _ in members if not b.backup)
    pool.backup_count = <uint32_t> len(members) - pool.primary_count
    pool.load_bound = round(plan.load_bound * 1000)
    pool.connect_timeout = plan.connect_timeout_ms
    pool.connect_attempts = plan.connect_attempts
    pool.connect_budget = plan.connect_budget_ms
    pool.queue_timeout = plan.queue_timeout_ms
    pool.max_queue = plan.max_queue
    pool.server_idle = plan.server_idle_ms
    pool.tcp_user_timeout = plan.tcp_user_timeout_ms
    if plan.source_transparent:
        pool.flags |= POOL_TRANSPARENT
    elif plan.source is not None:
        raw = sockaddr(plan.source.host, 0)
        pool.flags |= POOL_SOURCE_BIND
        pool.source_length = len(raw)
        memcpy(pool.source, <const char *> raw, len(raw))
    backups = False
    for _, member, _ in members:
        if backups and not member.backup:
            raise ValueError(f"pool {plan.name}: primaries must come before backups")
        backups = member.backup
    pool.backends_offset = image.span(
        [make_backend(image, r, member, at) for r, member, at in members]).at
    entry = sizeof(ring_point_t) if pool.algorithm == KETAMA else sizeof(uint16_t)
    pool.table_offset = image.put(table)
    pool.table_length = <uint32_t> (len(table) // entry)
    pool.backup_table_offset = image.put(backup_table)
    pool.backup_table_length = <uint32_t> (len(backup_table) // entry)
    pool.name = image.text(plan.name)
    pool.http_at = put_pool_http(image, plan)
    return pool


cdef bytes make_backend(Image image, row, plan, raw):
    cdef backend_t backend
    cdef bytes name = plan.name.encode()
    memset(&backend, 0, sizeof(backend))
    if len(raw) > sizeof(backend.address):
        raise ValueError(f"address of backend {plan.name} is too long")
    backend.row = row
    backend.weight = plan.weight
    backend.max_connections = plan.max_connections
    backend.address_length = len(raw)
    memcpy(backend.address, <const char *> raw, len(raw))
    backend.place = text_hash(raw, len(raw))
    backend.name = image.text(name)
    backend.name_hash = text_hash(name, len(name))
    return (<char *> &backend)[:sizeof(backend)]


# ---- http


cdef uint32_t put_pool_http(Image image, plan) except? 0xFFFFFFFF:
    cdef pool_http_t made
    cdef bytes way
    http = plan.http
    memset(&made, 0, sizeof(made))
    made.name = image.text(plan.name)
    # A PROXY header, or the client's own address, names one client for the whole connection.
    shared = plan.send_proxy == 0 and not plan.source_transparent
    made.idle_timeout = http.keepalive_idle_ms if shared and http.keepalive_connections else 0
    made.idle_most = http.keepalive_connections if shared and http.keepalive_idle_ms else 0
    made.slow_us = min(http.slow_ms * 1000, 0xFFFFFFFF)
    way = repr((plan.send_proxy, str(plan.source), plan.source_transparent)).encode()
    made.way = <uint32_t> text_hash(way, len(way))
    made.failure_statuses = status_bits(http.failure_statuses)
    made.retry_share = round(http.retry_share * 1000)
    made.hash_on = HASH_KEYS[plan.hash_on]
    made.hash_name = image.text(http.hash_name)
    if http.sticky is not None:
        made.sticky = STICKY_INSERT if http.sticky.mode == "insert" else STICKY_LEARN
        made.cookie = image.text(http.sticky.cookie)
        made.cookie_attributes = image.text(http.sticky.attributes)
        made.cookie_expiry = http.sticky.expiry_ms
        key = http.sticky.key
        if made.sticky == STICKY_INSERT and len(key) != sizeof(made.cookie_key):
            raise ValueError(f"pool {plan.name}: a key for cookies has 16 bytes")
        memcpy(made.cookie_key, <const char *> key, len(key))
    return image.put((<char *> &made)[:sizeof(made)])


cdef uint32_t put_http(Image image, plan, dict rows, bint logged) except? 0xFFFFFFFF:
    """The http part of a listener, with its routes. New routes get their rows in ``rows``."""
    cdef http_t made
    cdef page_t page
    http = plan.http
    memset(&made, 0, sizeof(made))
    made.flags = FORWARDED_FLAGS[http.forwarded]
    for on, flag in ((http.request_id, HTTP_REQUEST_ID), (http.underscores, HTTP_UNDERSCORES),
                     (http.abort_on_close, HTTP_ABORT_ON_CLOSE), (logged, HTTP_ACCESS_LOG)):
        if on:
            made.flags |= flag
    made.head_timeout = http.head_timeout_ms
    made.keepalive_timeout = http.keepalive_timeout_ms
    made.max_requests = http.max_requests
    made.max_head = http.max_head
    made.max_fields = http.max_fields
    made.name = image.text(plan.name)
    made.via = image.text(http.via)
    made.trusted = cidrs(image, http.trusted)
    routes = [*http.routes, http.default]
    items = []
    for route in routes:
        key = (plan.name, route.name)
        items.append(make_route(image, rows.setdefault(key, len(rows)), route))
    made.routes = image.span(items)
    made.any, made.hosts = host_tables(image, [route.host for route in routes])
    items = []
    for source in http.pages:
        memset(&page, 0, sizeof(page))
        page.status = source.status
        page.kind, content_type = PAGE_KINDS[source.kind]
        page.type = image.text(content_type)
        page.body = image.text(source.body)
        items.append((<char *> &page)[:sizeof(page)])
    made.pages = image.span(items)
    return image.put((<char *> &made)[:sizeof(made)])


cdef bytes make_route(Image image, row, route):
    cdef route_t made
    memset(&made, 0, sizeof(made))
    made.row = row
    for on, flag in ((route.buffer_request, ROUTE_BUFFER_REQUEST),
                     (route.buffer_response, ROUTE_BUFFER_RESPONSE),
                     (route.retry_unsafe, ROUTE_RETRY_UNSAFE),
                     (route.users is not None, ROUTE_AUTH)):
        if on:
            made.flags |= flag
    made.action = ACTIONS[route.action]
    made.status = route.status
    made.pool = route.pool if route.action == "pool" else NO_INDEX
    made.name = image.text(route.name)
    made.host = image.text(route.host)
    made.path_kind = PATH_KINDS[route.path_kind]
    made.path = image.text(route.path)
    made.path_regex = (image.expression(route.path, True) if route.path_kind == "regex"
                       else NO_INDEX)
    made.methods = image.span([raw_text(image.text(method)) for method in route.methods])
    made.headers = matches(image, route.headers)
    made.queries = matches(image, route.queries)
    made.strip_prefix = route.strip_prefix
    made.rewrite = template(image, route.rewrite)
    made.rewrite_regex = made.path_regex if route.rewrite else NO_INDEX
    made.location = template(image, route.location)
    made.type = image.text(route.type)
    made.body = image.text(route.body)
    made.request_fields = field_ops(image, route.request_fields)
    made.response_fields = field_ops(image, route.response_fields)
    made.allow = cidrs(image, route.allow)
    made.deny = cidrs(image, route.deny)
    made.users = users(image, route.users or ())
    made.realm = image.text(route.realm)
    if route.rate is not None:
        made.rate_key = RATE_KEYS[route.rate.by]
        made.rate_burst = route.rate.burst
        made.rate_interval = route.rate.interval_us
        made.rate_name = image.text(route.rate.name)
    made.max_body = route.max_body
    made.body_timeout = route.body_timeout_ms
    made.first_byte_timeout = route.first_byte_timeout_ms
    made.read_timeout = route.read_timeout_ms
    made.send_timeout = route.send_timeout_ms
    made.total_timeout = route.total_timeout_ms
    made.tunnel_timeout = route.tunnel_timeout_ms
    made.request_memory = route.request_memory
    made.response_memory = route.response_memory
    made.response_disk = route.response_disk
    made.retry_attempts = route.retry_attempts
    made.retry_statuses = status_bits(route.retry_statuses)
    return (<char *> &made)[:sizeof(made)]


cdef span_t matches(Image image, conditions) except *:
    cdef match_t made
    items = []
    for condition in conditions:
        memset(&made, 0, sizeof(made))
        made.kind = MATCH_KINDS[condition.kind]
        made.negated = condition.negated
        made.regex = NO_INDEX
        made.name = image.text(condition.name)
        if condition.kind == "regex":
            made.regex = image.expression(condition.value, False)
        made.value = image.text(condition.value)
        items.append((<char *> &made)[:sizeof(made)])
    return image.span(items)


cdef span_t template(Image image, segments) except *:
    cdef segment_t made
    items = []
    for segment in segments:
        memset(&made, 0, sizeof(made))
        made.part = PARTS[segment.part]
        made.number = segment.number
        made.text = image.text(segment.text)
        items.append((<char *> &made)[:sizeof(made)])
    return image.span(items)


cdef span_t field_ops(Image image, changes) except *:
    cdef field_op_t made
    items = []
    for change in changes:
        memset(&made, 0, sizeof(made))
        made.op = FIELD_OPS[change.action]
        made.name = image.text(change.name)
        made.lower = image.text(change.name.lower())
        made.value = template(image, change.value)
        items.append((<char *> &made)[:sizeof(made)])
    return image.span(items)


cdef span_t users(Image image, known) except *:
    cdef user_t made
    items = []
    for name, hashed in known:
        memset(&made, 0, sizeof(made))
        made.name = image.text(name)
        made.hash = terminated(image, hashed)
        items.append((<char *> &made)[:sizeof(made)])
    return image.span(items)


cdef text_t terminated(Image image, str value) except *:
    """A text with a NUL behind it, not counted: crypt(3) takes C strings."""
    cdef text_t made = image.text(value + "\0")
    made.size -= 1
    return made


cdef tuple host_tables(Image image, list hosts):
    """The spans ``any`` and ``hosts`` of a listener whose routes have these hosts, in order."""
    cdef host_t made
    cdef bytes name
    cdef uint64_t hashed
    by_pattern = {}
    for index, host in enumerate(hosts):
        by_pattern.setdefault(host, []).append(index)
    any_host = by_pattern.get("", [])
    names = dict.fromkeys(host.removeprefix("*") for host in hosts if host)
    size = 2
    while size < 2 * len(names):
        size *= 2
    places = [None] * size
    empty = bytes(sizeof(host_t))
    for host in names:
        taken = sorted(index for pattern in patterns(host)
                       for index in by_pattern.get(pattern, ()))
        name = host.encode()
        hashed = text_hash(name, len(name))
        memset(&made, 0, sizeof(made))
        made.hash = hashed
        made.host = image.text(name)
        made.routes = image.span([numbered(index) for index in taken])
        place = hashed % size
        while places[place] is not None:
            place = (place + 1) % size
        places[place] = (<char *> &made)[:sizeof(made)]
    return (image.span([numbered(index) for index in any_host]),
            image.span([place or empty for place in places]))


cdef bytes numbered(uint32_t index):
    return (<char *> &index)[:sizeof(index)]


cdef list patterns(str host):
    """The hosts of routes that take a key of the hosts table: a name, or a wildcard's suffix."""
    found = ["", host]
    at = host.find(".")
    while at >= 0:
        found.append("*" + host[at:])
        at = host.find(".", at + 1)
    return found


def seal(fd: int) -> None:
    """Nobody, the supervisor included, can change a plan that workers read."""
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS,
                fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE)


cdef const plan_header_t *map_image(int fd) except NULL:
    """Maps an image read-only and checks that it is one. Raises ImageError or OSError."""
    size = os.fstat(fd).st_size
    if size < sizeof(plan_header_t):
        raise ImageError("plan image is too short")
    cdef size_t length = size
    cdef void *base = mmap(NULL, length, PROT_READ, MAP_SHARED, fd, 0)
    if base == MAP_FAILED:
        raise OSError("cannot map the plan image")
    cdef const plan_header_t *plan = <const plan_header_t *> base
    if plan.magic != MAGIC or plan.layout != PLAN_LAYOUT or plan.size != length:
        munmap(base, length)
        raise ImageError("plan image was made by another version of lbcore")
    return plan


cdef void unmap_image(const plan_header_t *plan) noexcept nogil:
    munmap(<void *> plan, plan.size)


# ---- for Python ------------------------------------------------------------------------------

def contents(fd: int) -> dict:
    """What an image says, for tests and tools: structs as dicts, texts as bytes.

    ``listeners`` have their ``http`` (None for tcp) with ``routes``; ``pools`` have ``http``.
    Other arrays stay what they are in the image: an offset and a count. Raises ImageError.
    """
    cdef const plan_header_t *plan = map_image(fd)
    cdef const listener_t *listener = plan_listeners(plan)
    cdef const pool_t *pool = plan_pools(plan)
    cdef const route_t *route
    cdef uint32_t i, j
    try:
        raw = (<const char *> plan)[:plan.size]
        listeners, pools = [], []
        for i in range(plan.listener_count):
            found = readable(listener[i], raw)
            found["http"] = None
            if listener[i].http_at:
                found["http"] = readable(listener_http(plan, &listener[i])[0], raw)
                route = <const route_t *> (<const char *> plan
                                           + listener_http(plan, &listener[i]).routes.at)
                found["http"]["routes"] = [
                    readable(route[j], raw)
                    for j in range(listener_http(plan, &listener[i]).routes.count)]
            listeners.append(found)
        for i in range(plan.pool_count):
            found = readable(pool[i], raw)
            found["http"] = readable(pool_http(plan, &pool[i])[0], raw)
            pools.append(found)
        return {"header": readable(plan[0], raw), "listeners": listeners, "pools": pools}
    finally:
        unmap_image(plan)


def readable(value, raw: bytes):
    """A struct that became a dict, with its texts in place of where they are."""
    if not isinstance(value, dict):
        return value
    if value.keys() == {"at", "size"}:
        return raw[value["at"]:value["at"] + value["size"]]
    return {name: readable(item, raw) for name, item in value.items()}
