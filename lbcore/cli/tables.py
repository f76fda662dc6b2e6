"""What commands print for people: lines and aligned tables, plain or painted.

A command describes what it has to say as a *report*: an iterable of lines and :class:`Table`.
``plain`` makes text of it that is the same whoever reads it: nothing is cut off, no colour codes.
On a terminal ``lbcore.cli.painted`` makes it fit and colours it. A cell says what it means by its
*tone*, never by its colour alone: a state is always a word too.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

import click

if TYPE_CHECKING:
    from lbcore.cli.options import State

Tone = Literal["", "good", "doubtful", "bad", "quiet", "strong"]
GAP = 2                      # spaces between columns
ALWAYS = 9                   # Column.keep of what is shown on the narrowest terminal too

# By the first word of a state.
STATES: dict[str, Tone] = {
    **dict.fromkeys(("up", "running", "serving", "ready", "normal", "ok", "done"), "good"),
    **dict.fromkeys(("drain", "draining", "starting", "ejected", "backup", "warning"), "doubtful"),
    **dict.fromkeys(("down", "failed", "panic", "none", "error", "now"), "bad"),
}


@dataclass(frozen=True)
class Said:
    """A piece of text and what it means.

    What a terminal would obey is made visible: reasons and messages have words of backends and
    applications in them.
    """

    text: str
    tone: Tone = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", visible(self.text))

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Column:
    """A column's heading. Where there is no room, those with the least ``keep`` go first."""

    name: str
    keep: int = ALWAYS


Line = str | Said | Sequence[str | Said]


@dataclass
class Table:
    """Rows below headings. None and empty cells are shown as "-"."""

    head: Sequence[str | Column]
    rows: Sequence[Sequence[object]]
    columns: list[Column] = field(init=False)

    def __post_init__(self) -> None:
        self.columns = [one if isinstance(one, Column) else Column(one) for one in self.head]

    def cells(self) -> list[list[Said]]:
        """The rows as they are shown."""
        return [[_cell(cell) for cell in row] for row in self.rows]

    def right(self) -> list[bool]:
        """For each column whether it is aligned to the right: those of numbers are."""
        rows = self.cells()
        return [bool(rows) and all(_is_number(row[index].text) for row in rows)
                for index in range(len(self.columns))]


Report = Iterable[Line | Table]


def visible(text: str) -> str:
    """The text with control characters as Python writes them; of one line."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one == " " else repr(one)[1:-1] for one in text)


def state_of(word: str) -> Said:
    """A state, in the tone of its first word."""
    return Said(word, STATES.get(word.split(" ", 1)[0], ""))


def table(head: Sequence[str | Column], rows: Sequence[Sequence[object]]) -> Iterator[str]:
    """Plain lines of an aligned table; columns of numbers are aligned to the right."""
    yield from _lines(Table(head, rows))


def plain(report: Report) -> Iterator[str]:
    """The report as text, without colours, nothing cut off."""
    for part in report:
        if isinstance(part, Table):
            yield from _lines(part)
        else:
            yield words(part)


def pieces(line: Line) -> list[Said]:
    """A line as pieces with a tone each."""
    parts = [line] if isinstance(line, str | Said) else line
    return [part if isinstance(part, Said) else Said(part) for part in parts]


def words(line: Line) -> str:
    """A line as plain text."""
    return "".join(piece.text for piece in pieces(line))


def emit(state: State, report: Report) -> None:
    """Prints a report: painted for a terminal and where colours are asked for, otherwise plain."""
    if state.paints() or sys.stdout.isatty():
        from lbcore.cli.painted import paint  # noqa: PLC0415  (rich is only for terminals)

        paint(report, state.paints())
        return
    for line in plain(report):
        click.echo(line)


def _lines(found: Table) -> Iterator[str]:
    cells = [[one.name for one in found.columns],
             *[[cell.text for cell in row] for row in found.cells()]]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    right = found.right()
    for line in cells:
        padded = [cell.rjust(width) if number else cell.ljust(width)
                  for cell, width, number in zip(line, widths, right, strict=True)]
        yield (" " * GAP).join(padded).rstrip()


def _is_number(text: str) -> bool:
    """A number, with a unit perhaps, or none; an address is not."""
    return text == "-" or (text[:1].isdigit() and ":" not in text)


def _cell(cell: object) -> Said:
    if isinstance(cell, Said):
        return cell if cell.text else Said("-", "quiet")
    return Said("-", "quiet") if cell is None or cell == "" else Said(str(cell))


# -- words for quantities and places


def where(change: Mapping[str, Any]) -> str:
    """Pool and backend of a difference from the file, as far as it has them."""
    return "/".join(change[key] for key in ("pool", "backend") if change.get(key))


def counted(number: int, word: str) -> str:
    """A number of things: "1 worker", "2 workers"."""
    return f"{number} {word}{'' if number == 1 else 's'}"


def ago(moment: str | None) -> str | None:
    """How long ago a moment (ISO 8601) was."""
    if moment is None:
        return None
    return span((datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds())


def span(seconds: float) -> str:
    """A time span, in the largest unit that says something."""
    whole = max(0, round(seconds))
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if whole >= 2 * length:
            return f"{whole // length}{unit}"
    return f"{whole}s"


def size(count: float) -> str:
    """A number of bytes with a binary unit."""
    amount = float(count)
    for unit in ("B", "K", "M", "G"):
        if amount < 1024:
            return f"{amount:.0f}{unit}" if unit == "B" or amount >= 100 else f"{amount:.1f}{unit}"
        amount /= 1024
    return f"{amount:.1f}T"


def rate(per_second: float | None) -> str | None:
    """A rate per second, with three digits that matter and a decimal unit."""
    if per_second is None:
        return None
    for unit, factor in (("G", 1e9), ("M", 1e6), ("k", 1e4)):
        if per_second >= factor:
            return f"{per_second / (1e3 if unit == 'k' else factor):.3g}{unit}"
    return f"{per_second:.0f}" if per_second >= 100 or per_second == 0 else f"{per_second:.1f}"


def milliseconds(ms: float | None) -> str | None:
    """A latency, in the unit in which it is short."""
    if ms is None:
        return None
    return f"{ms / 1000:.3g}s" if ms >= 1000 else f"{ms:.3g}ms"
