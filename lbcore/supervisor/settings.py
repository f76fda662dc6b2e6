"""Reading the configuration, and what of it concerns processes rather than traffic."""

from __future__ import annotations

import grp
import os
import pwd
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from lbcore.config import Config, Problem, to_plan
from lbcore.config.findings import unaccepted
from lbcore.config.host import host_warnings
from lbcore.config.load import Source, check_tables, read_tables
from lbcore.config.load import read_text as text_of
from lbcore.config.plan import Plan
from lbcore.supervisor.fleet import Settings
from lbcore.supervisor.instance import Instance
from lbcore.supervisor.worker import Identity


@dataclass(frozen=True)
class Read:
    """A configuration file that was read."""

    plan: Plan
    config: Config
    tables: dict[str, Any]   # as they stand in the file
    directory: str           # where paths in it begin
    source: Source           # where its keys stand, for problems that show only later
    warnings: list[Problem]
    text: str                # to be read once more by the version of an upgrade


def read(path: Path) -> Read:
    """The plan of a file. Raises ConfigError with every problem."""
    return read_text(text_of(path), path)


def read_text(text: str, path: Path) -> Read:
    """The plan of what a file contained at another time. Raises ConfigError with every problem."""
    file, directory = str(path), str(path.parent)
    tables, source = read_tables(text, file)
    config, doubts = check_tables(tables, source, directory)
    plan = to_plan(config)
    doubts = unaccepted([*doubts, *host_warnings(plan, source)], config.lbcore.accept_warnings)
    return Read(plan, config, tables, directory, source, doubts, text)


def settings_of(plan: Plan) -> Settings:
    """How worker processes are run. Raises LookupError when user or group do not exist."""
    cpus = sorted(psutil.Process().cpu_affinity() or []) if plan.pin_cpus else []
    return Settings(_identity(plan), tuple(cpus), plan.drain_timeout_ms, plan.hang_timeout_ms)


def changes_that_wait(instance: Instance, plan: Plan) -> list[str]:
    """Keys of a plan that only a new start puts into force: the instance goes on with others.

    Its admin address identifies it, and its pid file names it.
    """
    pid_file = Path(plan.pid_file) if plan.pid_file else None
    return [key for key, same in (("admin", instance.admin == plan.admin),
                                  ("pid_file", instance.pid_file == pid_file)) if not same]


def _identity(plan: Plan) -> Identity:
    if not plan.user or os.geteuid() != 0:       # host_warnings says so
        return Identity()
    try:
        user = pwd.getpwnam(plan.user)
    except KeyError:
        raise LookupError(f"user {plan.user!r} does not exist on this machine") from None
    if not plan.group:
        return Identity(user.pw_uid, user.pw_gid)
    try:
        return Identity(user.pw_uid, grp.getgrnam(plan.group).gr_gid)
    except KeyError:
        raise LookupError(f"group {plan.group!r} does not exist on this machine") from None
