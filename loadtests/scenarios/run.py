"""One run of a scenario, from its first process to its verdict."""

from __future__ import annotations

import csv
import json
import shutil
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from loadtests.compare.procs import HarnessError, Processes

from . import disturb, load, measure
from .families import FAMILIES
from .limits import Aftermath, Check, Told
from .records import Moment, read_failures, read_timeline
from .scenario import AnyScenario
from .screen import Progress
from .stage import Stage, stage

STEP = 0.05             # seconds between looks
STARTS_WITHIN = 40.0    # seconds until Locust and its workers have begun
CLOSES_WITHIN = 5.0     # seconds until lbcore has closed what its clients have left


@dataclass(frozen=True)
class Settings:
    """How a scenario is run. ``locust_workers``: 0 for Locust in one process."""

    seconds: int
    users: int
    workers: int = 2
    locust_workers: int = 0
    reload_every: float = 0.2
    slack: float = 1.0


@dataclass(frozen=True)
class Outcome:
    """The checks, and what should be said beside them."""

    checks: list[Check]
    remarks: list[str]

    @property
    def passed(self) -> bool:
        """Whether every limit holds."""
        return all(check.met for check in self.checks)


def run(scenario: AnyScenario, settings: Settings, out: Path) -> Outcome:
    """Runs it and writes everything to ``out``, whose contents it replaces.

    Raises HarnessError when the run could not be carried out; everything that was started has
    ended in any case.
    """
    _empty(out)
    progress = Progress(scenario.name, settings.seconds)
    try:
        with Processes() as processes:
            progress.say("starting lbcore and its backends")
            cast = FAMILIES[scenario.family].cast
            with stage(processes, cast, scenario.backends, settings.workers, out) as there:
                outcome = _on(there, processes, scenario, settings, out, progress)
    finally:
        progress.done()
    (out / "verdict.json").write_text(json.dumps({
        "scenario": scenario.name, "passed": outcome.passed, "settings": asdict(settings),
        "checks": [asdict(check) for check in outcome.checks], "remarks": outcome.remarks,
    }, indent=2) + "\n")
    return outcome


def _empty(out: Path) -> None:
    """Makes the directory anew; refuses to empty one that no run has written."""
    if out.exists() and any(out.iterdir()):
        if not (out / "lb.toml").exists():
            raise HarnessError(f"{out} holds something else than results: name another with --out")
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)


def _on(
    there: Stage, processes: Processes, scenario: AnyScenario, settings: Settings, out: Path,
    progress: Progress,
) -> Outcome:
    balancer, family = there.balancer, FAMILIES[scenario.family]
    before = balancer.workers()
    disturbance = family.disturbance(scenario, there, settings.seconds, settings.reload_every)
    with tempfile.TemporaryDirectory(prefix="lbcore-load-") as name:
        records = Path(name)
        work = load.Load(scenario, settings.users, settings.seconds, balancer.ports.listener,
                         settings.locust_workers, out, records)
        progress.say("starting Locust")
        timeline = _watch(there, load.start(processes, work), work, disturbance, progress)
        progress.say("collecting")
        disturbance.finish()
        failures = read_failures(records)
        for file in records.iterdir():
            shutil.copy(file, out / file.name)
    left_open = balancer.left_open(CLOSES_WITHIN)
    connections = [int(found["connections"]) for found in balancer.backends()]
    aftermath = Aftermath(
        before, balancer.workers(), left_open, balancer.stop(processes), connections)
    seen = measure.read(out / "stats.json")
    told = Told(settings.users, settings.seconds, max(moment.users for moment in timeline),
                settings.slack)
    checks = family.judge(scenario, seen, failures, disturbance.happened, aftermath, told)
    bugs = _exceptions(out / "exceptions.csv")
    checks.append(Check("errors in the users' own code", "0", f"{len(bugs)}", not bugs))
    return Outcome(checks, [*family.explain(failures, disturbance.happened), *bugs])


def _watch(
    there: Stage, locust: load.Locust, work: load.Load, disturbance: disturb.Quiet,
    progress: Progress,
) -> list[Moment]:
    """Accompanies the load to its end and returns its timeline."""
    launched = time.monotonic()
    begun: float | None = None
    while not locust.over():
        there.check()
        now = time.monotonic()
        timeline = read_timeline(work.records)
        if timeline:
            begun = timeline[0].at
            elapsed = now - begun
            word = disturbance.step(elapsed) if elapsed < work.seconds else ""
            progress.show(elapsed, timeline[-1], word)
        if begun is None and now - launched > STARTS_WITHIN:
            raise HarnessError(f"Locust did not begin within {STARTS_WITHIN:g} s")
        if begun is not None and now - begun > work.seconds + work.slack:
            raise HarnessError(f"Locust did not end within {work.slack:g} s after its time")
        time.sleep(STEP)
    timeline = read_timeline(work.records)
    if not timeline:
        raise HarnessError("Locust ended before it began; see locust.log")
    return timeline


def _exceptions(path: Path) -> list[str]:
    with path.open(newline="") as file:
        return [f"{row['Count']} x {row['Message']}" for row in csv.DictReader(file)]
