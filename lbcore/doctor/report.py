"""Puts the report together."""

from __future__ import annotations

from collections.abc import Mapping

from lbcore.config.plan import Plan
from lbcore.config.problems import Problem
from lbcore.doctor import kernel, limits, sysctl
from lbcore.doctor.limits import Running
from lbcore.doctor.model import Check, Json, Level, Report
from lbcore.doctor.needs import Needs
from lbcore.supervisor.limits import connections_within


def examine(
    plan: Plan | None, running: Running | None = None, obstacles: list[Problem] | None = None,
    sysctls: Mapping[str, str] | None = None,
) -> Report:
    """Looks at this machine for a plan; without one, for the defaults.

    ``obstacles``: what was found that keeps lbcore from starting here. ``sysctls``: kernel settings
    instead of this machine's.
    """
    needs = Needs.of(plan)
    values = sysctl.read() if sysctls is None else sysctls
    report = Report(uses=uses(needs, running))
    report.checks += kernel.checks()
    report.checks += limits.checks(needs, running, values)
    report.checks += sysctl.checks(needs, values)
    report.checks += [
        Check("configuration", problem.key or problem.file, problem.message, Level.PROBLEM,
              problem.hint) for problem in obstacles or ()]
    return report


def uses(needs: Needs, running: Running | None) -> Json:
    """What lbcore will use of the machine; with a running instance, what it uses."""
    limit, _ = limits.limit_for(running)
    found: Json = {
        "workers": needs.workers,
        "descriptors_per_worker": limit,
        "connections": connections_within(limit, needs.listening) * needs.workers,
        "connections_configured": needs.connections or None,
        "listening_sockets": needs.listening * needs.workers,
        "pipes": needs.pipes,
        "running": None,
    }
    if running is not None:
        found["running"] = {"pid": running.pid, "workers": list(running.workers),
                            "version": running.version, "resident_bytes": running.resident()}
    return found
