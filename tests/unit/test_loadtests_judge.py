"""Verdicts of the load scenarios: what counts, what is excused, and what is not."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest

from loadtests.scenarios.catalog import CHURN, FAILOVER, RELOAD, SCENARIOS, EchoUsers
from loadtests.scenarios.families import SCENARIOS as ALL
from loadtests.scenarios.families import named
from loadtests.scenarios.happened import Death, Happened
from loadtests.scenarios.judge import Attributed, attribute, explain, judge
from loadtests.scenarios.limits import Aftermath, Check, Told
from loadtests.scenarios.measure import Counted, Measured, measured
from loadtests.scenarios.records import Failure, Moment
from loadtests.scenarios.scenario import Scenario as Base
from loadtests.scenarios.screen import Progress, verdict
from loadtests.scenarios.wire import Life

Scenario = Base[EchoUsers]
SECONDS = 30.0
FINE = Aftermath([11, 12], [11, 12], 0, 0, [5, 5, 5])
KILLED = Life(1, 1)
DEATH = Death(KILLED, began=100.0, gone=100.1)


def fast(scenario: Scenario, failures: int = 0) -> Measured:
    """All that was offered, in a millisecond each; ``failures`` of them among the opens."""
    offered = scenario.offered(SECONDS, scenario.users)
    counted = {
        request: Counted(round(count) + 1, 0, {1: round(count) + 1})
        for request, count in offered.items()
    }
    counted["open"] = replace(counted["open"], failures=failures)
    return Measured(SECONDS, dict(counted))


def missed(scenario: Scenario, seen: Measured | None = None, **changes: Any) -> list[str]:
    """Names of the limits that are missed when everything is fine but the ``changes``."""
    happened = Happened()
    if scenario.disturbance == "reloads":
        happened = Happened(reloads_asked=9, reloads_done=9)
    given: dict[str, Any] = {
        "failures": [], "happened": happened, "aftermath": FINE,
        "most_users": scenario.users, "slack": 1.0,
    } | changes
    told = Told(scenario.users, SECONDS, given.pop("most_users"), given.pop("slack"))
    checks = judge(scenario, seen or fast(scenario), **given, told=told)
    return [check.name for check in checks if not check.met]


def failure(**changes: Any) -> Failure:
    """An exchange on a healthy backend that failed."""
    return replace(Failure("exchange", 99.9, 100.2, "ConnectionResetError", Life(2, 1)), **changes)


# ---- attribution

def test_a_connection_established_on_a_killed_backend_is_excused() -> None:
    one = failure(who=KILLED, began=103.0, ended=103.1)     # noticed at the next question
    assert attribute([one], [DEATH]) == Attributed([one], [], [])


def test_the_same_backend_is_not_excused_in_another_life() -> None:
    one = failure(who=Life(1, 2))
    assert attribute([one], [DEATH]).unexplained == [one]


def test_a_failure_before_the_death_is_not_excused_by_it() -> None:
    one = failure(who=KILLED, began=99.0, ended=99.9)
    assert attribute([one], [DEATH]).unexplained == [one]


def test_a_connection_on_another_backend_is_not_excused() -> None:
    assert attribute([failure()], [DEATH]).unexplained == [failure()]


def test_a_connection_that_was_being_opened_at_the_moment_of_the_death_is_excused() -> None:
    one = failure(request="open", who=None, began=100.09, ended=100.3)
    assert attribute([one], [DEATH]) == Attributed([], [one], [])


@pytest.mark.parametrize(("began", "ended"), [(100.11, 100.3), (99.0, 99.99), (100.0, 110.0)])
def test_an_opening_before_or_after_the_death_or_long_after_it_is_not(
    began: float, ended: float
) -> None:
    one = failure(request="open", who=None, began=began, ended=ended)
    assert attribute([one], [DEATH]).unexplained == [one]


def test_without_deaths_nothing_is_excused() -> None:
    ones = [failure(), failure(request="open", who=None)]
    assert attribute(ones, []).unexplained == ones


def test_remarks_count_what_was_excused_and_show_what_was_not() -> None:
    lost = failure(who=KILLED, ended=101.0)
    opening = failure(request="open", who=None, began=100.05, ended=100.15)
    lines = explain([lost, opening, *[failure()] * 12], Happened(deaths=[DEATH]))
    assert lines[0].startswith("b1#1 was killed: 1 connections")
    assert lines[1].startswith("1 connections were being opened")
    assert sum(line.startswith("unexplained: exchange on b2#1") for line in lines) == 10
    assert lines[-1].startswith("... and 2 more")


# ---- limits

@pytest.mark.parametrize("scenario", [s for s in SCENARIOS.values() if s.disturbance != "deaths"],
                         ids=lambda s: s.name)
def test_a_run_without_a_flaw_passes(scenario: Scenario) -> None:
    assert missed(scenario) == []


def test_one_failure_fails_the_run() -> None:
    assert missed(CHURN, fast(CHURN, 1), failures=[failure()]) == ["failures"]


def test_a_failure_that_only_locust_saw_fails_the_run() -> None:
    assert missed(CHURN, fast(CHURN, 1)) == ["failures on record"]


def test_slow_answers_miss_the_percentile_they_reach() -> None:
    seen = fast(CHURN)
    count = seen.of("open").requests
    slow = Counted(count, 0, {1: count - count // 50, 700: count // 50})     # 2 %
    assert missed(CHURN, Measured(SECONDS, {**seen.counted, "open": slow})) == ["open p99"]


def test_slack_stretches_latency_and_throughput_but_not_failures() -> None:
    offered = CHURN.offered(SECONDS, CHURN.users)
    half = {name: Counted(round(n / 2), 0, {200: round(n / 2)}) for name, n in offered.items()}
    seen = Measured(SECONDS, dict(half))
    assert {"open p50", "open per second"} < set(missed(CHURN, seen))
    assert missed(CHURN, seen, slack=20) == []
    assert "failures" in missed(CHURN, seen, slack=20, failures=[failure()])


def test_requests_that_never_happened_do_not_pass_as_fast() -> None:
    seen = fast(CHURN)
    found = missed(CHURN, Measured(SECONDS, {"open": seen.of("open")}))
    assert "close p50" in found and "close per second" in found


@pytest.mark.parametrize(("changes", "name"), [
    ({"workers_after": [11, 13]}, "workers"),
    ({"left_open": 1}, "connections left open"),
    ({"exit_code": 1}, "lbcore's exit code"),
    ({"exit_code": None}, "lbcore's exit code"),
    ({"connections": [5, 0, 5]}, "backends used"),
])
def test_what_lbcore_leaves_behind_is_judged(changes: dict[str, Any], name: str) -> None:
    assert missed(CHURN, aftermath=replace(FINE, **changes)) == [name]


def test_users_that_never_came_fail_the_run() -> None:
    assert missed(CHURN, most_users=CHURN.users - 1) == ["users at once"]


def test_reloads_must_all_come_into_force_in_all_workers() -> None:
    assert missed(RELOAD, happened=Happened(reloads_asked=9, reloads_done=8)) == [
        "reloads in force"]
    assert missed(RELOAD, happened=Happened()) == ["reloads in force"]
    late = Happened(reloads_asked=9, reloads_done=9, plans_behind=1)
    assert missed(RELOAD, happened=late) == ["workers without the last plan"]


def test_a_death_must_cost_its_connections_and_nothing_else() -> None:
    happened = Happened(deaths=[DEATH], returned={1: 0.5})
    lost = failure(who=KILLED, ended=100.2)
    assert missed(FAILOVER, fast(FAILOVER, 1), failures=[lost], happened=happened) == []
    assert missed(FAILOVER, happened=happened) == ["connections lost with b1#1"]
    other = [lost, failure()]
    assert missed(FAILOVER, fast(FAILOVER, 2), failures=other, happened=happened) == [
        "failures not due to a death"]


@pytest.mark.parametrize("returned", [{}, {1: 6.0}, {2: 0.1}])
def test_a_backend_that_is_back_must_be_used_soon(returned: dict[int, float]) -> None:
    lost = failure(who=KILLED, ended=100.2)
    assert missed(FAILOVER, fast(FAILOVER, 1), failures=[lost],
                  happened=Happened(deaths=[DEATH], returned=returned)) == ["b1 is used again"]


# ---- counts

def test_percentiles_are_the_nearest_rank() -> None:
    counted = Counted(100, 0, {1: 50, 2: 45, 9: 4, 400: 1})
    assert [counted.percentile(share) for share in (0.5, 0.51, 0.95, 0.99, 0.999, 1)] == [
        1, 2, 2, 9, 400, 400]
    assert Counted(0, 0, {}).percentile(0.5) == 0
    with pytest.raises(ValueError, match="share"):
        counted.percentile(95)


def test_locusts_file_is_read() -> None:
    seen = measured("""[
        {"name": "open", "method": "tcp", "num_requests": 3, "num_failures": 1, "start_time": 10.0,
         "last_request_timestamp": 39.5, "response_times": {"2": 2, "150": 1}},
        {"name": "close", "method": "tcp", "num_requests": 2, "num_failures": 0, "start_time": 11.0,
         "last_request_timestamp": null, "response_times": {"1": 2}}]""")
    assert (seen.seconds, seen.requests, seen.failures) == (29.5, 5, 1)
    assert seen.of("open").times == {2: 2, 150: 1}
    assert seen.of("exchange").requests == 0


def test_a_file_without_requests_is_an_empty_run() -> None:
    assert measured("[]") == Measured(0.0, {})


# ---- what people see

def test_the_last_line_says_pass_or_names_what_was_missed() -> None:
    good, bad = Check("a", "0", "0", True), Check("b", "<= 5 ms", "9 ms", False)
    assert verdict("churn", [good], []).splitlines()[-1] == "PASS churn"
    text = verdict("churn", [good, bad], ["it rained"]).splitlines()
    assert text[-1] == "FAIL churn: b"
    assert text[1].split() == ["MISSED", "b", "<=", "5", "ms", "9", "ms"]
    assert text[-2] == "  note: it rained"


def test_progress_in_a_log_is_a_line_now_and_then() -> None:
    log = io.StringIO()
    progress = Progress("churn", 30, log)
    for second in range(12):
        progress.show(second, Moment(second, 60, second * 100, 0, 100.0, 3.0), "")
    progress.done()
    lines = log.getvalue().splitlines()
    assert len(lines) == 3 and all("60 users" in line for line in lines)


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        return True


def test_progress_on_a_terminal_stays_on_one_line_and_leaves_it_empty() -> None:
    screen = Terminal()
    progress = Progress("churn", 30, screen)
    for second in range(3):
        progress.show(second, Moment(second, 60, second * 100, 0, 100.0, 3.0), "b1 is dead")
    progress.done()
    assert "\n" not in screen.getvalue() and screen.getvalue().endswith("\r\x1b[K")
    assert screen.getvalue().count("b1 is dead") == 3


def test_all_means_every_scenario() -> None:
    assert named(["all"]) == [*named(["tcp"]), *named(["http"])] == list(ALL.values())
    assert named(["ramp", "churn", "ramp"]) == [SCENARIOS["ramp"], CHURN]
