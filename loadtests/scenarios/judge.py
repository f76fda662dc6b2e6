"""The verdict: every limit, what was found, and whether it holds. Nothing here does anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .catalog import Scenario
from .happened import Death, Happened, killed
from .measure import Measured
from .records import Failure

# A reset may wait this long for its turn in Locust's process before its moment is taken, seconds.
NOTICED_WITHIN = 2.0
RECOVERS_WITHIN = 5.0   # seconds from a backend's start to its first new connections


@dataclass(frozen=True)
class Check:
    """One limit and what was found."""

    name: str
    limit: str
    found: str
    met: bool


@dataclass(frozen=True)
class Aftermath:
    """What lbcore looked like when the load was over."""

    workers_before: Sequence[int]       # process numbers
    workers_after: Sequence[int]
    left_open: int                      # client connections
    exit_code: int | None               # None: it had to be killed
    connections: Sequence[int]          # that each backend was given


@dataclass(frozen=True)
class Attributed:
    """Failures by what they are explained by."""

    established: list[Failure]          # on a backend that was killed
    in_flight: list[Failure]            # opening at the moment of a death
    unexplained: list[Failure]


def attribute(failures: Sequence[Failure], deaths: Sequence[Death]) -> Attributed:
    """Finds the death that each failure is due to.

    A connection that was established on a killed backend cannot outlive it. One that was just
    being opened may have reached the backend already: its question is lost with the backend, and
    asking another one is not for a tcp balancer to decide. One that was begun after the backend
    had gone has no excuse.
    """
    found = Attributed([], [], [])
    for failure in failures:
        death = killed(deaths, failure.who)
        if death is not None and failure.ended >= death.began:
            found.established.append(failure)
        elif failure.who is None and failure.request == "open" and any(
            failure.began <= one.gone and one.began <= failure.ended <= one.gone + NOTICED_WITHIN
            for one in deaths
        ):
            found.in_flight.append(failure)
        else:
            found.unexplained.append(failure)
    return found


def judge(
    scenario: Scenario, seen: Measured, failures: Sequence[Failure], happened: Happened,
    aftermath: Aftermath, *, users: int, seconds: float, most_users: int, slack: float = 1.0,
) -> list[Check]:
    """Every check of the scenario. ``slack`` is for latencies and throughput only."""
    return [
        *_failures(seen, failures, happened),
        *_latencies(scenario, seen, slack),
        *_throughput(scenario, seen, users, seconds, slack),
        Check("users at once", f"{users}", f"{most_users}", most_users == users),
        *_disturbance(scenario, failures, happened),
        *_aftermath(aftermath),
    ]


def _failures(
    seen: Measured, failures: Sequence[Failure], happened: Happened
) -> list[Check]:
    found = attribute(failures, happened.deaths)
    count = len(found.unexplained)
    of = "failures" if not happened.deaths else "failures not due to a death"
    return [
        Check(of, "0", f"{count} of {seen.requests:,} requests", count == 0),
        # Otherwise what is judged above is not what happened.
        Check("failures on record", f"{seen.failures}", f"{len(failures)}",
              len(failures) == seen.failures),
    ]


def _latencies(scenario: Scenario, seen: Measured, slack: float) -> list[Check]:
    checks = []
    for limit in scenario.latencies:
        counted = seen.of(limit.request)
        for share, most in limit.points():
            value = counted.percentile(share)
            checks.append(Check(
                f"{limit.request} p{share * 100:g}", f"<= {most * slack:g} ms", f"{value} ms",
                counted.requests > 0 and value <= most * slack))
    return checks


def _throughput(
    scenario: Scenario, seen: Measured, users: int, seconds: float, slack: float
) -> list[Check]:
    checks = []
    for request, offered in scenario.offered(seconds, users).items():
        least, made = offered * scenario.delivered / slack / seconds, seen.of(request).requests
        checks.append(Check(
            f"{request} per second", f">= {least:.1f}", f"{made / seconds:.1f}",
            made / seconds >= least))
    return checks


def _disturbance(
    scenario: Scenario, failures: Sequence[Failure], happened: Happened
) -> list[Check]:
    if scenario.disturbance == "deaths":
        found = attribute(failures, happened.deaths)
        checks = []
        for death in happened.deaths:
            lost = sum(failure.who == death.who for failure in found.established)
            # Nothing lost would mean that nobody was there: the death tried nothing.
            checks.append(Check(f"connections lost with {death.who}", ">= 1", f"{lost}", lost > 0))
            number = death.who.backend
            after = happened.returned.get(number)
            checks.append(Check(
                f"b{number} is used again", f"within {RECOVERS_WITHIN:g} s",
                "never" if after is None else f"after {after:.1f} s",
                after is not None and after <= RECOVERS_WITHIN))
        return checks
    if scenario.disturbance == "reloads":
        asked, done = happened.reloads_asked, happened.reloads_done
        return [
            Check("reloads in force", f"{asked}", f"{done}", done == asked > 0),
            Check("workers without the last plan", "0", f"{happened.plans_behind}",
                  happened.plans_behind == 0),
        ]
    return []


def _aftermath(after: Aftermath) -> list[Check]:
    same = list(after.workers_before) == list(after.workers_after)
    return [
        Check("backends used", f"{len(after.connections)}",
              f"{sum(count > 0 for count in after.connections)}", all(after.connections)),
        Check("workers", "the same processes",
              "the same" if same else f"{after.workers_before} became {after.workers_after}", same),
        Check("connections left open", "0", f"{after.left_open}", after.left_open == 0),
        Check("lbcore's exit code", "0",
              "killed" if after.exit_code is None else f"{after.exit_code}", after.exit_code == 0),
    ]


def explain(failures: Sequence[Failure], happened: Happened) -> list[str]:
    """Sentences about failures that a death explains, and the first of those that none does."""
    found = attribute(failures, happened.deaths)
    lines = []
    for death in happened.deaths:
        lost = sum(failure.who == death.who for failure in found.established)
        lines.append(f"{death.who} was killed: {lost} connections that were established on it "
                     f"were lost with it")
    if found.in_flight:
        lines.append(f"{len(found.in_flight)} connections were being opened through a backend at "
                     f"the moment it was killed; their first question was lost with it")
    lines += [f"unexplained: {failure.request} on {failure.who or 'no backend yet'}, after "
              f"{failure.ended - failure.began:.3f} s: {failure.error}"
              for failure in found.unexplained[:10]]
    if (more := len(found.unexplained) - 10) > 0:
        lines.append(f"... and {more} more unexplained ones, see failures.csv")
    return lines
