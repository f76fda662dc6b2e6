"""What is counted of a backend's health never goes back, unlike what is held against it."""

import json
from dataclasses import replace

import pytest

from lbcore.config.plan import EjectionPlan
from lbcore.health.model import HealthCounts
from tests.support.health_lab import FAST, Lab, nowhere, pool, refused, running

SHORT = EjectionPlan(failures=5, base_ms=20, max_ms=10_000)
LONG = EjectionPlan(failures=5, base_ms=600_000, max_ms=600_000)


async def test_forgiven_ejections_are_counted_all_the_same():
    async with running([pool(*nowhere(2), ejection=SHORT)]) as lab:
        lab.fail(0, 5)
        assert [(await lab.event()).new, (await lab.event()).new] == ["ejected", "up"]
        await lab.until(lambda: not lab.monitor.backend(0).ejections)
        lab.board.set_failures(0, 0)
        lab.fail(0, 5)
        assert [(await lab.event()).new, (await lab.event()).new] == ["ejected", "up"]
        assert lab.monitor.backend(0).counts == HealthCounts(ejections=2, changes=4)


async def test_ejections_that_the_pool_does_not_allow_are_counted():
    async with running([pool(*nowhere(2), ejection=LONG)]) as lab:
        for row in range(2):
            lab.fail(row, 5)
        assert lab.monitor.backend(0).counts == HealthCounts(ejections=1, changes=1)
        await lab.until(lambda: lab.monitor.backend(1).counts == HealthCounts(withheld=1))


async def test_checks_are_counted_by_result():
    async with running([pool(refused(), health=FAST)]) as lab:
        await lab.until(lambda: lab.monitor.backend(0).counts.checks_failed >= 3)
        counts = lab.monitor.backend(0).counts
        assert (counts.checks_passed, counts.changes) == (0, 1)


async def test_counts_go_on_over_a_reload_and_in_a_later_supervisor():
    plan = [pool(*nowhere(2), ejection=LONG)]
    async with running(plan) as lab:
        lab.fail(0, 5)
        before = lab.monitor.backend(0).counts
        lab.monitor.apply([pool(*nowhere(2), ejection=replace(LONG, failures=9))])
        assert lab.monitor.backend(0).counts == before == HealthCounts(ejections=1, changes=1)
        handed = json.loads(json.dumps(lab.monitor.export()))
    later = Lab()
    later.monitor.restore(handed)
    later.monitor.apply(plan)
    assert later.monitor.backend(0).counts == before


@pytest.mark.parametrize("counts", [None, 3, {}, {"ejections": "x"}, {"flights": 1}])
async def test_an_earlier_version_that_did_not_count_is_no_obstacle(counts):
    plan = [pool(*nowhere(2), ejection=LONG)]
    async with running(plan) as lab:
        lab.fail(0, 5)
        handed = json.loads(json.dumps(lab.monitor.export()))
    handed["pools"]["web"]["b0"]["counts"] = counts
    later = Lab()
    later.monitor.restore(handed)
    later.monitor.apply(plan)
    assert later.monitor.backend(0).counts == HealthCounts()
    assert later.monitor.backend(0).state == "ejected", "the rest is inherited"
