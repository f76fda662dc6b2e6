"""Writing metrics down: the text format of Prometheus and OpenMetrics, for many rows quickly.

``prometheus_client`` builds an object for every sample and takes most of a second for a thousand
backends. In here all families of a row are one template, filled in at once. What is written is what
``prometheus_client`` would have written, and its parser reads it in the tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from lbcore.admin.figures import BOUNDS_US, Times

PIECE = 500                  # rows that are put together at once
Kind = Literal["counter", "gauge", "histogram", "info"]
# In templates, and in no label's value:
ROW = "\0"                   # where the labels of the row go
NEXT = "\1"                  # between two families
LE = (*(f"{bound / 1e6:g}" if bound < 1e6 else repr(bound / 1e6) for bound in BOUNDS_US), "+Inf")
_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\"", ROW: "\ufffd", NEXT: "\ufffd"})


def labels(pairs: Iterable[tuple[str, str]]) -> str:
    """Labels as they stand between braces, whatever their values contain."""
    return ",".join([f'{name}="{value.translate(_ESCAPES)}"' for name, value in pairs])


@dataclass(frozen=True)
class Family:
    """A metric of every row of some kind.

    ``get`` returns what goes into the template, in its order; None when a row has no such thing.
    ``labels`` are those of the row; a family may have one of its own, with fixed ``values``.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...]
    get: Callable[[Any], tuple[object, ...] | None]
    label: str = ""
    values: Sequence[str] = ()
    template: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "template", self._template())

    def _template(self) -> str:
        row = ROW + "," if self.labels else ""
        if self.kind == "info":
            return f"{self.name}{{{ROW},%s}} 1\n"
        if self.kind == "histogram":
            buckets = [f'{self.name}_bucket{{{row}le="{le}"}} %d\n' for le in LE]
            return "".join([*buckets, f"{self.name}_sum{{{ROW}}} %r\n",
                            f"{self.name}_count{{{ROW}}} %d\n"])
        if self.label:
            return "".join(f'{self.name}{{{row}{self.label}="{value}"}} %r\n'
                           for value in self.values)
        return f"{self.name}{{{ROW}}} %r\n"

    def header(self, openmetrics: bool) -> str:
        """What stands before the samples. OpenMetrics names a family without its suffix."""
        name: str
        kind: str
        name, kind = self.name, self.kind
        if openmetrics and kind in ("counter", "info"):
            name = name.removesuffix("_total").removesuffix("_info")
        elif kind == "info":
            kind = "gauge"
        text = self.help.replace("\\", r"\\").replace("\n", r"\n")
        if openmetrics:
            text = text.replace('"', r"\"")
        return f"# HELP {name} {text}\n# TYPE {name} {kind}\n"


class Writer:
    """The families of one kind of row, filled in one row after the other."""

    def __init__(self, families: Sequence[Family]) -> None:
        self._families = families
        self._gets = [(1 << place, family.get) for place, family in enumerate(families)]
        self._written: list[list[str]] = [[] for _ in families]
        # By the families that a row has, one bit each: their templates, and where each goes.
        self._shapes: dict[int, tuple[str, list[list[str]]]] = {}

    def add(self, row_labels: str, row: object) -> None:
        """One row."""
        values: list[object] = []
        shape = 0
        for bit, get in self._gets:
            found = get(row)
            if found is not None:
                shape |= bit
                values += found
        if not shape:
            return
        template, places = self._shapes.get(shape) or self._shaped(shape)
        texts = (template % tuple(values)).replace(ROW, row_labels).split(NEXT)
        for place, text in zip(places, texts, strict=True):
            place.append(text)

    def _shaped(self, shape: int) -> tuple[str, list[list[str]]]:
        there = [place for place in range(len(self._families)) if shape >> place & 1]
        template = NEXT.join(self._families[place].template for place in there)
        made = self._shapes[shape] = template, [self._written[place] for place in there]
        return made

    def pieces(self, openmetrics: bool) -> Iterator[bytes]:
        """Each family that any row has with its header, in pieces; can be read once."""
        for family, lines in zip(self._families, self._written, strict=True):
            if lines:
                yield family.header(openmetrics).encode()
            for at in range(0, len(lines), PIECE):
                yield "".join(lines[at : at + PIECE]).encode()
            lines.clear()


def times(found: Times) -> tuple[object, ...]:
    """What a histogram's template takes."""
    return (*found.up_to, found.total_s, found.up_to[-1])
