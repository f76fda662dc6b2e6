"""Telling workers, by the scoreboard, and people, by events, what has become of a backend."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Final

from lbcore._scoreboard import BackendState, PoolFlag
from lbcore.health.ledger import Verdict
from lbcore.health.model import Board, HealthEvent
from lbcore.health.states import Shown
from lbcore.health.watch import PoolWatch, Watch

log = logging.getLogger(__name__)

BOARD_STATE: Final[Mapping[Shown, int]] = {
    Shown.UP: BackendState.STATE_UP,
    Shown.DOWN: BackendState.STATE_DOWN,
    Shown.EJECTED: BackendState.STATE_EJECTED,
    Shown.DRAIN: BackendState.STATE_DRAIN,
}


class Telling:
    """The only writer of backend and pool states in the scoreboard.

    What ``on_event`` raises is logged.
    """

    def __init__(self, board: Board, on_event: Callable[[HealthEvent], None]) -> None:
        self._board = board
        self._on_event = on_event

    def publish(self, watch: Watch, was_shown: Shown, reason: str) -> None:
        """Everything that follows from a backend that may be another now."""
        self.write_backend(watch)
        watch.pool.ledger.put(watch.member.row, watch.entry())
        self.tell(watch, was_shown, reason)
        name = watch.member.plan.name
        self.write_pool(watch.pool, f"{name} is {watch.shown.value}")

    def write_backend(self, watch: Watch) -> None:
        """What workers have to know of a backend."""
        # What is gone gets nothing, also in panic, while what is down is tried then; and no
        # session that began there, while what drains keeps its sessions.
        state = BackendState.STATE_GONE if watch.forced == "down" else BOARD_STATE[watch.shown]
        self._board.set_backend(watch.member.row, state, watch.weight, watch.ramp,
                                watch.eject_after)

    def write_pool(self, pool: PoolWatch, cause: str) -> None:
        """What workers have to know of a pool; people, if it gets by in another way now."""
        verdict = pool.ledger.verdict(pool.plan.panic_threshold)
        flags = (PoolFlag.POOL_PANIC if verdict.panic else 0) | (
            PoolFlag.POOL_BACKUP if verdict.backup else 0)
        if pool.written != (flags, verdict.total_weight):
            pool.written = (flags, verdict.total_weight)
            self._board.set_pool(pool.row, flags, verdict.total_weight)
        if verdict.mode is not pool.mode:
            old, pool.mode = pool.mode, verdict.mode
            self._emit(HealthEvent(pool.plan.name, "", old.value, verdict.mode.value,
                                   _describe_pool(verdict, cause), time.time()))

    def tell(self, watch: Watch, was_shown: Shown, reason: str) -> None:
        """Remembers why, and reports if there is anything to see. No reason: nothing happened."""
        if not reason:
            return
        if watch.shown is not was_shown:
            watch.since, watch.reason = time.time(), reason
            watch.counts.changes += 1
            pool, backend = watch.key
            self._emit(HealthEvent(pool, backend, was_shown.value, watch.shown.value, reason,
                                   watch.since))
        elif not watch.draining and not watch.forced:
            watch.reason = reason

    def _emit(self, event: HealthEvent) -> None:
        try:
            self._on_event(event)
        except Exception:
            log.exception("health: %s was not taken", event)


def _describe_pool(verdict: Verdict, cause: str) -> str:
    tier = "backups" if verdict.backup else "primaries"
    return f"{cause}; {verdict.up} of {verdict.counted} {tier} are up"
