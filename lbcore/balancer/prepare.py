"""From what a program calls a configuration to the file that lbcore is run with."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lbcore.balancer.ports import Held
from lbcore.config import Config, ConfigError, Problem, to_plan
from lbcore.config.host import host_problems
from lbcore.config.load import Source, check_tables, read_tables, read_text
from lbcore.config.plan import Address, Plan
from lbcore.config.positions import Positions
from lbcore.config.show import effective, to_toml

Tables = dict[str, Any]
Configuration = Mapping[str, Any] | str | os.PathLike[str] | Config
NAME = "configuration"       # what problems are in when there is no file


@dataclass(frozen=True)
class Prepared:
    """A configuration that lbcore can be run with."""

    text: str                    # of the file
    plan: Plan
    warnings: list[Problem]

    @property
    def admin(self) -> Address:
        """Where the running instance will be reached."""
        return self.plan.admin


def prepare(
    config: Configuration, directory: Path, held: Held,
    backends: Mapping[str, Sequence[Mapping[str, Any]]], *, running: Prepared | None = None,
) -> Prepared:
    """What to run. ``directory`` is a private one, for the admin socket among others.

    ``backends``: what callables said of pools, in the place of what the configuration names.
    ``running``: what runs already, whose ports stay. Raises ConfigError with every problem.
    """
    tables, source, home = _tables(config)
    pools = tables.get("pool", {})
    for pool, found in backends.items():
        if not isinstance(pools, dict) or not isinstance(pools.get(pool), dict):
            raise ConfigError([source.problem(
                ("pool", pool), "discover names backends for it, and there is no such pool",
                f"[pool.{pool}] in the configuration")])
        pools[pool]["backends"] = [dict(one) for one in found]
    _choose_ports(tables, source, held, running)
    _absolute(tables, home)
    _talk_to_us(tables, directory)
    checked, warnings = check_tables(tables, source, str(home))
    plan = to_plan(checked)
    if running is None and (problems := host_problems(plan, source)):
        raise ConfigError(problems)
    return Prepared(to_toml(checked), plan, warnings)


def _tables(config: Configuration) -> tuple[Tables, Source, Path]:
    """Tables that may be changed, where they stand, and where relative paths in them start."""
    here = Path.cwd()
    if isinstance(config, Config):
        tables = effective(config)
        if config.admin.listen is None:          # which is where lbcore listens by itself
            del tables["admin"]["listen"]
        return tables, Source(NAME, Positions("")), here
    if isinstance(config, Mapping):
        return _copied(config), Source(NAME, Positions("")), here
    if isinstance(config, str) and ("\n" in config or "=" in config):
        tables, source = read_tables(config, NAME)
        return tables, source, here
    path = Path(os.path.abspath(config))     # noqa: PTH100  (keeps links)
    tables, source = read_tables(read_text(path), os.fspath(config))
    return tables, source, path.parent


def _copied(value: Any) -> Any:
    """Tables of any mappings, lists of any sequences, all of them new."""
    if isinstance(value, Mapping):
        return {key: _copied(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_copied(part) for part in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return copy.copy(value)


def _choose_ports(
    tables: Tables, source: Source, held: Held, running: Prepared | None
) -> None:
    """Puts ports in the place of port 0; for a listener that runs already, the one it has."""
    had = {listener.name: [str(bind) for bind in listener.binds]
           for listener in running.plan.listeners} if running else {}
    for index, listener in enumerate(_list(tables.get("listener"))):
        said = listener.get("bind")
        binds = [said] if isinstance(said, str) else said
        if not isinstance(binds, list):
            continue
        old = had.get(str(listener.get("name")), [])
        chosen = []
        for place, bind in enumerate(binds):
            if isinstance(bind, str) and bind.endswith(":0") and place < len(old) and (
                    old[place].rpartition(":")[0] == bind[:-2]):
                chosen.append(old[place])
                continue
            try:
                chosen.append(held.chosen(bind) if isinstance(bind, str) else bind)
            except OSError as error:
                raise ConfigError([source.problem(
                    ("listener", index, "bind"), f"cannot listen on {bind}: {error.strerror}",
                    "127.0.0.1:0")]) from error
        listener["bind"] = chosen


def _absolute(tables: Tables, home: Path) -> None:
    """Makes paths absolute that would start where the file is: that is another place."""
    for pool in _values(tables.get("pool")):
        if pool.get("wsgi") or pool.get("asgi"):
            pool["directory"] = _from(home, pool.get("directory", ""))
            for key in ("venv", "python"):
                if isinstance(pool.get(key), str) and (key == "venv" or "/" in pool[key]):
                    pool[key] = pool[key] and _from(home, pool[key])
            if isinstance(pool.get("watch_paths"), list):
                pool["watch_paths"] = [_from(home, path) for path in pool["watch_paths"]]


def _from(home: Path, path: Any) -> Any:
    return os.path.join(home, path) if isinstance(path, str) else path   # noqa: PTH118


def _talk_to_us(tables: Tables, directory: Path) -> None:
    """Where we reach it, and that it logs what we can read, unless the program says otherwise."""
    admin = tables.setdefault("admin", {})
    if isinstance(admin, dict):
        admin.setdefault("listen", f"unix:{directory}/admin.sock")
    log = tables.setdefault("log", {})
    if isinstance(log, dict) and log.get("path", "-") == "-":
        log.setdefault("format", "json")


def _list(value: Any) -> Iterator[Tables]:
    return (one for one in value if isinstance(one, dict)) if isinstance(value, list) else iter(())


def _values(value: Any) -> Iterator[Tables]:
    return (one for one in value.values() if isinstance(one, dict)) if isinstance(
        value, dict) else iter(())
