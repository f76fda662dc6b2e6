"""From a plan to an image: names, order, overridden weights."""

from __future__ import annotations

import asyncio
import os
import socket
from dataclasses import replace

import pytest

from lbcore._balance import Selector
from lbcore._scoreboard import BackendState, Scoreboard
from lbcore._tables import MAGLEV_LARGE_SIZE
from lbcore.config.plan import (
    Address,
    BackendPlan,
    HttpPlan,
    ListenerPlan,
    Plan,
    PoolPlan,
    RoutePlan,
)
from lbcore.supervisor import image


def plan_of(*backends: BackendPlan, **pool: object) -> Plan:
    return Plan((), (PoolPlan("web", backends, **pool),), 1,     # type: ignore[arg-type]
                Address(path="/admin"))


def numbered(plan: Plan) -> image.Rows:
    return image.Rows({}, {key: n for n, key in enumerate(image.pool_keys(plan))},
                      {key: n for n, key in enumerate(image.backend_keys(plan))})


def backend(name: str, host: str = "127.0.0.1", **more: object) -> BackendPlan:
    return BackendPlan(name, Address(host, 80), label=f"{host}:80", **more)     # type: ignore[arg-type]


@pytest.fixture
def dns(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """What the resolver says: names and their addresses; others do not exist."""
    names: dict[str, list[str]] = {}

    def look_up(host: str, *_: object, **__: object) -> list[object]:
        if host not in names:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, 1, 0, "", (address, 0)) for address in names[host]]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return names


async def found(plan: Plan, known: dict[str, str]) -> image.Names:
    return image.choose(plan, known, await image.ask(image.hosts(plan)))


def test_numeric_addresses_are_not_looked_up() -> None:
    plan = plan_of(backend("a"), backend("b", "::1"))
    assert image.hosts(plan) == []
    assert image.choose(plan, {}, {}).addresses == {}


def test_a_name_without_an_answer_has_the_address_in_force_or_has_to_be_asked_for() -> None:
    plan = plan_of(backend("a", "a.test"), backend("b", "b.test"), backend("c", "c.test"))
    known, answers = {"a.test": "10.0.0.1"}, {"b.test": ["10.0.0.2"]}
    assert image.unasked(plan, known, answers) == ["c.test"]
    with pytest.raises(image.ResolveError, match=r"c\.test"):
        image.choose(plan, known, answers)
    names = image.choose(plan, known, {**answers, "c.test": ["10.0.0.3"]})
    assert names.addresses == {"a.test": "10.0.0.1", "b.test": "10.0.0.2", "c.test": "10.0.0.3"}


async def test_localhost_resolves_and_reaches_the_members() -> None:
    plan = plan_of(backend("a", "localhost"))
    names = await found(plan, {})
    (pool,) = image.members(plan, numbered(plan), names.addresses)
    assert pool.members[0].address.host in ("127.0.0.1", "::1")
    assert pool.members[0].plan.address.host == "localhost"


async def test_every_unknown_name_is_named_at_once(dns: dict[str, list[str]]) -> None:
    plan = plan_of(backend("a", "a.invalid"), backend("b", "b.invalid"), backend("c", "c.invalid"))
    with pytest.raises(image.ResolveError) as failed:
        await found(plan, {"c.invalid": "10.0.0.3"})
    assert "a.invalid" in str(failed.value)
    assert "b.invalid" in str(failed.value)
    assert "c.invalid" not in str(failed.value)


async def test_name_that_cannot_be_looked_up_keeps_the_address_it_had(
    dns: dict[str, list[str]],
) -> None:
    names = await found(plan_of(backend("a", "a.test")), {"a.test": "10.0.0.1"})
    assert names.addresses == {"a.test": "10.0.0.1"}
    assert "not known" in names.kept["a.test"]


async def test_address_stays_as_long_as_it_is_one_of_the_names_and_is_given_up_then(
    dns: dict[str, list[str]],
) -> None:
    plan, known = plan_of(backend("a", "a.test")), {"a.test": "10.0.0.1"}
    dns["a.test"] = ["10.0.0.2", "10.0.0.1"]
    names = await found(plan, known)
    assert names.addresses == known
    assert names.several == {"a.test": ["10.0.0.2", "10.0.0.1"]}
    dns["a.test"] = ["10.0.0.2"]
    assert await found(plan, known) == image.Names({"a.test": "10.0.0.2"})


def test_primaries_come_before_backups_and_keep_their_order() -> None:
    plan = plan_of(backend("a", backup=True), backend("b"), backend("c"))
    (pool,) = image.members(plan, numbered(plan), {})
    assert [m.plan.name for m in pool.members] == ["b", "c", "a"]


def test_backend_with_another_address_is_another_backend() -> None:
    plan = plan_of(backend("a"))
    moved = replace(plan, pools=(replace(plan.pools[0], backends=(backend("a", "127.0.0.2"),)),))
    assert image.backend_keys(plan) != image.backend_keys(moved)


def test_routes_are_told_apart_by_their_listener_and_those_of_one_name_are_one() -> None:
    http = HttpPlan((RoutePlan("api", host="a.b", pool=0), RoutePlan("api", host="c.d", pool=0)))
    listeners = tuple(ListenerPlan(name, (), 0, "http", http=http) for name in ("web", "shop"))
    plan = replace(plan_of(backend("a")), listeners=(*listeners, ListenerPlan("tcp", (), 0)))
    assert list(dict.fromkeys(image.route_keys(plan))) == [
        ("web", "api"), ("web", "default"), ("shop", "api"), ("shop", "default"),
    ]


async def test_overridden_weight_rebuilds_the_table_of_a_consistent_pool() -> None:
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
        fd = image.build(1, plan, rows, members, await image.tables(plan, weights))
        picks = Selector(board, fd, seat).route(0, [str(n).encode() for n in range(4000)])
        os.close(fd)
        shares.append(picks.count(0) / len(picks))
    assert shares[0] == pytest.approx(1 / 2, abs=0.05)
    assert shares[1] == pytest.approx(3 / 4, abs=0.05)


async def test_loop_goes_on_while_large_tables_are_built() -> None:
    """A heartbeat that is not read for long would look like a hung worker."""
    plan = plan_of(*(backend(f"b{n}") for n in range(1000)), balance="consistent")
    building = asyncio.ensure_future(image.tables(plan, {}))
    turns = 0
    while not building.done():
        await asyncio.sleep(0.001)
        turns += 1
    assert len(building.result()["web"][0]) == 2 * MAGLEV_LARGE_SIZE
    assert turns > 5


async def test_table_that_cannot_be_built_says_why() -> None:
    plan = plan_of(backend("a", weight=65535), backend("b", weight=65535), balance="consistent",
                   hash="ketama")
    with pytest.raises(ValueError, match="weights add up"):
        await image.tables(plan, {})
