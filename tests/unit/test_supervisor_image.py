"""From a plan to an image: names, order, overridden weights."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from lbcore._balance import Selector
from lbcore._scoreboard import BackendState, Scoreboard
from lbcore.config.plan import Address, BackendPlan, Plan, PoolPlan
from lbcore.supervisor import image


def plan_of(*backends: BackendPlan, balance: str = "round_robin") -> Plan:
    return Plan((), (PoolPlan("web", backends, balance=balance),), 1,     # type: ignore[arg-type]
                Address(path="/admin"))


def numbered(plan: Plan) -> image.Rows:
    return image.Rows({}, {key: n for n, key in enumerate(image.pool_keys(plan))},
                      {key: n for n, key in enumerate(image.backend_keys(plan))})


def backend(name: str, host: str = "127.0.0.1", **more: object) -> BackendPlan:
    return BackendPlan(name, Address(host, 80), label=f"{host}:80", **more)     # type: ignore[arg-type]


async def test_numeric_addresses_are_not_looked_up() -> None:
    assert await image.resolve(plan_of(backend("a"), backend("b", "::1")), {}) == {}


async def test_localhost_resolves_and_reaches_the_members() -> None:
    plan = plan_of(backend("a", "localhost"))
    resolved = await image.resolve(plan, {})
    (pool,) = image.members(plan, numbered(plan), resolved)
    assert pool.members[0].address.host in ("127.0.0.1", "::1")
    assert pool.members[0].plan.address.host == "localhost"


async def test_every_unknown_name_is_named_at_once() -> None:
    plan = plan_of(backend("a", "a.invalid"), backend("b", "b.invalid"))
    with pytest.raises(image.ResolveError) as failed:
        await image.resolve(plan, {})
    assert "a.invalid" in str(failed.value)
    assert "b.invalid" in str(failed.value)


async def test_known_address_stands_in_for_a_name_that_cannot_be_looked_up() -> None:
    plan = plan_of(backend("a", "a.invalid"))
    assert await image.resolve(plan, {"a.invalid": "10.0.0.1"}) == {"a.invalid": "10.0.0.1"}


def test_primaries_come_before_backups_and_keep_their_order() -> None:
    plan = plan_of(backend("a", backup=True), backend("b"), backend("c"))
    (pool,) = image.members(plan, numbered(plan), {})
    assert [m.plan.name for m in pool.members] == ["b", "c", "a"]


def test_backend_with_another_address_is_another_backend() -> None:
    plan = plan_of(backend("a"))
    moved = replace(plan, pools=(replace(plan.pools[0], backends=(backend("a", "127.0.0.2"),)),))
    assert image.backend_keys(plan) != image.backend_keys(moved)


def test_overridden_weight_rebuilds_the_table_of_a_consistent_pool() -> None:
    plan = plan_of(backend("a"), backend("b", "127.0.0.2"), balance="consistent")
    rows = numbered(plan)
    members = image.members(plan, rows, {})
    board = Scoreboard.create()
    seat = board.take_seat(0)
    for member in members[0].members:
        board.set_backend(member.row, BackendState.STATE_UP, 1)
    board.set_pool(0, 0, 2)
    shares = []
    for weights in ({}, {("web", "a"): 3}):
        fd = image.build(1, plan, rows, members, weights)
        picks = Selector(board, fd, seat).route(0, [str(n).encode() for n in range(4000)])
        os.close(fd)
        shares.append(picks.count(0) / len(picks))
    assert shares[0] == pytest.approx(1 / 2, abs=0.05)
    assert shares[1] == pytest.approx(3 / 4, abs=0.05)
