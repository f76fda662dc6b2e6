"""What a service manager hears of a running lbcore over its life: sd_notify(3)."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.echo import Backends
from tests.support.instance import Instance, instance
from tests.support.load import LongLived
from tests.support.manager import Manager


@pytest.fixture(scope="module")
def backends() -> Iterator[Backends]:
    with Backends() as made:
        yield made


@pytest.fixture
def lb(backends: Backends) -> Iterator[Instance]:
    with instance() as made:
        made.pool["backends"] = backends.echo(1)
        yield made
        assert made.complaints() == []


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    with Manager(tmp_path / "notify") as made:
        yield made


def test_start_reload_failed_reload_upgrade_and_stop_are_told_in_order(
    lb: Instance, manager: Manager
) -> None:
    lb.write()
    lb.start(environment=manager.environment())
    at = manager.wait_for(READY="1", MAINPID=str(lb.pid))
    with LongLived(lb.address) as clients:       # ready: it serves
        clients.open(1)
        assert clients.ask() == []
    lb.signal(signal.SIGHUP)
    at = manager.wait_for(at, RELOADING="1", MONOTONIC_USEC="")
    at = manager.wait_for(at, READY="1", MAINPID=str(lb.pid))
    lb.write("nonsense")
    lb.signal(signal.SIGHUP)
    at = manager.wait_for(at, RELOADING="1")
    at = manager.wait_for(at, READY="1")
    lb.wait_for("config.problem")
    lb.write()
    old = [worker["pid"] for worker in lb.serving()]
    lb.signal(signal.SIGUSR2)
    at = manager.wait_for(at, READY="1", MAINPID=str(lb.pid))    # the same process, another version
    lb.wait_serving(1, but=old)
    lb.signal(signal.SIGTERM)
    at = manager.wait_for(at, STOPPING="1")
    assert lb.exit_code() == 0
    said = manager.drain()
    assert not any("READY" in message for message in said[at:])
    assert sum("STOPPING" in message for message in said) == 1
    starts = [next(iter(message)) for message in said if {"READY", "RELOADING"} & message.keys()]
    assert starts == ["READY", "RELOADING", "READY", "RELOADING", "READY", "READY"]


def test_no_server_that_lbcore_starts_can_speak_to_its_service_manager(
    lb: Instance, manager: Manager
) -> None:
    lb.pool.update(backends=[], demo=1)
    lb.write()
    lb.start(environment=manager.environment(30))
    others = set(lb.processes()) - {lb.pid}
    assert len(others) == 2
    for pid in others:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
        assert b"NOTIFY_SOCKET" not in environment
        assert b"WATCHDOG_USEC" not in environment


def test_drain_asks_for_time_while_connections_go_on(lb: Instance, manager: Manager) -> None:
    lb.write()
    lb.start(environment=manager.environment())
    with LongLived(lb.address) as clients:
        clients.open(3)
        lb.signal(signal.SIGTERM)
        at = manager.wait_for(STOPPING="1")
        at = manager.wait_for(at, EXTEND_TIMEOUT_USEC="")
        assert "connection(s) go on" in manager.messages[at - 1]["STATUS"]
        manager.wait_for(at, EXTEND_TIMEOUT_USEC="")
        assert clients.ask() == []
    assert lb.exit_code() == 0


def test_signs_of_life_stop_when_the_supervisor_stands_still_and_come_again(
    lb: Instance, manager: Manager
) -> None:
    lb.write()
    lb.start(environment=manager.environment(2))
    at = manager.wait_for(manager.wait_for(WATCHDOG="1"), WATCHDOG="1")
    lb.signal(signal.SIGSTOP)
    try:
        at = len(manager.drain())        # one may have been sent at the last moment
        with pytest.raises(AssertionError):
            manager.wait_for(at, 3, WATCHDOG="1")
    finally:
        lb.signal(signal.SIGCONT)
    manager.wait_for(at, WATCHDOG="1")


def test_a_hung_worker_is_replaced_and_signs_of_life_go_on(
    lb: Instance, manager: Manager
) -> None:
    lb.file["lbcore"]["hang_timeout"] = "2s"
    lb.write()
    lb.start(environment=manager.environment(2))
    [worker] = lb.serving()
    os.kill(worker["pid"], signal.SIGSTOP)
    lb.wait_for("worker.hung")
    lb.wait_serving(1, but=[worker["pid"]])
    manager.wait_for(len(manager.drain()), WATCHDOG="1")


def test_status_says_that_no_backend_is_up(
    lb: Instance, backends: Backends, manager: Manager
) -> None:
    lb.pool["health"] = {"interval": "100ms", "timeout": "100ms", "fall": 1, "rise": 1}
    lb.write()
    lb.start(environment=manager.environment())
    at = manager.wait_for(STATUS="", READY="1")
    [address] = lb.pool["backends"]
    backends.leave(address)
    lb.wait_for("backend.state", new="down")
    while "no backend is up in main" not in manager.messages[at - 1].get("STATUS", ""):
        at = manager.wait_for(at, STATUS="")
    backends.come_back(address)
    lb.wait_for("backend.state", new="up")
    while not manager.messages[at - 1].get("STATUS", "").endswith("worker(s) serve"):
        at = manager.wait_for(at, STATUS="")


def test_a_failed_start_never_says_that_it_is_ready(lb: Instance, manager: Manager) -> None:
    lb.pool["backends"] = ["name.invalid:80"]
    lb.write()
    lb.start(environment=manager.environment(), wait=False)
    assert lb.exit_code() != 0
    assert not any("READY" in message for message in manager.drain())


def test_a_supervisor_that_takes_over_names_its_own_pid(lb: Instance, manager: Manager) -> None:
    lb.write()
    lb.start(environment=manager.environment())
    at = manager.wait_for(READY="1", MAINPID=str(lb.pid))
    lb.kill_supervisor()
    lb.start(environment=manager.environment())
    manager.wait_for(at, READY="1", MAINPID=str(lb.pid))
