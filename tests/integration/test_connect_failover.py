"""Backends that cannot be reached: the next one is, and the client notices only latency."""

from __future__ import annotations

import os
import socket
import time

import pytest

from lbcore._scoreboard import BackendState
from lbcore.config.plan import Address, EjectionPlan
from tests.support.relay_lab import (
    PATIENCE,
    Lab,
    ending,
    is_quiet,
    member,
    pool,
    reached,
    read_exactly,
    read_to_end,
    reset,
    until,
)

AWAY = ["refusing", "refusing_unix", "blackhole", "missing"]


def away(lab: Lab, how: str) -> Address:
    """The address of a backend that cannot be reached."""
    if how == "missing":
        return Address(path=str(lab.directory / "missing.sock"))
    address: Address = getattr(lab, how)()
    return address


def rung(lab: Lab) -> int:
    """How often the bell was rung since the last look."""
    try:
        return os.eventfd_read(lab.worker.bell)
    except BlockingIOError:
        return 0


@pytest.mark.parametrize("how", AWAY)
def test_client_of_an_unreachable_backend_is_served_by_the_next(lab: Lab, how: str) -> None:
    origin = lab.origin()
    lab.serve(pool(away(lab, how), origin, connect_timeout_ms=100))
    for number in range(12):
        client = lab.connect(b"question %02d" % number)
        server = origin.accept()
        assert read_exactly(server, 11) == b"question %02d" % number
        server.sendall(b"answer")
        assert read_exactly(client, 6) == b"answer"
        client.shutdown(socket.SHUT_WR)
        assert ending(server) == "eof"
        server.close()
        assert ending(client) == "eof"
    lab.expect_ended(normal=12)
    failed = lab.backend(0)
    assert failed["refused"] + failed["timeouts"] == failed["redispatched"] == 6
    assert (failed["connections"], lab.backend(1)["connections"]) == (0, 12)
    lab.expect_nothing_held((0, 1))


@pytest.mark.parametrize("how", AWAY)
def test_data_sent_before_a_backend_was_reached_arrives_once(lab: Lab, how: str) -> None:
    """More than one buffer of it, and its end, sent while the first backends were tried."""
    origin = lab.origin()
    lab.serve(pool(away(lab, "blackhole"), away(lab, how), origin, connect_timeout_ms=100))
    for _ in range(6):
        data = os.urandom(300_000)
        client = lab.connect(data)
        client.shutdown(socket.SHUT_WR)
        server = origin.accept()
        assert read_to_end(server) == (data, "eof")
        server.sendall(data)
        server.close()
        assert read_to_end(client) == (data, "eof")


def test_attempts_are_bounded_and_the_client_is_reset(lab: Lab) -> None:
    lab.serve(pool(*[lab.refusing() for _ in range(5)], connect_attempts=3))
    assert lab.turned_away(b"hello")
    lab.expect_ended(connect_failed=1)
    refused = [lab.backend(row)["refused"] for row in range(5)]
    assert sorted(refused) == [0, 0, 1, 1, 1]
    assert sum(lab.backend(row)["redispatched"] for row in range(5)) == 2
    lab.expect_nothing_held(range(5))


def test_a_single_backend_is_asked_again_after_a_pause(lab: Lab) -> None:
    lab.serve(pool(lab.refusing(), connect_attempts=3))
    start = time.monotonic()
    assert lab.turned_away(b"hello")
    assert time.monotonic() - start > 0.15
    assert lab.backend()["refused"] == 3
    lab.expect_ended(connect_failed=1)


def test_a_backend_that_comes_up_between_two_attempts_is_reached(lab: Lab) -> None:
    sock = lab.keep(socket.socket())
    sock.bind(("127.0.0.1", 0))
    lab.serve(pool(Address("127.0.0.1", sock.getsockname()[1]), connect_attempts=100))
    client = lab.connect(b"hello")
    until(lambda: lab.backend()["refused"] > 0)
    sock.listen()
    sock.settimeout(PATIENCE)
    server, _ = sock.accept()
    with server:
        server.settimeout(PATIENCE)
        assert read_exactly(server, 5) == b"hello"
        client.sendall(b"more")
        assert read_exactly(server, 4) == b"more"


def test_client_that_leaves_while_a_backend_is_tried_is_let_go(lab: Lab) -> None:
    lab.serve(pool(lab.blackhole()))
    client = lab.connect(b"hello")
    until(lambda: lab.backend()["inflight"] == 1)
    reset(client)
    lab.expect_ended(client_gone=1)
    lab.expect_nothing_held()


def test_backend_that_resets_at_once_fails_early_and_loudly(lab: Lab) -> None:
    """What the client sent may have been read, as the connect succeeded: nobody else gets it."""
    origin = lab.origin()
    lab.serve(pool(origin))
    for number in range(4):
        client, server = lab.link(origin)
        if number % 2:
            client.sendall(b"hello")
            assert read_exactly(server, 5) == b"hello"
        reset(server)
        assert ending(client) == "reset"
    lab.expect_ended(server_reset=4)
    assert lab.backend()["early_resets"] == 4
    assert lab.backend()["failures"] == 4


def test_a_reset_after_the_first_byte_is_no_failure_of_the_backend(lab: Lab) -> None:
    origin = lab.origin()
    lab.serve(pool(origin))
    client, server = lab.link(origin)
    server.sendall(b"hello")
    assert read_exactly(client, 5) == b"hello"
    reset(server)
    assert ending(client) == "reset"
    lab.expect_ended(server_reset=1)
    assert (lab.backend()["early_resets"], lab.backend()["failures"]) == (0, 0)


def test_bell_rings_exactly_when_failures_in_a_row_reach_the_threshold(lab: Lab) -> None:
    lab.serve(pool(lab.refusing(), connect_attempts=1, ejection=EjectionPlan(failures=4)))
    rings = []
    for _ in range(10):
        assert lab.turned_away(b"hello")
        rings.append(rung(lab))
    assert rings == [0, 0, 0, 1, 0, 0, 0, 0, 0, 0]
    assert lab.backend()["failures"] == 10


def test_early_resets_ring_the_bell_too(lab: Lab) -> None:
    origin = lab.origin()
    lab.serve(pool(origin, ejection=EjectionPlan(failures=2)))
    rings = []
    for _ in range(3):
        client, server = lab.link(origin)
        reset(server)
        assert ending(client) == "reset"
        rings.append(rung(lab))
    assert rings == [0, 1, 0]


@pytest.mark.parametrize("how", ["answers", "ends in order"])
def test_success_clears_the_failures_before_it(lab: Lab, how: str) -> None:
    origin = lab.origin()
    lab.serve(pool(origin, ejection=EjectionPlan(failures=3)))
    for _ in range(3):
        for _ in range(2):
            client, server = lab.link(origin)
            reset(server)
            assert ending(client) == "reset"
        client, server = lab.link(origin)
        if how == "answers":
            server.sendall(b"x")
            assert read_exactly(client, 1) == b"x"
        else:
            client.close()
            assert ending(server) == "eof"
            server.close()
        until(lambda: lab.backend()["failures"] == 0)
    assert rung(lab) == 0


def test_nobody_is_ejected_by_clients_that_reset(lab: Lab) -> None:
    origin = lab.origin()
    lab.serve(pool(origin, ejection=EjectionPlan(failures=1)))
    for number in range(5):
        client = lab.connect(b"hello" if number % 2 else b"")
        server = origin.accept()
        reset(client)
        assert read_to_end(server)[1] == "reset"
    lab.expect_ended(client_reset=5)
    assert lab.backend()["failures"] == 0
    assert rung(lab) == 0


def test_backends_that_are_down_are_not_asked(lab: Lab) -> None:
    first, second = lab.origin(), lab.origin()
    lab.serve(pool(first, second))
    for state in (BackendState.STATE_DOWN, BackendState.STATE_EJECTED, BackendState.STATE_DRAIN,
                  BackendState.STATE_GONE):
        lab.pretend(0, state)
        for _ in range(3):
            client = lab.connect()
            second.accept().close()
            client.close()
    assert first.nobody_came(0)


def test_panic_tries_those_that_are_down(lab: Lab) -> None:
    origin = lab.origin()
    lab.serve(pool(origin))
    lab.pretend(0, BackendState.STATE_DOWN)
    lab.board.set_pool(0, 1, 1)
    lab.link(origin)


def test_backups_serve_only_when_no_primary_can(lab: Lab) -> None:
    primary, backup = lab.origin(), lab.origin()
    lab.serve(pool(primary, member(backup, backup=True)))
    lab.link(primary)
    assert backup.nobody_came(0)
    lab.pretend(0, BackendState.STATE_DOWN)
    lab.link(backup)
    lab.pretend(0, BackendState.STATE_UP)
    lab.link(primary)
    assert backup.nobody_came(0)


def test_backup_is_the_next_candidate_when_the_primary_refuses(lab: Lab) -> None:
    backup = lab.origin()
    lab.serve(pool(lab.refusing(), member(backup, backup=True)))
    client, server = lab.link(backup)
    client.sendall(b"hello")
    assert read_exactly(server, 5) == b"hello"


def test_upstream_connections_come_from_the_configured_source(lab: Lab) -> None:
    origin = lab.origin()
    lab.serve(pool(origin, source=Address("127.0.0.77")))
    _, server = lab.link(origin)
    assert server.getpeername()[0] == "127.0.0.77"


def test_transparent_upstream_connections_come_from_the_client(lab: Lab) -> None:
    origin = lab.origin()
    lab.serve(pool(origin, source_transparent=True))
    client = lab.connect(source="127.0.0.78")
    server = origin.accept()
    assert server.getpeername()[0] == "127.0.0.78"
    client.sendall(b"hello")
    assert read_exactly(server, 5) == b"hello"


def test_a_source_address_that_is_not_ours_is_no_failure_of_the_backend(lab: Lab) -> None:
    origin = lab.origin()
    lab.serve(pool(origin, source=Address("192.0.2.1")))
    assert lab.turned_away()
    lab.expect_ended(internal=1)
    assert lab.backend()["failures"] == 0
    lab.expect_nothing_held()


def test_keys_stay_with_their_backend_and_move_only_when_it_is_away(lab: Lab) -> None:
    origins = [lab.origin() for _ in range(4)]
    lab.serve(pool(*origins, balance="consistent"))

    def chosen(source: str) -> int:
        client = lab.connect(source=source)
        origin = reached(*origins)
        origin.accept().close()
        client.close()
        return origins.index(origin)

    sources = [f"127.0.{i}.{i + 1}" for i in range(40)]
    first = {source: chosen(source) for source in sources}
    assert len(set(first.values())) == 4
    assert {source: chosen(source) for source in sources} == first
    lab.pretend(2, BackendState.STATE_DOWN)
    without = {source: chosen(source) for source in sources}
    assert 2 not in without.values()
    assert [s for s in sources if without[s] != first[s]] == [s for s in sources if first[s] == 2]
    lab.pretend(2, BackendState.STATE_UP)
    assert {source: chosen(source) for source in sources} == first
    assert is_quiet(origins[0].sock, 0)
