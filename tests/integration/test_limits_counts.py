"""Limits of connections: nobody is over them, nobody is turned away who only has to wait."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.relay_lab import (
    Lab,
    Origin,
    close_all,
    ending,
    member,
    pool,
    read_exactly,
    reset,
    until,
)


def accept_all(origin: Origin, count: int) -> list[socket.socket]:
    """So many connections, and no more."""
    servers = [origin.accept() for _ in range(count)]
    assert origin.nobody_came()
    return servers


@pytest.fixture
def second(lab: Lab) -> Iterator[Lab]:
    """Another worker on the same scoreboard."""
    with Lab(beside=lab) as second:
        yield second


# ---- of a listener -------------------------------------------------------------------------------

def test_a_listener_at_its_limit_pauses_and_refuses_nobody(lab: Lab) -> None:
    origin = lab.origin()
    lab.serve(pool(origin), max_connections=3)
    clients = [lab.connect(b"%02d" % number) for number in range(10)]
    servers = accept_all(origin, 3)
    assert lab.board.listener_totals(0)["connections"] == 3
    until(lambda: lab.board.listener_totals(0)["paused"] > 0)
    for number in range(10):
        server = servers.pop(0)
        assert read_exactly(server, 2) == b"%02d" % number
        clients[number].close()
        server.close()
        if number < 7:
            servers.append(origin.accept())
            assert lab.board.listener_totals(0)["connections"] <= 3
    lab.expect_ended(normal=10)
    lab.expect_nothing_held()


def test_a_listener_at_its_limit_does_not_keep_the_worker_busy(lab: Lab) -> None:
    origin = lab.origin()
    lab.serve(pool(origin), max_connections=1)
    lab.link(origin)
    lab.connect()
    spent, turns = lab.cpu_seconds(), lab.seat["turns"]
    assert origin.nobody_came(0.5)
    assert lab.cpu_seconds() - spent < 0.1
    assert lab.seat["turns"] - turns < 100


def test_a_limit_that_a_reload_raises_is_used_at_once(lab: Lab) -> None:
    origin = lab.origin()
    lab.serve(pool(origin), max_connections=1)
    lab.link(origin)
    lab.connect(b"hello")
    assert origin.nobody_came()
    lab.listeners[0] = replace(lab.listeners[0], max_connections=2)
    lab.apply(pool(origin))
    assert read_exactly(origin.accept(), 5) == b"hello"


def test_connections_queued_at_the_limit_survive_when_their_socket_goes(lab: Lab) -> None:
    """They were promised a connection and have nowhere else to go: the limit yields."""
    echo = lab.echo()
    first = lab.listen()
    second = lab.listen(max_connections=2)
    lab.apply(pool(echo))
    clients = [lab.connect(b"%02d" % number, listener=second) for number in range(30)]
    until(lambda: lab.board.listener_totals(1)["paused"] > 0)
    answer = lab.worker.apply(lab.listeners, [pool(echo)], [(lab.numbers[first], 0)])
    assert answer["op"] == "applied"
    lab.worker.sockets.pop(lab.numbers[second]).close()
    for number, client in enumerate(clients):
        assert read_exactly(client, 2) == b"%02d" % number


def test_more_than_a_turn_can_take_survive_when_a_worker_drains(lab: Lab) -> None:
    lab.serve(pool(lab.echo()), max_connections=1)
    clients = [lab.connect(b"%04d" % number) for number in range(700)]
    until(lambda: lab.board.listener_totals(0)["paused"] > 0)
    lab.worker.sockets.pop(lab.numbers[0]).close()
    lab.worker.send({"op": "drain", "timeout_ms": 10_000, "sweep": True})
    for number, client in enumerate(clients):
        assert read_exactly(client, 4) == b"%04d" % number
    close_all(clients)
    assert lab.worker.wait_for_exit() == 0


def test_workers_share_the_limit_of_a_listener(lab: Lab, second: Lab) -> None:
    origin = lab.origin()
    for one in (lab, second):
        one.serve(pool(origin), max_connections=5)
    clients = [one.connect(b"hello") for _ in range(6) for one in (lab, second)]
    servers = accept_all(origin, 5)
    while clients:
        for client in clients:
            client.settimeout(0)
        server = servers.pop(0)
        assert read_exactly(server, 5) == b"hello"
        server.sendall(b"done")
        server.close()
        served: list[socket.socket] = until(lambda: [c for c in clients if _answered(c)])
        for client in served:
            client.close()
            clients.remove(client)
        if len(clients) >= 5:
            servers.append(origin.accept())
        assert lab.board.listener_totals(0)["connections"] <= 5
    until(lambda: lab.board.listener_totals(0)["connections"] == 0)


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace to stretch a moment")
def test_workers_that_accept_at_the_same_moment_stay_below_the_limit_of_a_listener(
        lab: Lab, second: Lab) -> None:
    """Each call of accept takes long enough here for the other worker to look at the count."""
    origin = lab.origin()
    for one in (lab, second):
        one.serve(pool(origin), max_connections=5)
    with slow_accept(lab), slow_accept(second):
        clients = [one.connect() for _ in range(5) for one in (lab, second)]
        servers = [origin.accept() for _ in range(5)]
        assert origin.nobody_came(0.2)
    assert lab.board.listener_totals(0)["connections"] == 5
    close_all(servers + clients)


@contextlib.contextmanager
def slow_accept(lab: Lab) -> Iterator[None]:
    """Delays a worker's accept by 20 ms."""
    pid = lab.worker.process.pid
    with subprocess.Popen(["strace", "-qq", "-o", os.devnull, "-p", str(pid), "-e", "accept4",
                           "-e", "inject=accept4:delay_enter=20000"]) as strace:
        until(lambda: "TracerPid:\t0\n" not in Path(f"/proc/{pid}/status").read_text())
        try:
            yield
        finally:
            strace.terminate()


def _answered(client: socket.socket) -> bool:
    try:
        return client.recv(4) == b"done"
    except BlockingIOError:
        return False


# ---- of a backend --------------------------------------------------------------------------------

def test_workers_share_the_limit_of_a_backend(lab: Lab, second: Lab) -> None:
    origin = lab.origin()
    for one in (lab, second):
        one.serve(pool(member(origin, max_connections=4)))
    clients = [one.connect() for _ in range(5) for one in (lab, second)]
    servers = accept_all(origin, 4)
    assert lab.board.inflight(0) == 4
    until(lambda: lab.board.pool(0)["waiting"] == 6)
    for _ in range(6):      # a place freed by one worker is found by the other
        servers.pop(0).close()
        for client in clients:
            client.settimeout(0)
        gone: list[socket.socket] = until(lambda: [c for c in clients if _closed(c)])
        for client in gone:
            client.close()
            clients.remove(client)
        servers.append(origin.accept())
        assert lab.board.inflight(0) <= 4
    close_all(servers + clients)
    until(lambda: lab.board.inflight(0) == 0)
    assert lab.board.reconcile(4, 4, 4) == []


def _closed(client: socket.socket) -> bool:
    with contextlib.suppress(BlockingIOError):
        return client.recv(1) == b""
    return False


# ---- of a source ---------------------------------------------------------------------------------

def test_a_source_at_its_limit_is_reset_and_others_are_served(lab: Lab) -> None:
    origin = lab.origin()
    lab.serve(pool(origin), max_connections_per_source=2)
    mine = [(lab.connect(source="127.0.0.5"), origin.accept()) for _ in range(2)]
    for _ in range(3):
        assert lab.turned_away(source="127.0.0.5")
    assert origin.nobody_came(0)
    for _ in range(2):
        lab.connect(source="127.0.0.6")
        lab.keep(origin.accept())
    lab.expect_ended(source_limit=3)
    client, server = mine[0]
    client.close()
    server.close()
    until(lambda: lab.seat["connections"] == 3)
    mine.append((lab.connect(source="127.0.0.5"), origin.accept()))
    assert lab.turned_away(source="127.0.0.5")


@pytest.mark.parametrize("how", ["closed", "reset", "failed"])
def test_a_source_gets_its_place_back_however_its_connection_ended(lab: Lab, how: str) -> None:
    origin = lab.origin()
    lab.serve(pool(lab.refusing() if how == "failed" else origin, connect_attempts=1),
              max_connections_per_source=1)
    for _ in range(20):
        if how == "failed":
            assert lab.turned_away()
        else:
            client, server = lab.link(origin)
            if how == "reset":
                reset(server)
                assert ending(client) == "reset"
            else:
                server.close()
                client.close()
        until(lambda: lab.seat["connections"] == 0)
    assert "source_limit" not in lab.ended()


def test_workers_share_the_limit_of_a_source(lab: Lab, second: Lab) -> None:
    origin = lab.origin()
    for one in (lab, second):
        one.serve(pool(origin), max_connections_per_source=3)
    held = [lab.link(origin), second.link(origin), lab.link(origin)]
    assert lab.turned_away()
    assert second.turned_away()
    for end in held[0]:
        end.close()
    until(lambda: lab.board.listener_totals(0)["connections"] == 2)
    second.link(origin)
    assert lab.turned_away()


def test_source_limit_counts_who_a_trusted_proxy_speaks_for(lab: Lab) -> None:
    origin = lab.origin()
    lab.serve(pool(origin), proxy_protocol=True, max_connections_per_source=1)
    for number in range(3):
        lab.connect(b"PROXY TCP4 192.0.2.%d 192.0.2.99 1 2\r\n" % number)
        lab.keep(origin.accept())
    assert lab.turned_away(b"PROXY TCP4 192.0.2.1 192.0.2.99 1 2\r\n")
    lab.expect_ended(source_limit=1)


def test_sources_over_ipv6_are_limited_too(lab: Lab) -> None:
    origin = lab.origin()
    lab.serve(pool(origin), kind="tcp6", max_connections_per_source=1)
    lab.link(origin)
    assert lab.turned_away()


def test_sources_are_counted_for_each_listener_alone(lab: Lab) -> None:
    origin = lab.origin()
    lab.listen(max_connections_per_source=100)
    lab.listen(max_connections_per_source=1)
    lab.apply(pool(origin))
    held = [lab.connect(listener=0) for _ in range(5)]
    accept_all(origin, 5)
    held.append(lab.connect(b"first", listener=1))
    assert read_exactly(origin.accept(), 5) == b"first"
    assert lab.turned_away(listener=1)
    close_all(held)
