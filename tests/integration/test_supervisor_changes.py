"""Reload, more and fewer workers, operators' wishes: nothing established is touched."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator

import pytest

from lbcore.admin.client import AdminError
from tests.support.lbcore_lab import (
    Lab,
    Load,
    echoes,
    eventually,
    first_line,
    free_port,
    running_lab,
)


@pytest.fixture
def lab() -> Iterator[Lab]:
    with running_lab() as lab:
        yield lab


def names(lab: Lab, port: int = 0, times: int = 6) -> set[str]:
    found = set()
    for _ in range(times):
        with lab.connect(port) as client:
            found.add(first_line(client))
    return found


def test_reload_adds_and_removes_backends_and_leaves_connections_alone(lab: Lab) -> None:
    one, two = lab.side.backend("one"), lab.side.backend("two")
    lab.write([one], workers=2)
    run = lab.start()
    before = lab.workers()
    old = lab.connect()
    assert first_line(old) == "one"
    lab.write([two], workers=2)
    lab.signal(signal.SIGHUP)
    run.wait_for("reloaded")
    assert names(lab) == {"two"}
    assert echoes(old)
    assert [w["pid"] for w in lab.workers()] == [w["pid"] for w in before]
    assert names(lab) == {"two"}
    old.close()


def test_reload_adds_and_removes_listeners(lab: Lab) -> None:
    one = lab.side.backend("one")
    second = free_port()
    path = lab.directory / "web.sock"
    lab.write([one], workers=2)
    lab.start()
    lab.write([one], workers=2, bind=[f"127.0.0.1:{second}", f"unix:{path}"])
    lab.client.reload()
    assert names(lab, second) == {"one"}
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        assert first_line(client) == "one"
    with pytest.raises(ConnectionRefusedError):
        lab.connect()
    lab.write([one], workers=2)
    lab.client.reload()
    assert names(lab) == {"one"}
    with pytest.raises(ConnectionRefusedError):
        lab.connect(second)
    assert not path.exists()


def test_reload_of_a_bad_file_reports_every_problem_and_changes_nothing(lab: Lab) -> None:
    one = lab.side.backend("one")
    lab.write([one])
    run = lab.start()
    lab.write([one], pool='balance = "sideways"\nweigth = 3')
    lab.signal(signal.SIGHUP)
    run.wait_for("config.problem", count=2)
    run.wait_for("reload.failed")
    with pytest.raises(AdminError) as refused:
        lab.client.reload()
    assert len(refused.value.problems) == 2
    done = lab.command("reload", check=False)
    assert done.returncode == 2
    assert "sideways" in done.stderr
    assert lab.client.status()["plan"]["version"] == 1
    assert names(lab) == {"one"}


def test_reload_that_cannot_bind_changes_nothing(lab: Lab) -> None:
    one, two = lab.side.backend("one"), lab.side.backend("two")
    lab.write([one])
    lab.start()
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        extra = free_port()
        lab.write([two], bind=[f"127.0.0.1:{extra}", f"127.0.0.1:{taken}"])
        with pytest.raises(AdminError) as refused:
            lab.client.reload()
    assert str(taken) in str(refused.value.problems)
    assert names(lab) == {"one"}
    with pytest.raises(ConnectionRefusedError):
        lab.connect(extra)


def test_reload_that_cannot_resolve_changes_nothing(lab: Lab) -> None:
    one = lab.side.backend("one")
    lab.write([one])
    lab.start()
    lab.write(["no-such-host.invalid:80"])
    with pytest.raises(AdminError, match="no-such-host"):
        lab.client.reload()
    assert names(lab) == {"one"}


def test_reloads_under_load_fail_no_connection(lab: Lab) -> None:
    backends = [lab.side.backend(name) for name in ("one", "two", "three")]
    lab.write(backends, workers=2)
    lab.start()
    pids = [w["pid"] for w in lab.workers()]
    load = Load(lab)
    for turn in range(30):
        lab.write(backends[: 1 + turn % 3], workers=2)
        lab.client.reload()
    load.stop()
    assert load.failures == []
    assert load.done > 100
    assert [w["pid"] for w in lab.workers()] == pids


def test_workers_from_one_to_four_and_back_under_load_fail_no_connection(lab: Lab) -> None:
    lab.write([lab.side.backend("one")])
    lab.start()
    load = Load(lab, clients=16)
    for count in (4, 1, 3, 2, 4, 1):
        lab.client.workers(count)
        assert len(lab.workers()) == count
    load.stop()
    assert load.failures == []
    assert load.done > 100


def test_clients_that_have_said_nothing_yet_outlive_a_shrink(lab: Lab) -> None:
    lab.write([lab.side.backend("one")], workers=2)
    text = lab.config.read_text().replace('pool = "main"', 'pool = "main"\ndefer_accept = "3s"', 1)
    lab.config.write_text(text)
    lab.start()
    clients = [lab.connect() for _ in range(16)]
    lab.client.workers(1)
    for client in clients:
        client.sendall(b"x")
    for client in clients:
        assert first_line(client) == "one"
        assert client.recv(1) == b"x"
        client.close()


def test_long_lived_connections_outlive_a_shrink(lab: Lab) -> None:
    lab.write([lab.side.backend("one")], workers=3)
    lab.start()
    clients = [lab.connect() for _ in range(12)]
    for client in clients:
        assert first_line(client) == "one"
    lab.client.workers(1)
    for client in clients:
        assert echoes(client)
        client.close()


def test_ttin_and_ttou_change_the_number_of_workers_by_one(lab: Lab) -> None:
    lab.write([lab.side.backend("one")])
    run = lab.start()
    lab.signal(signal.SIGTTIN)
    assert run.wait_for("resized")["workers"] == 2
    lab.signal(signal.SIGTTOU)
    assert run.wait_for("resized", count=2)["workers"] == 1
    lab.signal(signal.SIGTTOU)
    run.wait_for("resize.failed")
    assert names(lab) == {"one"}


def test_worker_count_follows_the_file_only_when_the_file_says_something_new(lab: Lab) -> None:
    one = lab.side.backend("one")
    lab.write([one], workers=1)
    lab.start()
    lab.command("workers", "2")
    lab.client.reload()
    assert len(lab.workers()) == 2
    lab.write([one], workers=3)
    lab.client.reload()
    assert len(lab.workers()) == 3


def test_reload_says_what_needs_a_restart_for_as_long_as_it_is_not_in_force(lab: Lab) -> None:
    one = lab.side.backend("one")
    others = [f'pid_file = "{lab.directory}/{name}.pid"' for name in ("first", "second")]
    lab.write([one], lbcore=others[0])
    lab.start()
    assert lab.client.reload()["needs_restart"] == []
    lab.write([one], lbcore=others[1])
    for _ in range(2):
        assert lab.client.reload()["needs_restart"] == ["pid_file"]
    lab.command("upgrade")
    assert lab.client.reload()["needs_restart"] == ["pid_file"]
    lab.write([one], lbcore=others[0])
    assert lab.client.reload()["needs_restart"] == []
    text = lab.config.read_text()
    lab.config.write_text(text.replace("admin.sock", "another.sock"))
    assert lab.client.reload()["needs_restart"] == ["admin"]
    lab.config.write_text(text)
    assert lab.client.reload()["needs_restart"] == []
    assert len(lab.run.logged("reload.needs_restart")) == 4


def test_drain_takes_a_backend_out_and_outlives_a_reload(lab: Lab) -> None:
    one, two = lab.side.backend("one"), lab.side.backend("two")
    lab.write([one, two])
    lab.start()
    clients = [lab.connect() for _ in range(2)]
    assert {first_line(client) for client in clients} == {"one", "two"}
    lab.command("drain", f"main/{one}")
    assert names(lab) == {"two"}
    assert all(echoes(client) for client in clients)
    lab.client.reload()
    assert names(lab) == {"two"}
    assert lab.backend(one)["draining"]
    lab.command("undrain", f"main/{one}")
    assert names(lab) == {"one", "two"}
    for client in clients:
        client.close()


@pytest.mark.parametrize("balance", ["round_robin", "consistent"])
def test_weight_replaces_the_configured_one_and_outlives_a_reload(lab: Lab, balance: str) -> None:
    one, two = lab.side.backend("one"), lab.side.backend("two")
    lab.write([one, two], pool=f'balance = "{balance}"')
    lab.start()
    lab.command("weight", f"main/{one}", "0")
    assert names(lab) == {"two"}
    lab.client.reload()
    assert names(lab) == {"two"}
    shown = lab.backend(one)
    assert (shown["weight"], shown["weight_configured"], shown["weight_overridden"]) == (0, 1, True)
    refused = lab.command("weight", f"main/{two}", "0", check=False)
    assert refused.returncode != 0 and "has weight 0" in refused.stderr    # as in a file
    assert names(lab) == {"two"}
    lab.command("weight", f"main/{one}", "default")
    lab.command("weight", f"main/{two}", "0")
    assert names(lab) == {"one"}


def test_counters_of_a_backend_go_on_over_reloads(lab: Lab) -> None:
    one, two = lab.side.backend("one"), lab.side.backend("two")
    lab.write([one])
    lab.start()
    names(lab, times=5)
    lab.write([two, one])
    lab.client.reload()
    assert lab.backend(one)["connections"] == 5
    assert lab.backend(two)["connections"] == 0


def test_count_in_flight_falls_to_zero_when_connections_end(lab: Lab) -> None:
    one = lab.side.backend("one")
    lab.write([one], workers=2)
    lab.start()
    clients = [lab.connect() for _ in range(5)]
    for client in clients:
        first_line(client)
    assert lab.backend(one)["inflight"] == 5
    for client in clients:
        client.close()
    eventually(lambda: lab.backend(one)["inflight"] == 0)


def test_unknown_names_are_answered_with_those_that_exist(lab: Lab) -> None:
    one = lab.side.backend("one")
    lab.write([one])
    lab.start()
    done = lab.command("drain", "main/nobody", check=False)
    assert done.returncode == 1
    assert one in done.stderr
    done = lab.command("drain", "nowhere/nobody", check=False)
    assert "main" in done.stderr
    assert lab.command("drain", "nobody", check=False).returncode == 2


def test_commands_say_so_when_nothing_runs(lab: Lab) -> None:
    lab.write(["127.0.0.1:1"])
    for words in (["status"], ["reload"], ["stop"], ["upgrade"]):
        done = lab.command(*words, check=False)
        assert done.returncode == 1
        assert str(lab.admin) in done.stderr
