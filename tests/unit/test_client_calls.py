"""The clients of the admin address: the one that waits and the one for asyncio say the same.

They talk to the real server of the admin address, behind which is a made-up instance.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterator,
)
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

import lbcore
from lbcore.admin.operations import OPERATIONS
from lbcore.admin.server import AdminServer
from lbcore.client import AsyncClient, AsyncPool, Client, Pool
from lbcore.client.models import Event, StreamState
from lbcore.config.plan import AdminPlan
from tests.support.fake_control import FakeControl
from tests.support.instance import free_port

ROOT = Path(__file__).parents[2]
TOKEN = "a-token-that-nobody-can-guess"
# Operations whose methods are called otherwise, or are part of another.
CALLED = {"pool": "pool_status", "backend": "backend_status", "healthz": "healthy",
          "readyz": "ready", "forget_pool_changes": "forget_changes", "weight": "set_weight"}


class Asking:
    """Either client, asked the same way."""

    def __init__(self, kind: str, *arguments: Any, **more: Any) -> None:
        self.client: Any = {"sync": Client, "async": AsyncClient}[kind](*arguments, **more)
        self.kind = kind

    async def do(self, what: str, *arguments: Any, of: Any = None, **more: Any) -> Any:
        """Calls a method of the client, or of something it gave."""
        method: Callable[..., Any] = getattr(of or self.client, what)
        if self.kind == "async":
            return await cast(Awaitable[Any], method(*arguments, **more))
        return await asyncio.to_thread(method, *arguments, **more)

    async def each(self, what: str, *arguments: Any, **more: Any) -> AsyncGenerator[Any, None]:
        """Iterates over what a method gives."""
        found = getattr(self.client, what)(*arguments, **more)
        if self.kind == "async":
            async for one in found:
                yield one
            return
        generator = cast(Generator[Any, None, None], found)
        while (one := await asyncio.to_thread(next, generator, None)) is not None:
            yield one


@asynccontextmanager
async def served(listening: socket.socket, plan: AdminPlan | None = None,
                 ) -> AsyncIterator[FakeControl]:
    """A made-up instance at an address."""
    control = FakeControl(4)
    server = AdminServer(control, plan)
    with listening:
        await server.start(listening)
        try:
            yield control
        finally:
            await server.stop()


@pytest.fixture
async def there(tmp_path: Path) -> AsyncIterator[tuple[FakeControl, Path]]:
    """A made-up instance, and its unix socket."""
    path = tmp_path / "admin.sock"
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    listening.listen()
    async with served(listening) as control:
        yield control, path


@pytest.fixture(params=["sync", "async"])
def asking(request: pytest.FixtureRequest, there: tuple[FakeControl, Path]) -> Asking:
    return Asking(request.param, there[1], timeout=20)


# ---- the same in both --------------------------------------------------------------------------

def methods(kind: type) -> dict[str, Any]:
    return {name: one for name, one in vars(kind).items() if not name.startswith("_")}


@pytest.mark.parametrize(("waits", "asynchronous"), [(Client, AsyncClient), (Pool, AsyncPool)])
def test_both_clients_have_the_same_methods_with_the_same_words(
    waits: type, asynchronous: type
) -> None:
    one, other = methods(waits), methods(asynchronous)
    assert one.keys() == other.keys()
    for name, method in one.items():
        if callable(method):
            assert (inspect.signature(method).parameters.keys()
                    == inspect.signature(other[name]).parameters.keys()), name


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda one: one.name)
def test_every_operation_has_a_method(operation: Any) -> None:
    method = getattr(Client, CALLED.get(operation.name, operation.name))
    if operation.changes and operation.name not in ("upgrade", "stop", "restart"):
        assert "expect" in inspect.signature(method).parameters


# ---- reading -----------------------------------------------------------------------------------

READING: list[tuple[str, tuple[Any, ...], str]] = [
    ("status", (), "Status"), ("workers", (), "list"), ("listeners", (), "list"),
    ("pools", (), "list"), ("live", (5,), "Live"), ("events", (), "Events"),
    ("changes", (), "Changes"), ("config", (), "RunningConfig"), ("config_toml", (), "str"),
    ("openapi", (), "dict"), ("ready", (), "Readiness"), ("healthy", (), "bool"),
]


@pytest.mark.parametrize(("what", "arguments", "kind"), READING)
async def test_answers_have_types(
    asking: Asking, what: str, arguments: tuple[Any, ...], kind: str
) -> None:
    assert type(await asking.do(what, *arguments)).__name__ == kind


async def test_a_pool_and_its_backends_can_be_looked_at(asking: Asking) -> None:
    pool = (await asking.do("status")).pools[0]
    assert (await asking.do("pool_status", pool.name)).name == pool.name
    backend = pool.backends[0]
    found = await asking.do("backend_status", pool.name, backend.name)
    assert (found.pool, found.name, found.address) == (pool.name, backend.name, backend.address)
    handle = asking.client.pool(pool.name)
    assert (await asking.do("backend", backend.address, of=handle)).name == backend.name


async def test_answers_are_frozen(asking: Asking) -> None:
    status = await asking.do("status")
    with pytest.raises(ValueError, match="frozen"):
        status.pid = 1


# ---- changing ----------------------------------------------------------------------------------

async def test_backends_come_change_and_go(
    asking: Asking, there: tuple[FakeControl, Path]
) -> None:
    name = (await asking.do("pools"))[0].name
    pool = asking.client.pool(name)
    added = await asking.do("add", "10.9.9.9:80", name="new", weight=3, of=pool)
    assert (added.name, added.weight, added.pool) == ("new", 3, name)
    assert (await asking.do("drain", "new", of=pool)).draining
    assert not (await asking.do("undrain", "10.9.9.9:80", of=pool)).draining
    assert (await asking.do("set_weight", "new", 7, of=pool)).weight == 7
    assert (await asking.do("force", "new", "down", of=pool)).forced == "down"
    patched = await asking.do("patch_backend", name, "new", weight=None, force=None)
    assert (patched.weight, patched.forced) == (patched.weight_configured, None)
    removed = await asking.do("remove", "10.9.9.9:80", of=pool)
    assert (removed.pool, removed.backend) == (name, "new")
    replaced = await asking.do("replace", ["10.9.9.1:80", {"address": "10.9.9.2:80"}], of=pool)
    assert sorted(replaced.added) == ["10.9.9.1:80", "10.9.9.2:80"]
    assert {one.address for one in await asking.do("backends", of=pool)} == {
        "10.9.9.1:80", "10.9.9.2:80"}
    assert (await asking.do("forget_changes", of=pool)).plan_version > replaced.plan_version


async def test_several_changes_come_together(asking: Asking) -> None:
    pool = (await asking.do("pools"))[0]
    first, *_ = pool.backends
    said = await asking.do("change", [
        {"op": "add", "pool": pool.name, "backend": {"address": "10.9.9.9:80"}},
        {"op": "drain", "pool": pool.name, "backend": first.name, "value": True}])
    assert {one.op for one in said.changes} >= {"add", "drain"}


async def test_the_instance_is_told_what_to_do(asking: Asking) -> None:
    assert (await asking.do("set_log_level", "debug")).level == "debug"
    assert (await asking.do("set_workers", 3)).workers == 3
    assert (await asking.do("reload")).needs_restart == []
    assert (await asking.do("upgrade")).next_generation == 2
    assert (await asking.do("stop", now=True)).state == "now"


async def test_a_patch_of_nothing_is_refused_before_it_is_sent(asking: Asking) -> None:
    with pytest.raises(ValueError, match="nothing to change"):
        await asking.do("patch_backend", "web", "a")


async def test_a_change_meant_for_another_plan_is_not_made(asking: Asking) -> None:
    pool = (await asking.do("pools"))[0]
    version = (await asking.do("status")).plan_version
    with pytest.raises(lbcore.Stale) as raised:
        await asking.do("drain", pool.name, pool.backends[0].name, expect=version + 5)
    assert raised.value.status == 412
    assert not (await asking.do("backend_status", pool.name, pool.backends[0].name)).draining
    await asking.do("drain", pool.name, pool.backends[0].name, expect=version)


# ---- errors ------------------------------------------------------------------------------------

async def test_what_is_not_there_is_said_with_what_is(asking: Asking) -> None:
    with pytest.raises(lbcore.NotFound) as raised:
        await asking.do("pool_status", "no such pool")
    assert "no such pool" in raised.value.message
    assert raised.value.status == 404


async def test_what_no_file_could_say_comes_with_every_problem(asking: Asking) -> None:
    pool = (await asking.do("pools"))[0].name
    with pytest.raises(lbcore.AdminError) as raised:
        await asking.do("add_backend", pool, "nonsense", weight=-1)
    assert raised.value.status in (400, 422)
    assert len(raised.value.problems) >= 2
    assert all(problem["message"] for problem in raised.value.problems)


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_nobody_there_is_an_error_of_its_own(tmp_path: Path, kind: str) -> None:
    for address in (tmp_path / "none.sock", f"127.0.0.1:{free_port()}"):
        asking = Asking(kind, address, timeout=20)
        assert not await asking.do("healthy")
        with pytest.raises(lbcore.NotRunning, match="is it running"):
            await asking.do("status")


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_who_does_not_answer_is_given_up(kind: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        asking = Asking(kind, f"127.0.0.1:{silent.getsockname()[1]}", timeout=0.3)
        with pytest.raises(lbcore.NotRunning, match=r"within 0\.3 seconds"):
            await asking.do("status")


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("said", [
    b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", b"",
    b"HTTP/1.1 500 Oh\r\nContent-Length: 2\r\n\r\n[]",
])
async def test_who_is_not_lbcore_is_not_believed(kind: str, said: bytes) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(said)
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(lbcore.ClientError, match=f"127.0.0.1:{port}"):
            await Asking(kind, f"127.0.0.1:{port}", timeout=20).do("status")


@contextmanager
def somebody_else(directory: Path) -> Iterator[tuple[Path, Callable[[], bytes]]]:
    """A process of another user that listens: where, and how many bytes it was sent."""
    directory.chmod(0o777)
    listen = ("import os, socket, sys\n"
              "os.setresuid(65534, 65534, 65534)\n"
              "sock = socket.socket(socket.AF_UNIX); sock.bind('their.sock'); sock.listen()\n"
              "print(flush=True); print(len(sock.accept()[0].recv(100)), flush=True)")
    with subprocess.Popen([sys.executable, "-c", listen], stdout=subprocess.PIPE, cwd=directory,
                          ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield directory / "their.sock", process.stdout.readline


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_nothing_is_sent_to_a_process_of_another_user(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with somebody_else(tmp_path) as (path, heard):
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        with pytest.raises(lbcore.NotRunning, match="user 65534"):
            await Asking(kind, path, timeout=20).do("status")
        assert await asyncio.to_thread(heard) == b"0\n"


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_a_token_opens_what_is_closed(kind: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    listening = socket.create_server(("127.0.0.1", 0))
    address = f"127.0.0.1:{listening.getsockname()[1]}"
    async with served(listening, AdminPlan(token=TOKEN)):
        for wrong in (None, "another"):
            with pytest.raises(lbcore.Denied):
                await Asking(kind, address, token=wrong).do("status")
        assert await Asking(kind, address, token=TOKEN).do("status")
        assert await Asking(kind, f"http://{address}/", token_file=tmp_path / "token").do("status")


# ---- as it happens -----------------------------------------------------------------------------

async def test_a_stream_has_states_and_events(
    asking: Asking, there: tuple[FakeControl, Path]
) -> None:
    control = there[0]
    kinds = []
    async with asyncio.timeout(20):
        async for one in (stream := asking.each("stream", 0.5)):
            kinds.append(type(one))
            if isinstance(one, StreamState):
                assert one.live is not None
                control.say("info", "test.happened", "as it happens")
            elif one.event == "test.happened":
                break
    await stream.aclose()
    assert kinds[0] is StreamState
    assert kinds[-1] is Event


async def test_who_follows_hears_every_event_once_over_an_upgrade(
    there: tuple[FakeControl, Path], tmp_path: Path
) -> None:
    control, _ = there
    path = tmp_path / "again.sock"

    async def serve() -> tuple[AdminServer, socket.socket]:
        path.unlink(missing_ok=True)
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(path))
        listening.listen()
        server = AdminServer(control)
        await server.start(listening)
        return server, listening

    server, listening = await serve()
    client = AsyncClient(path, timeout=20)
    known = (await client.events()).last
    heard = []
    control.say("info", "test.one")
    async with asyncio.timeout(20):
        async for event in client.follow(known):
            if event.event.startswith("test."):
                heard.append(event.event)
            if event.event == "test.one":
                await server.stop()
                listening.close()
                control.say("info", "test.two")
                server, listening = await serve()
            if event.event == "test.two":
                break
    assert heard == ["test.one", "test.two"]
    await server.stop()
    listening.close()


# ---- waiting -----------------------------------------------------------------------------------

async def test_who_waits_for_health_is_told_who_is_not(
    asking: Asking, there: tuple[FakeControl, Path]
) -> None:
    control = there[0]
    pool = (await asking.do("pools"))[0]
    for one in pool.backends:
        control.turn(pool.name, one.name, "up", "")
    await asking.do("wait_healthy", pool.name, timeout=10)
    control.turn(pool.name, pool.backends[0].name, "down", "refused")
    with pytest.raises(TimeoutError, match=f"{pool.backends[0].name} is down: refused"):
        await asking.do("wait_healthy", pool.name, timeout=0.1)
    with pytest.raises(TimeoutError, match="ghost is not in the pool"):
        await asking.do("wait_healthy", pool.name, backends=["ghost"], timeout=0.1)


# ---- the package -------------------------------------------------------------------------------

def test_importing_lbcore_imports_nothing_else() -> None:
    look = ("import sys; before = set(sys.modules); import lbcore; "
            "print(*sorted(set(sys.modules) - before))")
    found = subprocess.run([sys.executable, "-c", look], cwd=ROOT, capture_output=True, text=True,
                           check=True, timeout=60)
    assert found.stdout.split() == ["lbcore"]


def test_every_public_name_is_there_and_no_other() -> None:
    for name in lbcore.__all__:
        assert getattr(lbcore, name) is not None
    assert set(lbcore.__all__) <= set(dir(lbcore))
    with pytest.raises(AttributeError, match="Blancer"):
        lbcore.Blancer  # type: ignore[attr-defined]  # noqa: B018


PROGRAM = '''
import asyncio
from typing import assert_type

import lbcore
from lbcore.client.models import BackendStatus, Event, OneBackend, Status, StreamState


def waits(client: lbcore.Client) -> None:
    assert_type(client.status(), Status)
    assert_type(client.status().pools[0].backends, list[BackendStatus])
    assert_type(client.pool("web").add("127.0.0.1:80", weight=2), OneBackend)
    for one in client.stream():
        assert_type(one, StreamState | Event)
    with lbcore.Balancer({"pool": {}}) as lb:
        assert_type(lb.address("web"), tuple[str, int])
        assert_type(lb.client, lbcore.Client)
        lb.pool("web").retire("a", timeout=3)


async def does_not(client: lbcore.AsyncClient) -> None:
    assert_type(await client.status(), Status)
    async for event in client.follow():
        assert_type(event, Event)
    async with lbcore.Balancer("lb.toml", discover={"web": lambda: []}) as lb:
        assert_type(lb, lbcore.AsyncBalancer)
        assert_type(await lb.pool("web").drain("a"), OneBackend)
'''
WRONG = '''
import lbcore

lbcore.Blancer
lbcore.Client().pool("web").add(80)
lbcore.Client().force("web", "a", "sideways")
lbcore.Client().status().pools[0].nmae
'''


def test_programs_get_types(tmp_path: Path) -> None:
    (tmp_path / "right.py").write_text(PROGRAM)
    shutil.copy(ROOT / "examples" / "scale_gunicorn.py", tmp_path)
    (tmp_path / "wrong.py").write_text(WRONG)
    found = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"),
         "--follow-imports=silent", "right.py", "wrong.py",
         "scale_gunicorn.py"],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=110,
        env=os.environ | {"MYPYPATH": str(ROOT), "PYTHONPATH": str(ROOT)})
    assert "right.py" not in found.stdout and "scale" not in found.stdout, found.stdout
    lines = [line.split(":")[1] for line in found.stdout.splitlines() if "error" in line
             and line.startswith("wrong.py")]
    assert lines == ["4", "5", "6", "7"], found.stdout + found.stderr
