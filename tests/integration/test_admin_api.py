"""The admin API of a running instance: what it tells is true, what it is told happens."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from aiohttp import ClientError, ClientSession, UnixConnector

from lbcore.admin.models import Event, StreamState
from lbcore.admin.operations import OPERATIONS
from tests.support.admin import PATIENCE, messages, next_of, undocumented
from tests.support.checked import CheckedBackend
from tests.support.instance import Instance, free_port, instance

Json = dict[str, Any]
TOKEN, ANOTHER = "a-token-as-long-as-it-should-be", "another-one-just-as-long"


@pytest.fixture
def backends() -> Iterator[list[CheckedBackend]]:
    made = [CheckedBackend(), CheckedBackend()]
    yield made
    for one in made:
        with contextlib.suppress(OSError):
            one.close()


@pytest.fixture
def running(backends: list[CheckedBackend]) -> Iterator[Instance]:
    """An instance with an http and a tcp listener."""
    with instance() as made:
        made.file["listener"] = [
            {"name": "main", "bind": f"127.0.0.1:{made.port}", "protocol": "http", "pool": "main",
             "route": [{"path": "/api/", "pool": "main"}, {"path": "/old/", "respond": {
                 "status": 410}}]},
            {"name": "plain", "bind": f"127.0.0.1:{free_port()}", "pool": "other"}]
        made.pool["backends"] = [{"address": one.address, "name": name}
                                 for one, name in zip(backends, "ab", strict=True)]
        made.pool["health"] = {"interval": "200ms", "fall": 1, "rise": 1}
        made.file["pool"]["other"] = {"demo": 1}
        made.write()
        made.start()
        yield made


@pytest.fixture
async def session(running: Instance) -> AsyncIterator[ClientSession]:
    async with ClientSession("http://localhost", connector=UnixConnector(str(running.admin_path)),
                             read_bufsize=2**20) as session:
        yield session


async def ask(session: ClientSession, method: str, path: str, **how: Any) -> tuple[int, Json]:
    """Status and body of an answer."""
    async with session.request(method, path, **how) as answer:
        return answer.status, await answer.json()


async def test_a_running_instance_tells_what_is_documented_and_nothing_else(
    running: Instance, session: ClientSession,
) -> None:
    for path in ("/", "/api/x", "/old/"):
        connection = http.client.HTTPConnection(*running.address, timeout=PATIENCE)
        connection.request("GET", path)
        connection.getresponse().read()
        connection.close()
    for operation in OPERATIONS:
        if operation.method != "GET" or operation.answer is None:
            continue
        path = operation.path.replace("{pool}", "main").replace("{backend}", "a")
        status, said = await ask(session, "GET", path)
        assert status == 200, (path, said)
        assert undocumented(operation.answer.model_validate(said), said) == [], path
    for path, kind in (("/v1/config.toml", "text/plain"), ("/metrics", "text/plain"),
                       ("/", "text/html"), ("/readyz", "text/plain")):
        async with session.get(path) as answer:
            assert (answer.status, answer.content_type) == (200, kind), path


async def test_changes_come_into_force_one_version_after_the_other(
    session: ClientSession, backends: list[CheckedBackend],
) -> None:
    spare = CheckedBackend()
    made: list[tuple[str, str, Json | None, int]] = [
        ("POST", "/v1/pools/main/backends", {"address": spare.address, "name": "new"}, 201),
        ("PATCH", "/v1/backends/main/new", {"weight": 5, "drain": True, "max_connections": 9}, 200),
        ("POST", "/v1/backends/main/new/undrain", None, 200),
        ("POST", "/v1/backends/main/new/force", {"state": "down"}, 200),
        ("POST", "/v1/backends/main/new/weight", {"weight": None}, 200),
        ("POST", "/v1/changes", {"changes": [
            {"op": "remove", "pool": "main", "backend": "new"},
            {"op": "drain", "pool": "main", "backend": "b", "value": True}]}, 200),
        ("PUT", "/v1/pools/main/backends", {"backends": [
            backends[0].address, {"address": spare.address, "weight": 3}]}, 200),
        ("PUT", "/v1/log", {"level": "debug"}, 200),
        ("DELETE", "/v1/pools/main/changes", None, 200),
        ("DELETE", "/v1/changes", None, 200),
        ("POST", "/v1/workers", {"count": 2}, 200),
        ("POST", "/v1/workers", {"count": None}, 200),
        ("POST", "/v1/reload", None, 200),
    ]
    _, said = await ask(session, "GET", "/v1/changes")
    version = said["plan_version"]
    for method, path, body, expected in made:
        status, said = await ask(session, method, path, json=body,
                                 headers={"If-Match": f'"{version}"'})
        assert status == expected, (path, said)
        template = path.replace("/main/new", "/{pool}/{backend}").replace("/main", "/{pool}")
        operation = next(one for one in OPERATIONS if (one.method, one.path) == (method, template))
        assert operation.answer is not None
        assert undocumented(operation.answer.model_validate(said), said) == [], path
        assert said["plan_version"] > version, path
        stale = {"If-Match": f'"{version}"'}
        version = said["plan_version"]
        refused, _ = await ask(session, "POST", "/v1/reload", headers=stale)
        assert refused == 412
    _, said = await ask(session, "GET", "/v1/changes")
    assert said == {"plan_version": version, "changes": []}
    spare.close()


async def test_what_no_file_may_say_is_refused_with_a_reason_and_changes_nothing(
    session: ClientSession, backends: list[CheckedBackend],
) -> None:
    _, before = await ask(session, "GET", "/v1/config")
    for body in ({"backends": [backends[0].address] * 2}, {"backends": []},
                 {"backends": [backends[0].address, "nowhere"]}):
        status, said = await ask(session, "PUT", "/v1/pools/main/backends", json=body)
        assert status == 422, said
        assert said["error"]["message"] and said["error"].get("hint") != "", said
    _, after = await ask(session, "GET", "/v1/config")
    assert after == before


async def test_stream_tells_of_a_backend_that_died_and_of_what_was_missed(
    session: ClientSession, backends: list[CheckedBackend],
) -> None:
    async with session.get("/v1/stream?interval=60") as answer:
        found = messages(answer)
        state = StreamState.model_validate_json((await next_of("state", found))["data"])
        assert {one.state for pool in state.status.pools for one in pool.backends} == {"up"}
        backends[1].close()
        while True:
            message = await next_of("event", found)
            event = Event.model_validate_json(message["data"])
            if event.event == "backend.state":
                break
        assert (event.fields["backend"], event.fields["new"]) == ("b", "down")
        assert int(message["id"]) == event.seq
    seen = {"Last-Event-ID": str(event.seq - 1)}
    async with session.get("/v1/stream", headers=seen) as answer:
        found = messages(answer)
        assert json.loads((await next_of("event", found))["data"]) == json.loads(message["data"])
        state = StreamState.model_validate_json((await next_of("state", found))["data"])
    main = next(pool for pool in state.status.pools if pool.name == "main")
    assert {one.name: one.state for one in main.backends} == {"a": "up", "b": "down"}


async def test_stream_ends_at_an_upgrade_and_goes_on_after_it(
    running: Instance, session: ClientSession,
) -> None:
    async with session.get("/v1/stream?interval=60") as answer:
        found = messages(answer)
        await next_of("state", found)
        status, _ = await ask(session, "POST", "/v1/upgrade")
        assert status == 202
        with contextlib.suppress(ClientError):
            async with asyncio.timeout(PATIENCE):
                async for _ in found:
                    pass
    async with asyncio.timeout(PATIENCE):
        while True:
            with contextlib.suppress(ClientError):
                async with session.get("/v1/stream") as answer:
                    state = json.loads((await next_of("state", messages(answer)))["data"])
                if state["status"]["generation"] == 2:
                    break
            await asyncio.sleep(0.05)
    assert running.complaints() == []


def test_idle_and_streaming_clients_do_not_keep_an_instance_from_ending(running: Instance) -> None:
    kept = []
    for path in ("/v1/stream?interval=60", "/healthz", "/v1/status"):
        connection = http.client.HTTPConnection("localhost")
        connection.sock = _connected(running)
        connection.request("GET", path)
        kept.append((connection, connection.getresponse()))
    running.admin.stop()
    assert running.exit_code() == 0
    for connection, _ in kept:
        connection.close()


def _connected(running: Instance) -> Any:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(PATIENCE)
    sock.connect(str(running.admin_path))
    return sock


# -- the address itself


def get(port: int, path: str, token: str) -> int:
    """The status of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    connection.request("POST" if path == "/v1/reload" else "GET", path,
                       headers={"Authorization": f"Bearer {token}"})
    status = connection.getresponse().status
    connection.close()
    return status


def test_token_is_read_again_at_reload_and_a_bad_one_changes_nothing() -> None:
    port = free_port()
    with instance() as made:
        token = made.directory / "token"
        token.write_text(TOKEN)
        token.chmod(0o600)
        made.file["admin"] = {"listen": f"0.0.0.0:{port}", "token_file": "token"}
        made.pool["demo"] = 1
        made.write()
        made.start()
        assert get(port, "/v1/workers", ANOTHER) == 401
        token.write_text(ANOTHER)
        token.chmod(0o644)
        assert get(port, "/v1/reload", TOKEN) == 422
        assert get(port, "/v1/workers", TOKEN) == 200
        token.chmod(0o600)
        with socket.create_connection(("127.0.0.1", port), timeout=20) as stream:
            stream.sendall(b"GET /v1/stream HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                           b"Authorization: Bearer " + TOKEN.encode() + b"\r\n\r\n")
            assert stream.recv(12) == b"HTTP/1.1 200"
            assert get(port, "/v1/reload", TOKEN) == 200
            ended, deadline = False, time.monotonic() + 20
            with contextlib.suppress(ConnectionResetError):
                while not ended and time.monotonic() < deadline:
                    ended = not stream.recv(65536)
            assert ended             # who knows the old token only hears no more
        assert get(port, "/v1/workers", TOKEN) == 401
        assert get(port, "/v1/workers", ANOTHER) == 200
        made.file["admin"] = {"listen": f"127.0.0.1:{port}"}     # waits for a restart
        made.write()
        assert get(port, "/v1/reload", ANOTHER) == 200
        assert get(port, "/v1/workers", "") == 401
        assert not any(secret in line for line in made.output() for secret in (TOKEN, ANOTHER))


def test_instance_does_not_start_where_others_could_control_it() -> None:
    with instance() as made:
        made.file["admin"] = {"listen": f"0.0.0.0:{free_port()}"}
        made.pool["demo"] = 1
        made.write()
        made.start(wait=False)
        assert made.exit_code() == 2
        assert "token_file" in made.tail()
