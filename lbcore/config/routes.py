"""Which route goes first, what routes are called, and which of them nothing can reach.

Workers try the routes of a listener in order and take the first that matches, so the order made
here is what "most specific first" means.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from lbcore.config.plan import MatchPlan, RoutePlan

MAX_NAME = 80
MOST_COMPARED = 200              # of one path: with thousands, checking would take minutes
Rank = tuple[int, int, int, int, int, int]


def rank(route: RoutePlan) -> Rank:
    """The lower, the more specific; equal ones keep the order of the file.

    An exact host before a long wildcard before a short one before none; then an exact path before
    an expression before a long prefix before a short one before none; then who asks for more.
    """
    if not route.host:
        host = (2, 0)
    elif route.host.startswith("*"):
        host = (1, -len(route.host))
    else:
        host = (0, 0)
    path = {"exact": (0, 0), "regex": (1, 0), "prefix": (2, -len(route.path)), "any": (3, 0)}
    conditions = bool(route.methods) + len(route.headers) + len(route.queries)
    return (*host, *path[route.path_kind], -conditions, route.origin)


def in_order(routes: Iterable[RoutePlan]) -> tuple[RoutePlan, ...]:
    """Routes as workers try them."""
    return tuple(sorted(routes, key=rank))


def unique_names(wanted: Sequence[str], taken: Iterable[str] = ()) -> list[str]:
    """The wanted names; a later one of the same gets a number, such as "/api #2"."""
    used = set(taken)
    names = []
    for name in wanted:
        number, free = 1, name
        while free in used:
            number += 1
            free = f"{name} #{number}"
        used.add(free)
        names.append(free)
    return names


def described(
    hosts: Sequence[str], path_kind: str, path: str, methods: Sequence[str], conditions: int
) -> str:
    """A name made of what a route matches, such as "GET api.example.com/v1/"."""
    where = (hosts[0] if hosts else "") + ("+" if len(hosts) > 1 else "")
    what = {"exact": f"={path}", "regex": f"~{path}", "prefix": path, "any": ""}[path_kind]
    if path_kind != "prefix" and where and what:
        what = " " + what
    name = " ".join(part for part in (",".join(methods), where + what) if part) or "*"
    if conditions:
        name += f" +{conditions}"
    return name if len(name) <= MAX_NAME else name[: MAX_NAME - 3] + "..."


def covered(routes: Sequence[RoutePlan]) -> Iterator[tuple[RoutePlan, RoutePlan]]:
    """Routes that get no request, each with one before it that takes all of its requests.

    ``routes`` are in order. What a regular expression takes is not looked into.
    """
    same: dict[object, list[RoutePlan]] = {}
    twins: dict[object, RoutePlan] = {}
    for route in routes:
        place = (route.host, route.path_kind, route.path)
        conditions = (route.methods, frozenset(route.headers), frozenset(route.queries))
        twin = twins.setdefault((place, conditions), route)
        earlier = same.setdefault(place, [])
        if twin is not route:
            yield route, twin
        elif other := next((one for one in earlier[:MOST_COMPARED] if _takes_all(one, route)),
                           None):
            yield route, other
        else:
            earlier.append(route)


def _takes_all(one: RoutePlan, other: RoutePlan) -> bool:
    """Whether every request that meets the conditions of ``other`` meets those of ``one``."""
    if one.methods and not (other.methods and set(other.methods) <= set(one.methods)):
        return False
    return all(
        any(_implies(given, condition) for given in theirs)
        for ours, theirs in ((one.headers, other.headers), (one.queries, other.queries))
        for condition in ours
    )


def _implies(given: MatchPlan, condition: MatchPlan) -> bool:
    if given == condition:
        return True
    # A field may be there twice: one with this value does not keep another value away.
    if given.name != condition.name or given.negated or condition.negated:
        return False
    if condition.kind == "present":
        return True
    starts = given.kind in ("equal", "prefix") and given.value.startswith(condition.value)
    return condition.kind == "prefix" and starts
