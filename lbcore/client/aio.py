"""The client for asyncio; it has the methods of the one that waits."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, suppress
from types import TracebackType
from typing import Any, Self

from lbcore.admin import calls
from lbcore.admin.calls import AdminError, Call, NotRunning
from lbcore.admin.models import (
    AppRestarted,
    BackendRemoved,
    BackendsReplaced,
    Changes,
    Event,
    Events,
    Forgotten,
    Listeners,
    LogLevel,
    OneBackend,
    OnePool,
    Pools,
    Reloaded,
    RunningConfig,
    Stopping,
    StreamState,
    UpgradeStarted,
    WorkerCount,
    Workers,
)
from lbcore.admin.picture import (
    BackendStatus,
    ListenerStatus,
    Live,
    PoolStatus,
    Status,
    WorkerStatus,
)
from lbcore.client.common import (
    KEEP,
    POLLS,
    BackendLike,
    ForcedState,
    Keep,
    LogLevelName,
    M,
    Readiness,
    name_of,
    not_healthy,
    patch_of,
    reached,
    read,
    read_stream,
    readiness,
    table_of,
)

LONG = 3600.0                # seconds for what waits for applications, which have limits themselves


class AsyncClient:
    """A running lbcore, by its admin address.

    ``address``: None for where lbcore listens by itself, a configuration file (``*.toml``), a path
    of a unix socket, "unix:/PATH", or "HOST:PORT". ``token``, or the first line of ``token_file``,
    goes with every request. ``timeout``: seconds without an answer until NotRunning is raised.

    Methods raise NotRunning when nobody answers and AdminError for a refusal: Denied, NotFound,
    Conflict, Stale, Refused are kinds of it. Changes take ``expect``, the plan version that they
    are meant for: with another one in force nothing is changed and Stale is raised. Every call is
    a connection of its own, so tasks may share a client.
    """

    def __init__(
        self, address: str | os.PathLike[str] | None = None, *, token: str | None = None,
        token_file: str | os.PathLike[str] | None = None, timeout: float = 60.0,
    ) -> None:
        """Raises ValueError for what is no address, OSError for a token file not to be read."""
        # aiohttp takes its time, and whoever waits does without it.
        from lbcore.client.async_transport import AsyncTransport  # noqa: PLC0415

        where, shown = reached(address, token, token_file)
        self._transport = AsyncTransport(where, timeout, shown)
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None,
                        trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Asks nothing more, also on streams that are being read."""
        self._closed = True

    @property
    def address(self) -> str:
        """The admin address."""
        return str(self._transport.address)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.address!r})"

    # -- reading

    async def healthy(self) -> bool:
        """Whether somebody answers there and is well; False instead of NotRunning."""
        with suppress(NotRunning, AdminError):
            await self._do(calls.healthy())
            return True
        return False

    async def ready(self) -> Readiness:
        """Whether every worker serves and no listener lacks all its backends."""
        return readiness(await self._do(calls.ready()))

    async def status(self) -> Status:
        """The whole picture: workers, listeners, pools, backends, with what they counted."""
        return await self._ask(Status, calls.status())

    async def workers(self) -> list[WorkerStatus]:
        """The worker processes."""
        return (await self._ask(Workers, calls.workers())).workers

    async def listeners(self) -> list[ListenerStatus]:
        """The listeners."""
        return (await self._ask(Listeners, calls.listeners())).listeners

    async def pools(self) -> list[PoolStatus]:
        """The pools with their backends."""
        return (await self._ask(Pools, calls.pools())).pools

    async def pool_status(self, pool: str) -> OnePool:
        """A pool with its backends."""
        return await self._ask(OnePool, calls.pool(pool))

    async def backend_status(self, pool: str, backend: str) -> OneBackend:
        """A backend."""
        return await self._ask(OneBackend, calls.backend(pool, backend))

    async def live(self, window: int = 10) -> Live:
        """Rates and latencies of the last ``window`` seconds, 1 to 60."""
        return await self._ask(Live, calls.live(window))

    async def events(
        self, after: int = 0, limit: int = 100, level: LogLevelName = "info"
    ) -> Events:
        """What happened after the event number ``after``: the newest ``limit``, newest last."""
        return await self._ask(Events, calls.events(after, limit, level))

    async def changes(self) -> Changes:
        """Where what runs differs from the file."""
        return await self._ask(Changes, calls.changes())

    async def config(self) -> RunningConfig:
        """The running configuration as the tables of a file."""
        return await self._ask(RunningConfig, calls.config())

    async def config_toml(self) -> str:
        """The running configuration as the text of a file, which can be written back."""
        return str((await self._do(calls.config_toml()))["text"])

    async def openapi(self) -> dict[str, Any]:
        """The OpenAPI document of the admin API."""
        return await self._do(calls.openapi())

    async def metrics(self) -> str:
        """Figures in the text format of Prometheus."""
        return str((await self._do(calls.metrics()))["text"])

    # -- as it happens

    async def stream(
        self, interval: float = 1.0, *, live: bool = True, after: int | None = None,
        level: LogLevelName = "info",
    ) -> AsyncGenerator[StreamState | Event, None]:
        """The state, at once and every ``interval`` seconds (0.5 to 60), and events between.

        It ends when the instance does, or is upgraded. ``after``: the number of the last event
        that is known; those behind it come first. ``level``: no events less important than this.
        Close the iterator to stop earlier.
        """
        asked = calls.stream(interval, live, after, level)
        async with aclosing(self._transport.stream(asked)) as messages:
            async for name, said in messages:
                if self._closed:
                    return
                for one in read_stream(name, said, self.address):
                    yield one

    async def follow(
        self, after: int | None = None, *, level: LogLevelName = "info", patience: float = 30.0
    ) -> AsyncGenerator[Event, None]:
        """Events as they happen, also over upgrades and restarts, none of them twice.

        ``after``: as with :meth:`stream`; None: only what happens from now on. Raises NotRunning
        when the instance has been away for ``patience`` seconds.
        """
        known = (await self.events(limit=1)).last if after is None else after
        lost = 0.0                       # when the stream broke off
        while not self._closed:
            try:
                if lost and (await self.events(limit=1)).last < known:
                    known = 0            # another instance, which counts from 1 again
                stream = self.stream(60, live=False, after=known, level=level)
                async with aclosing(stream) as messages:
                    async for one in messages:
                        lost = 0.0
                        if isinstance(one, Event):
                            known = one.seq
                            yield one
            except NotRunning:
                if lost and time.monotonic() - lost > patience:
                    raise
            lost = lost or time.monotonic()
            await asyncio.sleep(POLLS[-1])

    # -- backends

    def pool(self, name: str) -> AsyncPool:
        """A pool to put backends into and take them out of. Nothing is asked yet."""
        return AsyncPool(self, name)

    async def add_backend(
        self, pool: str, address: str, *, name: str | None = None, weight: int | None = None,
        backup: bool | None = None, max_connections: int | None = None, expect: int | None = None,
    ) -> OneBackend:
        """One backend more; keys as in the file. It gets traffic once this returns, and for as
        long as its checks pass."""
        table = table_of(address, name=name, weight=weight, backup=backup,
                         max_connections=max_connections)
        return await self._ask(OneBackend, calls.add_backend(pool, table, expect))

    async def remove_backend(
        self, pool: str, backend: str, *, expect: int | None = None
    ) -> BackendRemoved:
        """One backend less: it gets nothing new, and its connections finish."""
        return await self._ask(BackendRemoved, calls.remove_backend(pool, backend, expect))

    async def replace_backends(
        self, pool: str, backends: Sequence[BackendLike], *, expect: int | None = None
    ) -> BackendsReplaced:
        """Another set of backends; those in both keep connections, health and counters."""
        return await self._ask(BackendsReplaced, calls.replace_backends(pool, backends, expect))

    async def patch_backend(
        self, pool: str, backend: str, *, weight: int | Keep | None = KEEP,
        drain: bool | Keep = KEEP, force: ForcedState | Keep | None = KEEP,
        max_connections: int | Keep | None = KEEP, expect: int | None = None,
    ) -> OneBackend:
        """Any of these at once; None is what the file says. What is not named stays."""
        patch = patch_of(weight=weight, drain=drain, force=force, max_connections=max_connections)
        return await self._ask(OneBackend, calls.patch_backend(pool, backend, patch, expect))

    async def drain(self, pool: str, backend: str, *, expect: int | None = None) -> OneBackend:
        """Takes a backend out of service: it gets nothing new."""
        return await self._ask(OneBackend, calls.drain(pool, backend, True, expect))

    async def undrain(self, pool: str, backend: str, *, expect: int | None = None) -> OneBackend:
        """Puts a drained backend back into service."""
        return await self._ask(OneBackend, calls.drain(pool, backend, False, expect))

    async def set_weight(
        self, pool: str, backend: str, weight: int | None, *, expect: int | None = None
    ) -> OneBackend:
        """Another weight, 0 to 1000; None is the configured one."""
        return await self._ask(OneBackend, calls.weight(pool, backend, weight, expect))

    async def force(
        self, pool: str, backend: str, state: ForcedState | None, *, expect: int | None = None
    ) -> OneBackend:
        """"up" or "down", whatever checks say; None leaves it to them again."""
        return await self._ask(OneBackend, calls.force(pool, backend, state, expect))

    async def change(
        self, changes: Sequence[Mapping[str, Any]], *, expect: int | None = None
    ) -> Changes:
        """Several changes that come into force together, or not at all.

        Each is ``{"op": "add", "pool": ..., "backend": {...}}``, ``{"op": "remove", "pool": ...,
        "backend": NAME}``, or with op "weight", "drain" or "force" a backend and a ``value``.
        """
        return await self._ask(Changes, calls.change(changes, expect))

    async def forget_changes(
        self, pool: str | None = None, *, expect: int | None = None
    ) -> Forgotten:
        """Back to what the file says, for one pool or altogether."""
        return await self._ask(Forgotten, calls.forget_changes(pool, expect))

    # -- the instance

    async def set_log_level(
        self, level: LogLevelName | None, *, expect: int | None = None
    ) -> LogLevel:
        """What is logged; None is the configured level."""
        return await self._ask(LogLevel, calls.set_log_level(level, expect))

    async def set_workers(self, count: int | None, *, expect: int | None = None) -> WorkerCount:
        """The number of workers; None is the configured one."""
        return await self._ask(WorkerCount, calls.set_workers(count, expect))

    async def reload(self, *, expect: int | None = None) -> Reloaded:
        """Reads the configuration again. One that cannot be used raises Refused with every
        problem, and what runs stays as it is."""
        return await self._ask(Reloaded, calls.reload(expect), LONG)

    async def restart(self, pool: str) -> AppRestarted:
        """Replaces the servers of a pool's application; returns once the new ones serve."""
        return await self._ask(AppRestarted, calls.restart(pool), LONG)

    async def upgrade(self) -> UpgradeStarted:
        """Replaces supervisor and workers by what is installed; returns once that has proved that
        it starts. ``status().upgrade`` tells how it went on."""
        return await self._ask(UpgradeStarted, calls.upgrade(), LONG)

    async def stop(self, *, now: bool = False) -> Stopping:
        """Ends the instance: after its connections, or at once. Returns when it has begun to."""
        return await self._ask(Stopping, calls.stop(now))

    # -- waiting

    async def wait_healthy(
        self, *pools: str, backends: Sequence[str] = (), timeout: float = 30.0
    ) -> None:
        """Waits until backends are up: those of these pools, or of all.

        ``backends``: only these, by name or address, and each must be there. Drained ones do not
        count. Raises TimeoutError naming those that are not up.
        """
        async for _ in self._polls(timeout):
            missing = [f"{pool.name}: {word}" for pool in await self._some(pools)
                       for word in not_healthy(pool, backends)]
            if not missing:
                return
        raise TimeoutError(f"not up after {timeout:g} s: " + "; ".join(missing))

    async def wait_idle(self, pool: str, backend: str, *, timeout: float = 30.0) -> None:
        """Waits until nothing is under way at a backend. Raises TimeoutError."""
        async for _ in self._polls(timeout):
            under_way = (await self.backend_status(pool, backend)).inflight
            if not under_way:
                return
        raise TimeoutError(f"{pool}/{backend} still has {under_way} connection(s) or request(s) "
                           f"after {timeout:g} s")

    async def _some(self, names: Sequence[str]) -> Sequence[PoolStatus]:
        if not names:
            return await self.pools()
        return [await self.pool_status(name) for name in names]

    async def _polls(self, timeout: float) -> AsyncIterator[None]:
        until, pauses = time.monotonic() + timeout, iter(POLLS)
        while True:
            yield
            if time.monotonic() > until:
                return
            await asyncio.sleep(next(pauses, POLLS[-1]))

    # -- asking

    async def _ask(self, model: type[M], call: Call, patience: float | None = None) -> M:
        return read(model, await self._do(call, patience), self.address)

    async def _do(self, call: Call, patience: float | None = None) -> dict[str, Any]:
        if self._closed:
            raise ValueError("this client is closed")
        return await self._transport.do(call, patience)


class AsyncPool:
    """One pool of a running lbcore. Backends are called by their name or their address."""

    def __init__(self, client: AsyncClient, name: str) -> None:
        self.client = client
        self.name = name

    def __repr__(self) -> str:
        return f"AsyncPool({self.name!r})"

    async def status(self) -> OnePool:
        """The pool with its backends."""
        return await self.client.pool_status(self.name)

    async def backends(self) -> list[BackendStatus]:
        """Its backends."""
        return (await self.status()).backends

    async def backend(self, backend: str) -> OneBackend:
        """One of them."""
        return await self.client.backend_status(self.name, await self._called(backend))

    async def add(
        self, address: str, *, name: str | None = None, weight: int | None = None,
        backup: bool | None = None, max_connections: int | None = None, expect: int | None = None,
    ) -> OneBackend:
        """One backend more; see :meth:`AsyncClient.add_backend`."""
        return await self.client.add_backend(
            self.name, address, name=name, weight=weight, backup=backup,
            max_connections=max_connections, expect=expect)

    async def remove(self, backend: str, *, expect: int | None = None) -> BackendRemoved:
        """One less: it gets nothing new, and its connections finish."""
        name = await self._called(backend)
        return await self.client.remove_backend(self.name, name, expect=expect)

    async def retire(self, backend: str, *, timeout: float = 30.0) -> BackendRemoved:
        """Drains a backend, waits until nothing is under way there, and removes it.

        After that its process can end without anybody noticing. Raises TimeoutError when something
        is still under way; then it stays, drained.
        """
        name = await self._called(backend)
        await self.client.drain(self.name, name)
        await self.client.wait_idle(self.name, name, timeout=timeout)
        return await self.client.remove_backend(self.name, name)

    async def replace(
        self, backends: Sequence[BackendLike], *, expect: int | None = None
    ) -> BackendsReplaced:
        """Another set of backends; those in both keep connections, health and counters."""
        return await self.client.replace_backends(self.name, backends, expect=expect)

    async def drain(self, backend: str, *, expect: int | None = None) -> OneBackend:
        """Takes a backend out of service: it gets nothing new."""
        return await self.client.drain(self.name, await self._called(backend), expect=expect)

    async def undrain(self, backend: str, *, expect: int | None = None) -> OneBackend:
        """Puts a drained backend back into service."""
        return await self.client.undrain(self.name, await self._called(backend), expect=expect)

    async def set_weight(
        self, backend: str, weight: int | None, *, expect: int | None = None
    ) -> OneBackend:
        """Another weight, 0 to 1000; None is the configured one."""
        name = await self._called(backend)
        return await self.client.set_weight(self.name, name, weight, expect=expect)

    async def force(
        self, backend: str, state: ForcedState | None, *, expect: int | None = None
    ) -> OneBackend:
        """"up" or "down", whatever checks say; None leaves it to them again."""
        return await self.client.force(self.name, await self._called(backend), state, expect=expect)

    async def forget_changes(self, *, expect: int | None = None) -> Forgotten:
        """Back to what the file says of this pool."""
        return await self.client.forget_changes(self.name, expect=expect)

    async def restart(self) -> AppRestarted:
        """Replaces the servers of its application; returns once the new ones serve."""
        return await self.client.restart(self.name)

    async def wait_healthy(self, *backends: str, timeout: float = 30.0) -> None:
        """Waits until these backends are up, or all. Raises TimeoutError."""
        await self.client.wait_healthy(self.name, backends=backends, timeout=timeout)

    async def wait_idle(self, backend: str, *, timeout: float = 30.0) -> None:
        """Waits until nothing is under way at a backend. Raises TimeoutError."""
        await self.client.wait_idle(self.name, await self._called(backend), timeout=timeout)

    async def _called(self, backend: str) -> str:
        """The name of a backend. One without a name of its own is called by its address."""
        if ":" not in backend:           # which no name has
            return backend
        return name_of(await self.status(), backend)
