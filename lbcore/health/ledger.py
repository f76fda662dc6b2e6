"""What the states of its backends mean for a pool: panic, backups, weight, room for ejections.

A pool's ledger is kept up to date one backend at a time, so that a pool of thousands whose
backends all fail in one second costs no more than thousands of small additions.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from lbcore.health import ejection, slow_start


class Entry(NamedTuple):
    """One backend's part in its pool's sums."""

    backup: bool
    counted: bool           # takes part at all: weight above 0, neither draining nor forced down
    up: bool
    ejected: bool
    weight: int             # weight in force x ramp, in 1/256


class Mode(StrEnum):
    """How a pool gets by."""

    NORMAL = "normal"
    BACKUP = "backup"               # no primary is up, backups take the traffic
    PANIC = "panic"                 # too few are up, all are tried
    BACKUP_PANIC = "backup panic"   # both: too few backups are up, all backups are tried
    NONE = "none"                   # nobody takes traffic


class Verdict(NamedTuple):
    """What workers have to know about a pool, and the numbers behind it."""

    mode: Mode
    total_weight: int       # of those who take traffic, in units of the configured weight
    up: int                 # of the tier that carries the traffic
    counted: int            # of the same

    @property
    def panic(self) -> bool:
        """DOWN and EJECTED are tried as if UP."""
        return self.mode in (Mode.PANIC, Mode.BACKUP_PANIC)

    @property
    def backup(self) -> bool:
        """Backups carry the traffic."""
        return self.mode in (Mode.BACKUP, Mode.BACKUP_PANIC)


@dataclass(slots=True)
class _Tier:
    counted: int = 0
    up: int = 0
    ejected: int = 0
    weight_up: int = 0
    weight_all: int = 0


class Ledger:
    """Running sums over the backends of one pool, by backend row."""

    __slots__ = ("_backups", "_entries", "_primaries")

    def __init__(self) -> None:
        self._entries: dict[int, Entry] = {}
        self._primaries = _Tier()
        self._backups = _Tier()

    def put(self, row: int, entry: Entry) -> None:
        """Enters a backend, or replaces what stood there for it."""
        old = self._entries.get(row)
        if old == entry:
            return
        if old is not None:
            self._add(old, -1)
        self._entries[row] = entry
        self._add(entry, 1)

    def verdict(self, panic_threshold: float) -> Verdict:
        """Judges the tier that carries the traffic.

        Backups come before panic: one backup that works is better than any primary that is
        known not to. Draining backends and those of weight 0 are not counted as sick: who
        takes half of a pool out for maintenance does not want panic.
        """
        backup = self._primaries.up == 0 and self._backups.up > 0
        tier = self._backups if backup else self._primaries
        panic = tier.counted > 0 and tier.up / tier.counted < panic_threshold
        weight = tier.weight_all if panic else tier.weight_up
        if panic:
            mode = Mode.BACKUP_PANIC if backup else Mode.PANIC
        elif backup:
            mode = Mode.BACKUP
        else:
            mode = Mode.NORMAL if tier.up else Mode.NONE
        # Rounded up once, over the sum: backends of weight 1 in slow start still count.
        return Verdict(mode, -(-weight // slow_start.FULL), tier.up, tier.counted)

    def may_eject(self, max_share: float) -> bool:
        """Whether one more backend, up at the moment, may be ejected.

        Never the last one that takes traffic, whatever the share allows: a backend that fails
        sometimes is better than none.
        """
        ejected = self._primaries.ejected + self._backups.ejected
        up = self._primaries.up + self._backups.up
        size = self._primaries.counted + self._backups.counted
        return ejected < ejection.most_ejected(size, max_share) and up > 1

    def _add(self, entry: Entry, sign: int) -> None:
        if not entry.counted:
            return
        tier = self._backups if entry.backup else self._primaries
        tier.counted += sign
        tier.up += sign * entry.up
        tier.ejected += sign * entry.ejected
        tier.weight_up += sign * entry.weight * entry.up
        tier.weight_all += sign * entry.weight
