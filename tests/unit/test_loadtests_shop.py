"""The parts of the HTTP load scenarios: customers, configurations, and what is excused."""

from __future__ import annotations

import ast
import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lbcore.config import Plan, parse, to_plan
from loadtests.scenarios.config import Ports
from loadtests.scenarios.happened import Happened, Trouble
from loadtests.scenarios.limits import Aftermath, Told
from loadtests.scenarios.measure import Counted, Measured
from loadtests.scenarios.records import Failure
from loadtests.scenarios.scenario import Scenario
from loadtests.scenarios.shop.browser import life
from loadtests.scenarios.shop.catalog import (
    ABUSE,
    APP,
    BURST,
    FLAPPING,
    INSTANCES,
    RATE,
    RELOAD,
    RESTART,
    RESTARTS,
    SCENARIOS,
    SHOP,
    SLOW,
    Customers,
)
from loadtests.scenarios.shop.config import POOL, VARIANTS, app_toml, lb_toml
from loadtests.scenarios.shop.judge import (
    NOTICED_WITHIN,
    RECOVERS_WITHIN,
    excuse,
    explain,
    judge,
)
from loadtests.scenarios.wire import Life, WrongAnswer
from loadtests.shop import stock

FILES = Path(__file__).parents[2] / "loadtests" / "scenarios" / "locustfiles"
BASES = {
    "shopper": "Shopping", "visitor": "Visiting", "mover": "Moving", "waiter": "Waiting",
    "talker": "Talking", "searcher": "Searching", "abuser": "Abusing",
}
PORTS = Ports(20001, 20002, (20003, 20004, 20005))
SECONDS = 30
FINE = Aftermath([11, 12], [11, 12], 0, 0, [5, 5, 5])
ILL = Life(1, 1)
WELL = Life(2, 1)
STRANGER = "Stranger: sent to the login"
REFUSED = "Unexpected: POST /basket: 503 b'told to fail'"
RESTARTED = Trouble(ILL, "restarted", 100.0, 101.0)
SLOWED = Trouble(ILL, "slow", 100.0, 110.0)
FLAPPED = Trouble(ILL, "flapping", 100.0, 110.0)


def failure(**changes: Any) -> Failure:
    """A page that the healthy instance did not give."""
    return replace(Failure("article", 104.9, 105.0, "WrongAnswer: no", WELL), **changes)


# ---- customers

@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=lambda s: s.name)
def test_every_kind_of_customer_does_in_locust_what_it_is_called(
    scenario: Scenario[Customers]
) -> None:
    # Read, not imported: Locust patches the standard library of whoever imports it.
    tree = ast.parse((FILES / f"{scenario.name}.py").read_text())
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    used = [ast.unparse(node.value) for node in ast.walk(tree) if isinstance(node, ast.Assign)]
    assert [text.split("behaviours")[1] for text in used] == [
        f"[{index}]" for index in range(len(scenario.behaviours))]
    assert [ast.unparse(one.bases[0]) for one in classes] == [
        BASES[customers.kind] for customers in scenario.behaviours]


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=lambda s: s.name)
def test_every_request_that_customers_make_again_and_again_has_a_limit(
    scenario: Scenario[Customers]
) -> None:
    limited = {latency.request for latency in scenario.latencies}
    assert set(scenario.offered(SECONDS, scenario.users)) <= limited
    for latency in scenario.latencies:
        shares, limits = zip(*latency.points(), strict=True)
        assert list(shares) == sorted(shares) and list(limits) == sorted(limits)


def test_articles_and_pictures_are_the_same_for_everybody_who_knows_their_number() -> None:
    assert len({stock.article(n).name for n in range(1, stock.ARTICLES + 1)}) == stock.ARTICLES
    assert [len(stock.picture(n)) for n in range(3)] == list(stock.PICTURE_SIZES)
    assert stock.picture(4) != stock.picture(1)
    with pytest.raises(KeyError):
        stock.article(stock.ARTICLES + 1)


def test_an_answer_names_its_instance_or_is_lbcores_own() -> None:
    assert life("2.13") == Life(2, 13) and life(None) is None
    with pytest.raises(WrongAnswer, match="somebody"):
        life("somebody")


# ---- configurations

def plan_of(variant: int) -> Plan:
    return to_plan(parse(lb_toml(Path("/tmp/x/admin.sock"), 2, PORTS, variant), "lb.toml").config)


def test_every_variant_is_a_configuration_and_another_than_the_one_before() -> None:
    plans = [plan_of(number) for number in range(VARIANTS + 1)]
    assert all(one != other for one, other in itertools.pairwise(plans))
    assert plans[VARIANTS] == plans[0]


def test_no_variant_takes_away_what_a_session_needs() -> None:
    first, *others = (next(pool for pool in plan_of(number).pools if pool.name == POOL)
                      for number in range(VARIANTS))
    for pool in others:
        assert [b.name for b in pool.backends] == [b.name for b in first.backends]
        assert pool.http is not None and first.http is not None
        assert pool.http.sticky == first.http.sticky


def test_the_shop_that_lbcore_runs_is_as_many_backends() -> None:
    text = app_toml(Path("/tmp/x/admin.sock"), 2, PORTS)
    pool = to_plan(parse(text, "lb.toml").config).pools[0]
    assert pool.app is not None and len(pool.app.names) == INSTANCES


# ---- excuses

@pytest.mark.parametrize("trouble", [RESTARTED, SLOWED, FLAPPED], ids=lambda t: t.kind)
def test_a_session_is_lost_with_its_instance(trouble: Trouble) -> None:
    assert excuse(failure(who=ILL, error=STRANGER), [trouble]) is trouble
    assert excuse(failure(who=WELL, error=STRANGER), [trouble]) is None
    assert excuse(failure(who=Life(1, 2), error=STRANGER), [trouble]) is None


def test_a_session_that_was_lost_before_the_trouble_is_not_excused_by_it() -> None:
    early = failure(who=ILL, error=STRANGER, began=99.0, ended=99.5)
    assert excuse(early, [RESTARTED, SLOWED]) is None


def test_a_session_on_an_instance_that_is_well_again_must_not_be_lost() -> None:
    late = SLOWED.ended + NOTICED_WITHIN + 0.1
    assert excuse(failure(who=ILL, error=STRANGER, began=late, ended=late), [SLOWED]) is None
    # A process that has ended does not come back: whoever comes late is still a stranger.
    assert excuse(failure(who=ILL, error=STRANGER, began=late, ended=late), [RESTARTED])


def test_what_a_failing_instance_says_to_a_post_is_the_customers() -> None:
    one = failure(request="buy", who=ILL, error=REFUSED)
    assert excuse(one, [FLAPPED]) is FLAPPED
    assert excuse(one, [SLOWED]) is None
    assert excuse(replace(one, request="article"), [FLAPPED]) is None
    assert excuse(replace(one, began=111.0, ended=111.1), [FLAPPED]) is None
    assert excuse(replace(one, error="Unexpected: POST /basket: 502 b''"), [FLAPPED]) is None


def test_lbcores_own_errors_have_no_excuse() -> None:
    one = failure(request="buy", who=None, error="Unexpected: POST /basket: 503 b'no backend'")
    assert excuse(one, [RESTARTED, SLOWED, FLAPPED]) is None


def test_a_chat_ends_with_its_instance_and_with_nothing_else() -> None:
    one = failure(request="message", who=ILL, error="WebSocketConnectionClosedException: gone")
    assert excuse(one, [RESTARTED]) is RESTARTED
    assert excuse(one, [SLOWED]) is None
    assert excuse(replace(one, who=WELL), [RESTARTED]) is None


# ---- verdicts

def fast(scenario: Scenario[Customers], **more: int) -> Measured:
    """All that was offered, in a millisecond each, and ``more``."""
    counts = {latency.request: 1 for latency in scenario.latencies}
    counts |= {name: round(count) + 1
               for name, count in scenario.offered(SECONDS, scenario.users).items()}
    return Measured(SECONDS, {
        name: Counted(count, 0, {1: count}) for name, count in (counts | more).items()})


def missed(
    scenario: Scenario[Customers], seen: Measured, failures: list[Failure] | None = None,
    happened: Happened | None = None,
) -> list[str]:
    """Names of the limits that are missed."""
    seen = replace(seen, counted={**seen.counted, "form": Counted(0, len(failures or []), {})})
    checks = judge(scenario, seen, failures or [], happened or Happened(), FINE,
                   Told(scenario.users, SECONDS, scenario.users))
    return [check.name for check in checks if not check.met]


def test_a_run_without_a_flaw_passes_and_one_failure_fails_it() -> None:
    assert missed(SHOP, fast(SHOP)) == []
    assert missed(SHOP, fast(SHOP), [failure()]) == ["failures"]
    assert missed(RELOAD, fast(RELOAD), happened=Happened(reloads_asked=9, reloads_done=9)) == []


def test_abusers_must_be_held_to_the_rate_and_not_shut_out() -> None:
    most = RATE * (SECONDS + 1) + BURST
    assert missed(ABUSE, fast(ABUSE, admitted=most, refused=5000)) == []
    assert missed(ABUSE, fast(ABUSE, admitted=most + 1, refused=5000)) == [
        "searches of the abusers that were let through"]
    assert missed(ABUSE, fast(ABUSE, admitted=most // 2, refused=5000)) == ["and no fewer"]
    assert missed(ABUSE, fast(ABUSE, admitted=most, refused=0)) == [
        "searches of the abusers that were refused"]


def test_a_restart_must_cost_the_sessions_there_and_nothing_else() -> None:
    happened = Happened(troubles=[RESTARTED], returned={1: 0.5})
    lost = failure(who=ILL, error=STRANGER)
    assert missed(RESTART, fast(RESTART), [lost], happened) == []
    assert missed(RESTART, fast(RESTART), [], happened) == [
        "sessions and chats that ended with b1#1"]
    assert missed(RESTART, fast(RESTART), [lost, failure()], happened) == [
        "failures without an excuse"]


def test_every_server_of_an_application_must_be_replaced_each_time() -> None:
    troubles = [Trouble(Life(1, pid), "replaced", 100.0, 101.0)
                for pid in range(INSTANCES * len(RESTARTS))]
    lost = failure(who=Life(1, 0), error=STRANGER)
    assert missed(APP, fast(APP), [lost], Happened(troubles=troubles)) == []
    assert missed(APP, fast(APP), [lost], Happened(troubles=troubles[:-1])) == [
        "servers replaced"]
    assert missed(APP, fast(APP), [], Happened(troubles=troubles)) == [
        "sessions and chats that ended with them"]


@pytest.mark.parametrize(("scenario", "trouble"), [(SLOW, SLOWED), (FLAPPING, FLAPPED)],
                         ids=["slow", "flapping"])
@pytest.mark.parametrize("returned", [{}, {1: RECOVERS_WITHIN + 1}])
def test_an_instance_that_is_well_again_must_be_used_soon(
    scenario: Scenario[Customers], trouble: Trouble, returned: dict[int, float]
) -> None:
    happened = Happened(troubles=[trouble], returned=returned)
    assert missed(scenario, fast(scenario), happened=happened) == ["b1 is used again"]


def test_remarks_count_what_was_lost_and_show_what_should_not_have_been() -> None:
    lost = [failure(who=ILL, error=STRANGER)] * 3
    posts = [failure(request="buy", who=ILL, error=REFUSED)] * 2
    lines = explain([*lost, *posts, *[failure()] * 12], Happened(troubles=[FLAPPED]))
    assert lines[0] == "b1#1 was flapping: lost with it 2 x buy, 3 x session"
    assert sum(line.startswith("unexplained: article at b2#1") for line in lines) == 10
    assert lines[-1].startswith("... and 2 more")
