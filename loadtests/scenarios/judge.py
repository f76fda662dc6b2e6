"""The verdict with echo backends: every limit, what was found, and whether it holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .happened import Death, Happened, killed
from .limits import Aftermath, Check, Told, common, reloads
from .measure import Measured
from .records import Failure
from .scenario import AnyScenario

# A reset may wait this long for its turn in Locust's process before its moment is taken, seconds.
NOTICED_WITHIN = 2.0
RECOVERS_WITHIN = 5.0   # seconds from a backend's start to its first new connections


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
    scenario: AnyScenario, seen: Measured, failures: Sequence[Failure], happened: Happened,
    aftermath: Aftermath, told: Told,
) -> list[Check]:
    """Every check of the scenario."""
    return [
        *_failures(seen, failures, happened),
        *common(scenario, seen, aftermath, told),
        *_disturbance(scenario, failures, happened),
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


def _disturbance(
    scenario: AnyScenario, failures: Sequence[Failure], happened: Happened
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
        return reloads(happened.reloads_asked, happened.reloads_done, happened.plans_behind)
    return []


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
