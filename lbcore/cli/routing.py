"""``lbcore check --route``: which route takes a request, why, and what becomes of it.

Workers decide; this only asks them. To tell why a route was passed over, each of its conditions is
put into a route of its own, and whether that one takes the request is the answer.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

import click

from lbcore._plan import build_image, sockaddr
from lbcore._route import match
from lbcore.config import Loaded, Plan
from lbcore.config.plan import (
    Address,
    BackendPlan,
    ListenerPlan,
    MatchPlan,
    RoutePlan,
    Segment,
    Template,
)

Json = dict[str, Any]
Fields = list[tuple[str, str]]
MAX_TOLD = 20                    # routes that were passed over
NO_HOST = "localhost"            # of a path alone: a request must have some host


@dataclass(frozen=True)
class Request:
    """A request as a person asks for it."""

    method: str
    host: str                    # with its port
    port: int                    # 0: the URL names none
    target: str
    fields: Fields

    def headers(self) -> Fields:
        """The header fields that a client would send."""
        own = any(name.lower() == "host" for name, _ in self.fields)
        return ([] if own else [("Host", self.host)]) + self.fields


def parse_request(text: str, headers: Sequence[str]) -> Request:
    """A request of ``METHOD URL``, or a URL alone. Raises ``click.BadParameter``."""
    words = text.split()
    if len(words) not in (1, 2):
        raise click.BadParameter(f'"{text}" is not "METHOD URL", such as "GET http://host/path".')
    method, url = (words if len(words) == 2 else ("GET", words[0]))
    fields = []
    for header in headers:
        name, colon, value = header.partition(":")
        if not colon:
            raise click.BadParameter(f'"{header}" is not "Name: value".')
        fields.append((name.strip(), value.strip()))
    if url.startswith(("/", "*")):
        return Request(method, NO_HOST, 0, url.partition("#")[0], fields)
    if "/" not in url:                  # a typing error, rather than a host
        raise click.BadParameter(
            f'"{url}" has no path: "http://{url}/" if it is a host, "/{url}" if it is a path.')
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        port = parts.port or 0
        host = parts.netloc.rpartition("@")[2]
        host = host if host.isascii() else host.encode("idna").decode()
    except ValueError as error:
        raise click.BadParameter(f'"{url}" is not a URL: {error}.') from None
    if parts.scheme not in ("http", "https") or not host:
        raise click.BadParameter(f'"{url}" is not a URL of HTTP, such as "http://host/path".')
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Request(method, host, port, target, fields)


def explained(loaded: Loaded, plan: Plan, request: Request) -> list[Json]:
    """For each http listener that could mean the request: the route, why, and what it does.

    Raises ``click.ClickException`` when there is no such listener.
    """
    http = [index for index, listener in enumerate(plan.listeners) if listener.http]
    if not http:
        raise click.ClickException(
            'No listener has protocol = "http", and only those have routes.')
    named = [index for index in http
             if any(bind.port == request.port for bind in plan.listeners[index].binds)]
    return [_explained(loaded, plan, index, request) for index in named or http]


def lines(answer: Json) -> list[str]:
    """What ``explained`` says of one listener, for people."""
    said = [f"Listener {answer['listener']}:"]
    if "refused" in answer:
        return [*said, f"  {answer['refused']}"]
    said.append(f"  Route {answer['route']} takes it{_line(answer)}.")
    said += [f"    {reason}" for reason in answer["because"]]
    said.append(f"  {answer['does']}")
    said += [f"    {rule}" for rule in answer["rules"]]
    if answer["passed_over"] or answer["other_hosts"]:
        said.append("  More specific, but not for this request:")
    for other in answer["passed_over"][:MAX_TOLD]:
        said.append(f"    {other['route']}{_line(other)}: {'; '.join(other['because'])}")
    more = len(answer["passed_over"]) - MAX_TOLD
    if more > 0:
        said.append(f"    and {more} more")
    if answer["other_hosts"]:
        number = answer["other_hosts"]
        said.append(f"    {number} for {'another host' if number == 1 else 'other hosts'}")
    return said


def _line(route: Json) -> str:
    return f" (line {route['line']})" if route["line"] else ""


def _explained(loaded: Loaded, plan: Plan, index: int, request: Request) -> Json:
    listener = plan.listeners[index]
    http = listener.http
    assert http is not None
    assert http.default is not None
    routes = [*http.routes, http.default]
    answer: Json = {"listener": listener.name}
    try:
        found = _ask(plan, [listener], request)[0]
    except ValueError as error:
        return answer | {"refused": f"{str(error)[:1].upper()}{str(error)[1:]}."}
    chosen = found["route"]
    route = routes[chosen]
    before = [(other, _conditions(other)) for other in routes[:chosen] if other.name != route.name]
    asked = [one for _, conditions in [(route, _conditions(route)), *before]
             for _, one in conditions]
    holds = iter(_hold(plan, listener, asked, request))
    because = [said for said, _ in _conditions(route) if next(holds)]
    passed = []
    other_hosts = 0
    for other, conditions in before:
        missing = [said for said, _ in conditions if not next(holds)]
        if other.host and missing and missing[0].startswith("host "):
            other_hosts += 1
            continue
        passed.append({"route": other.name, "line": _line_of(loaded, index, other),
                       "because": [f"not: {said}" for said in missing]})
    return answer | {
        "route": route.name,
        "line": _line_of(loaded, index, route),
        "because": because or ["it takes what no other route does"],
        "path": found["path"],
        "does": _does(plan, route, request, found),
        "rules": _rules(route, found),
        "passed_over": passed,
        "other_hosts": other_hosts,
    }


def _line_of(loaded: Loaded, listener: int, route: RoutePlan) -> int:
    if route.origin < 0:
        return 0
    return loaded.source.positions.line(("listener", listener, "route", route.origin))


def _conditions(route: RoutePlan) -> list[tuple[str, RoutePlan]]:
    """Each condition of a route in words, and as a route that has no other."""
    bare = RoutePlan(route.name)
    found = []
    if route.host:
        what = f"below {route.host[2:]}" if route.host.startswith("*.") else f"is {route.host}"
        found.append((f"host {what}", replace(bare, host=route.host)))
    if route.path_kind != "any":
        how = {"exact": "is", "prefix": "begins with", "regex": "matches"}[route.path_kind]
        found.append((f"path {how} {route.path}",
                      replace(bare, path_kind=route.path_kind, path=route.path)))
    if route.methods:
        found.append((f"method is {' or '.join(route.methods)}",
                      replace(bare, methods=route.methods)))
    found += [(f"header {one.name} {_condition(one)}", replace(bare, headers=(one,)))
              for one in route.headers]
    found += [(f"query parameter {one.name} {_condition(one)}", replace(bare, queries=(one,)))
              for one in route.queries]
    return found


def _condition(one: MatchPlan) -> str:
    if one.kind == "present":
        return "is absent" if one.negated else "is there"
    how = {"equal": "is", "prefix": "begins with", "regex": "matches"}[one.kind]
    return f'{how} {"not " if one.negated else ""}"{one.value}"'


def _hold(
    plan: Plan, listener: ListenerPlan, routes: Sequence[RoutePlan], request: Request
) -> list[bool]:
    """Whether each of these routes takes the request when there is no other."""
    assert listener.http is not None
    alone = [replace(listener, name=str(number), pool=0,
                     http=replace(listener.http, routes=(replace(route, pool=0),), pages=()))
             for number, route in enumerate(routes)]
    return [found["route"] == 0 for found in _ask(plan, alone, request)] if alone else []


def _ask(plan: Plan, listeners: Sequence[ListenerPlan], request: Request) -> list[Json]:
    """What workers say of the request at each of these listeners. Raises ValueError."""
    # Routes do not depend on backends, whose names need not even resolve here.
    nobody = BackendPlan("none", Address("127.0.0.1", 1))
    pools = [(row, replace(pool, backends=(nobody,), balance="round_robin"),
              [(row, nobody, sockaddr("127.0.0.1", 1))], b"", b"")
             for row, pool in enumerate(plan.pools)]
    image = build_image(0, 0, list(enumerate(listeners)), pools)
    try:
        return [match(image, number, request.method, request.target, request.headers())
                for number in range(len(listeners))]
    finally:
        os.close(image)


def _does(plan: Plan, route: RoutePlan, request: Request, found: Json) -> str:
    if route.action == "redirect":
        return f"The client is redirected with {route.status} to {_text(route.location)}"
    if route.action == "respond":
        size = len(route.body)
        body = f"{size} bytes of {route.type}" if route.type else "an error page"
        return f"The answer is {route.status}, with {body if size or not route.type else 'no body'}"
    pool = plan.pools[route.pool]
    count = len(pool.backends) + pool.demo + (len(pool.app.names) if pool.app else 0)
    backends = ("discovered backends" if pool.discover else
                "1 backend" if count == 1 else f"{count} backends")
    return (f"It goes to pool {pool.name} ({backends}, {pool.balance}), "
            f"which sees {request.method} {found['target']}")


def _rules(route: RoutePlan, found: Json) -> list[str]:
    """What stands between the request and what the route does, or changes on the way."""
    said = []
    if route.deny:
        said.append(f"not for clients in {', '.join(route.deny)}: 403")
    if route.allow:
        said.append(f"only for clients in {', '.join(route.allow)}: 403 for others")
    if route.users is not None:
        said.append(f"only with a password of {len(route.users)} users: otherwise 401")
    if route.rate is not None:
        per_minute = 60_000_000 / route.rate.interval_us
        by = f"{route.rate.by} {route.rate.name}".strip()
        said.append(f"{per_minute:g} requests a minute and {route.rate.burst} at once for each "
                    f"{by}: otherwise 429")
    for where, changes in (("request", route.request_fields), ("response", route.response_fields)):
        for change in changes:
            value = f": {_text(change.value)}" if change.action != "remove" else ""
            said.append(f"{where} header {change.action} {change.name}{value}")
    if found["exceeded"]:
        said.append("a regular expression gave up: matching it takes too long")
    return said


def _text(template: Template) -> str:
    return "".join(map(_piece, template))


def _piece(piece: Segment) -> str:
    if piece.part == "text":
        return piece.text.replace("$", "$$")
    if piece.part == "capture":
        return f"${{{piece.number}}}"
    return f"${{{piece.part}.{piece.text}}}" if piece.text else f"${{{piece.part}}}"
