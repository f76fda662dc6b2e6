"""Which route takes a request, and who may enter."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest

from lbcore import _plan
from lbcore._route import check_pattern, match
from lbcore.config.plan import Address, HttpPlan, ListenerPlan, MatchPlan, RoutePlan
from tests.support.exchange_lab import exchange, head_of, image_of, route_of

DEFAULT = 1                     # of one route and the default one


def path(kind: str, text: str) -> RoutePlan:
    return RoutePlan("r", path_kind=kind, path=text, pool=0)  # type: ignore[arg-type]


def takes(route: RoutePlan, **request: Any) -> bool:
    index: int = route_of(route, **request)["route"]
    return index != DEFAULT


# ---- paths -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "text", "target", "taken"), [
    ("any", "", "/x", True), ("any", "", "*", True),
    ("exact", "/a", "/a", True), ("exact", "/a", "/a?b", True), ("exact", "/a", "/a/", False),
    ("exact", "/a", "/ab", False), ("exact", "/a", "/A", False), ("exact", "/", "/", True),
    ("exact", "/a", "//a", True), ("exact", "/a/", "/a//", True), ("exact", "/a/b", "/a//b", True),
    ("exact", "/a/", "/a", False), ("exact", "/a", "/%61", True), ("exact", "/a", "/b/../a", True),
    ("prefix", "/api", "/api", True), ("prefix", "/api", "/api/x", True),
    ("prefix", "/api", "/apiary", False), ("prefix", "/api/", "/api/x", True),
    ("prefix", "/api/", "/api", False), ("prefix", "/api/", "/api/", True),
    ("prefix", "/", "/anything", True), ("prefix", "/admin", "//admin", True),
    ("prefix", "/admin", "/.//admin/x", True), ("prefix", "/admin", "/x/%2e./admin", True),
    ("prefix", "/admin", "/%61dmin", True), ("prefix", "/a/b", "/a///b/c", True),
    ("prefix", "/a//b", "/a/b", True), ("prefix", "/a", "*", False),
    ("regex", "/a[0-9]+$", "/a17", True), ("regex", "/a[0-9]+$", "/a17x", False),
    ("regex", "/a", "/abc", True), ("regex", "a", "/a", False), ("regex", "(?i)/ADMIN", "/admin",
                                                                  True),
    ("regex", "/admin(/|$)", "//admin", True), ("regex", "/a/b$", "/a////b", True),
    ("prefix", "/secret/", "/secret%2fa", True), ("prefix", "/secret", "/secret%2Fa", True),
    ("prefix", "/secret", "/%2F%2fsecret", True), ("prefix", "/secret", "/secret%252Fa", False),
    ("prefix", "/a/b", "/a%2f/%2Fb", True), ("prefix", "/", "/%2Fx", True),
    ("exact", "/a/b", "/a%2Fb", True), ("exact", "/a/", "/a%2f", True),
    ("exact", "/a", "/a%2F", False), ("exact", "/a/b", "/a%5Cb", False),
    ("regex", "/secret/", "/secret%2fa", True), ("regex", "/a/[^/]+$", "/a/b%2Fc", False),
    ("prefix", "/@me", "/%40me/x", True), ("prefix", "/a;b", "/a%3bb", True),
    ("exact", "/caf%C3%A9", "/caf\xe9", True), ("regex", "/café$", "/caf%c3%a9", True),
    ("regex", "/a b$", "/a%20b", True), ("regex", "/a%20b$", "/a%2520b", True),
    ("exact", "/a%2541", "/a%2541", True), ("exact", "/aA", "/a%2541", False),
    ("regex", "/a.*b$", "/a%0Ab", True), ("regex", "/a$", "/a%0A", False),
    ("regex", "/x$", "*", False), ("regex", ".*", "*", False),
])
def test_a_path_takes(kind: str, text: str, target: str, taken: bool) -> None:
    method = "OPTIONS" if target == "*" else "GET"
    assert takes(path(kind, text), target=target, method=method) == taken


def test_captures_are_those_of_the_path_that_is_sent_on() -> None:
    found = route_of(path("regex", "/(a+)/(x)?(b.*)"), target="//aa///bc//d?q")
    assert found["captures"] == ["//aa///bc//d", "aa", "", "bc//d"]
    assert found["matched"] == len("//aa///bc//d")


def test_captures_keep_the_escapes_of_what_they_matched() -> None:
    found = route_of(path("regex", "/a/([^/]+)/(.*)"), target="/a%2Fb%20c%2f/%40d%2Fe")
    assert found["captures"] == ["/a%2Fb%20c%2F/%40d%2Fe", "b%20c", "%40d%2Fe"]
    assert found["matched"] == len(found["path"])


def test_more_groups_than_ten_are_no_harm() -> None:
    assert route_of(path("regex", "/" + "(.)" * 12), target="/abcdefghijkl")["captures"] == [
        "/abcdefghijkl", *"abcdefghi"]


# ---- methods, fields, queries ------------------------------------------------------------------


@pytest.mark.parametrize(("method", "taken"), [
    ("GET", True), ("PURGE", True), ("POST", False), ("get", False), ("GETS", False),
])
def test_methods_are_compared_whole(method: str, taken: bool) -> None:
    assert takes(RoutePlan("r", methods=("GET", "PURGE"), pool=0), method=method) == taken


@pytest.mark.parametrize(("condition", "values", "taken"), [
    (MatchPlan("x-v"), ["1"], True), (MatchPlan("x-v"), [], False), (MatchPlan("x-v"), [""], True),
    (MatchPlan("x-v", negated=True), ["1"], False), (MatchPlan("x-v", negated=True), [], True),
    (MatchPlan("x-v", "equal", "1"), ["1"], True), (MatchPlan("x-v", "equal", "1"), ["11"], False),
    (MatchPlan("x-v", "equal", "1"), ["0", "1"], True),
    (MatchPlan("x-v", "equal", "a"), ["A"], False),
    (MatchPlan("x-v", "equal", "1", negated=True), ["0", "1"], False),
    (MatchPlan("x-v", "equal", "1", negated=True), [], True),
    (MatchPlan("x-v", "prefix", "ab"), ["abc"], True),
    (MatchPlan("x-v", "prefix", "ab"), ["a"], False),
    (MatchPlan("x-v", "regex", "b.d$"), ["abcd"], True),
    (MatchPlan("x-v", "regex", "^b"), ["abcd"], False),
])
def test_fields_are_conditions(condition: MatchPlan, values: list[str], taken: bool) -> None:
    route = RoutePlan("r", headers=(condition,), pool=0)
    assert takes(route, headers=[("X-V", value) for value in values]) == taken


def test_a_field_that_is_not_sent_on_matches_nothing() -> None:
    assert not takes(RoutePlan("r", headers=(MatchPlan("x_v"),), pool=0), headers=[("X_V", "1")])


@pytest.mark.parametrize(("condition", "query", "taken"), [
    (MatchPlan("v"), "v", True), (MatchPlan("v"), "v=", True), (MatchPlan("v"), "w=v", False),
    (MatchPlan("v"), "", False), (MatchPlan("v"), "a&&v=1&", True),
    (MatchPlan("v", "equal", "1"), "a=2&v=1", True),
    (MatchPlan("v", "equal", "1"), "v=2&v=1", True),
    (MatchPlan("v", "equal", "1"), "v=12", False),
    (MatchPlan("v", "equal", "a b"), "v=a+b", True),
    (MatchPlan("v", "equal", "a&b=c"), "v=a%26b%3dc", True),
    (MatchPlan("v", "equal", "%zz%4"), "v=%zz%4", True),
    (MatchPlan("v", "equal", "x=y"), "v=x=y", True),
    (MatchPlan("a b", "equal", "1"), "a%20b=1", True),
    (MatchPlan("v", "prefix", "1"), "v=12", True),
    (MatchPlan("v", "regex", "^[0-9]+$"), "v=%31%32", True),
    (MatchPlan("v", "regex", "^[0-9]+$"), "v=1x", False),
    (MatchPlan("v", negated=True), "w", True), (MatchPlan("v", negated=True), "v", False),
])
def test_queries_are_conditions(condition: MatchPlan, query: str, taken: bool) -> None:
    route = RoutePlan("r", queries=(condition,), pool=0)
    assert takes(route, target=f"/?{query}") == taken


def test_all_conditions_must_hold() -> None:
    route = RoutePlan("r", path_kind="prefix", path="/a", methods=("GET",), pool=0,
                      headers=(MatchPlan("x"),), queries=(MatchPlan("q"),))
    whole: dict[str, Any] = {"target": "/a?q", "headers": [("X", "1")]}
    assert takes(route, **whole)
    others: list[dict[str, Any]] = [
        {"target": "/a"}, {"target": "/b?q"}, {"headers": []}, {"method": "POST"}]
    for less in others:
        assert not takes(route, **{**whole, **less})


def test_the_first_route_that_takes_it_has_it() -> None:
    routes = [path("exact", "/a"), path("prefix", "/a"), path("regex", "/b"), path("any", "")]
    for target, index in (("/a", 0), ("/a/b", 1), ("/b", 2), ("/c", 3)):
        assert route_of(*routes, target=target)["route"] == index


# ---- hosts -------------------------------------------------------------------------------------


HOSTS = ("api.example.com", "*.api.example.com", "*.example.com", "localhost", "[::1]", "")


@pytest.mark.parametrize(("host", "wanted"), [
    ("api.example.com", "api.example.com"), ("API.Example.Com:8080", "api.example.com"),
    ("api.example.com.", "api.example.com"), ("api.example.com.:80", "api.example.com"),
    ("v1.api.example.com", "*.api.example.com"), ("a.b.api.example.com", "*.api.example.com"),
    ("www.example.com", "*.example.com"), ("a.b.c.example.com", "*.example.com"),
    ("example.com", ""), ("xexample.com", ""), ("example.org", ""), ("localhost:1", "localhost"),
    ("127.0.0.1", ""), ("[::1]:80", "[::1]"), ("a." * 100 + "example.com", "*.example.com"),
])
def test_a_host_takes(host: str, wanted: str) -> None:
    routes = [RoutePlan(name or "any", host=name, pool=0) for name in HOSTS]
    assert HOSTS[route_of(*routes, host=host)["route"]] == wanted


def test_what_a_hosts_own_routes_leave_goes_to_wildcards_and_then_to_any() -> None:
    routes = [RoutePlan("own", host="a.b", path_kind="exact", path="/own", pool=0),
              RoutePlan("wild", host="*.b", path_kind="exact", path="/wild", pool=0),
              RoutePlan("any", path_kind="exact", path="/any", pool=0)]
    for target, index in (("/own", 0), ("/wild", 1), ("/any", 2), ("/none", 3)):
        assert route_of(*routes, host="a.b", target=target)["route"] == index
    assert route_of(*routes, host="c.b", target="/own")["route"] == 3


def test_hundreds_of_hosts_are_found_in_their_table() -> None:
    routes = [RoutePlan(f"r{i}", host=f"h{i}.example.com", pool=0) for i in range(300)]
    image = image_of(HttpPlan(routes=tuple(routes)))
    try:
        for i in range(300):
            assert match(image, 0, "GET", "/", [("Host", f"H{i}.example.com:80")])["route"] == i
        assert match(image, 0, "GET", "/", [("Host", "h300.example.com")])["route"] == 300
    finally:
        os.close(image)


def test_a_request_without_a_host_goes_to_the_routes_without_one() -> None:
    routes = (RoutePlan("a", host="a", pool=0), RoutePlan("any", pool=0))
    assert exchange(b"GET / HTTP/1.0\r\n\r\n", *routes).route == 1


def test_the_host_of_a_whole_url_counts() -> None:
    image = image_of(HttpPlan(routes=(RoutePlan("a", host="a.example", pool=0),)))
    try:
        assert match(image, 0, "GET", "http://A.example/x?y", [])["route"] == 0
    finally:
        os.close(image)


# ---- who may enter -----------------------------------------------------------------------------


@pytest.mark.parametrize(("allow", "deny", "peer", "allowed"), [
    ((), (), "192.0.2.1", True), ((), (), None, True),
    (("192.0.2.0/24",), (), "192.0.2.1", True), (("192.0.2.0/24",), (), "192.0.3.1", False),
    ((), ("192.0.2.0/24",), "192.0.2.1", False), ((), ("192.0.2.0/24",), "192.0.3.1", True),
    (("192.0.2.0/24",), ("192.0.2.7/32",), "192.0.2.7", False),
    (("192.0.2.0/24",), (), "::ffff:192.0.2.1", True),
    (("2001:db8::/32",), (), "2001:db8::1", True),
    (("0.0.0.0/0", "::/0"), (), None, False), ((), ("0.0.0.0/0",), None, True),
])
def test_addresses_may_enter(allow: tuple[str, ...], deny: tuple[str, ...], peer: str | None,
                             allowed: bool) -> None:
    route = RoutePlan("r", pool=0, allow=allow, deny=deny)
    assert exchange(head_of("GET /"), route, peer=peer).allowed == allowed


def test_it_is_the_client_who_enters_and_not_its_proxy() -> None:
    route = RoutePlan("r", pool=0, allow=("192.0.2.1/32",))
    for client, allowed in (("192.0.2.1", True), ("192.0.2.2", False)):
        head = head_of("GET /", [f"X-Forwarded-For: {client}"])
        assert exchange(head, route, peer="10.0.0.1", trusted=("10.0.0.0/8",)).allowed == allowed


# ---- expressions -------------------------------------------------------------------------------


def test_an_expression_that_costs_too_much_is_given_up_and_counted() -> None:
    route = path("regex", "/(a+)+$")
    began = time.thread_time()
    found = route_of(route, target="/" + "a" * 5000 + "b")
    assert (found["route"], found["exceeded"]) == (DEFAULT, 1)
    assert time.thread_time() - began < 1
    assert route_of(route, target="/" + "a" * 5000)["exceeded"] == 0


def test_ordinary_expressions_are_far_from_the_limit() -> None:
    target = "/" + "ab/" * 5000 + "index.php"
    found = route_of(path("regex", r"/.*\.(php|html)$"), target=target)
    assert (found["route"], found["exceeded"]) == (0, 0)
    assert route_of(path("regex", r"/.*\.(php|html)$"), target=target + "x")["exceeded"] == 0


@pytest.mark.parametrize("pattern", ["a", "^/x(?<name>.)$", "(?i)ä", r"\d+", ""])
def test_a_good_expression_has_nothing_wrong(pattern: str) -> None:
    assert check_pattern(pattern) is None


@pytest.mark.parametrize(("pattern", "said"), [
    ("a(b", "missing closing parenthesis (at character 4)"),
    ("a[b", "missing terminating ] for character class (at character 4)"),
    ("ä(", "missing closing parenthesis (at character 3)"), ("(*UTF)a", "UTF"), (r"\C", r"\C"),
    ("a{2,1}", "out of order"),
])
def test_a_bad_expression_is_told_with_its_place(pattern: str, said: str) -> None:
    assert said in (check_pattern(pattern) or "")


# ---- the door ----------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["/a b", "/\x00", "/%zz"])
def test_a_request_that_would_be_refused_is_an_error(target: str) -> None:
    with pytest.raises(ValueError, match="refused with status 400"):
        route_of(target=target)


def test_a_header_cannot_smuggle_another_request_in() -> None:
    with pytest.raises(ValueError, match=r"line breaks|refused"):
        route_of(headers=[("X", "1\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n")])


@pytest.mark.parametrize("listener", [-1, 1])
def test_there_must_be_such_a_listener(listener: int) -> None:
    image = image_of(HttpPlan())
    try:
        with pytest.raises(ValueError, match="no http listener"):
            match(image, listener, "GET", "/", [("Host", "a")])
    finally:
        os.close(image)


def test_addresses_of_a_tcp_listener_have_no_routes() -> None:
    image = _plan.build_image(1, 64, [(0, ListenerPlan("t", (Address("127.0.0.1", 1),), 0))], [])
    try:
        with pytest.raises(ValueError, match="no http listener"):
            match(image, 0, "GET", "/", [("Host", "a")])
    finally:
        os.close(image)
