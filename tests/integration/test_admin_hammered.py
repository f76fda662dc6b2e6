"""Whatever is done to the admin address, checks go on in time and no worker is taken for dead."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import random
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.support.checked import CheckedBackend
from tests.support.instance import Instance, free_port, instance, until

INTERVAL_MS = 200
CHECKS = 8                       # 1.6 seconds of them when nothing is in the way
PATIENCE = 60.0
TOKEN = "hammered-all-day-long"
PACKED = gzip.compress(bytes(1 << 20)) * 300      # members of one body (RFC 1952, 2.2)


@pytest.fixture(scope="module")
def backend() -> Iterator[CheckedBackend]:
    made = CheckedBackend()
    yield made
    made.close()


@pytest.fixture(scope="module")
def hammered(backend: CheckedBackend) -> Iterator[tuple[Instance, int]]:
    """An instance with many backends, of which one is checked; the port of its admin address."""
    port = free_port()
    with instance() as made:
        token = made.directory / "token"
        token.write_text(TOKEN)
        token.chmod(0o600)
        made.file["admin"] = {"listen": f"127.0.0.1:{port}", "token_file": str(token)}
        made.file["lbcore"]["hang_timeout"] = "5s"
        made.file["listener"][0] |= {"protocol": "http"}
        made.pool["backends"] = [{"address": backend.address}]
        made.pool["health"] = {"type": "http", "interval": f"{INTERVAL_MS}ms", "jitter": 0.0,
                               "timeout": "2s"}
        made.file["pool"]["many"] = {
            "backends": [{"address": f"127.0.0.1:{30_000 + i}"} for i in range(500)]}
        made.file["listener"][0]["route"] = [{"path": "/many/", "pool": "many"}]
        made.write()
        made.start()
        yield made, port


class Attack:
    """Threads that do something to a port again and again until they are told to stop."""

    def __init__(self, count: int, once: Callable[[int], None], port: int) -> None:
        self._over = threading.Event()
        self.times = 0
        self._threads = [threading.Thread(target=self._run, args=(once, port), daemon=True)
                         for _ in range(count)]

    def _run(self, once: Callable[[int], None], port: int) -> None:
        while not self._over.is_set():
            with contextlib.suppress(OSError, http.client.HTTPException):
                once(port)
            self.times += 1

    def __enter__(self) -> Attack:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(20)


def ask_for_everything(port: int) -> None:
    """The largest answers there are."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    for path in ("/v1/status", "/v1/live", "/v1/config.toml", "/metrics"):
        connection.request("GET", path, headers={"Authorization": f"Bearer {TOKEN}"})
        connection.getresponse().read()
    connection.close()


def send_garbage(port: int) -> None:
    """What is not HTTP."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        sock.sendall(random.randbytes(random.randrange(1, 20_000)))
        sock.recv(4096)


def send_huge_heads(port: int) -> None:
    """Heads that are too large."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\n" + b"X: " + b"y" * 200_000 + b"\r\n\r\n")
        sock.recv(4096)


def guess_tokens(port: int) -> None:
    """Requests that are refused, as fast as they come."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    for _ in range(50):
        connection.request("POST", "/v1/stop", headers={"Authorization": "Bearer guessed"})
        assert connection.getresponse().read()
    connection.close()


def post_packed_bodies(port: int) -> None:
    """Bodies that are a thousand times as large unpacked, from somebody without a token."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        sock.sendall(b"POST /v1/reload HTTP/1.1\r\nHost: localhost\r\nContent-Encoding: gzip\r\n"
                     b"Content-Length: %d\r\n\r\n%b" % (len(PACKED), PACKED))
        sock.recv(4096)


def post_large_bodies(port: int) -> None:
    """Bodies with ten thousand mistakes."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    body = b'{"backends": [' + b",".join([b'{"adress": 5}'] * 10_000) + b"]}"
    connection.request("PUT", "/v1/pools/many/backends", body, {
        "Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"})
    assert connection.getresponse().status == 400
    connection.close()


@pytest.mark.parametrize(("count", "once"), [
    (12, ask_for_everything), (12, send_garbage), (4, send_huge_heads), (8, guess_tokens),
    (2, post_large_bodies), (40, post_packed_bodies)])
def test_checks_go_on_in_time(
    hammered: tuple[Instance, int], backend: CheckedBackend, count: int,
    once: Callable[[int], None],
) -> None:
    made, port = hammered
    with Attack(count, once, port) as attack:
        until(lambda: attack.times >= count, "the attack")
        backend.wait_for(CHECKS, PATIENCE)
    _nothing_happened(made)


def test_a_packed_body_is_refused_whoever_sends_it(hammered: tuple[Instance, int]) -> None:
    _, port = hammered
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("POST", "/v1/reload", PACKED[:1000], {
        "Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json",
        "Content-Encoding": "gzip"})
    answer = connection.getresponse()
    assert (answer.status, b"compressed" in answer.read()) == (415, True)
    connection.close()


def test_checks_go_on_beside_500_strangers_and_so_does_who_has_the_token(
    hammered: tuple[Instance, int], backend: CheckedBackend,
) -> None:
    made, port = hammered
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20))
                for _ in range(500)]
        backend.wait_for(CHECKS, PATIENCE)
        assert _answers(port, "/v1/workers")
        # All but the newest 200, and those that came at once.
        until(lambda: sum(map(_ended, idle)) >= 200, "200 ended")
        assert sum(map(_ended, idle)) <= 400
    until(lambda: _answers(port), "the admin address answers again")
    _nothing_happened(made)


def test_checks_go_on_beside_streams_that_nobody_reads(
    hammered: tuple[Instance, int], backend: CheckedBackend,
) -> None:
    made, port = hammered
    with contextlib.ExitStack() as stack:
        for _ in range(50):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.sendall(b"GET /v1/stream?interval=0.5 HTTP/1.1\r\nHost: localhost\r\n"
                         b"Authorization: Bearer " + TOKEN.encode() + b"\r\n\r\n")
        backend.wait_for(CHECKS, PATIENCE)
    _nothing_happened(made)


def _ended(sock: socket.socket) -> bool:
    """Whether the other side has ended it; nothing was said to it."""
    sock.setblocking(False)
    try:
        return sock.recv(100, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def _answers(port: int, path: str = "/healthz") -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {TOKEN}"})
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _nothing_happened(made: Instance) -> None:
    """No backend was taken for down and no worker for dead, and nobody filled the log."""
    assert made.events("backend.state") == []
    assert made.events("worker.hung") == made.events("worker.died") == []
    assert made.complaints() == []
    assert made.events("library") == []
    assert made.process is not None and made.process.poll() is None
