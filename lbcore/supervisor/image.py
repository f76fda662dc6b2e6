"""From a plan to what workers map: names resolved, tables built, rows put in, serialised.

Nothing in here changes anything, so a plan that cannot be applied leaves no trace.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial

from lbcore._plan import ACCESS_FORMATS, build_image, sockaddr
from lbcore._tables import ketama_ring, maglev_table
from lbcore.config.plan import Address, BackendPlan, Plan, PoolPlan
from lbcore.health import Member, PoolRows
from lbcore.supervisor.aside import aside
from lbcore.supervisor.resolver import Answer, addresses
from lbcore.supervisor.rows import Key

RESOLVE_TIMEOUT = 10.0
Weights = Mapping[tuple[str, str], int]      # (pool, backend) -> weight set by an operator
Answers = Mapping[str, Answer]               # by host name
Tables = Mapping[str, tuple[bytes, bytes]]   # pool -> its tables of primaries and of backups


class ResolveError(Exception):
    """A backend's host name has no address; the text says which and why."""


@dataclass(frozen=True)
class Rows:
    """The scoreboard rows of a plan."""

    listeners: Mapping[Key, int]
    pools: Mapping[Key, int]
    backends: Mapping[Key, int]
    routes: Mapping[Key, int] = field(default_factory=dict)


def listener_keys(plan: Plan) -> list[Key]:
    """What identifies the listeners of a plan."""
    return [(listener.name,) for listener in plan.listeners]


def route_keys(plan: Plan) -> list[Key]:
    """What identifies the routes of a plan: the listener's name and their own."""
    return [(listener.name, route.name) for listener in plan.listeners if listener.http
            for route in (*listener.http.routes, listener.http.default) if route]


def pool_keys(plan: Plan) -> list[Key]:
    """What identifies the pools of a plan."""
    return [(pool.name,) for pool in plan.pools]


def backend_key(pool: PoolPlan, backend: BackendPlan) -> Key:
    """What identifies a backend: under the same name another address is another server."""
    return (pool.name, backend.name, str(backend.address))


def backend_keys(plan: Plan) -> list[Key]:
    """What identifies the backends of a plan."""
    return [backend_key(pool, backend) for pool in plan.pools for backend in pool.backends]


@dataclass(frozen=True)
class Names:
    """The host names of a plan."""

    addresses: dict[str, str]                            # the one that each host is given
    kept: Mapping[str, str] = field(default_factory=dict)    # why these keep the one they had
    several: Mapping[str, list[str]] = field(default_factory=dict)   # all that these have


def hosts(plan: Plan) -> list[str]:
    """The host names among the backends of a plan."""
    return sorted({b.address.host for pool in plan.pools for b in pool.backends
                   if b.address.host and not _numeric(b.address.host)})


async def ask(names: Sequence[str]) -> Answers:
    """What the resolver says of host names. Takes up to 10 s, longer for more than 32 dead ones."""
    return await addresses(list(names), RESOLVE_TIMEOUT)


def unasked(plan: Plan, known: Mapping[str, str], answers: Answers) -> list[str]:
    """The host names of a plan that have no known address, and that nobody has asked for."""
    return [host for host in hosts(plan) if host not in known and host not in answers]


def choose(plan: Plan, known: Mapping[str, str], answers: Answers) -> Names:
    """Numeric addresses of all host names among the backends of a plan, one each.

    ``known`` are the addresses in force. One that is still among a name's addresses stays, and so
    does that of a name that cannot be resolved just now, or was not asked for: resolvers answer in
    an order that changes, and are away at times. Raises ResolveError naming every host that has
    none.
    """
    names: dict[str, str] = {}
    failed: dict[str, str] = {}
    several: dict[str, list[str]] = {}
    for host in hosts(plan):
        answer = answers.get(host)
        if answer is None:
            if host in known:
                names[host] = known[host]
            else:
                failed[host] = "nobody has asked for it"
        elif isinstance(answer, Exception):
            failed[host] = getattr(answer, "strerror", None) or str(answer) or "no answer in time"
            if host in known:
                names[host] = known[host]
        else:
            names[host] = known[host] if known.get(host) in answer else answer[0]
            if len(answer) > 1:
                several[host] = answer
    if unknown := [f"{host}: {why}" for host, why in failed.items() if host not in names]:
        raise ResolveError(
            "cannot resolve " + "; ".join(unknown) + " (check the name, or use its address)"
        )
    return Names(names, failed, several)


def members(plan: Plan, rows: Rows, resolved: Mapping[str, str]) -> list[PoolRows]:
    """The pools of a plan with rows and addresses, primaries first as the workers have them."""
    pools = []
    for pool in plan.pools:
        ordered = sorted(pool.backends, key=lambda backend: backend.backup)     # stable
        pools.append(PoolRows(
            row=rows.pools[(pool.name,)],
            plan=pool,
            members=tuple(
                Member(rows.backends[backend_key(pool, backend)], backend,
                       _resolved(backend.address, resolved))
                for backend in ordered
            ),
        ))
    return pools


async def tables(plan: Plan, weights: Weights) -> Tables:
    """The lookup tables of all pools that have any, built while the loop goes on.

    ``weights`` override configured ones; for other pools the scoreboard alone says what is in
    force. Raises ValueError when a table would be too large.
    """
    pools = [pool for pool in plan.pools if pool.table is not None]
    return await aside("tables", partial(_tables, pools, weights)) if pools else {}


def build(version: int, plan: Plan, rows: Rows, pools: Sequence[PoolRows], tables: Tables) -> int:
    """Serialises a plan; returns the descriptor of its image, which the caller closes.

    Raises ValueError when something does not fit.
    """
    images = [(
        pool.row, pool.plan,
        [(m.row, m.plan, _sockaddr(m.address.host, m.address.port, m.address.path))
         for m in pool.members],
        *tables.get(pool.plan.name, (b"", b"")),
    ) for pool in pools]
    listeners = [(rows.listeners[(listener.name,)], listener) for listener in plan.listeners]
    routes = {(listener, route): row for (listener, route), row in rows.routes.items()}
    return build_image(version, plan.max_pipes, listeners, images, routes,
                       ACCESS_FORMATS[plan.log.access_format] if plan.log.access else 0)


def without_listeners(plan: Plan) -> Plan:
    """The same plan for a worker that only proves that it starts."""
    return replace(plan, listeners=())


def _tables(pools: Sequence[PoolPlan], overrides: Weights) -> Tables:
    return {pool.name: (_table(pool, [b for b in pool.backends if not b.backup], overrides),
                        _table(pool, [b for b in pool.backends if b.backup], overrides))
            for pool in pools}


def _table(pool: PoolPlan, backends: Sequence[BackendPlan], overrides: Weights) -> bytes:
    if not backends:
        return b""
    weights = [overrides.get((pool.name, b.name), b.weight) for b in backends]
    if pool.table == "maglev":
        return maglev_table([b.name.encode() for b in backends], weights)
    return ketama_ring([b.label or str(b.address) for b in backends], weights)


# A change at run time looks at all backends again, and knows nearly all: these two were half of the
# time for which it holds up the loop.
_sockaddr = lru_cache(maxsize=16384)(sockaddr)


@lru_cache(maxsize=16384)
def _numeric(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _resolved(address: Address, resolved: Mapping[str, str]) -> Address:
    host = resolved.get(address.host)
    return replace(address, host=host) if host else address
