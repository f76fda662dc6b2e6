"""Every request body, query and answer of the admin address, as pydantic models.

They are the only source: requests are validated by them, the OpenAPI document is made from them,
and clients read answers with them. ``picture.py`` has the large answers.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints
from pydantic_core import PydanticCustomError

from lbcore.admin.picture import (
    Answer,
    BackendStatus,
    Forced,
    Level,
    ListenerStatus,
    Live,
    Moment,
    PoolStatus,
    Slim,
    Versioned,
    WorkerStatus,
)
from lbcore.config.fields import NAME, Count
from lbcore.config.models import MAX_BACKENDS, MAX_WORKERS, BackendEntry

MAX_WEIGHT = 1000
MAX_EVENTS = 1000
MAX_CHANGES = 10_000             # of one request
MAX_BACKEND_NAME = 263           # a name of 253 characters with a port, or unix: and a path
PoolName = Annotated[str, StringConstraints(pattern=NAME)]
BackendName = Annotated[
    str,
    StringConstraints(min_length=1, max_length=MAX_BACKEND_NAME, pattern=r"^[^\x00-\x1f\x7f]+$"),
    Field(description="Its name; a backend without one is called by its address."),
]
Weight = Annotated[int, Field(ge=0, le=MAX_WEIGHT)]


# -- queries: their values come as text


def _whole(value: object) -> object:
    if isinstance(value, str) and not re.fullmatch(r"-?[0-9]{1,18}", value):
        raise PydanticCustomError("int_type", "must be a whole number")
    return value


def _number(value: object) -> object:
    if isinstance(value, str) and not re.fullmatch(r"-?[0-9]{1,18}(\.[0-9]{1,18})?", value):
        raise PydanticCustomError("float_type", "must be a number")
    return value


def _switch(value: object) -> object:
    if isinstance(value, str) and value not in ("true", "false"):
        raise PydanticCustomError("bool_type", "must be true or false")
    return value


class Query(BaseModel):
    """What may stand behind the question mark."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class LiveQuery(Query):
    """For the live figures."""

    window: Annotated[int, BeforeValidator(_whole)] = Field(
        10, ge=1, le=60, description="Seconds to look back.")


class EventsQuery(Query):
    """Which events."""

    after: Annotated[int, BeforeValidator(_whole)] = Field(
        0, ge=0, le=2**53, description="Only events with a higher number.")
    limit: Annotated[int, BeforeValidator(_whole)] = Field(
        100, ge=1, le=MAX_EVENTS, description="At most so many, the newest.")
    level: Level = Field("info", description="Nothing less important than this.")


class StreamQuery(Query):
    """What a stream tells."""

    interval: Annotated[float, BeforeValidator(_number)] = Field(
        1.0, ge=0.5, le=60, description="Seconds from one state to the next.")
    live: Annotated[bool, BeforeValidator(_switch)] = Field(
        True, description="Whether states come with live figures.")
    window: Annotated[int, BeforeValidator(_whole)] = Field(
        10, ge=1, le=60, description="Seconds that live figures look back.")
    after: Annotated[int | None, BeforeValidator(_whole)] = Field(
        None, ge=0, le=2**53,
        description="Begin with the events after this number; the header Last-Event-ID wins.")
    level: Level = Field("info", description="No events less important than this.")


# -- request bodies


class Body(BaseModel):
    """A request body: no unknown keys, no guessing between types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=True)


class WeightBody(Body):
    """A backend's weight."""

    weight: Weight | None = Field(description="null: the configured one again.")


class ForceBody(Body):
    """A state by the operator's word."""

    state: Forced | None = Field(description="null: checks and traffic decide again.")


def _without_default(schema: dict[str, Any]) -> None:
    """For a key that stays as it is when it is absent."""
    del schema["default"]


class BackendPatch(Body):
    """Any of these; what is absent stays as it is."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    weight: Weight | None = Field(None, description="null: the configured one again.")
    drain: bool = Field(
        False, description="Whether it gets nothing new.",
        json_schema_extra=_without_default)
    force: Forced | None = Field(
        None, description="down: no traffic whatever checks say. up: traffic whatever they say. "
        "null: they decide again.")
    max_connections: Count | None = Field(
        None, description="Connections at once. 0: no limit. null: the configured number again.")


class BackendsBody(Body):
    """All backends of a pool."""

    backends: list[BackendEntry] = Field(
        max_length=MAX_BACKENDS, description="As in a file: addresses, or tables.")


class AddChange(Body):
    """One backend more."""

    op: Literal["add"]
    pool: PoolName
    backend: BackendEntry = Field(description="As in a file: an address, or a table.")


class RemoveChange(Body):
    """One backend less."""

    op: Literal["remove"]
    pool: PoolName
    backend: BackendName


class WeightChange(Body):
    """Another weight."""

    op: Literal["weight"]
    pool: PoolName
    backend: BackendName
    value: Weight | None = Field(description="null: the configured one again.")


class DrainChange(Body):
    """Out of service, or back."""

    op: Literal["drain"]
    pool: PoolName
    backend: BackendName
    value: bool


class ForceChange(Body):
    """A state by the operator's word."""

    op: Literal["force"]
    pool: PoolName
    backend: BackendName
    value: Forced | None = Field(description="null: checks and traffic decide again.")


OneChange = Annotated[
    AddChange | RemoveChange | WeightChange | DrainChange | ForceChange,
    Field(discriminator="op"),
]


class ChangesBody(Body):
    """Changes that come into force together, or not at all."""

    changes: list[OneChange] = Field(min_length=1, max_length=MAX_CHANGES)


class LogBody(Body):
    """What is logged."""

    level: Level | None = Field(description="null: as the file says.")


class WorkersBody(Body):
    """How many workers."""

    count: Annotated[int, Field(ge=1, le=MAX_WORKERS)] | None = Field(
        description="null: as the file says.")


class StopBody(Body):
    """How to end."""

    now: bool = Field(False, description="Whether connections end at once.")


# -- answers


class Problem(Answer):
    """One thing that is wrong, and what to try."""

    file: str = Field("", description='A file, or "request".')
    line: int = Field(0, description="In that file, from 1; 0: it has none.")
    key: str = Field("", description="Such as `backends[2].weight`.")
    message: str
    hint: str = ""


class ErrorDetail(Answer):
    """Why a request was not carried out."""

    message: str
    hint: str = Field("", description="What to try.")
    problems: list[Problem] = Field([], description="Everything that is wrong with it.")


class Error(Answer):
    """A refusal."""

    error: ErrorDetail


class Workers(Versioned):
    """The worker processes."""

    workers: list[WorkerStatus]


class Listeners(Versioned):
    """The listeners."""

    listeners: list[ListenerStatus]


class Pools(Versioned):
    """The pools with their backends."""

    pools: list[PoolStatus]


class OnePool(PoolStatus, Versioned):
    """A pool with its backends."""


class OneBackend(BackendStatus, Versioned):
    """A backend of a pool."""

    pool: str


class BackendRemoved(Versioned):
    """A backend that gets nothing new; its connections finish."""

    pool: str
    backend: str
    inflight: int = Field(description="Connections or requests that it still has.")


class BackendsReplaced(Versioned):
    """The backends of a pool, and what became different."""

    pool: str
    added: list[str]
    removed: list[str]
    changed: list[str]
    backends: list[BackendStatus]


class Event(Answer):
    """Something that happened, as the log tells it."""

    seq: int = Field(description="Counts up by one; starts anew with the instance.")
    time: Moment
    level: Level
    event: str = Field(description="What kind, such as `backend.state`.")
    message: str = Field(description="For people; often empty.")
    fields: dict[str, Any]


class Events(Answer):
    """What happened, newest last."""

    events: list[Event]
    last: int = Field(description="The number of the newest event there is.")


class Difference(Answer):
    """Something that runs otherwise than the file says."""

    op: str = Field(description="add, remove, set, weight, drain, force, workers or log_level.")
    pool: str | None = None
    backend: str | None = None
    file: Any = Field(description="What the file says.")
    running: Any = Field(description="What is in force.")
    since: Moment


class Changes(Versioned):
    """Where what runs differs from the file."""

    changes: list[Difference]


class Forgotten(Versioned):
    """What runs is what the file says."""

    forgotten: int = Field(description="Differences that ended.")


class RunningConfig(Versioned):
    """What runs as the tables of a file."""

    config: dict[str, Any]


class LogLevel(Versioned):
    """What is logged."""

    level: Level
    configured: Level


class WorkerCount(Versioned):
    """How many workers there are."""

    workers: int


class Reloaded(Versioned):
    """The file is in force."""

    workers_failed: list[str] = Field([], description="What went wrong in single workers.")
    needs_restart: list[str] = Field([], description="Keys that only a new start can change.")
    not_in_force: list[str] = Field(
        [], description="Keys of the file that could not be put into force, and why.")
    dropped: list[Difference] = Field(
        [], description="Changes at run time that no longer apply, and ended.")


class AppRestarted(Versioned):
    """An application has new servers."""

    model_config = ConfigDict(extra="allow", frozen=True, defer_build=True)

    pool: str | None = None


class UpgradeStarted(Versioned):
    """New code has proved that it starts, and takes over."""

    generation: int
    next_generation: int


class Stopping(Versioned):
    """It is ending."""

    state: str = Field(description="draining: after its connections. now: at once.")
    drain_timeout_ms: int
    pid: int


class StreamState(Answer):
    """The data of `event: state` in a stream."""

    status: Slim
    live: Live | None = Field(None, description="Absent with `live=false`.")


class Document(Answer):
    """An OpenAPI document."""

    model_config = ConfigDict(extra="allow", frozen=True, defer_build=True)

    openapi: str
    info: dict[str, Any]
    paths: dict[str, Any]
