"""Clients that behave badly, by intent or by accident: the others do not notice."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import select
import socket
import struct
from collections.abc import Iterator

import pytest

from tests.support.descriptors import raise_limit
from tests.support.echo import Backends
from tests.support.faults import times
from tests.support.instance import Instance, descriptors, free_port, resident, until
from tests.support.load import Load, LongLived

KIB, MIB = 1 << 10, 1 << 20
RESET = struct.pack("ii", 1, 0)
# An idle pair takes some 300 bytes of a worker; beside it, what was needed on the way.
IDLE_BYTES = 600
UNNOTICED_MS = 5000     # for a machine that has other things to do


@pytest.fixture
def load(lb: Instance) -> Iterator[Load]:
    """Well-behaved clients of a running instance. None may fail, none may wait."""
    lb.write()
    lb.start()
    with Load(lb.address) as made:
        yield made
        made.wait_for(200)
        report = made.expect_no_failure()
        assert report.p99_ms < UNNOTICED_MS, str(report)


def worker(lb: Instance) -> int:
    """The only worker."""
    return int(lb.serving()[0]["pid"])


def ended(lb: Instance, listener: int = 0) -> dict[str, int]:
    """Connections of a listener that ended, by reason."""
    found: dict[str, int] = lb.status()["listeners"][listener]["ended"]
    return found


@contextlib.contextmanager
def connected(address: tuple[str, int], count: int) -> Iterator[list[socket.socket]]:
    """So many plain client connections."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(socket.create_connection(address, 30)) for _ in range(count)]


def test_clients_that_never_read_take_no_memory_and_are_noticed_by_nobody(
    lb: Instance, backends: Backends,
) -> None:
    port = free_port()
    lb.file["listener"].append({"name": "flood", "bind": f"127.0.0.1:{port}", "pool": "flood"})
    lb.file["pool"]["flood"] = {"backends": [backends.flood()]}
    lb.write()
    lb.start()
    pid = worker(lb)
    before = resident(pid)
    with Load(lb.address) as load:
        with connected(("127.0.0.1", port), 100) as deaf:
            for sock in deaf:               # the flood has reached every one of them
                assert select.select([sock], [], [], 30)[0]
            load.wait_for(400)
            assert resident(pid) - before < 4 * MIB
        until(lambda: lb.status()["listeners"][1]["connections"] == 0)
        report = load.expect_no_failure()
        assert report.p99_ms < UNNOTICED_MS, str(report)


def test_clients_that_send_and_never_read_are_noticed_by_nobody(lb: Instance, load: Load) -> None:
    """The echo comes back until every buffer on the way is full; then nothing moves any more."""
    pid = worker(lb)
    before = resident(pid)
    with connected(lb.address, 50) as deaf:
        for sock in deaf:
            sock.setblocking(False)
        full: set[socket.socket] = set()
        while len(full) < len(deaf):
            ready = select.select([], [s for s in deaf if s not in full], [], 0.3)[1]
            if not ready:
                break
            for sock in ready:
                with contextlib.suppress(BlockingIOError):
                    sock.send(bytes(64 * KIB))
        load.wait_for(200)
        assert resident(pid) - before < 8 * MIB


def test_5000_idle_clients_take_little_memory_and_are_noticed_by_nobody(
    lb: Instance, load: Load,
) -> None:
    count = min(5000, raise_limit() - 500)
    pid = worker(lb)
    grown = [resident(pid)]
    with LongLived(lb.address) as idle:
        for _ in range(9):
            for _ in range(count // 900):
                idle.open(100)
            grown.append(resident(pid))
        assert lb.serving()[0]["connections"] >= len(idle.socks)
        # What the load needs on a busy machine comes once, what idle ones need with each of them.
        steps = sorted(after - before for before, after in itertools.pairwise(grown))
        assert steps[4] / (len(idle.socks) / 9) < IDLE_BYTES, grown
        # Those of the load come and go; idle ones own none.
        until(lambda: lb.serving()[0]["buffers"] <= 50, "few buffers")
        assert idle.ask() == []
    until(lambda: lb.serving()[0]["connections"] < 500, "idle ones to be gone")


def test_clients_that_connect_and_never_write_are_noticed_by_nobody(
    lb: Instance, load: Load,
) -> None:
    with connected(lb.address, 500) as mute:
        until(lambda: lb.serving()[0]["connections"] >= 500)
        load.wait_for(200)
        for sock in mute:                   # they were served all the time
            sock.sendall(b"at last")
        assert all(sock.recv(7, socket.MSG_WAITALL) == b"at last" for sock in mute)


def half_closing(sock: socket.socket, text: bytes) -> bytes:
    """Sends, ends its side as soon as all is sent, and returns what comes until the other ends."""
    received = bytearray()
    sent = 0
    sock.setblocking(False)
    while True:
        readable, writable, _ = select.select([sock], [sock] if sent < len(text) else [], [], 30)
        assert readable or writable, f"stalled: {sent} sent, {len(received)} received"
        if writable:
            sent += sock.send(text[sent:])
            if sent == len(text):
                sock.shutdown(socket.SHUT_WR)
        if readable:
            part = sock.recv(MIB)
            if not part:
                return bytes(received)
            received += part


def test_clients_that_half_close_get_their_whole_answer(lb: Instance, load: Load) -> None:
    text = os.urandom(200 * KIB)
    with connected(lb.address, times(1000, 60)) as clients:
        for sock in clients:
            assert half_closing(sock, text) == text


def test_clients_that_half_close_and_stay_are_ended_in_time(
    lb: Instance, backends: Backends,
) -> None:
    """Their backend never ends its side, and they never read what it sends."""
    port = free_port()
    lb.file["listener"].append({"name": "flood", "bind": f"127.0.0.1:{port}", "pool": "flood",
                                "half_closed_timeout": "500ms"})
    lb.file["pool"]["flood"] = {"backends": [backends.flood()]}
    lb.write()
    lb.start()
    with Load(lb.address) as load:
        with connected(("127.0.0.1", port), 50) as stale:
            for sock in stale:
                sock.shutdown(socket.SHUT_WR)
            until(lambda: ended(lb, 1)["half_closed"] == 50, "50 ended for being half closed")
        load.wait_for(100)
        load.expect_no_failure()


def test_clients_that_reset_at_any_moment_leave_nothing_behind(
    lb: Instance, backends: Backends,
) -> None:
    lb.write()
    lb.start()
    pid = worker(lb)
    rng = random.Random(7)
    with Load(lb.address) as load:
        for _ in range(times(20_000, 1500)):
            with socket.socket() as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                moment = rng.randrange(4)
                sock.setblocking(moment > 0)
                sock.connect_ex(lb.address)
                if moment > 1:
                    sock.sendall(bytes(rng.randrange(1, 100 * KIB)))
                if moment > 2:
                    sock.recv(100)
        load.wait_for(100)
        report = load.expect_no_failure()
        assert report.p99_ms < UNNOTICED_MS, str(report)
    until(lambda: lb.serving()[0]["connections"] == 0, "no connection")
    until(lambda: backends.connections() == 0, "no connection at the backends")
    assert descriptors(pid) < 100
    assert sum(backend["inflight"] for pool in lb.status()["pools"]
               for backend in pool["backends"]) == 0


def test_garbage_is_relayed_as_it_is_by_a_plain_listener(lb: Instance, load: Load) -> None:
    rng = random.Random(11)
    for _ in range(times(1000, 100)):
        garbage = rng.randbytes(rng.randrange(1, 8 * KIB))
        with socket.create_connection(lb.address, 30) as sock:
            sock.sendall(garbage)
            assert sock.recv(len(garbage), socket.MSG_WAITALL) == garbage


def test_garbage_in_place_of_a_proxy_header_is_closed_counted_and_noticed_by_nobody(
    lb: Instance,
) -> None:
    port = free_port()
    lb.file["listener"].append({"name": "behind", "bind": f"127.0.0.1:{port}", "pool": "main",
                                "proxy_protocol": True, "proxy_header_timeout": "500ms"})
    lb.write()
    lb.start()
    rng = random.Random(13)
    count = times(2000, 200)
    with Load(lb.address) as load:
        for number in range(count):
            with socket.create_connection(("127.0.0.1", port), 30) as sock:
                beginning = (b"PROXY ", b"\r\n\r\n\0\r\nQUIT\n", b"GET / HT", b"")[number % 4]
                with contextlib.suppress(ConnectionError):
                    sock.sendall(beginning + rng.randbytes(200) + b"\r\n")
                with contextlib.suppress(ConnectionResetError):
                    assert sock.recv(1) == b""
        with connected(("127.0.0.1", port), 20) as mute:
            for sock in mute:
                sock.sendall(b"PROXY TCP4 ")
            until(lambda: ended(lb, 1)["proxy_timeout"] >= 20)
        report = load.expect_no_failure()
        assert report.p99_ms < UNNOTICED_MS, str(report)
    ends = ended(lb, 1)
    assert ends["proxy_malformed"] + ends["proxy_timeout"] == count + 20, ends
