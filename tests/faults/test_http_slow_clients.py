"""Slow clients and an application with few workers: with buffering they hold none of them.

The application is gunicorn with four workers of its plainest kind, each of which serves one request
at a time and can do nothing else meanwhile. Nothing here is measured: what happened is told from
the order of events, of which gunicorn keeps the record.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import select
import socket
from collections.abc import Iterator

import pytest

from tests.support.descriptors import raise_limit
from tests.support.faults import times
from tests.support.http_apps import filler
from tests.support.http_servers import Server, gunicorn
from tests.support.instance import Instance, instance, until

MIB = 1 << 20
WORKERS = 4
DOWNLOAD = 6 * MIB      # more than the kernel keeps on the way for a client that reads nothing
UPLOAD = b"".join(filler(20_000))
SECONDS = 60


@pytest.fixture
def server() -> Iterator[Server]:
    """gunicorn with four synchronous workers, which records when a request begins and ends."""
    raise_limit()
    made = gunicorn("sync", "--timeout=300", workers=WORKERS, RECORD_BEGIN="1")
    try:
        made.start()
        yield made
    finally:
        made.close()


@pytest.fixture
def lb(server: Server) -> Iterator[Instance]:
    """An instance in front of it that has not started yet."""
    with instance() as made:
        made.file["listener"][0]["protocol"] = "http"
        made.pool["backends"] = [server.address]
        yield made
        assert made.complaints() == []


def told(sock: socket.socket) -> bytes:
    """Up to the end of a head."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = sock.recv(1)
        assert part, data
        data += part
    return data


def slow_upload(lb: Instance, number: int) -> socket.socket:
    """A client that has sent half of a body, and of which lbcore knows."""
    sock = socket.create_connection(lb.address, SECONDS)
    sock.sendall(b"POST /slow-upload-%d HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\n"
                 b"Connection: close\r\nContent-Length: %d\r\n\r\n" % (number, len(UPLOAD)))
    return sock


def slow_download(lb: Instance, number: int) -> socket.socket:
    """A client that has asked for much and takes next to nothing of it."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.settimeout(SECONDS)
    sock.connect(lb.address)
    sock.sendall(b"GET /download?bytes=%d&slow-download=%d HTTP/1.1\r\nHost: test\r\n"
                 b"Connection: close\r\n\r\n" % (DOWNLOAD, number))
    return sock


def upload_rest(sock: socket.socket) -> None:
    """The other half, and the answer: the application got all of it."""
    sock.sendall(UPLOAD[10_000:])
    answer = everything(sock)
    assert answer.startswith(b"HTTP/1.1 200 "), answer[:200]
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["sha256"] == (
        hashlib.sha256(UPLOAD).hexdigest())


def everything(sock: socket.socket) -> bytes:
    data = bytearray()
    while part := sock.recv(1 << 18):
        data += part
    return bytes(data)


def fast(lb: Instance, name: str) -> None:
    """A client that asks, and has its answer."""
    with socket.create_connection(lb.address, SECONDS) as sock:
        sock.sendall(b"GET /%b HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n" % name.encode())
        assert everything(sock).startswith(b"HTTP/1.1 200 ")


def happened(server: Server, event: str, name: str) -> list[int]:
    """Where in the record events of requests with this in their target stand."""
    return [at for at, said in enumerate(server.requests())
            if said["event"] == event and name in said["target"]]


def test_500_slow_clients_hold_none_of_four_workers_and_fast_ones_do_not_wait_for_any(
    lb: Instance, server: Server,
) -> None:
    downloads = times(100, 20)
    uploads = 500 - downloads
    lb.write()
    lb.start()
    with contextlib.ExitStack() as stack:
        senders = [stack.enter_context(slow_upload(lb, n)) for n in range(uploads)]
        for sender in senders:
            assert told(sender).startswith(b"HTTP/1.1 100 ")        # lbcore waits for the body
            sender.sendall(UPLOAD[:10_000])
        takers = [stack.enter_context(slow_download(lb, n)) for n in range(downloads)]
        for taker in takers:
            assert told(taker).startswith(b"HTTP/1.1 200 ")
        until(lambda: lb.backend(server.address)["inflight"] == 0, "no slow client at the backend")
        for number in range(20):
            fast(lb, f"fast-{number}")
        # All of them are still there and have a long way to go.
        assert not happened(server, "begin", "slow-upload")
        assert not any(select.select([sender], [], [], 0)[0] for sender in senders)
        assert len(happened(server, "end", "slow-download")) == downloads
        for sender in senders:
            upload_rest(sender)
        expected = b"".join(filler(DOWNLOAD))
        for taker in takers:
            assert everything(taker) == expected
    until(lambda: not lb.serving()[0]["connections"], "all connections ended")


@pytest.mark.parametrize("kind", ["upload", "download"])
def test_without_buffering_four_slow_clients_hold_all_four_and_fast_ones_wait(
    lb: Instance, server: Server, kind: str,
) -> None:
    """The contrast: the same clients, and the same application."""
    lb.file["listener"][0].update(buffer_request=False, buffer_response=False)
    lb.write()
    lb.start()
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context((slow_upload if kind == "upload" else slow_download)(lb, n))
                for n in range(WORKERS)]
        if kind == "upload":
            for sock in slow:
                told(sock)
                sock.sendall(UPLOAD[:10_000])
        until(lambda: len(happened(server, "begin", f"slow-{kind}")) == WORKERS, "all occupied")
        waits = stack.enter_context(socket.create_connection(lb.address, SECONDS))
        waits.sendall(b"GET /fast HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        until(lambda: lb.backend(server.address)["inflight"] == WORKERS + 1, "it at the backend")
        for sock in slow:
            if kind == "upload":
                upload_rest(sock)
            else:
                everything(sock)
        assert everything(waits).startswith(b"HTTP/1.1 200 ")
    begun, = happened(server, "begin", "/fast")
    assert begun > min(happened(server, "end", f"slow-{kind}"))
