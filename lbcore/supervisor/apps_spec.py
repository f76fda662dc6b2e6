"""What starts an application server: a pool's keys with paths, user and Python found out."""

from __future__ import annotations

import grp
import hashlib
import os
import pwd
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from lbcore.apps.command import TAKES_DESCRIPTOR, Place, command, environment
from lbcore.config.plan import AppPlan, PoolPlan
from lbcore.supervisor.apps_marks import MARK
from lbcore.supervisor.worker import Identity


class AppError(Exception):
    """An application cannot be run, or does not come up; the text says why."""


@dataclass(frozen=True)
class Spec:
    """Everything about the servers of a pool but their number and place."""

    pool: PoolPlan
    plan: AppPlan
    python: str
    directory: Path
    venv: str
    uid: int | None              # None: as the supervisor
    gid: int | None
    groups: tuple[int, ...]
    account: tuple[str, str] | None      # name and home
    fingerprint: str             # equal when nothing differs that a running server would notice

    @property
    def takes_descriptor(self) -> bool:
        """Whether the server serves a socket that it inherits."""
        return self.plan.server in TAKES_DESCRIPTOR

    def command(self, place: Place) -> list[str]:
        """The command line of a server at a place."""
        return command(self.plan, self.python, place, self.pool.http.keepalive_idle_ms // 1000)

    def environment(self, mark: str) -> dict[str, str]:
        """The variables of a server that carries this mark, which has its seal."""
        env = environment(self.plan, os.environ, self.venv, self.account)
        return env | {MARK: mark}


def spec_of(pool: PoolPlan, plan: AppPlan, home: Path, workers: Identity) -> Spec:
    """Finds out what a pool's application needs on this machine.

    ``home`` is the directory of the configuration, ``workers`` what lbcore's workers run as.
    Raises AppError when something is not there.
    """
    directory = home / plan.directory
    if not directory.is_dir():
        raise AppError(f"application of pool {pool.name}: there is no directory {directory} "
                       f"(see `directory`)")
    venv = str(home / plan.venv) if plan.venv else ""
    python = _python(pool.name, plan, home, venv)
    uid, gid, groups, account = _identity(pool.name, plan, workers)
    noticed = replace(plan, start_timeout_ms=0, watch=False, watch_paths=(), names=())
    facts = (noticed, plan.names, python, str(directory), venv, uid, gid,
             pool.http.keepalive_idle_ms)
    return Spec(pool, plan, python, directory, venv, uid, gid, groups, account,
                hashlib.sha256(repr(facts).encode()).hexdigest()[:16])


def _python(pool: str, plan: AppPlan, home: Path, venv: str) -> str:
    if venv:
        python, see = f"{venv}/bin/python", "venv"
    elif "/" in plan.python:
        python, see = str(home / plan.python), "python"
    elif plan.python:
        python, see = shutil.which(plan.python) or plan.python, "python"
    else:
        return sys.executable
    if not os.access(python, os.X_OK):
        raise AppError(f"application of pool {pool}: there is no Python at {python} (see `{see}`)")
    return python


def _identity(
    pool: str, plan: AppPlan, workers: Identity
) -> tuple[int | None, int | None, tuple[int, ...], tuple[str, str] | None]:
    if os.geteuid() != 0:
        return None, None, (), None
    try:
        if plan.user:
            user = pwd.getpwnam(plan.user)
            gid = grp.getgrnam(plan.group).gr_gid if plan.group else user.pw_gid
        elif workers.uid is not None:
            user = pwd.getpwuid(workers.uid)
            gid = workers.gid if workers.gid is not None else user.pw_gid
        else:
            return None, None, (), None
    except KeyError as error:
        raise AppError(f"application of pool {pool}: {error.args[0]} (see `user` and `group`)"
                       ) from None
    groups = tuple(os.getgrouplist(user.pw_name, gid))
    return user.pw_uid, gid, groups, (user.pw_name, user.pw_dir)
