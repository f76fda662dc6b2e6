"""Claims about what traffic tells the monitor: ejection, and the slow start after it."""

import asyncio
import time
from dataclasses import replace

from lbcore.config.plan import EjectionPlan
from lbcore.health import monitor
from tests.support.health_lab import (
    FAST,
    Lab,
    address_of,
    http_ok,
    listening,
    nowhere,
    pool,
    refused,
    running,
    serving,
    soon,
)

SHORT = EjectionPlan(failures=5, base_ms=60, max_ms=10_000)
LONG = EjectionPlan(failures=5, base_ms=600_000, max_ms=600_000)


def states(lab, count=None):
    rows = sorted(lab.monitor._watches) if count is None else range(count)
    return [lab.board.state(row) for row in rows]


# ---- passive ejection

async def test_a_backend_that_traffic_fails_on_is_ejected_and_comes_back():
    async with running([pool(*nowhere(2), ejection=SHORT)]) as lab:
        lab.fail(0, 4)
        assert lab.board.state(0) == "up"
        lab.fail(0, 1)
        assert lab.board.state(0) == "ejected", "workers must see it before ring() returns"
        event = await lab.event()
        assert event.reason == "5 failures in a row; out for 0.06 s"
        assert lab.monitor.backend(0).ejected_until > time.time() - 60
        event = await lab.event()
        assert (event.old, event.new, event.reason) == ("ejected", "up", "ejection is over")


async def test_after_an_ejection_one_failure_ejects_again_and_for_longer():
    async with running([pool(*nowhere(2), ejection=SHORT)]) as lab:
        lab.fail(0, 5)
        for nth in (2, 3):
            await lab.event()
            assert (await lab.event()).new == "up"
            lab.fail(0, 1)
            assert lab.board.state(0) == "ejected"
            assert lab.monitor.backend(0).ejections == nth
        assert f"out for {0.06 * 3:g} s (ejection 3 in a row)" in (await lab.event()).reason


async def test_after_an_ejection_a_success_gives_back_the_full_credit():
    async with running([pool(*nowhere(2), ejection=SHORT)]) as lab:
        lab.fail(0, 5)
        await lab.event()
        await lab.event()
        lab.board.set_failures(0, 0)        # what a worker does at the first success
        lab.fail(0, 4)
        assert lab.board.state(0) == "up"


async def test_past_ejections_are_forgiven_in_time():
    async with running([pool(*nowhere(2), ejection=replace(SHORT, base_ms=20))]) as lab:
        lab.fail(0, 5)
        await lab.event()
        returned = await lab.event()
        assert returned.new == "up"
        await lab.until(lambda: not lab.monitor.backend(0).ejections)
        assert time.time() - returned.since >= 0.02 - 0.001
        lab.board.set_failures(0, 0)
        lab.fail(0, 5)
        assert lab.monitor.backend(0).ejections == 1


async def test_no_more_than_the_share_of_a_pool_is_ejected():
    async with running([pool(*nowhere(4), ejection=LONG)]) as lab:
        for row in range(4):
            lab.fail(row, 5)
        assert [(await lab.event()).backend, (await lab.event()).backend] == ["b0", "b1"]
        assert states(lab) == ["ejected", "ejected", "up", "up"]
        assert lab.monitor.backend(2).withheld == 1
        assert lab.board.failures(2) == 0, "so that workers ring again"


async def test_a_single_backend_is_never_ejected():
    async with running([pool(*nowhere(1), ejection=replace(LONG, max_share=1.0))]) as lab:
        assert lab.board.eject_after[0] == 0, "workers need not even ring"
        lab.board.set_failures(0, 1000)
        lab.monitor.ring()
        assert lab.board.state(0) == "up"


async def test_the_last_backend_standing_is_not_ejected():
    with listening() as sock:
        plan = [pool(refused(), refused(), address_of(sock), health=FAST,
                     ejection=replace(LONG, max_share=1.0))]
        async with running(plan) as lab:
            await lab.event()
            await lab.event()
            lab.fail(2, 5)
            assert lab.board.state(2) == "up"


async def test_ejection_turned_off_means_never():
    async with running([pool(*nowhere(3), ejection=replace(LONG, failures=0))]) as lab:
        lab.board.set_failures(0, 1000)
        lab.monitor.ring()
        assert states(lab) == ["up"] * 3


async def test_passing_checks_do_not_bring_an_ejected_backend_back():
    served = asyncio.Queue()

    async def handler(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(http_ok())
        served.put_nowait(None)

    health = replace(FAST, type="http")
    async with serving(handler) as address, running(
            [pool(address, address, health=health, ejection=LONG)]) as lab:
        await soon(served.get())
        lab.fail(0, 5)
        for _ in range(20):
            await soon(served.get())
        assert lab.board.state(0) == "ejected"


async def test_checks_that_see_the_fault_too_end_a_long_ejection_when_it_is_gone():
    with listening() as other, listening() as sock:
        address = address_of(sock)
        plan = [pool(address, address_of(other), health=FAST, ejection=LONG)]
        async with running(plan) as lab:
            sock.close()
            lab.fail(0, 5)
            seen = [(await lab.event()).new, (await lab.event()).new]
            assert seen == ["ejected", "down"]
            assert lab.monitor.backend(0).ejected_until is None
            with listening(port=address.port):
                assert (await lab.event()).new == "up"
            assert lab.board.failures(0) == 0


async def test_bells_that_ring_all_the_time_do_not_cost_all_the_time(monkeypatch):
    async with running([pool(*nowhere(2), ejection=LONG)]) as lab:
        looks = 0
        original = lab.board.failures

        def counting(row):
            nonlocal looks
            looks += 1
            return original(row)

        monkeypatch.setattr(lab.board, "failures", counting)
        for _ in range(1000):
            lab.monitor.ring()
        assert looks <= 2
        lab.board.set_failures(1, 5)
        lab.monitor.ring()
        assert (await lab.event()).backend == "b1", "a bell that rang in between is not lost"


async def test_no_bell_is_lost_however_often_one_is_answered_late(monkeypatch):
    monkeypatch.setattr(monitor, "RING_PAUSE_S", 0.2)
    async with running([pool(*nowhere(8), ejection=LONG)]) as lab:
        for row in range(4):
            lab.fail(row, 5)
            assert (await lab.event()).backend == f"b{row}"


async def test_a_backend_without_weight_is_not_ejected():
    async with running([pool(*nowhere(3), ejection=LONG)]) as lab:
        lab.monitor.set_weight(0, 0)
        assert lab.board.eject_after[0] == 0
        lab.monitor.set_weight(0, None)
        assert lab.board.eject_after[0] == LONG.failures


async def test_who_is_out_for_another_reason_takes_nobody_the_place_of_an_ejection():
    async with running([pool(*nowhere(4), ejection=replace(LONG, max_share=0.25))]) as lab:
        lab.fail(0, 5)
        lab.monitor.hold(0, "the application does not run")
        assert [(await lab.event()).new, (await lab.event()).new] == ["ejected", "down"]
        lab.fail(1, 5)
        assert (await lab.event()).backend == "b1"
        assert states(lab) == ["down", "ejected", "up", "up"]


async def test_another_server_under_the_same_name_is_not_charged_with_past_ejections():
    one, two, three = nowhere(3)
    async with running([pool(one, two, ejection=LONG)]) as lab:
        lab.fail(0, 5)
        lab.monitor.apply([pool(three, two, ejection=LONG)])
        assert [(await lab.event()).new, (await lab.event()).new] == ["ejected", "up"]
        lab.fail(0, 5)
        assert (await lab.event()).reason == "5 failures in a row; out for 600 s"


async def test_a_limit_that_is_lowered_past_the_failures_is_reached_by_the_next_one():
    async with running([pool(*nowhere(2), ejection=LONG)]) as lab:
        lab.fail(0, 4)
        lab.monitor.apply([pool(*nowhere(2), ejection=replace(LONG, failures=2))])
        assert lab.board.state(0) == "up"
        lab.fail(0, 1)
        assert lab.board.state(0) == "ejected"


# ---- slow start

async def test_a_recovered_backend_gets_its_weight_back_in_steps():
    async with running([pool(*nowhere(2), weight=100, ejection=SHORT, slow_start_ms=2000)]) as lab:
        lab.fail(0, 5)
        await lab.event()
        await lab.event()
        lab.board.ramps[0].clear()
        assert lab.board.total_weight[0] < 200
        assert 26 <= lab.monitor.backend(0).ramp < 256
        await lab.board.until(lambda: lab.board.ramps[0][-1:] == [256])
        ramps = lab.board.ramps[0]
        assert ramps == sorted(ramps) and len(ramps) >= 3
        assert lab.board.total_weight[0] == 200


def test_backends_of_a_first_plan_do_not_start_slowly():
    lab = Lab()
    lab.monitor.apply([pool(*nowhere(2), slow_start_ms=60_000)])
    assert lab.monitor.backend(0).ramp == 256


async def test_a_backend_that_fails_while_it_warms_up_has_no_ramp_left():
    plan = pool(*nowhere(2), ejection=SHORT, slow_start_ms=60_000)
    async with running([plan]) as lab:
        lab.fail(0, 5)
        await lab.event()
        await lab.event()
        lab.fail(0, 1)
        found = lab.board.real.backend(0)
        assert (found["state"], found["ramp"]) == ("ejected", 256), "panic gives full weight"
