"""An upgrade that goes wrong in a way nobody thought of leaves the running version as it was."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import pytest

from lbcore.config.plan import Address, LogPlan, Plan
from lbcore.supervisor import upgrade
from lbcore.supervisor.fleet import Slot
from lbcore.supervisor.log import Log
from lbcore.supervisor.sockets import open_admin
from lbcore.supervisor.supervisor import Supervisor
from lbcore.supervisor.worker import Place, Worker


def on_supervisor(directory: Path, work: Any) -> None:
    """Runs something on a supervisor without workers whose admin address answers."""
    plan = Plan((), (), 1, Address(path=str(directory / "admin.sock")))

    async def live() -> None:
        log = Log(LogPlan(path=str(directory / "log")))
        supervisor = Supervisor.create(directory / "lb.toml", plan, log)
        supervisor.admin_socket = open_admin(plan.admin)
        supervisor.monitor.start()
        await supervisor.admin.start(supervisor.admin_socket)
        try:
            await work(supervisor)
        finally:
            supervisor.stopping = "now"
            await supervisor.close()

    asyncio.run(live())


async def answers(supervisor: Supervisor) -> bool:
    _, writer = await asyncio.open_unix_connection(supervisor.instance.admin.path)
    writer.close()
    return supervisor.admin._runner is not None


def test_state_that_cannot_be_written_leaves_the_running_version_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(*_: object) -> None:
        raise TypeError("Object of type bytes is not JSON serializable")

    async def work(supervisor: Supervisor) -> None:
        monkeypatch.setattr(upgrade, "export", fails)
        supervisor.upgraded = {"state": "running"}
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
        await upgrade.exec_new_version(supervisor)
        assert supervisor.upgraded["state"] == "failed"
        assert "serializable" in supervisor.upgraded["error"]
        assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before
        assert await answers(supervisor)
        assert not supervisor.changing.locked()

    on_supervisor(tmp_path, work)


def test_worker_that_cannot_be_replaced_for_any_reason_ends_the_upgrade(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def fails(_: Slot) -> None:
        raise OSError("no memfd")

    async def work(supervisor: Supervisor) -> None:
        supervisor.fleet.slots[0] = Slot(0)
        monkeypatch.setattr(supervisor.fleet, "replace", fails)
        supervisor.upgraded = {"state": "running"}
        await upgrade._replace_workers(supervisor)
        assert supervisor.upgraded["state"] == "failed"
        assert "no memfd" in supervisor.upgraded["error"]

    on_supervisor(tmp_path, work)


def test_worker_started_for_a_slot_that_was_given_up_is_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def work(supervisor: Supervisor) -> None:
        fleet = supervisor.fleet
        child = await asyncio.create_subprocess_exec("sleep", "60")
        old_child = await asyncio.create_subprocess_exec("sleep", "60")
        place = Place(0, 0, 1, tmp_path / "door")
        new = Worker(child.pid, place, fleet.heard, fleet.ended)
        old = Worker(old_child.pid, place, fleet.heard, fleet.ended)
        try:
            async def launch(_: int) -> Worker:
                await asyncio.sleep(0)
                return new

            monkeypatch.setattr(fleet, "launch", launch)
            slot = fleet.slots[0] = Slot(0, old)
            replacing = asyncio.create_task(fleet.replace(slot))
            await asyncio.sleep(0)
            fleet.dismiss(fleet.vacate(0) or old)
            await replacing
            assert set(fleet.workers()) == {old, new}
            assert new in fleet.leaving
            assert slot.task is None
        finally:
            for worker in (old, new):
                worker.kill("the test is over")
                await worker.ended.wait()

    on_supervisor(tmp_path, work)
