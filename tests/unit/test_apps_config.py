"""Keys of pools with a Python application: what they mean and what is wrong with them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from lbcore.config import ConfigError, Problem, host, load_file, parse, to_plan
from lbcore.config.plan import AppPlan
from lbcore.config.show import to_toml
from tests.support.instance import free_port

LISTENER = '[[listener]]\nname = "web"\nbind = "127.0.0.1:8080"\npool = "web"\n[pool.web]\n'


def problems(keys: str) -> list[Problem]:
    with pytest.raises(ConfigError) as refused:
        parse(LISTENER + keys, "lb.toml")
    return refused.value.problems


def app(keys: str) -> AppPlan:
    found = to_plan(parse(LISTENER + keys, "lb.toml").config).pools[0].app
    assert found is not None
    return found


@pytest.mark.parametrize(("kind", "server"), [("wsgi", "gunicorn"), ("asgi", "uvicorn")])
def test_an_application_alone_is_a_pool_with_the_usual_server(kind: str, server: str) -> None:
    found = app(f'{kind} = "site.web:app"')
    assert (found.kind, found.app, found.server) == (kind, "site.web:app", server)
    assert found.names == ("app",)


def test_instances_are_backends_of_their_own() -> None:
    assert app('asgi = "a:b"\ninstances = 3').names == ("app-1", "app-2", "app-3")


def test_an_application_stands_beside_other_backends() -> None:
    text = LISTENER + 'wsgi = "a:b"\nbackends = [{ address = "10.0.0.1:80", backup = true }]'
    plan = to_plan(parse(text, "lb.toml").config)
    assert plan.pools[0].app is not None
    assert [backend.backup for backend in plan.pools[0].backends] == [True]


@pytest.mark.parametrize(
    ("keys", "key", "message", "hint"),
    [
        ('wsgi = "site"', "wsgi", "which callable", "site:application"),
        ('wsgi = "site/web.py"', "wsgi", "does not name an application", "directory"),
        ('wsgi = "web.py"', "wsgi", "does not name an application", "directory"),
        ('wsgi = "a:b"\nasgi = "a:b"', "asgi", "one application", "keep one"),
        ('wsgi = "a:b"\nserver = "uvicorn"', "server", "does not run wsgi", '"gunicorn"'),
        ('asgi = "a:b"\nserver = "gunicorn"', "server", "does not run asgi", '"uvicorn"'),
        ('asgi = "a:b"\nserver = "gunicrn"', "server", "not a choice", '"gunicorn"'),
        ('asgi = "a:b"\nthreads = 2', "threads", "without threads", "instances"),
        ('asgi = "a:b"\nserver = "daphne"\nworkers = 2', "workers", "one process",
         "instances = 2"),
        ('wsgi = "a:b"\nvenv = "v"\npython = "p"', "python", "venv names", "one of the two"),
        ('wsgi = "a:b"\nwatch_paths = ["."]', "watch_paths", "without watch", "watch = true"),
        ('wsgi = "a:b"\ngroup = "www"', "group", "without user", "user"),
        ('wsgi = "a:b"\ninstances = 0', "instances", "too small", "1"),
        ('wsgi = "a:b"\nenv = { "1" = "x" }', "env.1", "environment", "letters"),
        ('backends = ["10.0.0.1:80"]\nworkers = 2', "workers", "without an application", "wsgi"),
        ('wsgi = "a:b"\nbackends = [{ address = "10.0.0.1:80", name = "app" }]', "backends[0]",
         'is called "app"', ""),
    ],
)
def test_a_mistake_is_told_once(keys: str, key: str, message: str, hint: str) -> None:
    found = problems(keys)
    assert [problem.key for problem in found] == [f"pool.web.{key}"]
    assert message in found[0].message
    assert hint in found[0].hint


@pytest.mark.parametrize("keys", [
    'wsgi = "a:b"',
    'wsgi = "a:b"\nthreads = 4\nvenv = "v"\noptions = ["--reload", "a \\"b\\""]\nuser = "www"',
    'asgi = "a:b"\nserver = "granian"\ninstances = 2\nwatch = true\nwatch_paths = ["src", "x.py"]',
    'asgi = "a:b"\nenv = { A = "1", B = "two words" }\npython = "p"\nworkers = 3',
    'demo = 1',
])
def test_what_show_prints_means_the_same(keys: str) -> None:
    loaded = parse(LISTENER + keys, "lb.toml")
    again = parse(to_toml(loaded.config), "shown.toml")
    assert to_plan(again.config).pools == to_plan(loaded.config).pools


def host_problems_of(path: Path) -> list[str]:
    loaded = load_file(path)
    return [f"{one.key}: {one.message}" for one in
            host.host_problems(to_plan(loaded.config), loaded.source)]


@pytest.mark.parametrize(("keys", "key", "message"), [
    ('directory = "nowhere"', "directory", "there is no directory"),
    ('venv = "nowhere"', "venv", "there is no Python in"),
    ('python = "./nowhere"', "python", "there is no Python at"),
    ('python = "no-such-python"', "python", "there is no Python at no-such-python"),
])
def test_check_finds_what_is_not_on_this_machine(
    tmp_path: Path, keys: str, key: str, message: str
) -> None:
    path = tmp_path / "lb.toml"
    path.write_text(LISTENER.replace("8080", str(free_port())) + f'wsgi = "a:b"\n{keys}\n'
                    f'[admin]\nlisten = "unix:{tmp_path}/a"\n')
    (found,) = host_problems_of(path)
    assert found.startswith(f"pool.web.{key}: {message}")


def test_check_finds_a_server_that_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lb.toml"
    path.write_text(LISTENER.replace("8080", str(free_port())) + 'wsgi = "a:b"\n'
                    f'[admin]\nlisten = "unix:{tmp_path}/a"\n')
    assert host_problems_of(path) == []
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert host_problems_of(path) == ["pool.web.server: gunicorn is not installed beside lbcore"]
