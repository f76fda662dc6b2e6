"""The end of lbcore: in order or at once, and nothing of it is left."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.support.faults import times
from tests.support.instance import Instance, until
from tests.support.load import REFUSED, Load, LongLived

AT_ONCE = 50.0      # on a machine that has other things to do; the drain timeout is longer


@pytest.fixture
def two(lb: Instance) -> Instance:
    """A running instance with two workers."""
    lb.file["lbcore"].update(workers=2, drain_timeout="10m", pid_file=str(lb.directory / "pid"))
    lb.write()
    lb.start()
    return lb


def test_term_lets_long_lived_connections_finish_and_exits_0(two: Instance) -> None:
    with LongLived(two.address) as clients:
        clients.open(50)
        two.signal(signal.SIGTERM)
        two.wait_for("worker.draining", 2)
        assert clients.ask() == []
        for client in list(clients.socks):
            clients.end(client)
    begin = time.monotonic()
    assert two.exit_code() == 0
    assert time.monotonic() - begin < AT_ONCE
    assert two.leftovers() == []


def test_term_under_load_loses_no_connection_that_was_taken(two: Instance) -> None:
    """Whoever comes too late is refused; whoever was queued or established is served."""
    with Load(two.address, hold=0.2) as load:
        two.signal(signal.SIGTERM)
        assert two.exit_code() == 0
        report = load.finish()
        assert set(report.failed) <= {REFUSED}, str(report)
    assert two.leftovers() == []


def test_term_of_an_idle_instance_takes_no_time(two: Instance) -> None:
    begin = time.monotonic()
    two.signal(signal.SIGTERM)
    assert two.exit_code() == 0
    assert time.monotonic() - begin < AT_ONCE
    assert two.leftovers() == []


def test_term_while_the_sockets_of_a_worker_that_went_are_emptied_ends_in_order(
    two: Instance,
) -> None:
    """The end closes all sockets; the change that is under way comes a second later to its own."""
    with LongLived(two.address) as clients:
        clients.open(4)
        two.signal(signal.SIGTTOU)
        two.wait_for("worker.draining", slot=1)
        two.signal(signal.SIGTERM)
        two.wait_for("worker.draining", slot=0)
        two.wait_for("resized")
        assert clients.ask() == []
        clients.close()
    assert two.exit_code() == 0
    assert not two.events("worker.plan_failed")
    assert two.leftovers() == []


def test_drain_timeout_ends_connections_that_stay(two: Instance) -> None:
    two.file["lbcore"]["drain_timeout"] = "500ms"
    two.write()
    two.admin.reload()
    with LongLived(two.address) as clients:
        clients.open(20)
        begin = time.monotonic()
        two.signal(signal.SIGTERM)
        assert two.exit_code() == 0
        assert 0.5 <= time.monotonic() - begin < AT_ONCE
        assert len(clients.ask()) == 20
    assert two.leftovers() == []


@pytest.mark.parametrize("signals", [[signal.SIGINT], [signal.SIGTERM, signal.SIGTERM],
                                     [signal.SIGQUIT, signal.SIGINT]])
def test_int_or_a_second_term_stops_at_once(two: Instance, signals: list[signal.Signals]) -> None:
    with LongLived(two.address) as clients:
        clients.open(50)
        begin = time.monotonic()
        for number, signum in enumerate(signals):
            two.signal(signum)
            if number == 0 and len(signals) > 1:
                two.wait_for("worker.draining", 2)
        assert two.exit_code() == 0
        assert time.monotonic() - begin < AT_ONCE
        assert len(clients.ask()) == 50
    assert two.leftovers() == []


def test_stop_ends_workers_that_stand_still(two: Instance) -> None:
    victim = two.serving()[0]["pid"]
    os.kill(victim, signal.SIGSTOP)
    two.signal(signal.SIGINT)
    assert two.exit_code() == 0
    assert two.leftovers() == []


def test_nothing_is_left_after_faults_and_changes(two: Instance) -> None:
    """Killed and taken over, upgraded, resized, a worker lost: then the end."""

    two.kill_supervisor()
    two.start()
    two.wait_serving(2)
    two.admin.upgrade()
    two.wait_for("upgraded")
    two.admin.workers(3)
    os.kill(two.wait_serving(3)[0]["pid"], signal.SIGKILL)
    two.wait_for("worker.died")
    two.wait_serving(3)
    two.signal(signal.SIGTERM)
    assert two.exit_code() == 0
    assert two.leftovers() == []


def test_term_while_starting_ends_and_leaves_nothing(lb: Instance) -> None:
    lb.file["lbcore"]["workers"] = 4
    lb.write()
    lb.start(wait=False)
    lb.wait_for("limits")
    lb.signal(signal.SIGTERM)
    assert lb.exit_code() == 0
    assert lb.leftovers() == []


def test_files_of_a_killed_instance_do_not_keep_the_next_one_from_starting(two: Instance) -> None:
    """Everything is killed at once, as by a lack of memory."""

    for pid in two.processes():
        os.kill(pid, signal.SIGKILL)
    two.exit_code()
    until(lambda: not two.processes())
    two.start()
    with LongLived(two.address) as clients:
        clients.open(5)
    two.signal(signal.SIGTERM)
    assert two.exit_code() == 0
    assert two.leftovers() == []


MOMENTS = ["upgrade.exec", "upgrade.checking", "worker.started"]


@pytest.mark.parametrize("moment", MOMENTS[: times(3, 2)])
def test_term_during_an_upgrade_ends_lbcore_all_the_same(two: Instance, moment: str) -> None:
    seen = len(two.events(moment))
    two.signal(signal.SIGUSR2)
    two.wait_for(moment, seen + 1)
    two.signal(signal.SIGTERM)
    assert two.exit_code() == 0
    until(lambda: two.leftovers() == [], "nothing left")


def test_upgrade_tried_out_without_its_supervisor_leaves_nothing(two: Instance) -> None:
    two.signal(signal.SIGUSR2)
    two.wait_for("upgrade.checking")
    until(lambda: any("preflight" in words for words in two.processes().values()))
    two.kill_supervisor()
    until(lambda: len(two.processes()) == 2, "only the two workers left")


def test_worker_killed_out_of_a_trial_leaves_no_process(two: Instance) -> None:
    """The trial of an upgrade itself is killed: the worker it tried ends as well."""
    before = set(two.processes())
    two.signal(signal.SIGUSR2)
    trial, _ = until(lambda: [p for p in two.processes().items()
                              if "preflight" in p[1]])[0]
    until(lambda: len(two.processes()) == len(before) + 2, "the trial's worker")
    os.kill(trial, signal.SIGKILL)
    two.wait_for("upgrade.failed")
    until(lambda: set(two.processes()) == before, "what was there before")
