"""What can be asked at the admin address, as data: method, path, body, and who may refuse it.

Clients that wait and clients that do not send the same calls and read answers with the same
words; they differ only in how the bytes travel. Standard library only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

Json = dict[str, Any]


class ClientError(Exception):
    """Something asked of a running lbcore did not come about."""


class NotRunning(ClientError):
    """Nobody answers at the admin address; the text says what to check."""


class AdminError(ClientError):
    """The instance refused; ``hint`` and ``problems`` say what to do about it.

    ``status`` is the HTTP status of the answer, 0 when it was none of lbcore's. ``problems`` are
    those of a configuration, as ``lbcore check --json`` prints them.
    """

    def __init__(self, message: str, hint: str = "", problems: list[Json] | None = None,
                 status: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.problems = problems or []
        self.status = status

    def __str__(self) -> str:
        return self.message


class Denied(AdminError):
    """401 or 403: the token is missing, wrong or not enough."""


class NotFound(AdminError):
    """404: there is no such pool, backend or path."""


class Conflict(AdminError):
    """409: not in the state that the instance, pool or backend is in."""


class Stale(AdminError):
    """412: another plan is in force than the one that was expected."""


class Refused(AdminError):
    """422: a configuration with this change would be refused; ``problems`` say why."""


REFUSALS: dict[int, type[AdminError]] = {
    401: Denied, 403: Denied, 404: NotFound, 409: Conflict, 412: Stale, 422: Refused,
}


@dataclass(frozen=True)
class Call:
    """One request. ``expect``: the plan version that has to be in force, or None for any."""

    method: str
    path: str
    body: Mapping[str, Any] | None = None
    query: Mapping[str, Any] = field(default_factory=dict)
    expect: int | None = None
    text: bool = False               # the answer is text, not JSON
    says: tuple[int, ...] = ()       # statuses from 400 up that are answers, not refusals

    @property
    def target(self) -> str:
        """Path and query."""
        said = {name: _word(value) for name, value in self.query.items() if value is not None}
        return f"{self.path}?{urlencode(said)}" if said else self.path

    def data(self) -> bytes | None:
        """The body."""
        return None if self.body is None else json.dumps(self.body).encode()

    def headers(self, token: str = "") -> dict[str, str]:
        """Headers beside those that frame the message."""
        found = {"Accept": "text/plain" if self.text else "application/json"}
        if self.body is not None:
            found["Content-Type"] = "application/json"
        if self.expect is not None:
            found["If-Match"] = f'"{self.expect}"'
        if token:
            found["Authorization"] = f"Bearer {token}"
        return found

    def answer(self, where: object, status: int, text: bytes) -> Json:
        """What an answer says; text comes as ``{"text": ...}``. Raises AdminError."""
        if self.text and (status < 400 or status in self.says):
            return {"text": text.decode("utf-8", "replace"), "status": status}
        try:
            said = json.loads(text)
        except ValueError:
            said = None
        if not isinstance(said, dict):
            raise AdminError(f"{where} does not answer like lbcore (status {status})",
                             status=status)
        if status >= 400 and status not in self.says:
            raise refusal(status, said)
        return said


def refusal(status: int, said: Json) -> AdminError:
    """The exception for an answer that is an error."""
    error = said.get("error")
    error = error if isinstance(error, dict) else {}
    kind = REFUSALS.get(status, AdminError)
    return kind(str(error.get("message", f"status {status}")), str(error.get("hint", "")),
                list(error.get("problems", [])), status)


# ---- reading -----------------------------------------------------------------------------------

def healthy() -> Call:
    """Whether the supervisor runs."""
    return Call("GET", "/healthz", text=True)


def ready() -> Call:
    """Whether everything serves; 503 with the reasons otherwise."""
    return Call("GET", "/readyz", text=True, says=(503,))


def status() -> Call:
    """The whole picture."""
    return Call("GET", "/v1/status")


def workers() -> Call:
    """The workers."""
    return Call("GET", "/v1/workers")


def listeners() -> Call:
    """The listeners."""
    return Call("GET", "/v1/listeners")


def pools() -> Call:
    """The pools."""
    return Call("GET", "/v1/pools")


def pool(name: str) -> Call:
    """One pool."""
    return Call("GET", f"/v1/pools/{_part(name)}")


def backend(pool: str, name: str) -> Call:
    """One backend."""
    return Call("GET", _backend(pool, name))


def live(window: int = 10) -> Call:
    """Figures of the last seconds, 1 to 60."""
    return Call("GET", "/v1/live", query={"window": window})


def events(after: int | None = None, limit: int | None = None, level: str | None = None) -> Call:
    """What was logged after an event."""
    return Call("GET", "/v1/events", query={"after": after, "limit": limit, "level": level})


def changes() -> Call:
    """Differences of what runs from the file."""
    return Call("GET", "/v1/changes")


def config() -> Call:
    """The running configuration as tables."""
    return Call("GET", "/v1/config")


def config_toml() -> Call:
    """The running configuration as the text of a file."""
    return Call("GET", "/v1/config.toml", text=True)


def openapi() -> Call:
    """The OpenAPI document of the admin address."""
    return Call("GET", "/v1/openapi.json")


def metrics() -> Call:
    """Figures for Prometheus."""
    return Call("GET", "/metrics", text=True)


def stream(interval: float = 1.0, live: bool = True, after: int | None = None,
           level: str | None = None) -> Call:
    """State and events as they happen, as server-sent events."""
    return Call("GET", "/v1/stream", query={"interval": f"{interval:g}", "live": live,
                                            "after": after, "level": level})


# ---- changing ----------------------------------------------------------------------------------

def add_backend(pool: str, table: Mapping[str, Any], expect: int | None = None) -> Call:
    """One backend more."""
    return Call("POST", f"/v1/pools/{_part(pool)}/backends", table, expect=expect)


def replace_backends(
    pool: str, tables: Sequence[str | Mapping[str, Any]], expect: int | None = None
) -> Call:
    """Another set of backends; those in both stay as they are."""
    return Call("PUT", f"/v1/pools/{_part(pool)}/backends", {"backends": list(tables)},
                expect=expect)


def remove_backend(pool: str, name: str, expect: int | None = None) -> Call:
    """One backend less; its connections finish."""
    return Call("DELETE", _backend(pool, name), expect=expect)


def patch_backend(
    pool: str, name: str, patch: Mapping[str, Any], expect: int | None = None
) -> Call:
    """Weight, drain, force and max_connections: any of them, at once."""
    return Call("PATCH", _backend(pool, name), patch, expect=expect)


def drain(pool: str, name: str, on: bool = True, expect: int | None = None) -> Call:
    """A backend out of service, or back in."""
    return Call("POST", f"{_backend(pool, name)}/{'drain' if on else 'undrain'}", expect=expect)


def weight(pool: str, name: str, weight: int | None, expect: int | None = None) -> Call:
    """Another weight; None is the configured one."""
    return Call("POST", f"{_backend(pool, name)}/weight", {"weight": weight}, expect=expect)


def force(pool: str, name: str, state: str | None, expect: int | None = None) -> Call:
    """Up or down, whatever checks say; None leaves it to them again."""
    return Call("POST", f"{_backend(pool, name)}/force", {"state": state}, expect=expect)


def change(changes: Sequence[Mapping[str, Any]], expect: int | None = None) -> Call:
    """Several changes, all or none."""
    return Call("POST", "/v1/changes", {"changes": list(changes)}, expect=expect)


def forget_changes(pool: str | None = None, expect: int | None = None) -> Call:
    """Back to the file, for one pool or all."""
    path = "/v1/changes" if pool is None else f"/v1/pools/{_part(pool)}/changes"
    return Call("DELETE", path, expect=expect)


def set_log_level(level: str | None, expect: int | None = None) -> Call:
    """Another log level; None is the configured one."""
    return Call("PUT", "/v1/log", {"level": level}, expect=expect)


def set_workers(count: int | None, expect: int | None = None) -> Call:
    """Another number of workers; None is the configured one."""
    return Call("POST", "/v1/workers", {"count": count}, expect=expect)


def reload(expect: int | None = None) -> Call:
    """The configuration is read again."""
    return Call("POST", "/v1/reload", expect=expect)


def restart(pool: str) -> Call:
    """The servers of a pool's application are replaced."""
    return Call("POST", f"/v1/pools/{_part(pool)}/restart")


def upgrade() -> Call:
    """Supervisor and workers are replaced by what is installed."""
    return Call("POST", "/v1/upgrade")


def stop(now: bool = False) -> Call:
    """The instance ends."""
    return Call("POST", "/v1/stop", {"now": now})


def _backend(pool: str, name: str) -> str:
    return f"/v1/backends/{_part(pool)}/{_part(name)}"


def _part(name: str) -> str:
    return quote(name, safe="")


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
