"""Second tries that come late, or often: what the first ones took does not count against them."""

from __future__ import annotations

import contextlib
import json
import select
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.instance import Instance, instance, until

SECONDS = 20
GET = b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine"
BUSY = b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy"


class Site:
    """lbcore, and two backends in the test's own hands."""

    def __init__(self, lb: Instance, listeners: list[socket.socket]) -> None:
        self.lb = lb
        self.listeners = listeners
        self.accepted: list[socket.socket] = []

    def start(self, pool: dict[str, object], **listener: object) -> None:
        self.lb.file["listener"][0].update(listener, protocol="http")
        self.lb.pool.update(pool, ejection={"failures": 0}, retry_share=1.0)
        self.lb.pool["backends"] = [f"127.0.0.1:{one.getsockname()[1]}" for one in self.listeners]
        self.lb.write()
        self.lb.start()

    def client(self, data: bytes) -> socket.socket:
        sock = socket.create_connection(self.lb.address, SECONDS)
        sock.sendall(data)
        return sock

    def asked(self) -> tuple[int, socket.socket]:
        """Which backend is asked next, and the connection."""
        ready, _, _ = select.select(self.listeners, [], [], SECONDS)
        assert ready, "nobody was asked"
        sock, _ = ready[0].accept()
        self.accepted.append(sock)
        sock.settimeout(SECONDS)
        data = b""
        while b"\r\n\r\n" not in data:
            part = sock.recv(65536)
            assert part
            data += part
        return self.listeners.index(ready[0]), sock


def everything(sock: socket.socket) -> bytes:
    data = b""
    with sock:
        while part := sock.recv(65536):
            data += part
    return data


@pytest.fixture
def site() -> Iterator[Site]:
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0)))
                     for _ in range(2)]
        made = Site(stack.enter_context(instance()), listeners)
        yield made
        for sock in made.accepted:
            sock.close()
        assert made.lb.complaints() == []


def test_answer_that_took_longer_than_the_connect_budget_is_retried_elsewhere(site: Site) -> None:
    site.start({"connect_budget": "300ms"}, retry={"statuses": [503]})
    client = site.client(GET)
    first, server = site.asked()
    assert not select.select([client], [], [], 0.6)[0]      # the application thinks about it
    server.sendall(BUSY)
    second, server = site.asked()
    assert second != first
    server.sendall(OK)
    assert everything(client).endswith(b"fine")


def test_retries_are_as_many_as_they_may_be_whatever_connecting_is_allowed(site: Site) -> None:
    site.start({"connect_attempts": 1}, retry={"statuses": [503], "attempts": 4})
    client = site.client(GET)
    for _ in range(3):
        site.asked()[1].sendall(BUSY)
    site.asked()[1].sendall(OK)
    assert everything(client).endswith(b"fine")


def test_silence_is_retried_elsewhere_where_504_is_among_the_statuses(site: Site) -> None:
    site.start({"connect_budget": "300ms"}, first_byte_timeout="2s", retry={"statuses": [504]})
    client = site.client(GET)
    first, _ = site.asked()
    second, server = site.asked()
    assert second != first
    server.sendall(OK)
    assert everything(client).endswith(b"fine")


def test_silence_of_everybody_is_a_504_in_the_end(site: Site) -> None:
    site.start({}, first_byte_timeout="300ms", retry={"statuses": [504], "attempts": 2})
    client = site.client(GET)
    assert {site.asked()[0], site.asked()[0]} == {0, 1}
    assert everything(client).startswith(b"HTTP/1.1 504 ")
    assert not select.select(site.listeners, [], [], 0)[0]


@pytest.mark.parametrize(("data", "statuses"), [(GET, []), (GET, [503]), (POST, [504])])
def test_silence_is_answered_with_504_otherwise(
    site: Site, data: bytes, statuses: list[int],
) -> None:
    site.start({}, first_byte_timeout="300ms", retry={"statuses": statuses})
    client = site.client(data)
    site.asked()
    assert everything(client).startswith(b"HTTP/1.1 504 ")
    assert not select.select(site.listeners, [], [], 0)[0]


def test_the_log_knows_nothing_of_the_answer_that_was_not_passed_on(
    site: Site, tmp_path: Path,
) -> None:
    log = tmp_path / "access.log"
    site.lb.file["log"]["access"] = str(log)
    site.start({}, first_byte_timeout="2s", retry={"statuses": [503]})
    client = site.client(GET)
    site.asked()[1].sendall(BUSY)
    site.asked()
    assert everything(client).startswith(b"HTTP/1.1 504 ")
    until(lambda: log.exists() and log.read_text().endswith("\n"), "a line in the log")
    line = json.loads(log.read_text())
    assert line["status"] == 504
    assert line["attempts"] == 2
    assert "connect_ms" in line
    assert "first_byte_ms" not in line
