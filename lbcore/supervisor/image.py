"""From a plan to what workers map: names resolved, tables built, rows put in, serialised.

Nothing in here changes anything, so a plan that cannot be applied leaves no trace.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from lbcore._plan import ACCESS_FORMATS, build_image, sockaddr
from lbcore._tables import ketama_ring, maglev_table
from lbcore.config.plan import Address, BackendPlan, Plan, PoolPlan
from lbcore.health import Member, PoolRows
from lbcore.supervisor.resolver import addresses
from lbcore.supervisor.rows import Key

RESOLVE_TIMEOUT = 10.0
Weights = Mapping[tuple[str, str], int]      # (pool, backend) -> weight set by an operator


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


async def resolve(plan: Plan, known: Mapping[str, str]) -> dict[str, str]:
    """Numeric addresses of all host names among the backends of a plan, first answer each.

    ``known`` are addresses that stand in for names that cannot be resolved just now. Raises
    ResolveError naming every host that has none.
    """
    hosts = sorted({b.address.host for pool in plan.pools for b in pool.backends
                    if b.address.host and not _numeric(b.address.host)})
    answers = {host: known.get(host) or answer if isinstance(answer, Exception) else answer
               for host, answer in (await addresses(hosts, RESOLVE_TIMEOUT)).items()}
    failed = [f"{host}: {getattr(error, 'strerror', None) or str(error) or 'no answer in time'}"
              for host, error in answers.items() if isinstance(error, Exception)]
    if failed:
        raise ResolveError(
            "cannot resolve " + "; ".join(failed) + " (check the name, or use its address)"
        )
    return {host: str(address) for host, address in answers.items()}


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


def build(version: int, plan: Plan, rows: Rows, pools: Sequence[PoolRows], weights: Weights) -> int:
    """Serialises a plan; returns the descriptor of its image, which the caller closes.

    ``weights`` override configured ones in the tables of pools that have them; otherwise the
    scoreboard alone says what is in force. Raises ValueError when something does not fit.
    """
    images = []
    for pool in pools:
        primaries = [m.plan for m in pool.members if not m.plan.backup]
        backups = [m.plan for m in pool.members if m.plan.backup]
        images.append((
            pool.row, pool.plan,
            [(m.row, m.plan, sockaddr(m.address.host, m.address.port, m.address.path))
             for m in pool.members],
            _table(pool.plan, primaries, weights), _table(pool.plan, backups, weights),
        ))
    listeners = [(rows.listeners[(listener.name,)], listener) for listener in plan.listeners]
    routes = {(listener, route): row for (listener, route), row in rows.routes.items()}
    return build_image(version, plan.max_pipes, listeners, images, routes,
                       ACCESS_FORMATS[plan.log.access_format] if plan.log.access else 0)


def without_listeners(plan: Plan) -> Plan:
    """The same plan for a worker that only proves that it starts."""
    return replace(plan, listeners=())


def _table(pool: PoolPlan, backends: Sequence[BackendPlan], overrides: Weights) -> bytes:
    if pool.table is None or not backends:
        return b""
    weights = [overrides.get((pool.name, b.name), b.weight) for b in backends]
    if pool.table == "maglev":
        return maglev_table([b.name.encode() for b in backends], weights)
    return ketama_ring([b.label or str(b.address) for b in backends], weights)


def _numeric(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _resolved(address: Address, resolved: Mapping[str, str]) -> Address:
    host = resolved.get(address.host)
    return replace(address, host=host) if host else address
