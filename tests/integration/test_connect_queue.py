"""Connections wait for a backend when all are full or none is up: in order, and not for ever."""

from __future__ import annotations

import socket
import time

import pytest

from lbcore._scoreboard import BackendState
from lbcore.config.plan import PoolPlan
from tests.support.relay_lab import (
    Lab,
    Origin,
    close_all,
    ending,
    is_quiet,
    member,
    pool,
    read_exactly,
    reset,
    until,
)


def narrow(origin: Origin, most: int = 1, **options: object) -> PoolPlan:
    """A pool of one backend that takes few connections."""
    return pool(member(origin, max_connections=most), **options)


def waiting(lab: Lab) -> int:
    """Connections in the queue."""
    count: int = lab.board.pool(0)["waiting"]
    return count


def let_go(origin: Origin) -> None:
    """Closes what has reached a backend."""
    while not origin.nobody_came(0):
        origin.accept().close()


def until_waiting(lab: Lab, count: int) -> None:
    until(lambda: waiting(lab) == count)


def test_connections_beyond_a_backends_limit_wait_and_are_served_in_order(lab: Lab) -> None:
    origin = lab.origin()
    lab.serve(narrow(origin))
    client, server = lab.link(origin)
    clients = []
    for number in range(10):
        clients.append(lab.connect(b"%02d" % number))
        until_waiting(lab, number + 1)
    assert origin.nobody_came(0.05)
    assert lab.backend()["inflight"] == 1
    for number in range(10):
        client.close()
        server.close()
        server = origin.accept()
        assert read_exactly(server, 2) == b"%02d" % number
        assert lab.backend()["inflight"] == 1
        client = clients[number]
    client.close()
    server.close()
    lab.expect_ended(normal=11)
    assert lab.board.pool_totals(0)["queued"] == 10
    lab.expect_nothing_held()


def test_newcomers_do_not_overtake_who_waits(lab: Lab) -> None:
    """A place and newcomers arrive in the same turn: the place is for who waited."""
    origin = lab.origin()
    lab.serve(narrow(origin))
    for _ in range(5):
        client, server = lab.link(origin)
        patient = lab.connect(b"patient")
        until_waiting(lab, 1)
        with lab.asleep():
            reset(client)
            late = [lab.connect(b"late") for _ in range(5)]
        assert read_exactly(origin.accept(), 7) == b"patient"
        close_all([server, patient, *late])
        until(lambda: let_go(origin) or lab.seat["connections"] == 0)


def test_waiting_ends_with_the_queue_timeout(lab: Lab) -> None:
    origin = lab.origin()
    lab.serve(narrow(origin, queue_timeout_ms=150))
    lab.link(origin)
    start = time.monotonic()
    assert lab.turned_away(b"hello")
    assert time.monotonic() - start > 0.1
    lab.expect_ended(queue_timeout=1)
    assert waiting(lab) == 0


def test_a_full_queue_turns_away_at_once(lab: Lab) -> None:
    origin = lab.origin()
    lab.serve(narrow(origin, max_queue=3))
    lab.link(origin)
    clients = [lab.connect() for _ in range(3)]
    until_waiting(lab, 3)
    assert lab.turned_away()
    lab.expect_ended(queue_full=1)
    reset(clients[1])       # its place in the middle of the queue is free again
    until_waiting(lab, 2)
    lab.connect()
    until_waiting(lab, 3)
    lab.expect_ended(queue_full=1, client_gone=1)


def test_a_pool_that_has_no_queue_turns_away_at_once(lab: Lab) -> None:
    origin = lab.origin()
    lab.serve(narrow(origin, max_queue=0))
    lab.link(origin)
    assert lab.turned_away()
    lab.expect_ended(queue_full=1)


def test_clients_that_leave_the_queue_leave_nothing_behind(lab: Lab) -> None:
    origin = lab.origin()
    lab.serve(narrow(origin))
    client, server = lab.link(origin)
    queued = [lab.connect(b"%02d" % number) for number in range(9)]
    until_waiting(lab, 9)
    for number in (0, 8, 4, 3, 5, 1):       # first, last, neighbours
        reset(queued[number])
    until_waiting(lab, 3)
    client.close()
    server.close()
    for number in (2, 6, 7):
        server = origin.accept()
        assert read_exactly(server, 2) == b"%02d" % number
        queued[number].close()
        assert ending(server) == "eof"
        server.close()
    lab.expect_nothing_held()


def test_who_waits_for_a_backend_to_come_up_is_served_when_it_does(lab: Lab) -> None:
    origin = lab.origin()
    lab.serve(pool(origin))
    lab.pretend(0, BackendState.STATE_DOWN)
    clients = [lab.connect(b"%02d" % number) for number in range(5)]
    until_waiting(lab, 5)
    assert origin.nobody_came(0.05)
    lab.pretend(0, BackendState.STATE_UP)
    for number in range(5):
        server = origin.accept()
        assert read_exactly(server, 2) == b"%02d" % number
        server.close()
    close_all(clients)
    lab.expect_ended(normal=5)


def test_server_that_speaks_first_is_heard_by_who_waited(lab: Lab) -> None:
    origin = lab.origin()
    lab.serve(narrow(origin))
    client, server = lab.link(origin)
    waiter = lab.connect()
    until_waiting(lab, 1)
    reset(client)
    other = origin.accept()
    other.sendall(b"welcome")
    assert read_exactly(waiter, 7) == b"welcome"
    server.close()


@pytest.mark.parametrize("data", [b"", b"hello"])
@pytest.mark.parametrize("how", ["refusing", "refusing_unix", "blackhole"])
def test_a_dead_backend_beside_a_full_one_does_not_keep_the_worker_busy(
        lab: Lab, how: str, data: bytes) -> None:
    """One backend fails at once, the other is full: who tried the first waits for the second."""
    origin, echo = lab.origin(), lab.echo()
    lab.listen()
    lab.listen(pool=1)
    dead = getattr(lab, how)()
    lab.apply(pool(dead, member(origin, max_connections=1), connect_timeout_ms=50),
              pool(echo, name="echo"))
    client, server = lab.link(origin)
    waiter = lab.connect(data)
    until_waiting(lab, 1)
    spent = lab.cpu_seconds()
    tried = lab.backend(0)
    assert is_quiet(waiter, 0.3)
    assert lab.cpu_seconds() - spent < 0.15
    after = lab.backend(0)
    assert after["refused"] + after["timeouts"] - tried["refused"] - tried["timeouts"] <= 2
    other = lab.connect(b"still there?", listener=1)
    assert read_exactly(other, 12) == b"still there?"
    reset(client)
    server.close()
    late = origin.accept()
    waiter.sendall(b" world")
    assert read_exactly(late, len(data) + 6) == data + b" world"


def test_waiting_for_a_full_backend_beside_a_dead_one_is_bounded(lab: Lab) -> None:
    origin = lab.origin()
    lab.serve(pool(lab.refusing(), member(origin, max_connections=1),
                   queue_timeout_ms=150, connect_attempts=3))
    lab.link(origin)
    assert lab.turned_away(b"hello")
    until(lambda: sum(lab.ended().values()) == 1)
    assert waiting(lab) == 0


def test_who_waits_under_an_old_plan_does_not_hold_up_who_waits_under_the_new_one(
        lab: Lab) -> None:
    old, new = lab.origin(), lab.origin()
    lab.serve(narrow(old))
    lab.link(old)
    first = lab.connect(b"old")
    until_waiting(lab, 1)
    lab.pretend(0, BackendState.STATE_GONE)
    lab.apply(pool(member(old, weight=0), member(new, max_connections=1)))
    lab.board.set_backend(0, BackendState.STATE_GONE, 0)
    client, server = lab.link(new)
    second = lab.connect(b"new")
    until_waiting(lab, 2)
    reset(client)
    server.close()
    assert read_exactly(new.accept(), 3) == b"new"
    close_all([first, second])


def test_queues_of_several_pools_do_not_hold_up_each_other(lab: Lab) -> None:
    origins = [lab.origin() for _ in range(3)]
    for index in range(3):
        lab.listen(pool=index)
    lab.apply(*[pool(member(origin, max_connections=1), name=f"pool {index}")
                for index, origin in enumerate(origins)])
    first = [(lab.connect(listener=i), lab.keep(origins[i].accept())) for i in range(3)]
    queued = [lab.connect(b"%d" % i, listener=i) for i in range(3)]
    until(lambda: sum(lab.board.pool(i)["waiting"] for i in range(3)) == 3)
    for i in (1, 0, 2):
        first[i][0].close()
        first[i][1].close()
        assert read_exactly(lab.keep(origins[i].accept()), 1) == b"%d" % i
    close_all(queued)


def test_half_closed_client_in_the_queue_gets_its_answer(lab: Lab) -> None:
    origin = lab.origin()
    lab.serve(narrow(origin))
    client, server = lab.link(origin)
    waiter = lab.connect(b"question")
    waiter.shutdown(socket.SHUT_WR)
    until_waiting(lab, 1)
    client.close()
    server.close()
    server = origin.accept()
    assert read_exactly(server, 8) == b"question"
    assert ending(server) == "eof"
    server.sendall(b"answer")
    server.close()
    assert read_exactly(waiter, 6) == b"answer"
    assert ending(waiter) == "eof"
    lab.expect_ended(normal=2)
