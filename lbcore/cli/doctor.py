"""``lbcore doctor`` and ``lbcore ready``: is this machine fit for lbcore, and does lbcore serve?"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from lbcore.cli.instance import client_of, running
from lbcore.cli.options import DEFAULT_CONFIGS, State
from lbcore.cli.tables import Column, Line, Said, Table, Tone, counted, emit

if TYPE_CHECKING:
    from lbcore.config import Plan, Problem
    from lbcore.doctor import Report
    from lbcore.doctor.limits import Running

READY_PATIENCE = 5.0         # seconds for an answer, as health checks of containers give
DOCTOR_PATIENCE = 5.0
TONES: dict[str, Tone] = {"ok": "good", "note": "quiet", "advice": "doubtful", "problem": "bad"}


@click.command()
@click.option("--all", "everything", is_flag=True,
              help="Show also what is fine, and the lines of notes.")
@running
@click.pass_obj
def doctor(state: State, everything: bool) -> int:
    """Say what this machine offers to lbcore, and what to change.

    Looks at the kernel, limits, network settings, CPUs and memory, and says what lbcore will use
    of them with its configuration. Works with and without a running instance. Exits with 0 when
    all is well, with 1 when there is advice, with 2 when something keeps lbcore from working.
    """
    from lbcore.doctor import examine  # noqa: PLC0415

    alive = _running(state)
    plan, obstacles = _plan(state, alive)
    report = examine(plan, alive, obstacles)
    if state.json:
        click.echo(json.dumps(report.as_dict(), indent=2))
    else:
        emit(state, _lines(report, alive, plan is not None, everything))
    return report.exit_code


@click.command()
@running
@click.pass_obj
def ready(state: State) -> int:
    """Exit with 0 when traffic can be sent to the running instance, otherwise with 1.

    For health checks of containers and service managers. Says what is missing.
    """
    from lbcore.admin import calls  # noqa: PLC0415
    from lbcore.admin.client import AdminError, NotRunning  # noqa: PLC0415

    try:
        said = client_of(state, READY_PATIENCE).do(calls.ready())
    except (NotRunning, AdminError) as error:
        raise click.ClickException(str(error)) from error
    fine = said["status"] == 200
    if state.json:
        click.echo(json.dumps({"ok": fine, "message": said["text"].strip()}, indent=2))
    else:
        click.echo(said["text"].strip() or "ready")
    return 0 if fine else 1


def _plan(state: State, alive: Running | None) -> tuple[Plan | None, list[Problem]]:
    """The plan, and what keeps it from starting here; nothing without a configuration.

    Raises ConfigError for a bad one.
    """
    if state.config is None and not any(path.exists() for path in DEFAULT_CONFIGS):
        return None, []
    from lbcore.config import load_file, to_plan  # noqa: PLC0415
    from lbcore.config.host import host_problems, own_processes  # noqa: PLC0415

    loaded = load_file(state.config_path())
    plan = to_plan(loaded.config)
    # A running instance has shown that it can.
    return plan, [] if alive else host_problems(plan, loaded.source, ignore=own_processes(plan))


def _running(state: State) -> Running | None:
    from lbcore.admin.client import AdminError, NotRunning  # noqa: PLC0415
    from lbcore.doctor.limits import Running  # noqa: PLC0415

    try:
        said = client_of(state, DOCTOR_PATIENCE).status()
    except (NotRunning, AdminError):
        return None
    pids = tuple(int(worker["pid"]) for worker in said["workers"] if worker["pid"])
    return Running(int(said["pid"]), pids, str(said["version"]))


def _lines(
    report: Report, alive: Running | None, configured: bool, everything: bool
) -> Iterator[Line | Table]:
    if not configured:
        yield Said("no configuration: looked at with the defaults; name one with -c FILE", "quiet")
    uses = report.uses
    yield (f"running: lbcore {alive.version}, pid {alive.pid}" if alive else "not running")
    yield (f"{counted(uses['workers'], 'worker')} with "
           f"{uses['descriptors_per_worker']:,} descriptors each: "
           f"{uses['connections']:,} connections"
           + (f", of which {uses['connections_configured']:,} are configured"
              if uses["connections_configured"] else ""))
    for section, checks in report.sections():
        shown = [check for check in checks if everything or check.level != "ok"]
        fine = len(checks) - sum(check.level != "ok" for check in checks)
        yield ""
        if not shown:
            yield [Said(section, "strong"), f": {fine} looked at, all fine"]
            continue
        yield Said(section, "strong")
        yield Table(
            ["", "SETTING", "NOW", "BETTER", Column("WHY")],
            [[Said(check.level.value, TONES[check.level.value]), check.name, check.value,
              check.wanted or None, check.why or None] for check in shown])
    yield from _changes(report.changes(notes=everything))


def _changes(changes: dict[str, list[str]]) -> Iterator[Line | Table]:
    for where, lines in changes.items():
        yield ""
        yield Said(f"# {where}", "strong")
        yield from lines
    if changes:
        yield ""
        load = "sysctl --system; " if any("/sysctl.d/" in where for where in changes) else ""
        yield Said(f"then: {load}systemctl restart lbcore", "quiet")
