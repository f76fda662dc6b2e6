"""A session goes back to the backend that keeps it, as long as that backend can take it."""

from __future__ import annotations

import pytest

from tests.support.balance_lab import DOWN, DRAIN, EJECTED, GONE, PANIC, POOL, UP, Lab

every = pytest.mark.parametrize(
    "balance", ["round_robin", "least_conn", "random", "maglev", "ketama"]
)


def keep(lab: Lab, index: int) -> bool:
    """Whether a session of that backend gets it."""
    worker = lab.workers[0]
    return worker.pick_this(worker.begin(POOL, b"k"), index)


@every
def test_a_kept_session_is_counted_as_any_other(balance: str) -> None:
    lab = Lab([1, 1, 1], balance)
    assert keep(lab, 2)
    assert lab.inflight(2) == 1
    assert lab.board.pool(0)["inflight"] == 1
    lab.release(2)
    assert lab.inflight(2) == lab.board.pool(0)["inflight"] == 0
    assert lab.board.reconcile(3, 1, 0) == []


@every
def test_it_is_not_given_twice_and_others_follow_when_it_fails(balance: str) -> None:
    lab = Lab([1, 1, 1], balance)
    worker = lab.workers[0]
    cursor = worker.begin(POOL, b"k")
    assert worker.pick_this(cursor, 1)
    assert not worker.pick_this(cursor, 1)
    lab.release(1)
    rest = [worker.pick(cursor) for _ in range(2)]
    assert sorted(rest) == [0, 2]
    assert worker.pick(cursor) < 0
    assert cursor.tried == [1, *rest]


@pytest.mark.parametrize(("state", "stays"), [
    (UP, True), (DRAIN, True), (DOWN, False), (EJECTED, False), (GONE, False),
])
def test_drain_keeps_sessions_and_failure_does_not(state: int, stays: bool) -> None:
    lab = Lab([1, 1])
    lab.set(1, state=state)
    assert keep(lab, 1) is stays


@pytest.mark.parametrize(("state", "stays"), [(DOWN, True), (EJECTED, True), (GONE, False)])
def test_in_panic_sessions_stay_with_the_sick_too(state: int, stays: bool) -> None:
    lab = Lab([1, 1])
    lab.set(1, state=state)
    lab.flag(PANIC)
    assert keep(lab, 1) is stays


def test_weight_0_keeps_sessions() -> None:
    lab = Lab([1, 1])
    lab.set(1, weight=0)
    assert set(lab.route([b"x"] * 5)) == {0}
    assert keep(lab, 1)


def test_a_backend_that_warms_up_or_is_above_the_bound_keeps_its_sessions() -> None:
    lab = Lab([1, 1], "maglev", load_bound=1.01)
    lab.set(1, ramp=1)
    assert all(keep(lab, 1) for _ in range(20))


def test_a_backup_keeps_the_sessions_it_was_given() -> None:
    lab = Lab([1], backups=[1])
    assert keep(lab, 1)


def test_a_full_backend_leaves_its_session_to_others() -> None:
    lab = Lab([1, 1], limits={1: 2})
    worker = lab.workers[0]
    assert keep(lab, 1)
    assert keep(lab, 1)
    cursor = worker.begin(POOL)
    assert not worker.pick_this(cursor, 1)
    assert worker.pick(cursor) == 0
    assert lab.inflight(1) == 2


@pytest.mark.parametrize("index", [-1, 2, 65536, 1 << 31 - 1])
def test_an_index_outside_the_pool_names_nobody(index: int) -> None:
    assert not keep(Lab([1, 1]), index)


def test_a_cursor_that_has_tried_eight_tries_nobody_else() -> None:
    lab = Lab([1] * 9)
    worker = lab.workers[0]
    cursor = worker.begin(POOL)
    given = [worker.pick(cursor) for _ in range(8)]
    (left,) = set(range(9)) - set(given)
    assert not worker.pick_this(cursor, left)
