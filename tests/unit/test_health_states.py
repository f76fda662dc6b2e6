"""Claims about the state machine of one backend."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbcore.health.states import TABLE, Event, Shown, Standing, State, initial, shown


def test_every_state_knows_what_every_event_does():
    assert set(TABLE) == set(itertools.product(State, Event))


def test_nothing_leads_back_to_a_backend_that_was_never_checked():
    reaches_fresh = [key for key, new in TABLE.items() if new is State.FRESH]
    assert reaches_fresh == [(State.FRESH, Event.RETURN)]


def test_a_backend_that_waits_for_its_first_check_takes_traffic():
    assert shown(initial(checked=True), draining=False) is Shown.UP


def test_a_backend_without_checks_is_up():
    assert initial(checked=False) is State.UP


def test_the_first_failed_check_takes_a_fresh_backend_down():
    standing = Standing(State.FRESH)
    assert standing.check(False, rise=2, fall=3)
    assert standing.state is State.DOWN


def test_the_first_passed_check_makes_a_fresh_backend_a_full_one():
    standing = Standing(State.FRESH)
    assert standing.check(True, rise=2, fall=3)
    assert [standing.check(False, rise=2, fall=3) for _ in range(3)] == [False, False, True]
    assert standing.state is State.DOWN


def test_one_passed_check_in_between_starts_the_count_of_failures_anew():
    standing = Standing(State.UP)
    for ok in (False, False, True, False, False):
        assert not standing.check(ok, rise=2, fall=3)
    assert standing.state is State.UP


def test_a_backend_that_is_down_needs_rise_checks_in_a_row():
    standing = Standing(State.DOWN)
    for ok in (True, False, True):
        assert not standing.check(ok, rise=2, fall=3)
    assert standing.check(True, rise=2, fall=3)
    assert standing.state is State.UP


def test_passing_checks_do_not_end_an_ejection():
    standing = Standing(State.EJECTED)
    for _ in range(100):
        assert not standing.check(True, rise=1, fall=1)
    assert standing.take(Event.RETURN)
    assert standing.state is State.UP


def test_checks_that_see_the_fault_too_take_an_ejection_over_and_may_end_it():
    standing = Standing(State.EJECTED)
    standing.check(False, rise=1, fall=1)
    assert standing.state is State.DOWN
    assert not standing.take(Event.RETURN)
    standing.check(True, rise=1, fall=1)
    assert standing.state is State.UP


def test_failed_checks_from_before_an_ejection_do_not_count_after_it():
    standing = Standing(State.UP)
    standing.check(False, rise=2, fall=3)
    standing.check(False, rise=2, fall=3)
    standing.take(Event.EJECT)
    assert not standing.check(False, rise=2, fall=3)
    assert standing.state is State.EJECTED


def test_traffic_cannot_eject_what_checks_have_taken_down():
    standing = Standing(State.DOWN)
    assert not standing.take(Event.EJECT)
    assert standing.state is State.DOWN


def test_a_backend_whose_checks_are_turned_off_is_not_left_down():
    standing = Standing(State.DOWN)
    assert standing.take(Event.CHECKS_OFF)
    assert standing.state is State.UP


@pytest.mark.parametrize("state", State)
def test_drain_hides_every_state(state):
    assert shown(state, draining=True) is Shown.DRAIN


@pytest.mark.parametrize(("state", "passed", "failed", "unsettled"), [
    (State.FRESH, 0, 0, True), (State.UP, 9, 0, False), (State.UP, 0, 1, True),
    (State.DOWN, 0, 9, False), (State.DOWN, 1, 0, True), (State.EJECTED, 0, 1, True),
    (State.EJECTED, 5, 0, False),
])
def test_only_a_backend_between_two_states_is_checked_faster(state, passed, failed, unsettled):
    assert Standing(state, passed, failed).unsettled is unsettled


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 5), st.integers(1, 5))
def test_a_checked_backend_is_what_its_last_run_of_checks_says(checks, rise, fall):
    """Against another formulation: look for the last run that is long enough."""
    standing = Standing(State.UP)
    for ok in checks:
        standing.check(ok, rise, fall)
    expected, at = State.UP, 0
    for ok, run in itertools.groupby(checks):
        length = len(list(run))
        at += length
        if length >= (rise if ok else fall):
            expected = State.UP if ok else State.DOWN
    assert standing.state is expected
    assert standing.passed == 0 or standing.failed == 0
