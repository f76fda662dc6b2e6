"""A slot whose worker does not come back: a neighbour serves who is queued there."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.echo import Backends
from tests.support.instance import Instance, instance, until
from tests.support.load import Load, LongLived
from tests.support.tree import Tree

LONGEST = 8000.0     # ms in a queue; a worker that hangs at its start is given up after 10 s


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """While armed, workers of slots above 0 hang before they are ready."""
    tree = Tree(tmp_path)
    tree.insert("worker.py", "worker = Worker(options)", "options.slot and time.sleep(600)")
    tree.replace("supervisor/fleet.py", "START_TIMEOUT = 20.0", "START_TIMEOUT = 10.0")
    return tree


@pytest.fixture
def lb(tree: Tree, backends: Backends) -> Iterator[Instance]:
    """A running instance with three workers."""
    with instance(tree.root) as made:
        made.pool["backends"] = backends.echo(2)
        made.file["lbcore"]["workers"] = 3
        made.write()
        made.start()
        yield made
        assert made.complaints() == []


def kill(lb: Instance, slot: int) -> int:
    """SIGKILL to the worker of a slot."""
    victim = int(next(w["pid"] for w in lb.serving() if w["slot"] == slot))
    os.kill(victim, signal.SIGKILL)
    return victim


def listening(lb: Instance, pid: int) -> int:
    """How many sockets that listen on the instance's port a process holds."""
    wanted = f"0100007F:{lb.port:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
    names = {f"socket:[{row[9]}]" for row in rows if (row[1], row[3]) == (wanted, "0A")}
    found = 0
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):     # closed meanwhile
            found += str(path.readlink()) in names
    return found


def hanging(lb: Instance) -> list[int]:
    """Workers that are not ready."""
    return [w["pid"] for w in lb.status()["workers"] if w["state"] == "starting"]


def test_slot_whose_worker_does_not_come_back_is_served_by_a_neighbour(
    tree: Tree, lb: Instance,
) -> None:
    with tree.arm():
        victim = kill(lb, 1)
        with Load(lb.address) as load:
            lb.wait_for("worker.slot_lent", slot=1, to=0)
            load.wait_for(200)
            assert load.expect_no_failure().slowest_ms < LONGEST
    with Load(lb.address) as load:
        for pid in hanging(lb):
            os.kill(pid, signal.SIGKILL)
        workers = lb.wait_serving(3, but=[victim])
        until(lambda: [listening(lb, w["pid"]) for w in workers] == [1, 1, 1],
              "every worker has its own socket and no other")
        before = {w["pid"]: w["accepted"] for w in workers}
        until(lambda: all(w["accepted"] > before[w["pid"]] for w in lb.serving()),
              "the kernel chooses every slot again")
        load.expect_no_failure()
    assert [w["accept_errors"] for w in lb.serving()] == [0, 0, 0]


def test_lent_slot_outlives_the_supervisor(tree: Tree, lb: Instance) -> None:
    """The dead worker's sockets are held by a neighbour, with whoever is queued there."""
    with tree.arm():
        victim = kill(lb, 1)
        lb.wait_for("worker.slot_lent", slot=1)
        with Load(lb.address) as load:
            lb.kill_supervisor()
            load.wait_for(200)
            load.expect_no_failure()
    with Load(lb.address) as load:
        lb.start()
        lb.wait_serving(3, but=[victim])
        load.wait_for(100)
        load.expect_no_failure()


def test_slots_are_lent_onwards_when_the_neighbour_ends_too_and_the_fleet_shrinks(
    tree: Tree, lb: Instance,
) -> None:
    with tree.arm():
        kill(lb, 2)
        lb.wait_for("worker.slot_lent", slot=2, to=1)
        kill(lb, 1)
        lb.wait_for("worker.slot_lent", slot=1, to=0)
        with Load(lb.address) as load:
            load.wait_for(200)
            lb.admin.workers(2)
            load.wait_for(200)
            assert load.expect_no_failure().slowest_ms < LONGEST
    with Load(lb.address) as load:
        for pid in hanging(lb):
            os.kill(pid, signal.SIGKILL)
        workers = lb.wait_serving(2)
        until(lambda: [listening(lb, w["pid"]) for w in workers] == [1, 1],
              "every worker has its own socket and no other")
        load.wait_for(100)
        load.expect_no_failure()


def test_upgrade_while_a_slot_is_lent_fails_no_connection(tree: Tree, lb: Instance) -> None:
    with tree.arm():
        kill(lb, 1)
        lb.wait_for("worker.slot_lent", slot=1, to=0)
    with Load(lb.address) as load:
        lb.admin.upgrade()
        lb.wait_for("upgraded")
        workers = lb.wait_serving(3)
        until(lambda: [listening(lb, w["pid"]) for w in workers] == [1, 1, 1],
              "every worker has its own socket and no other")
        load.wait_for(100)
        load.expect_no_failure()


# ---- a takeover that is not complete: workers of the earlier supervisor go on --------------------

def test_fewer_workers_while_those_of_a_killed_supervisor_still_serve_lose_nobody(
    tree: Tree, lb: Instance,
) -> None:
    """They hold the sockets of the slots that go away, and the kernel gives them connections."""
    old = [w["pid"] for w in lb.serving()]
    with Load(lb.address) as load:
        lb.kill_supervisor()
        with tree.arm():
            lb.start()
            assert set(old) < {w["pid"] for w in lb.status()["workers"]}
            load.wait_for(100)
            lb.admin.workers(1)
            lb.wait_serving(1, but=old)
            load.wait_for(100)
        load.expect_no_failure()


def test_upgrade_while_workers_of_a_killed_supervisor_still_serve_leaves_them_in_peace(
    tree: Tree, lb: Instance,
) -> None:
    old = {w["pid"] for w in lb.serving()}
    with LongLived(lb.address) as clients, Load(lb.address) as load:
        clients.open(20)
        lb.kill_supervisor()
        with tree.arm():
            lb.start()
            lb.admin.upgrade()
            lb.wait_for("upgraded")
            assert clients.ask() == []
            assert old < {w["pid"] for w in lb.status()["workers"]}
            load.wait_for(100)
        for pid in hanging(lb):
            os.kill(pid, signal.SIGKILL)
        assert clients.ask() == []
        clients.close()
        lb.wait_serving(3, but=list(old))
        load.expect_no_failure()
