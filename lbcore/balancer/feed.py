"""Backends that callables of a program name, brought to the lbcore that it runs."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from typing import Any

from lbcore.admin.calls import AdminError, NotRunning
from lbcore.discovery import ask
from lbcore.discovery.answers import Table

Source = Callable[[], Any]
Push = Callable[[str, list[Table]], Awaitable[None]]
AGAIN = 1.0                  # seconds until a set that was not taken is offered once more
log = logging.getLogger("lbcore.discover")


class Feed:
    """The callables of several pools, each asked again and again."""

    def __init__(self, sources: Mapping[str, Source], interval: float, *, threads: bool) -> None:
        """``threads``: functions that are not async are called beside the loop."""
        self._sources = dict(sources)
        self._interval = interval
        self._threads = threads
        self._first: dict[str, list[Table]] = {}
        self._errors: dict[str, str] = {}
        self._said = asyncio.Event()
        self._started = asyncio.Event()
        self._latest: dict[str, list[Table]] = {}            # what lbcore has yet to hear
        self._news = {pool: asyncio.Event() for pool in sources}
        self._tasks: list[asyncio.Task[None]] = []

    async def first(self, timeout: float) -> dict[str, list[Table]]:
        """What each says first. Raises TimeoutError with what is missing, and why."""
        self._tasks = [asyncio.create_task(self._keep(pool, source))
                       for pool, source in self._sources.items()]
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while len(self._first) < len(self._sources):
                    self._said.clear()
                    await self._said.wait()
        missing = [f"pool {pool!r}: {self._errors.get(pool, 'no answer')}"
                   for pool in self._sources if pool not in self._first]
        if missing:
            await self.stop()
            raise TimeoutError(f"no backends after {timeout:g} s: " + "; ".join(missing))
        return dict(self._first)

    def go_on(self, push: Push) -> None:
        """Brings every further answer to ``push``."""
        self._tasks += [asyncio.create_task(self._bring(pool, push)) for pool in self._sources]
        self._started.set()

    async def stop(self) -> None:
        """Asks nobody any more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _keep(self, pool: str, source: Source) -> None:
        async with aclosing(ask(source, self._interval, threads=self._threads)) as answers:
            async for said in answers:
                if said.backends is None:
                    log.warning("pool %s keeps its backends: %s", pool, said.error)
                    self._errors[pool] = said.error
                    self._said.set()
                elif pool not in self._first:
                    self._first[pool] = said.backends
                    self._said.set()
                    await self._started.wait()
                else:
                    self._latest[pool] = said.backends
                    self._news[pool].set()

    async def _bring(self, pool: str, push: Push) -> None:
        """Pushes the newest set, which is said only once: until it is taken, or another is there.

        An upgrade may be under way, or a name not be resolved just now. One that lbcore has
        something against is not tried again.
        """
        news, told = self._news[pool], ""
        while True:
            await news.wait()
            news.clear()
            try:
                await push(pool, self._latest[pool])
                told = ""
                continue
            except AdminError as error:
                problems = "; ".join(str(one.get("message")) for one in error.problems)
                why = f"{error.message} ({problems})" if problems else error.message
                for_ever = bool(problems) or error.status in (400, 404)
            except NotRunning as error:
                why, for_ever = str(error), False
            if why != told:
                log.warning("pool %s keeps its backends: %s", pool, why)
            told = why
            if not for_ever:
                with suppress(TimeoutError):
                    async with asyncio.timeout(AGAIN):
                        await news.wait()
                news.set()


class FeedThread:
    """A feed for programs that have no loop: in a thread with a loop of its own."""

    def __init__(
        self, sources: Mapping[str, Source], interval: float,
        push: Callable[[str, list[Table]], None], timeout: float,
    ) -> None:
        """Returns when all have said something. Raises TimeoutError."""
        self.backends: dict[str, list[Table]] = {}
        self._push = push
        self._failure: BaseException | None = None
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._going = asyncio.Event()
        self._over = asyncio.Event()
        self._thread = threading.Thread(
            target=self._run, args=(sources, interval, timeout), name="lbcore-discover",
            daemon=True)
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            self._thread.join()
            raise self._failure

    def go_on(self) -> None:
        """Brings every further answer to ``push``."""
        self._loop.call_soon_threadsafe(self._going.set)

    def stop(self) -> None:
        """Asks nobody any more; a function that is being called is not waited for."""
        if self._thread.is_alive():
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._over.set)
            self._thread.join(1.0)

    def _run(self, sources: Mapping[str, Source], interval: float, timeout: float) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._live(sources, interval, timeout))

    async def _live(self, sources: Mapping[str, Source], interval: float, timeout: float) -> None:
        feed = Feed(sources, interval, threads=True)
        try:
            self.backends = await feed.first(timeout)
        except TimeoutError as error:
            self._failure = error
            return
        finally:
            self._ready.set()
        over = asyncio.create_task(self._over.wait())
        going = asyncio.create_task(self._going.wait())
        await asyncio.wait({over, going}, return_when=asyncio.FIRST_COMPLETED)
        if not over.done():
            feed.go_on(self._bring)
            await over
        going.cancel()
        await feed.stop()

    async def _bring(self, pool: str, backends: list[Table]) -> None:
        await asyncio.to_thread(self._push, pool, backends)
