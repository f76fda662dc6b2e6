"""Backends that go away: clients see nothing but latency, and that within the connect budget."""

from __future__ import annotations

from tests.support.echo import Backends
from tests.support.faults import times
from tests.support.instance import Instance, until
from tests.support.load import Load

SLACK_MS = 1900     # for a machine that has other things to do: and one in a hundred may be later
NEVER_EJECTED = {"failures": 0}


def expect_traffic_at(lb: Instance, address: str) -> None:
    """Waits until a backend gets connections again."""
    came = lb.backend(address)["connections"]
    until(lambda: lb.backend(address)["connections"] > came, f"traffic at {address}")


def test_backend_that_stops_and_returns_fails_no_connection(
    lb: Instance, backends: Backends,
) -> None:
    """Its port refuses; every second connection is first sent there."""
    leaver = lb.pool["backends"][0]
    lb.pool.update(connect_budget="5s", ejection=NEVER_EJECTED)
    lb.write()
    lb.start()
    with Load(lb.address) as load:
        for _ in range(times(5, 1)):
            backends.leave(leaver)
            load.mark()
            load.wait_for(400)
            assert load.report().p99_ms < 5000
            assert lb.backend(leaver)["refused"] > 100
            backends.come_back(leaver)
            expect_traffic_at(lb, leaver)
        load.expect_no_failure()


def test_backend_that_drops_packets_fails_no_connection_and_costs_no_more_than_one_timeout(
    lb: Instance, backends: Backends,
) -> None:
    """Nothing comes back from it; every second connection is first sent there."""
    silent = lb.pool["backends"][0]
    lb.pool.update(connect_timeout="2s", connect_budget="8s", ejection=NEVER_EJECTED)
    lb.write()
    lb.start()
    with Load(lb.address) as load:
        backends.go_silent(silent)
        load.mark()
        report = load.wait_for(times(4000, 800))
        assert lb.backend(silent)["timeouts"] > 100
        assert report.slowest_ms >= 2000 and report.p99_ms < 2000 + SLACK_MS, str(report)
        backends.speak_again(silent)
        expect_traffic_at(lb, silent)
        load.expect_no_failure()


def test_two_of_three_backends_that_drop_packets_cost_no_more_than_the_connect_budget(
    lb: Instance, backends: Backends,
) -> None:
    lb.pool["backends"] = [*lb.pool["backends"], *backends.echo(1)]
    lb.pool.update(connect_timeout="300ms", connect_budget="3s", ejection=NEVER_EJECTED)
    lb.write()
    lb.start()
    with Load(lb.address) as load:
        for silent in lb.pool["backends"][:2]:
            backends.go_silent(silent)
        report = load.wait_for(times(4000, 800))
        assert report.slowest_ms >= 600 and report.p99_ms < 3000 + SLACK_MS, str(report)
        load.expect_no_failure()


def test_backend_that_drops_packets_is_ejected_and_then_noticed_by_nobody(
    lb: Instance, backends: Backends,
) -> None:
    silent = lb.pool["backends"][0]
    lb.pool.update(connect_timeout="2s", connect_budget="8s",
                   ejection={"failures": 5, "base": "1m"})
    lb.write()
    lb.start()
    with Load(lb.address) as load:
        backends.go_silent(silent)
        lb.wait_for("backend.state", backend=silent, new="ejected")
        until(lambda: lb.backend(silent)["inflight"] == 0, "its last attempt to end")
        load.wait_for(50)       # whoever made that attempt goes on elsewhere first
        load.mark()
        load.wait_for(400)
        assert load.report().p99_ms < SLACK_MS
        load.expect_no_failure()


def test_backend_removed_by_a_reload_while_it_drops_packets_fails_no_connection(
    lb: Instance, backends: Backends,
) -> None:
    """Connections that wait for it go on with the plan they began with."""
    silent, good = lb.pool["backends"]
    lb.pool.update(connect_timeout="500ms", connect_budget="5s", ejection=NEVER_EJECTED)
    lb.write()
    lb.start()
    with Load(lb.address) as load:
        backends.go_silent(silent)
        load.wait_for(200)
        lb.pool["backends"] = [good]
        lb.write()
        lb.admin.reload()
        load.wait_for(200)
        load.expect_no_failure()
