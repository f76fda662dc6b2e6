"""``python -m lbcore.supervisor.preflight CONFIG TEXT``: does this version start?

TEXT is the descriptor of a file with the configuration in force, CONFIG the name of the file that
it was read from. Understands the configuration, imports everything, and takes one worker with a
scoreboard of its own through a plan without listeners. Touches nothing that a running instance
uses. Exit code 0, or 1 with the reason as the last line of its output.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from pathlib import Path

import lbcore.supervisor.main  # noqa: F401  (to prove that it can be imported)
from lbcore._scoreboard import Scoreboard
from lbcore.config import ConfigError
from lbcore.config.plan import Plan
from lbcore.supervisor import image
from lbcore.supervisor.apps import without_servers
from lbcore.supervisor.demo import with_demo_backends
from lbcore.supervisor.fleet import Fleet, LaunchError
from lbcore.supervisor.groups import SocketTable
from lbcore.supervisor.instance import Instance
from lbcore.supervisor.log import Log
from lbcore.supervisor.rows import Key
from lbcore.supervisor.settings import read_text, settings_of


async def try_worker(plan: Plan, directory: Path) -> None:
    """Takes one worker to its first plan and ends it.

    Raises LaunchError, ResolveError, LookupError, ValueError or OSError.
    """
    plan = without_servers(with_demo_backends(plan, directory), directory)
    plan = image.without_listeners(plan)
    instance = Instance(plan.admin, directory / "lock", -1, directory,
                        os.open(directory, os.O_PATH | os.O_DIRECTORY))
    fleet = Fleet(Scoreboard.create(), 0, os.eventfd(0), SocketTable(), instance, Log(),
                  lambda: (0, 0, 0, 0))
    fleet.settings = settings_of(plan)
    rows = image.Rows({}, _numbered(image.pool_keys(plan)), _numbered(image.backend_keys(plan)))
    # Names keep the addresses that the running version has found, so nobody asks for them here.
    members = image.members(plan, rows, dict.fromkeys(image.hosts(plan), "127.0.0.1"))
    fleet.set_plan(1, image.build(1, plan, rows, members, await image.tables(plan, {})), plan)
    try:
        await fleet.start(1)
        if not fleet.complete:
            raise LaunchError(fleet.slots[0].error)
    finally:
        await fleet.stop_all()


def _numbered(keys: list[Key]) -> dict[Key, int]:
    return {key: row for row, key in enumerate(keys)}


def check(config: Path, text: str) -> str:
    """Why this version does not start with a configuration; "" when it does."""
    try:
        plan = read_text(text, config).plan
        with tempfile.TemporaryDirectory(prefix="lbcore-") as directory:
            asyncio.run(try_worker(plan, Path(directory)))
    except ConfigError as error:
        return "; ".join(str(problem) for problem in error.problems)
    except (LaunchError, image.ResolveError, LookupError, ValueError, OSError) as error:
        return str(error)
    return ""


if __name__ == "__main__":
    with os.fdopen(int(sys.argv[2]), encoding="utf-8") as in_force:
        problem = check(Path(sys.argv[1]), in_force.read())
    if problem:
        print(problem, file=sys.stderr)
    sys.exit(1 if problem else 0)
