# Answers of lbcore's own. The doors and what they promise are in _answers.pxd.
#
# Nothing that a client sent stands in a body: what could be reflected is left out, and the request
# id, which the client may have chosen, is escaped for where it stands.

from libc.stdint cimport uint32_t, uint64_t

from lbcore._rules cimport rules_room, rules_take, rules_write
from lbcore._http1 cimport FIELD_ACCEPT, head_t, same_text
from lbcore._plan cimport (
    ACTION_REDIRECT, ACTION_RESPOND, HTTP_REQUEST_ID, PAGE_HTML, PAGE_JSON, PAGE_TEXT, PART_TEXT,
    page_t, segment_t, span_t, text_of, text_t,
)
from lbcore._template cimport TEMPLATE_LOCATION, template_room, template_write
from lbcore._writer cimport (
    put, put_byte, put_number, put_text, writer_begin, writer_end, writer_t,
)

cdef enum:
    BODY_ROOM = 4096            # of a body made here: text, and an id with every byte escaped
    HEAD_ROOM = 1024            # of a head made here, without what users wrote
    ROOM_MOST = 0x7FFFFFFF

ctypedef struct weight_t:       # how welcome a kind of page is
    uint32_t quality            # q in thousandths
    uint32_t exact              # 3: named, 2: type/*, 1: */*, 0: not at all

ctypedef struct body_t:
    text_t type                 # Content-Type of the user's; size 0: `kind` says it
    int kind                    # PageKind; -1: there is no body, and no Content-Type
    const char *data
    uint32_t size


# ---- words -------------------------------------------------------------------------------------

cdef const char *reason_of(int status) noexcept nogil:
    if status == 200:
        return b"OK"
    elif status == 201:
        return b"Created"
    elif status == 202:
        return b"Accepted"
    elif status == 203:
        return b"Non-Authoritative Information"
    elif status == 204:
        return b"No Content"
    elif status == 205:
        return b"Reset Content"
    elif status == 206:
        return b"Partial Content"
    elif status == 207:
        return b"Multi-Status"
    elif status == 208:
        return b"Already Reported"
    elif status == 226:
        return b"IM Used"
    elif status == 300:
        return b"Multiple Choices"
    elif status == 301:
        return b"Moved Permanently"
    elif status == 302:
        return b"Found"
    elif status == 303:
        return b"See Other"
    elif status == 304:
        return b"Not Modified"
    elif status == 305:
        return b"Use Proxy"
    elif status == 307:
        return b"Temporary Redirect"
    elif status == 308:
        return b"Permanent Redirect"
    elif status == 400:
        return b"Bad Request"
    elif status == 401:
        return b"Unauthorized"
    elif status == 402:
        return b"Payment Required"
    elif status == 403:
        return b"Forbidden"
    elif status == 404:
        return b"Not Found"
    elif status == 405:
        return b"Method Not Allowed"
    elif status == 406:
        return b"Not Acceptable"
    elif status == 407:
        return b"Proxy Authentication Required"
    elif status == 408:
        return b"Request Timeout"
    elif status == 409:
        return b"Conflict"
    elif status == 410:
        return b"Gone"
    elif status == 411:
        return b"Length Required"
    elif status == 412:
        return b"Precondition Failed"
    elif status == 413:
        return b"Content Too Large"
    elif status == 414:
        return b"URI Too Long"
    elif status == 415:
        return b"Unsupported Media Type"
    elif status == 416:
        return b"Range Not Satisfiable"
    elif status == 417:
        return b"Expectation Failed"
    elif status == 418:
        return b"I'm a teapot"
    elif status == 421:
        return b"Misdirected Request"
    elif status == 422:
        return b"Unprocessable Content"
    elif status == 423:
        return b"Locked"
    elif status == 424:
        return b"Failed Dependency"
    elif status == 425:
        return b"Too Early"
    elif status == 426:
        return b"Upgrade Required"
    elif status == 428:
        return b"Precondition Required"
    elif status == 429:
        return b"Too Many Requests"
    elif status == 431:
        return b"Request Header Fields Too Large"
    elif status == 451:
        return b"Unavailable For Legal Reasons"
    elif status == 500:
        return b"Internal Server Error"
    elif status == 501:
        return b"Not Implemented"
    elif status == 502:
        return b"Bad Gateway"
    elif status == 503:
        return b"Service Unavailable"
    elif status == 504:
        return b"Gateway Timeout"
    elif status == 505:
        return b"HTTP Version Not Supported"
    elif status == 506:
        return b"Variant Also Negotiates"
    elif status == 507:
        return b"Insufficient Storage"
    elif status == 508:
        return b"Loop Detected"
    elif status == 511:
        return b"Network Authentication Required"
    return b"Unknown"


cdef const char *detail_of(int status) noexcept nogil:
    """A sentence for people, without any byte that HTML or JSON would have to escape."""
    if status == 400:
        return b"The request could not be understood."
    elif status == 401:
        return b"A user name and a password are needed here."
    elif status == 403:
        return b"This request is not allowed."
    elif status == 404:
        return b"There is nothing at this address."
    elif status == 405:
        return b"This method cannot be used here."
    elif status == 408:
        return b"The request took too long to arrive."
    elif status == 413:
        return b"The body of the request is larger than what is accepted here."
    elif status == 414:
        return b"The address of the request is too long."
    elif status == 417:
        return b"What the request expects cannot be done."
    elif status == 429:
        return b"Too many requests have come. Please wait a moment and try again."
    elif status == 431:
        return b"The header fields of the request are too large."
    elif status == 500:
        return b"Something went wrong while the request was processed."
    elif status == 501:
        return b"The request needs something that is not available here."
    elif status == 502:
        return b"The application did not give a valid answer."
    elif status == 503:
        return b"The application is not available right now. Please try again in a moment."
    elif status == 504:
        return b"The application did not answer in time."
    elif status == 505:
        return b"This version of HTTP is not spoken here."
    return b""


# ---- Accept ------------------------------------------------------------------------------------

cdef uint32_t quality(const char *text, uint32_t size) noexcept nogil:
    """``q`` among a media range's parameters, in thousandths; 1000 when there is none."""
    cdef uint32_t at = 0, value, unit
    while at < size:
        while at < size and (text[at] == c';' or text[at] == c' ' or text[at] == c'\t'):
            at += 1
        if at + 2 < size and (text[at] == c'q' or text[at] == c'Q') and text[at + 1] == c'=':
            at += 2
            value = 1000 if text[at] == c'1' else 0
            at += 1
            if value == 0 and at < size and text[at] == c'.':
                at += 1
                unit = 100
                while at < size and unit and c'0' <= text[at] <= c'9':
                    value += unit * (text[at] - c'0')
                    unit //= 10
                    at += 1
            return value
        while at < size and text[at] != c';':
            at += 1
    return 1000


cdef void weigh_range(weight_t *weight, uint32_t exact, uint32_t worth) noexcept nogil:
    """The most specific range that matches decides (RFC 9110, 12.5.1)."""
    if exact > weight.exact:
        weight.exact = exact
        weight.quality = worth
    elif exact == weight.exact and worth > weight.quality:
        weight.quality = worth


cdef void weigh_list(weight_t *weights, const char *value, uint32_t size) noexcept nogil:
    cdef uint32_t at = 0, start, end, length, worth
    cdef const char *range_
    while at < size:
        while at < size and (value[at] == c',' or value[at] == c' ' or value[at] == c'\t'):
            at += 1
        start = at
        while at < size and value[at] != c',':
            at += 1
        end = start
        while end < at and value[end] != c';' and value[end] != c' ' and value[end] != c'\t':
            end += 1
        worth = quality(value + end, at - end)
        range_ = value + start
        length = end - start
        if same_text(range_, length, b"text/html", 9) \
                or same_text(range_, length, b"application/xhtml+xml", 21):
            weigh_range(&weights[<int> PAGE_HTML], 3, worth)
        elif same_text(range_, length, b"application/json", 16) \
                or same_text(range_, length, b"application/problem+json", 24):
            weigh_range(&weights[<int> PAGE_JSON], 3, worth)
        elif same_text(range_, length, b"text/plain", 10):
            weigh_range(&weights[<int> PAGE_TEXT], 3, worth)
        elif same_text(range_, length, b"text/*", 6):
            weigh_range(&weights[<int> PAGE_HTML], 2, worth)
            weigh_range(&weights[<int> PAGE_TEXT], 2, worth)
        elif same_text(range_, length, b"application/*", 13):
            weigh_range(&weights[<int> PAGE_JSON], 2, worth)
        elif same_text(range_, length, b"*/*", 3):
            weigh_range(&weights[<int> PAGE_TEXT], 1, worth)
            weigh_range(&weights[<int> PAGE_HTML], 1, worth)
            weigh_range(&weights[<int> PAGE_JSON], 1, worth)


cdef void weigh(const facts_t *facts, weight_t *weights) noexcept nogil:
    cdef const head_t *head = facts.head
    cdef bint asked = False
    cdef uint32_t i
    for i in range(3):
        weights[i].quality = weights[i].exact = 0
    if head != NULL and head.first[<int> FIELD_ACCEPT]:
        for i in range(head.first[<int> FIELD_ACCEPT] - 1, head.count):
            if head.fields[i].id == FIELD_ACCEPT and head.fields[i].value_size:
                weigh_list(weights, facts.base + head.fields[i].value, head.fields[i].value_size)
                asked = True
    if not asked:
        for i in range(3):
            weights[i].quality = 1000
            weights[i].exact = 1


cdef uint64_t rank(const weight_t *weights, int kind) noexcept nogil:
    """Greater is more welcome. Who names several kinds alike gets the richest of them; who takes
    anything, the plainest."""
    cdef uint64_t taste
    if weights[kind].exact == 3:
        taste = 2 if kind == PAGE_HTML else 1 if kind == PAGE_JSON else 0
    else:
        taste = 2 if kind == PAGE_TEXT else 1 if kind == PAGE_HTML else 0
    return <uint64_t> weights[kind].quality << 8 | weights[kind].exact << 4 | taste


# ---- bodies ------------------------------------------------------------------------------------

cdef const page_t *page_of(const facts_t *facts, const weight_t *weights,
                           int status) noexcept nogil:
    """The user's page for a status, the most welcome one of several; NULL: there is none."""
    cdef const page_t *pages = <const page_t *> (<const char *> facts.plan + facts.http.pages.at)
    cdef const page_t *best = NULL
    cdef uint32_t i
    for i in range(facts.http.pages.count):
        if pages[i].status != status and pages[i].status != 0:
            continue
        if best == NULL or (best.status == 0 and pages[i].status) or (
                pages[i].status == best.status
                and rank(weights, pages[i].kind) > rank(weights, best.kind)):
            best = &pages[i]
    return best


cdef void put_id(const facts_t *facts, int kind, writer_t *writer) noexcept nogil:
    cdef uint32_t i
    cdef char byte
    for i in range(facts.id_size):
        byte = facts.id[i]
        if kind == PAGE_JSON and (byte == c'"' or byte == c'\\'):
            put_byte(writer, c'\\')
            put_byte(writer, byte)
        elif kind == PAGE_HTML and byte == c'<':
            put_text(writer, b"&lt;")
        elif kind == PAGE_HTML and byte == c'>':
            put_text(writer, b"&gt;")
        elif kind == PAGE_HTML and byte == c'&':
            put_text(writer, b"&amp;")
        elif kind == PAGE_HTML and (byte == c'"' or byte == c"'"):
            put_text(writer, b"&quot;" if byte == c'"' else b"&#39;")
        else:
            put_byte(writer, byte)


cdef void put_html(const facts_t *facts, int status, writer_t *writer) noexcept nogil:
    cdef const char *detail = detail_of(status)
    put_text(writer, b"<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
             b"<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>")
    put_number(writer, status)
    put_byte(writer, c' ')
    put_text(writer, reason_of(status))
    put_text(writer, b"</title>\n<style>\n"
             b":root { color-scheme: light dark }\n"
             b"body { font: 1rem/1.5 system-ui, sans-serif; max-width: 34rem; margin: 18vh auto 0; "
             b"padding: 0 1.5rem }\n"
             b"h1 { font-size: 1.6rem; font-weight: 600; margin: 0 0 .5rem }\n"
             b"h1 span { opacity: .5; font-weight: 400; margin-right: .3em }\n"
             b"small { opacity: .6; overflow-wrap: anywhere }\n"
             b"</style>\n</head>\n<body>\n<h1><span>")
    put_number(writer, status)
    put_text(writer, b"</span>")
    put_text(writer, reason_of(status))
    put_text(writer, b"</h1>\n")
    if detail[0]:
        put_text(writer, b"<p>")
        put_text(writer, detail)
        put_text(writer, b"</p>\n")
    if facts.id_size:
        put_text(writer, b"<p><small>Request <code>")
        put_id(facts, PAGE_HTML, writer)
        put_text(writer, b"</code></small></p>\n")
    put_text(writer, b"</body>\n</html>\n")


cdef void put_json(const facts_t *facts, int status, writer_t *writer) noexcept nogil:
    cdef const char *detail = detail_of(status)
    put_text(writer, b"{\"status\": ")
    put_number(writer, status)
    put_text(writer, b", \"reason\": \"")
    put_text(writer, reason_of(status))
    put_byte(writer, c'"')
    if detail[0]:
        put_text(writer, b", \"detail\": \"")
        put_text(writer, detail)
        put_byte(writer, c'"')
    if facts.id_size:
        put_text(writer, b", \"request_id\": \"")
        put_id(facts, PAGE_JSON, writer)
        put_byte(writer, c'"')
    put_text(writer, b"}\n")


cdef void put_plain(const facts_t *facts, int status, writer_t *writer) noexcept nogil:
    cdef const char *detail = detail_of(status)
    put_number(writer, status)
    put_byte(writer, c' ')
    put_text(writer, reason_of(status))
    put_byte(writer, c'\n')
    if detail[0]:
        put_text(writer, detail)
        put_byte(writer, c'\n')
    if facts.id_size:
        put_text(writer, b"Request ")
        put_id(facts, PAGE_TEXT, writer)
        put_byte(writer, c'\n')


cdef bint is_own(const facts_t *facts, int status, int action) noexcept nogil:
    """Whether this is what the route was configured to say."""
    return (facts.route != NULL and facts.route.action == action
            and facts.route.status == status)


cdef void choose_body(const facts_t *facts, int status, char *scratch,
                      body_t *body) noexcept nogil:
    """The body of an answer: the user's own, or one made in ``scratch`` (BODY_ROOM bytes)."""
    cdef weight_t weights[3]
    cdef const page_t *page
    cdef writer_t writer
    cdef bint fixed = is_own(facts, status, ACTION_RESPOND)
    body.type.at = body.type.size = 0
    body.kind = -1
    body.data = scratch
    body.size = 0
    if status == 204 or status == 205 or status == 304:
        return
    if fixed and (facts.route.body.size or status < 400):
        if facts.route.body.size:
            body.kind = PAGE_TEXT
            body.type = facts.route.type
            body.data = text_of(facts.plan, facts.route.body)
            body.size = facts.route.body.size
        return
    weigh(facts, weights)
    page = page_of(facts, weights, status) if status >= 400 else NULL
    if page != NULL:
        body.kind = page.kind
        body.type = page.type
        body.data = text_of(facts.plan, page.body)
        body.size = page.body.size
        return
    body.kind = PAGE_TEXT
    if rank(weights, PAGE_HTML) > rank(weights, body.kind):
        body.kind = PAGE_HTML
    if rank(weights, PAGE_JSON) > rank(weights, body.kind):
        body.kind = PAGE_JSON
    writer_begin(&writer, scratch, BODY_ROOM)
    if body.kind == PAGE_HTML:
        put_html(facts, status, &writer)
    elif body.kind == PAGE_JSON:
        put_json(facts, status, &writer)
    else:
        put_plain(facts, status, &writer)
    body.size = writer_end(&writer)


# ---- heads -------------------------------------------------------------------------------------

cdef span_t rules_for(const facts_t *facts) noexcept nogil:
    cdef span_t none
    none.at = none.count = 0
    return facts.route.response_fields if facts.route != NULL else none


cdef void put_type(const facts_t *facts, const body_t *body, writer_t *writer) noexcept nogil:
    if body.kind < 0 or rules_take(facts, rules_for(facts), b"content-type"):
        return
    put_text(writer, b"Content-Type: ")
    if body.type.size:
        put(writer, text_of(facts.plan, body.type), body.type.size)
    elif body.kind == PAGE_HTML:
        put_text(writer, b"text/html; charset=utf-8")
    elif body.kind == PAGE_JSON:
        put_text(writer, b"application/json")
    else:
        put_text(writer, b"text/plain; charset=utf-8")
    put_text(writer, b"\r\n")


cdef void put_location(const facts_t *facts, writer_t *writer) noexcept nogil:
    cdef const segment_t *first = <const segment_t *> (
        <const char *> facts.plan + facts.route.location.at)
    cdef char *start
    cdef char *at
    put_text(writer, b"Location: ")
    start = at = writer.at
    template_write(facts, facts.route.location, TEMPLATE_LOCATION, writer)
    if facts.route.location.count and (first.part != PART_TEXT or first.text.size == 1):
        # "//host" and "/\host" are addresses of other hosts: a path of the request's, at the
        # start of a reference or behind its first slash, must not become one.
        while at + 1 < writer.at and (at[0] == c'/' or at[0] == c'\\') \
                and (at[1] == c'/' or at[1] == c'\\'):
            at += 1
        if at > start:
            at[0] = c'/'
            while at < writer.at:
                start[0] = at[0]
                start += 1
                at += 1
            writer.at = start
    put_text(writer, b"\r\n")


cdef void put_realm(const facts_t *facts, writer_t *writer) noexcept nogil:
    cdef const char *realm = b"restricted"
    cdef uint32_t size = 10, i
    if facts.route != NULL and facts.route.realm.size:
        realm = text_of(facts.plan, facts.route.realm)
        size = facts.route.realm.size
    put_text(writer, b"WWW-Authenticate: Basic realm=\"")
    for i in range(size):
        if realm[i] == c'"' or realm[i] == c'\\':
            put_byte(writer, c'\\')
        if 0 <= realm[i] < 0x20 or realm[i] == 0x7F:
            put_byte(writer, c' ')
        else:
            put_byte(writer, realm[i])
    put_text(writer, b"\", charset=\"UTF-8\"\r\n")


cdef void put_special(const facts_t *facts, int status, uint32_t retry_after,
                      writer_t *writer) noexcept nogil:
    """What belongs to one status."""
    if is_own(facts, status, ACTION_REDIRECT):
        put_location(facts, writer)
    elif status == 401:
        put_realm(facts, writer)
    elif status == 405:
        put_text(writer, b"Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n")
    if retry_after and (status == 429 or status == 503):
        put_text(writer, b"Retry-After: ")
        put_number(writer, retry_after)
        put_text(writer, b"\r\n")
    if status >= 400 and not is_own(facts, status, ACTION_RESPOND) \
            and not rules_take(facts, rules_for(facts), b"cache-control"):
        put_text(writer, b"Cache-Control: no-store\r\n")


cdef uint32_t answer_write(const facts_t *facts, int status, uint32_t flags, uint32_t retry_after,
                           char *out, uint32_t room) noexcept nogil:
    cdef char scratch[BODY_ROOM]
    cdef body_t body
    cdef writer_t writer
    cdef span_t rules = rules_for(facts)
    writer_begin(&writer, out, room)
    choose_body(facts, status, scratch, &body)
    put_text(&writer, b"HTTP/1.1 ")
    put_number(&writer, status)
    put_byte(&writer, c' ')
    put_text(&writer, reason_of(status))
    put_text(&writer, b"\r\n")
    if facts.date != NULL and not rules_take(facts, rules, b"date"):
        put_text(&writer, b"Date: ")
        put(&writer, facts.date, 29)
        put_text(&writer, b"\r\n")
    put_type(facts, &body, &writer)
    if status != 204 and status != 304:
        put_text(&writer, b"Content-Length: ")
        put_number(&writer, body.size)
        put_text(&writer, b"\r\n")
    put_special(facts, status, retry_after, &writer)
    if facts.http.flags & HTTP_REQUEST_ID and facts.id_size \
            and not rules_take(facts, rules, b"x-request-id"):
        put_text(&writer, b"X-Request-ID: ")
        put(&writer, facts.id, facts.id_size)
        put_text(&writer, b"\r\n")
    if flags & ANSWER_CLOSE:
        put_text(&writer, b"Connection: close\r\n")
    elif flags & ANSWER_KEEP_ALIVE:
        put_text(&writer, b"Connection: keep-alive\r\n")
    rules_write(facts, rules, &writer)
    put_text(&writer, b"\r\n")
    if not flags & ANSWER_NO_BODY:
        put(&writer, body.data, body.size)
    return writer_end(&writer)


cdef uint32_t answer_room(const facts_t *facts, int status) noexcept nogil:
    cdef const page_t *pages = <const page_t *> (<const char *> facts.plan + facts.http.pages.at)
    cdef uint64_t room = BODY_ROOM + HEAD_ROOM, longest = 0
    cdef uint32_t i
    for i in range(facts.http.pages.count):
        if pages[i].body.size + pages[i].type.size > longest:
            longest = pages[i].body.size + pages[i].type.size
    room += longest
    if facts.route != NULL:
        room += facts.route.body.size + facts.route.type.size + 2 * facts.route.realm.size
        room += template_room(facts, facts.route.location)
        room += rules_room(facts, facts.route.response_fields)
    return <uint32_t> room if room < ROOM_MOST else <uint32_t> ROOM_MOST
