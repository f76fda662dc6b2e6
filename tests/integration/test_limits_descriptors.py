"""Descriptor exhaustion: accepting pauses and resumes, and whoever is there already is served."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator

import pytest

from lbcore._scoreboard import BackendState
from tests.support.http_lab import HttpLab, blob, http_lab, reply, request
from tests.support.relay_lab import PATIENCE, Lab, block, close_all, pool, read_exactly, until

LIMIT = 200


@pytest.fixture
def lab() -> Iterator[Lab]:
    """A worker with few descriptors."""
    with Lab(limit=LIMIT) as lab:
        yield lab


def logged(lab: Lab, count: int = 0) -> list[str]:
    """Events that the worker sends for the log: the next so many, or those there are already."""
    events: list[str] = []
    lab.worker.control.settimeout(PATIENCE if count else 0)
    with contextlib.suppress(BlockingIOError):
        while not count or len(events) < count:
            message = lab.worker.receive()
            assert message["op"] == "log"
            events.append(message["event"])
    lab.worker.control.settimeout(PATIENCE)
    return events


def ask(client: socket.socket) -> None:
    client.sendall(b"still there?")
    assert read_exactly(client, 12) == b"still there?"


def test_accepting_pauses_without_descriptors_and_everybody_is_served_in_the_end(lab: Lab) -> None:
    lab.serve(pool(lab.echo()))
    clients = [lab.connect() for _ in range(150)]
    until(lambda: lab.seat["accept_pauses"] > 0)
    accepted = lab.seat["connections"]
    assert 40 < accepted < 90
    assert lab.descriptors() < LIMIT
    for client in clients[:20]:
        ask(client)
    while clients:
        ask(clients[0])
        clients.pop(0).close()
    lab.expect_ended(normal=150)
    lab.expect_nothing_held()
    assert logged(lab, 2) == ["accept_paused", "accept_resumed"]


def test_connections_queued_without_descriptors_survive_when_their_socket_goes(lab: Lab) -> None:
    echo = lab.echo()
    first = lab.listen()
    second = lab.listen()
    lab.apply(pool(echo))
    clients = [lab.connect(b"%03d" % number, listener=second) for number in range(150)]
    until(lambda: lab.seat["accept_pauses"] > 0)
    image = lab.worker.image(lab.listeners, [pool(echo)])
    lab.worker.send({"op": "plan", "id": 9, "version": 9,
                     "sockets": [[lab.numbers[first], 0]]}, [image])
    os.close(image)
    while (message := lab.worker.receive())["op"] == "log":
        pass
    assert message["op"] == "applied"
    lab.worker.sockets.pop(lab.numbers[second]).close()
    for number, client in enumerate(clients):
        assert read_exactly(client, 3) == b"%03d" % number
        client.close()
    until(lambda: lab.seat["connections"] == 0)
    with pytest.raises(ConnectionRefusedError):
        lab.connect(listener=second)


def test_exhaustion_is_said_once_however_often_places_come_and_go(lab: Lab) -> None:
    lab.serve(pool(lab.echo()))
    clients = [lab.connect() for _ in range(150)]
    until(lambda: lab.seat["accept_pauses"] > 0)
    for _ in range(60):
        ask(clients[0])
        clients.pop(0).close()
        clients.append(lab.connect())
    assert lab.seat["accept_pauses"] > 20
    assert logged(lab) == ["accept_paused"]
    close_all(clients)
    assert logged(lab, 1) == ["accept_resumed"]
    assert logged(lab) == []


def test_a_worker_without_descriptors_is_not_busy(lab: Lab) -> None:
    lab.serve(pool(lab.echo()))
    clients = [lab.connect() for _ in range(150)]
    until(lambda: lab.seat["accept_pauses"] > 0)
    spent, turns, pauses = lab.cpu_seconds(), lab.seat["turns"], lab.seat["accept_pauses"]
    until(lambda: lab.seat["accept_pauses"] >= pauses + 5)
    assert lab.cpu_seconds() - spent < 0.1
    assert lab.seat["turns"] - turns < 40
    close_all(clients)


def test_connections_that_wait_for_a_backend_find_a_descriptor_for_it(lab: Lab) -> None:
    """Each of them will need a second one: that counts from the start."""
    echo = lab.echo()
    lab.serve(pool(echo))
    lab.pretend(0, BackendState.STATE_DOWN)
    clients = [lab.connect() for _ in range(150)]
    until(lambda: lab.seat["accept_pauses"] > 0)
    lab.pretend(0, BackendState.STATE_UP)
    for client in clients:
        ask(client)
        client.close()
    lab.expect_ended(normal=150)


def test_pipes_leave_descriptors_for_connections(lab: Lab) -> None:
    """Streams take pipes after their connections were accepted."""
    origin = lab.origin()
    echo = lab.echo()
    lab.listen()
    lab.listen(pool=1)
    lab.apply(pool(origin), pool(echo, name="echo", queue_timeout_ms=600_000))
    lab.pretend(1, BackendState.STATE_DOWN)
    pairs = lab.links(origin, 33)
    waiting = [lab.connect(listener=1) for _ in range(32)]
    until(lambda: lab.board.pool(1)["waiting"] == 32)
    for _, server in pairs:
        block(lab, server, chunk=1 << 17)
    assert lab.seat["pipes"] > 0
    lab.pretend(1, BackendState.STATE_UP)
    for client in waiting:
        ask(client)
    assert lab.ended(1) == {}


def test_pipes_that_nobody_uses_make_room_for_connections(lab: Lab) -> None:
    origin = lab.origin()
    echo = lab.echo()
    lab.listen()
    lab.listen(pool=1)
    lab.apply(pool(origin), pool(echo, name="echo"))
    pairs = lab.links(origin, 30)
    held = [block(lab, server, chunk=1 << 17) for _, server in pairs]
    assert lab.seat["pipes"] == 30
    for (client, _), length in zip(pairs, held, strict=True):
        read_exactly(client, length)
    close_all([end for pair in pairs for end in pair])
    lab.expect_nothing_held((0, 1))
    assert lab.descriptors() > 60       # pipes are kept for the next stream
    clients = [lab.connect(listener=1) for _ in range(60)]
    for client in clients:
        ask(client)
    assert lab.seat["connections"] == 60
    assert lab.seat["accept_pauses"] == 0


def test_descriptors_do_not_leak(lab: Lab) -> None:
    echo = lab.echo()
    lab.serve(pool(lab.refusing(), echo, lab.refusing_unix()))
    ask(lab.connect())
    before = lab.descriptors()
    for number in range(400):
        client = lab.connect(b"x" * (number % 3))
        if number % 2:
            ask_after = number % 3
            assert read_exactly(client, ask_after) == b"x" * ask_after
        client.close()
        if number % 40 == 0:
            lab.apply(pool(lab.refusing(), echo, lab.refusing_unix()))
    until(lambda: lab.seat["connections"] == 1)
    assert lab.descriptors() == before


def files_of(web: HttpLab) -> int:
    """Files without a name that the worker has opened since it was empty."""
    return sum(name.endswith(" (deleted)") for name in web.held() - web.empty)


def test_files_of_bodies_count_and_who_comes_later_waits_rather_than_failing_another() -> None:
    """A third descriptor of a request, or accepting goes on until a backend cannot be reached."""
    body = blob(100_000)            # more than is read at once, with the head
    sent = request("POST / HTTP/1.1", body=body)
    with http_lab(limit=LIMIT) as web:
        origin = web.origin()
        web.web(pool(origin), route={"request_memory": 0})
        clients = []
        while not web.seat["accept_pauses"]:
            clients.append(web.client(sent[:-1]))
            until(lambda: web.seat["accept_pauses"] or files_of(web) == len(clients))
        accepted = web.seat["connections"]      # the last one may have been, or may wait
        clients += [web.client(sent[:-1]) for _ in range(10)]
        clients, late = clients[:accepted], clients[accepted:]
        assert len(clients) > 40
        for client in clients:
            client.say(sent[-1:])
        servers = [web.take(origin) for _ in clients]
        for server in servers:
            assert server.request().body == body
        assert web.descriptors() < LIMIT
        for server in servers:
            server.say(reply(b"x", "Connection: close"))
        for client in clients:
            assert client.answer().body == b"x"
            client.close()
        for client in late:
            client.say(sent[-1:])
            server = web.take(origin)
            assert server.request().body == body
            server.say(reply(b"x", "Connection: close"))
            assert client.answer().body == b"x"
        web.expect_http(ok=len(clients) + len(late))
        assert logged(web, 2) == ["accept_paused", "accept_resumed"]
