"""Reports on a terminal: with colours, and fitted to its width."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import Literal

from rich.cells import cell_len, set_cell_size
from rich.console import Console, Group, RenderableType
from rich.table import Table as Grid
from rich.text import Text

from lbcore.cli.tables import ALWAYS, GAP, Line, Report, Said, Table, Tone, pieces

# Names from the terminal's own palette, which its user has made readable.
STYLES: dict[Tone, str] = {
    "": "", "good": "green", "doubtful": "yellow", "bad": "bold red", "quiet": "dim",
    "strong": "bold",
}
UNLIMITED = 10_000
NAME = 24                    # characters of a name that are always shown
ENOUGH = 32                  # characters for the last column, which may go on in another line


def console(colours: bool, *, stderr: bool = False) -> Console:
    """Where to print: as wide as the terminal, or without a limit where there is none."""
    stream = sys.stderr if stderr else sys.stdout
    terminal = stream.isatty()
    return Console(
        file=stream, no_color=not colours, highlight=False, emoji=False, markup=False,
        force_terminal=colours or None, color_system=_colours() if colours else None,
        width=shutil.get_terminal_size().columns if terminal else UNLIMITED)


def paint(report: Report, colours: bool) -> None:
    """Prints a report on standard output."""
    out = console(colours)
    for part in rendered(report, out.width if out.width < UNLIMITED else 0):
        out.print(part, soft_wrap=isinstance(part, Text))


def rendered(report: Report, width: int) -> Iterable[RenderableType]:
    """The parts of a report for rich; ``width`` 0 is without a limit."""
    for part in report:
        yield _grid(part, width) if isinstance(part, Table) else _text(part)


def whole(report: Report, width: int) -> RenderableType:
    """A report as one thing, for what is drawn again and again."""
    return Group(*rendered(report, width))


def _colours() -> Literal["standard", "256", "truecolor"]:
    if os.environ.get("COLORTERM", "") in ("truecolor", "24bit"):
        return "truecolor"
    return "256" if "256color" in os.environ.get("TERM", "") else "standard"


def _text(line: Line) -> Text:
    return Text.assemble(*[(said.text, STYLES[said.tone]) for said in pieces(line)])


def _grid(table: Table, width: int) -> Grid:
    right = table.right()
    rows = narrowed(table.cells(), right, width)
    shown = fitting(table, rows, width)
    grid = Grid(box=None, padding=(0, GAP, 0, 0), pad_edge=False, show_edge=False,
                header_style="bold")
    for index in shown:
        grid.add_column(table.columns[index].name, justify="right" if right[index] else "left",
                        no_wrap=index != shown[-1], overflow="fold")
    for row in rows:
        grid.add_row(*[Text(row[index].text, STYLES[row[index].tone]) for index in shown])
    return grid


def narrowed(rows: list[list[Said]], right: Sequence[bool], width: int) -> list[list[Said]]:
    """The cells, long names without their middle where there is too little room for all of them.

    One long name would otherwise cost all columns beside it. The last column can be wrapped.
    """
    most = max(NAME, width // 3)
    if not width or all(sum(len(cell.text) + GAP for cell in row) <= width for row in rows):
        return rows
    return [[*(cell if numbers else Said(squeezed(cell.text, most), cell.tone)
               for cell, numbers in zip(row[:-1], right, strict=False)), row[-1]] for row in rows]


def squeezed(text: str, width: int) -> str:
    """A name in so many cells at most, without its middle: names of one kind begin alike."""
    if cell_len(text) <= width:
        return text
    kept = max(0, width - 1)
    end = set_cell_size(text[::-1], kept // 2)[::-1]
    return f"{set_cell_size(text, kept - kept // 2)}…{end}"


def fitting(table: Table, rows: list[list[Said]], width: int) -> list[int]:
    """The columns that there is room for. The last may be wrapped, so it needs only some room."""
    widths = [max(len(table.columns[index].name), *(len(row[index].text) for row in rows), 0)
              for index in range(len(table.columns))]
    shown = list(range(len(widths)))
    while width:
        needed = [widths[index] for index in shown]
        needed[-1] = min(needed[-1], ENOUGH)
        least = min(shown, key=lambda index: (table.columns[index].keep, -index))
        if (sum(needed) + GAP * len(needed) <= width or len(shown) == 1
                or table.columns[least].keep >= ALWAYS):
            break
        shown.remove(least)
    return shown
