"""Live figures: what two readings of the scoreboard say of the time between them."""

from __future__ import annotations

import asyncio
import os
import struct
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lbcore._scoreboard import CAPACITY, SIZES, Scoreboard, histogram_bound
from lbcore.admin.picture import Live
from lbcore.supervisor import image, live
from lbcore.supervisor.live import Sampler, figures_between
from lbcore.supervisor.rollout import Rollout
from lbcore.supervisor.rows import RowTable
from lbcore.supervisor.settings import read_text
from tests.unit.test_figures import backend_at, count

FILE = """
[[listener]]
name = "main"
bind = "127.0.0.1:8080"
pool = "tcp"
[[listener]]
name = "web"
bind = "127.0.0.1:8081"
protocol = "http"
pool = "http"
[pool.tcp]
backends = ["10.0.0.1:80", "10.0.0.2:80"]
[pool.http]
backends = ["10.0.1.1:80"]
"""


def rollout(text: str = FILE) -> Rollout:
    """What a sampler needs of one: a plan, its rows and a scoreboard."""
    made = SimpleNamespace(board=Scoreboard.create())
    for kind in ("listeners", "routes", "pools", "backends"):
        setattr(made, kind, RowTable(kind, CAPACITY[kind]))
    apply(cast(Rollout, made), text)
    return cast(Rollout, made)


def apply(made: Rollout, text: str) -> None:
    """Another plan."""
    made.plan = plan = read_text(text, Path("/lb.toml")).plan
    for table, keys in ((made.listeners, image.listener_keys), (made.routes, image.route_keys),
                        (made.pools, image.pool_keys), (made.backends, image.backend_keys)):
        table.commit(table.assign(keys(plan)), 0.0, 0.0)


def reading(sampler: Sampler, at: float) -> live.Reading:
    """A reading as if it had been taken at another time."""
    from dataclasses import replace  # noqa: PLC0415

    return replace(sampler._read(), at=at)


def requests(board: Scoreboard, seat: int, row: int, good: int, bad: int) -> None:
    """As a worker would have counted: requests of which some were answered with 500."""
    at = backend_at(seat, row) + 64 + 4 * 96
    os.pwrite(board.fd, struct.pack("<Q", good + bad), at)
    os.pwrite(board.fd, struct.pack("<6Q", 0, 0, good, 0, 0, bad), at + 8)
    os.pwrite(board.fd, struct.pack("<I", good + bad), at + 8 + 6 * 8 + 16 + 4 * 40)


def test_rates_and_latencies_are_those_of_the_time_between() -> None:
    made = rollout()
    seat, sampler = made.board.take_seat(0), Sampler(made)
    count(made.board, seat, 0, 1000, 20)
    requests(made.board, seat, 2, 10, 0)
    old = reading(sampler, 100.0)
    count(made.board, seat, 0, 1050, 20)
    requests(made.board, seat, 2, 28, 2)
    said = figures_between(reading(sampler, 104.0), old)
    Live.model_validate(said)
    assert said["window_s"] == 4.0
    first, second = said["backends"]["tcp"].values()
    assert first["connections_per_s"] == 12.5 and first["requests_per_s"] is None
    assert first["p50_ms"] == first["p99_ms"] == histogram_bound(20) / 1000
    assert second["connections_per_s"] == 0 and second["p50_ms"] is None
    (web,) = said["backends"]["http"].values()
    assert (web["requests_per_s"], web["errors_per_s"]) == (5.0, 0.5)
    assert web["p99_ms"] == histogram_bound(40) / 1000
    assert said["pools"]["http"]["requests_per_s"] == 5.0
    assert said["pools"]["tcp"]["p90_ms"] == first["p50_ms"]
    assert said["listeners"]["main"]["status"] is None
    assert said["listeners"]["web"]["status"]["2xx"] == 0


def test_alone_a_reading_says_what_is_now_and_null_for_the_rest() -> None:
    said = figures_between(reading(Sampler(rollout()), 1.0), None)
    Live.model_validate(said)
    assert said["window_s"] == 0 and said["total"]["connections"] == 0
    assert said["total"]["connections_per_s"] is None and said["total"]["status"] is None


def test_backend_that_came_between_has_all_it_has_from_then_and_one_that_left_is_gone() -> None:
    made = rollout()
    seat, sampler = made.board.take_seat(0), Sampler(made)
    count(made.board, seat, 1, 500, 20)
    old = reading(sampler, 1.0)
    apply(made, FILE.replace('["10.0.0.1:80", "10.0.0.2:80"]', '["10.0.0.2:80", "10.0.0.9:80"]'))
    count(made.board, seat, made.backends.live["tcp", "10.0.0.9:80", "10.0.0.9:80"], 30, 20)
    count(made.board, seat, 1, 600, 20)
    said = figures_between(reading(sampler, 11.0), old)["backends"]["tcp"]
    assert {name: one["connections_per_s"] for name, one in said.items()} == {
        "10.0.0.2:80": 10.0, "10.0.0.9:80": 3.0}


async def test_first_question_is_answered_with_rates_and_reading_goes_on_until_nobody_asks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(live, "FIRST", 0.05)
    monkeypatch.setattr(live, "PACE", 0.02)
    monkeypatch.setattr(live, "PATIENCE", 0.1)
    sampler = Sampler(rollout())
    said = await sampler.live(10)
    assert said["window_s"] > 0 and said["total"]["connections_per_s"] == 0
    with sampler.watching():
        task = sampler._task
        assert task is not None
        _, pending = await asyncio.wait({task}, timeout=0.3)
        assert pending, "somebody watches"
    await asyncio.wait_for(task, 20)
    assert sampler._readings == []
    assert (await sampler.live(1))["window_s"] > 0
    sampler.stop()


async def test_answers_are_shared_by_all_who_ask_at_once() -> None:
    sampler = Sampler(rollout())
    await sampler.live(1)
    first, second = await asyncio.gather(sampler.live(5), sampler.live(5))
    assert first is second
    sampler.stop()


def test_a_minute_is_kept_in_few_readings() -> None:
    sampler = Sampler(rollout())
    place = sampler._read()
    now = time.monotonic()
    for second in range(200):
        sampler._readings.append((second, cast(Any, SimpleNamespace(at=now - 200 + second))))
    sampler._thin_out()
    ages = [round(now - one.at) for _, one in sampler._readings]
    assert ages[-11:] == list(range(11, 0, -1)) and 50 <= ages[0] <= 62 and len(ages) < 25
    assert place.place.rows[3] == [0, 1, 2]


def test_thousand_backends_are_read_and_compared_within_the_budget_of_a_turn() -> None:
    """Generously: the claim is about the kind of work, and the machine may be busy."""
    backends = ", ".join(f'"10.{n // 250}.1.{n % 250}:80"' for n in range(1000))
    made = rollout(FILE.replace('"10.0.1.1:80"', backends))
    sampler = Sampler(made)
    old = reading(sampler, 1.0)
    spent = []
    for _ in range(3):
        began = time.thread_time()
        said = figures_between(reading(sampler, 2.0), old)
        spent.append(time.thread_time() - began)
        assert len(said["backends"]["http"]) == 1000
    assert min(spent) < 0.2
    assert SIZES["backend_counters"] == 1024
