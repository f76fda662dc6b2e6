"""Backends that watched files and callables name: asking them, and keeping the last good answer.

A file is looked at in a thread, a callable runs in a process of its own: whatever either does,
the supervisor goes on. What they name goes the way of every change (``Running.set_source``). An
answer that is none, or that no file of lbcore's could have, changes nothing; an event says why,
once for each reason.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lbcore.admin import ControlError
from lbcore.config import ConfigError
from lbcore.config.plan import DiscoverPlan
from lbcore.discovery.answers import LARGEST, BadAnswer, Table, backends_of, parse_file
from lbcore.supervisor import kept
from lbcore.supervisor.aside import aside
from lbcore.supervisor.changes import Found, Overlay
from lbcore.supervisor.fitting import compiled
from lbcore.supervisor.process import Process, start
from lbcore.supervisor.settings import Read

if TYPE_CHECKING:
    from lbcore.supervisor.supervisor import Supervisor

WATCHED_FILE, CALLABLE = "watched file", "callable"      # as the admin address calls them
SETTLED = 1.0                # seconds after which a file's times tell whether it was written again
FIRST_DELAY, LONGEST_DELAY = 1.0, 60.0
HEARTBEAT = 1.0              # seconds between a callable's signs of life, ...
BEATS = 5                    # ... of which so many fit into its timeout
LONGEST_LINE = 1000          # characters of what a callable prints
MOST_LINES = 100             # of those that go into the log within a second, ...
PRINTED = 1 << 16            # bytes of them that are looked at in one turn of the loop, ...
BREATH = 0.01                # seconds from one turn to the next once there are too many
KILL_PATIENCE = 2.0
TRY_AGAIN = 10.0             # seconds until an answer that was refused is offered once more
Take = Callable[[list[Table]], Awaitable[str]]           # why it could not be taken; "" otherwise


class NoBackends(ValueError):
    """Pools that would have no backends: their sources have not named any in time."""


class Discovery:
    """The sources of an instance, one for each pool that has ``discover``."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._found: Read | None = None
        self._sources: dict[str, tuple[DiscoverPlan, Source]] = {}
        self._awaited: set[asyncio.Future[str]] = set()      # "", or why nobody waits any more

    async def begin(self, found: Read) -> None:
        """Finds what pools need before the start; see :meth:`first`."""
        overlay = Overlay.restore(kept.read(self._supervisor.instance)[0])
        for pool, one in (await self.first(found, overlay)).items():
            self._supervisor.running.begin_with(pool, one.backends, one.source)

    async def first(self, found: Read, overlay: Overlay) -> dict[str, Found]:
        """What sources say before a file comes into force.

        Waits for the pools that would have no backends otherwise, at most their timeout. Raises
        NoBackends with what each of them said, or ControlError after an :meth:`interrupt`.
        """
        bare = [pool.name for pool in found.plan.pools
                if pool.discover and not pool.backends and (
                    pool.name not in overlay.found
                    or _refusal(found, pool.name, overlay.found[pool.name].backends))]
        wanted = {pool.name: pool.discover for pool in found.plan.pools if pool.discover}
        first: dict[str, Found] = {}
        errors: dict[str, str] = {}
        interrupted: list[str] = []

        async def ask(pool: str, plan: DiscoverPlan, patience: float) -> None:
            got: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            self._awaited.add(got)

            async def take(backends: list[Table]) -> str:
                if why := _refusal(found, pool, backends):
                    return why
                first[pool] = Found(kind_of(plan), tuple(backends))
                if not got.done():
                    got.set_result("")
                return ""

            source = self._source(pool, plan, take)
            task = asyncio.create_task(source.run())
            try:
                async with asyncio.timeout(patience):
                    interrupted.append(await got)
            except TimeoutError:
                errors[pool] = source.error or "it has not answered"
            finally:
                self._awaited.discard(got)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

        await asyncio.gather(*(ask(pool, wanted[pool], wanted[pool].timeout_ms / 1000)
                               for pool in bare))
        if any(interrupted):
            raise ControlError(409, max(interrupted))
        if errors:
            raise NoBackends("; ".join(
                f'pool "{pool}" has no backends: {wanted[pool].file or wanted[pool].python} named '
                f"none within {wanted[pool].timeout_ms / 1000:g} s: {error}"
                for pool, error in errors.items()))
        return first

    async def apply(self, found: Read) -> None:
        """Asks the sources of this file, and no others; callables in new processes, because
        their code may be another by now."""
        self._found = found
        wanted = {pool.name: pool.discover for pool in found.plan.pools if pool.discover}
        gone = [pool for pool, (plan, _) in self._sources.items()
                if wanted.get(pool) != plan or plan.python]
        await self._end(gone)
        for pool, plan in wanted.items():
            if pool not in self._sources:
                self._begin(pool, plan)

    async def resume(self) -> None:
        """Asks again after :meth:`stop`."""
        if self._found is not None:
            await self.apply(self._found)

    def failures(self) -> dict[str, str]:
        """What is wrong just now with the source of each pool that has one; "": nothing."""
        return {pool: source.error for pool, (_, source) in self._sources.items()}

    def interrupt(self, why: str) -> None:
        """Nobody waits any more for what comes into force with a first answer."""
        for got in self._awaited:
            if not got.done():
                got.set_result(why)

    async def stop(self) -> None:
        """Asks nobody any more, and leaves no process."""
        await self._end(list(self._sources))

    def _begin(self, pool: str, plan: DiscoverPlan) -> None:
        running = self._supervisor.running

        async def take(backends: list[Table]) -> str:
            try:
                await running.set_source(pool, backends, kind_of(plan))
            except ControlError as error:
                words = [f"{one.get('key')}: {one.get('message')}" for one in error.problems]
                return "; ".join(words) or error.message
            return ""

        source = self._source(pool, plan, take)
        source.task = asyncio.create_task(source.run())
        source.task.add_done_callback(self._done)
        self._sources[pool] = plan, source

    async def _end(self, pools: list[str]) -> None:
        tasks = [source.task for pool in pools if (source := self._sources.pop(pool)[1]).task]
        for task in tasks:
            if task is not None:
                task.cancel()
        await asyncio.gather(*(task for task in tasks if task is not None),
                             return_exceptions=True)

    def _done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._supervisor.log.error("internal", message="please report this",
                                       error=repr(error))

    def _source(self, pool: str, plan: DiscoverPlan, take: Take) -> Source:
        kind: type[Source] = WatchedFile if plan.file else Callables
        return kind(self._supervisor, pool, plan, take)


def kind_of(plan: DiscoverPlan) -> str:
    """What kind of source it is, as the admin address calls it."""
    return WATCHED_FILE if plan.file else CALLABLE


def _refusal(found: Read, pool: str, backends: Sequence[Mapping[str, Any]]) -> str:
    """Why a file with these backends would be refused; "" if it would not."""
    try:
        compiled(found, Overlay(found={pool: Found(CALLABLE, tuple(backends))}))
    except ConfigError as error:
        return "; ".join(f"{problem.key}: {problem.message}" for problem in error.problems)
    return ""


class Source:
    """What both kinds have in common: telling what is wrong, and when it is over."""

    def __init__(self, supervisor: Supervisor, pool: str, plan: DiscoverPlan, take: Take) -> None:
        self.supervisor = supervisor
        self.pool = pool
        self.plan = plan
        self.error = ""              # what is wrong just now
        self.task: asyncio.Task[None] | None = None
        self._take = take
        self._taken: list[Table] | None = None

    async def run(self) -> None:
        """Asks until cancelled."""
        raise NotImplementedError

    async def offer(self, backends: list[Table]) -> bool:
        """Takes over an answer; whether that went well."""
        why = "" if backends == self._taken else await self._take(backends)
        if why:
            self.complain(why)
            return False
        self._taken = backends
        if self.error:
            self.error = ""
            self.supervisor.log.info("discovery.recovered", pool=self.pool,
                                     source=kind_of(self.plan), backends=len(backends))
        return True

    def complain(self, why: str) -> None:
        """Tells why there is no answer to go by, unless that is told already."""
        if why == self.error:
            return
        self.error = why
        self.supervisor.log.warning(
            "discovery.failed", message="the pool keeps the backends that it has", pool=self.pool,
            source=kind_of(self.plan), at=self.plan.file or self.plan.python, error=why)


# ---- files -------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Look:
    """What a file looked like."""

    marks: tuple[int, ...]       # what changes when it is written or replaced
    settled: bool                # whether they would have changed by now
    data: bytes | None           # None: as before


class WatchedFile(Source):
    """Looks at a file again and again: by its times first, by its content if they are new."""

    async def run(self) -> None:
        """Asks until cancelled."""
        path = Path(self.plan.file)
        seen: Look | None = None
        data = b""
        good = False
        while True:
            try:
                last = seen
                look = await aside("lbcore-watch", lambda: _look(path, last))   # noqa: B023
                if look.data is not None and (look.data != data or not good):
                    data = look.data
                    good = await self.offer(await _parsed(data, path.suffix))
                elif not good and seen is not None:
                    good = await self.offer(await _parsed(data, path.suffix))
                seen = look
            except BadAnswer as error:
                good = False
                self.complain(str(error))
            except OSError as error:
                good, seen = False, None
                self.complain(f"{path}: {error.strerror or error}")
            await asyncio.sleep(self.plan.interval_ms / 1000)


async def _parsed(data: bytes, suffix: str) -> list[Table]:
    """What a file says; megabytes of it take seconds, in which checks must go on."""
    return await aside("lbcore-watch", partial(parse_file, data, suffix))


def _look(path: Path, before: Look | None) -> Look:
    """Raises OSError or BadAnswer."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as file:
        found = os.fstat(fd)
        marks = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        settled = time.time() - max(found.st_mtime, found.st_ctime) > SETTLED
        if before is not None and before.settled and before.marks == marks:
            return Look(marks, settled, None)
        if not stat.S_ISREG(found.st_mode):
            raise BadAnswer(f"{path} is not an ordinary file")
        return Look(marks, settled, file.read(LARGEST + 1))


# ---- callables ---------------------------------------------------------------------------------

class Callables(Source):
    """Keeps a process that calls the function; see ``lbcore.discovery.child``."""

    async def run(self) -> None:
        """Asks until cancelled."""
        delay = 0.0
        while True:
            before = self._taken
            try:
                why = await self._live()
            except OSError as error:
                why = f"its process cannot be started: {error.strerror or error}"
            self.complain(why)
            delay = FIRST_DELAY if self._taken is not before else min(
                LONGEST_DELAY, delay * 2 or FIRST_DELAY)
            await asyncio.sleep(delay)

    async def _live(self) -> str:
        """One life of the process; returns why it ended. Raises OSError."""
        identity = self.supervisor.fleet.settings.identity
        answers, writing = os.pipe2(os.O_CLOEXEC)
        printed, printing = os.pipe2(os.O_CLOEXEC)
        try:
            child = start("lbcore.discovery.child", [
                self.plan.python, str(self.plan.interval_ms / 1000),
                str(min(HEARTBEAT, self.plan.timeout_ms / 1000 / BEATS)), str(writing),
                self.plan.directory], [writing], identity.uid, identity.gid, printing)
            process = _watched(child)
        except BaseException:
            os.close(answers)
            os.close(printed)
            raise
        finally:
            os.close(writing)
            os.close(printing)
        async with _stream(answers, LARGEST) as said, _stream(printed, PRINTED) as words:
            output = asyncio.create_task(self._repeat(words))
            try:
                return await self._listen(said, process)
            finally:
                # Also what it has started: it has a session of its own.
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.ended.wait()
                await asyncio.wait({output}, timeout=KILL_PATIENCE)
                output.cancel()

    async def _listen(self, answers: asyncio.StreamReader, process: Process) -> str:
        patience = self.plan.timeout_ms / 1000
        refused: list[Table] | None = None       # it says nothing twice, so we try again
        again = 0.0
        while True:
            try:
                # Not wait_for: Python 3.11's may forget that it was cancelled.
                async with asyncio.timeout(patience):
                    line = await answers.readline()
                if not line:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(KILL_PATIENCE):
                            await process.ended.wait()
                    how = process.how_it_ended() if process.ended.is_set() else "it is silent"
                    # What it said itself tells more than how it ended.
                    return self.error or f"its process ended: {how}"
                said = await _heard(line)
                if not isinstance(said, Mapping):
                    return f"its process says what it must not: {line[:80]!r}"
            except TimeoutError:
                return f"it has not answered for {patience:g} s"
            except ValueError:
                return "its process says what it must not"
            if "error" in said:
                self.complain(str(said["error"]))
                continue
            try:
                if "backends" in said:
                    refused = await aside("discovery", partial(backends_of, said["backends"]))
                elif refused is None or time.monotonic() < again:
                    continue
                refused = None if await self.offer(refused) else refused
                again = time.monotonic() + TRY_AGAIN
            except BadAnswer as error:
                refused = None
                self.complain(str(error))

    async def _repeat(self, reader: asyncio.StreamReader) -> None:
        """What it prints goes into the log, unless it is too much."""
        begun, rest = 0.0, b""
        lines = left_out = 0
        while data := await reader.read(PRINTED):
            if time.monotonic() - begun >= 1.0:
                self._tell_left_out(left_out)
                begun, lines, left_out = time.monotonic(), 0, 0
            *whole, rest = (rest + data).split(b"\n")
            rest = rest[:4 * LONGEST_LINE]       # bytes of a character in UTF-8
            shown = whole[:MOST_LINES - lines]
            for line in shown:
                self._print(line)
            lines, left_out = lines + len(shown), left_out + len(whole) - len(shown)
            # What has come by now makes read() wait for nothing: others must get their turn.
            await asyncio.sleep(BREATH if lines == MOST_LINES else 0)
        self._print(rest)
        self._tell_left_out(left_out)

    def _print(self, line: bytes) -> None:
        text = line.decode("utf-8", "replace").rstrip()[:LONGEST_LINE]
        if text:
            self.supervisor.log.info("discovery.output", message=text, pool=self.pool)

    def _tell_left_out(self, lines: int) -> None:
        if lines:
            self.supervisor.log.warning(
                "discovery.output_dropped", pool=self.pool, lines=lines,
                message=f"it prints more than {MOST_LINES} lines in a second")


def _watched(child: subprocess.Popen[bytes]) -> Process:
    """Raises OSError, and then the child is gone."""
    try:
        return Process(child.pid, child)
    except BaseException:
        child.kill()
        child.wait()
        raise


async def _heard(line: bytes) -> Any:
    """A line of JSON as it was meant. Raises ValueError."""
    try:
        if len(line) > PRINTED:          # takes a while, in which checks must go on
            return await aside("discovery", partial(json.loads, line))
        await asyncio.sleep(0)           # who has many lines to say makes nobody wait either
        return json.loads(line)
    except RecursionError as error:
        raise ValueError("its brackets are nested too deeply") from error


@asynccontextmanager
async def _stream(fd: int, limit: int) -> AsyncIterator[asyncio.StreamReader]:
    """What comes out of a pipe, which is closed at the end."""
    reader = asyncio.StreamReader(limit)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(fd, "rb", 0))
    try:
        yield reader
    finally:
        transport.close()
