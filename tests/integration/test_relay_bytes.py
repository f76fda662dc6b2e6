"""Bytes arrive unchanged, in both directions at once, whatever the sockets and the sizes."""

from __future__ import annotations

import contextlib
import random
import socket

import pytest

from tests.support.relay_lab import Lab, exchange, pool, read_exactly, until

MIB = 1 << 20
KINDS = [("tcp", "tcp"), ("tcp", "unix"), ("unix", "tcp"), ("unix", "unix"), ("tcp6", "tcp6"),
         ("tcp", "tcp6")]


@pytest.fixture(scope="module")
def noise() -> bytes:
    """Random bytes to cut payloads from."""
    return random.Random(20).randbytes(50 * MIB)


def cut(noise: bytes, length: int, rng: random.Random) -> bytes:
    start = rng.randrange(len(noise) - length + 1)
    return noise[start:start + length]


@pytest.fixture
def rng() -> random.Random:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    return random.Random(seed)


@pytest.mark.parametrize(("client", "server"), KINDS)
def test_bytes_arrive_unchanged_both_ways_at_once(
        lab: Lab, noise: bytes, rng: random.Random, client: str, server: str) -> None:
    origin = lab.origin(server)
    lab.serve(pool(origin), kind=client)
    sizes = [1, 2, 1023, 4096, 16384, 65535, 65536, 65537, 200_000, 3 * MIB]
    for size in sizes + [rng.randrange(1, MIB) for _ in range(10)]:
        exchange(*lab.link(origin), cut(noise, size, rng),
                 cut(noise, rng.choice(sizes), rng), rng)
    lab.expect_ended(normal=20)
    lab.expect_nothing_held()


@pytest.mark.parametrize(("client", "server"), [("tcp", "tcp"), ("unix", "unix")])
def test_fifty_megabytes_arrive_unchanged_both_ways_at_once(
        lab: Lab, noise: bytes, rng: random.Random, client: str, server: str) -> None:
    origin = lab.origin(server)
    lab.serve(pool(origin), kind=client)
    exchange(*lab.link(origin), noise, noise[::-1], rng)
    lab.expect_ended(normal=1)
    totals = lab.board.listener_totals(0)
    assert (totals["bytes_up"], totals["bytes_down"]) == (len(noise), len(noise))


def test_bytes_arrive_unchanged_without_any_pipe(
        lab: Lab, noise: bytes, rng: random.Random) -> None:
    origin = lab.origin()
    lab.worker.max_pipes = 0
    lab.serve(pool(origin))
    exchange(*lab.link(origin), noise[:8 * MIB], noise[-8 * MIB:], rng)
    lab.expect_ended(normal=1)


def test_random_exchanges_in_turn_arrive_unchanged(
        lab: Lab, noise: bytes, rng: random.Random) -> None:
    """A connection goes from messages to a stream and back as often as its users like."""
    origin = lab.origin()
    lab.serve(pool(origin))
    client, server = lab.link(origin)
    for _ in range(150):
        size = rng.choice((1, 100, 1000, 20_000, 70_000, 150_000))
        sender, receiver = rng.choice(((client, server), (server, client)))
        data = cut(noise, size, rng)
        sender.sendall(data)
        assert read_exactly(receiver, size) == data


def test_a_pipe_never_brings_bytes_of_another_connection(lab: Lab, noise: bytes) -> None:
    """Connections that are cut while their pipe is full leave nothing of theirs behind."""
    origin = lab.origin()
    lab.worker.max_pipes = 4
    lab.serve(pool(origin))
    for round_ in range(12):
        client, server = lab.link(origin)
        server.settimeout(0.1)

        def stuck(end: socket.socket = server) -> bool:
            with contextlib.suppress(TimeoutError):
                for _ in range(64):
                    end.sendall(b"\xee" * MIB)  # the client reads nothing: it ends in the pipe
            return lab.seat["pipes"] > 0 or lab.seat["buffers"] > 0

        until(stuck)
        (client if round_ % 2 else server).close()
        client.close()
        server.close()
        until(lambda: lab.seat["connections"] == 0)
        clean, other = lab.link(origin)
        data = noise[round_ * MIB:(round_ + 1) * MIB].replace(b"\xee", b"\x00")
        exchange(clean, other, data, data, random.Random(round_))
    lab.expect_nothing_held()


def test_idle_connections_own_no_buffer_and_no_pipe(lab: Lab, noise: bytes) -> None:
    origin = lab.origin()
    lab.serve(pool(origin))
    pairs = lab.links(origin, 20)
    for client, server in pairs:
        for size in (100, 30_000, 400_000):
            for sender, receiver in ((client, server), (server, client)):
                for start in range(0, size, 50_000):
                    part = noise[start:min(size, start + 50_000)]
                    sender.sendall(part)
                    assert read_exactly(receiver, len(part)) == part
    until(lambda: (lab.seat["buffers"], lab.seat["pipes"]) == (0, 0))
    assert lab.seat["connections"] == 20
