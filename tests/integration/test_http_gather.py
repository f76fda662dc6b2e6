"""Long bodies are taken from the kernel in longer pieces; nobody waits for the sake of it."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.support.http_lab import Ended, HttpLab, Wire, blob, reply, request
from tests.support.relay_lab import is_quiet, pool

GET = request()
SIZE = 4 << 20
DATA = blob(SIZE)
WAYS: dict[str, dict[str, Any]] = {
    "absorbed": {},
    "streamed": {"buffer_response": False},
}


def begun(web: HttpLab, client: Wire, server: Wire, size: int) -> None:
    """A body of SIZE bytes of which so many have come to the client."""
    server.request()
    server.say(reply(DATA)[:-SIZE], DATA[:size])
    client.head()
    assert client.exactly(size) == DATA[:size]


PIDFD_GETFD = 438                # its number on every architecture


def marks(pid: int) -> set[int]:
    """How much the kernel gathers for each of a process's TCP sockets before it says so."""
    call = ctypes.CDLL(None, use_errno=True).syscall
    process = os.pidfd_open(pid)
    found = set()
    try:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            fd = call(PIDFD_GETFD, process, int(entry.name), 0)
            if fd < 0:                  # closed by now
                if ctypes.get_errno() == errno.EPERM:
                    pytest.skip("this user may not look into another process")
                continue
            if not os.readlink(f"/proc/self/fd/{fd}").startswith("socket:"):    # noqa: PTH115
                os.close(fd)
                continue
            with socket.socket(fileno=fd) as sock:
                if sock.family == socket.AF_INET:
                    found.add(sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT))
    finally:
        os.close(process)
    return found


def test_the_kernel_gathers_while_a_long_body_comes_and_not_behind_it(web: HttpLab) -> None:
    origin = web.origin()
    web.web(pool(origin))
    client = web.client(GET)
    server = web.take(origin)
    seen = False
    for _ in range(200):                # it may have given up before we look
        begun(web, client, server, 300_000)
        seen = max(marks(web.worker.process.pid)) == 1 << 18
        server.say(DATA[300_000:])
        assert client.exactly(SIZE - 300_000) == DATA[300_000:]
        client.say(GET)
        if seen:
            break
    assert seen
    server.request()
    server.say(reply(b"short"))
    assert client.answer().body == b"short"
    web.until_idle()
    assert marks(web.worker.process.pid) == {1}


@pytest.mark.parametrize("size", [1, 70_000, 300_000, SIZE - 1000, SIZE - 1])
@pytest.mark.parametrize("way", WAYS)
def test_what_a_backend_said_before_a_pause_comes_within_the_pause(
    web: HttpLab, way: str, size: int,
) -> None:
    origin = web.origin()
    web.web(pool(origin), route=WAYS[way])
    client = web.client(GET)
    server = web.take(origin)
    begun(web, client, server, size)
    while size < SIZE:                  # also behind the first pause, and to the very end
        part = DATA[size:size + (SIZE - size + 1) // 2]
        server.say(part)
        assert client.exactly(len(part)) == part
        size += len(part)
    web.expect_http(ok=1)


@pytest.mark.parametrize("way", WAYS)
def test_a_short_answer_behind_a_long_one_is_not_kept_back(web: HttpLab, way: str) -> None:
    origin = web.origin()
    web.web(pool(origin), route=WAYS[way])
    client = web.client(GET)
    server = web.take(origin)
    for _ in range(3):
        server.request()
        server.say(reply(DATA))
        assert client.answer().body == DATA
        client.say(GET)
        server.request()                # on the connection that the long one came by
        server.say(reply(b"short"))
        assert client.answer().body == b"short"
        client.say(GET)
    server.request()
    server.say(reply(b"last"))
    assert client.answer().body == b"last"
    assert is_quiet(server.sock)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", [300_000, SIZE - 1000])
def test_a_long_answer_that_is_cut_is_cut_where_it_was(web: HttpLab, way: str, size: int) -> None:
    origin = web.origin()
    web.web(pool(origin), route=WAYS[way])
    client = web.client(GET)
    server = web.take(origin)
    begun(web, client, server, size)
    server.say(DATA[size:size + 500])
    assert client.exactly(500) == DATA[size:size + 500]
    server.sock.close()
    with pytest.raises(Ended):
        client.more()
    web.expect_http(answer_cut=1)


def test_a_long_answer_that_pauses_for_too_long_is_cut(web: HttpLab) -> None:
    origin = web.origin()
    web.web(pool(origin), route={"read_timeout_ms": 1500})
    client = web.client(GET)
    begun(web, client, web.take(origin), 300_000)
    with pytest.raises(Ended):
        client.more()
    web.expect_http(answer_cut=1)
