"""The live stream: what it tells, to whom it stops telling, and how it ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, UnixConnector

from lbcore.admin import stream
from lbcore.admin.models import Event, StreamState
from lbcore.admin.server import AdminServer
from lbcore.config.plan import Address
from lbcore.supervisor.sockets import open_admin
from tests.support.admin import PATIENCE, messages, next_of, until
from tests.support.fake_control import FakeControl


@pytest.fixture
def control() -> FakeControl:
    return FakeControl(backends=200)


@pytest.fixture
async def server(control: FakeControl, tmp_path: Path) -> AsyncIterator[AdminServer]:
    listening = open_admin(Address(path=str(tmp_path / "a")))
    server = AdminServer(control)
    await server.start(listening)
    yield server
    await server.stop()
    listening.close()


@pytest.fixture
async def session(server: AdminServer, tmp_path: Path) -> AsyncIterator[ClientSession]:
    connector = UnixConnector(str(tmp_path / "a"), limit=0)
    async with ClientSession("http://localhost", connector=connector,
                             read_bufsize=2**20) as session:
        yield session


async def test_first_message_is_the_state_with_live_figures(session: ClientSession) -> None:
    async with session.get("/v1/stream") as answer:
        assert answer.headers["Content-Type"] == "text/event-stream"
        assert answer.headers["Cache-Control"] == "no-store"
        state = json.loads((await next_of("state", messages(answer)))["data"])
    told = StreamState.model_validate(state)
    assert told.live is not None and told.live.total.requests_per_s
    assert {pool.name for pool in told.status.pools} == {"web", "api", "cache"}


async def test_live_figures_can_be_left_out(session: ClientSession) -> None:
    async with session.get("/v1/stream?live=false") as answer:
        assert set(json.loads((await next_of("state", messages(answer)))["data"])) == {"status"}


async def test_states_come_at_the_interval(session: ClientSession) -> None:
    async with session.get("/v1/stream?interval=0.5") as answer:
        found = messages(answer)
        times = {json.loads((await next_of("state", found))["data"])["status"]["time"]
                 for _ in range(3)}
    assert len(times) == 3


async def test_change_of_a_backend_is_told_at_once(
    session: ClientSession, control: FakeControl,
) -> None:
    async with session.get("/v1/stream?interval=60") as answer:
        found = messages(answer)
        await next_of("state", found)
        control.turn("web", "web-3", "down", "connection refused")
        state = StreamState.model_validate_json((await next_of("state", found))["data"])
    web = next(pool for pool in state.status.pools if pool.name == "web")
    assert {one.name for one in web.backends if one.state == "down"} == {"web-3"}


async def test_many_changes_make_few_states(session: ClientSession, control: FakeControl) -> None:
    async with session.get("/v1/stream?interval=60&live=false") as answer:
        found = messages(answer)
        await next_of("state", found)
        states, began = 0, asyncio.get_running_loop().time()
        for _ in range(10):
            for number in range(20):
                control.turn("web", f"web-{number}", "down", "refused")
            await asyncio.sleep(0.05)
        while True:
            state = json.loads((await next_of("state", found))["data"])
            states += 1
            web = next(pool for pool in state["status"]["pools"] if pool["name"] == "web")
            if sum(one["state"] == "down" for one in web["backends"]) == 20:
                break
        seconds = asyncio.get_running_loop().time() - began
    assert states <= 2 + seconds / stream.AT_MOST_EVERY


async def test_events_come_as_they_happen_with_their_number(
    session: ClientSession, control: FakeControl,
) -> None:
    async with session.get("/v1/stream?interval=60") as answer:
        found = messages(answer)
        await next_of("state", found)
        control.say("debug", "probe", "not worth telling")
        control.say("warning", "queue.full", "two\nlines", pool="web")
        message = await next_of("event", found)
    event = Event.model_validate_json(message["data"])
    assert message["id"] == str(event.seq) == "3"
    assert (event.event, event.message, event.fields) == (
        "queue.full", "two\nlines", {"pool": "web"})


@pytest.mark.parametrize(("path", "headers"), [
    ("/v1/stream?after=2", {}), ("/v1/stream", {"Last-Event-ID": "2"}),
    ("/v1/stream?after=0", {"Last-Event-ID": "2"})])
async def test_reader_that_comes_again_gets_what_it_missed(
    session: ClientSession, control: FakeControl, path: str, headers: dict[str, str],
) -> None:
    for number in range(5):
        control.say("info", f"happened.{number}")
    async with session.get(path, headers=headers) as answer:
        found = messages(answer)
        ids = [(await next_of("event", found))["id"] for _ in range(4)]
    assert ids == ["3", "4", "5", "6"]


async def test_number_of_an_earlier_instance_gives_all_events_of_this_one(
    session: ClientSession, control: FakeControl,
) -> None:
    control.say("info", "happened")
    async with session.get("/v1/stream", headers={"Last-Event-ID": "5000"}) as answer:
        assert (await next_of("event", messages(answer)))["id"] == "1"


@pytest.mark.parametrize("number", ["x", "-1", "", "1.5", "9" * 30])
async def test_last_event_id_that_is_no_number_is_refused(
    session: ClientSession, number: str,
) -> None:
    async with session.get("/v1/stream", headers={"Last-Event-ID": number}) as answer:
        assert answer.status == 400


async def test_silence_is_broken_by_comments(
    session: ClientSession, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stream, "PING", 0.05)
    async with session.get("/v1/stream?interval=60") as answer, asyncio.timeout(PATIENCE):
        while await answer.content.readline() != b": here\n":
            pass


async def test_reader_that_does_not_read_is_dropped_and_costs_little_memory(
    server: AdminServer, session: ClientSession, control: FakeControl, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stream, "STALL", 0.5)
    _, writer = await asyncio.open_unix_connection(tmp_path / "a", limit=1024)
    writer.write(b"GET /v1/stream?interval=0.5 HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await until(lambda: control.subscriptions)
    async with asyncio.timeout(PATIENCE):
        while control.subscriptions:             # changes make states as fast as they may come
            control.turn("web", "web-1", "down", "refused")
            waiting = [transport.get_write_buffer_size()
                       for transport in server._runner.server._connections.values()]
            assert max(waiting, default=0) < 2**20
            await asyncio.sleep(0.02)
    writer.close()
    async with session.get("/v1/stream") as answer:
        assert (await next_of("state", messages(answer)))["data"]


async def test_readers_that_leave_leave_nothing_behind(
    session: ClientSession, control: FakeControl, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stream, "PING", 0.05)
    for _ in range(5):
        async with session.get("/v1/stream") as answer:
            await next_of("state", messages(answer))
    await until(lambda: not (control.subscriptions or control._watchers))


async def test_all_readers_share_one_look_at_the_instance(
    session: ClientSession, control: FakeControl, monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks = 0
    real = control.state

    async def counted() -> Any:
        nonlocal looks
        looks += 1
        return await real()

    monkeypatch.setattr(control, "state", counted)

    async def read_three() -> None:
        async with session.get("/v1/stream?interval=0.5") as answer:
            found = messages(answer)
            for _ in range(3):
                await next_of("state", found)

    began = asyncio.get_running_loop().time()
    await asyncio.gather(*(read_three() for _ in range(20)))
    seconds = asyncio.get_running_loop().time() - began
    assert looks <= 5 * (seconds + 1)            # at most one in SLACK, not 60


async def test_streams_are_limited_and_the_limit_says_so(
    session: ClientSession, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stream, "MAX_STREAMS", 2)
    async with (session.get("/v1/stream"), session.get("/v1/stream"),
                session.get("/v1/stream") as third):
        assert third.status == 503
        assert (await third.json())["error"]["hint"] == "close one"


async def test_stream_ends_when_the_address_closes(
    session: ClientSession, server: AdminServer,
) -> None:
    async with session.get("/v1/stream?interval=60") as answer:
        found = messages(answer)
        await next_of("state", found)
        async with asyncio.timeout(PATIENCE):
            await server.stop()
            assert [message async for message in found] == []


async def test_stream_ends_when_the_instance_fails_to_tell(
    session: ClientSession, control: FakeControl, monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with session.get("/v1/stream?interval=0.5") as answer:
        found = messages(answer)
        await next_of("state", found)

        async def broken() -> Any:
            raise RuntimeError("broken")

        monkeypatch.setattr(control, "state", broken)
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(Exception):  # noqa: B017  (whatever the client calls a broken end)
                while True:
                    await anext(found)
