"""Workers that die or stand still: what was established on them is lost, nothing else."""

from __future__ import annotations

import os
import signal
import socket
import time

from tests.support.faults import times
from tests.support.instance import Instance, until
from tests.support.load import LOST, UNSERVED, Load, LongLived


def connections_of(lb: Instance) -> dict[int, int]:
    """Connections on each worker."""
    return {worker["pid"]: worker["connections"] for worker in lb.serving()}


def test_killed_worker_loses_only_its_own_connections(lb: Instance) -> None:
    lb.file["lbcore"]["workers"] = 2
    lb.write()
    lb.start()
    with LongLived(lb.address) as clients:
        clients.open(100)
        on = connections_of(lb)
        victim, other = on
        assert sum(on.values()) == 100 and min(on.values()) > 0
        os.kill(victim, signal.SIGKILL)
        lb.wait_for("worker.died", pid=victim, connections=on[victim])
        assert len(clients.ask()) == on[victim]
        lb.wait_serving(2, but=[victim])
        assert connections_of(lb)[other] == on[other]
        clients.open(20)


def test_connections_queued_at_a_killed_worker_are_served_by_its_replacement(lb: Instance) -> None:
    """The only worker stands still while they come, so that all of them are in its queue."""
    lb.write()
    lb.start()
    victim = lb.serving()[0]["pid"]
    os.kill(victim, signal.SIGSTOP)
    clients = []
    for number in range(200):
        clients.append(socket.create_connection(lb.address, 60))
        clients[-1].sendall(b"%03d" % number)
    os.kill(victim, signal.SIGKILL)
    for number, client in enumerate(clients):
        with client:
            assert client.recv(3, socket.MSG_WAITALL) == b"%03d" % number
    lb.wait_serving(1, but=[victim])


def test_workers_killed_again_and_again_lose_what_is_established_and_refuse_nobody(
    lb: Instance,
) -> None:
    """One every two seconds, in turn. What each loses is what it held when it died."""
    lb.file["lbcore"]["workers"] = 2
    lb.write()
    lb.start()
    kills = times(30, 3)
    with Load(lb.address, hold=0.05) as load:
        begin = time.monotonic()
        for number in range(kills):
            victim = lb.wait_serving(2)[number % 2]["pid"]
            os.kill(victim, signal.SIGKILL)
            lb.wait_for("worker.died", number + 1)
            time.sleep(max(0.0, begin + 2.0 * (number + 1) - time.monotonic()))   # the pace
        lb.wait_serving(2)
        load.wait_for(200)
        report = load.finish()
    held = [death["connections"] for death in lb.events("worker.died")]
    assert len(held) == kills and sum(held) > 0
    assert set(report.failed) <= {UNSERVED, LOST}, str(report)
    # A worker may die between accepting a connection and counting it.
    assert report.failures <= sum(held) + kills, f"held: {held}; {report}"


def test_worker_that_stands_still_is_replaced_and_later_connections_are_served(
    lb: Instance,
) -> None:
    lb.file["lbcore"].update(workers=2, hang_timeout="2s")
    lb.write()
    lb.start()
    with LongLived(lb.address) as clients, Load(lb.address, hold=0.05) as load:
        clients.open(40)
        on = connections_of(lb)
        victim = min(on)
        os.kill(victim, signal.SIGSTOP)
        lb.wait_for("worker.hung", pid=victim)
        held = lb.wait_for("worker.died", pid=victim)["connections"]
        lb.wait_serving(2, but=[victim])
        load.wait_for(400)
        report = load.finish()
        # What it had accepted is lost; whoever came while it stood still has only waited.
        assert set(report.failed) <= {UNSERVED, LOST}, str(report)
        assert report.failures + len(clients.ask()) <= held + 1, f"held: {held}; {report}"
        assert report.slowest_ms < 10_000, str(report)
        clients.open(40)


def test_worker_that_stands_still_for_a_moment_is_left_alone(lb: Instance) -> None:
    lb.file["lbcore"]["hang_timeout"] = "30s"
    lb.write()
    lb.start()
    before = lb.processes()
    victim = lb.serving()[0]["pid"]
    with LongLived(lb.address) as clients, Load(lb.address) as load:
        clients.open(10)
        os.kill(victim, signal.SIGSTOP)
        until(lambda: lb.serving()[0]["heartbeat_age_ms"] > 1500)
        os.kill(victim, signal.SIGCONT)
        assert clients.ask() == []
        load.wait_for(100)
        load.expect_no_failure()
    assert lb.processes() == before


def test_worker_that_keeps_dying_leaves_its_neighbour_in_peace(lb: Instance) -> None:
    lb.file["lbcore"]["workers"] = 2
    lb.write()
    lb.start()
    with LongLived(lb.address) as clients:
        clients.open(40)
        victim, other = connections_of(lb)
        alive = connections_of(lb)[other]
        slot = next(w["slot"] for w in lb.serving() if w["pid"] == victim)
        for number in range(5):
            pid = until(lambda: next((w["pid"] for w in lb.serving() if w["slot"] == slot), 0))
            os.kill(pid, signal.SIGKILL)
            lb.wait_for("worker.died", number + 1, slot=slot)
        lb.wait_for("worker.backoff", slot=slot)
        assert 40 - len(clients.ask()) == alive
        assert other in {worker["pid"] for worker in lb.wait_serving(2)}
