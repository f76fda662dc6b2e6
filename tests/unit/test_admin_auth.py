"""Whom the admin address answers: tokens, web pages of elsewhere, made-up host names."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import ClientSession

from lbcore.admin import connections
from lbcore.admin.auth import Guard
from lbcore.admin.contract import ControlError
from lbcore.admin.operations import OPERATIONS
from lbcore.admin.server import AdminServer
from lbcore.config.plan import AdminPlan
from tests.support.admin import PATIENCE
from tests.support.fake_control import FakeControl

TOKEN = "c0rrect-horse-battery-staple"
OPEN = {"/healthz", "/readyz"}


@pytest.fixture
def control() -> FakeControl:
    return FakeControl()


@pytest.fixture
async def server(control: FakeControl) -> AsyncIterator[AdminServer]:
    server = AdminServer(control, AdminPlan(TOKEN, hosts=("lb.internal",)))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        await server.start(listening)
        server.port = listening.getsockname()[1]  # type: ignore[attr-defined]
        yield server
        await server.stop()


@pytest.fixture
async def session(server: Any) -> AsyncIterator[ClientSession]:
    async with ClientSession(f"http://127.0.0.1:{server.port}") as session:
        yield session


def shown(token: str = TOKEN) -> dict[str, str]:
    """The header with a token."""
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize("operation", [one for one in OPERATIONS if one.path not in OPEN],
                         ids=lambda one: one.name)
async def test_nothing_is_told_or_changed_without_the_token(
    session: ClientSession, control: FakeControl, operation: Any,
) -> None:
    path = operation.path.replace("{pool}", "web").replace("{backend}", "web-0")
    for headers in (
        {}, shown("wrong"), shown(TOKEN + "x"), shown(TOKEN[:-1]), shown(""), shown("\xff\xfe"),
        {"Authorization": TOKEN}, {"Authorization": f"Basic {TOKEN}"},
        {"Cookie": f"token={TOKEN}"},
    ):
        async with session.request(operation.method, path, headers=headers) as answer:
            assert answer.status == 401, headers
            assert answer.headers["WWW-Authenticate"] == 'Bearer realm="lbcore"'
            assert TOKEN not in await answer.text()
    assert control.asked == []


async def test_nothing_is_read_of_a_body_without_the_token(session: ClientSession) -> None:
    async with session.post("/v1/stop", data=b"not JSON at all") as answer:
        assert answer.status == 401


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_the_token_opens(session: ClientSession, scheme: str) -> None:
    async with session.get("/v1/pools", headers={"Authorization": f"{scheme} {TOKEN}"}) as answer:
        assert answer.status == 200


async def test_health_and_the_page_that_asks_for_the_token_need_none(
    session: ClientSession,
) -> None:
    for path in ("/healthz", "/readyz", "/"):
        async with session.get(path) as answer:
            assert answer.status == 200, path


async def test_strangers_who_take_every_connection_keep_nobody_out_who_has_the_token(
    server: Any, session: ClientSession, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 4)
    (await session.get("/v1/workers", headers=shown())).release()        # a connection that stays
    strangers = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(8)]
    try:
        async with ClientSession(f"http://127.0.0.1:{server.port}") as late:
            for _ in range(3):
                async with late.get("/v1/workers", headers=shown()) as answer:
                    assert answer.status == 200
        for reader, _ in strangers[:4]:      # who was there longest makes room
            async with asyncio.timeout(PATIENCE):
                with contextlib.suppress(ConnectionError):
                    assert await reader.read() == b""
        monkeypatch.setattr(connections, "MAX_CONNECTIONS", 1)
        async with session.get("/v1/workers", headers=shown()) as answer:    # it still does
            assert answer.status == 200
        async with ClientSession(f"http://127.0.0.1:{server.port}") as late, late.get(
                "/v1/workers", headers=shown()) as answer:
            assert answer.status == 503      # nobody makes room for another who has the token
    finally:
        for _, writer in strangers:
            writer.close()


async def test_strangers_learn_no_reasons(session: ClientSession, control: FakeControl) -> None:
    for name in [one["name"] for one in (await control.status())["pools"][2]["backends"]]:
        control.turn("cache", name, "down", "refused")
    async with session.get("/readyz") as answer:
        assert (answer.status, await answer.text()) == (503, "not ready\n")
    async with session.get("/readyz", headers=shown()) as answer:
        assert "listener cache" in await answer.text()


async def test_new_token_replaces_the_old_one_at_once(
    session: ClientSession, server: AdminServer,
) -> None:
    server.configure(AdminPlan("another-one-altogether"))
    async with session.get("/v1/pools", headers=shown()) as answer:
        assert answer.status == 401
    async with session.get("/v1/pools", headers=shown("another-one-altogether")) as answer:
        assert answer.status == 200


async def test_unix_socket_asks_for_no_token(control: FakeControl, tmp_path: Any) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "a"))
        listening.listen()
        server = AdminServer(control, AdminPlan(TOKEN))
        await server.start(listening)
        try:
            reader, writer = await asyncio.open_unix_connection(tmp_path / "a")
            writer.write(b"GET /v1/pools HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            writer.close()
        finally:
            await server.stop()


async def test_address_beyond_loopback_does_not_open_without_a_token(control: FakeControl) -> None:
    with socket.create_server(("0.0.0.0", 0)) as listening:
        server = AdminServer(control)
        await server.start(listening)
        try:
            port = listening.getsockname()[1]
            async with ClientSession(f"http://127.0.0.1:{port}") as session:
                for token in ("", "None", "True"):
                    async with session.post("/v1/stop", headers=shown(token)) as answer:
                        assert answer.status == 401
        finally:
            await server.stop()
    assert control.asked == []


async def test_address_beyond_loopback_keeps_its_token_when_the_file_loses_it(
    control: FakeControl,
) -> None:
    with socket.create_server(("0.0.0.0", 0)) as listening:
        server = AdminServer(control, AdminPlan(TOKEN))
        await server.start(listening)
        server.configure(AdminPlan())            # the file names another address by now
        try:
            port = listening.getsockname()[1]
            async with ClientSession(f"http://127.0.0.1:{port}") as session:
                async with session.get("/v1/pools") as answer:
                    assert answer.status == 401
                async with session.get("/v1/pools", headers=shown()) as answer:
                    assert answer.status == 200
        finally:
            await server.stop()


# -- web pages of elsewhere


@pytest.mark.parametrize("headers", [
    {"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": "http://localhost:1"},
    {"Origin": "https://127.0.0.1"}, {"Origin": ""}, {"Origin": "http://127.0.0.1.evil.example"},
    {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Sec-Fetch-Site": ""},
    {"Host": "evil.example"}, {"Host": "evil.example:9900"}, {"Host": "lb.internal.evil.example"},
    {"Host": "localhost.evil.example"}, {"Host": "a@127.0.0.1"}, {"Host": "127.0.0.1 x"},
    {"Host": "2130706433"}, {"Host": "evil.example", "Origin": "http://evil.example"},
], ids=str)
async def test_requests_that_a_web_page_caused_are_refused(
    session: ClientSession, control: FakeControl, headers: dict[str, str],
) -> None:
    for method, path in (
        ("POST", "/v1/stop"), ("GET", "/v1/status"), ("GET", "/v1/stream"), ("GET", "/metrics"),
        ("GET", "/"), ("OPTIONS", "/v1/stop"), ("GET", "/healthz"),
    ):
        async with session.request(method, path, headers=shown() | headers) as answer:
            assert answer.status in (400, 403), path         # 400: no Host of HTTP
            assert "Access-Control-Allow-Origin" not in answer.headers
    assert control.asked == []


@pytest.mark.parametrize("headers", [
    {}, {"Host": "localhost"}, {"Host": "localhost:9900"}, {"Host": "[::1]:9900"},
    {"Host": "[::1]"}, {"Host": "LocalHost."}, {"Host": "lb.internal:80"}, {"Host": "LB.internal"},
    {"Host": "10.1.2.3"}, {"Host": "localhost:9900", "Origin": "http://localhost:9900"},
    {"Host": "lb.internal", "Origin": "https://lb.internal"},
    {"Host": "127.0.0.1", "Origin": "http://127.0.0.1", "Sec-Fetch-Site": "same-origin"},
    {"Sec-Fetch-Site": "none"},
], ids=str)
async def test_own_names_and_the_own_page_are_answered(
    session: ClientSession, headers: dict[str, str],
) -> None:
    async with session.post("/v1/backends/web/web-0/drain", headers=shown() | headers) as answer:
        assert answer.status == 200


async def test_link_of_another_page_leads_to_the_dashboard_and_to_nothing_else(
    session: ClientSession,
) -> None:
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate",
            "Sec-Fetch-Dest": "document"}
    async with session.get("/", headers=link) as answer:
        assert answer.status == 200
    async with session.get("/", headers=link | {"Sec-Fetch-Dest": "iframe"}) as answer:
        assert answer.status == 403
    for path in ("/v1/status", "/metrics"):
        async with session.get(path, headers=shown() | link) as answer:
            assert answer.status == 403


def test_any_wrong_token_is_compared_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []

    def digest(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return one == other

    monkeypatch.setattr("lbcore.admin.auth.hmac.compare_digest", digest)
    with pytest.raises(ControlError):
        Guard(TOKEN).check_token(shown("c0rrect"))
    assert compared == [(b"c0rrect", TOKEN.encode())]
