"""Everything the admin address can be asked: one table of operations.

The server takes its routes and validation from it, ``openapi.py`` makes the document from it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel

from lbcore.admin import models, picture
from lbcore.admin.contract import Control, ControlError, Json
from lbcore.admin.reading import check_version
from lbcore.config.models import Backend


@dataclass(frozen=True, slots=True)
class Call:
    """A request that has been read."""

    control: Control
    look: Callable[[], Awaitable[Json]]      # the status, shared with who asks at the same time
    path: Mapping[str, str]
    query: Any = None
    body: Any = None
    expect: int | None = None

    @property
    def pool(self) -> str:
        """The pool that the path names."""
        return self.path["pool"]

    @property
    def backend(self) -> str:
        """The backend that the path names."""
        return self.path["backend"]


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing that can be asked, and how."""

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
    path: str
    name: str                    # operationId; a client's method is called so
    summary: str
    run: Callable[[Call], Awaitable[Json]] | None    # None: the server has a handler of its own
    answer: type[BaseModel] | None = None            # None: text
    media: str = "application/json"
    description: str = ""
    status: int = 200
    query: type[models.Query] | None = None
    body: type[BaseModel] | None = None
    body_needed: bool = True
    errors: tuple[int, ...] = ()                 # beside those that any request can meet
    open: bool = False                           # asks for no token

    @property
    def changes(self) -> bool:
        """Whether it changes something, and so takes If-Match."""
        return self.method != "GET"

    @property
    def group(self) -> str:
        """What it is about, for ordering."""
        return "change" if self.changes else "read"


# -- telling


async def _status(call: Call) -> Json:
    return await call.look()


async def _workers(call: Call) -> Json:
    return _part(await call.look(), "workers")


async def _listeners(call: Call) -> Json:
    return _part(await call.look(), "listeners")


async def _pools(call: Call) -> Json:
    return _part(await call.look(), "pools")


async def _pool(call: Call) -> Json:
    status = await call.look()
    return _of(status) | _named(status, call.pool)


async def _backend(call: Call) -> Json:
    return call.control.backend(call.pool, call.backend)


async def _live(call: Call) -> Json:
    return await call.control.live(call.query.window)


async def _events(call: Call) -> Json:
    return call.control.events(call.query.after, call.query.limit, call.query.level)


async def _changes(call: Call) -> Json:
    return call.control.changes()


async def _config(call: Call) -> Json:
    return call.control.config()


def _version(call: Call) -> Json:
    return {"plan_version": call.control.plan_version}


def _of(status: Json) -> Json:
    """The version that a picture was begun with. By the one in force when it is done, somebody
    could change what the picture does not have yet, and If-Match would let him."""
    return {"plan_version": status["plan_version"]}


def _part(status: Json, key: str) -> Json:
    return _of(status) | {key: status[key]}


def _named(status: Json, name: str) -> Json:
    for pool in status["pools"]:
        if pool["name"] == name:
            found: Json = pool
            return found
    raise ControlError(404, f"there is no pool {name!r}", "GET /v1/pools lists them")


# -- changing


async def _add(call: Call) -> Json:
    return await call.control.add_backend(call.pool, _given(call.body), call.expect)


async def _replace(call: Call) -> Json:
    tables = [_given(table) for table in call.body.backends]
    return await call.control.replace_backends(call.pool, tables, call.expect)


async def _remove(call: Call) -> Json:
    return await call.control.remove_backend(call.pool, call.backend, call.expect)


async def _patch(call: Call) -> Json:
    patch = _given(call.body)
    if not patch:
        raise ControlError(400, "nothing is to change",
                           f"known here: {', '.join(models.BackendPatch.model_fields)}")
    return await call.control.patch_backend(call.pool, call.backend, patch, call.expect)


async def _drain(call: Call) -> Json:
    return await _patched(call, "drain", True)


async def _undrain(call: Call) -> Json:
    return await _patched(call, "drain", False)


async def _weight(call: Call) -> Json:
    return await _patched(call, "weight", call.body.weight)


async def _force(call: Call) -> Json:
    return await _patched(call, "force", call.body.state)


async def _patched(call: Call, key: str, value: Any) -> Json:
    return await call.control.patch_backend(call.pool, call.backend, {key: value}, call.expect)


async def _change(call: Call) -> Json:
    changes = [_given(change) for change in call.body.changes]
    return await call.control.change(changes, call.expect)


async def _forget(call: Call) -> Json:
    return await call.control.forget_changes(None, call.expect)


async def _forget_pool(call: Call) -> Json:
    return await call.control.forget_changes(call.pool, call.expect)


async def _log(call: Call) -> Json:
    return await call.control.set_log_level(call.body.level, call.expect)


async def _set_workers(call: Call) -> Json:
    return await call.control.set_workers(call.body.count, call.expect)


async def _reload(call: Call) -> Json:
    return await call.control.reload(call.expect)


async def _restart(call: Call) -> Json:
    check_version(call.expect, call.control.plan_version)
    return await call.control.restart(call.pool) | _version(call)


async def _upgrade(call: Call) -> Json:
    check_version(call.expect, call.control.plan_version)
    return await call.control.upgrade() | _version(call)


async def _stop(call: Call) -> Json:
    check_version(call.expect, call.control.plan_version)
    return await call.control.stop(call.body.now) | _version(call)


def _given(body: BaseModel) -> Json:
    """What the request said, without defaults."""
    return body.model_dump(exclude_unset=True)


_POOL = "/v1/pools/{pool}"
_BACKEND = "/v1/backends/{pool}/{backend}"

OPERATIONS: tuple[Operation, ...] = (
    Operation("GET", "/v1/status", "status", "The whole picture", _status, picture.Status),
    Operation("GET", "/v1/workers", "workers", "The worker processes", _workers, models.Workers),
    Operation("GET", "/v1/listeners", "listeners", "The listeners", _listeners, models.Listeners),
    Operation("GET", "/v1/pools", "pools", "The pools with their backends", _pools, models.Pools),
    Operation("GET", _POOL, "pool", "One pool", _pool, models.OnePool, errors=(404,)),
    Operation("GET", _BACKEND, "backend", "One backend", _backend, models.OneBackend,
              errors=(404,)),
    Operation("GET", "/v1/live", "live", "Rates and latencies of the last seconds", _live,
              picture.Live, query=models.LiveQuery,
              description="Counting begins with the first question, and ends a minute after the "
                          "last one; `window_s` says how long an answer looks back."),
    Operation("GET", "/v1/events", "events", "What happened lately", _events, models.Events,
              query=models.EventsQuery,
              description="The last 1,000 events are kept, and as many lines of what "
                          "applications print."),
    Operation("GET", "/v1/changes", "changes", "Where what runs differs from the file", _changes,
              models.Changes),
    Operation("GET", "/v1/config", "config", "The running configuration as tables", _config,
              models.RunningConfig),
    Operation("GET", "/v1/config.toml", "config_toml", "The running configuration as a file",
              None, media="text/plain",
              description="It can be written to the configuration file as it is."),
    Operation("GET", "/v1/stream", "stream", "State and events as they happen", None,
              media="text/event-stream", query=models.StreamQuery, errors=(503,),
              description="Server-sent events. `event: state` (data: StreamState) at once, at "
                          "every `interval`, and when a backend changes; `event: event` (data: "
                          "Event, id: its number) as they happen. With the header "
                          "Last-Event-ID, or `after`, it begins with those that came since. A "
                          "reader that does not read is dropped."),
    Operation("GET", "/v1/openapi.json", "openapi", "This document", None, models.Document),
    Operation("GET", "/healthz", "healthz", "Whether the supervisor runs", None,
              media="text/plain", open=True),
    Operation("GET", "/readyz", "readyz", "Whether traffic can be sent here", None,
              media="text/plain", open=True,
              description="Every worker serves, and no listener lacks all backends. Otherwise 503, "
                          "with the reasons for those who show the token."),
    Operation("GET", "/metrics", "metrics", "Figures for Prometheus", None, media="text/plain",
              errors=(404,)),
    Operation("POST", _POOL + "/backends", "add_backend", "Adds a backend", _add,
              models.OneBackend, status=201, body=Backend, errors=(404, 409, 422)),
    Operation("PUT", _POOL + "/backends", "replace_backends", "Replaces a pool's backends",
              _replace, models.BackendsReplaced, body=models.BackendsBody, errors=(404, 409, 422),
              description="Those that stay the same keep connections, health and counters."),
    Operation("DELETE", _BACKEND, "remove_backend", "Removes a backend", _remove,
              models.BackendRemoved, errors=(404, 409, 422),
              description="Established connections finish. A pool's last one stays (409)."),
    Operation("PATCH", _BACKEND, "patch_backend", "Changes a backend", _patch,
              models.OneBackend, body=models.BackendPatch, errors=(404, 409, 422),
              description="Any of the keys, all of them at once."),
    Operation("POST", _BACKEND + "/drain", "drain", "Takes a backend out of service", _drain,
              models.OneBackend, errors=(404, 409), description="It gets nothing new."),
    Operation("POST", _BACKEND + "/undrain", "undrain", "Puts a backend back into service",
              _undrain, models.OneBackend, errors=(404, 409)),
    Operation("POST", _BACKEND + "/weight", "weight", "Changes a backend's weight", _weight,
              models.OneBackend, body=models.WeightBody, errors=(404, 409, 422)),
    Operation("POST", _BACKEND + "/force", "force", "Declares a backend up or down", _force,
              models.OneBackend, body=models.ForceBody, errors=(404, 409)),
    Operation("POST", "/v1/changes", "change", "Several changes, all or none", _change,
              models.Changes, body=models.ChangesBody, errors=(404, 409, 422)),
    Operation("DELETE", "/v1/changes", "forget_changes", "Back to the file", _forget,
              models.Forgotten, errors=(409, 422)),
    Operation("DELETE", _POOL + "/changes", "forget_pool_changes", "Back to the file, for a pool",
              _forget_pool, models.Forgotten, errors=(404, 409, 422)),
    Operation("PUT", "/v1/log", "set_log_level", "What is logged", _log, models.LogLevel,
              body=models.LogBody, errors=(409,)),
    Operation("POST", "/v1/workers", "set_workers", "Changes the number of workers",
              _set_workers, models.WorkerCount, body=models.WorkersBody, errors=(409, 500)),
    Operation("POST", "/v1/reload", "reload", "Reads the file again", _reload, models.Reloaded,
              errors=(409, 422),
              description="Changes made at run time stay, as far as they still apply."),
    Operation("POST", _POOL + "/restart", "restart", "Replaces an application's servers",
              _restart, models.AppRestarted, errors=(404, 409, 422)),
    Operation("POST", "/v1/upgrade", "upgrade", "Replaces lbcore by what is installed now",
              _upgrade, models.UpgradeStarted, status=202, errors=(409,)),
    Operation("POST", "/v1/stop", "stop", "Ends the instance", _stop, models.Stopping,
              status=202, body=models.StopBody, body_needed=False),
)
