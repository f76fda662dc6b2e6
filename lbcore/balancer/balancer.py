"""What programs see of the lbcore that they run."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from lbcore.admin.calls import NotRunning
from lbcore.admin.models import Reloaded
from lbcore.balancer.feed import Feed, FeedThread, Source
from lbcore.balancer.ports import Held
from lbcore.balancer.prepare import Configuration, Prepared, prepare
from lbcore.balancer.process import BalancerError, Running, private_directory
from lbcore.client import AsyncClient, AsyncPool, Client, Pool
from lbcore.discovery.answers import Table

DRAIN_GRACE = 15.0           # seconds beyond drain_timeout until the end is made by force
LAST_WORDS = 3.0             # seconds for one that is going to end anyway
REACHABLE = {"0.0.0.0": "127.0.0.1", "::": "::1"}
log = logging.getLogger("lbcore")


@dataclass(frozen=True)
class _Options:
    """How a balancer is run."""

    config: Configuration
    discover: Mapping[str, Source]
    interval: float
    timeout: float
    now: bool


class _Core:
    """What runs, for both kinds of programs; everything here waits."""

    def __init__(self, options: _Options) -> None:
        self.options = options
        self.held = Held()
        self.running: Running | None = None
        self.prepared: Prepared | None = None
        self._lock = threading.Lock()

    def start(self, backends: Mapping[str, Sequence[Table]]) -> None:
        """Brings it up. Raises ConfigError, BalancerError or OSError, and then nothing is left."""
        directory = private_directory()
        try:
            self.prepared = prepare(self.options.config, directory, self.held, backends)
            for warning in self.prepared.warnings:
                log.warning("%s", warning)
            config = directory / "lb.toml"
            _write(config, self.prepared.text)
            self.running = Running(directory, config)
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            self.held.release()
            raise
        try:
            timeout = self.options.timeout
            self.running.wait_until_up(self.prepared.admin, timeout)
            # Whoever asks is answered once every worker serves.
            Client(self.admin, token=self.token, timeout=timeout).status()
        except NotRunning as error:
            ended = self.running.wait(LAST_WORDS)
            problem = self.running.error("lbcore did not start" + ("" if ended else f": {error}"))
            self.end(now=True)
            raise problem from error
        except BaseException:
            self.end(now=True)
            raise

    def end(self, now: bool) -> None:
        """Ends it; nothing of it is left when this returns."""
        if now and (running := self.running) is not None:
            running.ask_to_end(now=True)     # somebody else may be waiting for its connections
        with self._lock:
            if (running := self.running) is None:
                return
            try:
                drain = self.the_plan.plan.drain_timeout_ms / 1000
                if not now:
                    running.ask_to_end(now=False)
                    running.wait(drain + DRAIN_GRACE)
            finally:
                running.close()
                self.running = None
                self.held.release()

    @property
    def the_plan(self) -> Prepared:
        """What runs. Raises RuntimeError before the start."""
        if self.prepared is None:
            raise RuntimeError("this balancer has not been started: use it with `with`")
        return self.prepared

    @property
    def admin(self) -> str:
        """Its admin address, as clients take it."""
        admin = self.the_plan.admin
        return str(replace(admin, host=REACHABLE.get(admin.host, admin.host)))

    @property
    def token(self) -> str | None:
        """What its admin address wants to be told, if anything."""
        return self.the_plan.plan.api.token or None

    def check(self) -> None:
        """Raises BalancerError when it has ended by itself."""
        if self.running is None:
            raise BalancerError("this balancer does not run")
        if self.running.ended():
            raise self.running.error("lbcore has ended")

    def rewrite(self, config: Configuration | None, feed: Mapping[str, Sequence[Table]]) -> None:
        """Writes another configuration for a reload. Raises ConfigError, and nothing is written."""
        self.check()
        assert self.running is not None
        directory = self.running.directory
        source = self.options.config if config is None else config
        made = prepare(source, directory, self.held, feed, running=self.the_plan)
        _write(directory / "lb.toml", made.text)
        self.prepared = made

    def address(self, listener: str) -> tuple[str, int]:
        """Where a listener can be connected to."""
        for one in self.the_plan.plan.listeners:
            if one.name == listener:
                for bind in one.binds:
                    if not bind.path:
                        return REACHABLE.get(bind.host, bind.host), bind.port
                raise LookupError(f"listener {listener!r} listens on no TCP address")
        names = ", ".join(repr(one.name) for one in self.the_plan.plan.listeners)
        raise LookupError(f"there is no listener {listener!r}; there are: {names}")

    def url(self, listener: str, path: str) -> str:
        """A URL of a listener."""
        host, port = self.address(listener)
        return f"http://{f'[{host}]' if ':' in host else host}:{port}{path}"


class _Shown:
    """What both kinds of balancers tell without asking anybody."""

    def __init__(self, core: _Core) -> None:
        self._core = core

    @property
    def admin(self) -> str:
        """The admin address, for ``lbcore --admin`` and other clients."""
        return self._core.admin

    def address(self, listener: str) -> tuple[str, int]:
        """Host and port of a listener, as ``socket.create_connection`` takes them.

        With port 0 in the configuration it is the one that was chosen. Raises LookupError.
        """
        return self._core.address(listener)

    def url(self, listener: str, path: str = "/") -> str:
        """A URL that leads to a listener. Raises LookupError."""
        return self._core.url(listener, path)


class Balancer(_Shown):
    """An lbcore that runs for as long as a ``with`` block.

    ``config``: a dict as lb.toml has it, the path of a file, TOML text, or a ``Config``. In
    ``bind = "127.0.0.1:0"`` the port is chosen, and stays the program's own until the end. The
    admin address is a unix socket in a private directory, unless the configuration names one.

    ``discover``: callables by pool that say its backends (see docs/guide/discovery.md); they run
    in this program, functions every ``interval`` seconds. ``timeout``: seconds for the start.
    ``now``: the end of the block does not wait for connections; it never does after an exception.

    What lbcore logs goes to the loggers "lbcore" and "lbcore.access". When the program is gone,
    however it went, lbcore ends, and leaves nothing behind.

        with lbcore.Balancer(config) as lb:
            lb.pool("web").add("127.0.0.1:8001")

    ``async with`` gives an :class:`AsyncBalancer`, whose methods are coroutines.

    Entering raises ConfigError with every problem of the configuration, BalancerError when lbcore
    does not start, TimeoutError when callables name no backends.
    """

    def __init__(
        self, config: Configuration, *, discover: Mapping[str, Source] | None = None,
        interval: float = 5.0, timeout: float = 60.0, now: bool = False,
    ) -> None:
        super().__init__(_Core(_Options(config, discover or {}, interval, timeout, now)))
        self._client: Client | None = None
        self._feed: FeedThread | None = None
        self._async: AsyncBalancer | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.stop(now=self._core.options.now or kind is not None)

    async def __aenter__(self) -> AsyncBalancer:
        self._async = AsyncBalancer(self._core)
        await self._async.start()
        return self._async

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None,
                        trace: TracebackType | None) -> None:
        if self._async is not None:
            await self._async.stop(now=self._core.options.now or kind is not None)

    def start(self) -> None:
        """Brings it up, for programs without a block; see the class for what it raises."""
        core, feed = self._core, None
        if core.running is not None:
            raise RuntimeError("this balancer runs already")
        if core.options.discover:
            feed = FeedThread(core.options.discover, core.options.interval, self._push,
                              core.options.timeout)
        try:
            core.start(feed.backends if feed else {})
            self._client = Client(core.admin, token=core.token)
        except BaseException:
            if feed is not None:
                feed.stop()
            raise
        self._feed = feed
        if feed is not None:
            feed.go_on()

    def stop(self, *, now: bool = False) -> None:
        """Ends it: after its connections, at most ``drain_timeout`` later, or at once."""
        if self._feed is not None:
            self._feed.stop()
            self._feed = None
        self._core.end(now)

    @property
    def client(self) -> Client:
        """The admin API. Raises BalancerError when lbcore does not run."""
        self._core.check()
        assert self._client is not None
        return self._client

    def pool(self, name: str) -> Pool:
        """A pool to put backends into and take them out of."""
        return self.client.pool(name)

    def wait_healthy(self, *pools: str, timeout: float = 30.0) -> None:
        """Waits until every backend of these pools, or of all, is up. Raises TimeoutError."""
        self.client.wait_healthy(*pools, timeout=timeout)

    def reload(self, config: Configuration | None = None) -> Reloaded:
        """Puts another configuration into force, or the same file read again.

        Raises ConfigError, and what runs stays.
        """
        self._core.rewrite(config, self._feed.backends if self._feed else {})
        return self.client.reload()

    def _push(self, pool: str, backends: list[Table]) -> None:
        try:
            self.client.replace_backends(pool, backends)
        except BalancerError as error:
            raise NotRunning(str(error)) from error
        if self._feed is not None:
            self._feed.backends[pool] = backends


class AsyncBalancer(_Shown):
    """What ``async with lbcore.Balancer(...)`` gives: the same, with coroutines."""

    def __init__(self, core: _Core) -> None:
        super().__init__(core)
        self._client: AsyncClient | None = None
        self._feed: Feed | None = None
        self._backends: dict[str, list[Table]] = {}

    async def start(self) -> None:
        """Brings it up; see :class:`Balancer`."""
        core, options = self._core, self._core.options
        if core.running is not None:
            raise RuntimeError("this balancer runs already")
        feed = Feed(options.discover, options.interval, threads=True) if options.discover else None
        if feed is not None:
            self._backends = await feed.first(options.timeout)
        starting = asyncio.ensure_future(asyncio.to_thread(core.start, self._backends))
        try:
            await asyncio.shield(starting)
        except BaseException:
            if feed is not None:
                await feed.stop()
            # Told to stop waiting: what has begun in the thread ends before we do.
            await asyncio.gather(starting, return_exceptions=True)
            await asyncio.to_thread(core.end, True)
            raise
        self._client = AsyncClient(core.admin, token=core.token)
        self._feed = feed
        if feed is not None:
            feed.go_on(self._push)

    async def stop(self, *, now: bool = False) -> None:
        """Ends it: after its connections, at most ``drain_timeout`` later, or at once."""
        if self._feed is not None:
            await self._feed.stop()
            self._feed = None
        await asyncio.shield(asyncio.to_thread(self._core.end, now))

    @property
    def client(self) -> AsyncClient:
        """The admin API. Raises BalancerError when lbcore does not run."""
        self._core.check()
        assert self._client is not None
        return self._client

    def pool(self, name: str) -> AsyncPool:
        """A pool to put backends into and take them out of."""
        return self.client.pool(name)

    async def wait_healthy(self, *pools: str, timeout: float = 30.0) -> None:
        """Waits until every backend of these pools, or of all, is up. Raises TimeoutError."""
        await self.client.wait_healthy(*pools, timeout=timeout)

    async def reload(self, config: Configuration | None = None) -> Reloaded:
        """Puts another configuration into force, or the same file read again.

        Raises ConfigError, and what runs stays.
        """
        await asyncio.to_thread(self._core.rewrite, config, self._backends)
        return await self.client.reload()

    async def _push(self, pool: str, backends: list[Table]) -> None:
        try:
            await self.client.replace_backends(pool, backends)
        except BalancerError as error:
            raise NotRunning(str(error)) from error
        self._backends[pool] = backends


def _write(path: Path, text: str) -> None:
    """Puts a file in place in one step, for nobody else to read: it may hold secrets."""
    fresh = path.with_suffix(".new")
    fresh.touch(0o600)
    fresh.write_text(text, "utf-8")
    os.replace(fresh, path)      # noqa: PTH105
