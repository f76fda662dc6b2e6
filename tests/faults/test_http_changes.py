"""What an operator does to a running instance, while HTTP clients of every kind ask on."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import pytest

from tests.support.faults import times
from tests.support.http_load import HttpLoad
from tests.support.http_servers import Server, uvicorns
from tests.support.instance import Instance, instance


@pytest.fixture(scope="module")
def servers() -> Iterator[list[Server]]:
    """Three applications under uvicorn."""
    with uvicorns(3) as made:
        yield made


@pytest.fixture
def lb(servers: list[Server]) -> Iterator[Instance]:
    """An instance with two workers that has not started yet; it must not have complained."""
    with instance() as made:
        made.file["lbcore"]["workers"] = 2
        made.file["listener"][0]["protocol"] = "http"
        made.pool["backends"] = [server.address for server in servers[:2]]
        yield made
        assert made.complaints() == []


def test_reloads_fail_no_request(lb: Instance, servers: list[Server]) -> None:
    """Each with other backends, another algorithm and other rules than the one before."""
    lb.write()
    lb.start()
    before, count = lb.processes(), times(100, 30)
    first, second, third = [server.address for server in servers]
    shapes = ([first, second], [first, second, third], [third], [{"address": first, "weight": 3}])
    with HttpLoad(lb.address) as load:
        begin = time.monotonic()
        for number in range(count):
            lb.pool["backends"] = shapes[number % len(shapes)]
            lb.pool["balance"] = ("round_robin", "least_conn", "random")[number % 3]
            lb.file["listener"][0]["response_headers"] = {"set": {"X-Number": str(number)}}
            lb.file["listener"][0]["buffer_request"] = number % 2 == 0
            lb.write()
            if number % 2:
                lb.signal(signal.SIGHUP)
                lb.wait_for("reloaded", number + 1)
            else:
                lb.admin.reload()
            time.sleep(max(0.0, begin + 0.1 * (number + 1) - time.monotonic()))   # the pace itself
        report = load.expect_no_failure()
    assert set(report.names) == {first, second, third}
    assert lb.processes() == before


def test_upgrades_fail_no_request(lb: Instance) -> None:
    lb.write()
    lb.start()
    with HttpLoad(lb.address) as load:
        for number in range(times(10, 2)):
            old = [worker["pid"] for worker in lb.serving()]
            if number % 2:
                lb.signal(signal.SIGUSR2)
            else:
                lb.admin.upgrade()
            lb.wait_for("upgraded", generation=number + 2)
            lb.wait_serving(2, but=old)
        load.expect_no_failure()


def test_workers_from_two_to_four_to_one_and_back_fail_no_request(lb: Instance) -> None:
    lb.write()
    lb.start()
    with HttpLoad(lb.address) as load:
        for _ in range(times(5, 1)):
            for count in (4, 1, 2):
                lb.admin.workers(count)
                lb.wait_serving(count)
                load.wait_for(50)
        load.expect_no_failure()


def test_killed_supervisor_and_restart_fail_no_request(lb: Instance) -> None:
    lb.write()
    lb.start()
    with HttpLoad(lb.address) as load:
        for _ in range(times(10, 2)):
            old = [worker["pid"] for worker in lb.serving()]
            lb.kill_supervisor()
            load.wait_for(100)
            lb.start()
            lb.wait_serving(2, but=old)
        load.expect_no_failure()


def test_listener_and_routes_that_come_and_go_fail_no_request(lb: Instance) -> None:
    lb.write()
    lb.start()
    listener = lb.file["listener"][0]
    with HttpLoad(lb.address) as load:
        for number in range(times(40, 10)):
            if number % 2:
                listener["route"] = [
                    {"path": "/echo", "pool": "main", "max_body": "1MiB"},
                    {"path": "/gone", "respond": {"status": 410, "body": "gone"}},
                    *({"path": f"/{extra}", "pool": "main"} for extra in range(number))]
            else:
                listener.pop("route", None)
            lb.write()
            lb.admin.reload()
        load.expect_no_failure()


def test_connections_that_rest_are_closed_politely_by_an_upgrade(lb: Instance) -> None:
    """Clients that ask rarely: an answer that says close comes first, or nothing was asked."""
    lb.write()
    lb.start()
    with HttpLoad(lb.address, each=20, pause=0.4) as load:
        old = [worker["pid"] for worker in lb.serving()]
        lb.admin.upgrade()
        lb.wait_for("upgraded")
        lb.wait_serving(2, but=old)
        load.expect_no_failure()
