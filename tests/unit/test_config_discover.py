"""The keys of pools whose backends are discovered."""

from __future__ import annotations

from pathlib import Path

import pytest

from lbcore.config import ConfigError, parse, to_plan
from lbcore.config.host import host_problems
from lbcore.config.plan import DiscoverPlan
from lbcore.config.show import to_toml

START = '[[listener]]\nname = "a"\nbind = "127.0.0.1:1"\npool = "web"\n[pool.web]\n'


def problems(text: str) -> list[tuple[str, str]]:
    """Key and message of everything wrong."""
    with pytest.raises(ConfigError) as raised:
        parse(START + text, "/etc/lbcore/lb.toml")
    return [(problem.key, problem.message) for problem in raised.value.problems]


@pytest.mark.parametrize(("keys", "plan"), [
    ('file = "web.json"', DiscoverPlan(file="/etc/lbcore/web.json")),
    ('file = "/run/web.txt"\ninterval = "1s"\ntimeout = "5s"',
     DiscoverPlan(file="/run/web.txt", interval_ms=1000, timeout_ms=5000)),
    ('python = "mine.registry:Registry.backends"',
     DiscoverPlan(python="mine.registry:Registry.backends", directory="/etc/lbcore")),
    ('python = "mine:backends"\ndirectory = "/srv/mine"',
     DiscoverPlan(python="mine:backends", directory="/srv/mine")),
])
def test_a_pool_needs_no_backends_when_something_names_them(
    keys: str, plan: DiscoverPlan
) -> None:
    loaded = parse(f"{START}[pool.web.discover]\n{keys}\n", "/etc/lbcore/lb.toml")
    pool = to_plan(loaded.config).pools[0]
    assert (pool.discover, pool.backends) == (plan, ())
    again = parse(to_toml(loaded.config), "/elsewhere/shown.toml")
    assert to_plan(again.config).pools == to_plan(loaded.config).pools


@pytest.mark.parametrize(("keys", "key", "message"), [
    ("", "pool.web.discover", "where backends come from"),
    ('file = "a"\npython = "b:c"', "pool.web.discover.python", "from file already"),
    ('file = "a"\ndirectory = "b"', "pool.web.discover.directory", "no effect without python"),
    ('python = "mine"', "pool.web.discover.python", "which function"),
    ('python = "src/mine.py"', "pool.web.discover.python", "does not name a function"),
    ('python = "mine.py"', "pool.web.discover.python", "does not name a function"),
    ('python = "mine:backends()"', "pool.web.discover.python", "does not name a function"),
    ('file = "a"\ninterval = "0"', "pool.web.discover.interval", "longer than 0"),
    ('files = "a"', "pool.web.discover.files", "unknown key"),
])
def test_what_makes_no_sense_is_said(keys: str, key: str, message: str) -> None:
    found = problems(f"[pool.web.discover]\n{keys}\n")
    assert [one for one, _ in found] == [key]
    assert message in found[0][1]


@pytest.mark.parametrize("own", ["demo = 2", 'wsgi = "mine:app"'])
def test_servers_that_lbcore_runs_are_not_discovered(own: str) -> None:
    found = problems(f'{own}\n[pool.web.discover]\nfile = "a"\n')
    assert found == [("pool.web.discover", "lbcore runs the servers of this pool itself, so there "
                                           "are none to discover")]


def test_a_pool_without_backends_and_source_is_still_refused() -> None:
    assert problems("") == [("pool.web", 'pool "web" has no backends')]


def test_a_directory_that_is_not_there_is_found_before_the_start(tmp_path: Path) -> None:
    text = f'{START}[pool.web.discover]\npython = "mine:backends"\ndirectory = "none"\n'
    loaded = parse(text, str(tmp_path / "lb.toml"))
    found = [problem.key for problem in host_problems(to_plan(loaded.config), loaded.source)
             if "discover" in problem.key]
    assert found == ["pool.web.discover.directory"]
