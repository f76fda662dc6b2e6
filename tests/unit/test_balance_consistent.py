"""maglev and ketama: what a key means, and what happens to it when its backend is not there."""

from __future__ import annotations

import zlib
from bisect import bisect_left
from collections import Counter
from struct import iter_unpack

import pytest

from lbcore._tables import ketama_ring, maglev_table, siphash
from tests.support.balance_lab import DOWN, PANIC, UP, Lab, keys, shares

both = pytest.mark.parametrize("balance", ["maglev", "ketama"])


def test_maglev_looks_one_entry_up() -> None:
    lab = Lab([1, 2, 3], "maglev")
    table = memoryview(maglev_table([n.encode() for n in lab.names], [1, 2, 3])).cast("H")
    asked = keys(2000)
    expected = [table[(siphash(key) >> 32) * len(table) >> 32] for key in asked]
    assert lab.route(asked) == expected


def test_ketama_takes_the_first_point_at_or_after_the_key() -> None:
    lab = Lab([1, 2, 3], "ketama")
    ring = list(iter_unpack("=II", ketama_ring(lab.names, [1, 2, 3])))
    hashes = [point for point, _ in ring]
    asked = keys(5000)
    expected = [ring[bisect_left(hashes, zlib.crc32(key)) % len(ring)][1] for key in asked]
    assert lab.route(asked) == expected


def test_a_key_that_hashes_to_a_point_exactly_belongs_to_it() -> None:
    lab = Lab([10] * 100, "ketama")
    owner = dict(iter_unpack("=II", ketama_ring(lab.names, [10] * 100)))
    exact = [key for key in keys(300_000) if zlib.crc32(key) in owner]
    assert exact
    assert lab.route(exact) == [owner[zlib.crc32(key)] for key in exact]


@both
def test_a_key_means_the_same_backend_to_every_worker(balance: str) -> None:
    lab = Lab([1, 2, 3, 4], balance, seats=3)
    asked = keys(500)
    assert lab.route(asked, 0) == lab.route(asked, 1) == lab.route(asked, 2)


@both
def test_the_empty_key_has_a_backend_too(balance: str) -> None:
    assert len(set(Lab([1, 1, 1], balance).route(20))) == 1


@both
def test_keys_of_a_failed_backend_spread_over_all_others(balance: str) -> None:
    lab = Lab([1] * 5, balance)
    asked = keys(20_000)
    before = lab.route(asked)
    lab.set(2, state=DOWN)
    moved = shares(
        (b for a, b in zip(before, lab.route(asked), strict=True) if a == 2), 5
    )
    assert moved[2] == 0
    assert min(moved[:2] + moved[3:]) > 0.2     # ideal: 0.25


@both
def test_every_backend_is_some_time_the_next(balance: str) -> None:
    lab = Lab([1] * 6, balance)
    assert sorted(lab.order(b"somebody")) == list(range(6))


@both
def test_a_single_survivor_of_many_is_found(balance: str) -> None:
    """The walk along the table is bounded; the survivor has 1 of 2,000 shares of it."""
    lab = Lab([1] * 2000, balance)
    for i in range(2000):
        if i != 1234:
            lab.set(i, state=DOWN)
    assert set(lab.route(keys(50))) == {1234}


@both
def test_few_survivors_of_many_share_evenly_and_keep_their_keys(balance: str) -> None:
    lab = Lab([1] * 2000, balance)
    alive = [5, 700, 1300, 1999]
    for i in set(range(2000)) - set(alive):
        lab.set(i, state=DOWN)
    asked = keys(2000)
    before = lab.route(asked)
    tally = Counter(before)
    assert sorted(tally) == alive
    assert min(tally.values()) > 400
    lab.set(700, state=DOWN)
    after = lab.route(asked)
    assert all(a == b for a, b in zip(before, after, strict=True) if a != 700)


@both
def test_few_survivors_of_many_that_all_warm_up_share_evenly(balance: str) -> None:
    lab = Lab([1] * 2000, balance)
    for i in range(2000):
        lab.set(i, **({"ramp": 1} if i in (5, 700, 1300, 1999) else {"state": DOWN}))
    tally = Counter(lab.route(keys(2000)))
    assert sorted(tally) == [5, 700, 1300, 1999]
    assert min(tally.values()) > 400


@both
def test_slow_start_hands_keys_back_one_after_another_and_for_good(balance: str) -> None:
    lab = Lab([1] * 4, balance)
    asked = keys(8000)
    home = lab.route(asked)
    had: set[bytes] = set()
    for ramp in (1, 32, 64, 128, 192, 256):
        lab.set(0, ramp=ramp)
        now = lab.route(asked)
        has = {key for key, i in zip(asked, now, strict=True) if i == 0}
        assert had <= has
        assert len(has) / home.count(0) == pytest.approx(ramp / 256, abs=0.05)
        others = [(a, b) for a, b in zip(home, now, strict=True) if a != 0]
        assert all(a == b for a, b in others)
        had = has
    assert now == home


@both
def test_backends_that_all_warm_up_still_take_every_key(balance: str) -> None:
    lab = Lab([1] * 3, balance)
    asked = keys(300)
    home = lab.route(asked)
    for i in range(3):
        lab.set(i, ramp=1)
    now = lab.route(asked)
    assert min(now) >= 0
    assert sum(a == b for a, b in zip(home, now, strict=True)) > 250


@both
def test_a_backend_given_weight_at_run_time_only_stands_in(balance: str) -> None:
    """The table knows configured weights: weight 0 has no entry, but is better than nobody."""
    lab = Lab([1, 0], balance)
    lab.set(1, weight=5)
    assert set(lab.route(keys(100))) == {0}
    lab.set(0, state=DOWN)
    assert set(lab.route(keys(100))) == {1}


@both
def test_live_weight_zero_sends_keys_on_and_takes_them_back(balance: str) -> None:
    lab = Lab([1, 1, 1], balance)
    asked = keys(500)
    home = lab.route(asked)
    lab.set(1, weight=0)
    assert 1 not in lab.route(asked)
    lab.set(1, weight=1)
    assert lab.route(asked) == home


# -- bounded loads


@both
def test_a_hot_key_spills_over_in_its_own_order(balance: str) -> None:
    lab = Lab([1] * 4, balance, load_bound=1.25)
    order = lab.order(b"hot")
    held = [lab.pick(b"hot") for _ in range(100)]
    assert held[0] == order[0]
    tally = Counter(held)
    # ceil(1.25 x 100 / 4)
    assert tally[order[0]] == 32
    assert tally[order[0]] >= tally[order[1]] >= tally[order[2]] >= tally[order[3]]


@both
def test_bound_follows_weights(balance: str) -> None:
    lab = Lab([3, 1], balance, load_bound=1.25)
    tally = Counter(lab.pick(b"hot") for _ in range(100))
    # ceil(1.25 x 100 x 3/4) and ceil(1.25 x 100 x 1/4); the key's own backend fills to the bound
    assert tally in ({0: 94, 1: 6}, {0: 68, 1: 32})


@both
def test_without_a_bound_a_hot_key_stays(balance: str) -> None:
    lab = Lab([1] * 4, balance)
    assert len({lab.pick(b"hot") for _ in range(100)}) == 1


@both
@pytest.mark.parametrize("loads", [(0, 10, 9), (9, 0, 10), (10, 9, 0), (9, 10, 0)])
def test_when_all_that_are_left_are_above_the_bound_the_least_loaded_takes_it(
    balance: str, loads: tuple[int, ...]
) -> None:
    """ceil(1.25 x 20 / 3) is 9, and the connection has failed with the idle one."""
    lab = Lab([1, 1, 1], balance, load_bound=1.25)
    for i, load in enumerate(loads):
        for k in range(3):
            lab.set(k, state=UP if k == i else DOWN)
        assert [lab.pick() for _ in range(load)] == [i] * load
    for k in range(3):
        lab.set(k, state=UP)
    for key in keys(10):
        cursor = lab.begin(key)
        first, second = lab.workers[0].pick(cursor), lab.workers[0].pick(cursor)
        assert (first, second) == (loads.index(0), loads.index(9))
        lab.release(first)
        lab.release(second)


@both
def test_bound_holds_among_those_tried_in_a_panic(balance: str) -> None:
    lab = Lab([1, 1, 1], balance, load_bound=1.25)
    for i in range(3):
        lab.set(i, state=DOWN)
    lab.board.set_pool(0, PANIC, 0)
    tally = Counter(lab.pick(b"hot") for _ in range(60))
    assert max(tally.values()) <= 25


@both
def test_bound_holds_among_backups(balance: str) -> None:
    lab = Lab([1], balance, backups=[1, 1, 1], load_bound=1.25)
    lab.set(0, state=DOWN)
    tally = Counter(lab.pick(b"hot") for _ in range(60))
    assert max(tally.values()) <= 25
