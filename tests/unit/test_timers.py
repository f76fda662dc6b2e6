"""The timing wheel, case by case; what must hold for all cases is in the property tests."""

from __future__ import annotations

import pytest

from lbcore._timers import CASCADE_MAX, NODE_SIZE, TICK, Wheel

HOUR = 3_600_000
HORIZON = TICK * (2**31 - 1)    # ms, 397 days


def fired(wheel: Wheel, now_ms: int) -> list[int]:
    """Everything that one round pops, in order."""
    found = []
    while (index := wheel.advance(now_ms)) is not None:
        found.append(index)
    return found


def test_a_node_costs_24_bytes() -> None:
    assert NODE_SIZE == 24


def test_a_timer_fires_at_its_time_rounded_up_to_a_tick_and_once() -> None:
    wheel = Wheel(1_000, 1)
    wheel.set(0, 1_100)         # between the ticks at 1088 and 1104
    assert fired(wheel, 1_099) == []
    assert fired(wheel, 1_103) == []
    assert wheel.armed(0)
    assert fired(wheel, 1_104) == [0]
    assert not wheel.armed(0)
    assert fired(wheel, 99_999) == []


def test_a_timer_on_a_tick_fires_on_that_tick() -> None:
    wheel = Wheel(0, 1)
    wheel.set(0, 10 * TICK)
    assert fired(wheel, 10 * TICK - 1) == []
    assert fired(wheel, 10 * TICK) == [0]


@pytest.mark.parametrize(
    "ahead",
    [1, 63, 64, 65, 4095, 4096, 4097, 262143, 262144, 262145, 10**7, 2**24, 10**8, 2**31 - 1],
)
@pytest.mark.parametrize("start", [0, 1, 63, 4095, 262143, (1 << 24) - 1, (1 << 32) - 5])
def test_every_level_is_exact_to_the_tick_wherever_the_clock_stands(start: int, ahead: int) -> None:
    wheel = Wheel(start * TICK, 1)
    wheel.set(0, (start + ahead) * TICK)
    assert fired(wheel, (start + ahead) * TICK - 1) == []
    assert fired(wheel, (start + ahead) * TICK) == [0]


def test_a_past_time_fires_at_the_next_advance() -> None:
    wheel = Wheel(50_000, 2)
    wheel.set(0, 0)
    wheel.set(1, 50_000)
    assert wheel.timeout(50_000, -1) == 0
    assert sorted(fired(wheel, 50_000)) == [0, 1]


@pytest.mark.parametrize("past", [0, 100, 500, 992])
def test_a_handler_that_rearms_in_the_past_does_not_hold_the_loop(past: int) -> None:
    wheel = Wheel(0, 1)
    wheel.set(0, 100)
    calls = 0
    for _ in range(3):
        while wheel.advance(1_000) is not None:
            wheel.set(0, past)
            calls += 1
        assert wheel.timeout(1_000, -1) == 0
    assert calls == 3


def test_a_round_that_was_left_early_goes_on_where_it_was() -> None:
    wheel = Wheel(0, 10)
    for index in range(10):
        wheel.set(index, 100)
    first = {wheel.advance(1_000) for _ in range(4)}
    assert wheel.timeout(1_000, -1) == 0
    assert first | {*fired(wheel, 1_000)} == {*range(10)}


def test_earlier_ticks_come_first_after_a_long_stop() -> None:
    wheel = Wheel(0, 8)
    due = [5 * HOUR, 20, 90 * 60_000, 1_500, 70_000, 400, 70_016, 24 * HOUR]
    for index, at in enumerate(due):
        wheel.set(index, at)
    assert fired(wheel, 25 * HOUR) == sorted(range(8), key=due.__getitem__)


def test_a_stop_longer_than_the_horizon_loses_nothing() -> None:
    wheel = Wheel(0, 3)
    for index, at in enumerate((100, HOUR, 200 * HOUR)):
        wheel.set(index, at)
    assert fired(wheel, 10_000 * HOUR) == [0, 1, 2]
    wheel.set(0, 10_000 * HOUR + 100)
    assert fired(wheel, 10_000 * HOUR + 99) == []
    assert fired(wheel, 10_000 * HOUR + 112) == [0]


@pytest.mark.parametrize("far", [HORIZON + TICK, 10**15, (1 << 64) - 1])
def test_a_time_beyond_the_horizon_is_cut_to_it(far: int) -> None:
    wheel = Wheel(0, 1)
    wheel.set(0, far)
    assert fired(wheel, HORIZON - 1) == []
    assert fired(wheel, HORIZON) == [0]


def test_rearming_moves_a_timer_both_ways() -> None:
    wheel = Wheel(0, 1)
    wheel.set(0, HOUR)
    wheel.set(0, 320)
    assert fired(wheel, 320) == [0]
    wheel.set(0, 640)
    wheel.set(0, HOUR)
    assert fired(wheel, HOUR - 1) == []
    assert fired(wheel, HOUR) == [0]


def test_clearing_is_idempotent_and_final() -> None:
    wheel = Wheel(0, 2)
    wheel.clear(0)              # zeroed, never armed
    wheel.set(0, 100)
    wheel.clear(0)
    wheel.clear(0)
    assert not wheel.armed(0)
    assert wheel.timeout(0, -1) == -1
    assert fired(wheel, 1_000) == []


def test_a_handler_may_clear_and_free_others_that_expired_with_it() -> None:
    wheel = Wheel(0, 5)
    for index in range(5):
        wheel.set(index, 100)
    first = wheel.advance(1_000)
    assert first is not None
    for index in set(range(5)) - {first, 2 if first != 2 else 3}:
        wheel.clear(index)
        wheel.overwrite(index)
    wheel.overwrite(first)
    assert len(wheel.linked()) == 1
    assert fired(wheel, 1_000) == [2 if first != 2 else 3]


def test_a_handler_may_postpone_others_that_expired_with_it() -> None:
    wheel = Wheel(0, 3)
    for index in range(3):
        wheel.set(index, 100)
    first = wheel.advance(1_000)
    others = sorted({0, 1, 2} - {first})
    for index in others:
        wheel.set(index, 2_000)
    assert fired(wheel, 1_999) == []
    assert sorted(fired(wheel, 2_000)) == others


def test_a_clock_that_stands_or_steps_back_fires_nothing_early() -> None:
    wheel = Wheel(10_000, 1)
    wheel.set(0, 10_100)
    assert fired(wheel, 9_000) == []
    assert fired(wheel, 10_000) == []
    assert fired(wheel, 10_112) == [0]


def test_timeout_reaches_the_next_timer_and_no_further() -> None:
    wheel = Wheel(0, 2)
    assert wheel.timeout(0, -1) == -1
    assert wheel.timeout(0, 500) == 500
    wheel.set(0, 100)
    assert wheel.timeout(0, -1) == 112      # the tick after 100
    assert wheel.timeout(7, -1) == 105
    assert wheel.timeout(0, 50) == 50
    assert wheel.timeout(5_000, -1) == 0


def test_sleeping_as_told_reaches_a_far_timer_in_a_few_steps() -> None:
    wheel = Wheel(12_345, 1)
    due = 12_345 + 50 * HOUR
    wheel.set(0, due)
    now, steps = 12_345, 0
    while not fired(wheel, now):
        now += wheel.timeout(now, -1)
        steps += 1
    assert due <= now < due + TICK
    assert steps <= 4                       # once a level


def test_a_crowded_slot_is_moved_down_in_bounded_portions() -> None:
    crowd = 4 * CASCADE_MAX
    wheel = Wheel(0, crowd)
    for index in range(crowd):
        wheel.set(index, 64 * TICK + 40 * TICK)
    now = 64 * TICK                         # their slot begins; none is due
    portions = 0
    while True:
        assert wheel.advance(now) is None
        portions += 1
        if wheel.timeout(now, -1):
            break
        assert wheel.linked() == frozenset(range(crowd))
    assert 4 <= portions <= 5
    assert wheel.timeout(now, -1) == 40 * TICK
    assert len(fired(wheel, now + 40 * TICK)) == crowd


def test_timers_in_a_slot_that_is_being_moved_down_can_be_cleared_and_rearmed() -> None:
    crowd = 3 * CASCADE_MAX
    wheel = Wheel(0, crowd)
    for index in range(crowd):
        wheel.set(index, 100 * TICK)
    now = 64 * TICK
    assert wheel.advance(now) is None       # about a third has moved
    for index in range(0, crowd, 3):
        wheel.clear(index)
        wheel.overwrite(index)
    for index in range(1, crowd, 3):
        wheel.set(index, 200 * TICK)
    assert len(wheel.linked()) == 2 * crowd // 3
    while wheel.timeout(now, -1) == 0:
        assert wheel.advance(now) is None
    assert sorted(fired(wheel, 100 * TICK)) == list(range(2, crowd, 3))
    assert sorted(fired(wheel, 200 * TICK)) == list(range(1, crowd, 3))


def test_a_node_that_does_not_exist_is_refused() -> None:
    wheel = Wheel(0, 1)
    with pytest.raises(IndexError):
        wheel.set(1, 0)
    with pytest.raises(IndexError):
        wheel.clear(-1)
    wheel.set(0, 100)
    with pytest.raises(ValueError, match="armed"):
        wheel.overwrite(0)
