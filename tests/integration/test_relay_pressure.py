"""Back-pressure, and clients that would take the worker away from others."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import time
from pathlib import Path

import pytest

from tests.support.relay_lab import (
    Echo,
    Lab,
    block,
    close_all,
    exchange,
    fill,
    pool,
    read_exactly,
    read_to_end,
    reset,
    until,
)

MIB = 1 << 20


def ask(lab: Lab, client: socket.socket) -> float:
    """Seconds that an echo takes."""
    question = os.urandom(32)
    start = time.perf_counter()
    client.sendall(question)
    assert read_exactly(client, 32) == question
    return time.perf_counter() - start


def usually(times: list[float]) -> float:
    """What a quarter of them stay below: what the worker itself costs is in all of them, what a
    busy machine adds is not."""
    return sorted(times)[len(times) // 4]


def test_a_client_that_never_reads_stops_the_server_and_costs_bounded_memory(lab: Lab) -> None:
    origin = lab.origin()
    lab.serve(pool(origin))
    pairs = lab.links(origin, 4)
    before = lab.resident()
    for _, server in pairs:
        until(lambda end=server: fill(end) == 0)        # it is full, and stays so
    assert lab.seat["buffers"] + lab.seat["pipes"] <= len(pairs)
    assert lab.resident() - before < len(pairs) * 128 * 1024 + MIB


def test_a_stream_held_back_goes_on_when_the_client_reads(lab: Lab) -> None:
    origin = lab.origin()
    lab.serve(pool(origin))
    for max_pipes in (64, 0):
        lab.worker.max_pipes = max_pipes
        lab.apply(pool(origin))
        client, server = lab.link(origin)
        held = block(lab, server)
        rng = random.Random(held)
        for _ in range(20):             # full, read a little, full again
            length = rng.randrange(1, 200_000)
            server.sendall(bytes(length))
            held += length
            part = rng.randrange(1, min(held, 300_000))
            read_exactly(client, part)
            held -= part
        read_exactly(client, held)
        until(lambda: lab.seat["buffers"] + lab.seat["pipes"] == 0)
        data = rng.randbytes(MIB)
        exchange(client, server, data, data, rng)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_streams_beyond_what_pipes_a_user_may_have_are_copied() -> None:
    """Beyond its share (fs.pipe-user-pages-soft) a user's pipes hold two pages: worse than none."""
    allowed = int(Path("/proc/sys/fs/pipe-user-pages-soft").read_text()) * 4096 // MIB
    if not 0 < allowed < 200:
        pytest.skip(f"a user may have {allowed} pipes of 1 MiB here")
    with Lab(uid=64_123) as lab:
        lab.directory.chmod(0o755)
        lab.worker.max_pipes = 1000
        origin = lab.origin("unix")
        Path(origin.address.path).chmod(0o666)
        lab.serve(pool(origin), kind="unix")
        pairs = lab.links(origin, allowed + 10)

        def all_blocked() -> bool:
            for _, server in pairs:
                server.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    server.send(bytes(MIB))
            return lab.seat["pipes"] + lab.seat["buffers"] == len(pairs)
        until(all_blocked)
        assert 0 < lab.seat["pipes"] <= allowed
        for client, server in pairs:
            server.shutdown(socket.SHUT_WR)
            assert set(read_to_end(client)[0]) == {0}


def test_bytes_held_back_are_delivered_after_the_server_closed(lab: Lab) -> None:
    origin = lab.origin()
    lab.serve(pool(origin))
    client, server = lab.link(origin)
    held = block(lab, server)
    server.sendall(b"last words")
    server.close()
    lab.let_turn()
    assert read_exactly(client, held + 10).endswith(b"last words")
    assert client.recv(1) == b""
    client.close()
    lab.expect_ended(normal=1)
    lab.expect_nothing_held()


def test_clients_that_never_read_do_not_slow_others_down(lab: Lab) -> None:
    origin = lab.origin()
    echo = lab.echo()
    lab.listen()
    lab.listen(pool=1)
    lab.apply(pool(origin), pool(echo, name="echo"))
    for _, server in lab.links(origin, 10):
        fill(server, 8 * MIB)
    client = lab.connect(listener=1)
    ask(lab, client)
    spent, turns, began = lab.cpu_seconds(), lab.seat["turns"], time.monotonic()
    times = [ask(lab, client) for _ in range(300)]
    # Each is there and back: two turns. Those who do not read wake nobody.
    assert lab.seat["turns"] - turns < 2.5 * 300 + 2 * (time.monotonic() - began)
    assert usually(times) < 0.05
    assert lab.cpu_seconds() - spent < 1


def test_a_busy_stream_does_not_hold_up_messages(lab: Lab) -> None:
    """A worker moves a bounded amount for one connection before others get their turn."""
    origin = lab.origin()
    echo = lab.echo()
    lab.listen()
    lab.listen(pool=1)
    lab.apply(pool(origin), pool(echo, name="echo"))
    client, server = lab.link(origin)
    messages = lab.connect(listener=1)
    data = bytes(4 * MIB)
    times = []
    for _ in range(10):
        with lab.asleep():
            for end in (client, server):
                end.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    end.send(data)
        times.append(ask(lab, messages))
        for end in (client, server):
            with contextlib.suppress(BlockingIOError):
                while end.recv(MIB):
                    pass
    assert usually(times) < 0.1


def test_two_thousand_idle_connections_go_unnoticed(lab: Lab) -> None:
    echo = lab.echo()
    lab.serve(pool(echo))
    before = lab.resident()
    idle = [lab.connect() for _ in range(2000)]
    until(lambda: lab.backend()["connections"] == 2000)
    lab.let_turn()
    assert lab.resident() - before < 4 * MIB
    assert (lab.seat["buffers"], lab.seat["pipes"]) == (0, 0)
    client = lab.connect()
    assert usually([ask(lab, client) for _ in range(200)]) < 0.05
    close_all(idle)
    client.close()
    lab.expect_ended(normal=2001)
    lab.expect_nothing_held()


def test_an_idle_worker_sleeps(lab: Lab) -> None:
    """Connections that do nothing wake nobody; only the heartbeat does, once a second."""
    echo = lab.echo()
    lab.serve(pool(echo))
    clients = [lab.connect() for _ in range(50)]
    for client in clients:
        ask(lab, client)
    lab.let_turn()
    start, turns, spent = time.monotonic(), lab.seat["turns"], lab.cpu_seconds()
    until(lambda: lab.seat["turns"] >= turns + 3)
    woken = lab.seat["turns"] - turns
    assert woken <= time.monotonic() - start + 2
    assert lab.cpu_seconds() - spent < 0.1


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_thousands_of_short_connects_and_resets_leave_nothing_behind(lab: Lab, kind: str) -> None:
    """What a port scan, a health check or an impatient client does."""
    echo = lab.echo(kind)
    lab.serve(pool(echo), kind=kind)
    client = lab.connect()
    ask(lab, client)
    descriptors = lab.descriptors()
    rng = random.Random(7)
    for number in range(2000):
        garbage = rng.randbytes(rng.choice((0, 1, 100, 5000)))
        scan = lab.connect(garbage)
        if number % 3:
            reset(scan)
        else:
            scan.close()
        if number % 100 == 0:
            assert ask(lab, client) < 10
    until(lambda: lab.seat["connections"] == 1)
    assert lab.descriptors() == descriptors
    client.close()
    lab.expect_nothing_held()
    assert lab.seat["accepted"] == 2001


def test_everybody_who_connects_while_the_worker_is_away_is_served_when_it_is_back(
        lab: Lab) -> None:
    echo: Echo = lab.echo()
    lab.serve(pool(echo))
    with lab.asleep():
        clients = [lab.connect(b"%032d" % number) for number in range(300)]
        for gone in clients[::3]:
            reset(gone)
    for number, client in enumerate(clients):
        if number % 3:
            assert read_exactly(client, 32) == b"%032d" % number
