"""What this machine has against the applications and sources of a plan: what does not exist."""

from __future__ import annotations

import grp
import importlib.util
import os
import pwd
import shutil
from collections.abc import Iterator
from pathlib import Path

from lbcore.config.load import Source
from lbcore.config.plan import AppPlan, Plan
from lbcore.config.problems import Problem


def app_problems(plan: Plan, source: Source) -> list[Problem]:
    """What keeps applications from starting here. Paths count from the file of ``source``."""
    home = Path(os.path.abspath(source.file)).parent    # noqa: PTH100  (keep the user's links)
    found = [source.problem(("pool", pool.name, key), message, hint)
             for pool in plan.pools if pool.app is not None
             for key, message, hint in (*_places(pool.app, home), *_accounts(pool.app))]
    return found + [
        source.problem(("pool", pool.name, "discover", "directory"),
                       f"there is no directory {pool.discover.directory}",
                       "where the function's module is")
        for pool in plan.pools if pool.discover is not None
        and pool.discover.python and not Path(pool.discover.directory).is_dir()]


def app_warnings(plan: Plan, source: Source) -> list[Problem]:
    """What of applications has no effect here."""
    uid = os.geteuid()
    if uid == 0:
        return []
    message = f"this has no effect: only root can change it, and this is user {uid}"
    return [source.problem(("pool", pool.name, key), message, "leave it out", "no-effect")
            for pool in plan.pools if pool.app is not None
            for key, name in (("user", pool.app.user), ("group", pool.app.group)) if name]


def _places(app: AppPlan, home: Path) -> Iterator[tuple[str, str, str]]:
    if not (home / app.directory).is_dir():
        yield ("directory" if app.directory else app.kind,
               f"there is no directory {home / app.directory}",
               "an absolute path, or one relative to this file")
    if app.venv:
        if not os.access(home / app.venv / "bin" / "python", os.X_OK):
            yield ("venv", f"there is no Python in {home / app.venv}",
                   f"python3 -m venv {home / app.venv}")
    elif app.python:
        place = str(home / app.python) if "/" in app.python else shutil.which(app.python)
        if place is None or not os.access(place, os.X_OK):
            yield "python", f"there is no Python at {place or app.python}", "a path, or its name"
    elif importlib.util.find_spec(app.server) is None:
        yield ("server",
               f"{app.server} is not installed beside lbcore",
               f"pip install {app.server}, or name where it is: venv = PATH")


def _accounts(app: AppPlan) -> Iterator[tuple[str, str, str]]:
    if os.geteuid() != 0:
        return
    for key, name, look_up in (("user", app.user, pwd.getpwnam), ("group", app.group,
                                                                   grp.getgrnam)):
        try:
            if name:
                look_up(name)
        except KeyError:
            yield key, f'this machine has no {key} "{name}"', f"create it, or name another {key}"
