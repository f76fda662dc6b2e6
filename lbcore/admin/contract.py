"""What a running instance can be asked to tell and to change; the supervisor does it.

Every change takes ``expect``, the plan version that the caller believes to be in force: another
one in force is a 412 and nothing changes. ``None`` takes whatever is in force. Every accepted
change raises the version and has reached the workers when its method returns.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from lbcore.admin.figures import FigureSource

Json = dict[str, Any]


class ControlError(Exception):
    """A request that was not carried out: what is wrong, what to try, and an HTTP status.

    400: it makes no sense. 404: there is no such pool or backend. 409: not in this state.
    412: ``expect`` is not the version in force. 422: what it asks for is no configuration that
    lbcore would run; ``problems`` are those that ``lbcore check --json`` prints.
    """

    def __init__(
        self, status: int, message: str, hint: str = "", problems: Sequence[Json] = ()
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.hint = hint
        self.problems = list(problems)

    def as_json(self) -> Json:
        """The body of the answer."""
        error: Json = {"message": self.message}
        if self.hint:
            error["hint"] = self.hint
        if self.problems:
            error["problems"] = self.problems
        return {"error": error}


class Subscription(Protocol):
    """Events as they happen, each with its ``seq``.

    Iteration ends when the instance closes it, or when so many events wait to be read that the
    reader is given up: then ``dropped`` is true.
    """

    dropped: bool

    def __aiter__(self) -> AsyncIterator[Json]:
        """Itself."""

    async def __anext__(self) -> Json:
        """The next event."""

    def close(self) -> None:
        """The reader is gone. Can be called twice."""


class Control(Protocol):
    """The supervisor as the admin address sees it. Everything may raise ControlError."""

    # -- telling

    @property
    def figures(self) -> FigureSource:
        """What metrics are made of."""

    @property
    def plan_version(self) -> int:
        """Of what is in force now: raised by every change, whoever makes it."""

    async def status(self) -> Json:
        """The whole picture: workers, listeners, pools and backends, with their counters."""

    async def state(self) -> Json:
        """The picture in short, for a stream: what ``live`` tells is not in it."""

    def backend(self, pool: str, name: str) -> Json:
        """``{"plan_version", "pool", ...the backend}``, without looking at all the others."""

    async def live(self, window: int) -> Json:
        """Rates and latencies of the last seconds, at most ``window`` (1..60).

        Counting begins with the first question; ``window_s`` says how long the answer looks back.
        """

    def events(self, after: int, limit: int, level: str) -> Json:
        """``{"events": [...], "last": seq}``: what the log said after ``after``, newest last.

        Not more than ``limit``, the newest ones, and nothing below ``level``.
        """

    def subscribe(self, after: int | None = None) -> Subscription:
        """Events as they happen; first those after ``after`` that are still known."""

    def watch(self) -> AbstractContextManager[asyncio.Event]:
        """An event that is set when a backend, a pool or the plan changes; who waits clears it.

        Figures for :meth:`live` are collected for as long as somebody watches.
        """

    def changes(self) -> Json:
        """``{"plan_version", "changes": [...]}``: where what runs differs from the file."""

    def config(self) -> Json:
        """``{"plan_version", "config": {...}}``: what runs as the tables of a file."""

    def config_toml(self) -> str:
        """What runs as the text of a file."""

    # -- changing

    async def add_backend(self, pool: str, table: Mapping[str, Any], expect: int | None) -> Json:
        """One backend more, given as in a file. ``{"plan_version", "pool", ...the backend}``."""

    async def remove_backend(self, pool: str, name: str, expect: int | None) -> Json:
        """One less; its connections finish. ``{"plan_version", "pool", "backend", "inflight"}``."""

    async def replace_backends(
        self, pool: str, tables: Sequence[Mapping[str, Any] | str], expect: int | None
    ) -> Json:
        """All backends of a pool, given as in a file. Those that stay the same notice nothing.

        ``{"plan_version", "pool", "added", "removed", "changed", "backends"}``: names, and the
        backends.
        """

    async def patch_backend(
        self, pool: str, name: str, patch: Mapping[str, Any], expect: int | None
    ) -> Json:
        """Any of ``weight``, ``drain``, ``force`` and ``max_connections`` at once.

        ``{"plan_version", "pool", ...the backend}``.
        """

    async def change(self, changes: Sequence[Mapping[str, Any]], expect: int | None) -> Json:
        """All of these, or none. ``{"plan_version", "changes": [...]}`` as :meth:`changes`."""

    async def forget_changes(self, pool: str | None, expect: int | None) -> Json:
        """Back to the file, with one pool or altogether. ``{"plan_version", "forgotten"}``."""

    async def set_log_level(self, level: str | None, expect: int | None = None) -> Json:
        """What is logged; None: as the file says. ``{"plan_version", "level", "configured"}``."""

    async def set_workers(self, count: int | None, expect: int | None = None) -> Json:
        """How many workers; None: as the file says. ``{"plan_version", "workers"}``."""

    async def reload(self, expect: int | None = None) -> Json:
        """Reads the file again and puts it into force, with the changes that still apply.

        ``{"plan_version", "workers_failed", "needs_restart", "not_in_force", "dropped"}``.
        """

    async def restart(self, pool: str) -> Json:
        """Replaces the servers of a pool's application by new ones."""

    async def upgrade(self) -> Json:
        """Replaces supervisor and workers by what is installed now."""

    async def stop(self, now: bool) -> Json:
        """Ends the instance: after its connections, or at once."""
