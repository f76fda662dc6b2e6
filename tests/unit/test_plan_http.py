"""The http part of a plan image: what a worker reads is what the plan says."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from lbcore._plan import HttpFlag, RouteFlag, build_image, contents, sockaddr
from lbcore._route import match
from lbcore.config.plan import (
    NO_POOL,
    Address,
    BackendPlan,
    HttpPlan,
    ListenerPlan,
    MatchPlan,
    PagePlan,
    PoolHttpPlan,
    PoolPlan,
    RatePlan,
    RoutePlan,
    Segment,
    StickyPlan,
)
from lbcore.config.routes import in_order

BACKEND = BackendPlan("a", Address("127.0.0.1", 80))
NO_INDEX = 2**32 - 1


def image_of(
    http: HttpPlan | None = None, pool: PoolPlan | None = None, *, listener_pool: int = 0,
    routes: Mapping[tuple[str, str], int] | None = None, access_format: int = 0,
) -> int:
    listener = ListenerPlan("web", (), listener_pool, "http", http=http)
    members = [(0, BACKEND, sockaddr("127.0.0.1", 80))]
    return build_image(1, 0, [(5, listener)], [(0, pool or PoolPlan("p", (BACKEND,)), members,
                                               b"", b"")], routes, access_format)


def written(*arguments: Any, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The first listener's and the first pool's http part of such an image."""
    fd = image_of(*arguments, **options)
    try:
        said = contents(fd)
    finally:
        os.close(fd)
    return said["listeners"][0]["http"], said["pools"][0]["http"]


def route_taken(http: HttpPlan, host: str, target: str = "/", method: str = "GET") -> str:
    listener = ListenerPlan("web", (), 0, "http", http=http)
    assert listener.http is not None
    assert listener.http.default is not None
    fd = image_of(http)
    try:
        index = int(match(fd, 0, method, target, [("Host", host)])["route"])
    finally:
        os.close(fd)
    return [*listener.http.routes, listener.http.default][index].name


def test_an_http_listener_works_with_nothing_but_a_pool() -> None:
    http, _ = written()
    assert [route["name"] for route in http["routes"]] == [b"default"]
    assert http["routes"][0]["pool"] == 0
    assert http["flags"] == HttpFlag.HTTP_X_FORWARDED | HttpFlag.HTTP_REQUEST_ID
    assert (http["name"], http["via"], http["head_timeout"]) == (b"web", b"lbcore", 10_000)
    assert route_taken(HttpPlan(), "example.com") == "default"


def test_without_a_pool_what_no_route_takes_is_a_404() -> None:
    http, _ = written(listener_pool=NO_POOL)
    (route,) = http["routes"]
    assert (route["action"], route["status"], route["pool"]) == (2, 404, NO_INDEX)


def test_switches_of_a_listener_are_flags() -> None:
    http, _ = written(HttpPlan(forwarded="rfc7239", request_id=False, underscores=True,
                               abort_on_close=True), access_format=1)
    assert http["flags"] == (HttpFlag.HTTP_FORWARDED | HttpFlag.HTTP_UNDERSCORES
                             | HttpFlag.HTTP_ABORT_ON_CLOSE | HttpFlag.HTTP_ACCESS_LOG)


def test_a_route_arrives_with_all_its_settings() -> None:
    route = RoutePlan(
        "r", host="*.b.c", path_kind="prefix", path="/v1/", pool=0, strip_prefix=True,
        users=(("alice", "$6$x"),), realm="R", rate=RatePlan(10, 20, "cookie", "SID"),
        max_body=2**40, response_disk=2**33, buffer_response=False, retry_unsafe=True,
        retry_attempts=4, retry_statuses=(500, 503, 429), status=0,
    )
    http, _ = written(HttpPlan((route,)))
    found = http["routes"][0]
    flags = RouteFlag.ROUTE_BUFFER_REQUEST | RouteFlag.ROUTE_RETRY_UNSAFE | RouteFlag.ROUTE_AUTH
    assert found["flags"] == flags
    assert (found["host"], found["path"], found["strip_prefix"]) == (b"*.b.c", b"/v1/", 1)
    assert (found["users"]["count"], found["realm"]) == (1, b"R")
    assert (found["rate_key"], found["rate_burst"], found["rate_interval"]) == (2, 20, 10)
    assert found["rate_name"] == b"SID"
    assert (found["max_body"], found["response_disk"]) == (2**40, 2**33)
    assert (found["retry_attempts"], found["retry_statuses"]) == (4, 1 | 1 << 3 | 1 << 63)
    assert (found["path_regex"], found["rewrite_regex"]) == (NO_INDEX, NO_INDEX)


def test_a_route_that_lets_nobody_in_is_not_one_that_lets_everybody_in() -> None:
    http, _ = written(HttpPlan((RoutePlan("r", pool=0, users=()),)))
    assert http["routes"][0]["flags"] & RouteFlag.ROUTE_AUTH


def test_expressions_are_shared_by_those_who_match_the_same_way() -> None:
    one = MatchPlan("x", "regex", "/a")
    http = HttpPlan((
        RoutePlan("a", path_kind="regex", path="/a", rewrite=(Segment("text", "/"),), pool=0),
        RoutePlan("b", path_kind="regex", path="/a", headers=(one,), queries=(one,), pool=0),
    ))
    fd = image_of(http)
    said = contents(fd)
    os.close(fd)
    assert said["header"]["expressions"]["count"] == 2       # anchored for paths, not for values
    first, second, _ = said["listeners"][0]["http"]["routes"]
    assert first["path_regex"] == second["path_regex"] == first["rewrite_regex"]
    assert second["rewrite_regex"] == NO_INDEX


def test_routes_have_the_rows_they_are_given_and_one_for_each_name() -> None:
    http = HttpPlan((RoutePlan("a", host="x.y", pool=0), RoutePlan("a", host="z.y", pool=0),
                     RoutePlan("b", pool=0)))
    rows = {("web", "a"): 7, ("web", "b"): 3, ("web", "default"): 9}
    found, _ = written(http, routes=rows)
    assert [route["row"] for route in found["routes"]] == [7, 7, 3, 9]


def test_a_pool_arrives_with_its_http_settings() -> None:
    sticky = StickyPlan("route", "insert", b"0123456789abcdef", "; Path=/")
    plan = PoolPlan("p", (BACKEND,), hash_on="cookie", http=PoolHttpPlan(
        1, 2, 0.25, (502, 429), 3, "SID", sticky))
    _, pool = written(pool=plan)
    assert (pool["idle_timeout"], pool["idle_most"], pool["retry_share"]) == (1, 2, 250)
    assert (pool["failure_statuses"], pool["slow_us"]) == (1 << 2 | 1 << 63, 3000)
    assert (pool["hash_on"], pool["hash_name"]) == (2, b"SID")
    assert (pool["sticky"], pool["cookie"]) == (1, b"route")
    assert (pool["cookie_key"], pool["cookie_attributes"]) == (b"0123456789abcdef", b"; Path=/")


@pytest.mark.parametrize(
    "pool", [PoolPlan("p", (BACKEND,), send_proxy=1), PoolPlan("p", (BACKEND,),
                                                               source_transparent=True)],
    ids=["send_proxy", "source_transparent"],
)
def test_connections_that_belong_to_one_client_are_not_kept(pool: PoolPlan) -> None:
    _, found = written(pool=pool)
    assert (found["idle_timeout"], found["idle_most"]) == (0, 0)


def test_connections_made_another_way_are_told_apart() -> None:
    plain = PoolPlan("p", (BACKEND,))
    ways = {written(pool=pool)[1]["way"] for pool in (
        plain, replace(plain, send_proxy=1), replace(plain, send_proxy=2),
        replace(plain, source=Address("10.0.0.1")), replace(plain, source=Address("10.0.0.2")),
        replace(plain, source_transparent=True),
    )}
    assert len(ways) == 6
    assert written()[1]["way"] in ways


def test_statuses_that_fit_into_no_bit_are_refused() -> None:
    for status in (404, 499, 563, 599):
        with pytest.raises(ValueError, match=str(status)):
            image_of(HttpPlan((RoutePlan("r", pool=0, retry_statuses=(status,)),)))


def test_a_key_of_another_length_signs_nothing() -> None:
    pool = PoolPlan("p", (BACKEND,), http=PoolHttpPlan(sticky=StickyPlan("c", key=b"short")))
    with pytest.raises(ValueError, match="16 bytes"):
        image_of(pool=pool)


def test_pages_are_in_the_image() -> None:
    http, _ = written(HttpPlan(pages=(PagePlan(404, "html", b"a"), PagePlan(0, "json", b"b"))))
    assert http["pages"]["count"] == 2


# ---- hosts

HOSTED = HttpPlan(in_order((
    RoutePlan("exact", host="a.b.c", path_kind="prefix", path="/x", pool=0),
    RoutePlan("below b.c", host="*.b.c", path_kind="prefix", path="/y", pool=0),
    RoutePlan("below c", host="*.c", path_kind="prefix", path="/z", pool=0),
    RoutePlan("anywhere", path_kind="prefix", path="/w", pool=0),
)))


@pytest.mark.parametrize(
    ("host", "target", "name"),
    [
        ("a.b.c", "/x", "exact"), ("a.b.c", "/y", "below b.c"), ("a.b.c", "/z", "below c"),
        ("a.b.c", "/w", "anywhere"), ("a.b.c", "/", "default"),
        ("d.b.c", "/x", "default"), ("d.b.c", "/y", "below b.c"), ("e.d.b.c", "/z", "below c"),
        ("b.c", "/y", "default"), ("b.c", "/z", "below c"),
        ("c", "/z", "default"), ("c", "/w", "anywhere"), ("xb.c", "/y", "default"),
        ("A.B.C:8080", "/x", "exact"), ("a.b.c.", "/x", "exact"),
    ],
)
def test_a_request_meets_the_routes_of_its_host_and_of_the_wildcards_above_it(
    host: str, target: str, name: str
) -> None:
    assert route_taken(HOSTED, host, target) == name


def test_each_of_many_hosts_finds_its_own_route() -> None:
    hosts = [f"h{n}.example" for n in range(300)] + [f"*.w{n}.example" for n in range(300)]
    http = HttpPlan(in_order(RoutePlan(host, host=host, pool=0) for host in hosts))
    fd = image_of(http)
    try:
        for index, route in enumerate(http.routes):
            asked = route.host.replace("*", "x")
            assert match(fd, 0, "GET", "/", [("Host", asked)])["route"] == index
        for asked in ("h300.example", "w1.example", "example"):
            assert match(fd, 0, "GET", "/", [("Host", asked)])["route"] == len(hosts)
    finally:
        os.close(fd)
