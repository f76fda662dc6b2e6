"""What the status says of HTTP: requests by class, for listeners and for each of their routes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from lbcore._scoreboard import STATUS_NAMES, Scoreboard
from lbcore.config.plan import (
    NO_POOL,
    Address,
    BackendPlan,
    HttpPlan,
    ListenerPlan,
    Plan,
    PoolPlan,
    RoutePlan,
    default_route,
)
from lbcore.supervisor import image, status
from lbcore.supervisor.rollout import Rollout
from lbcore.supervisor.rows import RowTable


class Counted:
    """A scoreboard on which route ``n`` has had 10 (n + 1) requests, all answered with 200."""

    def __init__(self) -> None:
        self.board = Scoreboard.create()
        self.listener_totals = self.board.listener_totals

    def route_totals(self, row: int) -> dict[str, Any]:
        found = self.board.route_totals(row)
        found["requests"] = found["status"]["2xx"] = 10 * (row + 1)
        found["retries"] = row
        found["total_us"][:3] = [50, 49, 1]
        return found


def rollout(plan: Plan) -> Rollout:
    tables = {}
    for kind, keys in (("listeners", image.listener_keys(plan)),
                       ("routes", image.route_keys(plan))):
        table = RowTable(kind, 100)
        table.commit(table.assign(keys), 0, 0)
        tables[kind] = table
    return cast(Rollout, SimpleNamespace(board=Counted(), **tables))


def plan_of(*listeners: ListenerPlan) -> Plan:
    address = Address(host="127.0.0.1", port=1)
    pool = PoolPlan(name="web", backends=(BackendPlan(name="a", address=address),))
    return Plan(listeners=listeners, pools=(pool,), workers=1, admin=address)


def test_an_http_listener_shows_its_routes_once_each_and_their_sum() -> None:
    api = [RoutePlan("api", host=host, pool=0) for host in ("a.example", "b.example")]
    old = RoutePlan("old", action="redirect", status=301)
    http = HttpPlan(routes=(*api, old), default=default_route(0))
    plan = plan_of(ListenerPlan("in", (), 0, protocol="http", http=http))
    (shown,) = status.listeners(plan, rollout(plan))
    assert [(r["name"], r["action"], r["pool"]) for r in shown["routes"]] == [
        ("api", "pool", "web"), ("old", "redirect", None), ("default", "pool", "web")]
    assert [route["requests"] for route in shown["routes"]] == [10, 20, 30]
    assert shown["status"] == dict.fromkeys(STATUS_NAMES, 0) | {"2xx": 60}
    assert shown["retries"] == 3
    assert shown["routes"][0]["total_ms"] == {"p50": 0.001, "p90": 0.002, "p99": 0.002}


def test_an_http_listener_needs_no_pool() -> None:
    http = HttpPlan(default=default_route(NO_POOL))
    plan = plan_of(ListenerPlan("in", (), NO_POOL, protocol="http", http=http))
    (shown,) = status.listeners(plan, rollout(plan))
    assert shown["pool"] is None
    assert [route["action"] for route in shown["routes"]] == ["respond"]


def test_a_tcp_listener_says_nothing_of_requests() -> None:
    plan = plan_of(ListenerPlan("in", (), 0))
    (shown,) = status.listeners(plan, rollout(plan))
    assert {"requests", "http_ended", "routes"}.isdisjoint(shown)
    assert shown["pool"] == "web"
