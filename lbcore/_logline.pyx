# How a line of the access log looks: JSON, or what Apache and nginx call combined.
#
# A line is made in one pass, into room that is known to suffice before it begins: each text has a
# longest length, and a text that is longer when escaped is cut. All of a line is printable ASCII
# whatever a client sent, so a reader finds lines at line ends and JSON in each of them.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, strlen

from lbcore._access cimport ACCESS_JSON, NO_TIME, access_t, record_t, slice_t
from lbcore._http1 cimport RULES
from lbcore._proxy cimport endpoint_t, endpoint_text
from lbcore._scoreboard cimport (
    END_NORMAL, END_REASONS, HTTP_BAD_REQUEST, HTTP_ENDS, HTTP_OK,
)

from lbcore import _http1, _scoreboard

cdef extern from "<time.h>" nogil:
    ctypedef long time_t
    struct tm:
        pass
    tm *localtime_r(const time_t *seconds, tm *out)
    size_t strftime(char *out, size_t most, const char *format, const tm *time)

cdef enum:
    FIXED = 768                 # bytes of a line without what came from the client and the plan

ctypedef struct caps_t:         # how long texts may get, escaped; the target takes what is left
    uint32_t name
    uint32_t method
    uint32_t host
    uint32_t user
    uint32_t request_id
    uint32_t referer
    uint32_t user_agent

cdef caps_t LONG = caps_t(
    name=256, method=64, host=1024, user=256, request_id=256, referer=8192, user_agent=2048)
cdef caps_t SHORT = caps_t(
    name=96, method=32, host=255, user=64, request_id=128, referer=640, user_agent=512)


# ---- writing elements --------------------------------------------------------------------------
#
# Each writes at `at` and returns the place behind it.

cdef const char *DIGITS = (
    b"00010203040506070809101112131415161718192021222324"
    b"25262728293031323334353637383940414243444546474849"
    b"50515253545556575859606162636465666768697071727374"
    b"75767778798081828384858687888990919293949596979899")
cdef const char *HEX = b"0123456789abcdef"
cdef const char *UPPER_HEX = b"0123456789ABCDEF"


cdef inline char *text(char *at, const char *literal) noexcept nogil:
    cdef size_t size = strlen(literal)      # known to the compiler
    memcpy(at, literal, size)
    return at + size


cdef inline char *two(char *at, uint32_t value) noexcept nogil:
    memcpy(at, DIGITS + 2 * value, 2)
    return at + 2


cdef inline char *three(char *at, uint32_t value) noexcept nogil:
    at[0] = <char> (c'0' + value // 100)
    return two(at + 1, value % 100)


cdef char *number(char *at, uint64_t value) noexcept nogil:
    cdef char digits[20]
    cdef int start = 20
    while value >= 100:
        start -= 2
        memcpy(&digits[start], DIGITS + 2 * (value % 100), 2)
        value //= 100
    if value >= 10:
        start -= 2
        memcpy(&digits[start], DIGITS + 2 * value, 2)
    else:
        start -= 1
        digits[start] = <char> (c'0' + value)
    memcpy(at, &digits[start], 20 - start)
    return at + 20 - start


cdef inline char *milliseconds(char *at, uint64_t us) noexcept nogil:
    at = number(at, us // 1000)
    at[0] = c'.'
    return three(at + 1, <uint32_t> (us % 1000))


cdef inline bint plain8(uint64_t x) noexcept nogil:
    """Whether eight bytes can stand as they are: no control, no quote or backslash, ASCII.

    A byte of (y - 1) & ~y has its high bit set where y is zero, or above a zero byte.
    """
    cdef uint64_t ones = 0x0101010101010101ULL, high = 0x8080808080808080ULL
    cdef uint64_t quote = x ^ 34 * ones, backslash = x ^ 92 * ones, delete = x ^ 127 * ones
    return (x | ((x - 32 * ones) & ~x) | ((quote - ones) & ~quote)
            | ((backslash - ones) & ~backslash) | ((delete - ones) & ~delete)) & high == 0


cdef inline bint plain(uint8_t byte) noexcept nogil:
    return 32 <= byte < 127 and byte != 34 and byte != 92


cdef inline char *escaped(char *at, slice_t source, uint32_t most, bint combined,
                          bint *cut) noexcept nogil:
    """At most so many bytes; ``cut`` is set when the text had more.

    JSON: what is not printable ASCII becomes \\u00XX. Combined: \\xXX, as nginx writes it.
    """
    cdef const uint8_t *data = <const uint8_t *> source.data
    cdef const uint8_t *end = data + source.size
    cdef const char *limit = at + most
    cdef uint64_t word
    while data < end:
        if end - data >= 8 and limit - at >= 8:
            memcpy(&word, data, 8)
            if plain8(word):
                memcpy(at, &word, 8)
                data += 8
                at += 8
                continue
        if plain(data[0]):
            if at == limit:
                cut[0] = True
                return at
            at[0] = <char> data[0]
            at += 1
        elif combined:
            if limit - at < 4:
                cut[0] = True
                return at
            at = text(at, b"\\x")
            at[0] = UPPER_HEX[data[0] >> 4]
            at[1] = UPPER_HEX[data[0] & 15]
            at += 2
        elif data[0] == 34 or data[0] == 92:
            if limit - at < 2:
                cut[0] = True
                return at
            at[0] = c'\\'
            at[1] = <char> data[0]
            at += 2
        else:
            if limit - at < 6:
                cut[0] = True
                return at
            at = text(at, b"\\u00")
            at[0] = HEX[data[0] >> 4]
            at[1] = HEX[data[0] & 15]
            at += 2
        data += 1
    return at


cdef char *json_text(char *at, slice_t source, uint32_t most, bint *cut) noexcept nogil:
    return escaped(at, source, most, False, cut)


cdef char *combined_text(char *at, slice_t source, uint32_t most, bint *cut) noexcept nogil:
    if source.size == 0:
        return text(at, b"-")
    return escaped(at, source, most, True, cut)


# ---- time --------------------------------------------------------------------------------------

cdef void stamp_json(access_t *access, int64_t second) noexcept nogil:
    """YYYY-MM-DDTHH:MM:SS in UTC: days to a date as in Hinnant's chrono-compatible algorithms."""
    cdef int64_t days = second // 86400 + 719468, era, year
    cdef uint32_t rest = <uint32_t> (second % 86400), day_of_era, year_of_era, day, month
    cdef char *at = access.json_time
    era = days // 146097
    day_of_era = <uint32_t> (days - era * 146097)
    year_of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36524
                   - day_of_era // 146096) // 365
    day = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    month = (5 * day + 2) // 153
    day = day - (153 * month + 2) // 5 + 1
    month = month + 3 if month < 10 else month - 9
    year = era * 400 + year_of_era + (1 if month <= 2 else 0)
    at = two(two(at, <uint32_t> (year // 100 % 100)), <uint32_t> (year % 100))
    at = two(text(at, b"-"), month)
    at = two(text(at, b"-"), day)
    at = two(text(at, b"T"), rest // 3600)
    at = two(text(at, b":"), rest // 60 % 60)
    at = two(text(at, b":"), rest % 60)
    access.json_second = second


cdef void stamp_combined(access_t *access, int64_t second) noexcept nogil:
    """Local time, as Apache and nginx have it."""
    cdef tm parts
    cdef time_t seconds = <time_t> second
    access.combined_time[0] = 0
    if localtime_r(&seconds, &parts) != NULL:
        strftime(access.combined_time, 32, b"%d/%b/%Y:%H:%M:%S %z", &parts)
    access.combined_second = second


# ---- lines -------------------------------------------------------------------------------------

cdef const char *HTTP_REASONS[HTTP_ENDS]
cdef const char *TCP_REASONS[END_REASONS]
cdef const char *BROKEN_RULES[RULES]
_names = []                     # keeps what these point to


cdef init_words(const char **words, int count, kind):
    """Each member's name without what all have in front; empty where there is none."""
    cdef int i
    for i in range(count):
        words[i] = b""
    for name, value in kind.__members__.items():
        if value < count:
            word = name.split("_", 1)[1].lower().encode()
            _names.append(word)
            words[<int> value] = word


init_words(HTTP_REASONS, HTTP_ENDS, _scoreboard.HttpEnd)
init_words(TCP_REASONS, END_REASONS, _scoreboard.EndReason)
init_words(BROKEN_RULES, RULES, _http1.Rule)


cdef const char *reason_of(const record_t *record) noexcept nogil:
    """Why it ended; empty for an orderly end."""
    if record.http:
        if record.reason == HTTP_OK or record.reason >= HTTP_ENDS:
            return b""
        return HTTP_REASONS[record.reason]
    if record.reason == END_NORMAL or record.reason >= END_REASONS:
        return b""
    return TCP_REASONS[record.reason]


cdef inline bint same_host(const endpoint_t *a, const endpoint_t *b) noexcept nogil:
    return a.family == b.family and memcmp(a.address, b.address, 16) == 0


cdef char *json_line(char *at, access_t *access, const record_t *r, const caps_t *caps,
                     uint32_t target) noexcept nogil:
    cdef int64_t second = <int64_t> (r.started_us // 1000000)
    cdef bint cut = False
    cdef const char *reason = reason_of(r)
    if second != access.json_second:
        stamp_json(access, second)
    at = text(at, b'{"time":"')
    memcpy(at, access.json_time, 19)
    at = text(at + 19, b".")
    at = three(at, <uint32_t> (r.started_us // 1000 % 1000))
    at = text(at, b'Z","protocol":"http"') if r.http else text(at, b'Z","protocol":"tcp"')
    at = json_text(text(at, b',"listener":"'), r.listener, caps.name, &cut)
    if r.route.size:
        at = json_text(text(at, b'","route":"'), r.route, caps.name, &cut)
    if r.pool.size:
        at = json_text(text(at, b'","pool":"'), r.pool, caps.name, &cut)
    if r.backend.size:
        at = json_text(text(at, b'","backend":"'), r.backend, caps.name, &cut)
    at = text(at, b'","client":"')
    at += endpoint_text(&r.client, at)
    if r.client.port:
        at = number(text(at, b'","client_port":'), r.client.port)
    else:
        at = text(at, b'"')
    if r.peer.family and not same_host(&r.peer, &r.client):
        at = text(at, b',"peer":"')
        at += endpoint_text(&r.peer, at)
        at = text(at, b'"')
    if r.method.size:
        at = json_text(text(at, b',"method":"'), r.method, caps.method, &cut)
        at = json_text(text(at, b'","target":"'), r.target, target, &cut)
        at = text(at, b'"')
        if r.host.size:
            at = json_text(text(at, b',"host":"'), r.host, caps.host, &cut)
            at = text(at, b'"')
        at = text(at, b',"http_version":"1.1"' if r.minor else b',"http_version":"1.0"')
    if r.status:
        at = number(text(at, b',"status":'), r.status)
    at = number(text(at, b',"bytes_in":'), r.bytes_up)
    at = number(text(at, b',"bytes_out":'), r.bytes_down)
    if r.attempts:
        at = number(text(at, b',"attempts":'), r.attempts)
    if r.queue_us != NO_TIME:
        at = milliseconds(text(at, b',"queue_ms":'), r.queue_us)
    if r.connect_us != NO_TIME:
        at = milliseconds(text(at, b',"connect_ms":'), r.connect_us)
    if r.first_byte_us != NO_TIME:
        at = milliseconds(text(at, b',"first_byte_ms":'), r.first_byte_us)
    at = milliseconds(text(at, b',"total_ms":'), r.total_us)
    if reason[0]:
        at = text(text(text(at, b',"reason":"'), reason), b'"')
    if r.http and r.reason == HTTP_BAD_REQUEST and 0 < r.rule < RULES:
        at = text(text(text(at, b',"rule":"'), BROKEN_RULES[r.rule]), b'"')
    if r.tunnel:
        at = text(at, b',"tunnel":true')
    if r.user.size:
        at = text(json_text(text(at, b',"user":"'), r.user, caps.user, &cut), b'"')
    if r.referer.size:
        at = text(json_text(text(at, b',"referer":"'), r.referer, caps.referer, &cut), b'"')
    if r.user_agent.size:
        at = json_text(text(at, b',"user_agent":"'), r.user_agent, caps.user_agent, &cut)
        at = text(at, b'"')
    if r.request_id.size:
        at = json_text(text(at, b',"request_id":"'), r.request_id, caps.request_id, &cut)
        at = text(at, b'"')
    if cut:
        at = text(at, b',"cut":true')
    return text(at, b'}\n')


cdef char *combined_line(char *at, access_t *access, const record_t *r, const caps_t *caps,
                         uint32_t target) noexcept nogil:
    cdef int64_t second = <int64_t> (r.started_us // 1000000)
    cdef bint cut = False
    cdef char *status
    if second != access.combined_second:
        stamp_combined(access, second)
    at += endpoint_text(&r.client, at)
    at = combined_text(text(at, b" - "), r.user, caps.user, &cut)
    at = text(text(at, b" ["), access.combined_time)
    at = combined_text(text(at, b'] "'), r.method, caps.method, &cut)
    if r.method.size:
        at = combined_text(text(at, b" "), r.target, target, &cut)
        at = text(at, b" HTTP/1.1" if r.minor else b" HTTP/1.0")
    status = text(at, b'" ')
    at = three(status, r.status if r.status < 1000 else 0)      # 000, as nginx: none was sent
    at = number(text(at, b" "), r.bytes_down)
    at = combined_text(text(at, b' "'), r.referer, caps.referer, &cut)
    at = combined_text(text(at, b'" "'), r.user_agent, caps.user_agent, &cut)
    return text(at, b'"\n')


cdef inline uint32_t at_most(slice_t source, uint32_t cap) noexcept nogil:
    """Bytes that a text can take when each of its bytes is escaped."""
    return source.size * 6 if source.size < cap // 6 else cap


cdef uint32_t without_target(const record_t *r, const caps_t *caps) noexcept nogil:
    """Bytes that a line can take at most, but for its target."""
    return (FIXED + at_most(r.listener, caps.name) + at_most(r.route, caps.name)
            + at_most(r.pool, caps.name) + at_most(r.backend, caps.name)
            + at_most(r.method, caps.method) + at_most(r.host, caps.host)
            + at_most(r.user, caps.user) + at_most(r.request_id, caps.request_id)
            + at_most(r.referer, caps.referer) + at_most(r.user_agent, caps.user_agent))


cdef inline const caps_t *caps_of(uint32_t limit) noexcept nogil:
    return &LONG if limit >= 32768 else &SHORT


cdef uint32_t line_most(const record_t *r, uint32_t limit) noexcept nogil:
    cdef uint32_t others = without_target(r, caps_of(limit))
    return others + at_most(r.target, limit - others)


cdef char *line_write(char *at, access_t *access, const record_t *r) noexcept nogil:
    cdef const caps_t *caps = caps_of(access.limit)
    cdef uint32_t target = access.limit - without_target(r, caps)
    if access.format == ACCESS_JSON:
        return json_line(at, access, r, caps, target)
    return combined_line(at, access, r, caps, target)
