"""What lbcore itself says, a claim each."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from http import HTTPStatus
from typing import Any

import pytest

from lbcore._answers import AnswerFlag
from lbcore._http1 import Head, parse_response
from lbcore.config.plan import FieldPlan, PagePlan, RoutePlan, Template
from tests.support.exchange_lab import exchange, field_of, head_of, template

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"
KINDS = {"text/plain; charset=utf-8": "text", "text/html; charset=utf-8": "html",
         "application/json": "json"}
PAGES = (PagePlan(0, "html", b"<default>"), PagePlan(503, "text", b"plain 503"),
         PagePlan(503, "json", b'{"own": 503}'))


def answered(status: int, *fields: str, flags: int = 0, retry_after: int = 0,
             route: RoutePlan | None = None, line: str = "GET /",
             **http: Any) -> tuple[bytes, bytes]:
    """Head and body of an answer."""
    routes = (route,) if route else ()
    made = exchange(head_of(line, fields), *routes, **http).answer(
        status, flags, retry_after=retry_after)
    assert made is not None
    head, _, body = made.partition(b"\r\n\r\n")
    return head + b"\r\n\r\n", body


def kind(accept: str | None) -> str:
    head, _ = answered(404, *([] if accept is None else [f"Accept: {accept}"]))
    return KINDS[field_of(head, "Content-Type") or ""]


def redirect(location: Template, target: str, status: int = 302) -> bytes | None:
    route = RoutePlan("away", action="redirect", status=status, location=location)
    return exchange(head_of(f"GET {target}"), route).answer(status)


# ---- the kind ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("accept", "wanted"), [
    (None, "text"), ("", "text"), ("*/*", "text"), (BROWSER, "html"), ("text/html", "html"),
    ("application/json", "json"), ("application/json, text/plain, */*", "json"),
    ("application/problem+json", "json"), ("text/plain, application/json", "json"),
    ("text/plain", "text"), ("text/*", "text"), ("application/*", "json"),
    ("application/*, text/html;q=0.9", "json"), ("image/png", "text"),
    ("application/json;q=0.5, text/html;q=0.4", "json"), ("text/html;q=0, */*", "text"),
    ("text/html;q=0,application/json;q=0.001", "json"), ("TEXT/HTML", "html"),
    ("text/html;level=1;Q=0.3, text/plain; q=0.4", "text"),
    ("application/json;q=1.000, text/html;q=0.999", "json"), (";q=1,,/,text/html;q", "html"),
    ("*/*;q=0.1, text/*;q=0.9, text/plain;q=0.2", "html"),
])
def test_accept_chooses_the_kind(accept: str | None, wanted: str) -> None:
    assert kind(accept) == wanted


def test_several_accept_fields_are_one_list() -> None:
    head, _ = answered(404, "Accept: image/png", "Accept: application/json")
    assert field_of(head, "Content-Type") == "application/json"


# ---- errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 408, 413, 414, 417, 421, 429, 431,
                                    500, 501, 502, 503, 504, 505])
@pytest.mark.parametrize("accept", ["text/plain", "text/html", "application/json"])
def test_an_error_is_a_whole_response_that_says_what_it_is(status: int, accept: str) -> None:
    head, body = answered(status, f"Accept: {accept}")
    parsed = parse_response(head)
    assert isinstance(parsed, Head)
    assert (parsed.status, parsed.length) == (status, len(body))
    reason = {413: "Content Too Large", 414: "URI Too Long"}.get(status, HTTPStatus(status).phrase)
    assert head.startswith(f"HTTP/1.1 {status} {reason}\r\n".encode())
    assert str(status).encode() in body
    assert reason.encode() in body
    assert b"fedcba98765432101000000000000000" in body
    assert field_of(head, "X-Request-ID") == "fedcba98765432101000000000000000"
    assert field_of(head, "Date") == "Sun, 06 Nov 1994 08:49:37 GMT"
    assert field_of(head, "Cache-Control") == "no-store"


def test_a_json_error_is_json() -> None:
    _, body = answered(502, "Accept: application/json", 'X-Request-ID: a"b\\c')
    assert json.loads(body) == {
        "status": 502, "reason": "Bad Gateway", "request_id": 'a"b\\c',
        "detail": "The application did not give a valid answer."}


class Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_an_html_error_shows_a_hostile_request_id_as_text() -> None:
    hostile = "<script>alert('&\")</script>"
    _, body = answered(500, "Accept: text/html", f"X-Request-ID: {hostile}")
    page = Text()
    page.feed(body.decode())
    assert "script" not in page.tags
    assert hostile in page.text


@pytest.mark.parametrize("target", ["/<script>x</script>", "/?<b>=1", '/"onload="x'])
def test_nothing_of_the_request_is_reflected(target: str) -> None:
    for accept in ("text/html", "application/json", "text/plain"):
        made = exchange(head_of(f"GET {target.replace('<', '%3C')}",
                                [f"Accept: {accept}", "X-Odd: reflected"])).answer(404)
        assert made is not None
        assert b"reflected" not in made
        assert target[1:].encode() not in made


def test_a_head_that_could_not_be_parsed_is_answered_too() -> None:
    made = exchange(b"").answer(400, AnswerFlag.ANSWER_CLOSE)
    assert field_of(made, "Connection") == "close"
    assert made is not None
    assert made.endswith(b"Request fedcba98765432101000000000000000\n")


def test_head_gets_the_length_and_no_body() -> None:
    head, body = answered(404)
    assert answered(404, flags=AnswerFlag.ANSWER_NO_BODY) == (head, b"")
    assert field_of(head, "Content-Length") == str(len(body))


@pytest.mark.parametrize(("flags", "value"), [
    (0, None), (AnswerFlag.ANSWER_CLOSE, "close"), (AnswerFlag.ANSWER_KEEP_ALIVE, "keep-alive"),
    (AnswerFlag.ANSWER_HTTP_10, None),
])
def test_the_connection_field_is_what_the_flags_say(flags: int, value: str | None) -> None:
    assert field_of(answered(404, flags=flags)[0], "Connection") == value


@pytest.mark.parametrize(("status", "value"), [(429, "7"), (503, "7"), (502, None), (404, None)])
def test_retry_after_goes_with_busy(status: int, value: str | None) -> None:
    assert field_of(answered(status, retry_after=7)[0], "Retry-After") == value
    assert field_of(answered(status)[0], "Retry-After") is None


def test_what_is_not_allowed_says_what_is() -> None:
    assert field_of(answered(405)[0], "Allow") == "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"


def test_unauthorized_names_the_realm() -> None:
    route = RoutePlan("all", pool=0, realm='The "inner" \\ circle')
    assert field_of(answered(401, route=route)[0], "WWW-Authenticate") == (
        'Basic realm="The \\"inner\\" \\\\ circle", charset="UTF-8"')


# ---- pages of the user's own -------------------------------------------------------------------


@pytest.mark.parametrize(("status", "accept", "body"), [
    (503, "text/plain", b"plain 503"), (503, "application/json", b'{"own": 503}'),
    (503, BROWSER, b"plain 503"), (503, "application/json, text/html", b'{"own": 503}'),
    (404, "application/json", b"<default>"), (500, "*/*", b"<default>"),
])
def test_a_page_of_ones_own_goes_before_all_others(status: int, accept: str, body: bytes) -> None:
    assert answered(status, f"Accept: {accept}", pages=PAGES)[1] == body


def test_a_page_comes_with_its_type_and_length() -> None:
    head, body = answered(404, pages=PAGES)
    assert field_of(head, "Content-Type") == "text/html; charset=utf-8"
    assert field_of(head, "Content-Length") == str(len(body))


def test_long_pages_have_their_room() -> None:
    page = PagePlan(404, "html", b"x" * 1_000_000)
    assert answered(404, pages=(page,))[1] == page.body


# ---- redirects ---------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_has_its_location(status: int) -> None:
    made = redirect(template("https://", "$host", "$uri"), "/a?b=c", status)
    assert field_of(made, "Location") == "https://example.com/a?b=c"
    assert made is not None
    assert made.startswith(f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n".encode())
    assert b"no-store" not in made


@pytest.mark.parametrize("target", ["//evil.example/x", "///evil.example/x", "/\\evil.example/x",
                                    "//\\/evil.example/x"])
def test_a_path_in_a_location_never_becomes_a_host(target: str) -> None:
    for location in (template("$uri"), template("/", "$uri")):
        assert field_of(redirect(location, target), "Location") == "/evil.example/x"


def test_the_users_own_slashes_stay() -> None:
    made = redirect(template("//cdn.example", "$path"), "/x")
    assert field_of(made, "Location") == "//cdn.example/x"


@pytest.mark.parametrize(("target", "location"), [
    ("/caf\xe9", "/caf%E9"), ("/a%0d%0aSet-Cookie:x", "/a%0D%0ASet-Cookie:x"), ("/a|b", "/a|b"),
])
def test_a_location_is_a_uri(target: str, location: str) -> None:
    assert field_of(redirect(template("$path"), target), "Location") == location


def test_data_in_a_location_stays_data() -> None:
    route = RoutePlan("away", action="redirect", status=302,
                      location=template("/login?next=", "$header:x-next", "#top"))
    made = exchange(head_of("GET /", ["X-Next: a b&c=d?e#f%2F\xe9"]), route).answer(302)
    assert field_of(made, "Location") == "/login?next=a%20b%26c=d%3Fe%23f%252F%E9#top"


# ---- fixed responses ---------------------------------------------------------------------------


def fixed(status: int, body: bytes = b"", content_type: str = "") -> RoutePlan:
    return RoutePlan("fixed", action="respond", status=status, body=body, type=content_type)


def test_a_fixed_response_is_what_was_configured() -> None:
    head, body = answered(200, route=fixed(200, b"User-agent: *\n", "text/x-robots"))
    assert body == b"User-agent: *\n"
    assert field_of(head, "Content-Type") == "text/x-robots"
    assert field_of(head, "Cache-Control") is None


def test_a_fixed_response_without_a_type_is_text() -> None:
    head, _ = answered(200, route=fixed(200, b"ok"))
    assert field_of(head, "Content-Type") == "text/plain; charset=utf-8"


def test_an_empty_fixed_response_is_empty() -> None:
    head, body = answered(200, route=fixed(200))
    assert (body, field_of(head, "Content-Length")) == (b"", "0")
    assert field_of(head, "Content-Type") is None


@pytest.mark.parametrize("status", [204, 304])
def test_a_status_without_a_body_has_neither_type_nor_length(status: int) -> None:
    head, body = answered(status, route=fixed(status, b"ignored", "text/plain"))
    assert body == b""
    assert field_of(head, "Content-Type") is None
    assert field_of(head, "Content-Length") is None


def test_a_fixed_error_without_a_body_is_the_error_page() -> None:
    assert answered(404, route=fixed(404))[1] == answered(404)[1]
    assert answered(404, route=fixed(404), pages=PAGES)[1] == b"<default>"


def test_another_status_on_such_a_route_is_an_error_of_its_own() -> None:
    assert answered(403, route=fixed(200, b"hello"))[1] == answered(403)[1]


def test_rules_hold_for_answers_too() -> None:
    rules = (FieldPlan("set", "Access-Control-Allow-Origin", template("*")),
             FieldPlan("set", "Content-Type", template("text/x")), FieldPlan("remove", "Date"),
             FieldPlan("set", "Cache-Control", template("private")),
             FieldPlan("set", "Content-Length", template("0")))
    head, body = answered(503, route=RoutePlan("all", pool=0, response_fields=rules))
    assert field_of(head, "Access-Control-Allow-Origin") == "*"
    assert field_of(head, "Content-Type") == "text/x"
    assert field_of(head, "Cache-Control") == "private"
    assert field_of(head, "Date") is None
    assert field_of(head, "Content-Length") == str(len(body))


# ---- room --------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [302, 401, 503])
def test_too_little_room_is_said_and_never_overstepped(status: int) -> None:
    route = RoutePlan("away", action="redirect", status=302, location=template("$uri"),
                      response_fields=(FieldPlan("set", "X", template("$uri")),))
    made = exchange(head_of("GET //a?b", ["Accept: text/html"]), route)
    whole = made.answer(status)
    assert whole is not None
    for room in range(len(whole)):
        assert made.answer(status, room=room) is None
    assert made.answer(status, room=len(whole)) == whole
