"""Which route goes first, what it is called, and which one nothing reaches."""

from __future__ import annotations

from itertools import permutations

import pytest

from lbcore.config.plan import MatchPlan, RoutePlan
from lbcore.config.routes import covered, described, in_order, unique_names

X = (MatchPlan("x", "equal", "1"),)
RANKED = (
    RoutePlan("exact host, exact path", host="a.b.c", path_kind="exact", path="/v1/x"),
    RoutePlan("exact host, expression", host="a.b.c", path_kind="regex", path="/v.*"),
    RoutePlan("exact host, long prefix", host="a.b.c", path_kind="prefix", path="/v1/"),
    RoutePlan("exact host, prefix with conditions", host="a.b.c", path_kind="prefix", path="/v1",
              methods=("GET",), headers=X),
    RoutePlan("exact host, prefix with a condition", host="a.b.c", path_kind="prefix", path="/v1",
              headers=X),
    RoutePlan("exact host, prefix", host="a.b.c", path_kind="prefix", path="/v1"),
    RoutePlan("exact host", host="a.b.c"),
    RoutePlan("long wildcard", host="*.b.c"),
    RoutePlan("short wildcard, exact path", host="*.c", path_kind="exact", path="/v1/x"),
    RoutePlan("short wildcard", host="*.c"),
    RoutePlan("exact path", path_kind="exact", path="/"),
    RoutePlan("prefix", path_kind="prefix", path="/"),
    RoutePlan("conditions", headers=X),
    RoutePlan("anything"),
)


@pytest.mark.parametrize("step", range(1, 14, 2))
def test_the_most_specific_route_goes_first_however_the_file_is_ordered(step: int) -> None:
    shuffled = [RANKED[(n * step) % len(RANKED)] for n in range(len(RANKED))]
    assert in_order(dict.fromkeys([*shuffled, *RANKED])) == RANKED


def test_equally_specific_routes_keep_the_order_of_the_file() -> None:
    routes = [RoutePlan(str(n), headers=(MatchPlan("x", "equal", str(n)),), origin=n)
              for n in range(4)]
    for mixed in permutations(routes):
        assert list(in_order(mixed)) == routes


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (((), "any", "", (), 0), "*"),
        ((("a.b",), "prefix", "/v1/", (), 0), "a.b/v1/"),
        ((("a.b", "c.d"), "exact", "/v1", ("GET", "PUT"), 2), "GET,PUT a.b+ =/v1 +2"),
        (((), "regex", "/x(.*)", (), 1), "~/x(.*) +1"),
        ((("a.b",), "any", "", (), 0), "a.b"),
        (((), "prefix", "/" + "x" * 200, (), 0), "/" + "x" * 76 + "..."),
    ],
)
def test_a_route_without_a_name_is_called_by_what_it_matches(
    arguments: tuple[tuple[str, ...], str, str, tuple[str, ...], int], name: str
) -> None:
    assert described(*arguments) == name


def test_names_that_are_taken_get_numbers() -> None:
    assert unique_names(["a", "b", "a", "a"], ["b", "a #2"]) == ["a", "b #2", "a #3", "a #4"]


def one(name: str, *headers: MatchPlan, methods: tuple[str, ...] = ()) -> RoutePlan:
    return RoutePlan(name, headers=headers, methods=methods)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (one("a"), one("b")),
        (one("a"), one("b", *X)),
        (one("a", methods=("GET", "PUT")), one("b", methods=("GET",))),
        (one("a", MatchPlan("x")), one("b", *X)),
        (one("a", MatchPlan("x", "prefix", "ab")), one("b", MatchPlan("x", "equal", "abc"))),
        (one("a", MatchPlan("x", "prefix", "a")), one("b", MatchPlan("x", "prefix", "ab"))),
    ],
)
def test_a_route_whose_requests_another_takes_is_found(
    first: RoutePlan, second: RoutePlan
) -> None:
    assert list(covered([first, second])) == [(second, first)]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (one("a", *X), one("b")),
        (one("a", methods=("GET",)), one("b", methods=("GET", "PUT"))),
        (one("a", methods=("GET",)), one("b")),
        (one("a", *X), one("b", MatchPlan("x"))),
        (one("a", *X), one("b", MatchPlan("y", "equal", "1"))),
        (one("a", MatchPlan("x", "equal", "1", negated=True)), one("b", *X)),
        (one("a", MatchPlan("x", "equal", "2", negated=True)), one("b", *X)),
        (one("a", MatchPlan("x", negated=True)), one("b", MatchPlan("x"))),
        (one("a", MatchPlan("x", "regex", ".")), one("b", *X)),
        (RoutePlan("a", path_kind="prefix", path="/a"),
         RoutePlan("b", path_kind="prefix", path="/")),
    ],
)
def test_a_route_that_some_request_reaches_is_not(first: RoutePlan, second: RoutePlan) -> None:
    assert list(covered([first, second])) == []
