"""The supervisor dies just as listening sockets come into being.

What is queued in a listening socket dies with the last process that holds it. So nobody may be
queued in one that only the supervisor holds; it is stopped on either side of that moment, left
standing while clients come, and killed.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.echo import Backends
from tests.support.faults import times
from tests.support.instance import Instance, free_port, instance
from tests.support.load import Load
from tests.support.tree import Tree, wait_stopped

# Lines of the code that brings sockets to a worker, in their order.
BEFORE = "worker.give(sockets, self.table.label)"        # nobody but the supervisor has them
BETWEEN = "await worker.apply("                          # a worker holds them and has no plan
AFTER = "with suppress(OSError):      # the worker meets it too"    # it will serve them
MOMENTS = [BEFORE, BETWEEN, AFTER]


@pytest.fixture(params=MOMENTS, ids=["before", "between", "after"])
def moment(request: pytest.FixtureRequest) -> str:
    """Where the supervisor stands still."""
    return str(request.param)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Where the instance of this test comes from."""
    return Tree(tmp_path)


@pytest.fixture
def lb(tree: Tree, backends: Backends) -> Iterator[Instance]:
    """An instance with one worker, not started yet."""
    with instance(tree.root) as made:
        made.pool["backends"] = backends.echo(2)
        made.write()
        yield made


def when(moment: str, slot: int) -> str:
    """The moment is that of this slot or one above it."""
    return f"sockets[-1].slot >= {slot}" if moment is AFTER else f"worker.slot >= {slot}"


def test_supervisor_killed_as_a_new_worker_gets_its_sockets_fails_no_connection(
    tree: Tree, lb: Instance, moment: str,
) -> None:
    tree.stop_before("supervisor/fleet.py", moment, when(moment, 1))
    lb.start()
    with Load(lb.address) as load:
        with tree.arm():
            lb.signal(signal.SIGTTIN)
            wait_stopped(lb)
            load.wait_for(200)
            lb.kill_supervisor()
        load.wait_for(100)
        lb.start()
        lb.wait_serving(1)
        load.expect_no_failure()


def test_supervisor_killed_as_it_takes_over_with_more_workers_fails_no_connection(
    tree: Tree, lb: Instance, moment: str,
) -> None:
    tree.stop_before("supervisor/fleet.py", moment, when(moment, 1))
    lb.start()
    old = lb.serving()[0]["pid"]
    with Load(lb.address) as load:
        lb.kill_supervisor()
        lb.file["lbcore"]["workers"] = 3
        lb.write()
        with tree.arm():
            lb.start(wait=False)
            wait_stopped(lb)
            load.wait_for(200)
            lb.kill_supervisor()
        load.wait_for(100)
        lb.start()
        lb.wait_serving(3, but=[old])
        load.expect_no_failure()


@pytest.mark.parametrize("kind", ["tcp", "unix"][: times(2, 2)])
def test_supervisor_killed_as_a_reload_adds_an_address_leaves_nobody_waiting_there(
    tree: Tree, lb: Instance, moment: str, kind: str,
) -> None:
    """Whoever is not refused is served, although nobody is left to see to it."""
    tree.stop_before("supervisor/fleet.py", moment)
    lb.start()
    port, path = free_port(), str(lb.directory / "other.sock")
    bind = f"127.0.0.1:{port}" if kind == "tcp" else f"unix:{path}"
    lb.file["listener"].append({"name": "other", "bind": bind, "pool": "main"})
    lb.write()

    def ask() -> bytes:
        with socket.socket(socket.AF_INET if kind == "tcp" else socket.AF_UNIX) as client:
            client.settimeout(60)
            client.connect(("127.0.0.1", port) if kind == "tcp" else path)
            client.sendall(b"hello")
            return client.recv(5, socket.MSG_WAITALL)

    with Load(lb.address) as load:
        with tree.arm():
            lb.signal(signal.SIGHUP)
            wait_stopped(lb)
            if moment is not AFTER:
                with pytest.raises(ConnectionRefusedError):
                    ask()
            lb.kill_supervisor()
        load.wait_for(50)
        if moment is AFTER:
            assert ask() == b"hello"
        lb.start()
        assert ask() == b"hello"
        load.expect_no_failure()


def test_nobody_is_queued_before_the_first_worker_is_there(tree: Tree, lb: Instance) -> None:
    """A refused client knows at once; one that is queued would be reset by a failed start."""
    tree.stop_before("supervisor/fleet.py", BEFORE)
    with tree.arm():
        lb.start(wait=False)
        wait_stopped(lb)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(lb.address, 5)
    lb.signal(signal.SIGCONT)
    lb.wait_for("started")
    socket.create_connection(lb.address, 5).close()
