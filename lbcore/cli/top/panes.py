"""What ``lbcore top`` shows: panes of rows, made from the picture that the stream sends.

Pure: a picture in, rows out. Every cell has the value that it is sorted by beside the text that
is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from lbcore.cli.tables import (
    Said,
    Tone,
    ago,
    counted,
    milliseconds,
    rate,
    size,
    span,
    state_of,
)

Json = dict[str, Any]
LEVEL_TONES: dict[str, Tone] = {"debug": "quiet", "warning": "doubtful", "error": "bad"}
GAP = 2                      # around the text of a column, both sides together
MOST = 60                    # characters of a name
BAD_SHARE = 0.01             # of what is done, from which errors are shown as bad


@dataclass
class Picture:
    """What is known of the instance: its state, the live figures, and the latest events."""

    status: Json
    live: Json
    events: Sequence[Json] = ()

    @property
    def total(self) -> Json:
        """Figures of all listeners together."""
        found: Json = self.live.get("total") or {}
        return found

    def figures(self, *path: str) -> Json:
        """Live figures of something; empty if there are none."""
        found: Any = self.live
        for part in path:
            found = found.get(part) or {}
        return dict(found)


@dataclass(frozen=True)
class Cell:
    """What is shown, and what it is sorted by (None is behind everything)."""

    said: Said
    value: Any = None


@dataclass(frozen=True)
class Row:
    """A line of a pane. ``key`` is the same for the same thing in every picture."""

    key: str
    cells: tuple[Cell, ...]

    def matches(self, words: Sequence[str]) -> bool:
        """Whether each of these words, in lower case, is in it."""
        text = " ".join(cell.said.text for cell in self.cells).lower()
        return all(word in text for word in words)


@dataclass(frozen=True)
class Heading:
    """A column: its width in characters, and its importance where there is little room.

    ``width`` 0 takes what the others leave. The first column is always shown.
    """

    name: str
    width: int
    keep: int = 9
    right: bool = True           # numbers


@dataclass(frozen=True)
class Pane:
    """A table of one kind of things."""

    id: str
    title: str
    headings: tuple[Heading, ...]
    rows: Callable[[Picture], Iterator[Row]] = field(repr=False)
    newest_first: bool = False


@dataclass
class Order:
    """By which column a pane is sorted; -1: as in the configuration."""

    column: int = -1
    descending: bool = False

    def of(self, rows: Sequence[Row]) -> list[Row]:
        """The rows in this order; what has no value comes last, either way."""
        if self.column < 0:
            return list(rows)
        known = [row for row in rows if row.cells[self.column].value is not None]
        unknown = [row for row in rows if row.cells[self.column].value is None]
        return sorted(known, key=lambda row: row.cells[self.column].value,
                      reverse=self.descending) + unknown

    def next(self, pane: Pane, step: int = 1) -> Order:
        """By the next column, or again as configured; of numbers the largest comes first."""
        column = (self.column + 1 + step) % (len(pane.headings) + 1) - 1
        return Order(column, column >= 0 and pane.headings[column].right)


def backends(picture: Picture) -> Iterator[Row]:
    """A row for each backend."""
    for pool in picture.status["pools"]:
        for one in pool["backends"]:
            figures = picture.figures("backends", pool["name"], one["name"])
            yield Row(f"{pool['name']}/{one['name']}", (
                _text(f"{pool['name']}/{one['name']}"),
                _state(one),
                _rate(_per_second(figures)), _errors(figures),
                _ms(figures.get("p50_ms")), _ms(figures.get("p99_ms")),
                _number(one["inflight"]), _weight(one), _since(one["since"]),
                _bytes(figures.get("bytes_down_per_s")), _check(one["last_check"]),
                _text(one["reason"]),
            ))


def pools(picture: Picture) -> Iterator[Row]:
    """A row for each pool."""
    for pool in picture.status["pools"]:
        figures = picture.figures("pools", pool["name"])
        up = sum(one["state"] == "up" for one in pool["backends"])
        number = len(pool["backends"])
        tone: Tone = "good" if up == number else "doubtful" if up else "bad"
        yield Row(pool["name"], (
            _text(pool["name"]),
            Cell(state_of(pool["state"]), pool["state"]),
            Cell(Said(f"{up}/{number}", tone), up / number if number else 0),
            _rate(_per_second(figures)),
            _errors(figures), _rate(figures.get("retries_per_s")),
            _ms(figures.get("p50_ms")), _ms(figures.get("p99_ms")),
            _number(pool["inflight"]), _warned(pool["waiting"]), _text(pool["balance"]),
            _source(pool),
        ))


def listeners(picture: Picture) -> Iterator[Row]:
    """A row for each listener, and one for each of its routes."""
    for listener in picture.status["listeners"]:
        name = listener["name"]
        figures = picture.figures("listeners", name)
        yield Row(name, (
            _text(name), _text(listener["pool"] or ""),
            _rate(_per_second(figures)),
            _errors(figures), _ms(figures.get("p50_ms")),
            _ms(figures.get("p99_ms")), _number(listener["connections"]),
            _bytes(figures.get("bytes_up_per_s")), _bytes(figures.get("bytes_down_per_s")),
            _text(f"{listener['protocol']} {' '.join(listener['bind'])}"),
        ))
        for route in listener.get("routes") or ():
            figures = picture.figures("routes", name, route["name"])
            yield Row(f"{name} {route['name']}", (
                _text(f"  {name} {route['name']}"),
                _text(route["pool"] or route["action"]),
                _rate(figures.get("requests_per_s")), _errors(figures),
                _ms(figures.get("p50_ms")), _ms(figures.get("p99_ms")), _number(None),
                _bytes(figures.get("bytes_up_per_s")), _bytes(figures.get("bytes_down_per_s")),
                _text(route.get("match", "")),
            ))


def workers(picture: Picture) -> Iterator[Row]:
    """A row for each worker process."""
    for one in picture.status["workers"]:
        yield Row(f"{one['slot']} {one['pid']}", (
            _number(one["slot"]), Cell(state_of(one["state"]), one["state"]), _number(one["pid"]),
            _number(one.get("connections")), _rate(one.get("accepts_per_s")),
            _number(one.get("requests")), _number(one.get("cpu_percent")),
            _bytes(one.get("rss_bytes")),
        ))


def events(picture: Picture) -> Iterator[Row]:
    """A row for each event, the newest first."""
    for event in reversed(picture.events):
        when = datetime.fromisoformat(event["time"]).astimezone()
        fields = " ".join(f"{name}={value}" for name, value in event["fields"].items())
        said = "  ".join(part for part in (event["message"], fields) if part)
        level = event["level"]
        yield Row(str(event["seq"]), (
            Cell(Said(f"{when:%H:%M:%S}", "quiet"), event["seq"]),
            Cell(Said(level, LEVEL_TONES.get(level, "")), level),
            _text(event["event"]), _text(said),
        ))


PANES = (
    Pane("backends", "Backends", (
        Heading("BACKEND", 0, right=False), Heading("STATE", 11, right=False),
        Heading("RATE", 7), Heading("ERR/S", 6, 8), Heading("P50", 7, 4), Heading("P99", 7, 8),
        Heading("CONNS", 6, 7), Heading("WEIGHT", 7, 6), Heading("SINCE", 6, 5),
        Heading("OUT/S", 7, 3), Heading("CHECK", 12, 1, right=False),
        Heading("WHY", 24, 2, right=False),
    ), backends),
    Pane("pools", "Pools", (
        Heading("POOL", 0, right=False), Heading("STATE", 12, right=False), Heading("UP", 7),
        Heading("RATE", 7), Heading("ERR/S", 6), Heading("RETRY/S", 7, 4), Heading("P50", 7, 5),
        Heading("P99", 7, 8), Heading("CONNS", 6, 6), Heading("WAITING", 7, 7),
        Heading("BALANCE", 20, 3, right=False), Heading("SOURCE", 20, 2, right=False),
    ), pools),
    Pane("listeners", "Listeners", (
        Heading("LISTENER, ROUTE", 0, right=False), Heading("TO", 12, 6, right=False),
        Heading("RATE", 7), Heading("ERR/S", 6), Heading("P50", 7, 5), Heading("P99", 7, 8),
        Heading("CONNS", 6, 7), Heading("IN/S", 7, 3), Heading("OUT/S", 7, 4),
        Heading("TAKES", 30, 2, right=False),
    ), listeners),
    Pane("workers", "Workers", (
        Heading("WORKER", 0), Heading("STATE", 18, right=False), Heading("PID", 8),
        Heading("CONNS", 7), Heading("ACC/S", 7), Heading("REQUESTS", 12, 5), Heading("CPU%", 6),
        Heading("RSS", 7),
    ), workers),
    Pane("events", "Events", (
        Heading("TIME", 8, right=False), Heading("LEVEL", 7, right=False),
        Heading("EVENT", 20, right=False), Heading("WHAT", 0, right=False),
    ), events, newest_first=True),
)


def shown(pane: Pane, width: int) -> list[tuple[int, int]]:
    """The columns that a width has room for, as (index, width without the space around it)."""
    found = list(range(len(pane.headings)))
    flexible = next(index for index in found if not pane.headings[index].width)
    least = 6 if pane.headings[flexible].right else 20

    def left() -> int:
        fixed = sum(pane.headings[index].width for index in found)
        return width - fixed - len(found) * GAP

    while left() < least:
        droppable = [index for index in found if pane.headings[index].keep < 9]
        if not droppable:
            break
        found.remove(min(droppable, key=lambda index: (pane.headings[index].keep, -index)))
    # More room than names need goes to what comes last.
    flexed = max(left(), 8) if flexible == found[-1] else min(max(left(), 8), MOST)
    spare = max(0, left() - flexed)
    return [(index, flexed if index == flexible else
             pane.headings[index].width + (spare if index == found[-1] and
                                           not pane.headings[index].right else 0))
            for index in found]


def headline(picture: Picture) -> list[str | Said]:
    """The instance in a line."""
    status = picture.status
    state = status["state"]
    said: list[str | Said] = [
        Said(f"lbcore {status['version']}", "strong"), "  ", state_of(state),
        f" {span(status['uptime_s'])}", f"  plan {status['plan_version']}"]
    if status["changes"]:
        number = status["changes"]
        said.append(Said(f"  {counted(number, 'change')} from the file", "doubtful"))
    serving = sum(one["state"] == "serving" for one in status["workers"])
    wanted = status["workers_wanted"]
    said.append(Said(f"  {serving}/{wanted} workers", "" if serving >= wanted else "bad"))
    down = sum(one["state"] not in ("up", "drain") for pool in status["pools"]
               for one in pool["backends"])
    if down:
        said.append(Said(f"  {counted(down, 'backend')} down", "bad"))
    if status["upgrade"]["state"] == "running":
        said.append(Said("  upgrading", "doubtful"))
    return said


def _per_second(figures: Json) -> float | None:
    """Requests, or of what has no requests connections."""
    requests: float | None = figures.get("requests_per_s")
    return figures.get("connections_per_s") if requests is None else requests


def _text(text: str) -> Cell:
    return Cell(Said(text), text.strip().lower() or None)


def _number(number: float | None) -> Cell:
    return Cell(Said("-", "quiet") if number is None else Said(str(number)), number)


def _warned(number: int) -> Cell:
    return Cell(Said(str(number), "doubtful" if number else ""), number)


def _rate(per_second: float | None) -> Cell:
    said = rate(per_second)
    return Cell(Said("-", "quiet") if said is None else Said(said), per_second)


def _errors(figures: Json) -> Cell:
    """Errors a second; how bad they are depends on of how many they are."""
    errors, of = figures.get("errors_per_s"), _per_second(figures)
    cell = _rate(errors)
    if not errors:
        return cell
    tone: Tone = "bad" if of is None or errors >= BAD_SHARE * of else "doubtful"
    return Cell(Said(cell.said.text, tone), errors)


def _ms(ms: float | None) -> Cell:
    said = milliseconds(ms)
    return Cell(Said("-", "quiet") if said is None else Said(said), ms)


def _bytes(count: float | None) -> Cell:
    return Cell(Said("-", "quiet") if count is None else Said(size(count)), count)


def _since(moment: str | None) -> Cell:
    return Cell(Said(ago(moment) or "-"), moment)


def _state(backend: Json) -> Cell:
    word = backend["state"]
    mark = " forced" if backend["forced"] else ""
    return Cell(Said(word + mark, state_of(word).tone), word)


def _source(pool: Json) -> Cell:
    """Where its backends come from: of an application, what it is and whether it comes up."""
    app = pool["app"]
    if app is None:
        return _text(pool.get("source", "file"))
    failed = app["failed"] or any(one["state"] == "failed" for one in app["servers"])
    name = app["application"]
    return Cell(Said(f"failed: {name}" if failed else name, "bad" if failed else ""), name)


def _weight(backend: Json) -> Cell:
    changed = backend["weight"] != backend["weight_configured"]
    return Cell(Said(f"{backend['weight']}{'*' if changed else ''}", "doubtful" if changed else ""),
                backend["weight"])


def _check(check: Json | None) -> Cell:
    if not check or check["ok"] is None:
        return Cell(Said("-", "quiet"))
    ms = milliseconds(check["ms"]) or ""
    return Cell(Said(f"{'ok' if check['ok'] else 'failed'} {ms}", "" if check["ok"] else "bad"),
                check["ms"])
