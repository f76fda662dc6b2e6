"""Metrics of a real instance: they agree with the traffic, and only grow whatever happens."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
from collections.abc import Iterator

import pytest

from lbcore.admin.client import AdminError
from tests.support.http_load import HttpLoad
from tests.support.http_servers import Server, uvicorns
from tests.support.instance import Instance, free_port, instance, until
from tests.support.metrics import (
    OPENMETRICS,
    Key,
    Rows,
    Scrape,
    needs_promtool,
    promtool,
    scrape,
    written,
)

CHECKED = {"type": "tcp", "interval": "200ms", "rise": 1, "fall": 1}


@pytest.fixture(scope="module")
def servers() -> Iterator[list[Server]]:
    """Two applications under uvicorn."""
    with uvicorns(2) as made:
        yield made


@pytest.fixture(scope="module")
def lb(servers: list[Server]) -> Iterator[Instance]:
    """Two workers; HTTP with a route of its own and without, TCP; checks, limits."""
    with instance() as made:
        made.file["lbcore"]["workers"] = 2
        made.file["listener"] = [
            {"name": "web", "bind": f"127.0.0.1:{made.port}", "protocol": "http", "pool": "main",
             "max_connections": 1000,
             "route": [{"name": "status", "path": "/status", "pool": "main"},
                       {"name": "found", "path": "/found", "pool": "found"}]},
            {"name": "raw", "bind": f"127.0.0.1:{free_port()}", "pool": "raw"},
        ]
        first, second = (server.address for server in servers)
        made.pool.update(backends=[{"address": first, "name": "one"},
                                   {"address": second, "name": "two"}], health=CHECKED)
        made.file["pool"]["raw"] = {"backends": [first]}
        found = made.directory / "found.json"
        found.write_text(json.dumps([first]))
        made.file["pool"]["found"] = {"discover": {"file": str(found), "interval": "100ms"}}
        made.write()
        made.start()
        yield made
        assert made.complaints() == []


def now(lb: Instance, accept: str = "") -> Scrape:
    return scrape(lb.admin_path, accept)


def ask(lb: Instance, path: str, count: int = 1) -> None:
    """Requests over a connection each."""
    for _ in range(count):
        connection = http.client.HTTPConnection("127.0.0.1", lb.port, timeout=20)
        connection.request("GET", path)
        connection.getresponse().read()
        connection.close()


def shrunk(before: dict[Key, float], after: dict[Key, float]) -> list[str]:
    """Samples that are gone or have become less."""
    return [f"{key}: {value} -> {after.get(key)}" for key, value in before.items()
            if after.get(key, -1) < value]


def more(lb: Instance, before: Scrape, name: str, count: float, **labels: str) -> Scrape:
    """Waits until a sum has grown by so much; workers count when an exchange is over."""
    wanted = before.sum(name, **labels) + count
    return until(lambda: found if (found := now(lb)).sum(name, **labels) >= wanted else None,
                 f"{name} {labels} growing by {count}")


# ---- what is served ----------------------------------------------------------------------------

@needs_promtool
def test_promtool_has_nothing_against_it(lb: Instance) -> None:
    promtool("check", "metrics", text=now(lb).text)


async def test_every_metric_of_the_guide_is_served_and_no_other(lb: Instance) -> None:
    wanted = (await written(Rows())).families
    assert set(now(lb).families) == set(wanted)


def test_openmetrics_is_served_to_who_prefers_it(lb: Instance) -> None:
    asked = now(lb, "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.3")
    assert asked.content_type.startswith("application/openmetrics-text")
    assert asked.families["lbcore_route_requests"].type == "counter"
    assert now(lb, OPENMETRICS).growing().keys() == asked.growing().keys()


# ---- that it is true ---------------------------------------------------------------------------

def test_requests_are_counted_where_they_went_with_what_came_of_them(lb: Instance) -> None:
    before = now(lb)
    for code, count in ((200, 3), (204, 2), (404, 4), (503, 1)):
        ask(lb, f"/status?code={code}", count)
    ask(lb, "/echo", 5)
    after = more(lb, before, "lbcore_route_requests_total", 15)

    def grown(name: str, **labels: str) -> float:
        return after.sum(name, **labels) - before.sum(name, **labels)

    of_route = {"listener": "web", "route": "status"}
    assert {kind: grown("lbcore_route_responses_total", **of_route, **{"class": kind})
            for kind in ("none", "1xx", "2xx", "3xx", "4xx", "5xx")} == {
        "none": 0, "1xx": 0, "2xx": 5, "3xx": 0, "4xx": 4, "5xx": 1}
    assert grown("lbcore_route_requests_total", **of_route) == 10
    assert grown("lbcore_route_requests_total", listener="web", route="default") == 5
    assert grown("lbcore_listener_requests_total", listener="web") == 15
    assert grown("lbcore_listener_exchanges_total", listener="web", reason="ok") == 15
    assert grown("lbcore_listener_accepted_connections_total", listener="web") == 15
    assert grown("lbcore_worker_accepted_connections_total") == 15
    assert grown("lbcore_backend_requests_total", pool="main") == 15
    assert grown("lbcore_backend_responses_total", pool="main", **{"class": "4xx"}) == 4
    assert grown("lbcore_route_duration_seconds_count", **of_route) == 10
    assert grown("lbcore_route_duration_seconds_bucket", **of_route, le="+Inf") == 10
    assert grown("lbcore_backend_response_duration_seconds_count", pool="main") == 15
    seconds = grown("lbcore_route_duration_seconds_sum", **of_route)
    assert 0 < seconds < 10 * 20
    for name in ("lbcore_listener_received_bytes_total", "lbcore_listener_sent_bytes_total"):
        assert grown(name, listener="web") > 15 * 30
    assert grown("lbcore_backend_sent_bytes_total", pool="main") > 15 * 30


def test_tcp_connections_are_counted(lb: Instance) -> None:
    before = now(lb)
    port = int(lb.file["listener"][1]["bind"].rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.sendall(b"GET /echo HTTP/1.1\r\nHost: x\r\n\r\n")
        assert sock.recv(4096)
        open_now = now(lb)
        assert open_now.value("lbcore_listener_connections", listener="raw") == 1
        assert open_now.sum("lbcore_backend_inflight", pool="raw") == 1
        assert open_now.value("lbcore_pool_inflight", pool="raw") == 1
        assert open_now.sum("lbcore_worker_connections") >= 1
    after = more(lb, before, "lbcore_listener_closed_connections_total", 1, listener="raw")
    assert after.value("lbcore_listener_connections", listener="raw") == 0
    assert after.sum("lbcore_backend_connect_duration_seconds_count", pool="raw") == \
        before.sum("lbcore_backend_connect_duration_seconds_count", pool="raw") + 1
    assert after.sum("lbcore_listener_sent_bytes_total", listener="raw") > \
        before.sum("lbcore_listener_sent_bytes_total", listener="raw")


def test_checks_states_and_weights_are_those_of_the_backends(
    lb: Instance, servers: list[Server],
) -> None:
    before = now(lb)
    two = {"pool": "main", "backend": "two"}
    more(lb, before, "lbcore_backend_checks_total", 2, **two, result="passed")
    servers[1].kill()
    try:
        down = more(lb, before, "lbcore_backend_checks_total", 2, **two, result="failed")
        assert down.value("lbcore_backend_up", **two) == 0
        assert down.value("lbcore_backend_state", **two, state="down") == 1
        assert down.sum("lbcore_backend_state", **two) == 1
        assert down.value("lbcore_pool_backends", pool="main", state="down") == 1
        assert down.value("lbcore_backend_state_changes_total", **two) == \
            before.value("lbcore_backend_state_changes_total", **two) + 1
    finally:
        servers[1].start()
    until(lambda: now(lb).value("lbcore_backend_up", **two) == 1, "the backend coming back")
    lb.admin.drain("main", "two")
    assert now(lb).value("lbcore_backend_state", **two, state="drain") == 1
    lb.admin.undrain("main", "two")
    lb.admin.weight("main", "two", 7)
    assert now(lb).value("lbcore_backend_weight", **two) == 7
    lb.admin.weight("main", "two", None)


def test_processes_are_measured(lb: Instance) -> None:
    found, pids = now(lb), [worker["pid"] for worker in lb.serving()]
    assert found.value("lbcore_worker_processes", state="serving") == 2
    for slot, pid in enumerate(pids):
        fds = found.value("lbcore_worker_open_fds", worker=str(slot))
        assert abs(fds - len(os.listdir(f"/proc/{pid}/fd"))) <= 20     # noqa: PTH208
        assert found.value("lbcore_worker_resident_memory_bytes", worker=str(slot)) > 2**20
        assert found.value("lbcore_worker_cpu_seconds_total", worker=str(slot)) > 0
        assert 0 <= found.value("lbcore_worker_heartbeat_age_seconds", worker=str(slot)) < 20
    assert found.value("process_resident_memory_bytes") > 2**20


# ---- that it only grows ------------------------------------------------------------------------

def test_nothing_that_counts_goes_back(lb: Instance) -> None:
    """Over a reload, a worker's death and an upgrade, with traffic."""
    with HttpLoad(lb.address, kinds=("GET keep",)) as load:
        seen = now(lb)
        lb.admin.reload()
        seen = _later(lb, seen)
        assert seen.value("lbcore_reloads_total", result="ok") == 1

        victim = lb.serving()[0]["pid"]
        os.kill(victim, signal.SIGKILL)
        lb.wait_for("worker.died", pid=victim)
        lb.wait_serving(2, but=[victim])
        seen = _later(lb, seen)
        assert seen.value("lbcore_worker_deaths_total", worker="0") == 1
        assert seen.value("lbcore_worker_starts_total", worker="0") == 2

        old = [worker["pid"] for worker in lb.serving()]
        lb.admin.upgrade()
        lb.wait_for("upgraded", generation=2)
        lb.wait_serving(2, but=old)
        seen = _later(lb, seen)
        assert seen.value("lbcore_generation") == 2
        assert seen.value("lbcore_upgrades_total", result="ok") == 1
        assert seen.value("lbcore_reloads_total", result="ok") == 1
        assert seen.value("lbcore_worker_deaths_total", worker="0") == 1
        assert seen.value("lbcore_worker_starts_total", worker="0") == 3
        # A worker that was killed took its clients' answers with it.
        report = load.finish()
    done = until(lambda: found if (found := now(lb)).sum(
        "lbcore_route_responses_total", **{"class": "2xx"}) >= report.succeeded else None,
        "every answer being counted")
    assert shrunk(seen.growing(), done.growing()) == []


def _later(lb: Instance, before: Scrape) -> Scrape:
    """A scrape after more requests; everything that counts has at least what it had."""
    after = more(lb, before, "lbcore_route_requests_total", 20)
    assert shrunk(before.growing(), after.growing()) == []
    return after


def test_a_discovery_source_that_fails_shows(lb: Instance) -> None:
    before, file = now(lb), lb.directory / "found.json"
    good = file.read_text()
    file.write_text("{")
    more(lb, before, "lbcore_discoveries_total", 1, result="failed")
    failing = until(
        lambda: found if (found := now(lb)).value("lbcore_pool_discovery_failing", pool="found")
        else None, "the pool saying so")
    assert failing.sum("lbcore_backend_info", pool="found") == 1
    file.write_text(good)
    until(lambda: not now(lb).value("lbcore_pool_discovery_failing", pool="found"), "recovery")


def test_a_reload_that_is_refused_shows(lb: Instance) -> None:
    before = now(lb)
    good = lb.config.read_text()
    lb.write(good + "\n[nonsense]\n")
    lb.signal(signal.SIGHUP)
    more(lb, before, "lbcore_reloads_total", 1, result="failed")
    with pytest.raises(AdminError):
        lb.admin.reload()
    failed = now(lb)
    assert failed.value("lbcore_reloads_total", result="failed") == \
        before.value("lbcore_reloads_total", result="failed") + 2
    assert failed.value("lbcore_last_reload_successful") == 0
    lb.write(good)
    lb.admin.reload()
    assert now(lb).value("lbcore_last_reload_successful") == 1


def test_what_leaves_the_configuration_has_no_series_any_more(lb: Instance) -> None:
    whole = dict(lb.pool)
    lb.pool["backends"] = lb.pool["backends"][:1]
    lb.write()
    lb.admin.reload()
    after = now(lb)
    assert after.sum("lbcore_backend_info", backend="one") == 1
    assert not [key for key in after.samples if ("backend", "two") in key[1]]
    lb.pool.update(whole)
    lb.write()
    lb.admin.reload()
    assert now(lb).sum("lbcore_backend_info", backend="two") == 1
