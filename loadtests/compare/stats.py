"""From raw samples to medians, ratios and verdicts. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median

from .works import Work

SUBJECT = "lbcore"
DISTURBED_SHARE = 0.08          # of a core that programs outside the comparison used


@dataclass(frozen=True)
class Sample:
    """What one peer did in one round of one work; ``error`` says why it does not count."""

    work: str
    peer: str
    round: int
    values: dict[str, float] = field(default_factory=dict)
    error: str | None = None


@dataclass(frozen=True)
class Spread:
    """Median of a value over the rounds, with its least and greatest."""

    median: float
    least: float
    greatest: float


@dataclass(frozen=True)
class Row:
    """One peer's line in the table of one work."""

    peer: str
    rounds: int
    failed: int
    values: dict[str, Spread]
    ratio: float | None         # of the work's metric to that of the best peer but lbcore


@dataclass(frozen=True)
class Verdict:
    """Whether lbcore reached a target; ``value`` is None when it could not be told."""

    work: str
    target: str
    value: float | None
    met: bool


def spread(values: Sequence[float]) -> Spread:
    """Median and range; raises ValueError when there are none."""
    if not values:
        raise ValueError("no values")
    return Spread(median(values), min(values), max(values))


def table(work: Work, samples: Iterable[Sample], peers: Sequence[str]) -> list[Row]:
    """A row for each peer, in the order given.

    The best peer is the one other than lbcore with the least median; without any, there are no
    ratios.
    """
    mine = [s for s in samples if s.work == work.name]
    rows: list[tuple[str, list[Sample], dict[str, Spread]]] = []
    for peer in peers:
        all_of = [s for s in mine if s.peer == peer]
        good = [s for s in all_of if s.error is None]
        names = good[0].values if good else {}
        rows.append((peer, all_of, {n: spread([s.values[n] for s in good]) for n in names}))
    others = [v[work.metric].median for p, _, v in rows if p != SUBJECT and work.metric in v]
    best = min(others, default=None)
    result = []
    for peer, all_of, values in rows:
        own = values.get(work.metric)
        ratio = own.median / best if own and best else None
        failed = sum(s.error is not None for s in all_of)
        result.append(Row(peer, len(all_of) - failed, failed, values, ratio))
    return result


def verdict(work: Work, rows: Sequence[Row]) -> Verdict:
    """Judges lbcore's row by the work's target. What was not measured is not met."""
    row = next((r for r in rows if r.peer == SUBJECT), None)
    value: float | None = None
    if row is not None and work.metric in row.values:
        value = row.ratio if work.target.relative else row.values[work.metric].median
    met = value is not None and value <= work.target.limit and row is not None and not row.failed
    return Verdict(work.name, str(work.target), value, met)


def rotated(names: Sequence[str], by: int) -> list[str]:
    """The names in a round's order: every round begins with the next one."""
    start = by % len(names) if names else 0
    return [*names[start:], *names[:start]]
