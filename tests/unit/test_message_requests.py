"""The head that a backend gets, a claim each."""

from __future__ import annotations

from typing import Any

import pytest

from lbcore._http1 import Framing
from lbcore.config.plan import Address, BackendPlan, FieldPlan, PoolPlan, RoutePlan
from tests.support.exchange_lab import PROXY, exchange, field_of, fields_of, head_of, template

QUIET: dict[str, Any] = {"forwarded": "none", "request_id": False, "via": ""}


def sent(*fields: str, line: str = "GET /", host: str = "example.com", **http: Any) -> bytes:
    """The head for the backend where lbcore adds nothing of its own."""
    made = exchange(head_of(line, fields, host=host), **{**QUIET, **http}).request()
    assert made is not None
    return made


def ruled(*rules: FieldPlan, fields: tuple[str, ...] = (), **http: Any) -> bytes | None:
    route = RoutePlan("all", pool=0, request_fields=rules)
    return exchange(head_of("GET /a?b=c", fields), route, **{**QUIET, **http}).request()


# ---- what is kept ------------------------------------------------------------------------------


def test_a_plain_request_goes_on_as_it_came() -> None:
    fields = ["Accept: */*", "x-ODD-case: Value; q=1", "Cookie: a=b; c=d", "User-Agent: curl/8"]
    head = head_of("GET /a/b?c=d", fields)
    assert exchange(head, **QUIET).request() == head


def test_fields_keep_their_order_and_spelling_around_those_that_go() -> None:
    made = sent("A: 1", "Connection: close", "B: 2", "Keep-Alive: timeout=5", "C: 3", "D: 4")
    assert made == head_of("GET /", ["A: 1", "B: 2", "C: 3", "D: 4"])


@pytest.mark.parametrize("line", ["A:1", "A:  1", "A:\t1", "A: 1 ", "A: 1\t \t"])
def test_white_space_around_a_value_becomes_one_space(line: str) -> None:
    assert sent("Y: y", line, "Z: z") == head_of("GET /", ["Y: y", "A: 1", "Z: z"])


@pytest.mark.parametrize("line", ["A:", "A: ", "A:  \t"])
def test_an_empty_field_stays_one(line: str) -> None:
    assert fields_of(sent(line, "B: 2"))[1:] == [("A", ""), ("B", "2")]


def test_http_1_0_goes_on_as_http_1_1() -> None:
    head = b"GET /x HTTP/1.0\r\nHost: a\r\nA: 1\r\n\r\n"
    assert exchange(head, **QUIET).request() == b"GET /x HTTP/1.1\r\nHost: a\r\nA: 1\r\n\r\n"


def test_an_empty_line_before_the_request_is_left_out() -> None:
    assert exchange(b"\r\n" + head_of("GET /x"), **QUIET).request() == head_of("GET /x")


def test_other_methods_keep_their_name() -> None:
    assert sent(line="PROPFIND /dav").startswith(b"PROPFIND /dav HTTP/1.1\r\n")


# ---- what goes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("line", [
    "Connection: keep-alive", "Keep-Alive: timeout=5", "Proxy-Connection: keep-alive",
    "TE: gzip", "Upgrade: websocket", "Trailer: X-Sum", "Expect: 100-continue",
])
def test_what_concerns_one_connection_goes(line: str) -> None:
    assert sent(line) == head_of("GET /")


def test_fields_that_connection_names_go() -> None:
    assert sent("Connection: close, X-Hop", "X-Hop: 1", "X-Stay: 2") == head_of(
        "GET /", ["X-Stay: 2"])


def test_names_with_underscores_are_dropped_unless_they_are_wanted() -> None:
    assert sent("X_User: 1") == head_of("GET /")
    assert sent("X_User: 1", underscores=True) == head_of("GET /", ["X_User: 1"])


@pytest.mark.parametrize("name", ["X_Forwarded_For", "x-forwarded_proto", "X_Real_IP"])
def test_underscores_do_not_bring_in_what_lbcore_says_itself(name: str) -> None:
    made = exchange(head_of("GET /", [f"{name}: evil"]), underscores=True, peer=PROXY,
                    trusted=("10.0.0.0/8",)).request()
    assert b"evil" not in (made or b"evil")


def test_proxy_goes_since_cgi_programs_would_obey_it() -> None:
    assert sent("Proxy: http://evil.example") == head_of("GET /")


# ---- Host --------------------------------------------------------------------------------------


def test_host_is_the_first_field_as_the_client_wrote_it() -> None:
    assert sent("A: 1", line="GET /", host="ExAmple.com:8080").startswith(
        b"GET / HTTP/1.1\r\nHost: ExAmple.com:8080\r\nA: 1\r\n")


def test_the_host_of_an_absolute_target_is_the_host() -> None:
    head = b"GET http://example.com/a?b HTTP/1.1\r\nA: 1\r\nHost: example.com\r\n\r\n"
    assert exchange(head, **QUIET).request() == (
        b"GET /a?b HTTP/1.1\r\nHost: example.com\r\nA: 1\r\n\r\n")


@pytest.mark.parametrize(("address", "host"), [
    (Address("192.0.2.10", 8000), "192.0.2.10:8000"),
    (Address("2001:db8::1", 80), "[2001:db8::1]:80"),
    (Address(path="/run/app.sock"), "localhost"),
])
def test_http_1_0_without_host_gets_the_backends_address(address: Address, host: str) -> None:
    pool = PoolPlan("app", (BackendPlan("one", address),))
    made = exchange(b"GET / HTTP/1.0\r\n\r\n", pool=pool).request()
    assert field_of(made, "Host") == host


def test_a_rule_may_set_host() -> None:
    made = ruled(FieldPlan("set", "Host", template("inner.example")), fields=("A: 1",))
    assert fields_of(made) == [("Host", "inner.example"), ("A", "1")]


@pytest.mark.parametrize(
    "bad", ["a b", "a/b", "a@b", "a,b", "a\\b", ":", ":80", "a:b", "a:70000", "[a]"])
def test_a_rule_cannot_set_host_to_what_is_none(bad: str) -> None:
    made = ruled(FieldPlan("set", "Host", template("$header:x-host")), fields=(f"X-Host: {bad}",))
    assert field_of(made, "Host") == "example.com"


@pytest.mark.parametrize("action", ["add", "remove"])
def test_host_can_neither_be_added_nor_removed(action: str) -> None:
    made = ruled(FieldPlan(action, "Host", template("b")))  # type: ignore[arg-type]
    assert field_of(made, "Host") == "example.com"


# ---- the body's framing ------------------------------------------------------------------------


def test_content_length_is_made_anew() -> None:
    made = sent("Content-Length: 007", "A: 1", line="POST /")
    assert fields_of(made)[1:] == [("A", "1"), ("Content-Length", "7")]


def test_chunked_is_made_anew() -> None:
    made = sent("Transfer-Encoding: Chunked", "Trailer: X-Sum", line="POST /")
    assert fields_of(made)[1:] == [("Trailer", "X-Sum"), ("Transfer-Encoding", "chunked")]


def test_a_body_that_was_gathered_has_a_length_and_no_trailers() -> None:
    head = head_of("POST /", ["Transfer-Encoding: chunked", "Trailer: X-Sum"])
    made = exchange(head, **QUIET).request(Framing.BODY_LENGTH, 12345678901234)
    assert fields_of(made)[1:] == [("Content-Length", "12345678901234")]


@pytest.mark.parametrize(("method", "length"), [
    ("POST", "0"), ("PUT", "0"), ("PATCH", "0"), ("GET", None), ("DELETE", None),
])
def test_no_body_is_said_where_servers_expect_one(method: str, length: str | None) -> None:
    assert field_of(sent(line=f"{method} /"), "Content-Length") == length


def test_expect_goes_on_only_when_it_should() -> None:
    head = head_of("POST /", ["Content-Length: 5", "Expect: 100-continue"])
    made = exchange(head, **QUIET)
    assert field_of(made.request(expect=True), "Expect") == "100-continue"
    assert field_of(made.request(), "Expect") is None


def test_who_takes_trailers_is_known_to_the_backend() -> None:
    made = sent("TE: trailers, deflate;q=0.5")
    assert fields_of(made)[1:] == [("TE", "trailers"), ("Connection", "TE")]


# ---- upgrades ----------------------------------------------------------------------------------


def test_an_upgrade_goes_on_with_its_fields() -> None:
    head = head_of("GET /chat", ["Connection: keep-alive, Upgrade", "Upgrade: websocket",
                                 "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="])
    assert fields_of(exchange(head, **QUIET).request(upgrade=True))[1:] == [
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Connection", "upgrade"), ("Upgrade", "websocket")]


# ---- Via and rules -----------------------------------------------------------------------------


def test_via_is_appended_with_the_version_that_came() -> None:
    head = b"GET / HTTP/1.0\r\nHost: a\r\nVia: 1.1 edge\r\n\r\n"
    made = exchange(head, **{**QUIET, "via": "inner"}).request()
    assert fields_of(made)[1:] == [("Via", "1.1 edge"), ("Via", "1.0 inner")]


def test_rules_set_add_and_remove() -> None:
    made = ruled(
        FieldPlan("set", "X-Set", template("new")), FieldPlan("add", "X-Add", template("more")),
        FieldPlan("remove", "X-Gone"),
        fields=("x-set: old", "X-Set: older", "X-Add: some", "x-gone: 1", "X-Stay: 1"))
    assert fields_of(made)[1:] == [
        ("X-Add", "some"), ("X-Stay", "1"), ("X-Set", "new"), ("X-Add", "more")]


def test_later_rules_see_what_earlier_ones_did() -> None:
    made = ruled(
        FieldPlan("add", "A", template("1")), FieldPlan("set", "A", template("2")),
        FieldPlan("add", "A", template("3")), FieldPlan("add", "B", template("1")),
        FieldPlan("remove", "B"))
    assert fields_of(made)[1:] == [("A", "2"), ("A", "3")]


def test_a_rule_takes_the_same_name_with_underscores_too() -> None:
    made = ruled(FieldPlan("set", "X-User", template("me")), fields=("X_User: you",),
                 underscores=True)
    assert fields_of(made)[1:] == [("X-User", "me")]


def test_a_value_that_turns_out_empty_leaves_its_field_out() -> None:
    made = ruled(FieldPlan("set", "X-User", template("$header:x-missing")),
                 FieldPlan("set", "X-Blank", template(" ", "$cookie:none", "\t")),
                 fields=("X-User: you",))
    assert fields_of(made)[1:] == []


@pytest.mark.parametrize("name", [
    "Content-Length", "Transfer-Encoding", "Connection", "Keep-Alive", "Proxy-Connection", "TE",
    "Trailer", "Upgrade", "Expect",
])
@pytest.mark.parametrize("action", ["set", "add", "remove"])
def test_no_rule_touches_the_framing(name: str, action: str) -> None:
    rule = FieldPlan(action, name, template("7"))  # type: ignore[arg-type]
    route = RoutePlan("all", pool=0, request_fields=(rule,))
    head = head_of("POST /", ["Content-Length: 5"])
    assert exchange(head, route, **QUIET).request() == exchange(head, **QUIET).request()


@pytest.mark.parametrize(("name", "own"), [
    ("X-Forwarded-For", "203.0.113.7"), ("X-Forwarded-Proto", "http"),
    ("X-Forwarded-Host", "example.com"), ("X-Request-ID", "fedcba98765432101000000000000000"),
    ("Via", "1.1 lbcore"), ("Forwarded", "for=203.0.113.7;host=example.com;proto=http"),
])
def test_rules_have_the_last_word_on_what_lbcore_adds(name: str, own: str) -> None:
    head = head_of("GET /")
    assert field_of(exchange(head, forwarded="both").request(), name) == own
    for rule, value in ((FieldPlan("set", name, template("mine")), "mine"),
                        (FieldPlan("remove", name), None)):
        route = RoutePlan("all", pool=0, request_fields=(rule,))
        assert field_of(exchange(head, route, forwarded="both").request(), name) == value


# ---- templates ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("part", "value"), [
    ("$client_ip", "203.0.113.7"), ("$client_port", "40000"), ("$host", "example.com"),
    ("$port", "8080"), ("$method", "GET"), ("$scheme", "http"), ("$path", "/a"),
    ("$query", "b=c"), ("$uri", "/a?b=c"), ("$request_id", "fedcba98765432101000000000000000"),
    ("$listener", "web"), ("$route", "all"), ("$pool", "app"), ("$backend", "one"),
    ("$header:x-twice", "1, 2"), ("$cookie:who", "me"), ("$tail", "a"),
])
def test_templates_know(part: str, value: str) -> None:
    made = ruled(FieldPlan("set", "X", template("<", part, ">")),
                 fields=("X-Twice: 1", "Cookie: a=b; who=me", "x-twice: 2"))
    assert field_of(made, "X") == f"<{value}>"


@pytest.mark.parametrize(("host", "value"), [
    ("Example.COM.:8080", "example.com"), ("[2001:DB8::1]:80", "[2001:db8::1]"),
    ("127.0.0.1", "127.0.0.1"),
])
def test_the_host_of_templates_has_neither_port_nor_case(host: str, value: str) -> None:
    route = RoutePlan("all", pool=0, request_fields=(FieldPlan("set", "X", template("$host")),))
    assert field_of(exchange(head_of("GET /", host=host), route).request(), "X") == value


def test_without_a_host_templates_have_the_listening_address() -> None:
    route = RoutePlan("all", pool=0, request_fields=(FieldPlan("set", "X", template("$host")),))
    made = exchange(b"GET / HTTP/1.0\r\n\r\n", route).request()
    assert field_of(made, "X") == "192.0.2.1"


# ---- room --------------------------------------------------------------------------------------


def test_too_little_room_is_said_and_never_overstepped() -> None:
    rules = (FieldPlan("set", "A", template("$uri", "$header:x-long")),
             FieldPlan("set", "Host", template("$cookie:h")))
    route = RoutePlan("all", pool=0, request_fields=rules)
    head = head_of("POST /a?b", ["X-Long: " + "y" * 50, "X:1", "Content-Length: 5",
                                 "Cookie: h=abc", "TE: trailers"])
    made = exchange(head, route, forwarded="both")
    whole = made.request()
    assert whole is not None
    for room in range(len(whole)):
        assert made.request(room=room) is None
    assert made.request(room=len(whole)) == whole
