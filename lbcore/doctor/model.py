"""What is looked at and what came of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

Json = dict[str, Any]
SYSCTL_FILE = "/etc/sysctl.d/90-lbcore.conf"
UNIT = "the unit: systemctl edit lbcore"


class Level(StrEnum):
    """How good a thing is as it is."""

    OK = "ok"
    NOTE = "note"            # could be better; no reason to act
    ADVICE = "advice"        # will be in the way of what is configured
    PROBLEM = "problem"      # lbcore does not work so


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    ``change`` is the very line to put into ``where``; ``why`` tells what follows from the value.
    """

    section: str
    name: str
    value: str
    level: Level = Level.OK
    wanted: str = ""
    why: str = ""
    change: str = ""
    where: str = ""


@dataclass
class Report:
    """Everything that was looked at."""

    checks: list[Check] = field(default_factory=list)
    uses: Json = field(default_factory=dict)     # what lbcore will use of it

    def of(self, *levels: Level) -> list[Check]:
        """The checks of these levels."""
        return [check for check in self.checks if check.level in levels]

    @property
    def exit_code(self) -> int:
        """0: fine; 1: there is advice; 2: something keeps lbcore from working."""
        if self.of(Level.PROBLEM):
            return 2
        return 1 if self.of(Level.ADVICE) else 0

    def sections(self) -> Iterator[tuple[str, list[Check]]]:
        """The checks by section, in order."""
        for name in dict.fromkeys(check.section for check in self.checks):
            yield name, [check for check in self.checks if check.section == name]

    def changes(self, *, notes: bool = False) -> dict[str, list[str]]:
        """Lines to write, by where they go; those of notes only if asked for."""
        found: dict[str, list[str]] = {}
        for check in self.of(Level.ADVICE, Level.PROBLEM, *([Level.NOTE] if notes else [])):
            lines = found.setdefault(check.where, []) if check.change else []
            if check.change and check.change not in lines:
                lines.append(check.change)
        return found

    def as_dict(self) -> Json:
        """The report as JSON shows it."""
        return {"ok": self.exit_code == 0, "exit_code": self.exit_code, "uses": self.uses,
                "checks": [asdict(check) for check in self.checks], "changes": self.changes()}
