from __future__ import annotations

from collections import Counter

import pytest

from tests.support.balance_lab import DOWN, Lab, shares


def test_idle_backends_are_drawn_by_weight() -> None:
    weights = [1, 2, 3, 4]
    drawn = shares(Lab(weights, "random").route(40_000), 4)
    # Four standard deviations of a share of 0.4 over 40,000 draws.
    assert drawn == pytest.approx([w / 10 for w in weights], abs=0.01)


def test_of_two_the_less_loaded_is_taken() -> None:
    lab = Lab([1, 1], "random")
    assert Counter(lab.pick() for _ in range(100)) == {0: 50, 1: 50}


def test_two_choices_keep_loads_closer_than_one_would() -> None:
    """1,000 connections on 100 backends: a single choice leaves somebody with 20 or more."""
    lab = Lab([1] * 100, "random")
    held = Counter(lab.pick() for _ in range(1000))
    assert max(held.values()) <= 14


def test_workers_do_not_draw_alike() -> None:
    lab = Lab([1] * 50, "random", seats=2)
    assert lab.route(20, worker=0) != lab.route(20, worker=1)


def test_only_the_living_are_drawn() -> None:
    lab = Lab([1] * 5, "random")
    for i in (0, 1, 3):
        lab.set(i, state=DOWN)
    assert set(lab.route(200)) == {2, 4}
    lab.set(4, state=DOWN)
    assert set(lab.route(200)) == {2}


def test_the_next_candidate_is_somebody_else() -> None:
    lab = Lab([3, 2, 1], "random")
    for _ in range(50):
        assert sorted(lab.order()) == [0, 1, 2]
