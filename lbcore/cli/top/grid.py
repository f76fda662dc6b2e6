"""The table of ``lbcore top``: rows come and go, and the cursor stays with what it is on.

Only the lines that are seen are drawn, so that thousands of rows cost no more than a screenful.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual.binding import BindingType
from textual.events import Click, Resize
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from lbcore.cli.painted import squeezed
from lbcore.cli.top.look import TONES
from lbcore.cli.top.panes import GAP, Order, Pane, Row, shown

ARROWS = {True: "▼", False: "▲"}
HEAD = 1                     # lines above the rows


class Grid(ScrollView, can_focus=True):
    """Shows the rows of a pane; columns that do not fit are left out."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"grid--head", "grid--cursor"}
    DEFAULT_CSS = """
    Grid { overflow-x: hidden; }
    Grid > .grid--head { text-style: bold; background: $panel; color: $text; }
    Grid > .grid--cursor { background: $primary 20%; text-style: bold; }
    Grid:focus > .grid--cursor { background: $primary 35%; color: $text; text-style: bold; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        ("up,k", "move(-1)"), ("down,j", "move(1)"), ("pageup", "page(-1)"),
        ("pagedown", "page(1)"), ("home,g", "end(0)"), ("end,G", "end(-1)"),
        # Here, not at the application: a screen's own Tab goes to the next widget.
        ("tab", "app.pane(1)"), ("shift+tab", "app.pane(-1)"),
    ]

    class HeadingPressed(Message):
        """Somebody clicked on a heading."""

        def __init__(self, index: int) -> None:
            super().__init__()
            self.index = index

    def __init__(self, pane: Pane) -> None:
        super().__init__(id="grid")
        self.pane = pane
        self.order = Order()
        self.rows: list[Row] = []
        self._chosen = ""            # the cursor is on this key, wherever its row goes
        self._at = 0                 # and was here when it was last seen
        self._columns: list[tuple[int, int]] = []
        self._fitted_to: tuple[Pane, int] | None = None

    def show(self, pane: Pane, order: Order, rows: Sequence[Row]) -> None:
        """These rows, in this order already.

        The cursor follows its row; on another pane or in another order it is at the top.
        """
        if pane is not self.pane or order != self.order:
            self._at, self._chosen = 0, ""
            self.scroll_to(y=0, animate=False, force=True)
        self.pane, self.order, self.rows = pane, order, list(rows)
        place = next((at for at, row in enumerate(self.rows) if row.key == self._chosen), self._at)
        # A cursor at the very top stays there: it is there to see what comes first.
        first = self._at == 0 and (pane.newest_first or order.column >= 0)
        self._settle(0 if first else place)
        self.virtual_size = Size(self.size.width, len(self.rows) + HEAD)
        self.refresh()

    @property
    def chosen(self) -> str:
        """The key of the row that the cursor is on; "" if there is none."""
        return self._chosen if self.rows else ""

    @property
    def columns(self) -> list[tuple[int, int]]:
        """The headings that fit, and their widths."""
        width = self.scrollable_content_region.width
        if self._fitted_to != (self.pane, width):
            self._fitted_to = (self.pane, width)
            self._columns = shown(self.pane, width)
        return self._columns

    def choose(self, key: str) -> None:
        """Puts the cursor on a row."""
        self._chosen = key
        self._at = next((at for at, row in enumerate(self.rows) if row.key == key), 0)
        self._reveal()

    # -- what keys and the mouse do

    def action_move(self, by: int) -> None:
        """The cursor goes up or down."""
        self._go(self._at + by)

    def action_page(self, by: int) -> None:
        """A screenful further."""
        self._go(self._at + by * max(1, self.size.height - HEAD - 1))

    def action_end(self, place: int) -> None:
        """To the first row or the last."""
        self._go(place if place == 0 else len(self.rows) - 1)

    def on_click(self, event: Click) -> None:
        """A heading sorts, a row gets the cursor."""
        if event.y >= HEAD:
            self._go(event.y - HEAD + self.scroll_offset.y)
            return
        left = 0
        for index, width in self.columns:
            left += width + GAP
            if event.x < left:
                self.post_message(self.HeadingPressed(index))
                return

    def on_resize(self, _: Resize) -> None:
        """Other columns may fit now."""
        self.virtual_size = Size(self.size.width, len(self.rows) + HEAD)
        self.refresh()

    def _go(self, place: int) -> None:
        self._settle(place)
        self._reveal()

    def _settle(self, place: int) -> None:
        self._at = max(0, min(place, len(self.rows) - 1))
        self._chosen = self.rows[self._at].key if self.rows else ""

    def _reveal(self) -> None:
        # The heading covers the first line of what is scrolled, hence one line more above.
        self.scroll_to_region(Region(0, self._at, 1, 1 + HEAD), animate=False, force=True)
        self.refresh()

    # -- drawing

    def render_line(self, y: int) -> Strip:
        """A line of the screen: the headings, or a row."""
        width = self.size.width
        if y < HEAD:
            style = self.get_component_rich_style("grid--head")
            return self._strip([(self._heading(index), Style()) for index, _ in self.columns],
                               style, width)
        place = y - HEAD + self.scroll_offset.y
        if place >= len(self.rows):
            return Strip.blank(width, self.rich_style)
        row = self.rows[place]
        at_cursor = place == self._at
        style = self.get_component_rich_style("grid--cursor") if at_cursor else self.rich_style
        cells = [row.cells[index].said for index, _ in self.columns]
        return self._strip([(said.text, Style.parse(TONES[said.tone])) for said in cells],
                           style, width)

    def _heading(self, index: int) -> str:
        name = self.pane.headings[index].name
        return name + ARROWS[self.order.descending] if index == self.order.column else name

    def _strip(self, cells: Sequence[tuple[str, Style]], style: Style, width: int) -> Strip:
        segments = []
        for (text, own), (index, room) in zip(cells, self.columns, strict=True):
            fitted = _fitted(text, room, self.pane.headings[index].right, name=index == 0)
            segments.append(Segment(f" {fitted} ", style + own))
        return Strip(segments).adjust_cell_length(width, style).simplify()


def _fitted(text: str, width: int, right: bool, name: bool) -> str:
    """As wide as the column. A ``name`` keeps its end, anything else its beginning."""
    length = cell_len(text)
    if length > width:
        return squeezed(text, width) if name else set_cell_size(text, max(0, width - 1)) + "…"
    return " " * (width - length) + text if right else text + " " * (width - length)
