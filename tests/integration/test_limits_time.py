"""Timeouts: each ends what it is for, in time, and is counted under its reason."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import stat
import time

import pytest

from lbcore._scoreboard import BackendState
from tests.support.relay_lab import (
    Lab,
    block,
    ending,
    is_quiet,
    pool,
    read_exactly,
    read_to_end,
    until,
)

LATE = 5.0      # seconds that a busy machine may be late


class Clock:
    """How long the body took, in seconds."""

    def __enter__(self) -> Clock:
        self.start = time.monotonic()
        return self

    def __exit__(self, *exc: object) -> None:
        self.seconds = time.monotonic() - self.start


def test_idle_client_is_reset_and_counted(lab: Lab) -> None:
    origin = lab.origin()
    lab.serve(pool(origin), client_idle_ms=150)
    with Clock() as clock:
        client, server = lab.link(origin)
        assert ending(client) == "reset"
    assert 0.1 < clock.seconds < 0.15 + LATE
    assert ending(server) == "reset"
    lab.expect_ended(client_idle=1)
    lab.expect_nothing_held()


def test_idle_server_is_reset_and_counted(lab: Lab) -> None:
    origin = lab.origin()
    lab.serve(pool(origin, server_idle_ms=150))
    with Clock() as clock:
        client, server = lab.link(origin)
        assert ending(server) == "reset"
    assert 0.1 < clock.seconds < 0.15 + LATE
    assert ending(client) == "reset"
    lab.expect_ended(server_idle=1)


@pytest.mark.parametrize("sender", ["client", "server"])
def test_traffic_in_one_direction_keeps_a_connection_alive(lab: Lab, sender: str) -> None:
    origin = lab.origin()
    lab.serve(pool(origin, server_idle_ms=1000), client_idle_ms=1000)
    client, server = lab.link(origin)
    source, sink = (client, server) if sender == "client" else (server, client)
    with Clock() as clock:
        for _ in range(15):
            source.sendall(b".")
            assert read_exactly(sink, 1) == b"."
            assert is_quiet(source, 0.15)
    assert clock.seconds > 2
    assert lab.ended() == {}


def test_idle_time_counts_from_the_last_byte(lab: Lab) -> None:
    origin = lab.origin()
    lab.serve(pool(origin), client_idle_ms=1000)
    client, server = lab.link(origin)
    assert is_quiet(client, 0.3)
    with Clock() as clock:
        client.sendall(b".")
        assert read_exactly(server, 1) == b"."
        assert ending(client) == "reset"
    assert 0.9 < clock.seconds < 1 + LATE


def test_a_client_that_does_not_read_is_idle_however_much_the_server_sends(lab: Lab) -> None:
    origin = lab.origin()
    lab.serve(pool(origin), client_idle_ms=300)
    client, server = lab.link(origin)
    block(lab, server)
    with Clock() as clock:
        assert read_to_end(server)[1] == "reset"
    assert clock.seconds < 0.3 + LATE
    client.close()
    lab.expect_ended(client_idle=1)
    lab.expect_nothing_held()


@pytest.mark.parametrize("first", ["client", "server"])
def test_half_closed_connection_is_ended_and_counted(lab: Lab, first: str) -> None:
    origin = lab.origin()
    lab.serve(pool(origin), half_closed_ms=150)
    client, server = lab.link(origin)
    closed, other = (client, server) if first == "client" else (server, client)
    with Clock() as clock:
        closed.shutdown(socket.SHUT_WR)
        assert other.recv(1) == b""
        assert ending(closed) == "reset"
    assert 0.1 < clock.seconds < 0.15 + LATE
    lab.expect_ended(half_closed=1)


def test_traffic_keeps_a_half_closed_connection_alive(lab: Lab) -> None:
    origin = lab.origin()
    lab.serve(pool(origin), half_closed_ms=1000)
    client, server = lab.link(origin)
    client.shutdown(socket.SHUT_WR)
    assert server.recv(1) == b""
    with Clock() as clock:
        for _ in range(15):
            server.sendall(b".")
            assert read_exactly(client, 1) == b"."
            assert is_quiet(client, 0.15)
    assert clock.seconds > 2
    server.close()
    assert ending(client) == "eof"
    lab.expect_ended(normal=1)


def test_no_timeout_means_none(lab: Lab) -> None:
    origin = lab.origin()
    lab.serve(pool(origin, server_idle_ms=0), client_idle_ms=0, half_closed_ms=0)
    client, server = lab.link(origin)
    client.shutdown(socket.SHUT_WR)
    assert server.recv(1) == b""
    assert is_quiet(client, 0.5)
    server.close()
    assert ending(client) == "eof"


def test_connect_that_takes_too_long_is_given_up_and_counted(lab: Lab) -> None:
    hole = lab.blackhole()
    lab.serve(pool(hole, connect_timeout_ms=150, connect_attempts=1))
    with Clock() as clock:
        assert lab.turned_away(b"hello")
    assert 0.1 < clock.seconds < 0.15 + LATE
    lab.expect_ended(connect_failed=1)
    assert lab.backend()["timeouts"] == 1
    assert lab.backend()["refused"] == 0
    lab.expect_nothing_held()


def test_connect_budget_bounds_all_attempts_together(lab: Lab) -> None:
    holes = [lab.blackhole() for _ in range(4)]
    lab.serve(pool(*holes, connect_timeout_ms=150, connect_attempts=100, connect_budget_ms=400))
    with Clock() as clock:
        assert lab.turned_away()
    assert 0.35 < clock.seconds < 0.4 + LATE
    lab.expect_ended(connect_failed=1)
    assert sum(lab.backend(row)["timeouts"] for row in range(4)) == 3
    lab.expect_nothing_held(range(4))


def test_connection_that_finds_every_backend_down_is_reset_after_the_queue_timeout(
        lab: Lab) -> None:
    origin = lab.origin()
    lab.serve(pool(origin, queue_timeout_ms=150))
    lab.pretend(0, BackendState.STATE_DOWN)
    with Clock() as clock:
        assert lab.turned_away(b"hello")
    assert 0.1 < clock.seconds < 0.15 + LATE
    lab.expect_ended(no_backend=1)
    lab.expect_nothing_held()


def test_header_that_does_not_come_is_waited_for_no_longer_than_configured(lab: Lab) -> None:
    origin = lab.origin()
    lab.serve(pool(origin), proxy_protocol=True, proxy_header_timeout_ms=150)
    for part in (b"", b"PROXY TCP4 "):
        with Clock() as clock:
            assert lab.turned_away(part)
        assert 0.1 < clock.seconds < 0.15 + LATE
    lab.expect_ended(proxy_timeout=2)
    assert origin.nobody_came(0)


def test_long_lived_connections_get_upstream_keepalive_probes_and_a_user_timeout(lab: Lab) -> None:
    """Set late, so that short connections do not pay for them; here a timeout has looked early.

    The client's side inherits the like from the listening socket, which is the supervisor's.
    """
    origin = lab.origin()
    lab.serve(pool(origin, tcp_user_timeout_ms=3456), client_idle_ms=1000)
    client, server = lab.link(origin)
    upstream = workers_socket(lab, server)
    assert probed(upstream) == (False, 0)

    def talk() -> bool:
        client.sendall(b".")
        assert read_exactly(server, 1) == b"."
        return probed(upstream)[0]
    until(talk)
    assert probed(upstream) == (True, 3456)
    assert upstream.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60


def probed(sock: socket.socket) -> tuple[bool, int]:
    """Whether keep-alive probes are on, and the user timeout in ms."""
    return (bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)),
            sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT))


def workers_socket(lab: Lab, peer: socket.socket) -> socket.socket:
    """The worker's own socket of a connection, to look at its options: pidfd_getfd(2)."""
    pid = lab.worker.process.pid
    process = os.pidfd_open(pid)
    try:
        for number in os.listdir(f"/proc/{pid}/fd"):  # noqa: PTH208
            fd = ctypes.CDLL(None, use_errno=True).syscall(438, process, int(number), 0)
            assert fd >= 0, os.strerror(ctypes.get_errno())
            if not stat.S_ISSOCK(os.fstat(fd).st_mode):
                os.close(fd)
                continue
            sock = lab.keep(socket.socket(fileno=fd))
            with contextlib.suppress(OSError):      # it listens
                if sock.getpeername() == peer.getsockname():
                    return sock
    finally:
        os.close(process)
    raise AssertionError("the worker has no such connection")
