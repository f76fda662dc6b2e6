"""What every algorithm has in common: who is eligible, who stands in, and what is counted."""

from __future__ import annotations

import os

import pytest

from lbcore._balance import FULL, NOBODY, Selector
from lbcore._plan import build_image
from lbcore._scoreboard import Scoreboard
from tests.support.balance_lab import (
    BACKUP,
    DOWN,
    DRAIN,
    EJECTED,
    GONE,
    PANIC,
    UP,
    Lab,
    keys,
)

every = pytest.mark.parametrize(
    "balance", ["round_robin", "least_conn", "random", "maglev", "ketama"]
)


@every
def test_a_place_is_counted_everywhere_and_given_back(balance: str) -> None:
    lab = Lab([1, 1], balance)
    i = lab.pick(b"k")
    assert lab.inflight(i) == 1
    assert lab.board.pool(0)["inflight"] == 1
    assert lab.board.backend_totals(i)["inflight"] == 1
    assert lab.board.pool_totals(0)["inflight"] == 1
    lab.release(i)
    assert lab.inflight(i) == 0
    assert lab.board.pool(0)["inflight"] == 0
    assert lab.board.reconcile(2, 1, 0) == []


@every
@pytest.mark.parametrize("state", [DOWN, EJECTED, DRAIN, GONE])
def test_only_backends_that_are_up_are_picked(balance: str, state: int) -> None:
    lab = Lab([1, 1, 1], balance)
    lab.set(1, state=state)
    assert set(lab.route(keys(60))) == {0, 2}
    lab.set(0, state=state)
    lab.set(2, state=state)
    assert set(lab.route(keys(5))) == {NOBODY}


@every
def test_panic_tries_the_sick_but_never_the_draining(balance: str) -> None:
    lab = Lab([1] * 5, balance)
    for i, state in enumerate((DOWN, EJECTED, DRAIN, GONE, UP)):
        lab.set(i, state=state)
    lab.flag(PANIC)
    assert set(lab.route(keys(200))) == {0, 1, 4}


@every
def test_weight_zero_is_never_picked(balance: str) -> None:
    lab = Lab([1, 0, 1], balance)
    assert set(lab.route(keys(60))) == {0, 2}


@every
def test_backups_wait_until_no_primary_is_left(balance: str) -> None:
    lab = Lab([1, 1], balance, backups=[1, 1])
    assert set(lab.route(keys(60))) == {0, 1}
    lab.set(0, state=DOWN)
    assert set(lab.route(keys(60))) == {1}
    lab.set(1, state=DOWN)
    assert set(lab.route(keys(60))) == {2, 3}
    lab.set(1, state=UP)
    assert set(lab.route(keys(60))) == {1}


@every
def test_backups_come_after_all_primaries_for_one_connection(balance: str) -> None:
    lab = Lab([1, 1], balance, backups=[1, 1])
    order = lab.order(b"k")
    assert sorted(order[:2]) == [0, 1]
    assert sorted(order[2:]) == [2, 3]


@every
def test_pool_flag_hands_the_traffic_to_backups(balance: str) -> None:
    lab = Lab([1, 1], balance, backups=[1])
    lab.flag(BACKUP)
    assert set(lab.route(keys(20))) == {2}
    lab.set(2, state=DOWN)
    assert set(lab.route(keys(60))) == {0, 1}


@every
def test_a_pool_of_backups_alone_works(balance: str) -> None:
    assert set(Lab([], balance, backups=[1, 1]).route(keys(60))) == {0, 1}


@every
def test_full_backends_are_passed_over_and_then_worth_waiting_for(balance: str) -> None:
    lab = Lab([1, 1], balance, limits={0: 2, 1: 3})
    held = [lab.pick(b"k") for _ in range(5)]
    assert sorted(held) == [0, 0, 1, 1, 1]
    assert lab.pick(b"k") == FULL
    lab.release(0)
    assert lab.pick(b"k") == 0


@every
def test_full_primaries_do_not_spill_to_backups(balance: str) -> None:
    lab = Lab([1], balance, limits={0: 1}, backups=[1])
    assert lab.pick() == 0
    assert lab.pick() == FULL


@every
def test_limit_holds_over_all_workers(balance: str) -> None:
    lab = Lab([1], balance, limits={0: 3}, seats=2)
    assert [lab.pick(b"k", n % 2) for n in range(4)] == [0, 0, 0, FULL]


@every
def test_a_connection_that_tried_everybody_is_told_nobody(balance: str) -> None:
    lab = Lab([1, 1, 1], balance)
    cursor = lab.begin(b"k")
    worker = lab.workers[0]
    assert sorted(worker.pick(cursor) for _ in range(3)) == [0, 1, 2]
    assert worker.pick(cursor) == NOBODY
    assert sorted(cursor.tried) == [0, 1, 2]


@every
def test_a_connection_that_tried_all_but_a_full_one_waits_for_that(balance: str) -> None:
    lab = Lab([1, 1], balance, limits={1: 1})
    while lab.pick(b"k") != 1:
        lab.release(0)
    cursor = lab.begin(b"k")
    assert lab.workers[0].pick(cursor) == 0
    assert lab.workers[0].pick(cursor) == FULL
    lab.release(1)
    assert lab.workers[0].pick(cursor) == 1


@every
def test_eight_attempts_are_enough(balance: str) -> None:
    lab = Lab([1] * 20, balance)
    order = lab.order(b"k")
    assert len(order) == len(set(order)) == 8


@every
def test_one_backend_is_always_the_answer(balance: str) -> None:
    assert set(Lab([7], balance).route(keys(20))) == {0}


@every
def test_an_empty_pool_has_nobody(balance: str) -> None:
    assert Lab([], balance).pick() == NOBODY


@every
def test_heaviest_possible_pool_does_not_overflow(balance: str) -> None:
    # A ketama ring has 160 points for each unit of weight, and its own limit.
    lab = Lab([1000] * (100 if balance == "ketama" else 16000), balance)
    picked = lab.route(keys(200))
    assert min(picked) >= 0
    assert len(set(picked)) > 60


def test_selector_names_what_is_out_of_range() -> None:
    lab = Lab([1])
    with pytest.raises(IndexError, match="pool 1"):
        lab.workers[0].begin(1)
    with pytest.raises(IndexError, match="no backend 1"):
        lab.release(1)
    image = build_image(1, 0, [], [])
    with pytest.raises(IndexError, match="seat 128"):
        Selector(Scoreboard.create(), image, 128)
    os.close(image)
