"""Whether a backend gets traffic: everything that affects the state machine is in this file.

Theory of operation
===================

Two witnesses speak about a backend. *Checks* (active) ask it on purpose, at an interval. *Traffic*
(passive) is what workers meet when they connect for clients. A third voice, the operator's, takes
a backend out by hand: drain. It can also overrule both: forced up or down, a backend is shown so,
while the machine goes on underneath and decides again when it is let to.

The two witnesses share one machine, because each can contradict the other and somebody has to
win. Its states:

    FRESH    has checks, but none has ended yet. Takes traffic: a balancer that starts must not
             refuse clients for as long as its first checks take. It is one step from DOWN, though:
             nothing speaks for it, so the first failed check decides (HAProxy starts servers so).
    UP       takes traffic.
    DOWN     checks say that it does not work.
    EJECTED  traffic says that it does not work, for a limited time.

Their events:

    PASSED      the last `rise` checks in a row have passed (in FRESH: one)
    FAILED      the last `fall` checks in a row have failed (in FRESH: one)
    EJECT       failures in a row met by traffic have reached their limit
    RETURN      the time of an ejection is over
    CHECKS_OFF  the plan no longer has checks for this backend

Which of them ends what: checks end DOWN, time ends EJECTED. Passing checks do not end an ejection,
because they passed while traffic failed, or there would be none: for this fault the traffic is the
better witness. (Envoy lets one passing check end an ejection; a server that accepts connections
and resets them would then be ejected and taken back at every interval.) But once the checks see
the fault too, EJECTED becomes DOWN and the checks, now a witness that can see this fault come
and go, decide alone when it is over, even if the ejection had much longer to run.

Drain lies on top (`shown`): checks go on beneath it, so that a backend comes back from drain to
what is true then and not to what was true when it was drained.

No time and no I/O in here: callers bring events and keep clocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum
from types import MappingProxyType
from typing import Final


class State(StrEnum):
    """What is known about a backend, the operator's wish aside."""

    FRESH = "fresh"
    UP = "up"
    DOWN = "down"
    EJECTED = "ejected"


class Event(Enum):
    """What can happen to a backend."""

    PASSED = "passed"
    FAILED = "failed"
    EJECT = "eject"
    RETURN = "return"
    CHECKS_OFF = "checks off"


class Shown(StrEnum):
    """What people and workers see."""

    UP = "up"
    DOWN = "down"
    EJECTED = "ejected"
    DRAIN = "drain"


TABLE: Final[Mapping[tuple[State, Event], State]] = MappingProxyType({
    (State.FRESH, Event.PASSED): State.UP,
    (State.FRESH, Event.FAILED): State.DOWN,
    (State.FRESH, Event.EJECT): State.EJECTED,
    (State.FRESH, Event.RETURN): State.FRESH,
    (State.FRESH, Event.CHECKS_OFF): State.UP,

    (State.UP, Event.PASSED): State.UP,
    (State.UP, Event.FAILED): State.DOWN,
    (State.UP, Event.EJECT): State.EJECTED,
    (State.UP, Event.RETURN): State.UP,
    (State.UP, Event.CHECKS_OFF): State.UP,

    (State.DOWN, Event.PASSED): State.UP,
    (State.DOWN, Event.FAILED): State.DOWN,
    (State.DOWN, Event.EJECT): State.DOWN,
    (State.DOWN, Event.RETURN): State.DOWN,
    (State.DOWN, Event.CHECKS_OFF): State.UP,

    (State.EJECTED, Event.PASSED): State.EJECTED,
    (State.EJECTED, Event.FAILED): State.DOWN,
    (State.EJECTED, Event.EJECT): State.EJECTED,
    (State.EJECTED, Event.RETURN): State.UP,
    (State.EJECTED, Event.CHECKS_OFF): State.EJECTED,
})

SHOWN: Final[Mapping[State, Shown]] = MappingProxyType({
    State.FRESH: Shown.UP,
    State.UP: Shown.UP,
    State.DOWN: Shown.DOWN,
    State.EJECTED: Shown.EJECTED,
})


def initial(checked: bool) -> State:
    """Where a backend begins: with checks to come it is FRESH, without any it is UP."""
    return State.FRESH if checked else State.UP


def shown(state: State, draining: bool) -> Shown:
    """What people and workers see of a state."""
    return Shown.DRAIN if draining else SHOWN[state]


@dataclass(slots=True)
class Standing:
    """A backend's state and how many checks in a row passed or failed (one of them is 0)."""

    state: State
    passed: int = 0
    failed: int = 0

    def check(self, ok: bool, rise: int, fall: int) -> bool:
        """Counts one check that has ended. True if the state changed."""
        if self.state is State.FRESH:
            rise = fall = 1
        if ok:
            self.passed += 1
            self.failed = 0
            return self.passed >= rise and self._go(Event.PASSED)
        self.failed += 1
        self.passed = 0
        return self.failed >= fall and self._go(Event.FAILED)

    def take(self, event: Event) -> bool:
        """One event that is not a check. True if the state changed."""
        changed = self._go(event)
        if changed:
            # Checks that ended before say nothing about what has just happened.
            self.passed = self.failed = 0
        return changed

    @property
    def takes_traffic(self) -> bool:
        """Whether traffic may go there, unless it is draining."""
        return SHOWN[self.state] is Shown.UP

    @property
    def unsettled(self) -> bool:
        """Checks have begun to contradict the state, or it has yet to be confirmed."""
        if self.state is State.DOWN:
            return self.passed > 0
        return self.failed > 0 or self.state is State.FRESH

    def _go(self, event: Event) -> bool:
        before = self.state
        self.state = TABLE[before, event]
        return self.state is not before
