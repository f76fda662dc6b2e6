"""The admin address: its answers, its errors, and what requests may look like."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, UnixConnector

from lbcore.admin.operations import OPERATIONS
from lbcore.admin.server import AdminServer
from lbcore.config.plan import Address, AdminPlan
from lbcore.supervisor.sockets import open_admin
from tests.support.admin import undocumented
from tests.support.fake_control import FakeControl

Json = dict[str, Any]
BACKEND = "/v1/backends/web/web-0"


@pytest.fixture
def control() -> FakeControl:
    return FakeControl()


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
    async with ClientSession("http://localhost",
                             connector=UnixConnector(str(tmp_path / "a"))) as session:
        yield session


async def ask(session: ClientSession, method: str, path: str, **how: Any) -> tuple[int, Json]:
    """Status and body of an answer."""
    async with session.request(method, path, **how) as answer:
        return answer.status, await answer.json()


async def test_socket_is_for_its_owner_only(session: ClientSession, tmp_path: Path) -> None:
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600


READS = [one for one in OPERATIONS if one.method == "GET" and one.answer is not None]


@pytest.mark.parametrize("operation", READS, ids=lambda one: one.name)
async def test_every_question_is_answered_as_its_model_says(
    session: ClientSession, operation: Any,
) -> None:
    path = operation.path.replace("{pool}", "web").replace("{backend}", "web-0")
    status, said = await ask(session, "GET", path)
    assert status == 200
    assert undocumented(operation.answer.model_validate(said), said) == []


async def test_who_asks_for_one_backend_does_not_make_the_picture_of_all(
    session: ClientSession, control: FakeControl, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(FakeControl, "_worker")      # of which a picture has some
    assert (await ask(session, "GET", "/v1/status"))[0] == 500
    status, said = await ask(session, "GET", BACKEND)
    assert (status, said["pool"], said["name"]) == (200, "web", "web-0")
    for path in ("/v1/backends/web/nope", "/v1/backends/nope/web-0"):
        assert (await ask(session, "GET", path))[0] == 404


async def test_answers_carry_the_version_in_force(session: ClientSession) -> None:
    async with session.get("/v1/pools") as answer:
        assert answer.headers["ETag"] == '"1"'
        assert (await answer.json())["plan_version"] == 1
    async with session.post(BACKEND + "/drain") as answer:
        assert answer.headers["ETag"] == '"2"'
        assert (await answer.json())["plan_version"] == 2


@pytest.mark.parametrize(("method", "path", "body", "asked"), [
    ("POST", "/v1/pools/web/backends", {"address": "10.0.0.9:80", "name": "new", "weight": 3},
     ("add", "web", {"address": "10.0.0.9:80", "name": "new", "weight": 3})),
    ("PUT", "/v1/pools/web/backends", {"backends": ["10.0.0.9:80", {"address": "a.b:1"}]},
     ("replace", "web", [{"address": "10.0.0.9:80"}, {"address": "a.b:1"}])),
    ("DELETE", BACKEND, None, ("remove", "web", "web-0")),
    ("PATCH", BACKEND, {"weight": None, "drain": True},
     ("patch", "web", "web-0", {"weight": None, "drain": True})),
    ("POST", BACKEND + "/drain", None, ("patch", "web", "web-0", {"drain": True})),
    ("POST", BACKEND + "/undrain", {}, ("patch", "web", "web-0", {"drain": False})),
    ("POST", BACKEND + "/weight", {"weight": 7.0}, ("patch", "web", "web-0", {"weight": 7})),
    ("POST", BACKEND + "/force", {"state": "down"}, ("patch", "web", "web-0", {"force": "down"})),
    ("POST", "/v1/changes",
     {"changes": [{"op": "add", "pool": "web", "backend": "10.0.0.9:80"},
                  {"op": "drain", "pool": "api", "backend": "api-0", "value": True}]},
     ("change", [{"op": "add", "pool": "web", "backend": {"address": "10.0.0.9:80"}},
                 {"op": "drain", "pool": "api", "backend": "api-0", "value": True}])),
    ("DELETE", "/v1/changes", None, ("forget", None)),
    ("DELETE", "/v1/pools/web/changes", None, ("forget", "web")),
    ("PUT", "/v1/log", {"level": "debug"}, ("log", "debug")),
    ("POST", "/v1/workers", {"count": None}, ("workers", None)),
    ("POST", "/v1/reload", None, ("reload",)),
    ("POST", "/v1/upgrade", None, ("upgrade",)),
    ("POST", "/v1/stop", None, ("stop", False)),
    ("POST", "/v1/stop", {"now": True}, ("stop", True)),
])
async def test_changes_reach_the_instance_as_they_were_sent(
    session: ClientSession, control: FakeControl, method: str, path: str, body: Json | None,
    asked: tuple[Any, ...],
) -> None:
    status, said = await ask(session, method, path, json=body)
    assert status in (200, 201, 202), said
    assert control.asked == [asked]
    operation = next(one for one in OPERATIONS if one.method == method and one.path == (
        path.replace("/web/web-0", "/{pool}/{backend}").replace("/web", "/{pool}")))
    assert status == operation.status
    assert operation.answer is not None
    assert undocumented(operation.answer.model_validate(said), said) == []


async def test_names_with_slashes_and_colons_arrive_whole(
    session: ClientSession, control: FakeControl,
) -> None:
    await ask(session, "POST", "/v1/backends/web/unix%3A%2Frun%2Fa.sock/drain")
    assert control.asked == [("patch", "web", "unix:/run/a.sock", {"drain": True})]


# -- versions


@pytest.mark.parametrize("path", ["/v1/reload", "/v1/stop", "/v1/upgrade", BACKEND + "/drain"])
async def test_change_that_expects_another_version_changes_nothing(
    session: ClientSession, control: FakeControl, path: str,
) -> None:
    status, said = await ask(session, "POST", path, headers={"If-Match": '"41"'})
    assert status == 412
    assert "version 1 is in force, not 41" in said["error"]["message"]
    assert control.plan_version == 1
    assert ("stop", False) not in control.asked and ("upgrade",) not in control.asked


@pytest.mark.parametrize("expected", ['"1"', "1", "*"])
async def test_change_that_expects_the_version_in_force_is_made(
    session: ClientSession, expected: str,
) -> None:
    status, said = await ask(session, "POST", "/v1/reload", headers={"If-Match": expected})
    assert (status, said["plan_version"]) == (200, 2)


@pytest.mark.parametrize("expected", ['1"', 'W/"1"', '"one"', '""', '"1", "2"'])
async def test_if_match_that_is_no_version_is_refused(
    session: ClientSession, control: FakeControl, expected: str,
) -> None:
    status, said = await ask(session, "POST", "/v1/reload", headers={"If-Match": expected})
    assert status == 400
    assert "ETag" in said["error"]["hint"]
    assert control.asked == []


# -- what is wrong with a request


@pytest.mark.parametrize(("body", "why"), [
    (b"", "missing"), (b"5", "object"), (b"{", "JSON"), (b'{"weight": "5"}', "whole number"),
    (b'{"weight": 1001}', "too large"), (b'{"weight": true}', "whole number"), (b"{}", "missing"),
    (b'{"weight": 1.5}', "whole number"), (b'{"weight": 1e999}', "too large"),
    (b'{"weight": NaN}', "NaN"), (b"\xff", "UTF-8"),
    (b'{"weight": 5, "wait": 1}', "unknown key"), (b"[" * 100_000, "nested"),
    (b'{"weight": ' + b"9" * 5000 + b"}", ""),
])
async def test_bad_bodies_are_refused_with_a_reason(
    session: ClientSession, control: FakeControl, body: bytes, why: str,
) -> None:
    status, said = await ask(session, "POST", BACKEND + "/weight", data=body,
                             headers={"Content-Type": "application/json"})
    assert status == 400
    assert why in said["error"]["message"]
    assert control.asked == []


async def test_each_problem_of_a_body_has_its_place_and_the_nearest_key(
    session: ClientSession, control: FakeControl,
) -> None:
    status, said = await ask(session, "POST", "/v1/changes", json={"changes": [
        {"op": "add", "pool": "web", "backend": {"adress": "10.0.0.1:80"}},
        {"op": "wieght", "pool": "web", "backend": "a", "value": 3},
        {"op": "weight", "pool": "web", "backend": "a", "value": "3"},
    ]})
    assert status == 400
    problems = {one["key"]: (one["message"], one["hint"]) for one in said["error"]["problems"]}
    assert problems["changes[0].backend.adress"] == ("unknown key", 'did you mean "address"?')
    assert problems["changes[1]"][0] == 'op "wieght" is not a choice'
    assert problems["changes[2].value"][0] == "must be a whole number, not a string"
    assert len(problems) == 3, "the misspelt key is told once"
    assert control.asked == []


async def test_what_no_file_could_say_is_unprocessable(session: ClientSession) -> None:
    status, said = await ask(session, "PUT", "/v1/pools/web/backends",
                             json={"backends": ["10.0.0.1:80", "nowhere"]})
    assert status == 422
    assert said["error"]["problems"] == [{
        "file": "request", "line": 0, "key": "backends[1].address",
        "message": '"nowhere" has no port', "hint": '"nowhere:8000"'}]


async def test_refusal_carries_message_hint_and_problems(session: ClientSession) -> None:
    status, said = await ask(session, "PUT", "/v1/pools/web/backends", json={"backends": []})
    assert status == 422
    assert said["error"]["problems"][0]["key"] == "pool.web.backends"


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded",
                                  "multipart/form-data"])
async def test_body_that_does_not_say_that_it_is_json_is_refused(
    session: ClientSession, control: FakeControl, kind: str,
) -> None:
    status, said = await ask(session, "POST", "/v1/stop", data=b'{"now": true}',
                             headers={"Content-Type": kind})
    assert (status, said["error"]["hint"]) == (415, "Content-Type: application/json")
    assert control.asked == []


@pytest.mark.parametrize("query", ["windw=5", "window=0", "window=61", "window=five", "window=",
                                   "window=5&window=6", "window=5.5", "window=+5"])
async def test_bad_queries_are_refused_with_a_reason(session: ClientSession, query: str) -> None:
    status, said = await ask(session, "GET", f"/v1/live?{query}")
    assert status == 400
    assert "window" in json.dumps(said["error"])


async def test_body_that_is_too_large_is_refused(session: ClientSession) -> None:
    status, said = await ask(session, "POST", "/v1/stop", data=b" " * (3 * 2**20),
                             headers={"Content-Type": "application/json"})
    assert (status, said["error"]["hint"]) == (413, "at most 2 MiB")


async def test_unknown_paths_and_methods_are_json_too(session: ClientSession) -> None:
    status, said = await ask(session, "GET", "/v2/nothing")
    assert status == 404 and said["error"]["message"]
    async with session.get("/v1/reload") as answer:
        assert answer.status == 405
        assert answer.headers["Allow"] == "POST"
        assert (await answer.json())["error"]["message"]


async def test_fault_inside_says_nothing_of_the_inside(
    session: ClientSession, control: FakeControl, monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken() -> Json:
        raise RuntimeError("secret")

    monkeypatch.setattr(control, "changes", broken)
    async with session.get("/v1/changes") as answer:
        assert answer.status == 500
        text = await answer.text()
    assert "log" in json.loads(text)["error"]["message"] and "secret" not in text


# -- health of the instance itself


async def test_alive_and_ready_are_plain_words(session: ClientSession) -> None:
    async with session.get("/healthz") as answer:
        assert (answer.status, await answer.text()) == (200, "ok\n")
    async with session.get("/readyz") as answer:
        assert (answer.status, await answer.text()) == (200, "ready\n")


async def test_listener_without_a_backend_makes_it_unready(
    session: ClientSession, control: FakeControl,
) -> None:
    status = await control.status()
    cache = next(pool for pool in status["pools"] if pool["name"] == "cache")
    for backend in cache["backends"]:
        control.turn("cache", backend["name"], "down", "refused")
    async with session.get("/readyz") as answer:
        assert answer.status == 503
        assert "listener cache" in await answer.text()


async def test_switches_take_dashboard_and_metrics_away(
    session: ClientSession, server: AdminServer,
) -> None:
    server.configure(AdminPlan(dashboard=False, metrics=False))
    for path in ("/", "/metrics"):
        async with session.get(path) as answer:
            assert answer.status == 404, path
