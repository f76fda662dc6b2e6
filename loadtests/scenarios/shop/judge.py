"""The verdict with a shop: every limit, what was found, and whether it holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ..happened import Happened, Trouble
from ..limits import Aftermath, Check, Told, common, reloads
from ..measure import Measured
from ..records import Failure
from ..scenario import STARTING, AnyScenario
from .catalog import ABUSE, APP, BURST, INSTANCES, RATE, RESTART, RESTARTS

# A session that was lost is noticed when its customer comes again, seconds.
NOTICED_WITHIN = 6.0
ALLOWED_SHARE = 0.8             # of the rate that abusers must have been given at least
RECOVERS_WITHIN = 8.0           # seconds from an instance's recovery to its first requests
OVER = ("restarted", "replaced")
MAY_FAIL = {"buy", "login", "upload"}       # not safe to be sent twice: a 503 of these is passed on


def excuse(failure: Failure, troubles: Sequence[Trouble]) -> Trouble | None:
    """The trouble of an instance that the failure is due to, if there is one.

    A session, and a place in the chat, live in an instance: they are lost with it, and while it is
    kept out of the traffic. What an instance that fails answers to a request that must not be sent
    twice is the customer's. Everything else has no excuse: lbcore had other instances.
    """
    for trouble in troubles:
        if failure.who != trouble.who or failure.ended < trouble.began:
            continue
        if failure.error.startswith("Stranger:"):
            if trouble.kind in OVER or failure.began <= trouble.ended + NOTICED_WITHIN:
                return trouble
        elif trouble.kind in OVER:
            if failure.request == "message":
                return trouble
        elif trouble.kind == "flapping" and failure.request in MAY_FAIL and (
            failure.error.startswith("Unexpected: POST ") and ": 503 " in failure.error
            and failure.began <= trouble.ended
        ):
            return trouble
    return None


def judge(
    scenario: AnyScenario, seen: Measured, failures: Sequence[Failure], happened: Happened,
    aftermath: Aftermath, told: Told,
) -> list[Check]:
    """Every check of the scenario."""
    unexcused = [one for one in failures if excuse(one, happened.troubles) is None]
    of = "failures without an excuse" if happened.troubles else "failures"
    checks = [
        Check(of, "0", f"{len(unexcused)} of {seen.requests:,} requests", not unexcused),
        # Otherwise what is judged above is not what happened.
        Check("failures on record", f"{seen.failures}", f"{len(failures)}",
              len(failures) == seen.failures),
        *common(scenario, seen, aftermath, told),
    ]
    if scenario.disturbance == "reloads":
        checks += reloads(
            happened.reloads_asked, happened.reloads_done, happened.plans_behind)
    if scenario.name == ABUSE.name:
        checks += _abuse(seen, told)
    return checks + _troubles(scenario, failures, happened)


def _abuse(seen: Measured, told: Told) -> list[Check]:
    """The abusers had what one address may have, and were refused the rest."""
    # Between the first request and the last, with a second for the ends of the run.
    most = RATE * (told.seconds + 1) + BURST
    least = ALLOWED_SHARE * RATE * (told.seconds - STARTING) / told.slack
    admitted, refused = (seen.of(name).requests for name in ("admitted", "refused"))
    return [
        Check("searches of the abusers that were let through", f"<= {most:.0f}", f"{admitted}",
              admitted <= most),
        Check("and no fewer", f">= {least:.0f}", f"{admitted}", admitted >= least),
        Check("searches of the abusers that were refused", ">= 1", f"{refused}", refused > 0),
    ]


def _troubles(
    scenario: AnyScenario, failures: Sequence[Failure], happened: Happened
) -> list[Check]:
    checks = []
    if scenario.name == APP.name:
        ended = len(happened.troubles)
        lost = sum(excuse(one, happened.troubles) is not None for one in failures)
        checks += [
            Check("servers replaced", f"{INSTANCES * len(RESTARTS)}", f"{ended}",
                  ended == INSTANCES * len(RESTARTS)),
            # Nothing lost would mean that nobody was there: the restarts tried nothing.
            Check("sessions and chats that ended with them", ">= 1", f"{lost}", lost > 0),
        ]
        return checks
    for trouble in happened.troubles:
        number = trouble.who.backend
        after = happened.returned.get(number)
        checks.append(Check(
            f"b{number} is used again", f"within {RECOVERS_WITHIN:g} s",
            "never" if after is None else f"after {after:.1f} s",
            after is not None and after <= RECOVERS_WITHIN))
        if scenario.name == RESTART.name:
            lost = sum(excuse(one, [trouble]) is not None for one in failures)
            # Nothing lost would mean that nobody was there: the restart tried nothing.
            checks.append(Check(f"sessions and chats that ended with {trouble.who}", ">= 1",
                                f"{lost}", lost > 0))
    return checks


def explain(failures: Sequence[Failure], happened: Happened) -> list[str]:
    """Sentences about failures that are excused, and the first of those that are not."""
    lines = []
    for trouble in happened.troubles:
        excused = Counter(
            "session" if one.error.startswith("Stranger:") else one.request
            for one in failures if excuse(one, [trouble]) is trouble)
        told = ", ".join(f"{count} x {what}" for what, count in sorted(excused.items()))
        lines.append(f"{trouble.who} was {trouble.kind}: lost with it {told or 'nothing'}")
    unexcused = [one for one in failures if excuse(one, happened.troubles) is None]
    lines += [f"unexplained: {one.request} at {one.who or 'no instance'}, after "
              f"{one.ended - one.began:.3f} s: {one.error}" for one in unexcused[:10]]
    if (more := len(unexcused) - 10) > 0:
        lines.append(f"... and {more} more unexplained ones, see failures.csv")
    return lines
