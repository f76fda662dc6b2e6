"""What application servers are told, and in which surroundings they run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from lbcore.apps.command import LAUNCH, Place, command, environment
from lbcore.config.apps import SERVERS
from lbcore.config.plan import AppKind, AppPlan, AppServer, PoolPlan
from lbcore.supervisor.apps_spec import AppError, spec_of
from lbcore.supervisor.worker import Identity

PLAN = AppPlan(kind="wsgi", app="site.web:app", server="gunicorn")
PLACE = Place(Path("/run/x/app.sock"), 7)
EVERY = [(kind, server) for kind, servers in SERVERS.items() for server in servers]


def spec(plan: AppPlan, home: Path) -> str:
    return spec_of(PoolPlan("web", ()), plan, home, Identity()).fingerprint


@pytest.mark.parametrize(("kind", "server"), EVERY)
def test_options_come_last_before_the_application(kind: AppKind, server: AppServer) -> None:
    plan = replace(PLAN, kind=kind, server=server, options=("--its-own", "word"))
    words = command(plan, "/venv/bin/python", PLACE, 60)
    assert words[:3] == ["/venv/bin/python", str(LAUNCH), server]
    assert words[-3:-1] == ["--its-own", "word"]
    assert words[-1].removeprefix("wsgi:") == "site.web:app"


@pytest.mark.parametrize("server", ["gunicorn", "uvicorn", "hypercorn"])
def test_servers_keep_idle_connections_longer_than_lbcore(server: AppServer) -> None:
    words = command(replace(PLAN, server=server), "python", PLACE, 60)
    (at,) = [at for at, word in enumerate(words) if "keep-alive" in word]
    assert words[at + 1] == "75"


@pytest.mark.parametrize(("server", "option"), [
    ("gunicorn", "--graceful-timeout"), ("uvicorn", "--timeout-graceful-shutdown"),
    ("hypercorn", "--graceful-timeout"), ("granian", "--workers-kill-timeout"),
])
def test_servers_give_requests_the_time_that_the_pool_says(server: AppServer, option: str) -> None:
    words = command(replace(PLAN, server=server, stop_timeout_ms=11_500), "python", PLACE, 60)
    assert words[words.index(option) + 1] == "12"


@pytest.mark.parametrize(("server", "option"), [
    ("gunicorn", "--threads"), ("granian", "--blocking-threads"),
])
def test_threads_are_those_of_each_worker(server: AppServer, option: str) -> None:
    words = command(replace(PLAN, server=server, threads=3), "python", PLACE, 60)
    assert words[words.index(option) + 1] == "3"
    assert option not in command(replace(PLAN, server=server), "python", PLACE, 60)


def test_a_server_that_takes_no_descriptor_is_given_a_path() -> None:
    for server in ("granian", "daphne"):
        plan = replace(PLAN, kind="asgi", server=server)    # type: ignore[arg-type]
        assert str(PLACE.path) in command(plan, "python", Place(PLACE.path), 60)


def test_a_server_does_not_take_systemds_words_to_lbcore_for_its_own() -> None:
    ours = {"LISTEN_FDS": "2", "LISTEN_PID": "1", "NOTIFY_SOCKET": "/run/x", "LANG": "C"}
    env = environment(replace(PLAN, env=(("A", "b"),)), ours, "", None)
    assert env == {"LANG": "C", "PYTHONUNBUFFERED": "1", "A": "b"}


def test_a_virtual_environment_comes_first() -> None:
    env = environment(PLAN, {"PATH": "/usr/bin", "PYTHONHOME": "/x"}, "/srv/venv", None)
    assert env["PATH"] == "/srv/venv/bin:/usr/bin"
    assert env["VIRTUAL_ENV"] == "/srv/venv"
    assert "PYTHONHOME" not in env


def test_another_user_has_a_home_of_its_own() -> None:
    env = environment(PLAN, {"HOME": "/root", "USER": "root"}, "", ("www", "/var/www"))
    assert (env["HOME"], env["USER"], env["LOGNAME"]) == ("/var/www", "www", "www")


def test_what_a_running_server_would_not_notice_does_not_replace_it(tmp_path: Path) -> None:
    same = replace(PLAN, start_timeout_ms=1, watch=True, watch_paths=("x",))
    assert spec(same, tmp_path) == spec(PLAN, tmp_path)


@pytest.mark.parametrize("change", [
    {"app": "site.web:other"}, {"workers": 2}, {"threads": 2}, {"env": (("A", "b"),)},
    {"options": ("--x",)}, {"names": ("app-1", "app-2")}, {"stop_timeout_ms": 1},
    {"server": "granian"}, {"directory": "sub"},
])
def test_every_other_setting_does(tmp_path: Path, change: dict[str, object]) -> None:
    (tmp_path / "sub").mkdir()
    assert spec(replace(PLAN, **change), tmp_path) != spec(PLAN, tmp_path)  # type: ignore[arg-type]


@pytest.mark.parametrize(("change", "words"), [
    ({"directory": "nowhere"}, ("pool web", "nowhere", "directory")),
    ({"venv": "nowhere"}, ("nowhere/bin/python", "`venv`")),
    ({"python": "./nowhere"}, ("nowhere", "`python`")),
    ({"python": "no-such-python"}, ("no-such-python", "`python`")),
])
def test_what_is_not_there_is_named_with_its_key(
    tmp_path: Path, change: dict[str, str], words: tuple[str, ...]
) -> None:
    with pytest.raises(AppError) as refused:
        spec(replace(PLAN, **change), tmp_path)     # type: ignore[arg-type]
    assert all(word in str(refused.value) for word in words)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root looks at `user`")
def test_an_unknown_user_is_named(tmp_path: Path) -> None:
    with pytest.raises(AppError, match="no-such-user"):
        spec(replace(PLAN, user="no-such-user"), tmp_path)


def test_paths_are_relative_to_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    (tmp_path / "venv" / "bin" / "python").symlink_to(sys.executable)
    found = spec_of(PoolPlan("web", ()), replace(PLAN, directory="code", venv="venv"), tmp_path,
                    Identity())
    assert found.directory == tmp_path / "code"
    assert found.python == str(tmp_path / "venv" / "bin" / "python")


def test_a_missing_server_is_named_with_the_remedy() -> None:
    said = subprocess.run([sys.executable, str(LAUNCH), "no_such_server", "-1"],
                          capture_output=True, text=True, timeout=30, check=False)
    assert said.returncode == 1
    assert said.stderr == (f"no_such_server is not installed for {sys.executable}: "
                           f"{sys.executable} -m pip install no_such_server\n")


def test_a_server_hears_signals_though_its_parent_did_not(tmp_path: Path) -> None:
    (tmp_path / "served.py").write_text(
        "import signal, sys; print(signal.pthread_sigmask(signal.SIG_BLOCK, []), sys.argv[1:])")
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    try:
        said = subprocess.run([sys.executable, str(LAUNCH), "served", "-1", "word"], text=True,
                              capture_output=True, check=True,
                              env={**os.environ, "PYTHONPATH": str(tmp_path)})
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert said.stdout == "set() ['word']\n"
