# Heads written anew. The doors and what they promise are in _message.pxd.
#
# What is written is what was understood: framing comes from the caller, never from the source, and
# a field is copied because the parser vouches for it.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from lbcore._expressions cimport (
    expressions_free, expressions_make, expressions_t,
)
from lbcore._forwarded cimport forwarded_dropped, forwarded_write
from lbcore._http1 cimport (
    BODY_CHUNKED, BODY_CLOSE, BODY_LENGTH, BODY_NONE, FIELD_CONNECTION, FIELD_CONTENT_LENGTH,
    FIELD_DATE, FIELD_EXPECT, FIELD_FORWARDED, FIELD_HOP, FIELD_HOST, FIELD_KEEP_ALIVE,
    FIELD_PROXY_CONNECTION, FIELD_TE, FIELD_TRAILER, FIELD_TRANSFER_ENCODING, FIELD_UNDERSCORE,
    FIELD_UPGRADE, FIELD_VIA, FIELD_X_FORWARDED_FOR, FIELD_X_FORWARDED_HOST,
    FIELD_X_FORWARDED_PROTO, HEAD_LENGTH_GIVEN, HEAD_TRAILERS, MAX_FIELDS,
    METHOD_PATCH, METHOD_POST, METHOD_PUT, field_t, refused_status, request_parse, response_parse,
    trailers_parse,
)
from lbcore._plan cimport (
    HTTP_UNDERSCORES, LISTENER_HTTP, listener_http, map_image, plan_header_t,
    plan_listeners, plan_pools, pool_backends, route_t, span_t, text_of, unmap_image,
)
from lbcore._proxy cimport (
    endpoint_from_sockaddr, endpoint_of, endpoint_t, endpoint_text, endpoint_value,
)
from lbcore._route cimport (
    address_allowed, path_normalize, route_find, target_room, target_write,
)
from lbcore._rules cimport fields_copy, rules_host, rules_room, rules_taken, rules_write
from lbcore._writer cimport (
    put, put_byte, put_number, put_text, writer_begin, writer_end, writer_t,
)

cdef enum:
    ADDRESS_ROOM = 48
    # Of a head, beside the copied fields: what lbcore adds in the longest case (addresses, lengths,
    # an id), and a byte for each field that was written without a space behind its colon.
    ADDED_ROOM = 1024 + 128 + MAX_FIELDS
    GUARD = 64                  # behind the room of tests
    GUARD_BYTE = 0xA5

# Of one connection, or made anew from what is known of the message. Trailer stays only where
# trailers can come.
cdef uint64_t CONNECTION_FIELDS = (
    1ULL << FIELD_CONNECTION | 1ULL << FIELD_KEEP_ALIVE | 1ULL << FIELD_PROXY_CONNECTION
    | 1ULL << FIELD_TE | 1ULL << FIELD_UPGRADE | 1ULL << FIELD_TRANSFER_ENCODING
    | 1ULL << FIELD_CONTENT_LENGTH | 1ULL << FIELD_HOST)


# ---- dates -------------------------------------------------------------------------------------

cdef inline void two_digits(char *out, uint32_t value) noexcept nogil:
    out[0] = <char> (c'0' + value // 10)
    out[1] = <char> (c'0' + value % 10)


cdef void date_write(uint64_t unix_seconds, char *out) noexcept nogil:
    # Days to a civil date by counting years from March, so that leap days come last.
    cdef const char *days = b"ThuFriSatSunMonTueWed"
    cdef const char *months = b"JanFebMarAprMayJunJulAugSepOctNovDec"
    cdef uint64_t day = unix_seconds // 86400
    cdef uint32_t second = <uint32_t> (unix_seconds % 86400)
    cdef uint64_t shifted = day + 719468            # from 0000-03-01
    cdef uint64_t era = shifted // 146097
    cdef uint64_t of_era = shifted % 146097
    cdef uint64_t year = (of_era - of_era // 1460 + of_era // 36524 - of_era // 146096) // 365
    cdef uint64_t of_year = of_era - (365 * year + year // 4 - year // 100)
    cdef uint64_t month = (5 * of_year + 2) // 153
    cdef uint32_t date = <uint32_t> (of_year - (153 * month + 2) // 5 + 1)
    year += 400 * era + (1 if month >= 10 else 0)
    month = month - 10 if month >= 10 else month + 2        # January is 0
    memcpy(out, days + 3 * (day % 7), 3)
    memcpy(out + 3, b", ", 2)
    two_digits(out + 5, date)
    out[7] = c' '
    memcpy(out + 8, months + 3 * month, 3)
    out[11] = c' '
    two_digits(out + 12, <uint32_t> (year // 100 % 100))
    two_digits(out + 14, <uint32_t> (year % 100))
    out[16] = c' '
    two_digits(out + 17, second // 3600)
    out[19] = c':'
    two_digits(out + 20, second // 60 % 60)
    out[22] = c':'
    two_digits(out + 23, second % 60)
    memcpy(out + 25, b" GMT", 4)


# ---- requests ----------------------------------------------------------------------------------

cdef void put_backend_address(const facts_t *facts, writer_t *writer) noexcept nogil:
    """Host for a client of HTTP/1.0 that named none."""
    cdef char address[ADDRESS_ROOM]
    cdef endpoint_t endpoint
    cdef uint32_t size
    memset(&endpoint, 0, sizeof(endpoint_t))
    if facts.backend != NULL:
        endpoint_from_sockaddr(&endpoint, facts.backend.address, facts.backend.address_length)
    if endpoint.family == 0:
        put_text(writer, b"localhost")
        return
    size = endpoint_text(&endpoint, address)
    if endpoint.family == 6:
        put_byte(writer, c'[')
    put(writer, address, size)
    if endpoint.family == 6:
        put_byte(writer, c']')
    put_byte(writer, c':')
    put_number(writer, endpoint.port)


cdef void put_host(const facts_t *facts, writer_t *writer) noexcept nogil:
    put_text(writer, b"Host: ")
    if facts.route == NULL or facts.route.request_fields.count == 0 \
            or not rules_host(facts, facts.route.request_fields, writer):
        if facts.head.host_size:
            put(writer, facts.base + facts.head.host, facts.head.host_size)
        elif facts.head.first[<int> FIELD_HOST] == 0:
            put_backend_address(facts, writer)
    put_text(writer, b"\r\n")


cdef void put_via(const facts_t *facts, int minor, writer_t *writer) noexcept nogil:
    put_text(writer, b"Via: 1.1 " if minor else b"Via: 1.0 ")
    put(writer, text_of(facts.plan, facts.http.via), facts.http.via.size)
    put_text(writer, b"\r\n")


cdef void put_length(uint64_t length, writer_t *writer) noexcept nogil:
    put_text(writer, b"Content-Length: ")
    put_number(writer, length)
    put_text(writer, b"\r\n")


cdef void put_request_framing(const facts_t *facts, int framing, uint64_t length,
                              writer_t *writer) noexcept nogil:
    cdef int method = facts.head.method
    if framing == BODY_LENGTH:
        put_length(length, writer)
    elif framing == BODY_CHUNKED:
        put_text(writer, b"Transfer-Encoding: chunked\r\n")
    elif method == METHOD_POST or method == METHOD_PUT or method == METHOD_PATCH:
        put_length(0, writer)           # a server may wait for what is not said (RFC 9110, 8.6)


cdef void put_upgrade(const head_t *head, const char *base, writer_t *writer) noexcept nogil:
    cdef uint32_t first = head.first[<int> FIELD_UPGRADE]
    if first == 0:
        return
    put_text(writer, b"Connection: upgrade\r\nUpgrade: ")
    put(writer, base + head.fields[first - 1].value, head.fields[first - 1].value_size)
    put_text(writer, b"\r\n")


cdef uint32_t write_request(const facts_t *facts, int framing, uint64_t length, bint expect,
                            bint upgrade, char *out, uint32_t room) noexcept nogil:
    cdef const head_t *head = facts.head
    cdef uint64_t dropped = CONNECTION_FIELDS | 1ULL << FIELD_EXPECT
    cdef uint64_t taken = 0
    cdef uint32_t flags = FIELD_HOP
    cdef uint32_t size
    cdef span_t rules
    cdef writer_t writer
    rules.at = rules.count = 0
    if facts.route != NULL:
        rules = facts.route.request_fields
    if not facts.http.flags & HTTP_UNDERSCORES:
        flags |= FIELD_UNDERSCORE
    dropped |= forwarded_dropped(facts)
    if framing != BODY_CHUNKED:
        dropped |= 1ULL << FIELD_TRAILER
    taken = rules_taken(facts, rules)
    writer_begin(&writer, out, room)
    # The request line is "METHOD target": the method ends one byte before the target.
    put(&writer, facts.base + head.target - 1 - head.method_size, head.method_size)
    put_byte(&writer, c' ')
    size = target_write(facts, writer.at, <uint32_t> (writer.end - writer.at))
    if size == 0:
        return 0
    writer.at += size
    put_text(&writer, b" HTTP/1.1\r\n")
    put_host(facts, &writer)
    fields_copy(facts, head, facts.base, dropped, flags, rules, True, &writer)
    forwarded_write(facts, taken, &writer)
    if facts.http.via.size and not taken >> FIELD_VIA & 1:
        put_via(facts, head.minor, &writer)
    put_request_framing(facts, framing, length, &writer)
    if expect:
        put_text(&writer, b"Expect: 100-continue\r\n")
    if upgrade:
        put_upgrade(head, facts.base, &writer)
    elif head.flags & HEAD_TRAILERS:
        # Who sends TE names it in Connection, too (RFC 9110, 10.1.4).
        put_text(&writer, b"TE: trailers\r\nConnection: TE\r\n")
    rules_write(facts, rules, &writer)
    put_text(&writer, b"\r\n")
    return writer_end(&writer)


cdef uint32_t request_write(const facts_t *facts, int framing, uint64_t length, bint expect,
                            char *out, uint32_t room) noexcept nogil:
    return write_request(facts, framing, length, expect, False, out, room)


cdef uint32_t upgrade_write(const facts_t *facts, char *out, uint32_t room) noexcept nogil:
    return write_request(facts, facts.head.framing, facts.head.length, False, True, out, room)


cdef inline uint32_t as_room(uint64_t room) noexcept nogil:
    return <uint32_t> room if room < 0x7FFFFFFFULL else <uint32_t> 0x7FFFFFFF


cdef uint32_t request_room(const facts_t *facts) noexcept nogil:
    # The host may be written three times: Host, X-Forwarded-Host, and Forwarded with each byte
    # escaped.
    cdef uint64_t room = ADDED_ROOM + <uint64_t> facts.head.size + target_room(facts)
    room += 4 * <uint64_t> facts.head.host_size + facts.http.via.size
    if facts.route != NULL:             # Host is among the rules
        room += 2 * rules_room(facts, facts.route.request_fields)
    return as_room(room)


# ---- responses ---------------------------------------------------------------------------------

cdef void put_response_framing(const head_t *response, int framing, uint64_t length,
                               writer_t *writer) noexcept nogil:
    if response.status == 204:
        return                          # RFC 9110, 8.6
    if response.framing == BODY_NONE:   # 304, or to HEAD: the parser knew
        if response.flags & HEAD_LENGTH_GIVEN:
            put_length(response.length, writer)
    elif framing == BODY_LENGTH:
        put_length(length, writer)
    elif framing == BODY_CHUNKED:
        put_text(writer, b"Transfer-Encoding: chunked\r\n")
    elif framing == BODY_NONE:
        put_length(0, writer)


cdef uint32_t response_write(const facts_t *facts, const head_t *response, const char *base,
                             int framing, uint64_t length, uint32_t flags, const char *extra,
                             uint32_t extra_size, char *out, uint32_t room) noexcept nogil:
    cdef uint64_t dropped = CONNECTION_FIELDS
    cdef uint64_t taken = 0
    cdef span_t rules
    cdef writer_t writer
    rules.at = rules.count = 0
    if facts.route != NULL:
        rules = facts.route.response_fields
    if framing != BODY_CHUNKED:
        dropped |= 1ULL << FIELD_TRAILER
    writer_begin(&writer, out, room)
    put_text(&writer, b"HTTP/1.1 ")
    put_number(&writer, response.status)
    put_byte(&writer, c' ')
    put(&writer, base + response.reason, response.reason_size)
    put_text(&writer, b"\r\n")
    fields_copy(facts, response, base, dropped, FIELD_HOP, rules, False, &writer)
    if response.status == 101:
        put_upgrade(response, base, &writer)
    elif response.status >= 200:
        taken = rules_taken(facts, rules)
        if facts.date != NULL and response.first[<int> FIELD_DATE] == 0 \
                and not taken >> FIELD_DATE & 1:
            put_text(&writer, b"Date: ")
            put(&writer, facts.date, 29)
            put_text(&writer, b"\r\n")
        if facts.http.via.size and not taken >> FIELD_VIA & 1:
            put_via(facts, response.minor, &writer)
        put_response_framing(response, framing, length, &writer)
        if flags & ANSWER_CLOSE or framing == BODY_CLOSE:
            put_text(&writer, b"Connection: close\r\n")
        elif flags & ANSWER_KEEP_ALIVE:
            put_text(&writer, b"Connection: keep-alive\r\n")
    if response.status >= 200 or response.status == 101:
        if extra_size:
            put(&writer, extra, extra_size)
        rules_write(facts, rules, &writer)
    put_text(&writer, b"\r\n")
    return writer_end(&writer)


cdef uint32_t response_room(const facts_t *facts, const head_t *response,
                            uint32_t extra_size) noexcept nogil:
    cdef uint64_t room = ADDED_ROOM + <uint64_t> response.size + extra_size + facts.http.via.size
    if facts.route != NULL:
        room += rules_room(facts, facts.route.response_fields)
    return as_room(room)


# ---- trailers ----------------------------------------------------------------------------------

cdef uint64_t NO_TRAILERS = (
    CONNECTION_FIELDS | 1ULL << FIELD_FORWARDED | 1ULL << FIELD_X_FORWARDED_FOR
    | 1ULL << FIELD_X_FORWARDED_PROTO | 1ULL << FIELD_X_FORWARDED_HOST | 1ULL << FIELD_TRAILER)


cdef uint32_t trailers_write(const head_t *trailers, const char *base, char *out,
                             uint32_t room) noexcept nogil:
    cdef const field_t *field
    cdef writer_t writer
    cdef uint32_t i
    writer_begin(&writer, out, room)
    for i in range(trailers.count):
        field = &trailers.fields[i]
        # Who merges trailers into the fields of the head must not be deceived by them.
        if NO_TRAILERS >> field.id & 1 or field.flags & (FIELD_HOP | FIELD_UNDERSCORE):
            continue
        put(&writer, base + field.name, field.name_size)
        put_text(&writer, b": ")
        put(&writer, base + field.value, field.value_size)
        put_text(&writer, b"\r\n")
    put_text(&writer, b"\r\n")
    return writer_end(&writer)


# ---- for Python ------------------------------------------------------------------------------
#
# An endpoint is (address, port) with the address as 4 or 16 bytes, or None for a unix socket.

cdef class _Room:
    """Memory to write to, with a strip behind it that nobody may touch."""

    cdef char *data
    cdef uint32_t size

    def __cinit__(self, size):
        self.size = size
        self.data = <char *> malloc(<size_t> self.size + GUARD)
        if self.data == NULL:
            raise MemoryError
        memset(self.data, GUARD_BYTE, <size_t> self.size + GUARD)

    def __dealloc__(self):
        free(self.data)

    cdef object taken(self, uint32_t made):
        """What was written; None: the room did not suffice."""
        cdef uint32_t i
        for i in range(GUARD):
            if <uint8_t> self.data[self.size + i] != GUARD_BYTE:
                raise AssertionError(f"written {i + 1} bytes beyond the room")
        if made > self.size:
            raise AssertionError("more written than there is room")
        return self.data[:made] if made else None


cdef class Exchange:
    """A request at an http listener, as a worker sees it, and what is written for it.

    The writing methods take the room they may use, in bytes; without, they use what the matching
    ``*_room`` function says. They return None when it does not suffice.
    """

    cdef const plan_header_t *plan
    cdef expressions_t *expressions
    cdef facts_t facts
    cdef head_t head
    cdef bytes raw
    cdef bytes scratch
    cdef char date[29]

    def __cinit__(self, image: int, head: bytes, *, listener: int = 0, peer=None, local=None,
                  random=(0, 0), backend: int = 0, seconds: int = 0):
        """``image``: descriptor of a plan image. ``head``: of the request; b"" for one that could
        not be parsed. ``listener``: index of an http listener. ``random``: two numbers of 64 bits.
        ``backend``: index within the route's pool. ``seconds``: the time, as Unix counts it.

        Raises ValueError for what would be refused, and for an index that names nothing.
        """
        cdef int size
        cdef uint64_t bits[2]
        self.raw = head
        self.scratch = bytes(len(head) + 1)
        self.plan = map_image(image)
        if not 0 <= listener < self.plan.listener_count \
                or not plan_listeners(self.plan)[listener].flags & LISTENER_HTTP:
            raise ValueError(f"there is no http listener {listener}")
        self.expressions = expressions_make(self.plan)
        if self.expressions == NULL:
            raise MemoryError
        self.facts.plan = self.plan
        self.facts.listener = &plan_listeners(self.plan)[listener]
        self.facts.http = listener_http(self.plan, self.facts.listener)
        self.facts.peer = endpoint_of(peer)
        self.facts.local = endpoint_of(local)
        date_write(seconds, self.date)
        self.facts.date = self.date
        if head:
            size = request_parse(&self.head, self.raw, len(self.raw), 0, 1 << 20, MAX_FIELDS)
            if size <= 0:
                raise ValueError(f"the request is refused with {refused_status(size)}" if size
                                 else "the head is not complete")
            self.facts.base = self.raw
            self.facts.head = &self.head
            if not path_normalize(&self.facts, <char *> self.scratch):
                raise ValueError("the request is refused with 400: its path means nothing")
        bits[0], bits[1] = random
        facts_forwarded(&self.facts, bits)
        if head:
            self.choose(backend)

    def __dealloc__(self):
        expressions_free(self.expressions)
        if self.plan != NULL:
            unmap_image(self.plan)

    cdef int choose(self, uint32_t backend) except -1:
        self.facts.route = route_find(&self.facts, self.expressions)
        if self.facts.route.pool >= self.plan.pool_count:
            return 0
        self.facts.pool = &plan_pools(self.plan)[self.facts.route.pool]
        if backend >= self.facts.pool.primary_count + self.facts.pool.backup_count:
            return 0
        self.facts.backend = &pool_backends(self.plan, self.facts.pool)[backend]
        return 0

    @property
    def route(self) -> int:
        """Index of the route among the listener's; -1: none was looked for."""
        first = <const route_t *> (<const char *> self.plan + self.facts.http.routes.at)
        return -1 if self.facts.route == NULL else self.facts.route - first

    @property
    def client(self):
        return endpoint_value(&self.facts.client)

    @property
    def secure(self) -> bool:
        return self.facts.secure != 0

    @property
    def trusted(self) -> bool:
        return self.facts.trusted != 0

    @property
    def request_id(self) -> str:
        return self.facts.id[:self.facts.id_size].decode("ascii")

    @property
    def allowed(self) -> bool:
        """Whether allow and deny of the route let the client in."""
        return address_allowed(&self.facts)

    def target(self, room=None):
        """What the backend is asked for."""
        cdef _Room out = _Room(target_room(&self.facts) if room is None else room)
        return out.taken(target_write(&self.facts, out.data, out.size))

    def request(self, framing=None, length=None, *, expect: bool = False, upgrade: bool = False,
                room=None):
        """The head for the backend; framing and length are the client's unless given."""
        cdef _Room out = _Room(request_room(&self.facts) if room is None else room)
        if upgrade:
            return out.taken(upgrade_write(&self.facts, out.data, out.size))
        return out.taken(request_write(
            &self.facts, self.head.framing if framing is None else framing,
            self.head.length if length is None else length, expect, out.data, out.size))

    def response(self, head: bytes, framing=None, length=None, *, flags: int = 0,
                 extra: bytes = b"", room=None):
        """The head for the client of a response; framing and length are the backend's unless
        given. Raises ValueError for a response that would be refused."""
        cdef head_t response
        cdef _Room out
        if response_parse(&response, head, len(head), 0, 1 << 20, MAX_FIELDS,
                          self.head.method) != len(head):
            raise ValueError("this is no whole head of a response")
        out = _Room(response_room(&self.facts, &response, len(extra)) if room is None else room)
        return out.taken(response_write(
            &self.facts, &response, head, response.framing if framing is None else framing,
            response.length if length is None else length, flags, extra, len(extra),
            out.data, out.size))

    def answer(self, status: int, flags: int = 0, *, retry_after: int = 0, room=None):
        """A whole response of lbcore's own."""
        cdef _Room out = _Room(answer_room(&self.facts, status) if room is None else room)
        return out.taken(answer_write(&self.facts, status, flags, retry_after, out.data, out.size))

    def repeat(self, times: int, response: bytes = b"") -> int:
        """Writes the head for the backend, or the one for the client of ``response``, so often,
        to measure it; returns the bytes of all."""
        cdef _Room out = _Room(1 << 16)
        cdef head_t parsed
        cdef uint64_t total = 0
        cdef uint32_t left = times
        if response:
            if response_parse(&parsed, response, len(response), 0, 1 << 20, MAX_FIELDS,
                              self.head.method) != len(response):
                raise ValueError("this is no whole head of a response")
        while left:
            left -= 1
            if response:
                total += response_write(&self.facts, &parsed, response, parsed.framing,
                                        parsed.length, 0, NULL, 0, out.data, out.size)
            else:
                total += request_write(&self.facts, self.head.framing, self.head.length, False,
                                       out.data, out.size)
        return total


def trailers(section: bytes, room=None):
    """What is sent on of a trailer section. Raises ValueError for one that would be refused."""
    cdef head_t parsed
    cdef _Room out = _Room(len(section) + MAX_FIELDS + 2 if room is None else room)
    if trailers_parse(&parsed, section, len(section), 1 << 20, MAX_FIELDS) != len(section):
        raise ValueError("this is no whole trailer section")
    return out.taken(trailers_write(&parsed, section, out.data, out.size))


def date(seconds: int) -> str:
    """A time as Date has it."""
    cdef char out[29]
    date_write(seconds, out)
    return out[:29].decode("ascii")
