"""Watching the code of applications: a change has the application replaced.

Directories are watched with all below them, but only for Python files: what applications write
themselves, such as a database beside the code, must not restart them. A file named by itself is
watched whatever it is. With `watchfiles` installed the kernel tells of changes; without it, files
are looked at once a second.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path

LOOK_EVERY = 1.0
QUIET_MS = 300                   # changes that come closer together are one
_SKIPPED = frozenset({"__pycache__", "node_modules", "site-packages"})
Paths = tuple[Path, ...]


class Watcher:
    """Calls ``changed(pool, path)`` after each change."""

    def __init__(self, changed: Callable[[str, str], None]) -> None:
        self._changed = changed
        self._tasks: dict[str, tuple[Paths, asyncio.Task[None]]] = {}

    def apply(self, watched: Mapping[str, Paths]) -> None:
        """Watches these paths, by pool, and no others."""
        for pool, (paths, task) in list(self._tasks.items()):
            if watched.get(pool) != paths or task.done():
                task.cancel()
                del self._tasks[pool]
        for pool, paths in watched.items():
            if pool not in self._tasks:
                self._tasks[pool] = paths, asyncio.create_task(self._watch(pool, paths))

    async def stop(self) -> None:
        """Watches nothing any more."""
        tasks = [task for _, task in self._tasks.values()]
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self, pool: str, paths: Paths) -> None:
        async for path in changes(paths):
            self._changed(pool, path)


def matters(path: str, paths: Sequence[Path], files: frozenset[str]) -> bool:
    """Whether a change of a file restarts the application."""
    if path in files:
        return True
    if not path.endswith(".py"):
        return False
    return any(
        not any(part.startswith(".") or part in _SKIPPED
                for part in Path(path).relative_to(root).parts)
        for root in paths if Path(path).is_relative_to(root))


async def changes(paths: Sequence[Path]) -> AsyncIterator[str]:
    """One path of each set of changes, as they come."""
    files = frozenset(str(path) for path in paths if not path.is_dir())
    try:
        from watchfiles import awatch  # noqa: PLC0415  (an optional extra)
    except ImportError:
        async for path in _look(paths, files):
            yield path
        return
    there = [path for path in paths if path.exists()]
    async for found in awatch(*there, watch_filter=lambda _, path: matters(path, paths, files),
                              debounce=1000, step=QUIET_MS, recursive=True):
        yield min(path for _, path in found)


async def _look(paths: Sequence[Path], files: frozenset[str]) -> AsyncIterator[str]:
    """The same without help: by the times and sizes of files."""
    known = dict(_stamps(paths, files))
    while True:
        await asyncio.sleep(LOOK_EVERY)
        now = dict(_stamps(paths, files))
        if different := {path for path, _ in known.items() ^ now.items()}:
            yield min(different)
        known = now


def _stamps(paths: Sequence[Path], files: frozenset[str]) -> Iterator[tuple[str, tuple[int, int]]]:
    for path in paths:
        for place in ([str(path)] if str(path) in files else _python_files(path)):
            try:
                stat = os.stat(place)    # noqa: PTH116  (thousands of them, every second)
            except OSError:
                continue
            yield place, (stat.st_mtime_ns, stat.st_size)


def _python_files(directory: Path) -> Iterator[str]:
    for place, directories, names in os.walk(directory):
        directories[:] = [name for name in directories
                          if name not in _SKIPPED and not name.startswith(".")]
        for name in names:
            if name.endswith(".py"):
                yield f"{place}/{name}"
