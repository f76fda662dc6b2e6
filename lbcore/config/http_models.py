"""The keys that concern http alone: of listeners, of their routes, and of pools.

The rest of the configuration language is in ``models.py``.
"""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    StringConstraints,
    ValidationInfo,
    WithJsonSchema,
)

from lbcore.config import http_values, templates
from lbcore.config.fields import (
    Count,
    Duration,
    Line,
    Name,
    OrString,
    PositiveDuration,
    Share,
    Size,
    Table,
    as_written,
    key,
    reading,
    size_schema,
    size_text,
)
from lbcore.config.values import BadValue, parse_network

MAX_ROUTES = 8192                # rows of the scoreboard
MAX_FIELDS = 128                 # that workers look at in one head
MAX_MEMORY = 2**31
MAX_HEAD = 2**16                 # the largest buffer of workers: a head is parsed in one piece
RETRY_STATUSES = "429, and 500 to 562"


def _bounded(least: int, most: int) -> Any:
    """A size within limits."""
    return BeforeValidator(
        reading(lambda value: http_values.parse_size(value, least=least, most=most)))


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _as_condition(value: object) -> object:
    return {"equal": value} if isinstance(value, str) else value


def _failure(status: int) -> int:
    if status != 429 and not 500 <= status <= 562:
        raise BadValue(f"{status} cannot be in this list", RETRY_STATUSES)
    return status


def _page(key: str) -> str:
    status = key.isascii() and key.isdecimal() and len(key) == 3
    if key != "default" and not (status and 400 <= int(key) <= 599):
        raise BadValue(f'"{key}" is no status of an error', '"404", or "default" for all others')
    return key


def _absolute(text: str, info: ValidationInfo) -> str:
    """A path; one that is not absolute starts in the directory of the configuration."""
    directory = (info.context or {}).get("directory", "")
    return os.path.abspath(os.path.join(directory, text))    # noqa: PTH100, PTH118  (keeps links)


MemorySize = Annotated[int, _bounded(0, MAX_MEMORY), size_text, size_schema]
HeadSize = Annotated[int, _bounded(1024, MAX_HEAD), size_text, size_schema]
FilePath = Annotated[
    str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]+$"), AfterValidator(_absolute)
]
HostText = Annotated[str, as_written(http_values.parse_host)]
PathText = Annotated[str, as_written(http_values.parse_path)]
MethodText = Annotated[str, as_written(http_values.parse_method)]
FieldName = Annotated[str, as_written(http_values.parse_token)]
FieldValue = Annotated[str, as_written(templates.parse_field_value)]
Network = Annotated[str, as_written(parse_network)]
UserName = Annotated[str, as_written(http_values.parse_user)]
PasswordHash = Annotated[str, as_written(http_values.parse_password_hash)]
CookiePath = Annotated[
    str, StringConstraints(pattern=r"^/[!-:<-~]*$", max_length=http_values.MAX_COOKIE_PATH)
]
PageKey = Annotated[str, as_written(_page)]
Expression = Annotated[
    str,
    StringConstraints(min_length=1, max_length=4096),
    as_written(http_values.parse_expression),
]
PathExpression = Annotated[
    str,
    StringConstraints(min_length=1, max_length=4096),
    as_written(http_values.parse_path_expression),
]
MediaType = Annotated[Line, StringConstraints(pattern=r"^[!-~]+/[!-~]+( *;[ -~]*)?$")]
FailureStatus = Annotated[
    int,
    AfterValidator(reading(_failure)),
    WithJsonSchema({"anyOf": [{"const": 429},
                              {"type": "integer", "minimum": 500, "maximum": 562}]}),
]


class Condition(Table):
    """What a header field or query parameter must be like. A string is short for `equal`."""

    equal: str | None = key(None, "The value is this.", "text")
    prefix: str | None = key(None, "The value begins so.", "text")
    regex: Expression | None = key(
        None, "The value has a part that this matches; `^` and `$` make it all of it.",
        "regular expression (PCRE2)",
    )
    present: bool | None = key(None, "It is there (`true`), or is not (`false`).", "switch")
    not_: str | None = Field(
        None,
        alias="not",
        description="It is not there, or its value is another one.",
        json_schema_extra={"x-unit": "text"},
    )


Conditions = dict[
    FieldName, Annotated[Condition, BeforeValidator(_as_condition), OrString("the value")]
]
Parameters = dict[
    Annotated[str, StringConstraints(min_length=1, max_length=256)],
    Annotated[Condition, BeforeValidator(_as_condition), OrString("the value")],
]


class FieldRules(Table):
    """Changes to header fields: what is removed goes first, then what is set, then what is added.

    Values are templates.
    """

    set: dict[FieldName, FieldValue] = key(
        {}, "Fields that get this value, whatever they had.", "templates by name"
    )
    add: dict[FieldName, FieldValue] = key(
        {}, "Fields that are added to those of the same name.", "templates by name"
    )
    remove: list[FieldName] = key([], "Fields that are taken out.", "names of fields")


class Auth(Table):
    """Basic authentication (RFC 7617). Without users, nobody enters."""

    enabled: bool = key(
        True, "`false` lets everybody in: for a route of a listener that asks.", "switch"
    )
    realm: Annotated[str, StringConstraints(pattern=r'^[ !#-\[\]-~]*$')] = key(
        "Restricted", "What browsers show to those they ask.", "text"
    )
    users: dict[UserName, PasswordHash] = key(
        {}, "Hashes of passwords by user, in a form that crypt(5) describes.", "hashes by name"
    )
    users_file: FilePath | None = key(
        None,
        "More users, a line each: NAME:HASH, as htpasswd writes them with -B. "
        "Read when the configuration is loaded.",
        "path",
    )


class RateLimit(Table):
    """How often requests may come, counted over all workers. What is above is answered with 429."""

    enabled: bool = key(
        True, "`false` sets no limit: for a route of a listener that has one.", "switch"
    )
    requests: Annotated[str, as_written(http_values.parse_rate)] = key(
        "100/s", 'How many in which time: "100/s", "20/m", "1000/h" or "5000/d".', "rate"
    )
    burst: Annotated[int, Field(ge=1, le=http_values.MAX_BURST)] | None = key(
        None,
        "How many may come at once, after a while without any. Absent: as many as `requests` says.",
        "requests",
    )
    by: Annotated[str, as_written(http_values.parse_rate_key)] = key(
        "source",
        "Who has a limit of their own: source (the address of the client), header:NAME or "
        "cookie:NAME (without it: the source), or route (one for everybody).",
        "key",
    )


class Retry(Table):
    """When a request is sent once more, to another backend.

    Never once a part of the answer went to the client. See `retry_share` of pools, too.
    """

    attempts: int = key(3, "Tries in all, the first included.", "attempts", ge=1, le=1000)
    statuses: list[FailureStatus] = key(
        [], "Answers with these are not passed on while there are attempts left.", "HTTP statuses"
    )
    unsafe: bool = key(
        False,
        "Whether requests whose method is not idempotent, such as POST, may reach an application "
        "twice. Otherwise they are sent once more only where nothing of them was sent.",
        "switch",
    )


class Respond(Table):
    """A fixed response."""

    status: int = key(200, "Its status.", "HTTP status", ge=200, le=599)
    body: str | None = key(None, "Its body.", "text")
    file: FilePath | None = key(
        None, "A file that is its body. Read when the configuration is loaded.", "path"
    )
    type: MediaType | None = key(
        None,
        "Its Content-Type. Absent: by the ending of `file`, otherwise text/plain.",
        "media type",
    )


class Route(Table):
    """Which requests, and what becomes of them. The most specific route that matches is taken.

    More specific is first what asks for a host (exact, then long wildcards before short ones),
    then for a path (exact, regular expression, long prefixes before short ones), then what has
    more other conditions, then what comes first in the file. Keys that are not here are taken from
    the listener.
    """

    name: Name | None = key(
        None, "Its name in `status`, logs and metrics. Absent: made of what it matches.", "name"
    )
    host: Annotated[
        list[HostText],
        Field(min_length=1, max_length=256),
        BeforeValidator(_as_list),
        OrString("one host"),
    ] | None = key(
        None,
        'Hosts, without ports: "example.com", or "*.example.com" for everything below it. '
        "Absent: any.",
        "host names",
    )
    path: PathText | None = key(
        None,
        'How the path begins. "/v1/" takes everything that begins so, "/v1" takes /v1 and what '
        "begins with /v1/. Paths are compared decoded: %2F counts as a slash, a run of slashes as "
        "one.",
        "URL path",
    )
    path_exact: PathText | None = key(None, "The whole path.", "URL path")
    path_regex: PathExpression | None = key(
        None,
        "A regular expression that matches from the start of the path; `$` makes it match all of "
        "it. It sees the path decoded, with runs of slashes as one. Its groups are $1 to $9 in "
        "templates, as they came.",
        "regular expression (PCRE2)",
    )
    methods: Annotated[list[MethodText], Field(min_length=1, max_length=64)] | None = key(
        None, "Request methods. GET takes HEAD, too. Absent: any.", "methods"
    )
    headers: Conditions = key({}, "Conditions on header fields; all must hold.", "conditions")
    query: Parameters = key(
        {}, "Conditions on parameters of the query; all must hold.", "conditions"
    )
    pool: str | None = key(None, "The pool that takes the requests.", "name of a pool")
    redirect: Annotated[str, as_written(templates.parse_location)] | None = key(
        None, 'Where clients are sent instead: "https://$host$uri".', "template"
    )
    status: Literal[301, 302, 303, 307, 308] | None = key(
        None, "Status of `redirect`. Absent: 302.", "HTTP status"
    )
    respond: Respond | None = key(None, "What is answered instead.", "table")
    strip_prefix: bool = key(
        False, "Whether backends see the path without what `path` says: / instead of /v1/.",
        "switch",
    )
    rewrite: Annotated[str, as_written(templates.parse_rewrite)] | None = key(
        None,
        'The path that backends see: with `path_regex` "/new/$1", with `path` "/new/$tail".',
        "template",
    )
    request_headers: FieldRules | None = key(
        None, "Changes to requests, after those of the listener.", "table"
    )
    response_headers: FieldRules | None = key(
        None, "Changes to responses, after those of the listener.", "table"
    )
    allow: list[Network] | None = key(
        None, "Networks of clients that may enter; others get 403. Empty: all.", "networks (CIDR)",
        max_length=4096,
    )
    deny: list[Network] | None = key(
        None, "Networks of clients that get 403, also if `allow` has them.", "networks (CIDR)",
        max_length=4096,
    )
    auth: Auth | None = key(None, "Who may enter with a password.", "table")
    rate_limit: RateLimit | None = key(None, "How often requests may come.", "table")
    retry: Retry | None = key(None, "When requests are sent once more; key by key.", "table")
    max_body: Size | None = key(None, 'The largest request body. "0": no limit.', "size")
    body_timeout: PositiveDuration | None = key(
        None, "How long a request body may pause.", "duration"
    )
    first_byte_timeout: PositiveDuration | None = key(
        None, "How long a backend may take until it begins to answer.", "duration"
    )
    read_timeout: PositiveDuration | None = key(
        None, "How long a response may pause.", "duration"
    )
    send_timeout: PositiveDuration | None = key(
        None, "How long a client may take nothing of a response.", "duration"
    )
    total_timeout: Duration | None = key(
        None, 'How long a request and its response may take together. "0": no limit.', "duration"
    )
    tunnel_timeout: Duration | None = key(
        None, 'How long a WebSocket or other upgraded connection may be silent. "0": no limit.',
        "duration",
    )
    buffer_request: bool | None = key(
        None, "Whether a backend is picked only once the whole request body is here.", "switch"
    )
    buffer_response: bool | None = key(
        None, "Whether a response is taken from the backend faster than the client takes it.",
        "switch",
    )
    request_memory: MemorySize | None = key(
        None, "How much of a request body is kept in memory; the rest in a file.", "size"
    )
    response_memory: MemorySize | None = key(
        None, "How much of a response is kept in memory; the rest in a file.", "size"
    )
    response_disk: Size | None = key(
        None, 'How much of a response is kept in a file. "0": none.', "size"
    )


class HttpListener(Table):
    """What a listener has for http alone."""

    head_timeout: PositiveDuration = key(
        "10s", "http: how long the head of a request may take, from its first byte.", "duration"
    )
    keepalive_timeout: PositiveDuration = key(
        "75s", "http: how long a connection may wait for its next request.", "duration"
    )
    max_requests: Count = key(
        0, "http: requests on one connection before it is closed. 0: no limit.", "requests"
    )
    max_head: HeadSize = key(
        "32KiB", "http: the largest head of a request; 1KiB to 64KiB.", "size"
    )
    max_fields: int = key(
        100, "http: the most header fields of a request.", "fields", ge=1, le=MAX_FIELDS
    )
    trusted_proxies: list[Network] = key(
        [],
        "http: networks of proxies whose word on the client's address, scheme and host "
        "(X-Forwarded-For, Forwarded) is taken.",
        "networks (CIDR)",
        max_length=1024,
    )
    forwarded: Literal["x-forwarded", "rfc7239", "both", "none"] = key(
        "x-forwarded",
        "http: how backends learn who the client is. x-forwarded: X-Forwarded-For, -Proto and "
        "-Host. rfc7239: Forwarded.",
        "kind of fields",
    )
    request_id: bool = key(
        True, "http: whether requests get an X-Request-ID, unless they have one.", "switch"
    )
    via: Annotated[str, StringConstraints(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z:-]{0,255}$")] = key(
        "lbcore", "http: what lbcore calls itself in Via. Empty: no Via.", "pseudonym"
    )
    underscores: bool = key(
        False,
        "http: whether header fields with an underscore in their names are passed on. "
        "Applications cannot tell them from those with a hyphen.",
        "switch",
    )
    abort_on_close: bool = key(
        False,
        "http: whether a client that has finished sending has given up. Otherwise it still gets "
        "its answer.",
        "switch",
    )
    error_pages: dict[
        PageKey,
        Annotated[
            list[FilePath], Field(min_length=1, max_length=3), BeforeValidator(_as_list),
            OrString("one file"),
        ],
    ] = key(
        {},
        'http: files to answer errors with, by status, or "default" for all others: .html, .txt '
        "and .json, chosen by what the client accepts. Read when the configuration is loaded.",
        "paths by status",
    )
    request_headers: FieldRules | None = key(None, "http: changes to requests.", "table")
    response_headers: FieldRules | None = key(None, "http: changes to responses.", "table")
    allow: list[Network] = key(
        [],
        "http: networks of clients that may enter; others get 403. Empty: all.",
        "networks (CIDR)",
        max_length=4096,
    )
    deny: list[Network] = key(
        [],
        "http: networks of clients that get 403, also if `allow` has them.",
        "networks (CIDR)",
        max_length=4096,
    )
    auth: Auth | None = key(None, "http: who may enter with a password.", "table")
    rate_limit: RateLimit | None = key(
        None, "http: how often requests may come; each route counts for itself.", "table"
    )
    retry: Retry = Field(
        default_factory=Retry,
        description="http: when requests are sent once more.",
        json_schema_extra={"x-unit": "table"},
    )
    max_body: Size = key("100MiB", 'http: the largest request body. "0": no limit.', "size")
    body_timeout: PositiveDuration = key(
        "30s", "http: how long a request body may pause.", "duration"
    )
    first_byte_timeout: PositiveDuration = key(
        "60s",
        "http: how long a backend may take until it begins to answer; then the client gets 504.",
        "duration",
    )
    read_timeout: PositiveDuration = key(
        "60s", "http: how long a response may pause; then the connection ends.", "duration"
    )
    send_timeout: PositiveDuration = key(
        "60s", "http: how long a client may take nothing of a response.", "duration"
    )
    total_timeout: Duration = key(
        "0",
        'http: how long a request and its response may take together. "0": no limit.',
        "duration",
    )
    tunnel_timeout: Duration = key(
        "1h",
        'http: how long a WebSocket or other upgraded connection may be silent. "0": no limit.',
        "duration",
    )
    buffer_request: bool = key(
        True,
        "http: whether a backend is picked only once the whole request body is here, so that slow "
        "clients occupy none. Bodies beyond `request_memory` go to a file.",
        "switch",
    )
    buffer_response: bool = key(
        True,
        "http: whether a response is taken from the backend faster than the client takes it, so "
        "that slow clients occupy none. Event streams, and what the backend answers with "
        "`X-Accel-Buffering: no`, are passed on at once.",
        "switch",
    )
    request_memory: MemorySize = key(
        "64KiB",
        "http: how much of a request body is kept in memory; the rest goes to a file.",
        "size",
    )
    response_memory: MemorySize = key(
        "256KiB", "http: how much of a response is kept in memory; the rest goes to a file.", "size"
    )
    response_disk: Size = key(
        "1GiB",
        'http: how much of a response is kept in a file, before its backend has to wait. "0": '
        "none.",
        "size",
    )
    route: list[Route] = key(
        [], "http: which requests go elsewhere: one `[[listener.route]]` each.", "tables",
        max_length=MAX_ROUTES,
    )


class Sticky(Table):
    """Clients that stay with the backend they met first, while it is there."""

    cookie: Annotated[str, as_written(http_values.parse_sticky_name)] = key(
        "lbcore", "The cookie's name, of at most 64 bytes.", "name of a cookie"
    )
    mode: Literal["insert", "learn"] = key(
        "insert",
        "insert: lbcore sets a signed cookie that names the backend. learn: the application sets "
        "the cookie, and all workers remember which backend set which value, until lbcore is "
        "started anew.",
        "mode",
    )
    secret: Annotated[str, StringConstraints(min_length=16, max_length=1024)] | None = key(
        None,
        "What inserted cookies are signed with; the same on all machines that serve the same "
        "clients. Absent: derived from this machine's /etc/machine-id and the pool's name, so that "
        "cookies outlive restarts.",
        "text, 16 characters or more",
    )
    path: CookiePath = key("/", "The cookie's Path, of at most 255 bytes.", "URL path")
    secure: bool = key(False, "Whether browsers send the cookie over https only.", "switch")
    http_only: bool = key(True, "Whether scripts cannot read the cookie.", "switch")
    same_site: Literal["Lax", "Strict", "None", ""] = key(
        "Lax", "The cookie's SameSite. None needs `secure`. Empty: it has none.", "word"
    )
    max_age: Duration = key(
        "0", 'How long browsers keep the cookie, in whole seconds. "0": until they are closed.',
        "duration",
    )
    expiry: PositiveDuration = key(
        "24h", "learn: for how long a value is remembered that no request carries.", "duration",
    )


class HttpPool(Table):
    """What a pool has for http alone."""

    keepalive_idle: Duration = key(
        "60s",
        "http: how long a connection to a backend is kept for the next request. "
        '"0": none is. With `send_proxy` or `source_transparent` none is either: such a '
        "connection belongs to one client.",
        "duration",
    )
    keepalive_connections: int = key(
        64, "http: connections kept, for each worker and backend. 0: none.", "connections",
        ge=0, le=65535,
    )
    retry_share: Share = key(
        0.2,
        "http: the share of requests that may be sent once more, so that retries do not multiply "
        "an outage. 0: none is.",
        "share, 0 to 1",
    )
    sticky: Sticky | None = key(
        None, "http: clients stay with a backend by a cookie. Absent: they do not.", "table"
    )


class HttpEjection(Table):
    """What passive ejection looks at in http alone."""

    statuses: list[FailureStatus] = key(
        [500, 502, 503, 504], "http: answers with these count as failures.", "HTTP statuses"
    )
    slow: Duration = key(
        "0",
        "http: an answer that begins later than this counts as a failure. "
        '"0": however late it begins.',
        "duration",
    )
