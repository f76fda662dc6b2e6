"""From raw samples to medians, ratios and verdicts. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import TypeVar

from .works import Work

SUBJECT = "lbcore"
Item = TypeVar("Item")
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

    The best peer is the one other than lbcore with the best median; without any, there are no
    ratios.
    """
    mine = [s for s in samples if s.work == work.name]
    rows: list[tuple[str, list[Sample], dict[str, Spread]]] = []
    for peer in peers:
        all_of = [s for s in mine if s.peer == peer]
        good = [s for s in all_of if s.error is None]
        names = good[0].values if good else {}
        rows.append((peer, all_of, {n: spread([s.values[n] for s in good]) for n in names}))
    best = _best(work, {peer: values for peer, _, values in rows})
    result = []
    for peer, all_of, values in rows:
        own = values.get(work.metric)
        ratio = own.median / best if own and best else None
        failed = sum(s.error is not None for s in all_of)
        result.append(Row(peer, len(all_of) - failed, failed, values, ratio))
    return result


def _best(
    work: Work, values: Mapping[str, Mapping[str, Spread]], of: Sequence[str] = ()
) -> float | None:
    """The best median among ``of``, or all but lbcore; None when nothing was measured."""
    medians = [found[work.metric].median for peer, found in values.items()
               if peer != SUBJECT and work.metric in found and (not of or peer in of)]
    if of and len(medians) < len(of):
        return None
    return (max if work.more else min)(medians, default=None)


def verdict(work: Work, tables: Mapping[str, Sequence[Row]]) -> Verdict | None:
    """Judges lbcore's row by the work's target, if it has one. What was not measured is not met.

    ``tables``: the rows of all works by name.
    """
    target = work.target
    if target is None:
        return None
    row = _own(tables.get(work.name, ()))
    value: float | None = None
    if row is not None and work.metric in row.values:
        own = row.values[work.metric].median
        match target.than:
            case "value":
                value = own
            case "best":
                rows = {found.peer: found.values for found in tables[work.name]}
                best = _best(work, rows, target.peers)
                value = own / best if best else None
            case "work":
                other = _own(tables.get(target.other, ()))
                if other is not None and work.metric in other.values:
                    value = own / other.values[work.metric].median
    met = value is not None and row is not None and not row.failed and (
        value >= target.limit if work.more else value <= target.limit)
    return Verdict(work.name, target.said(more=work.more), value, met)


def _own(rows: Sequence[Row]) -> Row | None:
    return next((row for row in rows if row.peer == SUBJECT), None)


def rotated(items: Sequence[Item], by: int) -> list[Item]:
    """The items in a round's order: every round begins with the next one."""
    start = by % len(items) if items else 0
    return [*items[start:], *items[:start]]
