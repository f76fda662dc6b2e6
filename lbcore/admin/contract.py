"""What a running instance can be asked to do; the supervisor is the one who does it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

Json = dict[str, Any]


class ControlError(Exception):
    """A request that was not carried out: what is wrong, what to try, and an HTTP status."""

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


class Control(Protocol):
    """The supervisor as the admin address sees it. Everything may raise ControlError."""

    async def status(self) -> Json:
        """Workers, listeners, pools and backends."""

    async def reload(self) -> Json:
        """Reads the configuration again and puts it into force."""

    async def restart(self, pool: str) -> Json:
        """Replaces the servers of a pool's application by new ones."""

    async def set_drain(self, pool: str, backend: str, on: bool) -> Json:
        """Takes a backend out of service or puts it back."""

    async def set_weight(self, pool: str, backend: str, weight: int | None) -> Json:
        """Replaces a backend's configured weight; None takes the configured one again."""

    async def set_workers(self, count: int) -> Json:
        """Changes the number of workers."""

    async def upgrade(self) -> Json:
        """Replaces supervisor and workers by what is installed now."""

    async def stop(self, now: bool) -> Json:
        """Ends the instance: after its connections, or at once."""
