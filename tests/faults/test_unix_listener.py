"""A unix socket is one queue for all workers: no slot has one of its own."""

from __future__ import annotations

import collections
import os
import signal
import socket
import threading
from collections.abc import Iterator
from types import TracebackType

import pytest

from tests.support.faults import times
from tests.support.instance import Instance, until
from tests.support.load import LongLived


class Talk:
    """New connections to a unix socket without a pause, and what became of them."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.outcomes: collections.Counter[str] = collections.Counter()
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(4)]

    def __enter__(self) -> Talk:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while not self._over.is_set():
            self.outcomes[self._once()] += 1

    def _once(self) -> str:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(60)
            try:
                client.connect(self.path)
                client.sendall(b"hello")
                return "served" if client.recv(5, socket.MSG_WAITALL) == b"hello" else "closed"
            except OSError as error:
                return repr(error)

    def wait_for(self, more: int) -> None:
        """Waits until so many more have been served."""
        enough = self.outcomes["served"] + more
        until(lambda: self.outcomes["served"] >= enough, f"{more} more: {self.outcomes}")

    def expect_no_failure(self) -> None:
        """Fails with a description if any connection did."""
        assert set(self.outcomes) == {"served"}, self.outcomes


@pytest.fixture
def path(lb: Instance) -> str:
    """The unix socket of a running instance with three workers."""
    path = str(lb.directory / "s")
    lb.file["lbcore"].update(workers=3, hang_timeout="2s")
    lb.file["listener"][0]["bind"] = f"unix:{path}"
    lb.write()
    lb.start()
    return path


@pytest.fixture
def talk(path: str) -> Iterator[Talk]:
    """A load."""
    with Talk(path) as talk:
        talk.wait_for(20)
        yield talk


def accepted(lb: Instance) -> dict[int, int]:
    return {w["pid"]: w["accepted"] for w in lb.serving()}


def test_every_worker_takes_connections_from_the_shared_queue(lb: Instance, talk: Talk) -> None:
    until(lambda: all(accepted(lb).values()), "every worker has taken one")
    talk.expect_no_failure()


def test_worker_that_stands_still_keeps_nobody_waiting_in_the_shared_queue(
    lb: Instance, path: str,
) -> None:
    """Wake-ups go to workers that sleep in epoll, and one that stands still does not."""
    victims = [w["pid"] for w in lb.serving()][:2]
    for victim in victims:
        os.kill(victim, signal.SIGSTOP)
    with Talk(path) as talk:
        talk.wait_for(200)
        until(lambda: len(lb.events("worker.died")) == 2, "both were replaced")
        lb.wait_serving(3, but=victims)
        talk.wait_for(50)
    talk.expect_no_failure()


def test_killed_worker_loses_only_what_it_had_taken(lb: Instance, path: str) -> None:
    class Unix(LongLived):
        """Long-lived connections to the unix socket."""

        def open(self, count: int) -> list[socket.socket]:
            fresh = []
            for _ in range(count):
                sock = socket.socket(socket.AF_UNIX)
                sock.settimeout(60)
                sock.connect(path)
                fresh.append(sock)
            self.socks += fresh
            assert self.ask(fresh) == []
            return fresh

    with Unix(("", 0)) as clients:
        clients.open(60)
        on = {w["pid"]: w["connections"] for w in lb.serving()}
        victim = max(on, key=lambda pid: on[pid])
        os.kill(victim, signal.SIGKILL)
        lb.wait_for("worker.died", pid=victim)
        assert len(clients.ask()) == on[victim]
        clients.open(10)


def test_changes_of_workers_upgrades_and_a_lost_supervisor_fail_nobody(
    lb: Instance, talk: Talk,
) -> None:
    for _ in range(times(5, 1)):
        for count in (1, 4, 3):
            lb.admin.workers(count)
            lb.wait_serving(count)
        old = [w["pid"] for w in lb.serving()]
        lb.admin.upgrade()
        old += [w["pid"] for w in lb.wait_serving(3, but=old)]
        lb.kill_supervisor()
        talk.wait_for(100)
        lb.start()
        lb.wait_serving(3, but=old)
    talk.wait_for(100)
    talk.expect_no_failure()
