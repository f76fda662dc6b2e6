"""Orders for backends that a source names, names no longer, and names again."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lbcore.supervisor import absences
from lbcore.supervisor.changes import Change, Overlay
from lbcore.supervisor.image import Answers
from lbcore.supervisor.running import Running
from lbcore.supervisor.settings import read_text

ONE, TWO = "10.0.0.1:80", "10.0.0.2:80"
FILE = """
[[listener]]
name = "web"
bind = "127.0.0.1:8080"
pool = "web"
[pool.web.discover]
file = "backends.json"
"""


class Clock:
    """Time that passes when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr("lbcore.supervisor.absences.time",
                            SimpleNamespace(monotonic=lambda: self.now))


class Lab(Running):
    """What runs, without anybody who runs it."""

    def __init__(self) -> None:
        self.dropped: list[str] = []
        log = SimpleNamespace(warning=lambda name, **said: self.dropped.append(said["message"]))
        here: Any = SimpleNamespace(
            changing=asyncio.Lock(), closed="", log=log, rollout=SimpleNamespace(version=1))
        super().__init__(here)
        self._found = read_text(FILE, Path("/etc/lb.toml"))
        drained = Change("drain", "web", ONE, False, True, "2026-01-01T00:00:00Z")
        self.overlay = Overlay({drained.key: drained})

    async def _put(self, overlay: Overlay, answers: Answers) -> None:
        self.overlay = overlay

    async def names(self, *backends: str) -> bool:
        """A source names these; whether the first one is drained, or would be if it was named."""
        await self.set_source("web", backends, "callable")
        return bool(self.overlay.changes)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


async def test_who_is_away_for_a_moment_comes_back_drained(clock: Clock) -> None:
    lab = Lab()
    for _ in range(5):                   # and however often: each absence counts by itself
        assert await lab.names(ONE, TWO)
        assert await lab.names(TWO)
        clock.now += absences.LONG * 0.9
    assert await lab.names(ONE, TWO)
    assert lab.dropped == []


async def test_who_is_away_for_long_comes_back_as_another(clock: Clock) -> None:
    lab = Lab()
    await lab.names(ONE, TWO)
    await lab.names(TWO)
    clock.now += absences.LONG + 1
    assert not await lab.names(ONE, TWO)
    assert lab.dropped == [f"web/{ONE} drain: {absences.REASON}"]


async def test_nothing_is_left_of_who_does_not_come_back(clock: Clock) -> None:
    lab = Lab()
    await lab.names(TWO)
    clock.now += absences.LONG + 1
    assert not await lab.names(TWO, "10.0.0.3:80")


async def test_who_stays_is_drained_for_as_long_as_anybody_wants(clock: Clock) -> None:
    lab = Lab()
    for number in range(5):
        clock.now += absences.LONG + 1
        assert await lab.names(ONE, f"10.0.1.{number}:80")
