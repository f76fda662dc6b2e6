"""How ``lbcore top`` looks: Textual's style sheet, and the small charts above the table."""

from __future__ import annotations

from collections import deque

from rich.text import Text
from textual.widgets import Static

from lbcore.cli.tables import Tone

STYLE = """
Screen { layers: base; }
#headline { height: 1; padding: 0 1; background: $panel; color: $text; }
#charts { height: 3; padding: 0 1; }
Chart { width: 1fr; height: 3; margin-right: 2; }
Tabs { height: 2; }
#filter { display: none; height: 1; border: none; padding: 0 1; background: $boost; }
#filter.wanted { display: block; }
Grid { height: 1fr; scrollbar-size-vertical: 1; scrollbar-size-horizontal: 1; }
Grid.old { opacity: 60%; }
ModalScreen { align: center middle; }
.dialog {
    width: 64; max-width: 95%; height: auto; max-height: 95%; padding: 1 2;
    background: $surface; border: round $accent;
}
.page { width: 78; padding: 0 2; }
.page .title { margin-bottom: 1; }
.title { text-style: bold; width: 100%; }
.text { margin: 1 0; width: 100%; }
.buttons { height: auto; }
.buttons Button { margin-right: 2; }
.choices { height: auto; }
.choices Button { width: 100%; }
Button { height: 1; min-width: 12; border: none; }
Button:focus, Button.-warning:focus { text-style: bold; color: $background; background: $accent; }
.bad { color: $text-error; }
"""
THEME = "tokyo-night"
# The theme's own colours. Textual paints the background, so the terminal's palette is no guide.
TONES: dict[Tone, str] = {
    "": "", "good": "#9ece6a", "doubtful": "#e0af68", "bad": "bold #f7768e", "quiet": "#787c99",
    "strong": "bold",
}
RATE, LATENCY, ERRORS, OPEN = "#7aa2f7", "#bb9af7", "#f7768e", "#73daca"
BLOCKS = " ▁▂▃▄▅▆▇█"
KEPT = 240                   # values of the past


class Chart(Static):
    """A figure, what it has been lately, and its name."""

    def __init__(self, what: str, style: str) -> None:
        super().__init__(classes="chart")
        self._what = what
        self._style = style
        self._past: deque[float | None] = deque(maxlen=KEPT)
        self._said = "-"

    def add(self, what: str, value: float | None, said: str | None) -> None:
        """One value more; ``said`` is how it is written."""
        self._what = what
        self._past.append(value)
        self._said = said or "-"
        self.refresh()

    @property
    def past(self) -> list[float | None]:
        """The values so far, the latest last."""
        return list(self._past)

    def render(self) -> Text:
        """Name and figure in a line, two lines of bars below it."""
        width = max(8, self.size.width)
        head = Text.assemble((self._what, TONES["quiet"]), " ", (self._said, "bold"))
        head.truncate(width, overflow="ellipsis")
        upper, lower = bars(list(self._past)[-width:], width)
        return Text("\n").join([head, Text(upper, self._style), Text(lower, self._style)])


def bars(values: list[float | None], width: int) -> tuple[str, str]:
    """Two lines of block characters, as high as the values are to the largest of them.

    What is not zero is never shown as nothing.
    """
    most = max((value for value in values if value), default=0.0)
    eighths = []
    for value in values:
        share = (value or 0) / most if most else 0
        eighths.append(max(1, round(share * 16)) if share else 0)
    upper = "".join(BLOCKS[max(0, level - 8)] for level in eighths)
    lower = "".join(BLOCKS[min(8, level)] for level in eighths)
    return upper.rjust(width), lower.rjust(width)
