"""What callables of a program say reaches its lbcore, whatever that does at the moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from lbcore.admin.calls import AdminError, Conflict, NotRunning, Refused
from lbcore.balancer import feed as feeding
from lbcore.balancer.feed import Feed
from lbcore.discovery.answers import Table
from tests.support.admin import PATIENCE, until

FIRST, SECOND, THIRD = (f"127.0.0.1:{port}" for port in (1, 2, 3))


class Lab:
    """A feed of one pool, and an lbcore that refuses what it is told to refuse."""

    def __init__(self) -> None:
        self.orders: asyncio.Queue[str] = asyncio.Queue()
        self.refusals: list[Exception] = []
        self.tried: list[str] = []
        self.taken: asyncio.Queue[str] = asyncio.Queue()
        self.feed = Feed({"web": self.source}, 0.01, threads=True)

    async def source(self) -> AsyncIterator[list[str]]:
        while True:
            yield [await self.orders.get()]

    async def push(self, pool: str, backends: list[Table]) -> None:
        (one,) = (table["address"] for table in backends)
        self.tried.append(one)
        if self.refusals:
            raise self.refusals.pop(0)
        await self.taken.put(one)

    async def next(self) -> str:
        async with asyncio.timeout(PATIENCE):
            return await self.taken.get()


@pytest.fixture
async def lab(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Lab]:
    monkeypatch.setattr(feeding, "AGAIN", 0.02)
    made = Lab()
    await made.orders.put(FIRST)
    await made.feed.first(PATIENCE)
    made.feed.go_on(made.push)
    yield made
    await made.feed.stop()


@pytest.mark.parametrize("refusal", [
    Conflict("an upgrade takes over just now", status=409), NotRunning("nobody answers"),
    Refused("cannot resolve web", status=422), AdminError("no room", status=503),
], ids=lambda one: type(one).__name__)
async def test_what_was_refused_for_the_moment_is_offered_again(
    lab: Lab, refusal: Exception, caplog: pytest.LogCaptureFixture,
) -> None:
    lab.refusals = [refusal] * 3
    await lab.orders.put(SECOND)
    assert await lab.next() == SECOND
    assert lab.tried == [SECOND] * 4
    assert caplog.text.count(str(refusal)) == 1      # told once


async def test_a_newer_set_takes_the_place_of_one_that_is_refused(
    lab: Lab, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(feeding, "AGAIN", PATIENCE)
    lab.refusals = [NotRunning("nobody answers")]
    await lab.orders.put(SECOND)
    await until(lambda: lab.tried == [SECOND])
    await lab.orders.put(THIRD)
    assert await lab.next() == THIRD


async def test_what_no_configuration_may_say_is_offered_once(lab: Lab) -> None:
    problems: list[dict[str, Any]] = [{"message": "is listener \"web\" itself"}]
    lab.refusals = [Refused("this cannot run", problems=problems, status=422)]
    await lab.orders.put(SECOND)
    await until(lambda: lab.tried == [SECOND])
    await lab.orders.put(THIRD)
    assert await lab.next() == THIRD
    assert lab.tried == [SECOND, THIRD]
