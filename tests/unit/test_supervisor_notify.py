"""What is said to a service manager, and that it costs nothing where there is none."""

from __future__ import annotations

import itertools
import os
import secrets
import socket
import time
from pathlib import Path

import pytest

from lbcore.supervisor import notify
from lbcore.supervisor.notify import Notifier, for_children
from tests.support.manager import Manager


@pytest.fixture
def manager(tmp_path: Path) -> Manager:
    return Manager(tmp_path / "notify")


def test_without_a_service_manager_nothing_is_sent() -> None:
    notifier = Notifier({})
    assert not notifier.ready("fine")
    assert not notifier.stopping()
    assert not notifier.beat()


@pytest.mark.parametrize("address", ["", "@", "relative/path", "vsock:2:1234"])
def test_an_address_that_is_none_is_no_service_manager(address: str) -> None:
    assert not Notifier({"NOTIFY_SOCKET": address}).ready("fine")


def test_a_socket_that_nobody_reads_any_more_is_no_error(tmp_path: Path) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")})
    assert not notifier.ready("fine")
    with notifier.reload():
        pass


def test_a_full_socket_never_blocks(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as full:
        full.bind(str(tmp_path / "full"))
        notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "full")})
        sent = sum(notifier.status(f"number {number}") for number in range(2000))
    assert sent < 2000


def test_ready_names_the_process_and_how_it_is(manager: Manager) -> None:
    with manager:
        assert Notifier(manager.environment()).ready("2 workers")
        assert manager.drain() == [
            {"READY": "1", "MAINPID": str(os.getpid()), "STATUS": "2 workers"}]


def test_an_abstract_socket_is_reached() -> None:
    with Manager(f"@lbcore-{secrets.token_hex(8)}") as manager:
        assert Notifier(manager.environment()).ready("fine")
        assert len(manager.drain()) == 1


def test_a_reload_ends_with_ready_and_its_moment_is_told(manager: Manager) -> None:
    with manager:
        notifier = Notifier(manager.environment())
        notifier.ready("fine")
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        with notifier.reload():
            pass
        _, reloading, ready = manager.drain()
    assert reloading["RELOADING"] == "1"
    assert before <= int(reloading["MONOTONIC_USEC"]) <= before + 60_000_000
    assert (ready["READY"], ready["STATUS"]) == ("1", "fine")


def test_a_reload_that_fails_ends_with_ready_too(manager: Manager) -> None:
    with manager:
        with pytest.raises(ValueError, match="bad file"), \
                Notifier(manager.environment()).reload():
            raise ValueError("bad file")
        assert [next(iter(said)) for said in manager.drain()] == ["RELOADING", "READY"]


def test_who_ends_during_a_reload_does_not_say_that_it_is_ready(manager: Manager) -> None:
    with manager:
        notifier = Notifier(manager.environment())
        with notifier.reload():
            notifier.stopping()
        assert [next(iter(said)) for said in manager.drain()] == ["RELOADING", "STOPPING"]


def test_a_status_is_one_line_and_said_when_it_changes(manager: Manager) -> None:
    with manager:
        notifier = Notifier(manager.environment())
        for text in ("all is well", "all is well", "some\nWATCHDOG=trigger\nlines", "x" * 5000):
            notifier.status(text)
        said = manager.drain()
    assert [message["STATUS"] for message in said] == [
        "all is well", "some WATCHDOG=trigger lines", "x" * notify.MAX_STATUS]


def test_draining_asks_for_time_again_and_again(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr(notify.time, "monotonic", lambda: clock[0])
    with manager:
        notifier = Notifier(manager.environment())
        asked = []
        for _ in range(60):
            if notifier.draining(7):
                asked.append(clock[0])
            clock[0] += 0.5
        first = manager.drain()[0]
    assert int(first["EXTEND_TIMEOUT_USEC"]) / 1e6 > 2 * max(
        later - earlier for earlier, later in itertools.pairwise(asked))
    assert "7 connection(s)" in first["STATUS"]


@pytest.mark.parametrize("seconds", [0.5, 2.0, 3.0, 10.0, 30.0])
def test_signs_of_life_come_at_least_twice_in_the_time_allowed(
    manager: Manager, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    clock = [100.0]
    monkeypatch.setattr(notify.time, "monotonic", lambda: clock[0])
    step = min(1.0, seconds / 2)
    with manager:
        notifier = Notifier(manager.environment(seconds))
        beats = [100.0]
        while clock[0] < 100 + 5 * seconds:
            if notifier.beat():
                beats.append(clock[0])
            clock[0] += step
    longest = max(later - earlier for earlier, later in itertools.pairwise(beats))
    assert longest <= max(seconds / 2, step)


def test_a_watchdog_that_is_another_process_s_is_not_ours() -> None:
    environment = {"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": str(os.getpid() + 1)}
    assert Notifier(environment).watchdog == 0
    assert Notifier(environment | {"WATCHDOG_PID": str(os.getpid())}).watchdog == 1
    assert Notifier({"WATCHDOG_USEC": "nonsense"}).watchdog == 0


def test_servers_do_not_get_what_the_service_manager_says_to_us() -> None:
    ours = {"NOTIFY_SOCKET": "/run/n", "WATCHDOG_USEC": "1", "LISTEN_FDS": "2", "LISTEN_PID": "1",
            "LISTEN_FDNAMES": "web", "WATCHDOG_PID": "1", "PATH": "/bin"}
    assert for_children(ours) == {"PATH": "/bin"}
