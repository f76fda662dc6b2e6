from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from tests.support.balance_lab import DOWN, UP, Lab


def test_equal_backends_follow_each_other_in_the_order_of_the_file() -> None:
    picked = Lab([1, 1, 1, 1]).route(40)
    assert all((b - a) % 4 == 1 for a, b in pairwise(picked))


def test_a_heavy_backend_is_spread_over_the_cycle() -> None:
    """5, 1, 1 must not become five connections in a row."""
    picked = Lab([5, 1, 1]).route(70)
    assert Counter(picked) == {0: 50, 1: 10, 2: 10}
    longest = max(len(run) for run in "".join(map(str, picked)).replace("2", "1").split("1"))
    assert longest <= 3


def test_workers_start_at_different_places() -> None:
    """Otherwise the first backend of the file would get a burst from all workers at once."""
    lab = Lab([1] * 8, seats=8)
    first = Counter(lab.route(1, worker)[0] for worker in range(8))
    assert max(first.values()) <= 2


@pytest.mark.parametrize("workers", [2, 3, 5, 8])
def test_first_picks_of_few_workers_all_differ(workers: int) -> None:
    lab = Lab([1] * 64, seats=workers)
    assert len({lab.route(1, worker)[0] for worker in range(workers)}) == workers


def test_weight_changes_take_effect_at_once() -> None:
    lab = Lab([1000, 1000])
    lab.route(501)
    lab.set(0, weight=1)
    lab.set(1, weight=1)
    assert Counter(lab.route(20))[0] == pytest.approx(10, abs=2)


def test_a_row_that_belonged_to_a_heavy_backend_does_not_burden_its_next_owner() -> None:
    heavy = Lab([1000, 1000, 1])
    heavy.route(1001)
    light = Lab([1, 1, 1], after=heavy)
    picked = Counter(light.route(30))
    assert [picked[i] for i in range(3)] == pytest.approx([10, 10, 10], abs=2)


def test_a_light_backend_about_to_have_its_turn_makes_no_burst_of_it() -> None:
    """It is a thousand light connections behind when its weight becomes as good as any."""
    lab = Lab([1000, 1])
    while lab.route(1) != [1]:
        pass
    lab.route(990)
    lab.set(0, weight=1)
    assert Counter(lab.route(20))[1] == pytest.approx(10, abs=2)


def test_a_new_backend_is_not_met_by_all_workers_at_once() -> None:
    lab = Lab([1] * 8, seats=16)
    for worker in range(16):
        lab.route(5, worker)
    grown = Lab([1] * 9, after=lab)
    assert sum(grown.route(1, worker) == [8] for worker in range(16)) < 8
    share = [Counter(grown.route(90, worker))[8] for worker in range(16)]
    assert share == pytest.approx([10] * 16, abs=1)


def test_workers_start_at_different_places_in_a_pool_that_is_all_new() -> None:
    lab = Lab([1] * 8, seats=8)
    for worker in range(8):
        lab.route(1, worker)
    new = Lab([1] * 8, after=lab, first_row=100)
    assert max(Counter(new.route(1, worker)[0] for worker in range(8)).values()) <= 2


def test_a_backend_that_comes_back_gets_its_share_and_no_burst() -> None:
    lab = Lab([1, 1, 1])
    lab.set(2, state=DOWN)
    assert Counter(lab.route(1000)) == {0: 500, 1: 500}
    lab.set(2, state=UP)
    assert Counter(lab.route(30))[2] == pytest.approx(10, abs=1)


def test_slow_start_gives_a_growing_share_of_the_weight() -> None:
    lab = Lab([1, 1])
    for ramp, share in ((1, 1 / 257), (64, 0.2), (128, 1 / 3), (256, 0.5)):
        lab.set(1, ramp=ramp)
        assert lab.route(2570).count(1) / 2570 == pytest.approx(share, abs=0.002)


def test_a_backend_at_the_very_start_of_slow_start_is_used_when_it_is_alone() -> None:
    lab = Lab([1, 1])
    lab.set(0, state=DOWN)
    lab.set(1, ramp=0)
    assert lab.route(3) == [1, 1, 1]


def test_the_next_candidate_is_somebody_else() -> None:
    lab = Lab([3, 2, 1])
    for _ in range(12):
        assert sorted(lab.order()) == [0, 1, 2]
