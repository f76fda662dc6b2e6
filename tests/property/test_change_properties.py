"""Whatever is changed at run time can be written as a file that means the same."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from lbcore.admin import ControlError
from lbcore.config import ConfigError, parse, to_plan
from lbcore.config.plan import Plan
from lbcore.config.show import to_toml
from lbcore.supervisor.changes import Overlay, name_of
from lbcore.supervisor.edits import Edit
from lbcore.supervisor.fitting import compiled, fitting
from lbcore.supervisor.settings import read_text

FILE = """
[lbcore]
workers = 2
[admin]
listen = "unix:/tmp/lbcore-nowhere/admin.sock"
[[listener]]
name = "main"
bind = "127.0.0.1:8080"
pool = "web"
[[listener]]
name = "http"
bind = "127.0.0.1:8081"
protocol = "http"
pool = "even"
[pool.web]
backends = ["10.0.0.1:80", { address = "10.0.0.2:80", name = "b", weight = 3 },
            { address = "10.0.0.3:80", backup = true, max_connections = 7 }]
[pool.even]
balance = "consistent"
hash = "ketama"
backends = [{ address = "10.0.1.1:80", name = "one" }, "10.0.1.2:80"]
"""
FOUND = read_text(FILE, Path("/etc/lb.toml"))
POOLS = ("web", "even")
NAMES = ("b", "one", "new", *(f"10.0.{net}.{host}:80" for net in (0, 1) for host in range(1, 6)))

tables = st.fixed_dictionaries(
    {"address": st.sampled_from([name for name in NAMES if ":" in name])},
    optional={"name": st.sampled_from(["b", "new", "spare"]), "weight": st.integers(0, 1000),
              "backup": st.booleans(), "max_connections": st.integers(0, 50)})
pools = st.sampled_from(POOLS)
names = st.sampled_from(NAMES)
requests = st.one_of(
    st.tuples(st.just("add"), pools, tables),
    st.tuples(st.just("remove"), pools, names),
    st.tuples(st.just("replace"), pools, st.lists(tables, min_size=1, max_size=4)),
    st.tuples(st.just("patch"), pools, names, st.fixed_dictionaries({}, optional={
        "weight": st.none() | st.integers(0, 1000), "drain": st.booleans(),
        "force": st.sampled_from(["up", "down", None]),
        "max_connections": st.none() | st.integers(0, 50)})),
    st.tuples(st.just("setting"), st.just("workers"), st.none() | st.integers(1, 8)),
    st.tuples(st.just("setting"), st.just("log_level"),
              st.sampled_from(["debug", "info", "error", None])),
)


def after(asked: list[tuple[Any, ...]]) -> Overlay:
    """The overlay after requests, of which those that are refused change nothing."""
    overlay = Overlay()
    for what, *arguments in asked:
        edit = Edit(overlay, FOUND.tables)
        try:
            getattr(edit, what)(*arguments)
            compiled(FOUND, edit.done())
        except (ControlError, ConfigError):
            continue
        overlay = edit.done()
    return overlay


def weighed(plan: Plan, overlay: Overlay) -> Plan:
    """The plan with weights by order in the place of configured ones."""
    orders = overlay.orders()

    def weight(pool: str, name: str, configured: int) -> int:
        order = orders.get((pool, name))
        return configured if order is None or order.weight is None else order.weight

    return replace(plan, pools=tuple(replace(pool, backends=tuple(
        replace(one, weight=weight(pool.name, one.name, one.weight)) for one in pool.backends))
        for pool in plan.pools))


@settings(max_examples=60)
@given(st.lists(requests, max_size=12))
def test_what_runs_is_what_its_file_would_run(asked: list[tuple[Any, ...]]) -> None:
    overlay = after(asked)
    plan, config = compiled(FOUND, overlay)
    assert to_plan(parse(to_toml(config), "/etc/lb.toml").config) == weighed(plan, overlay)


@settings(max_examples=60)
@given(st.lists(requests, max_size=12))
def test_changes_still_apply_over_the_file_that_they_were_made_over(
    asked: list[tuple[Any, ...]],
) -> None:
    overlay = after(asked)
    assert fitting(FOUND, overlay) == (*compiled(FOUND, overlay), overlay, [])


@settings(max_examples=60)
@given(st.lists(requests, max_size=12))
def test_nothing_is_left_of_changes_over_a_file_that_says_all_of_it(
    asked: list[tuple[Any, ...]],
) -> None:
    overlay = after(asked)
    plan, config = compiled(FOUND, overlay)
    written = read_text(to_toml(config), Path("/etc/lb.toml"))
    now, _, left, _ = fitting(written, overlay)
    assert {change.op for change in left.changes.values()} <= {"drain", "force"}
    assert weighed(now, left) == weighed(plan, overlay)


@settings(max_examples=60)
@given(st.lists(requests, max_size=12))
def test_changes_are_the_same_after_they_were_kept(asked: list[tuple[Any, ...]]) -> None:
    overlay = after(asked)
    assert Overlay.restore(json.loads(json.dumps(overlay.export()))) == overlay


@settings(max_examples=60)
@given(pools, st.lists(tables, min_size=1, max_size=5, unique_by=name_of), st.lists(requests))
def test_replaced_backends_are_exactly_those_that_were_given(
    pool: str, wanted: list[dict[str, Any]], asked: list[tuple[Any, ...]],
) -> None:
    edit = Edit(after(asked), FOUND.tables)
    edit.replace(pool, wanted)
    running = {name_of(one): one for one in edit.done().backends(FOUND.tables, pool)}
    defaults = {"weight": 1, "backup": False, "max_connections": 0}
    assert {name: defaults | {"name": name} | dict(one) for name, one in running.items()} == {
        name_of(one): defaults | {"name": name_of(one)} | one for one in wanted}
    assert not any(key[:2] == ("weight", pool) for key in edit.done().changes)
