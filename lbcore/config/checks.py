"""What one key cannot tell alone: names, references, addresses that collide, keys without effect.

``errors`` and ``warnings`` look at a whole Config. When parts of the file were broken they get a
Config made of what was left; the caller drops the findings that depend on a broken part, so that
one mistake is told once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from ipaddress import ip_address
from posixpath import normpath

from lbcore.config import apps, checks_admin, checks_http, discover
from lbcore.config.findings import Finding, choices, nearest
from lbcore.config.models import MAX_BACKENDS, Config, Health, Listener, Pool
from lbcore.config.plan import Address
from lbcore.config.problems import KeyPath
from lbcore.config.values import (
    format_duration,
    parse_backend,
    parse_listen,
    parse_source,
)

HTTP_ONLY = ("path", "host", "expect_status", "expect_body")
CONSISTENT_ONLY = ("hash", "hash_on", "load_bound")


def errors(config: Config, pool_names: Collection[str]) -> Iterator[Finding]:
    """What makes a configuration unusable. ``pool_names``: all that the file tries to define."""
    if not config.listener:
        yield Finding(
            ("listener",),
            "nothing listens: there is no [[listener]]",
            "a listener has a name, a bind address and a pool",
        )
    yield from _names(config)
    yield from _binds(config)
    yield from checks_admin.errors(config.admin)
    for index, listener in enumerate(config.listener):
        yield from _listener(("listener", index), listener, config, pool_names)
        yield from checks_http.listener_errors(("listener", index), listener)
    usage = checks_http.usage(config)
    for name, pool in config.pool.items():
        yield from _pool(("pool", name), name, pool)
        yield from checks_http.pool_errors(("pool", name), name, pool, usage.get(name, ()))
    yield from checks_http.total_errors(config)
    yield from _privileges(config)
    total = sum(len(pool.backends) + pool.demo + len(apps.backend_names(pool))
                for pool in config.pool.values())
    if total > MAX_BACKENDS:
        yield Finding(
            ("pool",), f"{total} backends are more than lbcore can count", f"at most {MAX_BACKENDS}"
        )


def warnings(config: Config) -> Iterator[Finding]:
    """What works, and is probably not what was meant, or is dangerous."""
    used = checks_http.usage(config)
    for name in config.pool:
        if name not in used:
            yield Finding(("pool", name), "no listener uses this pool", "remove it, or use it",
                          code="unused-pool")
    yield from checks_admin.warnings(config.admin)
    for index, listener in enumerate(config.listener):
        yield from checks_http.listener_warnings(("listener", index), listener)
        open_to_all = not all(_is_local(parse_listen(text)) for text in listener.bind)
        if listener.proxy_protocol and not listener.proxy_trusted and open_to_all:
            yield Finding(
                ("listener", index, "proxy_protocol"),
                "every client can claim to be any other: all are trusted to send a PROXY header",
                "name the networks of your balancers in proxy_trusted",
                needs=(("listener", index, "proxy_trusted"),),
                code="trusts-everybody",
            )
    for name, pool in config.pool.items():
        path = ("pool", name)
        if pool.connect_timeout > pool.connect_budget:
            yield Finding(
                (*path, "connect_timeout"),
                f'no attempt can take so long: connect_budget is '
                f'"{format_duration(pool.connect_budget)}" for all of them',
                needs=((*path, "connect_budget"),),
                code="long-attempt",
            )
        health = pool.health
        if health and health.fast_interval and health.fast_interval > health.interval:
            yield Finding(
                (*path, "health", "fast_interval"),
                "checks come more slowly while a backend changes state than at other times",
                f'shorter than interval, which is "{format_duration(health.interval)}"',
                needs=((*path, "health", "interval"),),
                code="slow-checks",
            )


def _names(config: Config) -> Iterator[Finding]:
    first: dict[str, KeyPath] = {}
    for index, listener in enumerate(config.listener):
        path: KeyPath = ("listener", index, "name")
        seen = first.setdefault(listener.name, path)
        if seen != path:
            yield Finding(
                path,
                f'another listener is called "{listener.name}"',
                "give each listener a name of its own",
                see=seen,
                needs=(seen,),
            )


def _binds(config: Config) -> Iterator[Finding]:
    """Addresses named twice, also through a wildcard, by listeners and the control API."""
    named: list[tuple[KeyPath, str, str]] = [
        (("listener", i, "bind", j), f'listener "{listener.name}"', text)
        for i, listener in enumerate(config.listener)
        for j, text in enumerate(listener.bind)
    ]
    if config.admin.listen:
        named.append((("admin", "listen"), "the control API", config.admin.listen))
    taken: dict[object, list[tuple[KeyPath, str, str, Address]]] = {}
    for path, owner, text in named:
        address = parse_listen(text)
        family = ":" in address.host
        place = address.name or (
            normpath(address.path) if address.path else (family, address.port))
        rivals = taken.setdefault(place, [])
        for rival_path, rival, rival_text, rival_address in rivals:
            if _overlap(address, rival_address):
                same = path[:2] == rival_path[:2]
                what = "is named twice" if same else f"is already named by {rival}"
                how = f" as {rival_text}" if rival_text != text else ""
                place_word = "path" if address.path else "port"
                yield Finding(
                    path,
                    f"{text} {what}{how}",
                    f"another {place_word}, or drop one of the two",
                    see=rival_path,
                    needs=(rival_path,),
                )
                break
        rivals.append((path, owner, text, address))


def _overlap(one: Address, other: Address) -> bool:
    """Whether two addresses of the same path, or of the same port and family, collide."""
    if one.path or one.name or one.host == other.host:
        return True
    return any(ip_address(address.host).is_unspecified for address in (one, other))


def _listener(
    path: KeyPath, listener: Listener, config: Config, pool_names: Collection[str]
) -> Iterator[Finding]:
    if listener.proxy_trusted and not listener.proxy_protocol:
        yield Finding(
            (*path, "proxy_trusted"),
            "this has no effect without proxy_protocol",
            "proxy_protocol = true",
            needs=((*path, "proxy_protocol"),),
        )
    told: set[str] = set()
    for at, name in checks_http.used_pools(path, listener):
        if name not in pool_names:
            yield _unknown_pool(at, name, pool_names)
        elif name in config.pool and name not in told:
            told.add(name)
            yield from _loops(path, at, listener, name, config.pool[name])


def _unknown_pool(at: KeyPath, name: str, pool_names: Collection[str]) -> Finding:
    close = nearest(name, pool_names)
    hint = f'did you mean "{close}"?' if close else ""
    if not hint and len(pool_names) <= 10:
        hint = f"the pools are {choices(pool_names)}" if pool_names else ""
    return Finding(
        at,
        f'no pool is called "{name}"',
        hint or f"define it: [pool.{name}]",
        needs=() if pool_names else (("pool",),),
    )


def _loops(
    path: KeyPath, uses: KeyPath, listener: Listener, name: str, pool: Pool
) -> Iterator[Finding]:
    """Backends of a pool that are the listener which uses it."""
    binds = [(text, parse_listen(text)) for text in listener.bind]
    for index, backend in enumerate(pool.backends):
        target = parse_backend(backend.address)
        for text, bind in binds:
            if _reaches(target, bind):
                yield Finding(
                    ("pool", name, "backends", index),
                    f'{backend.address} is listener "{listener.name}" itself ({text}), which '
                    "uses this pool: connections would go round for ever",
                    "the address of a server",
                    see=(*path, "bind"),
                    needs=((*path, "bind"), uses),
                )


def _reaches(target: Address, bind: Address) -> bool:
    """Whether connecting to ``target`` certainly arrives at ``bind`` on this machine."""
    if bind.name:
        return False
    if target.path or bind.path:
        return bool(target.path and bind.path) and normpath(target.path) == normpath(bind.path)
    if target.port != bind.port:
        return False
    if target.host == bind.host:
        return True
    wildcard = ip_address(bind.host)
    try:
        ip = ip_address(target.host)
    except ValueError:
        return target.host == "localhost" and (wildcard.is_unspecified or wildcard.is_loopback)
    return wildcard.is_unspecified and ip.is_loopback and ip.version == wildcard.version


def _pool(path: KeyPath, name: str, pool: Pool) -> Iterator[Finding]:
    backends: KeyPath = (*path, "backends")
    demo: KeyPath = (*path, "demo")
    own = pool.demo or apps.kind_of(pool)
    if pool.discover:
        for keys, message, hint in discover.problems(pool.discover, own=bool(own)):
            yield Finding((*path, "discover", *keys), message, hint,
                          needs=((*path, "discover"), demo, (*path, "wsgi"), (*path, "asgi")))
    if not pool.backends and not own and not pool.discover:
        yield Finding(
            backends if "backends" in pool.model_fields_set else path,
            f'pool "{name}" has no backends',
            'backends = ["10.0.0.1:8000"]',
            needs=(backends, demo, (*path, "discover"), (*path, "wsgi"), (*path, "asgi")),
        )
    elif not own and pool.backends and all(backend.weight == 0 for backend in pool.backends):
        yield Finding(
            backends,
            f'every backend of pool "{name}" has weight 0, so none would get a connection',
            "give at least one a weight of 1 or more",
            needs=(backends, demo),
        )
    for key, message, hint, about in apps.problems(pool):
        yield Finding((*path, key), message, hint, see=(*path, about), needs=((*path, about),))
    first: dict[str, KeyPath] = dict.fromkeys(apps.backend_names(pool), path)
    for index, backend in enumerate(pool.backends):
        at: KeyPath = (*backends, index)
        called = backend.name or backend.address
        seen = first.setdefault(called, at)
        if seen != at:
            yield Finding(
                at,
                f'another backend of this pool is called "{called}"',
                "give each its own name; for more traffic, raise its weight",
                see=seen,
                needs=tuple((*one, key) for one in (at, seen) for key in ("address", "name")),
            )
    if pool.balance != "consistent":
        for key in CONSISTENT_ONLY:
            if key in pool.model_fields_set:
                yield Finding(
                    (*path, key),
                    f'this has no effect with balance = "{pool.balance}"',
                    'balance = "consistent"',
                    needs=((*path, "balance"),),
                )
    elif 0 < pool.load_bound < 1.01:
        yield Finding(
            (*path, "load_bound"),
            f"{pool.load_bound} leaves backends no room above the mean load",
            "1.25 is usual, 1.01 the least, 0 turns it off",
        )
    yield from _source(path, pool)
    if pool.health:
        yield from _health((*path, "health"), pool, pool.health)
    if pool.ejection.base > pool.ejection.max:
        yield Finding(
            (*path, "ejection", "base"),
            "the first ejection is longer than the longest one",
            f'at most "{format_duration(pool.ejection.max)}", which is max',
            needs=((*path, "ejection", "max"),),
        )


def _source(path: KeyPath, pool: Pool) -> Iterator[Finding]:
    if pool.source is None:
        return
    if pool.source_transparent:
        yield Finding(
            (*path, "source"),
            "connections come either from this address or, with source_transparent, from the "
            "client's",
            "keep one of the two",
            needs=((*path, "source_transparent"),),
        )
    version = ip_address(parse_source(pool.source).host).version
    for index, backend in enumerate(pool.backends):
        try:
            other = ip_address(parse_backend(backend.address).host).version
        except ValueError:       # a name or a path
            continue
        if other != version:
            yield Finding(
                (*path, "source"),
                f"an IPv{version} address cannot reach {backend.address}",
                f"an IPv{other} address, or a pool of its own for these backends",
                see=(*path, "backends", index),
                needs=((*path, "backends", index),),
            )
            return


def _privileges(config: Config) -> Iterator[Finding]:
    """Workers that become an ordinary user lose what source_transparent needs."""
    for name, pool in config.pool.items():
        if pool.source_transparent and config.lbcore.user:
            yield Finding(
                ("pool", name, "source_transparent"),
                f'workers that become user "{config.lbcore.user}" may not use the client\'s '
                "address: the kernel wants CAP_NET_ADMIN",
                "leave user out, so that workers stay root, or tell backends with send_proxy",
                see=("lbcore", "user"),
                needs=(("lbcore", "user"),),
            )


def _health(path: KeyPath, pool: Pool, health: Health) -> Iterator[Finding]:
    if health.type != "http":
        for key in HTTP_ONLY:
            if key in health.model_fields_set:
                yield Finding(
                    (*path, key),
                    f'this has no effect with type = "{health.type}"',
                    'type = "http"',
                    needs=((*path, "type"),),
                )
    if health.port and any(backend.address.startswith("unix:") for backend in pool.backends):
        yield Finding(
            (*path, "port"),
            "a unix socket has no other port to check",
            "leave port out; checks then go to the socket itself",
            needs=((*path[:-1], "backends"),),
        )


def _is_local(address: Address) -> bool:
    return bool(address.path) or bool(address.name) or ip_address(address.host).is_loopback
