"""What the http keys mean: listeners, their routes, and pools."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

from lbcore.config import files, templates
from lbcore.config.http_models import Auth, Condition, FieldRules, RateLimit, Retry, Route, Sticky
from lbcore.config.http_values import parse_hash_on, parse_host, parse_path, rate_plan
from lbcore.config.models import Listener, Pool
from lbcore.config.plan import (
    FieldPlan,
    HttpPlan,
    MatchPlan,
    PathKind,
    PoolHttpPlan,
    RatePlan,
    RoutePlan,
    StickyPlan,
    default_route,
)
from lbcore.config.routes import described, in_order, unique_names
from lbcore.config.values import parse_network

DEFAULT_REDIRECT = 302
RESERVED = ("default", "none")   # names of routes for what is left
MACHINE_ID = Path("/etc/machine-id")


def http_plan(listener: Listener, pool: int, pools: Mapping[str, int]) -> HttpPlan:
    """The http part of a listener whose requests go to ``pool`` where no route takes them."""
    names = route_names(listener.route)
    return HttpPlan(
        routes=in_order(
            plan
            for index, (route, name) in enumerate(zip(listener.route, names, strict=True))
            for plan in _routes(listener, route, name, index, pools)
        ),
        default=_settled(default_route(pool), listener, Route()),
        head_timeout_ms=listener.head_timeout,
        keepalive_timeout_ms=listener.keepalive_timeout,
        max_requests=listener.max_requests,
        max_head=listener.max_head,
        max_fields=listener.max_fields,
        trusted=tuple(parse_network(text) for text in listener.trusted_proxies),
        forwarded=listener.forwarded,
        request_id=listener.request_id,
        via=listener.via,
        underscores=listener.underscores,
        abort_on_close=listener.abort_on_close,
        pages=tuple(
            files.page(0 if status == "default" else int(status), path)
            for status, paths in listener.error_pages.items() for path in paths
        ),
    )


def route_names(routes: list[Route]) -> list[str]:
    """The names of the routes of a file, in its order."""
    given = [route.name for route in routes if route.name]
    made = iter(unique_names(
        [_described(route) for route in routes if not route.name], [*given, *RESERVED]))
    return [route.name or next(made) for route in routes]


def matching(route: Route) -> tuple[RoutePlan, ...]:
    """What a route matches, one for each of its hosts, without what becomes of it."""
    kind, path = _path(route)
    plan = RoutePlan(
        name=route.name or "",
        path_kind=kind,
        path=path,
        methods=_methods(route),
        headers=tuple(_match(name.lower(), one) for name, one in route.headers.items()),
        queries=tuple(_match(name, one) for name, one in route.query.items()),
    )
    return tuple(replace(plan, host=host) for host in _hosts(route) or [""])


def pool_http_plan(name: str, pool: Pool) -> PoolHttpPlan:
    """The http part of a pool."""
    return PoolHttpPlan(
        keepalive_idle_ms=pool.keepalive_idle,
        keepalive_connections=pool.keepalive_connections,
        retry_share=pool.retry_share,
        failure_statuses=tuple(dict.fromkeys(pool.ejection.statuses)),
        slow_ms=pool.ejection.slow,
        hash_name=parse_hash_on(pool.hash_on)[1],
        sticky=_sticky(name, pool.sticky) if pool.sticky else None,
    )


def machine_identity() -> bytes:
    """What tells this machine from others, and outlives restarts; empty where there is nothing."""
    try:
        return MACHINE_ID.read_bytes().strip()
    except OSError:
        return b""


def _routes(
    listener: Listener, route: Route, name: str, index: int, pools: Mapping[str, int]
) -> list[RoutePlan]:
    return [
        _settled(_acting(replace(plan, name=name, origin=index), route, pools), listener, route)
        for plan in matching(route)
    ]


def _described(route: Route) -> str:
    kind, path = _path(route)
    return described(
        _hosts(route), kind, path, route.methods or (), len(route.headers) + len(route.query))


def _hosts(route: Route) -> list[str]:
    return list(dict.fromkeys(parse_host(text) for text in route.host or ()))


def _path(route: Route) -> tuple[PathKind, str]:
    if route.path_exact is not None:
        return "exact", parse_path(route.path_exact)
    if route.path_regex is not None:
        return "regex", route.path_regex
    if route.path is not None:
        return "prefix", parse_path(route.path)
    return "any", ""


def _methods(route: Route) -> tuple[str, ...]:
    named = set(route.methods or ())
    return tuple(sorted(named | {"HEAD"} if "GET" in named else named))


def _match(name: str, one: Condition) -> MatchPlan:
    if one.equal is not None:
        return MatchPlan(name, "equal", one.equal)
    if one.prefix is not None:
        return MatchPlan(name, "prefix", one.prefix)
    if one.regex is not None:
        return MatchPlan(name, "regex", one.regex)
    if one.not_ is not None:
        return MatchPlan(name, "equal", one.not_, negated=True)
    return MatchPlan(name, "present", negated=one.present is False)


def _acting(plan: RoutePlan, route: Route, pools: Mapping[str, int]) -> RoutePlan:
    """The plan with what becomes of a request."""
    if route.redirect is not None:
        return replace(plan, action="redirect", status=route.status or DEFAULT_REDIRECT,
                       location=templates.parse_location(route.redirect))
    if route.respond is not None:
        file, body = route.respond.file, route.respond.body or ""
        content = files.read(file) if file is not None else body.encode()
        kind = files.media_type(file) if file is not None else files.TYPES["text"]
        return replace(plan, action="respond", status=route.respond.status,
                       type=route.respond.type or kind, body=content)
    return replace(
        plan,
        pool=pools[route.pool or ""],
        strip_prefix=route.strip_prefix,
        rewrite=templates.parse_rewrite(route.rewrite) if route.rewrite is not None else (),
    )


def _settled(plan: RoutePlan, listener: Listener, route: Route) -> RoutePlan:
    """The plan with the settings of a route, or else its listener's."""
    auth = route.auth or listener.auth
    rate = route.rate_limit or listener.rate_limit
    retry = _retry(listener.retry, route.retry)
    allow = listener.allow if route.allow is None else route.allow
    deny = listener.deny if route.deny is None else route.deny

    def own(mine: int | None, theirs: int) -> int:
        return theirs if mine is None else mine

    def switch(mine: bool | None, theirs: bool) -> bool:
        return theirs if mine is None else mine

    return replace(
        plan,
        request_fields=_fields(listener.request_headers) + _fields(route.request_headers),
        response_fields=_fields(listener.response_headers) + _fields(route.response_headers),
        allow=tuple(map(parse_network, allow)),
        deny=tuple(map(parse_network, deny)),
        users=_users(auth) if auth and auth.enabled else None,
        realm=auth.realm if auth and auth.enabled else "",
        rate=_rate(rate) if rate and rate.enabled else None,
        max_body=own(route.max_body, listener.max_body),
        body_timeout_ms=own(route.body_timeout, listener.body_timeout),
        first_byte_timeout_ms=own(route.first_byte_timeout, listener.first_byte_timeout),
        read_timeout_ms=own(route.read_timeout, listener.read_timeout),
        send_timeout_ms=own(route.send_timeout, listener.send_timeout),
        total_timeout_ms=own(route.total_timeout, listener.total_timeout),
        tunnel_timeout_ms=own(route.tunnel_timeout, listener.tunnel_timeout),
        buffer_request=switch(route.buffer_request, listener.buffer_request),
        buffer_response=switch(route.buffer_response, listener.buffer_response),
        request_memory=own(route.request_memory, listener.request_memory),
        response_memory=own(route.response_memory, listener.response_memory),
        response_disk=own(route.response_disk, listener.response_disk),
        retry_attempts=retry.attempts,
        retry_statuses=tuple(dict.fromkeys(retry.statuses)),
        retry_unsafe=retry.unsafe,
    )


def _retry(listener: Retry, route: Retry | None) -> Retry:
    return listener.model_copy(update=route.model_dump(exclude_unset=True)) if route else listener


def _fields(rules: FieldRules | None) -> tuple[FieldPlan, ...]:
    if rules is None:
        return ()
    return (
        *(FieldPlan("remove", name) for name in rules.remove),
        *(FieldPlan("set", name, templates.parse_field_value(value))
          for name, value in rules.set.items()),
        *(FieldPlan("add", name, templates.parse_field_value(value))
          for name, value in rules.add.items()),
    )


def _users(auth: Auth) -> tuple[tuple[str, str], ...]:
    known = dict(auth.users)
    if auth.users_file is not None:
        known = files.users(auth.users_file) | known
    return tuple(known.items())


def _rate(rate: RateLimit) -> RatePlan:
    return rate_plan(rate.requests, rate.burst, rate.by)


def _sticky(pool: str, sticky: Sticky) -> StickyPlan:
    if sticky.mode == "learn":
        return StickyPlan(sticky.cookie, "learn", b"", "", sticky.expiry)
    secret = sticky.secret.encode() if sticky.secret else machine_identity() + pool.encode()
    attributes = [f"Path={sticky.path}"]
    if sticky.max_age:
        attributes.append(f"Max-Age={sticky.max_age // 1000}")
    if sticky.secure:
        attributes.append("Secure")
    if sticky.http_only:
        attributes.append("HttpOnly")
    if sticky.same_site:
        attributes.append(f"SameSite={sticky.same_site}")
    return StickyPlan(
        cookie=sticky.cookie,
        key=blake2b(secret, digest_size=16, person=b"lbcore sticky").digest(),
        attributes="".join(f"; {attribute}" for attribute in attributes),
    )
