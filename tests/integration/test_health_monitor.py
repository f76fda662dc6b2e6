"""Claims about the monitor: checks, pools, operators, reloads, hand-over, many."""

import asyncio
import contextlib
import json
import os
import time
from dataclasses import replace

import pytest

from lbcore._scoreboard import PoolFlag
from lbcore.config.plan import Address, BackendPlan, EjectionPlan, HealthPlan
from lbcore.health import Member, PoolRows, monitor
from tests.support.health_lab import (
    FAST,
    Lab,
    address_of,
    answers,
    http_ok,
    listening,
    nowhere,
    open_sockets,
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


# ---- active checks

def test_rows_are_valid_as_soon_as_a_plan_is_applied():
    lab = Lab()
    lab.monitor.apply([pool(*nowhere(3), weight=7, health=FAST, first_row=4, row=2)])
    for row in (4, 5, 6):
        found = lab.board.real.backend(row)
        assert (found["state"], found["weight"], found["ramp"]) == ("up", 7, 256)
        assert lab.board.eject_after[row] == 5
    assert lab.board.total_weight[2] == 21


async def test_a_backend_that_is_dead_at_the_start_goes_down_at_its_first_check():
    slow = replace(FAST, interval_ms=60_000, fast_interval_ms=60_000)
    async with running([pool(refused(), health=slow)]) as lab:
        event = await lab.event()
    assert (event.pool, event.backend, event.old, event.new) == ("web", "b0", "up", "down")
    assert event.reason == "first check failed: connection refused"
    assert abs(event.since - time.time()) < 60


async def test_a_backend_falls_after_fall_failures_and_rises_after_rise_successes():
    healthy, served = True, 0

    async def handler(reader, writer):
        nonlocal served
        await reader.readuntil(b"\r\n\r\n")
        served += 1
        writer.write(http_ok() if healthy else b"HTTP/1.1 503 Busy\r\n\r\n")
        checked.set()

    checked = asyncio.Event()
    health = replace(FAST, type="http", rise=2, fall=3)
    async with serving(handler) as address, running([pool(address, health=health)]) as lab:
        await soon(checked.wait())
        healthy, before = False, served
        event = await lab.event()
        assert (event.new, event.reason) == (
            "down", "3 checks in a row failed: status 503, wanted 200-399")
        assert served - before in (3, 4), "one may have been under way"
        assert lab.board.state(0) == "down"
        healthy, before = True, served
        event = await lab.event()
        assert (event.new, event.reason) == ("up", "2 checks in a row passed: status 200")
        assert served - before in (2, 3)
        assert lab.board.state(0) == "up"


async def test_a_backend_between_two_states_is_checked_at_the_fast_interval():
    health = HealthPlan(interval_ms=3_600_000, fast_interval_ms=20, rise=2, fall=3)
    async with serving(answers(http_ok())) as address:
        dead = refused()
        async with running([pool(dead, health=health)]) as lab:
            await lab.event()
            # Down and checked by the hour; another port means another question, asked at once.
            lab.monitor.apply([pool(dead, health=replace(health, port=address.port))])
            event = await lab.event()
    assert event.new == "up", "the second check did not wait an hour"


async def test_what_is_known_of_a_backend_can_be_asked():
    async with running([pool(refused(), health=FAST)]) as lab:
        assert lab.monitor.backend(0).last_check_ok is None
        assert lab.monitor.backend(0).reason == "not checked yet"
        event = await lab.event()
        found = lab.monitor.backend(0)
        assert found.state == found.underlying == "down"
        assert found.since == event.since
        assert found.last_check_ok is False
        assert found.last_check_detail == "connection refused"
        assert found.last_check_ms >= 0 and abs(found.last_check_at - time.time()) < 60
        assert (found.consecutive_ok, found.consecutive_fail) == (0, 1)
        assert found.checked and not found.draining and found.ejected_until is None
        with pytest.raises(KeyError):
            lab.monitor.backend(77)


async def test_whoever_takes_the_events_cannot_stop_the_checks():
    lab = Lab()

    def explode(event):
        lab._take(event)
        raise RuntimeError("a full disk, say")

    lab.monitor = monitor.HealthMonitor(lab.board, explode)
    with listening() as sock:
        address = address_of(sock)
        lab.monitor.apply([pool(address, health=FAST)])
        lab.monitor.start()
        sock.close()
        assert (await lab.event()).new == "down"
        with listening(port=address.port):
            assert (await lab.event()).new == "up"
    await lab.monitor.stop()


async def test_an_address_that_is_no_address_is_a_failed_check_not_a_crash():
    async with running([pool(Address("not.an.address", 1), health=FAST)]) as lab:
        assert "not a numeric address" in (await lab.event()).reason


# ---- pools

async def test_backups_carry_a_pool_whose_primaries_are_all_down():
    with listening() as sock:
        plan = [pool(refused(), refused(), address_of(sock), backups=1, health=FAST, weight=3)]
        async with running(plan) as lab:
            assert lab.board.flags() == 0
            await lab.board.until(lambda: lab.board.flags() == PoolFlag.POOL_BACKUP)
            assert lab.board.total_weight[0] == 3
    [event] = [event for event in lab.events if not event.backend]
    assert (event.pool, event.old, event.new) == ("web", "normal", "backup")
    assert event.reason.endswith("is down; 1 of 1 backups are up")


async def test_a_pool_with_too_few_healthy_backends_panics_and_says_so():
    with listening() as sock:
        plan = [pool(refused(), refused(), address_of(sock), health=FAST, panic_threshold=0.5)]
        async with running(plan) as lab:
            await lab.board.until(lambda: lab.board.flags() == PoolFlag.POOL_PANIC)
            assert lab.board.total_weight[0] == 3, "all are tried"
            assert states(lab) == ["down", "down", "up"]
    assert [e.new for e in lab.events if not e.backend] == ["panic"]


async def test_a_pool_with_nobody_left_says_so():
    async with running([pool(refused(), health=FAST)]) as lab:
        await lab.board.until(lambda: lab.board.total_weight[0] == 0)
        assert lab.board.flags() == 0
    assert [e.new for e in lab.events if not e.backend] == ["none"]


# ---- operators

async def test_a_drained_backend_gets_nothing_and_is_still_checked():
    with listening() as sock:
        address = address_of(sock)
        async with running([pool(address, *nowhere(1), health=None)]) as lab:
            lab.monitor.apply([pool(address, refused(), health=FAST)])
            lab.monitor.set_drain(0, True)
            assert lab.board.state(0) == "drain"
            event = await lab.event()
            assert (event.backend, event.old, event.new) == ("b0", "up", "drain")
            assert lab.monitor.backend(0).underlying == "up"
            sock.close()
            await lab.until(lambda: lab.monitor.backend(0).underlying == "down")
            assert lab.board.state(0) == "drain"
            lab.monitor.set_drain(0, False)
            assert lab.board.state(0) == "down", "back to what is true now"


async def test_undrain_is_a_recovery_with_slow_start():
    async with running([pool(*nowhere(2), slow_start_ms=60_000)]) as lab:
        lab.monitor.set_drain(1, True)
        lab.monitor.set_drain(1, False)
        assert [(await lab.event()).new, (await lab.event()).new] == ["drain", "up"]
        assert lab.board.real.backend(1)["ramp"] == 26


async def test_draining_a_whole_pool_leaves_it_to_the_backups_without_panic():
    async with running([pool(*nowhere(3), backups=1, panic_threshold=0.5)]) as lab:
        lab.monitor.set_drain(0, True)
        assert lab.board.flags() == 0
        lab.monitor.set_drain(1, True)
        assert lab.board.flags() == PoolFlag.POOL_BACKUP


async def test_a_weight_set_by_hand_is_in_force_until_it_is_taken_back():
    async with running([pool(*nowhere(2), weight=10)]) as lab:
        lab.monitor.set_weight(0, 50)
        assert lab.board.real.backend(0)["weight"] == 50
        assert lab.board.total_weight[0] == 60
        lab.monitor.apply([pool(*nowhere(2), weight=20)])
        found = lab.monitor.backend(0)
        assert (found.weight, found.weight_overridden) == (50, True)
        assert lab.board.total_weight[0] == 70
        lab.monitor.set_weight(0, None)
        assert lab.monitor.backend(0).weight == 20
        assert lab.board.real.backend(0)["weight"] == 20
        for wrong in (-1, 1001):
            with pytest.raises(ValueError, match="outside"):
                lab.monitor.set_weight(0, wrong)


async def test_orders_for_rows_that_nobody_has_are_refused():
    async with running([pool(*nowhere(1))]) as lab:
        with pytest.raises(KeyError):
            lab.monitor.set_drain(5, True)
        with pytest.raises(KeyError):
            lab.monitor.set_weight(5, 1)


# ---- reload

async def test_a_reload_keeps_the_state_of_what_stays():
    dead = refused()
    with listening() as sock:
        alive = address_of(sock)
        async with running([pool(alive, dead, health=FAST)]) as lab:
            await lab.event()
            since = lab.monitor.backend(1).since
            seen = len(lab.events)
            for _ in range(20):
                lab.monitor.apply([pool(alive, dead, *nowhere(1), health=FAST, weight=9)])
                assert states(lab)[:2] == ["up", "down"]
            assert lab.monitor.backend(1).since == since
            assert lab.events[seen:] == []


async def test_reloads_faster_than_the_interval_do_not_keep_checks_from_running():
    with listening() as sock:
        address = address_of(sock)
        plan = [pool(address, health=FAST)]
        async with running(plan) as lab:
            sock.close()
            reload = asyncio.create_task(reload_for_ever(lab, plan))
            assert (await lab.event()).new == "down"
            reload.cancel()


async def reload_for_ever(lab, plan):
    while True:
        lab.monitor.apply(plan)
        await asyncio.sleep(0.002)


async def test_another_question_begins_to_count_anew():
    """One failed check of the old path and one of the new are not two in a row."""
    codes = {b"/up": 200, b"/old": 500, b"/new": 500}

    async def handler(reader, writer):
        path = (await reader.readuntil(b"\r\n\r\n")).split()[1]
        writer.write(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % codes[path])

    slow = replace(FAST, type="http", path="/old", interval_ms=3_600_000,
                   fast_interval_ms=3_600_000, fall=2)
    async with serving(handler) as address:
        up = replace(slow, path="/up", interval_ms=20, fast_interval_ms=20)
        async with running([pool(address, health=up)]) as lab:
            await lab.until(lambda: lab.monitor.backend(0).consecutive_ok > 0)
            lab.monitor.apply([pool(address, health=slow)])
            await lab.until(lambda: lab.monitor.backend(0).counts.checks_failed == 1)
            lab.monitor.apply([pool(address, health=replace(slow, path="/new"))])
            await lab.until(lambda: lab.monitor.backend(0).counts.checks_failed == 2)
            assert lab.monitor.backend(0).consecutive_fail == 1
            assert lab.board.state(0) == "up"


async def test_checks_keep_no_step_with_those_of_other_balancers(monkeypatch):
    """The interval is an hour, and drawn to be next to nothing."""
    health = replace(FAST, interval_ms=3_600_000, jitter=0.999_99)
    with listening() as sock:
        lab = Lab()
        monkeypatch.setattr(lab.monitor._random, "uniform", lambda least, most: least)
        lab.monitor.apply([pool(address_of(sock), health=health)])
        lab.monitor.start()
        await lab.until(lambda: lab.monitor.backend(0).consecutive_ok >= 2)
        await lab.monitor.stop()


async def test_a_backend_that_leaves_is_not_checked_any_more():
    hits = asyncio.Queue()

    async def handler(reader, writer):
        hits.put_nowait(None)
        await answers(http_ok())(reader, writer)

    health = replace(FAST, type="http")
    async with serving(handler) as leaving, serving(answers(http_ok())) as staying, running(
            [pool(staying, leaving, health=health)]) as lab:
        await soon(hits.get())
        lab.monitor.apply([pool(staying, health=health)])
        with pytest.raises(KeyError):
            lab.monitor.backend(1)
        while not hits.empty():
            hits.get_nowait()
        checked = lab.monitor.backend(0).consecutive_ok
        await lab.until(lambda: lab.monitor.backend(0).consecutive_ok > checked + 5)
        assert hits.empty()


async def test_a_row_that_left_serves_the_old_plan_for_a_while_and_then_is_gone(monkeypatch):
    monkeypatch.setattr(monitor, "GONE_AFTER_S", 3600)
    short = EjectionPlan(failures=1, base_ms=50)
    async with running([pool(*nowhere(3), ejection=short)]) as lab:
        lab.monitor.apply([pool(*nowhere(2), ejection=short)])
        lab.fail(0, 1)
        assert [(await lab.event()).new, (await lab.event()).new] == ["ejected", "up"]
        assert lab.board.state(2) == "up", "workers still choose by the old plan"
        monkeypatch.setattr(monitor, "GONE_AFTER_S", 0.1)
        lab.monitor.apply([pool(*nowhere(1))])
        await lab.board.until(lambda: lab.board.state(1) == "gone")
        assert lab.board.state(0) == "up"


async def test_a_row_that_comes_back_in_time_is_not_marked_gone(monkeypatch):
    monkeypatch.setattr(monitor, "GONE_AFTER_S", 0.05)
    async with running([pool(*nowhere(2)), pool(*nowhere(1), name="x", row=1, first_row=9)]) as lab:
        lab.monitor.apply([pool(*nowhere(1))])
        lab.monitor.apply([pool(*nowhere(2))])
        await lab.board.until(lambda: lab.board.state(9) == "gone")
        assert lab.board.state(1) == "up"


async def test_another_address_under_the_same_name_is_another_server():
    with listening() as sock:
        async with running([pool(refused(), health=FAST)]) as lab:
            assert (await lab.event()).new == "down"
            lab.monitor.set_weight(0, 77)
            lab.monitor.apply([pool(address_of(sock), health=FAST, first_row=3)])
            event = await lab.event()
            assert event.new == "up" and event.reason.startswith("address is now")
            assert lab.board.real.backend(3)["weight"] == 77, "what an operator ordered holds"


async def test_turning_checks_off_brings_back_what_they_took_down():
    dead = refused()
    async with running([pool(dead, health=FAST)]) as lab:
        await lab.event()
        lab.monitor.apply([pool(dead)])
        event = await lab.event()
        assert (event.new, event.reason) == ("up", "checks are turned off")
        assert not lab.monitor.backend(0).checked


async def test_turning_ejection_off_brings_back_what_it_took_out():
    async with running([pool(*nowhere(2), ejection=LONG)]) as lab:
        lab.fail(0, 5)
        lab.monitor.apply([pool(*nowhere(2), ejection=replace(LONG, failures=0))])
        assert lab.board.state(0) == "up"


async def test_checks_added_to_a_backend_in_service_need_fall_failures():
    address = refused()
    async with running([pool(address)]) as lab:
        lab.monitor.apply([pool(address, health=FAST)])
        assert (await lab.event()).reason.startswith("3 checks in a row failed")


# ---- hand-over to another supervisor

def exported(lab):
    return json.loads(json.dumps(lab.monitor.export()))


async def test_a_later_supervisor_goes_on_where_the_earlier_one_stopped():
    dead = refused()
    addresses = [dead, *nowhere(4)]
    plan = [pool(*addresses, ejection=LONG)]
    async with running([pool(dead, health=FAST, first_row=7, row=1, name="checked"), *plan]) as lab:
        await lab.event()
        lab.fail(1, 5)
        lab.monitor.set_drain(2, True)
        lab.monitor.set_weight(3, 42)
        handed = exported(lab)
        old = {row: lab.monitor.backend(row) for row in (1, 2, 3, 7)}
    later = Lab()
    later.monitor.restore(handed)
    later.monitor.apply([*plan, pool(dead, health=FAST, first_row=7, row=1, name="checked")])
    for row, before in old.items():
        now = later.monitor.backend(row)
        assert (now.state, now.since, now.reason, now.weight, now.draining, now.ejections) == (
            before.state, before.since, before.reason, before.weight, before.draining,
            before.ejections)
        assert later.board.state(row) == before.state
    assert abs(later.monitor.backend(1).ejected_until - old[1].ejected_until) < 1
    assert [event for event in later.events if event.backend] == [], "nothing has changed"


async def test_an_ejection_that_ran_out_during_the_hand_over_ends_at_once():
    plan = [pool(*nowhere(2), ejection=LONG)]
    async with running(plan) as lab:
        lab.fail(0, 5)
        handed = exported(lab)
    handed["pools"]["web"]["b0"]["ejected_until"] = time.time() - 1
    later = Lab()
    later.monitor.restore(handed)
    later.monitor.apply(plan)
    later.monitor.start()
    assert (await later.event()).new == "up"
    await later.monitor.stop()


async def test_state_of_another_address_is_not_inherited_but_orders_are():
    async with running([pool(refused(), health=FAST)]) as lab:
        await lab.event()
        lab.monitor.set_weight(0, 5)
        handed = exported(lab)
    later = Lab()
    later.monitor.restore(handed)
    later.monitor.apply([pool(*nowhere(1), health=FAST)])
    assert (later.monitor.backend(0).state, later.monitor.backend(0).weight) == ("up", 5)


@pytest.mark.parametrize("nonsense", [
    {}, {"pools": 3}, {"pools": {"web": []}}, {"pools": {"web": {"b0": {"state": "flying"}}}},
    {"pools": {"web": {"b0": None}}},
    {"pools": {"web": {"b0": {"address": "", "state": "up", "passed": "x"}}}},
])
def test_an_export_that_cannot_be_understood_is_no_obstacle(nonsense):
    lab = Lab()
    lab.monitor.restore(nonsense)
    lab.monitor.apply([pool(*nowhere(1))])
    assert lab.board.state(0) == "up"


async def test_an_entry_with_a_time_that_is_none_is_left_out():
    plan = [pool(*nowhere(2))]
    async with running(plan) as lab:
        lab.monitor.set_drain(0, True)
        lab.monitor.set_drain(1, True)
        handed = exported(lab)
    handed["pools"]["web"]["b1"]["since"] = float("inf")
    later = Lab()
    later.monitor.restore(handed)
    later.monitor.apply(plan)
    assert states(later) == ["drain", "up"]


# ---- many

async def test_thousands_of_backends_are_judged_without_holding_the_loop():
    """2,000 backends, half of them dead, in one pool."""
    count = 2000
    with listening("0.0.0.0", backlog=4096) as sock:
        port, dead = address_of(sock).port, refused("0.0.0.0").port
        hosts = [f"127.20.{i // 250}.{i % 250 + 1}" for i in range(count)]
        addresses = [Address(host, dead if i % 2 else port) for i, host in enumerate(hosts)]
        plan = pool(*addresses, health=HealthPlan(interval_ms=2000, timeout_ms=2000),
                    panic_threshold=0.4, weight=2)
        before = open_sockets()
        async with running() as lab:
            longest = longest_turns(lab.monitor)
            lab.monitor.apply([plan])
            for _ in range(count // 2):
                await lab.event()
            assert states(lab) == ["up", "down"] * (count // 2)
            assert lab.board.total_weight[0] == count
            assert lab.board.flags() == 0
        assert longest() < 0.5
        assert open_sockets() == before


def longest_turns(health_monitor):
    """CPU seconds of the longest turn that checks and timers take; CPU, so that a busy machine
    does not fail the claim."""
    longest = 0.0

    def timed(function):
        def run():
            nonlocal longest
            began = time.thread_time()
            function()
            longest = max(longest, time.thread_time() - began)
        return run

    loop = asyncio.get_running_loop()
    health_monitor._timers._run = timed(health_monitor._timers._run)
    loop.remove_reader(health_monitor._prober._epoll.fileno())
    loop.add_reader(health_monitor._prober._epoll.fileno(), timed(health_monitor._prober._turn))
    return lambda: longest


async def test_backends_of_every_temper_do_not_disturb_each_other():
    async def never(reader, writer):
        await asyncio.Event().wait()

    async def garbage(reader, writer):
        writer.write(os.urandom(100_000))
        await writer.drain()

    async def flood(reader, writer):
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"." * 65536)
            await writer.drain()

    async def drip(reader, writer):
        while True:
            writer.write(b"H")
            await writer.drain()
            await asyncio.sleep(0.001)

    health = HealthPlan(type="http", interval_ms=40, fast_interval_ms=40, timeout_ms=2_000,
                        expect_body="GREEN", rise=1, fall=1)
    before = open_sockets()
    async with contextlib.AsyncExitStack() as stack:
        handlers = (answers(http_ok(b"GREEN")), never, garbage, flood, drip)
        addresses = [await stack.enter_async_context(serving(handler)) for handler in handlers]
        lab = await stack.enter_async_context(
            running([pool(*addresses, refused(), health=health)]))
        down = {(await lab.event()).backend for _ in range(5)}
        assert down == {"b1", "b2", "b3", "b4", "b5"}

        def good_is_fine_until_20_more():
            assert lab.monitor.backend(0).consecutive_fail == 0
            assert len(lab.monitor._prober) <= 6, "one connection to each at most"
            return lab.monitor.backend(0).consecutive_ok >= 20

        await lab.until(good_is_fine_until_20_more)
        assert states(lab) == ["up"] + ["down"] * 5
    assert len(lab.monitor._timers) == 0
    assert open_sockets() == before


async def test_a_stopped_monitor_can_start_again():
    with listening() as sock:
        address = address_of(sock)
        lab = Lab()
        lab.monitor.apply([pool(address, health=FAST)])
        lab.monitor.start()
        await lab.monitor.stop()
        sock.close()
        lab.monitor.start()
        assert (await lab.event()).new == "down"
        await lab.monitor.stop()


def test_a_plan_may_be_empty():
    lab = Lab()
    lab.monitor.apply([])
    assert lab.monitor.export() == {"pools": {}}


def test_members_name_their_rows_themselves():
    lab = Lab()
    backend = BackendPlan("only", Address("127.0.0.1", 1), weight=4)
    rows = PoolRows(3, pool(*nowhere(1)).plan, (Member(11, backend, backend.address),))
    lab.monitor.apply([rows])
    assert lab.board.real.backend(11)["weight"] == 4
