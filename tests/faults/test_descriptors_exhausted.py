"""Descriptors run out: accepting pauses, what is established goes on, nobody is refused."""

from __future__ import annotations

import resource
import select
import socket
import time
from pathlib import Path

import pytest

from tests.support.instance import Instance
from tests.support.load import Load, LongLived

LIMIT = 300
TICKS = 100          # of /proc/PID/stat, a second


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


@pytest.fixture
def poor(lb: Instance) -> Instance:
    """A running instance whose worker can hold some hundred connections."""
    lb.write()
    lb.start(descriptors=LIMIT)
    limits = Path(f"/proc/{lb.serving()[0]['pid']}/limits").read_text()
    assert f"Max open files            {LIMIT} " in limits
    return lb


def open_all(lb: Instance, count: int) -> tuple[list[socket.socket], list[socket.socket]]:
    """Connects so many clients that speak at once: those that are served, and those that wait."""
    clients = [socket.create_connection(lb.address, 30) for _ in range(count)]
    for client in clients:
        client.sendall(b"hello")
    assert "higher limit" in lb.wait_for("accept_paused")["message"]
    served: list[socket.socket] = []
    for client in clients:                   # they are served in order
        while not select.select([client], [], [], 0.1)[0]:
            if len(served) == lb.serving()[0]["connections"]:
                return served, clients[len(served):]
        assert client.recv(5, socket.MSG_WAITALL) == b"hello"
        served.append(client)
    return served, []


def test_more_connections_than_descriptors_wait_and_are_served_when_others_end(
    poor: Instance,
) -> None:
    pid = poor.serving()[0]["pid"]
    served, waiting = open_all(poor, 250)
    try:
        assert len(served) >= 90 and len(waiting) >= 90
        used, since = cpu_seconds(pid), time.monotonic()
        time.sleep(1.0)                      # a second of standing still is what is measured
        assert (cpu_seconds(pid) - used) / (time.monotonic() - since) < 0.1, "a busy loop"
        for client in served:                # those that are there notice nothing
            client.sendall(b"still here")
            assert client.recv(10, socket.MSG_WAITALL) == b"still here"
        while waiting:
            served.pop(0).close()
            client = waiting.pop(0)
            assert client.recv(5, socket.MSG_WAITALL) == b"hello"
            served.append(client)
        for client in served:
            client.close()
        served.clear()
        with LongLived(poor.address) as clients:
            clients.open(50)
        poor.wait_for("accept_resumed")
        assert len(poor.events("accept_paused")) < 10       # said when it begins, not each time
    finally:
        for client in served + waiting:
            client.close()


def test_load_beyond_the_descriptors_fails_no_connection(poor: Instance) -> None:
    """400 a second that stay half a second each need twice the connections that fit."""
    with Load(poor.address, hold=0.5) as load:
        poor.wait_for("accept_paused")
        load.wait_for(400)
        load.expect_no_failure()
    poor.wait_for("accept_resumed")
    with LongLived(poor.address) as clients:
        clients.open(50)


def test_limit_that_shrinks_under_a_running_worker_loses_no_established_connection(
    lb: Instance,
) -> None:
    """The kernel then says so itself, with EMFILE, before the worker's own count does."""
    lb.write()
    lb.start()
    pid = lb.serving()[0]["pid"]
    with LongLived(lb.address) as clients:
        clients.open(50)
        soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (60, hard))
        late = [socket.create_connection(lb.address, 30) for _ in range(20)]
        lb.wait_for("accept_paused")
        assert clients.ask() == []
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
        for client in late:
            with client:
                client.sendall(b"hello")
                assert client.recv(5, socket.MSG_WAITALL) == b"hello"
        lb.wait_for("accept_resumed")
