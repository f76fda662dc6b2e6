"""``lbcore check`` warns of what works and is dangerous, and takes a yes for an answer."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lbcore.config import ConfigError, dangers, host_dangers, parse, to_plan
from lbcore.config.findings import WARNINGS

SAFE = """
[lbcore]
workers = 2
[[listener]]
name = "web"
bind = "127.0.0.1:8080"
protocol = "http"
pool = "web"
{listener}
[[listener]]
name = "raw"
bind = "127.0.0.1:8081"
pool = "raw"
{raw}
[pool.web]
backends = ["10.0.0.1:80", "10.0.0.2:80"]
{pool}
[pool.web.health]
type = "http"
[pool.raw]
backends = ["10.0.0.1:81", "10.0.0.2:81"]
{rawpool}
[pool.raw.health]
"""
PLACES = dict.fromkeys(("listener", "raw", "pool", "rawpool"), "")


def text(**put: str) -> str:
    return SAFE.format(**PLACES | put)


def warned(source: str) -> list[tuple[str, str]]:
    return [(problem.code, problem.key) for problem in dangers.warnings(parse(source, "lb.toml"))]


def test_an_ordinary_configuration_has_no_warning() -> None:
    assert warned(text()) == []


@pytest.mark.parametrize(("put", "code", "key"), [
    ({"listener": 'max_body = "0"'}, "unlimited-body", "listener[0].max_body"),
    ({"listener": 'tunnel_timeout = "0"'}, "timeout-off", "listener[0].tunnel_timeout"),
    ({"listener": "retry = { unsafe = true }"}, "unsafe-retry", "listener[0].retry.unsafe"),
    ({"listener": 'total_timeout = "31s"'}, "short-drain", "listener[0].total_timeout"),
    ({"listener": '[[listener.route]]\npath = "/x"\nrespond = {}\ntotal_timeout = "1h"'},
     "short-drain", "listener[0].route[0].total_timeout"),
    ({"listener": '[[listener.route]]\npath = "/x"\npool = "web"\nmax_body = "0"'},
     "unlimited-body", "listener[0].route[0].max_body"),
    ({"raw": 'client_idle_timeout = "0"'}, "timeout-off", "listener[1].client_idle_timeout"),
    ({"raw": 'half_closed_timeout = "0"'}, "timeout-off", "listener[1].half_closed_timeout"),
    ({"raw": 'keepalive = false\ntcp_user_timeout = "0"'}, "timeout-off", "listener[1].keepalive"),
    ({"raw": 'proxy_protocol = true\nproxy_trusted = ["0.0.0.0/0"]'}, "trusts-everybody",
     "listener[1].proxy_trusted[0]"),
    ({"rawpool": 'server_idle_timeout = "0"'}, "timeout-off", "pool.raw.server_idle_timeout"),
    ({"rawpool": 'keepalive = false\ntcp_user_timeout = "0"'}, "timeout-off",
     "pool.raw.keepalive"),
    ({"rawpool": "demo = 1"}, "demo-backends", "pool.raw.demo"),
])
def test_each_danger_is_found_where_it_is(put: dict[str, str], code: str, key: str) -> None:
    assert warned(text(**put)) == [(code, key)]


def test_a_pool_without_checks_and_one_with_a_single_backend_are_dangers() -> None:
    bare = text().replace('[pool.web.health]\ntype = "http"\n', "").replace(
        '"10.0.0.1:81", "10.0.0.2:81"', '"10.0.0.1:81"')
    assert warned(bare) == [("no-health-check", "pool.web.health"),
                            ("single-backend", "pool.raw.backends")]


def test_a_hint_says_what_to_write() -> None:
    bare = text().replace('[pool.web.health]\ntype = "http"\n', "")
    [problem] = dangers.warnings(parse(bare, "lb.toml"))
    assert problem.hint == '[pool.web.health] with type = "http", path = "/healthz"'
    assert str(problem).endswith("[no-health-check]")
    assert problem.line == bare[: bare.index("[pool.web]")].count("\n") + 1


def test_without_a_drain_everything_is_broken_off() -> None:
    assert warned(text().replace("workers = 2", 'drain_timeout = "0"')) == [
        ("no-drain", "lbcore.drain_timeout")]


@pytest.mark.parametrize("word", ["no-health-check", "no-health-check:pool.web",
                                  "no-health-check:pool.web.health"])
def test_a_warning_is_accepted_for_everything_a_table_or_a_key(word: str) -> None:
    bare = text().replace('[pool.web.health]\ntype = "http"\n', "")
    assert warned(bare.replace("workers = 2", f'accept_warnings = ["{word}"]')) == []


@pytest.mark.parametrize("word", ["no-health-check:pool.raw", "no-health-check:pool.we",
                                  "single-backend"])
def test_what_was_accepted_elsewhere_is_told(word: str) -> None:
    bare = text().replace('[pool.web.health]\ntype = "http"\n', "")
    assert warned(bare.replace("workers = 2", f'accept_warnings = ["{word}"]')) != []


def test_a_code_that_does_not_exist_is_an_error_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match='did you mean "single-backend"'):
        parse(text().replace("workers = 2", 'accept_warnings = ["single-backends"]'), "lb.toml")


def test_warnings_that_are_older_than_codes_are_accepted_too() -> None:
    unused = text() + '\n[pool.spare]\nbackends = ["10.0.0.9:1"]\n'
    assert [one.code for one in parse(unused, "lb.toml").warnings] == ["unused-pool"]
    fine = unused.replace("workers = 2", 'accept_warnings = ["unused-pool:pool.spare"]')
    assert parse(fine, "lb.toml").warnings == []


# -- of this machine


def here(source: str, path: Path) -> list[tuple[str, str]]:
    path.write_text(source)
    loaded = parse(source, str(path))
    return [(found.code, ".".join(map(str, found.path)))
            for found in host_dangers.dangers(loaded.config, to_plan(loaded.config), str(path))
            if found.code != "root-without-user"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    tmp_path.chmod(0o755)
    (tmp_path / "lb.toml").touch(0o644)
    return tmp_path / "lb.toml"


def test_what_is_written_to_a_directory_that_is_not_there_is_told_before_the_start(
    file: Path,
) -> None:
    gone = file.parent / "gone"
    source = (f'[log]\npath = "{gone}/lb.log"\naccess = "{gone}/access.log"\n'
              + text().replace("[lbcore]", f'[lbcore]\npid_file = "{gone}/lb.pid"'))
    told = [one for one in here(source, file) if one[0] == "no-directory"]
    assert told == [("no-directory", key) for key in ("log.path", "log.access",
                                                           "lbcore.pid_file")]
    gone.mkdir()
    assert not [one for one in here(source, file) if one[0] == "no-directory"]
    gone.rmdir()
    gone.write_text("a file")
    assert len([one for one in here(source, file) if one[0] == "no-directory"]) == 3
    for place in ("-", "journal:", "syslog:local3"):
        assert not [one for one in here(f'[log]\npath = "{place}"\n' + text(), file)
                    if one[0] == "no-directory"]


def test_a_configuration_that_others_may_write_is_a_danger(file: Path) -> None:
    assert here(text(), file) == []
    file.chmod(0o666)
    assert here(text(), file) == [("writable-by-others", "")]


def test_so_is_a_directory_in_which_others_may_replace_it(file: Path) -> None:
    file.parent.chmod(0o777)
    assert here(text(), file) == [("writable-by-others", "")]
    file.parent.chmod(0o1777)
    assert here(text(), file) == []


@pytest.mark.parametrize(("put", "key"), [
    ({"listener": 'error_pages = { default = "NAME.html" }'}, "listener.0.error_pages.default"),
    ({"listener": '[[listener.route]]\npath = "/x"\nrespond = { file = "NAME.html" }'},
     "listener.0.route.0.respond.file"),
])
def test_files_that_it_names_count_too(put: dict[str, str], key: str, file: Path) -> None:
    page = file.parent / "page.html"
    page.write_text("sorry")
    page.chmod(0o666)
    source = text(**{name: value.replace("NAME.html", str(page)) for name, value in put.items()})
    assert here(source, file) == [("writable-by-others", key)]


@pytest.mark.parametrize(("keys", "key"), [
    ('wsgi = "a:b"\ndirectory = "code"', "directory"),
    ('[pool.app.discover]\npython = "a:b"\ndirectory = "code"', "discover.directory"),
    ('[pool.app.discover]\nfile = "code/backends.txt"', "discover.file"),
])
def test_so_does_what_it_carries_out(keys: str, key: str, file: Path) -> None:
    code = file.parent / "code"
    code.mkdir(0o755)
    (code / "backends.txt").write_text("10.0.0.1:80\n")
    source = f"{text()}[pool.app]\n{keys}\n"
    usual = {"root-without-user", "app-as-root"}
    assert [one for one in here(source, file) if one[0] not in usual] == []
    code.chmod(0o777)
    assert [one for one in here(source, file) if one[0] not in usual] == [
        ("writable-by-others", f"pool.app.{key}")]


def test_a_secret_in_a_file_that_all_can_read_is_a_danger(file: Path) -> None:
    source = text() + '[pool.web.sticky]\nsecret = "0123456789abcdef"\n'
    assert here(source, file) == [("readable-by-others", "pool.web.sticky.secret")]
    file.chmod(0o600)
    assert here(source, file) == []


def test_more_connections_than_descriptors_are_a_danger(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_dangers, "descriptor_limit", lambda: 1064)
    most = 2 * (1064 - 64 - 2) // 2
    assert here(text(listener=f"max_connections = {most}"), file) == []
    assert here(text(listener=f"max_connections = {most + 1}"), file) == [
        ("descriptor-limit", "listener.0.max_connections")]


def test_descriptors_are_as_many_as_an_instance_gets() -> None:
    """Root raises the limit, unless its container has taken the capability for it."""
    look = ("import resource\n"
            "from lbcore.config.host_dangers import descriptor_limit\n"
            "from lbcore.supervisor.limits import raise_descriptor_limit\n"
            "resource.setrlimit(resource.RLIMIT_NOFILE, (1000, 1000))\n"
            "print(descriptor_limit() == raise_descriptor_limit())")
    without = ["setpriv", "--bounding-set=-sys_resource"]
    for words in ([], without) if os.geteuid() == 0 and shutil.which("setpriv") else ([],):
        said = subprocess.run([*words, sys.executable, "-c", look], check=False,
                              capture_output=True, text=True, timeout=60)
        assert said.stdout == "True\n", said.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts lbcore as root")
def test_workers_and_applications_of_root_are_dangers(file: Path) -> None:
    source = text() + '[pool.app]\nwsgi = "a:b"\n'
    file.write_text(source)
    loaded = parse(source, str(file))
    found = host_dangers.dangers(loaded.config, to_plan(loaded.config), str(file))
    assert {one.code for one in found} == {"root-without-user", "app-as-root"}


def check(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "lbcore", "check", *arguments], check=False,
                          capture_output=True, text=True, timeout=60)


def test_check_prints_warnings_and_strict_makes_them_an_error(file: Path) -> None:
    file.write_text(text(listener='max_body = "0"'))
    said = check("--file-only", "-c", str(file))
    assert (said.returncode, said.stderr.count("\n")) == (0, 1)
    assert "[unlimited-body]" in said.stderr
    assert check("--file-only", "--strict", "-c", str(file)).returncode == 1
    answer = json.loads(check("--file-only", "--json", "-c", str(file)).stdout)
    assert [one["code"] for one in answer["warnings"]] == ["unlimited-body"]


def test_every_code_has_a_meaning_and_is_in_the_documentation() -> None:
    page = (Path(__file__).parents[2] / "docs/guide/doctor.md").read_text()
    for code, meaning in WARNINGS.items():
        assert f"| `{code}` | {meaning} |" in page
