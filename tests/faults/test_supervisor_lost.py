"""The supervisor dies or stands still: traffic goes on, and a new one takes over."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.support.faults import times
from tests.support.instance import Instance, until
from tests.support.load import Load, LongLived


@pytest.fixture
def two(lb: Instance) -> Instance:
    """A running instance with two workers."""
    lb.file["lbcore"]["workers"] = 2
    lb.write()
    lb.start()
    return lb


def test_killed_supervisor_and_restart_fail_no_connection(two: Instance) -> None:
    with Load(two.address) as load:
        for _ in range(times(10, 2)):
            old = [worker["pid"] for worker in two.serving()]
            two.kill_supervisor()
            load.wait_for(100)
            two.start()
            two.wait_serving(2, but=old)
            assert len(two.processes()) == 3
        load.expect_no_failure()


def test_killed_supervisor_and_restart_keep_long_lived_connections_until_they_end(
    two: Instance,
) -> None:
    old = [worker["pid"] for worker in two.serving()]
    with LongLived(two.address) as clients:
        clients.open(50)
        two.kill_supervisor()
        assert clients.ask() == []
        two.start()
        assert clients.ask() == []
        clients.open(10)
        assert set(old) <= set(two.processes())
        clients.close()
        two.wait_serving(2, but=old)


def test_traffic_goes_on_without_a_supervisor(two: Instance) -> None:
    workers = {worker["pid"] for worker in two.serving()}
    with LongLived(two.address) as clients, Load(two.address) as load:
        clients.open(50)
        two.kill_supervisor()
        load.wait_for(times(20_000, 1200), patience=120)
        clients.open(50)
        assert clients.ask() == []
        load.expect_no_failure()
    assert set(two.processes()) == workers


def test_restart_with_another_number_of_workers_fails_no_connection(two: Instance) -> None:
    with Load(two.address) as load:
        for count in (4, 1, 2)[: times(3, 2)]:
            old = [worker["pid"] for worker in two.serving()]
            two.kill_supervisor()
            two.file["lbcore"]["workers"] = count
            two.write()
            two.start()
            two.wait_serving(count, but=old)
            load.wait_for(100)
        load.expect_no_failure()


MOMENTS = ["worker.draining", "upgrade.checking", "upgrade.exec"]


@pytest.mark.parametrize("moment", MOMENTS[: times(3, 1)])
def test_supervisor_killed_during_an_upgrade_and_restarted_fails_no_connection(
    two: Instance, moment: str,
) -> None:
    old = [worker["pid"] for worker in two.serving()]
    with Load(two.address) as load:
        two.signal(signal.SIGUSR2)
        two.wait_for(moment)
        two.kill_supervisor()
        load.wait_for(50)
        two.start()
        two.wait_serving(2, but=old)
        load.wait_for(50)
        load.expect_no_failure()
    until(lambda: len(two.processes()) == 3, "only the new processes left")


def test_supervisor_killed_during_reloads_and_restarted_fails_no_connection(
    two: Instance,
) -> None:
    with Load(two.address) as load:
        for number in range(times(20, 1)):
            old = [worker["pid"] for worker in two.serving()]
            two.pool["connect_timeout"] = f"{2 + number}s"
            two.write()
            two.signal(signal.SIGHUP)
            time.sleep(0.005 * (number % 5))      # somewhere in its middle
            two.kill_supervisor()
            two.start()
            two.wait_serving(2, but=old)
        load.expect_no_failure()


def test_supervisor_that_stood_still_finds_its_workers_as_they_were(lb: Instance) -> None:
    """It must not take its own standing still for theirs."""
    lb.file["lbcore"].update(workers=2, hang_timeout="2s")
    lb.write()
    lb.start()
    before = lb.processes()
    with Load(lb.address) as load:
        os.kill(lb.pid, signal.SIGSTOP)
        load.wait_for(1200)                 # three seconds, longer than hang_timeout
        os.kill(lb.pid, signal.SIGCONT)
        uptime = lb.serving()[0]["uptime_s"]
        until(lambda: lb.serving()[0]["uptime_s"] > uptime + 2.5)
        load.expect_no_failure()
    assert lb.processes() == before
    assert not lb.events("worker.hung")
