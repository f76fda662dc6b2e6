"""The limits that every scenario has, whoever its users are. Nothing here does anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .measure import Measured
from .scenario import AnyScenario


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
class Told:
    """What was asked for, and how many users there were at most."""

    users: int
    seconds: float
    most_users: int
    slack: float = 1.0          # for latencies and throughput only


def common(
    scenario: AnyScenario, seen: Measured, aftermath: Aftermath, told: Told
) -> list[Check]:
    """Latency, throughput, users, and what lbcore was like at the end."""
    return [
        *_latencies(scenario, seen, told.slack),
        *_throughput(scenario, seen, told),
        Check("users at once", f"{told.users}", f"{told.most_users}",
              told.most_users == told.users),
        *_aftermath(aftermath),
    ]


def reloads(asked: int, done: int, behind: int) -> list[Check]:
    """Every reload is in force, in all workers."""
    return [
        Check("reloads in force", f"{asked}", f"{done}", done == asked > 0),
        Check("workers without the last plan", "0", f"{behind}", behind == 0),
    ]


def _latencies(scenario: AnyScenario, seen: Measured, slack: float) -> list[Check]:
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
    scenario: AnyScenario, seen: Measured, told: Told
) -> list[Check]:
    checks = []
    for request, offered in scenario.offered(told.seconds, told.users).items():
        least = offered * scenario.delivered / told.slack / told.seconds
        made = seen.of(request).requests / told.seconds
        checks.append(Check(
            f"{request} per second", f">= {least:.1f}", f"{made:.1f}", made >= least))
    return checks


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
