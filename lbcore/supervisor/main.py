"""``run``: from a configuration file to an exit code."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

from lbcore.config import ConfigError
from lbcore.config.plan import Plan
from lbcore.supervisor import upgrade
from lbcore.supervisor.activation import Activation
from lbcore.supervisor.instance import InstanceError
from lbcore.supervisor.log import Log, LogHandler
from lbcore.supervisor.manager import keep_told
from lbcore.supervisor.settings import Read
from lbcore.supervisor.supervisor import StartError, Supervisor


def run(config_path: Path, resume: int = -1) -> int:
    """Runs lbcore until it is told to end.

    Returns 0 after an orderly end, 2 when the configuration cannot be used (every problem is
    printed), 1 when something else is in the way. ``resume`` is the descriptor of the state that
    an earlier version left behind for an upgrade.
    """
    config_path = Path(os.path.abspath(config_path))    # noqa: PTH100  (keep the user's links)
    state = upgrade.receive(resume) if resume >= 0 else {}
    restoring = resume >= 0 and not state.get("over")
    # After an exec these descriptors are others, and what was passed is in the state.
    passed = Activation() if resume >= 0 else Activation.take(os.environ)
    try:
        found = upgrade.configuration(state, config_path)
    except ConfigError as error:
        return _bad_config(error)
    try:
        log = Log(found.plan.log)
    except OSError as error:
        print(f"lbcore: cannot open log {found.plan.log.path}: {error.strerror}", file=sys.stderr)
        return 2
    logging.basicConfig(handlers=[LogHandler(log)], force=True)
    for warning in found.warnings:
        log.warning("config.doubtful", message=str(warning))
    try:
        return asyncio.run(_live(config_path, found, log, passed, state if restoring else None))
    except ConfigError as error:
        return _bad_config(error)


async def _live(
    config: Path, found: Read, log: Log, passed: Activation, state: dict[str, Any] | None,
) -> int:
    try:
        if state is not None:
            supervisor = await upgrade.restore(config, found, log, state)
        else:
            supervisor = Supervisor.create(config, found.plan, log)
            supervisor.table.passed = passed
            _tell_of(passed, found.plan, log)
    except (InstanceError, OSError) as error:
        log.error("start.failed", message=str(error))
        return 1
    loop = asyncio.get_running_loop()
    actions: dict[signal.Signals, Any] = supervisor.handle_signals()
    for number, action in actions.items():
        loop.add_signal_handler(number, action)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, actions)
    telling = asyncio.create_task(keep_told(supervisor))
    try:
        over = asyncio.create_task(supervisor.run())
        if state is None:
            starting = asyncio.create_task(supervisor.start(found))
            await asyncio.wait({starting, over}, return_when=asyncio.FIRST_COMPLETED)
            if supervisor.stopping:     # told to end before it was up: whatever that broke is
                starting.cancel()       # no failure
                await asyncio.gather(starting, return_exceptions=True)
            else:
                await starting
        await over
    except StartError as error:
        log.error("start.failed", message=str(error))
        return error.exit_code
    finally:
        await supervisor.close()
        telling.cancel()
    log.info("stopped")
    return 0


def _tell_of(passed: Activation, plan: Plan, log: Log) -> None:
    """What was passed to us, and what of it nobody will serve."""
    if passed.given:
        log.info("activation", message="listening sockets were passed to lbcore",
                 sockets=", ".join(str(one) for one in passed.given))
    if any(one.blocking for one in passed.given) and "INVOCATION_ID" in os.environ:
        log.warning("activation.blocking", message="the unit lacks NonBlocking=yes: systemd will "
                    "make these sockets blocking below workers that outlive their supervisor")
    for why in passed.refused:
        log.warning("activation.refused", message=why)
    for one in passed.unused(plan):
        log.warning("activation.unused", socket=str(one),
                    message="no listener binds it, and who connects there waits for ever")


def _bad_config(error: ConfigError) -> int:
    for problem in error.problems:
        print(problem, file=sys.stderr)
    return 2
