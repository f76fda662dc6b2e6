"""What one http key cannot tell alone: routes among themselves, templates, files, pools.

The first part is about listeners and routes, the second about pools.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace

from pydantic import BaseModel

from lbcore.config import compile_http, files, routes
from lbcore.config.findings import Finding, choices
from lbcore.config.http_models import (
    MAX_ROUTES,
    Auth,
    Condition,
    FieldRules,
    HttpEjection,
    HttpListener,
    HttpPool,
    Route,
    Sticky,
)
from lbcore.config.http_values import is_weak_hash, parse_hash_on
from lbcore.config.models import Config, Listener, Pool
from lbcore.config.plan import RoutePlan, Template
from lbcore.config.problems import KeyPath
from lbcore.config.templates import parse_field_value, parse_location, parse_rewrite
from lbcore.config.values import BadValue

HTTP_LISTENER = tuple(HttpListener.model_fields)
HTTP_POOL = tuple(HttpPool.model_fields)
HTTP_EJECTION = tuple(HttpEjection.model_fields)
TCP_LISTENER = ("client_idle_timeout",)
TCP_POOL = ("server_idle_timeout",)
INSERT_ONLY = ("secret", "path", "secure", "http_only", "same_site", "max_age")
PATHS = ("path", "path_exact", "path_regex")
MATCHING = ("host", *PATHS, "methods", "headers", "query")
ACTIONS = ("pool", "redirect", "respond")
POOL_ONLY = (
    "strip_prefix", "rewrite", "request_headers", "retry", "first_byte_timeout", "read_timeout",
    "tunnel_timeout", "buffer_request", "buffer_response", "request_memory", "response_memory",
    "response_disk",
)
# What frames messages and names connections is lbcore's own affair.
FRAMING = (
    "connection", "content-length", "expect", "keep-alive", "proxy-connection", "te", "trailer",
    "transfer-encoding", "upgrade",
)


def listener_errors(path: KeyPath, listener: Listener) -> Iterator[Finding]:
    """What makes the http keys of a listener unusable."""
    protocol: KeyPath = (*path, "protocol")
    http = listener.protocol == "http"
    for key in TCP_LISTENER if http else HTTP_LISTENER:
        if key in listener.model_fields_set:
            hint = "keepalive_timeout and, for WebSocket, tunnel_timeout" if http else (
                'protocol = "http"')
            yield Finding((*path, key), f'this has no effect with protocol = "{listener.protocol}"',
                          hint, needs=(protocol,))
    if listener.pool is None and not (http and listener.route):
        hint = "the name of one of the pools" + (", or routes" if http else "")
        yield Finding((*path, "pool"), '"pool" is missing', hint,
                      needs=(protocol, (*path, "route")))
    if not http:
        return
    yield from _pages(path, listener)
    yield from _settings(path, listener, "", "")
    for index, route in enumerate(listener.route):
        yield from _route((*path, "route", index), route, listener)
    yield from _names(path, listener.route)
    yield from _unreachable(path, listener.route)


def listener_warnings(path: KeyPath, listener: Listener) -> Iterator[Finding]:
    """What of the http keys of a listener is probably not what was meant, or is dangerous."""
    if listener.protocol != "http":
        return
    for index, network in enumerate(listener.trusted_proxies):
        if network.endswith("/0"):
            yield Finding((*path, "trusted_proxies", index),
                          "every client can claim to be any other: all are trusted",
                          "name the networks of your proxies", code="trusts-everybody")
    for at, auth in (
        ((*path, "auth"), listener.auth),
        *(((*path, "route", n, "auth"), route.auth) for n, route in enumerate(listener.route)),
    ):
        for name, hashed in (auth.users if auth else {}).items():
            if is_weak_hash(hashed):
                yield Finding((*at, "users", name), "who gets hold of this hash has the password",
                              "a bcrypt, yescrypt or SHA-512 one: `htpasswd -nB NAME`",
                              code="weak-hash")
    for index, route in enumerate(listener.route):
        if listener.pool is not None and _takes_everything(route):
            yield Finding((*path, "pool"), "nothing is left for it: a route takes every request",
                          "leave pool out, or say which requests the route takes",
                          see=(*path, "route", index), code="never-reached")


def total_errors(config: Config) -> Iterator[Finding]:
    """More routes than a running instance can count."""
    total = sum(len(listener.route) + 1 for listener in config.listener
                if listener.protocol == "http")
    if total > MAX_ROUTES:
        yield Finding(("listener",), f"{total} routes are more than lbcore can count",
                      f"at most {MAX_ROUTES}, with one of each listener for what is left")


def used_pools(path: KeyPath, listener: Listener) -> Iterator[tuple[KeyPath, str]]:
    """The pools that a listener names, each with the key that does."""
    if listener.pool is not None:
        yield (*path, "pool"), listener.pool
    if listener.protocol == "http":
        for index, route in enumerate(listener.route):
            if route.pool is not None:
                yield (*path, "route", index, "pool"), route.pool


# ---- routes


def _route(path: KeyPath, route: Route, listener: Listener) -> Iterator[Finding]:
    yield from _only_one(path, route, PATHS, "the path is compared in one way")
    yield from _only_one(path, route, ACTIONS, "a request goes one way")
    given = [name for name in ACTIONS if getattr(route, name) is not None]
    needs = tuple((*path, name) for name in ACTIONS)
    if not given:
        yield Finding(path, "this route does not say what becomes of its requests",
                      f"one of {choices(ACTIONS)}", needs=needs)
    if route.status is not None and route.redirect is None:
        yield Finding((*path, "status"), "this has no effect without redirect",
                      'redirect = "https://$host$uri"; a fixed response has its own status',
                      needs=needs)
    if given and route.pool is None:
        for key in POOL_ONLY:
            if key in route.model_fields_set:
                yield Finding((*path, key), f"this has no effect with {given[0]}: no backend is "
                              "asked", "remove it", needs=needs)
    yield from _conditions((*path, "headers"), route.headers, fold=True)
    yield from _conditions((*path, "query"), route.query, fold=False)
    yield from _new_path(path, route)
    kind = next((name for name in PATHS if getattr(route, name) is not None), "")
    if route.redirect is not None:
        yield from _references((*path, "redirect"), parse_location(route.redirect), kind, path)
    yield from _settings(path, route, kind, "route")
    yield from _respond(path, route)
    for switch, sizes in (("buffer_request", ("request_memory",)),
                          ("buffer_response", ("response_memory", "response_disk"))):
        own = getattr(route, switch)
        if (getattr(listener, switch) if own is None else own) is False:
            for key in sizes:
                if key in route.model_fields_set:
                    yield Finding((*path, key), f"this has no effect with {switch} = false",
                                  f"{switch} = true",
                                  needs=((*path, switch), (*path[:-2], switch)))


def _only_one(path: KeyPath, route: Route, keys: tuple[str, ...], why: str) -> Iterator[Finding]:
    given = [name for name in keys if getattr(route, name) is not None]
    for name in given[1:]:
        yield Finding((*path, name), f"{why}, and this route has {given[0]} too",
                      "keep one of the two", see=(*path, given[0]), needs=((*path, given[0]),))


def _new_path(path: KeyPath, route: Route) -> Iterator[Finding]:
    """What strip_prefix and rewrite need, and whether they agree."""
    if route.strip_prefix and route.path is None:
        yield Finding((*path, "strip_prefix"), "there is no prefix to strip", 'path = "/v1/"',
                      needs=tuple((*path, name) for name in PATHS))
    if route.rewrite is None:
        return
    if route.strip_prefix:
        yield Finding((*path, "rewrite"), "strip_prefix makes another path",
                      'rewrite = "/$tail" says the same as strip_prefix',
                      see=(*path, "strip_prefix"), needs=((*path, "strip_prefix"),))
    kind = next((name for name in PATHS if getattr(route, name) is not None), "")
    yield from _references((*path, "rewrite"), parse_rewrite(route.rewrite), kind, path)


def _references(
    at: KeyPath, template: Template, kind: str, route: KeyPath
) -> Iterator[Finding]:
    """Parts of a template that a route of this kind does not have."""
    needs = tuple((*route, name) for name in PATHS)
    for piece in template:
        if piece.part == "capture" and kind != "path_regex":
            yield Finding(at, f"${piece.number} is a group of path_regex, which is not here",
                          'path_regex = "/([a-z]+)/(.*)"', needs=needs)
        if piece.part == "tail" and kind != "path":
            yield Finding(at, "$tail is what follows path, which is not here", 'path = "/v1/"',
                          needs=needs)


def _conditions(
    path: KeyPath, conditions: Mapping[str, Condition], *, fold: bool
) -> Iterator[Finding]:
    first: dict[str, KeyPath] = {}
    for name, condition in conditions.items():
        at: KeyPath = (*path, name)
        seen = first.setdefault(name.lower() if fold else name, at)
        if seen != at:
            yield Finding(at, "the same header field is here in other letters", "keep one",
                          see=seen, needs=(seen,))
        given = [field.alias or key for key, field in Condition.model_fields.items()
                 if getattr(condition, key) is not None]
        if len(given) != 1:
            yield Finding(at, f"{len(given)} conditions are here instead of one"
                          if given else "there is no condition here",
                          'a string, or one of equal, prefix, regex, present and not',
                          needs=(at,))


def _settings(
    path: KeyPath, table: Listener | Route, kind: str, owner: str
) -> Iterator[Finding]:
    """What listeners and routes both have: changes to header fields, users."""
    for key, rules in (("request_headers", table.request_headers),
                       ("response_headers", table.response_headers)):
        if rules is not None:
            yield from _field_rules((*path, key), rules, kind, path if owner else ())
    if table.auth is not None:
        yield from _auth((*path, "auth"), table.auth)


def _field_rules(
    path: KeyPath, rules: FieldRules, kind: str, route: KeyPath
) -> Iterator[Finding]:
    request = path[-1] == "request_headers"
    named = [
        *(((*path, "set", name), name, value) for name, value in rules.set.items()),
        *(((*path, "add", name), name, value) for name, value in rules.add.items()),
        *(((*path, "remove", n), name, "") for n, name in enumerate(rules.remove)),
    ]
    for at, name, value in named:
        if name.lower() in FRAMING:
            yield Finding(at, f"{name} says how a message is sent, which is lbcore's own affair",
                          "remove it")
        elif name.lower() == "host" and (not request or at[-2] != "set"):
            yield Finding(at, "a request has exactly one Host" if request else
                          "responses have no Host", "request_headers = { set = { Host = ... } }")
        yield from _references(at, parse_field_value(value), kind, route)
    first: dict[tuple[object, str], KeyPath] = {}
    for at, name, _ in named:
        seen = first.setdefault((at[-2], name.lower()), at)
        if seen != at:
            yield Finding(at, "the same header field is here in other letters", "keep one",
                          see=seen, needs=(seen,))


def _auth(path: KeyPath, auth: Auth) -> Iterator[Finding]:
    if not auth.enabled:
        return
    try:
        known = files.users(auth.users_file) if auth.users_file is not None else {}
    except BadValue as bad:
        yield Finding((*path, "users_file"), bad.message, bad.hint)
        return
    for name in auth.users:
        if name in known:
            yield Finding((*path, "users", name), f'"{name}" is in users_file, too', "keep one",
                          see=(*path, "users_file"), needs=((*path, "users_file"),))
    if not known and not auth.users:
        yield Finding(path, "nobody could enter: there are no users",
                      'users = { alice = "$2y$..." }, or users_file',
                      needs=((*path, "users"), (*path, "users_file")))


def _respond(path: KeyPath, route: Route) -> Iterator[Finding]:
    respond = route.respond
    if respond is None:
        return
    at: KeyPath = (*path, "respond")
    if respond.body is not None and respond.file is not None:
        yield Finding((*at, "file"), "the body stands in body already", "keep one of the two",
                      see=(*at, "body"), needs=((*at, "body"),))
    elif respond.file is not None:
        try:
            files.read(respond.file)
        except BadValue as bad:
            yield Finding((*at, "file"), bad.message, bad.hint)
    key = "body" if respond.body else "file" if respond.file else ""
    if respond.status in (204, 304) and key:
        yield Finding((*at, key), f"a response with status {respond.status} has no body",
                      "another status, or no body", needs=((*at, "status"),))


def _pages(path: KeyPath, listener: Listener) -> Iterator[Finding]:
    for status, paths in listener.error_pages.items():
        kinds: dict[str, KeyPath] = {}
        for index, file in enumerate(paths):
            at: KeyPath = (*path, "error_pages", status, index)
            try:
                page = files.page(0, file)
            except BadValue as bad:
                yield Finding(at, bad.message, bad.hint)
                continue
            seen = kinds.setdefault(page.kind, at)
            if seen != at:
                yield Finding(at, f"another {page.kind} page is here for this status", "keep one",
                              see=seen, needs=(seen,))


def _names(path: KeyPath, table: list[Route]) -> Iterator[Finding]:
    first: dict[str, KeyPath] = {}
    for index, route in enumerate(table):
        at: KeyPath = (*path, "route", index, "name")
        if route.name is None:
            continue
        if route.name in compile_http.RESERVED:
            yield Finding(at, f'"{route.name}" is the route for what no other takes',
                          "another name")
        seen = first.setdefault(route.name, at)
        if seen != at:
            yield Finding(at, f'another route of this listener is called "{route.name}"',
                          "give each a name of its own", see=seen, needs=(seen,))


def _unreachable(path: KeyPath, table: list[Route]) -> Iterator[Finding]:
    """Routes that get no request, for at least one of their hosts."""
    plans = routes.in_order(
        replace(plan, origin=index)
        for index, route in enumerate(table)
        if sum(getattr(route, name) is not None for name in PATHS) < 2
        for plan in compile_http.matching(route)
    )
    told: set[int] = set()
    for plan, other in routes.covered(plans):
        if plan.origin in told:
            continue
        told.add(plan.origin)
        at: KeyPath = (*path, "route", plan.origin)
        see: KeyPath = (*path, "route", other.origin)
        same = _same_match(plan, other)
        where = f" for {plan.host}" if len(table[plan.origin].host or []) > 1 else ""
        yield Finding(
            at,
            f"another route matches the same{where}" if same else
            f"no request gets here{where}: a route before it takes them all",
            "merge the two, or make them differ" if same else
            "put the one that asks for more before it",
            see=see,
            needs=tuple((*one, key) for one in (at, see) for key in MATCHING),
        )


def _same_match(one: RoutePlan, other: RoutePlan) -> bool:
    return (one.methods, set(one.headers), set(one.queries)) == (
        other.methods, set(other.headers), set(other.queries))


def _takes_everything(route: Route) -> bool:
    asks = route.host or route.methods or route.headers or route.query
    return not asks and route.path_exact is None and route.path_regex is None and (
        route.path in (None, "/"))


# ---- pools


def usage(config: Config) -> dict[str, set[str]]:
    """The protocols with which each pool is used."""
    found: dict[str, set[str]] = {}
    for index, listener in enumerate(config.listener):
        for _, name in used_pools(("listener", index), listener):
            found.setdefault(name, set()).add(listener.protocol)
    return found


def without_effect(
    pool: Pool, protocols: Collection[str]
) -> Iterator[tuple[KeyPath, str, str, KeyPath]]:
    """Keys of a pool that mean nothing here: (key, why, hint, key that it depends on).

    ``protocols``: of the listeners that use the pool.
    """
    for keys, others, protocol in (
        ([*((key,) for key in HTTP_POOL), *(("ejection", key) for key in HTTP_EJECTION)],
         {"tcp"}, "http"),
        ([(key,) for key in TCP_POOL], {"http"}, "tcp"),
    ):
        if set(protocols) == others:
            why = f"only {', '.join(others)} listeners use this pool"
            hint = f'a listener with protocol = "{protocol}", or remove it'
            yield from ((key, why, hint, ()) for key in keys)
    own = "send_proxy" if pool.send_proxy != "off" else (
        "source_transparent" if pool.source_transparent else "")
    if own and "http" in protocols:
        for key in ("keepalive_idle", "keepalive_connections"):
            yield (key,), f"with {own}, a connection belongs to one client", "remove it", (own,)
    if pool.sticky is not None and pool.sticky.mode == "learn":
        for key in INSERT_ONLY:
            yield (("sticky", key), "the application sets the cookie", 'mode = "insert"',
                   ("sticky", "mode"))
    elif pool.sticky is not None:
        yield (("sticky", "expiry"), "an inserted cookie is not remembered, only read",
               "max_age, after which browsers drop it", ("sticky", "mode"))


def pool_errors(
    path: KeyPath, name: str, pool: Pool, protocols: Collection[str]
) -> Iterator[Finding]:
    """What makes the http keys of a pool unusable. ``protocols``: of listeners that use it."""
    for keys, why, hint, about in without_effect(pool, protocols):
        table: BaseModel | None = pool if len(keys) == 1 else getattr(pool, str(keys[0]))
        if table is not None and keys[-1] in table.model_fields_set:
            needs: KeyPath = (*path, *about) if about else ("listener",)
            yield Finding((*path, *keys), f"this has no effect: {why}", hint,
                          see=needs if about else (), needs=(needs,))
    if parse_hash_on(pool.hash_on)[0] != "source_ip" and "tcp" in protocols:
        yield Finding((*path, "hash_on"), f'"{pool.hash_on}" cannot be known on a tcp connection',
                      'hash_on = "source_ip", or a pool of its own for http listeners',
                      needs=(("listener",),))
    if pool.sticky is not None and pool.sticky.mode == "insert":
        yield from _sticky((*path, "sticky"), name, pool.sticky)


def _sticky(path: KeyPath, name: str, sticky: Sticky) -> Iterator[Finding]:
    if sticky.same_site == "None" and not sticky.secure:
        yield Finding((*path, "same_site"), "browsers refuse such a cookie unless it is secure",
                      "secure = true", needs=((*path, "secure"),))
    if sticky.max_age % 1000:
        yield Finding((*path, "max_age"), "cookies count whole seconds", 'for example "1h"')
    if sticky.secret is None and not compile_http.machine_identity():
        yield Finding((*path, "secret"), f'"secret" is missing: {compile_http.MACHINE_ID}, from '
                      "which it would be derived, is not there or empty",
                      f'16 characters or more, the same wherever pool "{name}" is served')
