"""Restarts are immediate until deaths come in a row."""

from lbcore.supervisor.backoff import MAX_DELAY, Backoff


def test_single_deaths_cost_no_delay() -> None:
    backoff = Backoff()
    assert [backoff.died(3600) for _ in range(5)] == [0] * 5


def test_worker_killed_every_two_seconds_is_replaced_at_once_every_time() -> None:
    backoff = Backoff()
    assert [backoff.died(2.0) for _ in range(30)] == [0] * 30


def test_crash_loop_waits_twice_as_long_every_time_up_to_a_limit() -> None:
    backoff = Backoff()
    delays = [backoff.died(0.1) for _ in range(12)]
    assert delays[:6] == [0, 0, 0.1, 0.2, 0.4, 0.8]
    assert delays[-1] == MAX_DELAY


def test_long_life_ends_the_crash_loop() -> None:
    backoff = Backoff()
    for _ in range(6):
        backoff.died(0.1)
    assert backoff.died(60) == 0
    assert backoff.died(0.1) == 0
