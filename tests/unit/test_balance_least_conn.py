from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from tests.support.balance_lab import Lab


def test_the_idlest_backend_is_picked() -> None:
    lab = Lab([1, 1, 1], "least_conn")
    held = [lab.pick() for _ in range(6)]
    assert Counter(held) == {0: 2, 1: 2, 2: 2}
    lab.release(1)
    assert lab.pick() == 1


def test_connections_are_counted_over_all_workers() -> None:
    lab = Lab([1, 1, 1, 1], "least_conn", seats=4)
    held = Counter(lab.pick(worker=n % 4) for n in range(40))
    assert set(held.values()) == {10}


def test_connections_follow_weights() -> None:
    lab = Lab([3, 1], "least_conn")
    assert Counter(lab.pick() for _ in range(40)) == {0: 30, 1: 10}


def test_idle_equals_take_turns() -> None:
    picked = Lab([1, 1, 1], "least_conn").route(30)
    assert all((b - a) % 3 == 1 for a, b in pairwise(picked))


def test_equals_beside_a_busy_backend_take_even_turns() -> None:
    lab = Lab([1, 1, 1], "least_conn")
    for _ in range(3):
        lab.pick()
    busy = lab.pick()
    picked = Counter(lab.route(100))
    assert busy not in picked
    assert set(picked.values()) == {50}


def test_weights_hold_when_there_is_hardly_any_traffic() -> None:
    """One short connection after the other: everybody is always idle, and must not be passed
    over for being light."""
    assert Counter(Lab([2, 1], "least_conn").route(300)) == {0: 200, 1: 100}


def test_slow_start_keeps_connections_below_the_share() -> None:
    lab = Lab([1, 1], "least_conn")
    lab.set(1, ramp=64)
    held = Counter(lab.pick() for _ in range(100))
    assert held[1] == pytest.approx(20, abs=1)
