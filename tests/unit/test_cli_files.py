"""``lbcore check``, ``show`` and ``schema``."""

from __future__ import annotations

import json
import os
import socket
import tomllib
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest

from lbcore.cli import execute
from lbcore.config import load, to_plan
from tests.support.instance import free_port

TEXT = """\
[admin]
listen = "unix:{directory}/admin.sock"
[[listener]]
name = "web"
bind = "127.0.0.1:{port}"
pool = "web"
[pool.web]
balance = "consistent"
backends = ["10.0.0.1:8000", {{ address = "[fd00::1]:8000", weight = 2 }}]
[pool.web.health]
[lbcore]
accept_warnings = ["root-without-user"]
"""


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that this process listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def free() -> int:
    """A port that nobody listens on."""
    return free_port()


def written(directory: Path, port: int, more: str = "") -> str:
    path = directory / "lb.toml"
    path.write_text(TEXT.format(directory=directory, port=port) + more)
    return str(path)


def test_check_of_a_good_file_says_what_would_serve(
    tmp_path: Path, free: int, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, free)
    assert execute(["check", "-c", path]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert said.out.startswith(f"{path} is good.")
    assert f"web: 127.0.0.1:{free} -> pool web, 2 backends, consistent, tcp checks" in said.out


def test_check_in_json_says_the_same(
    tmp_path: Path, free: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(["check", "--json", "-c", written(tmp_path, free)]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["ok"] is True
    assert said["listeners"] == [{"name": "web", "bind": [f"127.0.0.1:{free}"], "pool": "web"}]
    assert said["pools"] == [{"name": "web", "balance": "consistent", "backends": 2}]
    assert said["warnings"] == []


def test_check_names_the_process_that_has_the_port(
    tmp_path: Path, taken: int, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, taken)
    assert execute(["check", "-c", path]) == 2
    said = capsys.readouterr()
    assert said.err.startswith(f"{path}:5: listener[0].bind: 127.0.0.1:{taken} is in use by")
    assert f"(pid {os.getpid()})" in said.err


def test_check_of_the_file_only_does_not_look_at_the_machine(tmp_path: Path, taken: int) -> None:
    assert execute(["check", "--file-only", "-c", written(tmp_path, taken)]) == 0


def test_warnings_are_printed_and_do_not_fail_the_check(
    tmp_path: Path, free: int, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, free, "[pool.spare]\ndemo = 1\n")
    assert execute(["check", "-c", path]) == 0
    assert capsys.readouterr().err.startswith(f"{path}:13: pool.spare: no listener uses")
    assert execute(["check", "--json", "-c", path]) == 0
    assert json.loads(capsys.readouterr().out)["warnings"][0]["key"] == "pool.spare"


def test_what_show_prints_is_a_configuration_that_means_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, 8080)
    assert execute(["show", "-c", path]) == 0
    shown = tmp_path / "shown.toml"
    shown.write_text(capsys.readouterr().out)
    assert to_plan(load(shown)) == to_plan(load(path))
    assert execute(["show", "-c", str(shown)]) == 0
    assert capsys.readouterr().out == shown.read_text()


def test_show_fills_in_defaults_also_in_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, 8080)
    assert execute(["show", "-c", path]) == 0
    from_toml = tomllib.loads(capsys.readouterr().out)
    assert execute(["show", "--json", "-c", path]) == 0
    assert json.loads(capsys.readouterr().out) == from_toml
    assert from_toml["pool"]["web"]["connect_timeout"] == "2s"
    assert from_toml["pool"]["web"]["health"]["interval"] == "2s"
    assert from_toml["pool"]["web"]["backends"][0] == {
        "address": "10.0.0.1:8000", "weight": 1, "backup": False, "max_connections": 0,
    }


def test_schema_prints_a_schema_that_accepts_what_show_prints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert execute(["show", "--json", "-c", written(tmp_path, 8080)]) == 0
    jsonschema.validate(json.loads(capsys.readouterr().out), schema)
