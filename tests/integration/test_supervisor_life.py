"""Starting, ending, and what keeps an instance from starting."""

from __future__ import annotations

import os
import pwd
import signal
import socket
import stat
from collections.abc import Iterator

import psutil
import pytest

from tests.support.lbcore_lab import Lab, echoes, eventually, first_line, running_lab


@pytest.fixture
def lab() -> Iterator[Lab]:
    with running_lab() as lab:
        yield lab


def test_serves_what_the_file_says_and_leaves_nothing_behind(lab: Lab) -> None:
    pid_file = lab.directory / "lb.pid"
    lab.write([lab.side.backend("one")], workers=2, lbcore=f'pid_file = "{pid_file}"')
    run = lab.start()
    with lab.connect() as client:
        assert first_line(client) == "one"
        assert echoes(client)
    assert pid_file.read_text().strip() == str(run.pid)
    assert len(lab.workers()) == 2
    assert lab.stop() == 0
    assert sorted(path.name for path in lab.directory.iterdir()) == ["lb.toml"]
    assert not lab.processes()


def test_second_start_on_the_same_admin_address_names_the_pid_of_the_first(lab: Lab) -> None:
    lab.write([lab.side.backend("one")])
    first = lab.start()
    second = lab.start(wait=False)
    assert second.wait() == 1
    assert f"pid {first.pid}" in second.output()
    with lab.connect() as client:
        assert first_line(client) == "one"
    lab.runs.remove(second)


def test_port_in_use_says_by_whom_and_ends_with_2(lab: Lab) -> None:
    lab.write([lab.side.backend("one")])
    with socket.socket() as other:
        # Even one that would share the port: it would get a part of the connections.
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", lab.port))
        other.listen()
        run = lab.start(wait=False)
        assert run.wait() == 2
    assert f"pid {os.getpid()}" in run.output()
    assert f"{lab.config}:" in run.output()
    assert not lab.processes()


def test_every_problem_of_a_bad_file_is_printed_and_the_exit_code_is_2(lab: Lab) -> None:
    lab.write(["127.0.0.1:1"], lbcore="drain_timeout = 'soon'\ncolour = 'red'")
    run = lab.start(wait=False)
    assert run.wait() == 2
    assert "drain_timeout" in run.output()
    assert "colour" in run.output()


def test_backend_name_without_address_is_refused_with_the_name(lab: Lab) -> None:
    lab.write(["no-such-host.invalid:80"])
    run = lab.start(wait=False)
    assert run.wait() == 2
    assert "no-such-host.invalid" in run.output()


def test_drain_lets_established_connections_finish_and_refuses_new_ones(lab: Lab) -> None:
    lab.write([lab.side.backend("one")], workers=2)
    run = lab.start()
    client = lab.connect()
    assert first_line(client) == "one"
    lab.signal(signal.SIGTERM)
    run.wait_for("worker.draining", count=2)
    eventually(lambda: _refused(lab.port))
    assert echoes(client)
    client.close()
    assert run.wait() == 0


def test_second_term_ends_at_once(lab: Lab) -> None:
    lab.write([lab.side.backend("one")])
    run = lab.start()
    with lab.connect() as client:
        assert first_line(client) == "one"
        lab.signal(signal.SIGTERM)
        run.wait_for("worker.draining")
        lab.signal(signal.SIGTERM)
        assert run.wait() == 0
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_drain_ends_after_its_timeout_whoever_is_still_connected(lab: Lab) -> None:
    lab.write([lab.side.backend("one")], lbcore='drain_timeout = "300ms"')
    run = lab.start()
    with lab.connect() as client:
        assert first_line(client) == "one"
        lab.signal(signal.SIGTERM)
        assert run.wait() == 0


def test_unix_listener_has_its_mode_replaces_a_stale_file_and_is_removed(lab: Lab) -> None:
    path = lab.directory / "web.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    lab.write([lab.side.backend("one")], workers=2, bind=[f"unix:{path}"])
    lab.config.write_text(lab.config.read_text().replace(
        'name = "main"', 'name = "main"\nunix_mode = "0600"', 1))
    lab.start()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        assert first_line(client) == "one"
    lab.stop()
    assert not path.exists()


def test_log_file_is_reopened_under_its_name_on_usr1(lab: Lab) -> None:
    path = lab.directory / "lb.log"
    lab.write([lab.side.backend("one")])
    lab.config.write_text(lab.config.read_text().replace(
        'format = "json"', f'format = "json"\npath = "{path}"'))
    lab.start(wait=False)
    eventually(lambda: path.exists() and '"started"' in path.read_text())
    path.rename(path.with_suffix(".1"))
    lab.signal(signal.SIGUSR1)
    eventually(lambda: path.exists() and "log.reopened" in path.read_text())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_workers_run_as_the_configured_user(lab: Lab) -> None:
    lab.write([lab.side.backend("one")], lbcore='user = "nobody"')
    run = lab.start()
    worker = psutil.Process(lab.workers()[0]["pid"])
    assert worker.uids().real == pwd.getpwnam("nobody").pw_uid
    assert psutil.Process(run.pid).uids().real == 0
    with lab.connect() as client:
        assert first_line(client) == "one"


def test_demonstration_backends_answer_come_back_and_end_with_lbcore(lab: Lab) -> None:
    lab.write(pool="demo = 2", more='[pool.main.health]\ntype = "http"\n')
    run = lab.start()
    eventually(lambda: f"curl http://127.0.0.1:{lab.port}/" in run.output())
    answers = {_get(lab.port) for _ in range(4)}
    assert len(answers) == 2
    killed = run.wait_for("demo.started", backend="demo-1")["pid"]
    os.kill(killed, signal.SIGKILL)
    run.wait_for("demo.started", count=2, backend="demo-1")
    assert len({_get(lab.port) for _ in range(4)}) == 2
    assert lab.stop() == 0
    assert not lab.processes()


def _get(port: int) -> str:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = b""
        while part := client.recv(4096):
            answer += part
    head = answer.decode().split("\r\n\r\n", maxsplit=1)[0]
    assert head.startswith("HTTP/1.1 200")
    return next(line for line in head.split("\r\n") if line.startswith("X-Backend"))


def _refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False
