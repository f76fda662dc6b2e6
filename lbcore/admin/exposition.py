"""Writing metrics down: the text format of Prometheus and OpenMetrics, for many rows quickly.

``prometheus_client`` builds an object for every sample and takes most of a second for a thousand
backends. A family in here is a template that is filled in once per row. What is written is what
``prometheus_client`` would have written, and its parser reads it in the tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from lbcore.admin.figures import BOUNDS_US, Times

Kind = Literal["counter", "gauge", "histogram", "info"]
ROW = "\0"                   # where the labels of the row go into a template; in no label's value
LE = (*(f"{bound / 1e6:g}" if bound < 1e6 else repr(bound / 1e6) for bound in BOUNDS_US), "+Inf")
_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\"", "\0": "\ufffd"})


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

    def write(self, row_labels: str, row: object) -> str:
        """The samples of one row; "" when it has none."""
        values = self.get(row)
        return "" if values is None else (self.template % values).replace(ROW, row_labels)

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


def times(found: Times) -> tuple[object, ...]:
    """What a histogram's template takes."""
    return (*found.up_to, found.total_s, found.up_to[-1])
