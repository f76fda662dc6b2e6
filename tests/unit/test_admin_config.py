"""[admin]: an address that others reach needs a token, and a token has to be a secret."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lbcore.config import ConfigError, Problem, load_file, to_plan
from lbcore.config.plan import Plan
from lbcore.config.show import to_toml

GOOD = """\
[[listener]]
name = "web"
bind = "127.0.0.1:8080"
pool = "web"

[pool.web]
backends = ["10.0.0.1:8000"]
"""
TOKEN = "c0rrect-horse-battery-staple"


@pytest.fixture
def token(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\nwhat it is for\n")
    path.chmod(0o600)
    return path


def written(directory: Path, admin: str) -> Path:
    """A file with this [admin]."""
    path = directory / "lb.toml"
    path.write_text(f"[admin]\n{admin}\n{GOOD}")
    return path


def plan(directory: Path, admin: str) -> Plan:
    """What it means."""
    return to_plan(load_file(written(directory, admin)).config)


def problem(directory: Path, admin: str) -> Problem:
    """The only thing that is wrong with it."""
    with pytest.raises(ConfigError) as refused:
        load_file(written(directory, admin))
    assert len(refused.value.problems) == 1, str(refused.value)
    return refused.value.problems[0]


@pytest.mark.parametrize("listen", ["0.0.0.0:9900", "[::]:9900", "10.0.0.1:9900"])
def test_address_beyond_loopback_without_a_token_is_refused(tmp_path: Path, listen: str) -> None:
    found = problem(tmp_path, f'listen = "{listen}"')
    assert (found.key, found.line) == ("admin.listen", 2)
    assert "token_file" in found.hint


@pytest.mark.parametrize("listen", ["127.0.0.1:9900", "127.9.9.9:9900", "[::1]:9900",
                                    "unix:/run/lb.sock"])
def test_address_of_this_machine_needs_no_token(tmp_path: Path, listen: str) -> None:
    assert plan(tmp_path, f'listen = "{listen}"').api.token == ""


def test_the_first_line_of_the_file_is_the_token(tmp_path: Path, token: Path) -> None:
    made = plan(tmp_path, f'listen = "0.0.0.0:9900"\ntoken_file = "{token}"')
    assert made.api.token == TOKEN
    assert TOKEN not in repr(made), "a plan in a log or a traceback does not tell it"


def test_file_is_named_from_the_directory_of_the_configuration(
    tmp_path: Path, token: Path,
) -> None:
    assert plan(tmp_path, 'listen = "127.0.0.1:9900"\ntoken_file = "token"').api.token == TOKEN


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o620, 0o601, 0o666])
def test_token_that_others_can_read_or_change_is_refused(
    tmp_path: Path, token: Path, mode: int,
) -> None:
    token.chmod(mode)
    found = problem(tmp_path, 'listen = "127.0.0.1:9900"\ntoken_file = "token"')
    assert found.key == "admin.token_file"
    assert found.hint in (f"chmod 600 {token}", f"chmod 640 {token}")


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640, 0o440])
def test_token_that_only_owner_and_group_can_read_is_taken(
    tmp_path: Path, token: Path, mode: int,
) -> None:
    token.chmod(mode)
    assert plan(tmp_path, 'listen = "127.0.0.1:9900"\ntoken_file = "token"').api.token == TOKEN


@pytest.mark.parametrize("content", [b"", b"\n", b"  \n", b"two words\n", b"\xff\xfe\n",
                                     b"tab\tin it\n", b"\nsecond line"])
def test_file_without_a_token_is_refused_with_the_way_to_make_one(
    tmp_path: Path, token: Path, content: bytes,
) -> None:
    token.write_bytes(content)
    found = problem(tmp_path, 'listen = "127.0.0.1:9900"\ntoken_file = "token"')
    assert found.key == "admin.token_file"
    assert "openssl rand -hex 32" in found.hint


def test_file_that_is_not_there_is_refused_at_load_and_at_reload(
    tmp_path: Path, token: Path,
) -> None:
    loaded = load_file(written(tmp_path, 'listen = "127.0.0.1:9900"\ntoken_file = "token"'))
    token.unlink()
    with pytest.raises(ConfigError, match="cannot be read"):
        to_plan(loaded.config)
    assert "cannot be read" in problem(
        tmp_path, 'listen = "127.0.0.1:9900"\ntoken_file = "token"').message


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_file_that_cannot_be_read_is_refused(tmp_path: Path, token: Path) -> None:
    token.chmod(0)
    assert "cannot be read" in problem(
        tmp_path, 'listen = "127.0.0.1:9900"\ntoken_file = "token"').message


def test_short_tokens_and_those_that_nobody_asks_for_are_doubtful(
    tmp_path: Path, token: Path,
) -> None:
    token.write_text("short")
    tcp = load_file(written(tmp_path, 'listen = "127.0.0.1:9900"\ntoken_file = "token"'))
    assert [(one.key, one.hint) for one in tcp.warnings] == [
        ("admin.token_file", "openssl rand -hex 32")]
    unix = load_file(written(tmp_path, 'listen = "unix:/run/a.sock"\ntoken_file = "token"'))
    assert [one.key for one in unix.warnings] == ["admin.token_file"]


@pytest.mark.usefixtures("token")
def test_an_address_that_others_reach_is_a_danger_with_a_token_too(tmp_path: Path) -> None:
    for listen, codes in [("0.0.0.0", ["open-admin"]), ("127.0.0.1", []), ("[::]", ["open-admin"])]:
        found = load_file(written(tmp_path, f'listen = "{listen}:9900"\ntoken_file = "token"'))
        assert [one.code for one in found.warnings] == codes


@pytest.mark.parametrize("name", ["lb.internal:9900", "http://lb", "", "a b", "-x", "[::1]", "*.x"])
def test_what_is_no_host_name_is_refused(tmp_path: Path, name: str) -> None:
    found = problem(tmp_path, f'hosts = ["{name}"]')
    assert found.key == "admin.hosts[0]"
    assert found.hint


def test_all_keys_reach_the_plan_and_survive_show(tmp_path: Path, token: Path) -> None:
    admin = ('listen = "127.0.0.1:9900"\ntoken_file = "token"\nhosts = ["lb.internal", "lb-2"]\n'
             "dashboard = false\nmetrics = false")
    loaded = load_file(written(tmp_path, admin))
    made = to_plan(loaded.config)
    assert made.api.hosts == ("lb.internal", "lb-2")
    assert (made.api.dashboard, made.api.metrics) == (False, False)
    shown = tmp_path / "shown.toml"
    shown.write_text(to_toml(loaded.config))
    assert TOKEN not in shown.read_text()
    assert to_plan(load_file(shown).config) == made
