"""Changes and losses in random order, each begun before the one before it is over."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable

import pytest

from lbcore.admin.client import AdminError, NotRunning
from tests.support.echo import Backends
from tests.support.faults import times
from tests.support.instance import Instance, until
from tests.support.load import LOST, UNSERVED, Load, LongLived

MOST_HELD = 150      # connections of this load that one worker has at any moment


class Disorder:
    """What may happen to an instance at any moment."""

    def __init__(self, lb: Instance, backends: Backends, seed: int) -> None:
        self.lb = lb
        self.random = random.Random(seed)
        self.all = [*lb.pool["backends"], *backends.echo(2)]
        self.killed = 0
        self.story: list[str] = []

    def happen(self, what: Callable[[], None]) -> None:
        """Does one thing, and leaves a random little time before the next."""
        self.story.append(what.__name__)
        with contextlib.suppress(NotRunning, AdminError):    # another one may be under way
            what()
        time.sleep(self.random.choice((0.0, 0.02, 0.2, 0.7)))

    def reload(self) -> None:
        """Another plan."""
        self.lb.pool["backends"] = self.random.sample(self.all, self.random.randrange(1, 5))
        self.lb.pool["balance"] = self.random.choice(["round_robin", "least_conn", "consistent"])
        self.lb.write()
        self.lb.signal(signal.SIGHUP)

    def grow(self) -> None:
        """A worker more, up to a few."""
        if len(self.lb.serving()) < 4:
            self.lb.signal(signal.SIGTTIN)

    def shrink(self) -> None:
        """A worker less."""
        self.lb.signal(signal.SIGTTOU)

    def upgrade(self) -> None:
        """New processes."""
        self.lb.signal(signal.SIGUSR2)

    def replace_supervisor(self) -> None:
        """SIGKILL, and a new start."""
        self.lb.kill_supervisor()
        self.lb.start()

    def settle(self) -> None:
        """Waits until all that was begun is over: as many workers as wanted, and no others."""

        def settled() -> bool:
            with contextlib.suppress(NotRunning):
                status = self.lb.status()
                states = [worker["state"] for worker in status["workers"]]
                return (states == ["serving"] * status["workers_wanted"]
                        and status["upgrade"]["state"] != "running")
            return False

        try:
            until(settled, "settled")
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.lb.status()['workers']} after {self.story}"
                                 ) from None

    def kill_worker(self) -> None:
        """SIGKILL to one that serves."""
        with contextlib.suppress(ProcessLookupError):
            if serving := self.lb.serving():
                os.kill(self.random.choice(serving)["pid"], signal.SIGKILL)
                self.killed += 1


@pytest.mark.parametrize("seed", range(times(6, 1)))
def test_changes_and_lost_supervisors_in_any_order_fail_no_connection(
    lb: Instance, backends: Backends, seed: int,
) -> None:
    # Those that stay are to outlive it all, however long that takes on this machine.
    lb.file["lbcore"].update(workers=2, drain_timeout="1h")
    lb.write()
    lb.start()
    disorder = Disorder(lb, backends, seed)
    things = [disorder.reload, disorder.grow, disorder.shrink, disorder.upgrade,
              disorder.replace_supervisor]
    with Load(lb.address) as load, LongLived(lb.address) as clients:
        clients.open(20)
        for _ in range(times(40, 8)):
            disorder.happen(disorder.random.choice(things))
            if (report := load.report()).failed:
                pytest.fail(f"{report} after {disorder.story}")
        assert clients.ask() == [], disorder.story
        clients.close()
        load.wait_for(100)
        report = load.finish()
        assert not report.failed, f"{report} after {disorder.story}"
    disorder.settle()
    lb.signal(signal.SIGTERM)
    assert lb.exit_code() == 0
    until(lambda: lb.leftovers() == [], "nothing left", 5)


@pytest.mark.parametrize("seed", range(times(6, 1)))
def test_changes_and_lost_workers_in_any_order_refuse_nobody(
    lb: Instance, backends: Backends, seed: int,
) -> None:
    lb.file["lbcore"]["workers"] = 3
    lb.write()
    lb.start()
    disorder = Disorder(lb, backends, seed + 1000)
    things = [disorder.reload, disorder.grow, disorder.shrink, disorder.upgrade,
              disorder.kill_worker, disorder.kill_worker]
    with Load(lb.address) as load:
        for _ in range(times(40, 8)):
            disorder.happen(disorder.random.choice(things))
        disorder.settle()
        load.wait_for(400)
        report = load.finish()
    assert set(report.failed) <= {UNSERVED, LOST}, f"{report} after {disorder.story}"
    assert report.failures <= disorder.killed * MOST_HELD, f"{report} after {disorder.story}"
    lb.signal(signal.SIGTERM)
    assert lb.exit_code() == 0
    until(lambda: lb.leftovers() == [], "nothing left", 5)
