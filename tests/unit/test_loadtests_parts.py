"""The parts that load scenarios are made of: frames, shapes, records and configurations."""

from __future__ import annotations

import ast
import itertools
import math
from pathlib import Path

import pytest

from lbcore.config import Plan, parse, to_plan
from loadtests.scenarios.catalog import SCENARIOS, EchoUsers
from loadtests.scenarios.config import VARIANTS, Ports, lb_toml
from loadtests.scenarios.conversation import address
from loadtests.scenarios.records import (
    FAILURES,
    TIMELINE,
    Failure,
    Moment,
    read_failures,
    read_timeline,
)
from loadtests.scenarios.scenario import STARTING
from loadtests.scenarios.scenario import Scenario as Base
from loadtests.scenarios.shape import CONSTANT, RAMP, user_seconds, users_at
from loadtests.scenarios.wire import (
    ANSWER,
    MAX_PAYLOAD,
    QUESTION,
    Life,
    WrongAnswer,
    check_head,
    check_payload,
    payload,
    question,
)

Scenario = Base[EchoUsers]
FILES = Path(__file__).parents[2] / "loadtests" / "scenarios" / "locustfiles"
PORTS = Ports(20001, 20002, (20003, 20004, 20005, 20006))


# ---- frames

def test_a_question_is_its_head_and_its_payload() -> None:
    sent = question(5, 77)
    assert QUESTION.unpack_from(sent) == (5, 77)
    assert sent[QUESTION.size:] == payload(5, 77)


def test_an_answer_says_who_gave_it() -> None:
    assert check_head(ANSWER.pack(5, 77, 3, 2), 5, 77) == Life(3, 2)
    assert str(Life(3, 2)) == "b3#2"


@pytest.mark.parametrize("head", [ANSWER.pack(6, 77, 1, 1), ANSWER.pack(5, 76, 1, 1)])
def test_an_answer_to_something_else_is_noticed(head: bytes) -> None:
    with pytest.raises(WrongAnswer, match="asked for 5 bytes of number 4d"):
        check_head(head, 5, 77)


def test_payloads_of_neighbouring_numbers_differ() -> None:
    assert len({payload(64, number) for number in range(1000)}) == 1000


def test_every_size_up_to_the_largest_has_a_payload() -> None:
    assert len(payload(MAX_PAYLOAD, 2**63 - 1)) == MAX_PAYLOAD
    assert payload(0, 1) == b""
    with pytest.raises(ValueError, match="payload"):
        payload(MAX_PAYLOAD + 1, 1)


@pytest.mark.parametrize(("spoil", "says"), [
    (lambda good: good[:3] + bytes([good[3] ^ 1]) + good[4:], "wrong from byte 3"),
    (lambda good: good[:-1], "99 of 100 bytes"),
    (lambda good: good[1:] + good[:1], "wrong from byte 0"),
])
def test_a_changed_payload_is_noticed(spoil, says: str) -> None:  # type: ignore[no-untyped-def]
    good = payload(100, 7)
    check_payload(good, 100, 7)
    with pytest.raises(WrongAnswer, match=says):
        check_payload(spoil(good), 100, 7)


# ---- shapes

def test_a_constant_load_has_all_users_until_its_end() -> None:
    assert [users_at(CONSTANT, t, 30, 60) for t in (0, 29.9, 30, 31)] == [60, 60, None, None]


def test_a_ramp_rises_to_all_users_and_falls_again() -> None:
    seen = [users_at(RAMP, second, 100, 200) for second in range(100)]
    numbers = [users for users in seen if users is not None]
    assert len(numbers) == 100
    peak = numbers.index(200)
    assert numbers[:peak] == sorted(numbers[:peak]) and len(set(numbers[:peak])) >= 3
    assert numbers[0] == 20 and numbers[-1] == 40
    assert users_at(RAMP, 100, 100, 200) is None


def test_a_ramp_of_few_users_never_has_none() -> None:
    assert users_at(RAMP, 0, 10, 2) == 1


def test_the_time_that_users_spend_is_the_area_under_their_number() -> None:
    assert user_seconds(CONSTANT, 30, 60) == 1800
    step = 0.01
    area = sum((users_at(RAMP, n * step, 50, 200) or 0) * step for n in range(5000))
    assert math.isclose(user_seconds(RAMP, 50, 200), area, rel_tol=1e-3)


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=lambda s: s.name)
def test_every_limit_is_about_requests_that_the_users_make(scenario: Scenario) -> None:
    offered = scenario.offered(scenario.least_seconds, scenario.users)
    made = set(offered) | {"open"}              # who stays opens too, once
    assert {latency.request for latency in scenario.latencies} <= made
    assert all(count > 0 for count in offered.values())


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=lambda s: s.name)
def test_limits_rise_from_one_percentile_to_the_next(scenario: Scenario) -> None:
    for latency in scenario.latencies:
        shares, limits = zip(*latency.points(), strict=True)
        assert list(shares) == sorted(shares) and list(limits) == sorted(limits)


def test_what_is_offered_grows_with_users_and_time() -> None:
    steady = SCENARIOS["steady"]
    once, twice = steady.offered(30, 60), steady.offered(30, 120)
    assert twice == pytest.approx({name: 2 * count for name, count in once.items()})
    # 15 of 60 users visit three times a second: one opening each.
    assert once["open"] == pytest.approx(15 * 3 * (30 - STARTING))


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=lambda s: s.name)
def test_every_behaviour_has_users_in_the_scenarios_locustfile(scenario: Scenario) -> None:
    # Read, not imported: Locust patches the standard library of whoever imports it.
    tree = ast.parse((FILES / f"{scenario.name}.py").read_text())
    used = [ast.unparse(node.value) for node in ast.walk(tree)
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "behaviour"]
    indexes = [int(text.split("behaviours[")[1].rstrip("]")) for text in used]
    assert indexes == list(range(len(scenario.behaviours)))
    bases = {node.name: ast.unparse(node.bases[0]) for node in tree.body
             if isinstance(node, ast.ClassDef)}
    kinds = [base for base in bases.values() if base in ("Staying", "Visiting")]
    assert kinds == ["Staying" if b.stays else "Visiting" for b in scenario.behaviours]


# ---- records

def test_failures_of_all_processes_are_read_in_the_order_they_ended(tmp_path: Path) -> None:
    late = Failure("open", 1.0, 3.5, "Ended: ended after 0 of 16 bytes", None)
    early = Failure("exchange", 1.0, 2.0, 'said "no"\n', Life(2, 1))
    (tmp_path / FAILURES.format(pid=1)).write_text(late.line())
    (tmp_path / FAILURES.format(pid=2)).write_text(early.line())
    assert read_failures(tmp_path) == [early, late]


def test_a_moment_that_is_being_written_is_left_for_later(tmp_path: Path) -> None:
    assert read_timeline(tmp_path) == []
    moment = Moment(5.0, 60, 100, 0, 50.5, 7.0)
    (tmp_path / TIMELINE).write_text(moment.line() + moment.line()[:20])
    assert read_timeline(tmp_path) == [moment]
    (tmp_path / TIMELINE).write_text(moment.line()[:20])
    assert read_timeline(tmp_path) == []


# ---- configurations

def plan_of(variant: int) -> Plan:
    return to_plan(parse(lb_toml(Path("/tmp/x/admin.sock"), 2, PORTS, variant), "lb.toml").config)


def test_every_variant_is_a_configuration_and_another_than_the_one_before() -> None:
    plans = [plan_of(number) for number in range(VARIANTS + 1)]
    assert all(one != other for one, other in itertools.pairwise(plans))
    assert plans[VARIANTS] == plans[0]


def test_the_text_differs_even_when_the_meaning_comes_round_again() -> None:
    texts = {lb_toml(Path("/tmp/x/admin.sock"), 2, PORTS, number) for number in range(20)}
    assert len(texts) == 20


def test_variants_take_a_backend_out_change_weights_and_add_a_listener() -> None:
    plain, fewer, weighted, more, other = (plan_of(number) for number in range(VARIANTS))
    assert [b.name for b in plain.pools[0].backends] == ["b1", "b2", "b3", "b4"]
    assert [b.name for b in fewer.pools[0].backends] == ["b1", "b2", "b3"]
    assert len({b.weight for b in weighted.pools[0].backends}) > 1
    assert [listener.name for listener in more.listeners] == ["load", "spare"]
    assert other.pools[0].balance == "least_conn"
    assert all(plan.listeners[0].binds == plain.listeners[0].binds
               for plan in (fewer, weighted, more, other))


# ---- where to connect

@pytest.mark.parametrize("text", ["127.0.0.1:80", "tcp://127.0.0.1:80", "tcp://127.0.0.1:80/"])
def test_a_host_is_an_address_and_a_port(text: str) -> None:
    assert address(text) == ("127.0.0.1", 80)
    assert address("[::1]:80") == ("::1", 80)


@pytest.mark.parametrize("text", [None, "", "127.0.0.1", ":80", "127.0.0.1:http", "localhost:80"])
def test_what_is_no_address_and_port_is_refused(text: str | None) -> None:
    with pytest.raises(ValueError, match="--host must be"):
        address(text)
