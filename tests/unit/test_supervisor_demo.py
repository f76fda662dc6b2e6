"""Demonstration backends: all that a plan asks for, or none."""

from __future__ import annotations

import errno
import gc
import os
from pathlib import Path

import pytest

from lbcore.config.plan import Address, LogPlan, Plan, PoolPlan
from lbcore.supervisor import demo
from lbcore.supervisor.demo import DemoBackends
from lbcore.supervisor.instance import Instance
from lbcore.supervisor.log import Log
from tests.support.instance import descriptors


async def test_demonstration_backend_that_cannot_be_made_takes_the_others_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    instance = Instance.claim(Address(path=str(tmp_path / "admin.sock")))
    demos = DemoBackends(instance, Log(LogPlan(path=str(tmp_path / "log"))))
    place = demo.socket_path

    def full(runtime_dir: Path, name: demo.Name) -> Path:
        if name[1] == 3:
            raise OSError(errno.ENOSPC, "no space")
        return place(runtime_dir, name)

    monkeypatch.setattr(demo, "socket_path", full)
    gc.collect()                     # closes what other tests have left, or it would be in between
    before = descriptors(os.getpid())
    plan = Plan((), (PoolPlan("web", (), demo=3),), 1, instance.admin)
    with pytest.raises(OSError, match="no space"):
        demos.apply(plan)
    assert descriptors(os.getpid()) == before
    assert list(instance.runtime_dir.iterdir()) == []
    assert demos.export() == []
    instance.leave()
