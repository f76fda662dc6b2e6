"""Claims about many timers behind one timer of the event loop."""

import asyncio
import time

import pytest

from lbcore.health import timers as module
from lbcore.health.timers import Timers


@pytest.fixture
async def timers():
    made = Timers()
    made.open(asyncio.get_running_loop())
    yield made
    made.close()


async def test_timers_fire_in_the_order_of_their_times(timers):
    now, fired, done = time.monotonic(), [], asyncio.Event()
    for delay in (0.05, 0.01, 0.03):
        timers.at(now + delay, fired.append, delay)
    timers.at(now + 0.06, lambda _: done.set(), None)
    await asyncio.wait_for(done.wait(), 10)
    assert fired == [0.01, 0.03, 0.05]


async def test_no_timer_fires_early(timers):
    when = time.monotonic() + 0.035
    fired = asyncio.get_running_loop().create_future()
    timers.at(when, lambda _: fired.set_result(time.monotonic()), None)
    assert await asyncio.wait_for(fired, 10) >= when


async def test_a_cancelled_timer_does_not_fire(timers):
    now, fired, done = time.monotonic(), [], asyncio.Event()
    timer = timers.at(now, fired.append, 1)
    timer.cancel()
    timer.cancel()
    timers.at(now + 0.02, lambda _: done.set(), None)
    await asyncio.wait_for(done.wait(), 10)
    assert fired == []


async def test_an_earlier_timer_set_later_is_not_kept_waiting(timers):
    done = asyncio.Event()
    timers.at(time.monotonic() + 3600, lambda _: None, None)
    timers.at(time.monotonic(), lambda _: done.set(), None)
    await asyncio.wait_for(done.wait(), 10)


async def test_a_timer_that_fails_does_not_stop_the_others(timers, caplog):
    done = asyncio.Event()
    timers.at(0, lambda _: 1 / 0, None)
    timers.at(1, lambda _: done.set(), None)
    await asyncio.wait_for(done.wait(), 10)
    assert "ZeroDivisionError" in caplog.text


async def test_a_timer_may_set_the_next_one(timers):
    done = asyncio.Event()

    def again(left):
        if left:
            timers.at(time.monotonic(), again, left - 1)
        else:
            done.set()

    timers.at(0, again, 500)
    await asyncio.wait_for(done.wait(), 10)


async def test_one_turn_does_a_bounded_amount_of_work(timers):
    fired = []
    for n in range(10 * module.MOST_PER_TURN):
        timers.at(0, fired.append, n)
    timers._run()
    assert len(fired) == module.MOST_PER_TURN


async def test_cancelled_timers_do_not_pile_up(timers):
    for _ in range(100_000):
        timers.at(time.monotonic() + 3600, lambda _: None, None).cancel()
    assert len(timers) < 1000


async def test_nothing_fires_after_the_end(timers):
    fired = []
    timers.at(0, fired.append, 1)
    timers.close()
    await asyncio.sleep(0.03)
    assert fired == [] and len(timers) == 0
