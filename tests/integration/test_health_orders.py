"""Claims about what an operator orders of a backend: forced up, forced down, and orders of a plan.
"""

from __future__ import annotations

import json

import pytest

from lbcore.config.plan import EjectionPlan
from lbcore.health import Orders
from tests.support.health_lab import (
    FAST,
    Lab,
    address_of,
    listening,
    nowhere,
    pool,
    refused,
    running,
)

LONG = EjectionPlan(failures=5, base_ms=600_000, max_ms=600_000)


async def test_forced_up_backend_takes_traffic_whatever_checks_say() -> None:
    async with running([pool(refused(), health=FAST)]) as lab:
        assert (await lab.event()).new == "down"
        lab.monitor.set_forced(0, "up")
        event = await lab.event()
        assert (event.new, event.reason) == ("up", "forced by the operator")
        assert lab.board.state(0) == "up"
        failed = lab.monitor.backend(0).consecutive_fail
        await lab.until(lambda: lab.monitor.backend(0).consecutive_fail > failed)
        found = lab.monitor.backend(0)
        assert (found.state, found.underlying, found.forced) == ("up", "down", "up")
        assert found.reason == "forced by the operator"
        lab.monitor.set_forced(0, "")
        event = await lab.event()
        assert event.new == "down" and "connection refused" in event.reason


async def test_forced_down_backend_is_gone_for_workers_and_comes_back_as_checks_say() -> None:
    with listening() as sock:
        async with running([pool(address_of(sock), health=FAST)]) as lab:
            lab.monitor.set_forced(0, "down")
            assert (await lab.event()).new == "down"
            # Neither sessions nor panic lead there: see lbcore/_balance.pyx.
            assert lab.board.state(0) == "gone"
            await lab.until(lambda: lab.monitor.backend(0).last_check_ok is True)
            assert lab.monitor.backend(0).state == lab.monitor.state(0) == "down"
            lab.monitor.set_forced(0, "")
            assert lab.board.state(0) == "up"


async def test_forcing_half_of_a_pool_down_is_no_panic() -> None:
    async with running([pool(*nowhere(3), panic_threshold=0.9)]) as lab:
        lab.monitor.set_forced(0, "down")
        lab.monitor.set_forced(1, "down")
        assert lab.board.flags() == 0 and lab.board.total_weight[0] == 1


async def test_forced_up_backend_is_never_ejected() -> None:
    async with running([pool(*nowhere(3), ejection=LONG)]) as lab:
        lab.monitor.set_forced(0, "up")
        assert lab.board.eject_after[0] == 0
        lab.fail(0, 20)
        assert lab.monitor.backend(0).state == "up"
        lab.monitor.set_forced(0, "")
        lab.board.set_failures(0, 0)
        lab.fail(0, 5)
        assert lab.monitor.backend(0).state == "ejected"
        lab.monitor.set_forced(0, "up")
        assert lab.board.state(0) == "up"


async def test_drain_goes_before_force_and_application_that_does_not_run_before_both() -> None:
    async with running([pool(*nowhere(2))]) as lab:
        lab.monitor.set_forced(0, "up")
        lab.monitor.set_drain(0, True)
        assert lab.board.state(0) == "drain"
        lab.monitor.set_drain(0, False)
        lab.monitor.hold(0, "the application does not run")
        assert lab.board.state(0) == "down"
        lab.monitor.hold(0, "")
        assert lab.board.state(0) == "up" and lab.monitor.backend(0).forced == "up"


async def test_coming_back_from_forced_down_is_a_recovery_with_slow_start() -> None:
    async with running([pool(*nowhere(2), slow_start_ms=60_000)]) as lab:
        lab.monitor.set_forced(1, "down")
        lab.monitor.set_forced(1, "")
        assert lab.board.real.backend(1)["ramp"] == 26


async def test_force_outlives_reload_and_hand_over() -> None:
    plan = [pool(*nowhere(2))]
    async with running(plan) as lab:
        lab.monitor.set_forced(0, "down")
        lab.monitor.apply(plan)
        assert lab.board.state(0) == "gone"
        handed = json.loads(json.dumps(lab.monitor.export()))
    later = Lab()
    later.monitor.restore(handed)
    later.monitor.apply(plan)
    found = later.monitor.backend(0)
    assert (found.state, found.forced, found.reason) == ("down", "down", "forced by the operator")
    assert later.board.state(0) == "gone"


async def test_orders_that_come_with_a_plan_hold_from_the_first_moment() -> None:
    async with running([pool(*nowhere(1))]) as lab:
        seen: list[int] = []
        lab.board.set_backend = lambda *given: seen.append(given[1])  # type: ignore[method-assign]
        lab.monitor.apply([pool(*nowhere(4))], {
            ("web", "b1"): Orders(drain=True), ("web", "b2"): Orders(force="down"),
            ("web", "b3"): Orders(weight=9)})
        assert seen[1:4] == [3, 4, 0]        # drain, gone, up: never up before they are that
        assert [lab.monitor.backend(row).state for row in range(4)] == ["up", "drain", "down", "up"]
        assert lab.monitor.backend(3).weight == 9
        assert lab.monitor.backend(1).reason == "drained by an operator"


async def test_who_is_not_among_all_orders_has_none() -> None:
    async with running([pool(*nowhere(3))]) as lab:
        lab.monitor.obey({("web", "b0"): Orders(drain=True), ("web", "b1"): Orders(weight=7),
                          ("web", "b2"): Orders(force="down")})
        lab.monitor.obey({("web", "b1"): Orders(weight=7)})
        assert [lab.board.state(row) for row in range(3)] == ["up", "up", "up"]
        assert lab.monitor.backend(1).weight == 7
        lab.monitor.apply([pool(*nowhere(3))])          # without orders: those stay
        assert lab.monitor.backend(1).weight == 7


async def test_another_word_than_up_and_down_is_refused() -> None:
    async with running([pool(*nowhere(1))]) as lab:
        with pytest.raises(ValueError, match="neither up nor down"):
            lab.monitor.set_forced(0, "sideways")
        with pytest.raises(KeyError):
            lab.monitor.set_forced(5, "up")
