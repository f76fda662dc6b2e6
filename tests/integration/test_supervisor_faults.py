"""Killed workers, hung workers, a killed supervisor, upgrades: what clients notice."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from lbcore.admin.calls import AdminError
from tests.support.lbcore_lab import Lab, Load, echoes, eventually, first_line, running_lab


@pytest.fixture
def lab() -> Iterator[Lab]:
    with running_lab() as lab:
        yield lab


def connected(lab: Lab, count: int) -> list[socket.socket]:
    clients = [lab.connect() for _ in range(count)]
    for client in clients:
        assert first_line(client) == "one"
    return clients


def test_killed_worker_loses_only_its_own_connections_and_refuses_none(lab: Lab) -> None:
    lab.write([lab.side.backend("one")], workers=2)
    run = lab.start()
    clients = connected(lab, 10)
    victim = max(lab.workers(), key=lambda worker: int(worker["connections"]))
    os.kill(victim["pid"], signal.SIGKILL)
    # At once, most likely before the replacement: the slot's queue keeps what arrives.
    late = connected(lab, 10)
    run.wait_for("worker.died", pid=victim["pid"])
    alive = sum(_alive(client) for client in clients)
    assert alive == len(clients) - victim["connections"]
    eventually(lambda: len(lab.workers()) == 2)
    assert all(echoes(client) for client in late)
    backend = lab.client.status()["pools"][0]["backends"][0]
    eventually(lambda: lab.backend(backend["name"])["inflight"] == alive + len(late))
    for client in [*clients, *late]:
        client.close()


def test_hung_worker_is_killed_and_replaced(lab: Lab) -> None:
    lab.write([lab.side.backend("one")], lbcore='hang_timeout = "2s"')
    run = lab.start()
    stopped = lab.workers()[0]["pid"]
    os.kill(stopped, signal.SIGSTOP)
    run.wait_for("worker.hung", pid=stopped)
    with lab.connect() as client:        # it waited in the slot's queue
        assert first_line(client) == "one"
    assert lab.workers()[0]["pid"] != stopped


def test_traffic_goes_on_without_supervisor_and_a_new_one_takes_over(lab: Lab) -> None:
    lab.write([lab.side.backend("one")], workers=2)
    first = lab.start()
    old = {worker["pid"] for worker in lab.workers()}
    load = Load(lab)
    clients = connected(lab, 4)
    first.process.kill()
    first.process.wait()
    clients += connected(lab, 4)
    second = lab.start()
    second.wait_for("takeover.adopted", count=2)
    second.wait_for("worker.draining", count=2)
    clients += connected(lab, 4)
    load.stop()
    assert load.failures == []
    assert load.done > 50
    new = {worker["pid"] for worker in lab.workers()}
    assert len(new) == 2
    assert not new & old
    assert all(echoes(client) for client in clients)
    for client in clients:
        client.close()
    eventually(lambda: not any(psutil.pid_exists(pid) for pid in old))
    assert lab.stop() == 0
    assert sorted(path.name for path in lab.directory.iterdir()) == ["lb.toml"]


def test_takeover_with_another_plan_serves_that_plan(lab: Lab) -> None:
    path = lab.directory / "web.sock"
    one = lab.side.backend("one")
    lab.write([one], workers=3, bind=[f"127.0.0.1:{lab.port}", f"unix:{path}"])
    first = lab.start()
    first.process.kill()
    first.process.wait()
    lab.write([lab.side.backend("two")], workers=1)
    second = lab.start()
    second.wait_for("worker.draining", count=3)
    eventually(lambda: len(lab.client.status()["workers"]) == 1)
    for _ in range(6):
        with lab.connect() as client:
            assert first_line(client) == "two"
    assert not path.exists()


def test_takeover_after_a_worker_died_too_loses_nothing_later(lab: Lab) -> None:
    """Its sockets went with it, so the kernel's order of the group is not known any more."""
    lab.write([lab.side.backend("one")], workers=3)
    first = lab.start()
    first.process.kill()
    first.process.wait()
    dead = [p for p in lab.processes() if "--slot=1" in p.cmdline()]
    assert len(dead) == 1
    dead[0].kill()
    psutil.wait_procs(dead, timeout=60)
    second = lab.start()
    second.wait_for("worker.draining", count=2)
    load = Load(lab)
    for count in (1, 3, 2):
        lab.client.workers(count)
    load.stop()
    assert load.failures == []


def test_failed_takeover_leaves_the_old_workers_serving(lab: Lab) -> None:
    lab.write([lab.side.backend("one")], workers=2)
    first = lab.start()
    first.process.kill()
    first.process.wait()
    lab.write(["no-such-host.invalid:80"], workers=2)
    second = lab.start(wait=False)
    assert second.wait() == 2
    for client in connected(lab, 6):
        client.close()
    lab.write([lab.side.backend("two")], workers=2)
    lab.start().wait_for("worker.draining", count=2)
    eventually(lambda: len(lab.client.status()["workers"]) == 2)
    with lab.connect() as client:
        assert first_line(client) == "two"


def test_hung_worker_of_a_killed_supervisor_is_ended_at_takeover(lab: Lab) -> None:
    lab.write([lab.side.backend("one")], workers=2)
    first = lab.start()
    pids = [worker["pid"] for worker in lab.workers()]
    os.kill(pids[0], signal.SIGSTOP)
    first.process.kill()
    first.process.wait()
    second = lab.start()
    assert second.wait_for("takeover.hung")["pid"] == [pids[0]]
    for client in connected(lab, 10):
        client.close()


def test_upgrade_whose_state_cannot_be_read_takes_over_as_after_a_crash(lab: Lab) -> None:
    lab.write([lab.side.backend("one")], workers=2)
    first = lab.start()
    load = Load(lab)
    first.process.kill()
    first.process.wait()
    state = os.memfd_create("state", 0)
    os.write(state, b'{"schema": 99}')
    os.lseek(state, 0, os.SEEK_SET)
    os.set_inheritable(state, True)
    second = lab.start(resume=state)
    os.close(state)
    second.wait_for("upgrade.state_unreadable")
    second.wait_for("takeover.adopted", count=2)
    second.wait_for("worker.draining", count=2)
    load.stop()
    assert load.failures == []


def test_upgrade_replaces_workers_and_supervisor_and_fails_no_connection(lab: Lab) -> None:
    one = lab.side.backend("one")
    lab.write([one, lab.side.backend("two")], workers=2)
    run = lab.start()
    lab.client.weight("main", one, 7)
    lab.client.drain("main", one)
    old = {worker["pid"] for worker in lab.workers()}
    load = Load(lab)
    client = lab.connect()
    assert first_line(client) == "two"
    for generation in (2, 3):
        lab.command("upgrade")
        said = lab.client.status()
        assert (said["generation"], said["pid"]) == (generation, run.pid)
    load.stop()
    assert load.failures == []
    assert not {worker["pid"] for worker in lab.workers()} & old
    assert echoes(client)
    shown = lab.backend(one)
    assert (shown["weight"], shown["draining"]) == (7, True)
    client.close()
    assert lab.stop() == 0
    assert not lab.processes()


@pytest.mark.parametrize("edit", ["bad", "taken", "gone"])
def test_upgrade_keeps_the_configuration_in_force_whatever_the_file_says(
    lab: Lab, edit: str,
) -> None:
    one = lab.side.backend("one")
    lab.write([one], workers=2)
    run = lab.start()
    before = {worker["pid"] for worker in lab.workers()}
    client = lab.connect()
    assert first_line(client) == "one"
    with socket.create_server(("127.0.0.1", 0)) as somebody:
        taken = f"127.0.0.1:{somebody.getsockname()[1]}"
        if edit == "bad":
            lab.config.write_text("colour = 'red'")
        elif edit == "taken":
            lab.write([one], workers=2, bind=[f"127.0.0.1:{lab.port}", taken])
        else:
            lab.config.unlink()
        lab.command("upgrade", "--admin", f"unix:{lab.admin}")
        said = lab.client.status()
        assert (said["generation"], said["pid"]) == (2, run.pid)
        assert not {worker["pid"] for worker in lab.workers()} & before
        assert [listener["name"] for listener in said["listeners"]] == ["main"]
        assert echoes(client)
        lab.write([one], workers=2)
        lab.client.reload()
    client.close()
    assert lab.stop() == 0
    assert not lab.processes()


def test_state_that_cannot_be_read_costs_no_configuration(lab: Lab) -> None:
    lab.write([lab.side.backend("one")])
    first = lab.start()
    in_force = lab.config.read_text()
    first.process.kill()
    first.process.wait()
    lab.config.write_text("colour = 'red'")
    state = os.memfd_create("state", 0)
    os.write(state, json.dumps({"schema": 99, "config": in_force}).encode())
    os.lseek(state, 0, os.SEEK_SET)
    os.set_inheritable(state, True)
    second = lab.start(resume=state)
    os.close(state)
    assert second.logged("upgrade.state_unreadable")
    for client in connected(lab, 2):
        client.close()


def test_upgrade_runs_the_version_that_is_installed_by_then(lab: Lab) -> None:
    package = lab.install()
    lab.write([lab.side.backend("one")])
    lab.start()
    edit(package / "__init__.py", '__version__ = "', '__version__ = "9.')
    lab.command("upgrade")
    assert lab.client.status()["version"].startswith("9.")


@pytest.mark.parametrize("broken", ["worker.py", "supervisor/main.py", "health/monitor.py"])
def test_upgrade_to_code_that_does_not_start_is_refused_before_anything_changes(
    lab: Lab, broken: str,
) -> None:
    package = lab.install()
    lab.write([lab.side.backend("one")])
    lab.start()
    before = lab.workers()
    edit(package / broken, "from __future__ import annotations", "import no_such_module")
    done = lab.command("upgrade", check=False)
    assert done.returncode == 1
    assert "no_such_module" in done.stderr or "ended at once" in done.stderr
    said = lab.client.status()
    assert (said["generation"], said["upgrade"]["state"]) == (1, "none")
    assert [w["pid"] for w in lab.workers()] == [w["pid"] for w in before]
    for client in connected(lab, 2):
        client.close()


def test_old_worker_goes_on_in_a_slot_where_the_new_one_does_not_start(lab: Lab) -> None:
    package = lab.install()
    lab.write([lab.side.backend("one")], workers=2)
    lab.start()
    before = lab.workers()
    edit(package / "worker.py", "def main(", "if '--slot=1' in sys.argv: sys.exit(3)\ndef main(")
    load = Load(lab)
    done = lab.command("upgrade", check=False)
    assert done.returncode == 1
    assert "slot 1" in done.stderr
    after = lab.workers()
    assert after[0]["pid"] != before[0]["pid"]
    assert after[1]["pid"] == before[1]["pid"]
    lab.client.reload()
    edit(package / "worker.py", "if '--slot=1' in sys.argv", "if False")
    lab.command("upgrade")
    assert lab.workers()[1]["pid"] != before[1]["pid"]
    load.stop()
    assert load.failures == []


def test_reload_that_cannot_have_more_workers_says_so_and_what_is_in_force(lab: Lab) -> None:
    package = lab.install()
    lab.write([lab.side.backend("one")])
    lab.start()
    edit(package / "worker.py", "def main(", "if '--slot=1' in sys.argv: sys.exit(3)\ndef main(")
    lab.write([lab.side.backend("two")], workers=2)
    lab.config.write_text(lab.config.read_text().replace(
        "[log]\n", f'[log]\naccess = "{lab.directory}/no/such/place"\n'))
    for _ in range(2):       # and no file is better the second time
        done = lab.command("reload")
        assert "is in force" in done.stdout
        assert "could not be put into force: lbcore.workers: 1 go on, not 2: " in done.stdout
        assert "could not be put into force: log.access: " in done.stdout
        with lab.connect() as client:
            assert first_line(client) == "two"
        assert lab.client.status()["workers_wanted"] == 1
    assert not lab.run.logged("reload.failed")
    with pytest.raises(AdminError, match="cannot change the number of workers"):
        lab.client.workers(2)
    lab.command("drain", "main/" + lab.client.status()["pools"][0]["backends"][0]["name"])
    edit(package / "worker.py", "if '--slot=1' in sys.argv", "if False")
    assert lab.client.workers(None)["workers"] == 2
    lab.client.workers(1)
    assert lab.client.workers(None)["workers"] == 2
    assert len(lab.workers()) == 2


def test_worker_that_cannot_start_any_more_is_tried_ever_more_slowly(lab: Lab) -> None:
    package = lab.install()
    lab.write([lab.side.backend("one")], workers=2)
    run = lab.start()
    edit(package / "worker.py", "def main(", "if '--slot=1' in sys.argv: sys.exit(3)\ndef main(")
    os.kill(lab.workers()[1]["pid"], signal.SIGKILL)
    run.wait_for("worker.backoff", delay="0.2s")
    shown = [w for w in lab.client.status()["workers"] if w["slot"] == 1]
    assert shown[0]["state"] == "down"
    assert "exit code 3" in shown[0]["error"]
    edit(package / "worker.py", "if '--slot=1' in sys.argv", "if False")
    eventually(lambda: len(lab.workers()) == 2)


def test_reload_resize_and_upgrade_work_after_an_upgrade(lab: Lab) -> None:
    lab.write([lab.side.backend("one")], workers=2)
    lab.start()
    lab.command("upgrade")
    lab.client.workers(3)
    lab.write([lab.side.backend("two")], workers=2)
    lab.client.reload()
    lab.client.workers(1)
    for _ in range(4):
        with lab.connect() as client:
            assert first_line(client) == "two"
    victim = lab.workers()[0]["pid"]
    os.kill(victim, signal.SIGKILL)
    lab.run.wait_for("worker.died", pid=victim)
    with lab.connect() as client:
        assert first_line(client) == "two"
    lab.command("stop")
    assert lab.run.wait() == 0


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def _alive(client: socket.socket) -> bool:
    try:
        return echoes(client)
    except (ConnectionError, EOFError):
        return False
