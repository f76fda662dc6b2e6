"""Workers and applications that die, stand still or come back, while HTTP clients ask on."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Iterator

import pytest

from tests.support.faults import times
from tests.support.http_load import HttpLoad
from tests.support.http_servers import Server, uvicorns
from tests.support.instance import Instance, instance, until

GETS = ("GET keep", "GET close")
EACH = 4                # clients of each kind
NEVER_EJECTED = {"failures": 0}


@pytest.fixture
def servers() -> Iterator[list[Server]]:
    """Two applications under uvicorn."""
    with uvicorns(2) as made:
        yield made


@pytest.fixture
def lb(servers: list[Server]) -> Iterator[Instance]:
    """An instance that has not started yet, in front of both."""
    with instance() as made:
        made.file["listener"][0]["protocol"] = "http"
        made.pool["backends"] = [server.address for server in servers]
        yield made
        assert made.complaints() == []


# ---- workers -----------------------------------------------------------------------------------

def asked(address: tuple[str, int]) -> socket.socket:
    """A connection on which a request was answered, and that rests now."""
    sock = socket.create_connection(address, 20)
    assert asks_on(sock)
    return sock


def asks_on(sock: socket.socket) -> bool:
    """Whether a connection has an answer for another request."""
    data = b""
    with contextlib.suppress(ConnectionError):
        sock.sendall(b"GET /status?code=200 HTTP/1.1\r\nHost: test\r\n\r\n")
        while not data.endswith(b"\r\n\r\n12345") and (part := sock.recv(65536)):
            data += part
    return data.startswith(b"HTTP/1.1 200 ") and data.endswith(b"\r\n\r\n12345")


def test_killed_worker_loses_only_its_own_connections(lb: Instance) -> None:
    lb.file["lbcore"]["workers"] = 2
    lb.write()
    lb.start()
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(asked(lb.address)) for _ in range(100)]
        held = {worker["pid"]: worker["connections"] for worker in lb.serving()}
        assert sum(held.values()) == 100 and min(held.values()) > 0
        victim = next(iter(held))
        os.kill(victim, signal.SIGKILL)
        lb.wait_for("worker.died", pid=victim)
        assert sum(not asks_on(client) for client in clients) == held[victim]
        lb.wait_serving(2, but=[victim])
        stack.enter_context(asked(lb.address))
    until(lambda: all(backend["inflight"] == 0 for backend in lb.status()["pools"][0]["backends"]),
          "its places at the backends given back")


def test_workers_killed_again_and_again_fail_no_more_requests_than_they_had_clients(
    lb: Instance,
) -> None:
    lb.file["lbcore"]["workers"] = 2
    lb.write()
    lb.start()
    kills = times(30, 3)
    with HttpLoad(lb.address, each=EACH) as load:
        for number in range(kills):
            victim = lb.wait_serving(2)[number % 2]["pid"]
            os.kill(victim, signal.SIGKILL)
            lb.wait_for("worker.died", number + 1)
            load.wait_for(100)
        report = load.finish()
    held = [death["connections"] for death in lb.events("worker.died")]
    assert len(held) == kills
    # A worker may die between accepting a connection and counting it.
    assert report.failures <= sum(held) + kills, f"held: {held}; {report}"
    assert all(": ConnectionReset" in line or ": IncompleteRead" in line
               for line in report.details), str(report)


# ---- applications ------------------------------------------------------------------------------

def wait_until_up(lb: Instance, server: Server) -> None:
    until(lambda: lb.backend(server.address)["state"] == "up", f"{server.address} up")


def wait_for_answers(load: HttpLoad, server: Server) -> None:
    """Until it has answered some more."""
    before = load.report().names.get(server.address, 0)
    until(lambda: load.report().names.get(server.address, 0) > before + 10, "its answers")


def test_killed_application_fails_no_idempotent_request_and_serves_again_when_it_is_back(
    lb: Instance, servers: list[Server],
) -> None:
    lb.pool["health"] = {"type": "tcp", "interval": "100ms", "timeout": "1s", "rise": 1, "fall": 1}
    lb.write()
    lb.start()
    with HttpLoad(lb.address, kinds=GETS, each=EACH) as load:
        for number in range(times(10, 2)):
            victim = servers[number % 2]
            load.wait_for(50)
            victim.kill()
            load.wait_for(200)
            victim.start()
            wait_until_up(lb, victim)
            wait_for_answers(load, victim)
        load.expect_no_failure()


def test_killed_application_fails_no_idempotent_request_without_checks_and_ejection(
    lb: Instance, servers: list[Server],
) -> None:
    """Every request finds out anew that nobody is there."""
    lb.pool["ejection"] = NEVER_EJECTED
    lb.write()
    lb.start()
    with HttpLoad(lb.address, kinds=GETS, each=EACH) as load:
        servers[0].kill()
        report = load.wait_for(500)
        assert report.names[servers[1].address] > 400
        load.expect_no_failure()


def test_killed_application_fails_no_more_posts_than_it_was_working_on(
    lb: Instance, servers: list[Server],
) -> None:
    lb.pool["ejection"] = {"failures": 5, "base": "200ms"}
    lb.write()
    lb.start()
    kills = times(6, 2)
    with HttpLoad(lb.address, kinds=("POST keep", "POST close"), each=EACH) as load:
        for number in range(kills):
            victim = servers[number % 2]
            load.wait_for(100)
            victim.kill()
            load.wait_for(200)
            victim.start()
            wait_until_up(lb, victim)
        report = load.finish()
    assert report.failures <= kills * 2 * EACH, str(report)
    assert all("Wrong 502" in line or ": ConnectionReset" in line or ": IncompleteRead" in line
               for line in report.details), str(report)


def test_application_that_comes_and_goes_fails_no_idempotent_request(
    lb: Instance, servers: list[Server],
) -> None:
    lb.pool["ejection"] = NEVER_EJECTED
    lb.write()
    lb.start()
    with HttpLoad(lb.address, kinds=GETS, each=EACH) as load:
        for _ in range(times(15, 3)):
            servers[0].kill()
            load.wait_for(30)
            servers[0].start()
            load.wait_for(30)
        load.expect_no_failure()


def test_application_restarted_in_an_orderly_way_fails_no_idempotent_request(
    lb: Instance, servers: list[Server],
) -> None:
    lb.pool["ejection"] = {"failures": 5, "base": "200ms"}
    lb.write()
    lb.start()
    with HttpLoad(lb.address, kinds=GETS, each=EACH) as load:
        for number in range(times(10, 2)):
            servers[number % 2].terminate()
            load.wait_for(100)
            servers[number % 2].start()
            wait_until_up(lb, servers[number % 2])
            wait_for_answers(load, servers[number % 2])
        load.expect_no_failure()


def test_application_that_stands_still_fails_no_idempotent_request_where_504_is_retried(
    lb: Instance, servers: list[Server],
) -> None:
    lb.file["listener"][0].update(first_byte_timeout="2s", retry={"statuses": [504]})
    lb.pool.update(ejection={"failures": 3, "base": "1s"}, retry_share=1.0)
    lb.write()
    lb.start()
    with HttpLoad(lb.address, kinds=GETS, each=EACH) as load:
        servers[0].signal(signal.SIGSTOP)
        lb.wait_for("backend.state", backend=servers[0].address, new="ejected")
        load.wait_for(200)
        servers[0].signal(signal.SIGCONT)
        wait_until_up(lb, servers[0])
        load.wait_for(100)
        load.expect_no_failure()


def test_application_that_stands_still_is_left_out_by_checks_and_costs_what_waited_for_it(
    lb: Instance, servers: list[Server],
) -> None:
    lb.file["listener"][0]["first_byte_timeout"] = "3s"
    lb.pool.update(ejection=NEVER_EJECTED, health={
        "type": "http", "path": "/status?code=200", "interval": "100ms", "timeout": "1s",
        "rise": 1, "fall": 2})
    lb.write()
    lb.start()
    with HttpLoad(lb.address, each=EACH) as load:
        servers[0].signal(signal.SIGSTOP)
        lb.wait_for("backend.state", backend=servers[0].address, new="down")
        until(lambda: lb.backend(servers[0].address)["inflight"] == 0, "nobody waits there")
        load.wait_for(100)          # those who did have heard of it
        lost = load.report().failures
        assert lost <= 4 * EACH
        load.wait_for(300)
        assert load.report().failures == lost
        servers[0].signal(signal.SIGCONT)
        wait_until_up(lb, servers[0])
        report = load.finish()
    assert report.failures == lost, str(report)
    assert all("Wrong 504" in line for line in report.details), str(report)
