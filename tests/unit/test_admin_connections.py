"""Nobody holds the admin address up: too many connections, slow ones, and what is not HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from lbcore.admin import connections
from lbcore.admin import server as serving
from lbcore.admin.connections import MAX_CONNECTIONS, SETTINGS
from lbcore.admin.server import AdminServer
from lbcore.config.plan import Address
from lbcore.supervisor.sockets import open_admin
from tests.support.admin import PATIENCE, until
from tests.support.fake_control import FakeControl

GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[AdminServer]:
    listening = open_admin(Address(path=str(tmp_path / "a")))
    server = AdminServer(FakeControl(backends=2000))
    await server.start(listening)
    yield server
    async with asyncio.timeout(PATIENCE):
        await server.stop()
    listening.close()


@pytest.fixture
async def crowd(tmp_path: Path, server: AdminServer) -> AsyncIterator[list[Pair]]:
    """As many connections as are allowed, all idle."""
    made = [await asyncio.open_unix_connection(tmp_path / "a") for _ in range(MAX_CONNECTIONS)]
    await until(lambda: open_connections(server) == MAX_CONNECTIONS)
    yield made
    for _, writer in made:
        writer.close()


def open_connections(server: AdminServer) -> int:
    """How many the server has."""
    return len(server._runner.server.connections) if server._runner else 0


async def whole(reader: asyncio.StreamReader) -> bytes:
    """Everything until the other side ends."""
    async with asyncio.timeout(PATIENCE):
        with contextlib.suppress(ConnectionError):
            return await reader.read()
        return b""


def body_of(answer: bytes) -> Any:
    """The JSON of an answer."""
    return json.loads(answer.partition(b"\r\n\r\n")[2])


async def test_one_connection_too_many_is_told_so_and_closed(
    crowd: list[Pair], tmp_path: Path,
) -> None:
    reader, writer = await asyncio.open_unix_connection(tmp_path / "a")
    answer = await whole(reader)
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"\r\nRetry-After: 1\r\n" in answer
    assert "200 connections" in body_of(answer)["error"]["message"]
    writer.close()
    crowd[7][1].write(GET)                       # those that are there go on
    async with asyncio.timeout(PATIENCE):
        assert b" 200 OK" in await crowd[7][0].readline()


async def test_refusal_arrives_although_the_request_was_sent_already(
    crowd: list[Pair], tmp_path: Path,
) -> None:
    reader, writer = await asyncio.open_unix_connection(tmp_path / "a")
    writer.write(GET + b"x" * 5000)
    assert (await whole(reader)).startswith(b"HTTP/1.1 503 ")
    writer.close()


async def test_place_of_a_connection_that_closed_is_free_again(
    crowd: list[Pair], tmp_path: Path, server: AdminServer,
) -> None:
    crowd[0][1].close()
    await until(lambda: open_connections(server) < MAX_CONNECTIONS)
    reader, writer = await asyncio.open_unix_connection(tmp_path / "a")
    writer.write(GET)
    async with asyncio.timeout(PATIENCE):
        assert b" 200 OK" in await reader.readline()
    writer.close()


async def test_refused_clients_that_stay_are_let_go(
    crowd: list[Pair], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connections, "REFUSAL", 0.2)
    monkeypatch.setattr(connections, "MAX_REFUSALS", 5)
    pairs = [await asyncio.open_unix_connection(tmp_path / "a") for _ in range(20)]
    answers = [await whole(reader) for reader, _ in pairs]
    assert sum(answer.startswith(b"HTTP/1.1 503 ") for answer in answers) >= 5
    for _, writer in pairs:
        writer.close()


async def test_silent_connection_is_closed(
    tmp_path: Path, server: AdminServer, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(SETTINGS, "keepalive_timeout", 0.2)
    reader, writer = await asyncio.open_unix_connection(tmp_path / "a")
    assert await whole(reader) == b""
    writer.close()


async def test_head_that_comes_byte_by_byte_is_not_waited_for(
    tmp_path: Path, server: AdminServer, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(SETTINGS, "keepalive_timeout", 0.3)
    reader, writer = await asyncio.open_unix_connection(tmp_path / "a")
    ended = asyncio.create_task(whole(reader))
    writer.write(b"GET / HTTP/1.1\r\nX: ")
    with contextlib.suppress(ConnectionError):
        while not ended.done():
            writer.write(b"y")
            await asyncio.sleep(0.02)
    assert await ended == b""
    writer.close()


async def test_body_that_does_not_come_is_not_waited_for(
    tmp_path: Path, server: AdminServer, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(serving, "BODY_PATIENCE", 0.2)
    monkeypatch.setitem(SETTINGS, "lingering_time", 0.1)
    reader, writer = await asyncio.open_unix_connection(tmp_path / "a")
    writer.write(b"POST /v1/stop HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n"
                 b"Content-Type: application/json\r\n\r\n{")
    answer = await whole(reader)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert "did not come" in body_of(answer)["error"]["message"]
    writer.close()


async def test_client_that_does_not_take_the_answer_is_dropped(
    tmp_path: Path, server: AdminServer, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(serving, "ANSWER_PATIENCE", 0.3)
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(tmp_path / "a"))
    sock.sendall(b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert server._runner is not None
    await until(lambda: server._runner.server.requests_count)
    await until(lambda: not open_connections(server))
    sock.close()


@pytest.mark.parametrize("sent", [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)),       # TLS
    b"GARBAGE\r\n\r\n", b"\x00" * 100 + b"\r\n\r\n", b"GET /\r\n\r\n",
    b"GET / HTTP/1.1\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
    b"GET /" + b"y" * 100_000 + b" HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + b"".join(b"X%d: y\r\n" % i for i in range(1000)) + b"\r\n",
    b"POST /v1/stop HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
    b"POST /v1/stop HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"POST /v1/stop HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
], ids=range(10))
async def test_what_is_not_http_is_refused_as_json_and_not_logged(
    tmp_path: Path, server: AdminServer, sent: bytes, caplog: pytest.LogCaptureFixture,
) -> None:
    reader, writer = await asyncio.open_unix_connection(tmp_path / "a")
    with caplog.at_level(logging.WARNING):
        writer.write(sent)
        writer.write_eof()
        answer = await whole(reader)
    if answer:
        assert answer.startswith(b"HTTP/1.") and answer.split()[1] in (b"400", b"404", b"414")
        assert body_of(answer)["error"]["message"]
    assert caplog.records == []
    writer.close()


async def test_random_bytes_do_no_harm(
    tmp_path: Path, server: AdminServer, caplog: pytest.LogCaptureFixture,
) -> None:
    dice = random.Random(4)
    heads = [b"", b"GET ", b"POST /v1/stop HTTP/1.1\r\nHost: localhost\r\n",
             b"PUT /v1/log HTTP/1.1\r\nContent-Length: 10\r\nContent-Type: application/json\r\n"]
    for _ in range(200):
        reader, writer = await asyncio.open_unix_connection(tmp_path / "a")
        with contextlib.suppress(ConnectionError):
            writer.write(dice.choice(heads) + dice.randbytes(dice.randrange(2000)) + b"\r\n\r\n")
            writer.write_eof()
            await whole(reader)
        writer.close()
    assert caplog.records == []
    reader, writer = await asyncio.open_unix_connection(tmp_path / "a")
    writer.write(GET)
    async with asyncio.timeout(PATIENCE):
        assert b" 200 OK" in await reader.readline()
    writer.close()


async def test_closing_does_not_wait_for_idle_connections(
    crowd: list[Pair], server: AdminServer,
) -> None:
    async with asyncio.timeout(PATIENCE):
        await server.stop()
        for reader, _ in crowd:
            assert await whole(reader) == b""


@pytest.mark.parametrize("turns", [1, 2, 3])
async def test_who_is_accepted_just_before_the_address_closes_is_answered(
    tmp_path: Path, server: AdminServer, turns: int,
) -> None:
    clients = [socket.socket(socket.AF_UNIX) for _ in range(20)]
    for client in clients:
        client.settimeout(PATIENCE)
        client.connect(str(tmp_path / "a"))
    for client in clients[:10]:
        client.sendall(GET)
    for _ in range(turns):               # of the loop, which accepts in the first
        await asyncio.sleep(0)
    stopping = asyncio.create_task(server.stop())
    await asyncio.sleep(0)
    for client in clients[10:]:          # who has connected has something to say, too
        client.sendall(GET)
    await stopping
    for client in clients:
        assert b" 200 OK" in client.recv(4096)
        client.close()


async def test_all_get_an_answer_when_many_ask_at_once(tmp_path: Path, server: AdminServer) -> None:
    async def ask() -> bytes:
        reader, writer = await asyncio.open_unix_connection(tmp_path / "a")
        writer.write(b"GET /v1/pools/cache HTTP/1.1\r\nHost: localhost\r\n"
                     b"Connection: close\r\n\r\n")
        answer = await whole(reader)
        writer.close()
        return answer

    answers = await asyncio.gather(*(ask() for _ in range(100)))
    assert all(answer.startswith(b"HTTP/1.1 200 ") for answer in answers)
