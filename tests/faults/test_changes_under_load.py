"""What an operator does to a running instance, while connections come all the time."""

from __future__ import annotations

import os
import signal
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lbcore.admin.client import AdminError
from tests.support.echo import Backends
from tests.support.faults import times
from tests.support.instance import Instance, instance, resident, until
from tests.support.load import Load, LongLived
from tests.support.tree import Tree

MIB = 1 << 20


def reload_every_100_ms(lb: Instance, backends: Backends, count: int) -> None:
    """So many reloads, each of a file that differs from the one before in what it balances."""
    first, second, third = [*lb.pool["backends"], *backends.echo(1)]
    shapes = ([first, second], [first, second, third], [third],
              [{"address": first, "weight": 3}, {"address": third}])
    begin = time.monotonic()
    for number in range(count):
        lb.pool["backends"] = shapes[number % len(shapes)]
        lb.pool["balance"] = ("round_robin", "least_conn", "consistent")[number % 3]
        lb.write()
        if number % 2:
            lb.signal(signal.SIGHUP)
            lb.wait_for("reloaded", number + 1)
        else:
            lb.admin.reload()
        time.sleep(max(0.0, begin + 0.1 * (number + 1) - time.monotonic()))   # the pace itself
    assert len(lb.events("reloaded")) == count


def test_reloads_fail_no_connection(lb: Instance, backends: Backends) -> None:
    lb.file["lbcore"]["workers"] = 2
    lb.write()
    lb.start()
    before = lb.processes()
    with Load(lb.address) as load:
        reload_every_100_ms(lb, backends, times(200, 30))
        load.expect_no_failure()
    assert lb.processes() == before
    assert not lb.events("worker.plan_failed")


def test_listener_that_comes_and_goes_with_reloads_fails_no_connection_of_its_neighbour(
    lb: Instance,
) -> None:
    lb.file["lbcore"]["workers"] = 2
    lb.write()
    lb.start()
    other = lb.directory / "other.sock"
    extra = {"name": "other", "bind": f"unix:{other}", "pool": "main"}
    with Load(lb.address) as load:
        for _ in range(times(20, 4)):
            lb.file["listener"].append(extra)
            lb.write()
            lb.admin.reload()
            assert other.is_socket()
            lb.file["listener"].remove(extra)
            lb.write()
            lb.admin.reload()
            assert not other.exists()
        load.expect_no_failure()


def test_upgrades_fail_no_connection(lb: Instance) -> None:
    lb.file["lbcore"]["workers"] = 2
    lb.write()
    lb.start()
    count = times(10, 2)
    with Load(lb.address) as load:
        for number in range(count):
            old = [worker["pid"] for worker in lb.serving()]
            if number % 2:
                lb.signal(signal.SIGUSR2)
            else:
                lb.admin.upgrade()
            lb.wait_for("upgraded", generation=number + 2)
            lb.wait_serving(2, but=old)
        load.expect_no_failure()
    assert lb.status()["upgrade"]["state"] == "done"
    assert len(lb.processes()) == 3


def test_workers_from_one_to_four_and_back_fail_no_connection(lb: Instance) -> None:
    lb.write()
    lb.start()
    with Load(lb.address) as load:
        for _ in range(times(5, 1)):
            for count in (4, 1):
                lb.admin.workers(count)
                lb.wait_serving(count)
        load.expect_no_failure()
    assert len(lb.processes()) == 2


def waits(pid: int, signum: signal.Signals) -> bool:
    """Whether a process has not taken a signal yet."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    pending = next(line.split()[1] for line in lines if line.startswith("ShdPnd:"))
    return bool(int(pending, 16) >> (signum - 1) & 1)


def test_signals_for_more_and_fewer_workers_count_though_they_come_faster_than_workers(
    lb: Instance,
) -> None:
    lb.write()
    lb.start()
    with Load(lb.address) as load:
        for signum in [signal.SIGTTIN] * 3 + [signal.SIGTTOU] * 2:
            lb.signal(signum)
            # The kernel makes one of two that come at once.
            until(lambda sent=signum: not waits(lb.pid, sent), "it was taken")
        lb.wait_for("resized", 5)
        assert [event["workers"] for event in lb.events("resized")] == [2, 3, 4, 3, 2]
        lb.wait_serving(2)
        load.expect_no_failure()
    assert not lb.events("resize.failed")


def test_long_lived_connections_outlive_20_reloads_in_the_same_processes_and_memory(
    lb: Instance, backends: Backends,
) -> None:
    lb.file["lbcore"]["workers"] = 2
    lb.write()
    lb.start()
    before = lb.processes()
    # AddressSanitizer keeps what Python gives back, to see whether it is used again.
    keeping = {lb.pid} if os.environ.get("LBCORE_SANITIZE") else set()
    three = [*lb.pool["backends"], *backends.echo(1)]
    with LongLived(lb.address) as clients, Load(lb.address) as load:
        for number in range(20):
            clients.open(20)
            lb.pool["backends"] = three[: 2 + number % 2]
            lb.write()
            lb.admin.reload()
            if number == 1:      # everything has been used once
                memory = {pid: resident(pid) for pid in before}
        assert len(clients.socks) == 400
        assert clients.ask() == []
        assert lb.processes() == before
        grown = {pid: resident(pid) - memory[pid] for pid in before if pid not in keeping}
        assert max(grown.values()) < 2 * MIB, grown
        load.expect_no_failure()
        assert clients.ask() == []


def test_bad_file_at_reload_leaves_everything_as_it_is(lb: Instance) -> None:
    lb.write()
    lb.start()
    before, version = lb.processes(), lb.status()["plan"]["version"]
    bad = ("", "\0\1\2", "[[listener]]", "workers = = 3",
           lb.config.read_text().replace('pool = "main"', 'pool = "nobody"'),
           lb.config.read_text().replace(f":{lb.port}", f":{lb.port}0"))
    with LongLived(lb.address) as clients, Load(lb.address) as load:
        clients.open(5)
        for number, text in enumerate(bad):
            lb.write(text)
            with pytest.raises(AdminError):
                lb.admin.reload()
            lb.signal(signal.SIGHUP)
            lb.wait_for("reload.failed", number + 1)
        lb.config.unlink()
        with pytest.raises(AdminError):
            lb.admin.reload()
        assert lb.status()["plan"]["version"] == version
        assert clients.ask() == []
        lb.write()
        lb.admin.reload()
        assert lb.status()["plan"]["version"] == version + 1
        assert clients.ask() == []
        load.expect_no_failure()
    assert lb.processes() == before


# ---- upgrades that fail ------------------------------------------------------------------------

@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Where the instance of this test comes from."""
    return Tree(tmp_path)


@pytest.fixture
def upgradable(tree: Tree, backends: Backends) -> Iterator[Instance]:
    """A running instance with two workers, of a version that can be exchanged."""
    with instance(tree.root) as lb:
        lb.file["lbcore"]["workers"] = 2
        lb.pool["backends"] = backends.echo(2)
        lb.write()
        lb.start()
        yield lb


def test_upgrade_to_code_that_does_not_start_is_refused_and_changes_nothing(
    tree: Tree, upgradable: Instance,
) -> None:
    lb = upgradable
    before = lb.processes()
    with LongLived(lb.address) as clients, Load(lb.address) as load:
        clients.open(5)
        for module in ("worker.py", "supervisor/supervisor.py", "config/models.py"):
            tree.replace(module, "from __future__", "raise OSError('broken')\nfrom __future__")
            with pytest.raises(AdminError, match="does not start"):
                lb.admin.upgrade()
            tree.replace(module, "raise OSError('broken')\n", "")
        assert lb.processes() == before
        assert lb.status()["generation"] == 1
        assert clients.ask() == []
        load.expect_no_failure()


def test_upgrade_whose_workers_do_not_take_over_leaves_the_old_ones_serving(
    tree: Tree, upgradable: Instance,
) -> None:
    """Its supervisor starts, and so does a worker as long as it is given nothing to listen on."""
    lb = upgradable
    old = sorted(worker["pid"] for worker in lb.serving())
    working, broken = "if len(entries) != len(descriptors):", "if True:"
    with LongLived(lb.address) as clients, Load(lb.address) as load:
        clients.open(5)
        tree.replace("worker.py", working, broken)
        lb.admin.upgrade()
        lb.wait_for("upgrade.failed")
        until(lambda: lb.status()["upgrade"]["state"] == "failed", "the upgrade's failure")
        assert sorted(worker["pid"] for worker in lb.wait_serving(2)) == old
        assert clients.ask() == []
        tree.replace("worker.py", broken, working)
        lb.admin.upgrade()
        lb.wait_for("upgraded")
        assert clients.ask() == []
        clients.close()
        lb.wait_serving(2, but=old)
        load.expect_no_failure()


def test_upgrade_that_cannot_read_what_it_is_left_takes_over_from_the_workers(
    tree: Tree, upgradable: Instance,
) -> None:
    lb = upgradable
    old = [worker["pid"] for worker in lb.serving()]
    with LongLived(lb.address) as clients, Load(lb.address) as load:
        clients.open(5)
        tree.replace("supervisor/upgrade.py", "SCHEMA = 1", "SCHEMA = 2")
        lb.admin.upgrade()
        lb.wait_for("upgrade.state_unreadable")
        lb.wait_for("started", 2)
        assert clients.ask() == []
        clients.close()
        lb.wait_serving(2, but=old)
        load.expect_no_failure()


# ---- an upgrade to another layout of the scoreboard ----------------------------------------------

def change_layout(lb: Instance) -> None:
    """Makes the scoreboard one that the next version cannot read; who has mapped it goes on."""
    (board,) = [path for path in Path(f"/proc/{lb.pid}/fd").iterdir()
                if "scoreboard" in str(path.readlink())]
    with board.open("r+b") as file:
        magic, layout = struct.unpack("=QI", file.read(12))
        file.seek(0)
        file.write(struct.pack("=QI", magic, layout + 1))


def test_upgrade_to_another_layout_of_the_scoreboard_fails_no_connection(lb: Instance) -> None:
    lb.file["lbcore"].update(workers=2, hang_timeout="2s")
    lb.write()
    lb.start()
    old = [worker["pid"] for worker in lb.serving()]
    with LongLived(lb.address) as clients, Load(lb.address) as load:
        clients.open(10)
        change_layout(lb)
        lb.admin.upgrade()
        lb.wait_for("upgrade.new_scoreboard")
        lb.wait_for("upgraded")
        assert clients.ask() == []
        lb.admin.reload()
        lb.admin.workers(3)
        lb.admin.upgrade()
        lb.wait_for("upgraded", 2)
        assert clients.ask() == []
        clients.close()
        lb.wait_serving(3, but=old)
        load.wait_for(100)
        load.expect_no_failure()
    assert len(lb.events("upgrade.new_scoreboard")) == 1
    assert not lb.events("worker.hung")


def test_old_workers_left_by_an_upgrade_to_another_layout_are_replaced_at_the_next_reload(
    tree: Tree, upgradable: Instance, backends: Backends,
) -> None:
    """They cannot be told a new plan, whose rows are in a scoreboard that they do not see."""
    lb = upgradable
    old = [worker["pid"] for worker in lb.serving()]
    working, broken = "if len(entries) != len(descriptors):", "if True:"
    with LongLived(lb.address) as clients, Load(lb.address) as load:
        clients.open(5)
        tree.replace("worker.py", working, broken)
        change_layout(lb)
        lb.admin.upgrade()
        lb.wait_for("upgrade.failed")
        tree.replace("worker.py", broken, working)
        assert [worker["pid"] for worker in lb.wait_serving(2)] == old
        lb.pool["backends"] = backends.echo(1)
        lb.write()
        lb.admin.reload()
        assert clients.ask() == []
        clients.close()
        lb.wait_serving(2, but=old)
        load.wait_for(100)
        load.expect_no_failure()
    until(lambda: lb.backend(lb.pool["backends"][0])["inflight"] == 0, "the new plan is served")
