"""The admin address: its answers, its errors, and whom it does not answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import ClientSession, UnixConnector

from lbcore.admin import AdminServer, ControlError
from lbcore.config.plan import Address
from lbcore.supervisor.sockets import open_admin

Json = dict[str, Any]


class Recorder:
    """A control that notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[object, ...]] = []

    async def status(self) -> Json:
        self.asked.append(("status",))
        return {"state": "running"}

    async def reload(self) -> Json:
        raise ControlError(422, "two problems", "mend them", [{"line": 3}])

    async def restart(self, pool: str) -> Json:
        self.asked.append(("restart", pool))
        return {}

    async def set_drain(self, pool: str, backend: str, on: bool) -> Json:
        self.asked.append(("drain", pool, backend, on))
        return {}

    async def set_weight(self, pool: str, backend: str, weight: int | None) -> Json:
        self.asked.append(("weight", pool, backend, weight))
        return {}

    async def set_workers(self, count: int) -> Json:
        self.asked.append(("workers", count))
        return {}

    async def upgrade(self) -> Json:
        return {}

    async def stop(self, now: bool) -> Json:
        self.asked.append(("stop", now))
        return {}


@pytest.fixture
def control() -> Recorder:
    return Recorder()


@pytest.fixture
async def session(control: Recorder, tmp_path: Any) -> AsyncIterator[ClientSession]:
    listening = open_admin(Address(path=str(tmp_path / "a")))
    server = AdminServer(control)
    await server.start(listening)
    base = "http://localhost"
    async with ClientSession(base, connector=UnixConnector(str(tmp_path / "a"))) as session:
        yield session
    await server.stop()
    listening.close()


async def test_socket_is_for_its_owner_only(session: ClientSession, tmp_path: Any) -> None:
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600


async def test_refusal_carries_message_hint_and_problems(session: ClientSession) -> None:
    async with session.post("/v1/reload") as answer:
        assert answer.status == 422
        assert await answer.json() == {
            "error": {"message": "two problems", "hint": "mend them", "problems": [{"line": 3}]}}


async def test_names_with_slashes_and_colons_arrive_whole(
    session: ClientSession, control: Recorder,
) -> None:
    async with session.post("/v1/backends/web/unix%3A%2Frun%2Fa.sock/drain") as answer:
        assert answer.status == 200
    assert control.asked == [("drain", "web", "unix:/run/a.sock", True)]


@pytest.mark.parametrize("body", [b"", b"5", b"{", b'{"weight": "5"}', b'{"weight": 1001}',
                                  b'{"weight": true}'])
async def test_bad_bodies_are_refused_with_a_reason(
    session: ClientSession, control: Recorder, body: bytes,
) -> None:
    async with session.post("/v1/backends/web/a/weight", data=body) as answer:
        assert answer.status == 400
        assert (await answer.json())["error"]["message"]
    assert control.asked == []


async def test_weight_null_takes_the_override_back(
    session: ClientSession, control: Recorder,
) -> None:
    async with session.post("/v1/backends/web/a/weight", json={"weight": None}) as answer:
        assert answer.status == 200
    assert control.asked == [("weight", "web", "a", None)]


@pytest.mark.parametrize("headers", [
    {"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"},
    {"Host": "evil.example"}, {"Host": "evil.example:9900"},
])
async def test_requests_that_a_web_page_caused_are_refused(
    session: ClientSession, control: Recorder, headers: dict[str, str],
) -> None:
    async with session.post("/v1/stop", headers=headers) as answer:
        assert answer.status == 403
    assert control.asked == []


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:9900", "[::1]:9900", "[::1]"])
async def test_own_addresses_are_answered(session: ClientSession, host: str) -> None:
    async with session.get("/v1/status", headers={"Host": host}) as answer:
        assert answer.status == 200


async def test_unknown_paths_and_methods_are_json_too(session: ClientSession) -> None:
    async with session.get("/v2/nothing") as answer:
        assert answer.status == 404
        assert (await answer.json())["error"]["message"]
    async with session.get("/v1/reload") as answer:
        assert answer.status == 405
        assert answer.headers["Allow"] == "POST"
        assert (await answer.json())["error"]["message"]
