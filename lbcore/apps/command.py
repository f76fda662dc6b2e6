"""The application servers: how each is told what to run, where to listen and when to give up.

All of them end gracefully on SIGTERM and are told to keep idle connections for longer than lbcore
does, so that it is never the server that closes one in the moment in which a request arrives.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lbcore.config.plan import AppPlan, AppServer

LAUNCH = Path(__file__).with_name("launch.py")
PUMP = Path(__file__).with_name("pump.py")
# A socket that lbcore holds too outlives a crash of the server, with everybody who waits at it.
TAKES_DESCRIPTOR: frozenset[AppServer] = frozenset({"gunicorn", "uvicorn", "hypercorn"})
SHARED_MEMORY = Path("/dev/shm")
# What tells a server of our own surroundings, which are not its: systemd's words to us.
_NOT_OURS = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "WATCHDOG_PID",
             "WATCHDOG_USEC", "PYTHONHOME")


@dataclass(frozen=True)
class Place:
    """Where a server listens: a descriptor that it inherits, or a path at which it makes its own
    socket (then ``descriptor`` is -1)."""

    path: Path
    descriptor: int = -1


def command(plan: AppPlan, python: str, place: Place, keepalive_s: int) -> list[str]:
    """The command line of a server; ``keepalive_s`` is how long lbcore keeps idle connections."""
    arguments = _ARGUMENTS[plan.server](plan, place, keepalive_s + 15, _stop_seconds(plan))
    target = f"wsgi:{plan.app}" if (plan.server, plan.kind) == ("hypercorn", "wsgi") else plan.app
    return [python, str(LAUNCH), plan.server, str(place.descriptor), *arguments, *plan.options,
            target]


def environment(
    plan: AppPlan, ours: Mapping[str, str], venv: str, account: tuple[str, str] | None
) -> dict[str, str]:
    """The variables of a server. ``account``: name and home of the user it becomes, if any."""
    env = {name: value for name, value in ours.items() if name not in _NOT_OURS}
    env.setdefault("PYTHONUNBUFFERED", "1")      # what it prints is seen at once
    if account is not None:
        env["USER"] = env["LOGNAME"] = account[0]
        env["HOME"] = account[1]
    if venv:
        env["VIRTUAL_ENV"] = venv
        env["PATH"] = os.pathsep.join(filter(None, [f"{venv}/bin", env.get("PATH", "")]))
    return env | dict(plan.env)


def _stop_seconds(plan: AppPlan) -> int:
    return max(1, math.ceil(plan.stop_timeout_ms / 1000))


def _gunicorn(plan: AppPlan, place: Place, keepalive: int, stop: int) -> list[str]:
    words = ["--workers", str(plan.workers), "--keep-alive", str(keepalive),
             "--graceful-timeout", str(stop)]
    if plan.threads:
        words += ["--worker-class", "gthread", "--threads", str(plan.threads)]
    if os.access(SHARED_MEMORY, os.W_OK):
        # Workers show that they live by touching a file; on a busy disk that can block them.
        words += ["--worker-tmp-dir", str(SHARED_MEMORY)]
    return words


def _uvicorn(plan: AppPlan, place: Place, keepalive: int, stop: int) -> list[str]:
    return ["--fd", str(place.descriptor), "--workers", str(plan.workers),
            "--timeout-keep-alive", str(keepalive), "--timeout-graceful-shutdown", str(stop),
            # Only lbcore reaches the socket, so what it says of the client is true.
            "--forwarded-allow-ips", "*", "--no-access-log", "--no-use-colors"]


def _hypercorn(plan: AppPlan, place: Place, keepalive: int, stop: int) -> list[str]:
    return ["--bind", f"fd://{place.descriptor}", "--workers", str(plan.workers),
            "--keep-alive", str(keepalive), "--graceful-timeout", str(stop)]


def _granian(plan: AppPlan, place: Place, keepalive: int, stop: int) -> list[str]:
    words = ["--uds", str(place.path), "--uds-permissions", "666", "--interface", plan.kind,
             "--workers", str(plan.workers), "--workers-kill-timeout", str(stop)]
    if plan.threads:
        words += ["--blocking-threads", str(plan.threads)]
    return words


def _daphne(plan: AppPlan, place: Place, keepalive: int, stop: int) -> list[str]:
    # At verbosity 1 it prints every request.
    return ["-u", str(place.path), "--verbosity", "0", "--proxy-headers"]


_ARGUMENTS = {"gunicorn": _gunicorn, "uvicorn": _uvicorn, "hypercorn": _hypercorn,
              "granian": _granian, "daphne": _daphne}
