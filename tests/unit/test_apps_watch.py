"""Watching code: what counts as a change, seen with and without help of the kernel."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lbcore.supervisor import apps_watch
from lbcore.supervisor.apps_watch import Watcher, changes, matters


@pytest.mark.parametrize(("path", "counts"), [
    ("/src/a.py", True), ("/src/deep/er/a.py", True), ("/src/named.yaml", True),
    ("/src/data.sqlite3", False), ("/src/a.pyc", False), ("/src/.git/a.py", False),
    ("/src/__pycache__/a.py", False), ("/elsewhere/a.py", False),
])
def test_python_files_and_named_ones_count(path: str, counts: bool) -> None:
    roots = [Path("/src"), Path("/src/named.yaml")]
    assert matters(path, roots, frozenset({"/src/named.yaml"})) is counts


def test_a_project_below_a_hidden_directory_is_watched() -> None:
    assert matters("/home/me/.local/src/a.py", [Path("/home/me/.local/src")], frozenset())


@pytest.fixture(params=["kernel", "looking"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "looking":
        monkeypatch.setitem(sys.modules, "watchfiles", None)
        monkeypatch.setattr(apps_watch, "LOOK_EVERY", 0.05)
    return str(request.param)


async def first(found: AsyncIterator[str]) -> str:
    async with asyncio.timeout(20):
        return await anext(found)


async def keep_writing(path: Path) -> None:
    """Changes a file again and again: the watcher begins at a time that nobody tells."""
    for number in range(400):
        path.write_text(f"number = {number}\n" + "#" * number)      # noqa: ASYNC240
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("name", ["a.py", "new/b.py"])
async def test_a_change_is_seen(way: str, tmp_path: Path, name: str) -> None:
    (tmp_path / "new").mkdir()
    writing = asyncio.create_task(keep_writing(tmp_path / name))
    assert await first(changes([tmp_path])) == str(tmp_path / name)
    writing.cancel()


async def test_other_files_do_not_count(way: str, tmp_path: Path) -> None:
    (tmp_path / "a.py").touch()
    noise = asyncio.create_task(keep_writing(tmp_path / "data.sqlite3"))
    seen = asyncio.ensure_future(first(changes([tmp_path])))
    await asyncio.wait({seen}, timeout=1.0)
    assert not seen.done()
    writing = asyncio.create_task(keep_writing(tmp_path / "a.py"))
    assert await seen == str(tmp_path / "a.py")
    noise.cancel()
    writing.cancel()


async def test_what_is_not_watched_any_more_restarts_nothing(tmp_path: Path) -> None:
    changed: asyncio.Queue[tuple[str, str]] = asyncio.Queue()

    def note(pool: str, path: str) -> None:
        changed.put_nowait((pool, path))

    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    watcher = Watcher(note)
    watcher.apply({"one": (tmp_path / "one",), "two": (tmp_path / "two",)})
    watcher.apply({"two": (tmp_path / "two",)})
    writers = [asyncio.create_task(keep_writing(tmp_path / name / "a.py"))
               for name in ("one", "two")]
    async with asyncio.timeout(20):
        assert (await changed.get())[0] == "two"
        assert (await changed.get())[0] == "two"
    await watcher.stop()
    for writer in writers:
        writer.cancel()
