"""What sources may say of backends, and what that means."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from lbcore.discovery.answers import BadAnswer, backends_of, parse_file, read_file
from lbcore.discovery.ask import Said, ask

ONE, TWO = {"address": "10.0.0.1:80"}, {"address": "10.0.0.2:80"}


@pytest.mark.parametrize(("said", "meant"), [
    (["10.0.0.1:80", "10.0.0.2:80"], [ONE, TWO]),
    (("10.0.0.1:80", "10.0.0.2:80"), [ONE, TWO]),
    ({"10.0.0.2:80", "10.0.0.1:80"}, [ONE, TWO]),
    ([("10.0.0.1", 80), ["10.0.0.2", 80]], [ONE, TWO]),
    ([("fd00::1", 80)], [{"address": "[fd00::1]:80"}]),
    ([{"address": "10.0.0.1:80", "weight": 2, "name": None}], [{**ONE, "weight": 2}]),
    ({"backends": ["10.0.0.1:80"]}, [ONE]),
    (["10.0.0.1:80", "10.0.0.2:80", "10.0.0.1:80"], [ONE, TWO]),
    ((address for address in ["10.0.0.1:80"]), [ONE]),
    ([{"targets": ["10.0.0.1:80", "10.0.0.2:80"], "labels": {"env": "prod"}}], [ONE, TWO]),
    ([{"targets": ["10.0.0.1:80"],
       "labels": {"lbcore_weight": "3", "lbcore_backup": "true", "lbcore_name": "a"}}],
     [{**ONE, "weight": 3, "backup": True, "name": "a"}]),
])
def test_backends_are_said_in_many_ways(said: object, meant: object) -> None:
    assert backends_of(said) == meant


@pytest.mark.parametrize(("said", "why"), [
    ([], "no backend"), ({"backends": []}, "no backend"), ([{"targets": []}], "no backend"),
    (None, "a list of backends"), ("10.0.0.1:80", "a list of backends"), (7, "a list of backends"),
    ({"servers": []}, "'servers'"), ({}, "no key"), ([7], "not 7"), ([None], "not None"),
    ([("10.0.0.1", True)], "an address"), ([("10.0.0.1", "80")], "an address"),
    ([{"name": "a"}], "an address"), ([{1: 2, "address": "x:1"}], "words"),
    ([{"targets": "10.0.0.1:80"}], "targets are a list"), ([{"targets": [1]}], "a target"),
    ([{"targets": ["a:1"], "labels": {"lbcore_weight": "-1"}}], "lbcore_weight"),
    ([{"address": "a:1", "weight": object()}], "text, numbers"),
    ((f"10.0.0.1:{port}" for port in iter(int, 1)), "more than"),
    ([{"targets": ["10.0.0.1:80"] * 20_000}], "more than"),
])
def test_what_is_no_set_of_backends_says_why(said: object, why: str) -> None:
    with pytest.raises(BadAnswer, match=why):
        backends_of(said)


@pytest.mark.parametrize(("name", "content", "meant"), [
    ("a.json", '["10.0.0.1:80"]', [ONE]),
    ("a.json", '[{"targets": ["10.0.0.1:80"]}]', [ONE]),
    ("a.toml", 'backends = ["10.0.0.1:80", {address = "10.0.0.2:80"}]', [ONE, TWO]),
    ("a.txt", "# all\n10.0.0.1:80\n\n10.0.0.2:80  # new\n", [ONE, TWO]),
    ("a", "10.0.0.1:80 weight=2 backup name=a max_connections=5",
     [{**ONE, "weight": 2, "backup": True, "name": "a", "max_connections": 5}]),
    ("a.txt", "\ufeff10.0.0.1:80\r\n10.0.0.2:80\r\n", [ONE, TWO]),
])
def test_files_have_several_formats(
    tmp_path: Path, name: str, content: str, meant: object
) -> None:
    (tmp_path / name).write_bytes(content.encode())
    assert read_file(tmp_path / name) == meant


@pytest.mark.parametrize(("suffix", "data", "why"), [
    (".json", b"[", "not JSON"), (".json", b"[" * 100_000, "not JSON"),
    (".toml", b"backends", "not TOML"), (".txt", b"\xff\xfe", "UTF-8"),
    (".txt", b"a:1 fast", "line 1: 'fast'"), (".txt", b"a:1 weight=x", "weight=x"),
    (".txt", b"", "no backend"), (".json", b"", "not JSON"), (".toml", b"", "no key"),
])
def test_files_that_are_none_say_why(suffix: str, data: bytes, why: str) -> None:
    with pytest.raises(BadAnswer, match=why):
        parse_file(data, suffix)


# ---- asking ------------------------------------------------------------------------------------

async def said_by(source: Callable[[], Any], count: int, **how: Any) -> list[Said]:
    """The first things that a source says."""
    found = []
    async with asyncio.timeout(20), aclosing(ask(source, 0.01, **how)) as answers:
        async for said in answers:
            found.append(said)
            if len(found) == count:
                return found
    raise AssertionError


class Counting:
    """A source of every kind, which names another port each time."""

    def __init__(self) -> None:
        self.asked = 0

    def function(self) -> list[str]:
        self.asked += 1
        return [f"127.0.0.1:{self.asked}"]

    async def coroutine(self) -> list[str]:
        return self.function()

    def generator(self) -> Iterator[list[str]]:
        while True:
            yield self.function()

    async def asynchronous(self) -> AsyncIterator[list[str]]:
        while True:
            yield self.function()


@pytest.mark.parametrize("threads", [False, True])
@pytest.mark.parametrize("kind", ["function", "coroutine", "generator", "asynchronous"])
async def test_every_kind_of_callable_is_asked_again_and_again(kind: str, threads: bool) -> None:
    found = await said_by(getattr(Counting(), kind), 3, threads=threads)
    assert [one.backends for one in found] == [
        [{"address": f"127.0.0.1:{port}"}] for port in (1, 2, 3)]


async def test_the_same_answer_is_said_once() -> None:
    ports = iter([1, 1, 1, 2])
    found = await said_by(lambda: [f"a:{next(ports)}"], 2)
    assert [one.backends for one in found] == [[{"address": "a:1"}], [{"address": "a:2"}]]


async def test_what_a_source_raises_is_said_with_its_place_and_it_is_asked_again() -> None:
    turns = iter([RuntimeError("no\nroute"), [], ["a:1"]])

    def source() -> Any:
        turn = next(turns)
        if isinstance(turn, Exception):
            raise turn
        return turn

    raised, empty, good = await said_by(source, 3)
    assert raised.backends is None
    assert raised.error.startswith("RuntimeError: no route (")
    assert "test_discovery_answers.py" in raised.error and "in source" in raised.error
    assert "no backend" in empty.error
    assert good.backends == [{"address": "a:1"}]


async def test_a_source_that_exits_ends_nothing_but_itself() -> None:
    turns = iter([True, False])

    def source() -> Any:
        if next(turns):
            sys.exit(3)
        return ["a:1"]

    exited, good = await said_by(source, 2)
    assert exited.error.startswith("SystemExit")
    assert good.backends is not None


async def test_a_function_that_hangs_holds_up_nobody_when_it_has_a_thread() -> None:
    hang = asyncio.Event()       # never set: its wait in a thread has no loop and no end
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()

    def source() -> Any:
        loop.call_soon_threadsafe(begun.set)
        asyncio.run(hang.wait())

    asking = asyncio.create_task(said_by(source, 1, threads=True))
    await asyncio.wait_for(begun.wait(), 20)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking


# ---- the process of its own --------------------------------------------------------------------

MODULE = '''
import os, sys
print("hello from the source", flush=True)
def good(): return ["127.0.0.1:1", ("127.0.0.1", 2)]
def raising(): raise RuntimeError("gone")
async def watching():
    yield ["127.0.0.1:1"]
    yield ["127.0.0.1:2"]
def here(): return [{"address": "127.0.0.1:1", "name": os.path.basename(os.getcwd())}]
number = 7
'''


async def child_says(directory: Path, name: str, count: int) -> tuple[list[Any], str]:
    """The first lines of a source's process but its signs of life, and what it printed."""
    (directory / "mine.py").write_text(MODULE)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "lbcore.discovery.child", name, "0.05", "1", "1",
        str(directory),
        cwd=Path(__file__).parents[2], stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    found: list[Any] = []
    try:
        async with asyncio.timeout(20):
            while len(found) < count and (line := await process.stdout.readline()):
                if line.startswith(b"{") and (said := json.loads(line)):
                    found.append(said)
    finally:
        if process.returncode is None:
            process.kill()
        printed = (await process.stderr.read()).decode()
        await process.wait()
    return found, printed


@pytest.mark.parametrize(("name", "said"), [
    ("mine:good", [{"backends": [{"address": "127.0.0.1:1"}, {"address": "127.0.0.1:2"}]}]),
    ("mine:watching", [{"backends": [{"address": "127.0.0.1:1"}]},
                       {"backends": [{"address": "127.0.0.1:2"}]}]),
])
async def test_a_source_speaks_from_its_own_process(
    tmp_path: Path, name: str, said: list[Any]
) -> None:
    assert (await child_says(tmp_path, name, len(said)))[0] == said


async def test_a_source_runs_where_it_is_imported_from(tmp_path: Path) -> None:
    (said, *_), _ = await child_says(tmp_path, "mine:here", 1)
    assert said["backends"][0]["name"] == tmp_path.name


@pytest.mark.parametrize(("name", "why"), [
    ("mine:raising", "RuntimeError: gone"), ("mine:number", "no function"),
    ("mine:nothing", "AttributeError"), ("no_such_module:good", "ModuleNotFoundError"),
])
async def test_a_source_that_does_not_work_says_why(
    tmp_path: Path, name: str, why: str
) -> None:
    (said, *_), _ = await child_says(tmp_path, name, 1)
    assert why in said["error"]
