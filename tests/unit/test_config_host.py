"""What this machine has against a plan, seen with real sockets on loopback."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from lbcore.config import Loaded, parse, to_plan
from lbcore.config.host import host_problems, host_warnings, is_lbcore, ports_in_use
from lbcore.config.problems import Problem
from lbcore.supervisor.settings import settings_of
from lbcore.supervisor.worker import Identity


def loaded(bind: str, directory: Path, extra: str = "") -> Loaded:
    text = f"""\
[admin]
listen = "unix:{directory}/admin.sock"
[lbcore]
{extra}
[[listener]]
name = "web"
bind = "{bind}"
pool = "web"
[pool.web]
demo = 1
"""
    return parse(text, "lb.toml")


def found(bind: str, directory: Path, ignore: set[int] | None = None) -> list[Problem]:
    config = loaded(bind, directory)
    return ports_in_use(to_plan(config.config), config.source, ignore or set())


def listening(address: str = "127.0.0.1", reuseport: bool = False) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family)
    if reuseport:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind((address, 0))
    sock.listen()
    return sock


def test_a_free_port_is_no_problem_and_stays_free(tmp_path: Path) -> None:
    with listening() as sock:
        port = sock.getsockname()[1]
    assert found(f"127.0.0.1:{port}", tmp_path) == []
    assert found(f"127.0.0.1:{port}", tmp_path) == []


@pytest.mark.parametrize("reuseport", [False, True])
@pytest.mark.parametrize("wanted", ["127.0.0.1", "0.0.0.0"])
def test_a_port_in_use_names_the_process_and_the_line(
    tmp_path: Path, wanted: str, reuseport: bool
) -> None:
    with listening(reuseport=reuseport) as sock:
        (problem,) = found(f"{wanted}:{sock.getsockname()[1]}", tmp_path)
    assert f"(pid {os.getpid()})" in problem.message
    assert (problem.file, problem.line, problem.key) == ("lb.toml", 7, "listener[0].bind")


def test_the_sockets_of_ignored_processes_are_no_obstacle(tmp_path: Path) -> None:
    with listening(reuseport=True) as sock:
        bind = f"127.0.0.1:{sock.getsockname()[1]}"
        assert found(bind, tmp_path, {os.getpid()}) == []
        plan = to_plan(loaded(bind, tmp_path).config)
        assert ports_in_use(plan, ignore=lambda pid: pid == os.getpid()) == []
        assert len(ports_in_use(plan)) == 1


def test_an_address_of_another_machine_is_named_with_our_own(tmp_path: Path) -> None:
    (problem,) = found("192.0.2.1:8080", tmp_path)      # TEST-NET-1, RFC 5737
    assert "no address of this machine" in problem.message
    assert "127.0.0.1" in problem.hint


def test_a_unix_socket_in_use_names_the_process(tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen()
        (problem,) = found(f"unix:{path}", tmp_path)
        assert f"(pid {os.getpid()})" in problem.message
        assert found(f"unix:{path}", tmp_path, {os.getpid()}) == []
    assert found(f"unix:{path}", tmp_path) == [], "a socket that was left behind is no obstacle"


def test_a_file_where_a_socket_should_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "web.sock").write_text("precious")
    (problem,) = found(f"unix:{tmp_path}/web.sock", tmp_path)
    assert "not a socket" in problem.message


def test_a_directory_that_does_not_exist_is_told(tmp_path: Path) -> None:
    (problem,) = found(f"unix:{tmp_path}/no/where/web.sock", tmp_path)
    assert "no directory" in problem.message


def test_accounts_that_do_not_exist_are_told(tmp_path: Path) -> None:
    config = loaded("unix:" + str(tmp_path / "a"), tmp_path, 'user = "nobody-at-all"\ngroup = "g-"')
    problems = host_problems(to_plan(config.config), config.source)
    assert [(one.line, one.key) for one in problems] == [(4, "lbcore.user"), (5, "lbcore.group")]


def test_a_user_that_only_root_could_become_is_warned_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = loaded("unix:" + str(tmp_path / "a"), tmp_path, 'user = "nobody"')
    plan = to_plan(config.config)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert host_warnings(plan, config.source) == []
    assert settings_of(plan).identity != Identity()
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    (warning,) = host_warnings(plan, config.source)
    assert (warning.line, warning.key) == (4, "lbcore.user")
    assert settings_of(plan).identity == Identity()


def test_a_port_that_workers_of_lbcore_have_is_their_supervisors(tmp_path: Path) -> None:
    supervisor = """
import subprocess, sys
code = "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1],"
code += " flush=True); input()"
subprocess.run([sys.executable, "-c", code, "lbcore.worker"])
"""
    with subprocess.Popen([sys.executable, "-c", supervisor, "lbcore.cli"], text=True,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        (problem,) = found(f"127.0.0.1:{int(process.stdout.readline())}", tmp_path)
        assert f"(pid {process.pid})" in problem.message
        process.communicate("\n")


def test_a_running_lbcore_is_known_by_its_command_line() -> None:
    code = "import sys; print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, "lbcore.worker"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert is_lbcore(process.pid)
        assert not is_lbcore(os.getpid())
        process.communicate()
    assert not is_lbcore(process.pid)
