"""The keys of a pool whose backends are a Python application that lbcore runs itself.

The model, what several of its keys say together, and what they become in the plan.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import StringConstraints

from lbcore.config.fields import Duration, Line, PositiveDuration, Table, as_written, key
from lbcore.config.plan import AppKind, AppPlan, AppServer
from lbcore.config.values import BadValue

# The servers that can run each kind; the first is the default.
SERVERS: dict[AppKind, tuple[AppServer, ...]] = {
    "wsgi": ("gunicorn", "granian", "hypercorn"),
    "asgi": ("uvicorn", "granian", "hypercorn", "daphne"),
}
MAX_INSTANCES = 64
_CALLABLE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*(\([^\x00-\x1f]*\))?")
_MODULE = re.compile(r"[A-Za-z_][\w.]*")


def _callable(text: str) -> None:
    if _CALLABLE.fullmatch(text):
        return
    if _MODULE.fullmatch(text) and not text.endswith(".py"):
        raise BadValue(f'"{text}" does not say which callable of the module',
                       f'"{text}:application" or "{text}:app"')
    hint = 'MODULE:CALLABLE as Python imports it, such as "mysite.wsgi:application"'
    if "/" in text or text.endswith(".py"):
        hint = f"{hint}; where it is imported from is `directory`"
    raise BadValue(f'"{text}" does not name an application', hint)


Callable = Annotated[str, as_written(_callable)]
Variable = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Value = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$")]


class AppKeys(Table):
    """What a pool says of a Python application that lbcore runs."""

    wsgi: Callable | None = key(
        None,
        "A WSGI application that lbcore runs and adds to the pool: `module:callable`. "
        "Absent: none.",
        "module:callable",
    )
    asgi: Callable | None = key(
        None,
        "An ASGI application that lbcore runs and adds to the pool: `module:callable`. "
        "Absent: none.",
        "module:callable",
    )
    server: Literal["gunicorn", "uvicorn", "granian", "hypercorn", "daphne"] | None = key(
        None,
        "The application server, which must be installed beside the application. Absent: gunicorn "
        "for wsgi, uvicorn for asgi.",
        "server",
    )
    workers: int = key(
        1, "Worker processes of each application server.", "processes", ge=1, le=1024
    )
    threads: int = key(
        0,
        "Threads of each worker process, with gunicorn and granian and a wsgi application. "
        "0: the server's own default.",
        "threads",
        ge=0,
        le=1024,
    )
    instances: int = key(
        1,
        "Application servers, each a backend of its own among which lbcore balances.",
        "servers",
        ge=1,
        le=MAX_INSTANCES,
    )
    directory: Line = key(
        "",
        "Where the application runs and is imported from; relative to the configuration file. "
        "Empty: where that file is.",
        "path",
    )
    env: dict[Variable, Value] = key(
        {}, "Environment variables of the application, beside lbcore's own.", "variables"
    )
    venv: Line = key(
        "",
        "Virtual environment with the application server; relative to the configuration file. "
        "Empty: none.",
        "path",
    )
    python: Line = key(
        "",
        "Python to run the application server with: a name that is looked up in PATH, or a path, "
        "relative to the configuration file. Empty: that of `venv`, or else the one that runs "
        "lbcore.",
        "path",
    )
    user: Line = key(
        "",
        "The application runs as this user when lbcore starts as root. Empty: as the workers of "
        "lbcore.",
        "user name",
    )
    group: Line = key(
        "",
        "The application runs as this group when lbcore starts as root. Empty: the main group of "
        "`user`.",
        "group name",
    )
    options: list[Value] = key(
        [],
        "More command line arguments for the application server; they come last and win.",
        "arguments",
        max_length=256,
    )
    start_timeout: PositiveDuration = key(
        "30s",
        "How long the application may take until it answers its first request. What has not "
        "answered by then gets no traffic.",
        "duration",
    )
    stop_timeout: Duration = key(
        "30s",
        "How long requests may go on in an application that is being replaced or ended.",
        "duration",
    )
    watch: bool = key(
        False,
        "Whether changed code replaces the running application, without a failed request.",
        "switch",
    )
    watch_paths: list[Line] = key(
        [],
        "What is watched: directories, with all below them, and files; relative to the "
        "configuration file. Empty: `directory`.",
        "paths",
        max_length=256,
    )


APP_ONLY = tuple(name for name in AppKeys.model_fields if name not in ("wsgi", "asgi"))


def kind_of(pool: AppKeys) -> AppKind | None:
    """Which kind of application a pool runs, if any."""
    return "wsgi" if pool.wsgi else "asgi" if pool.asgi else None


def server_of(pool: AppKeys, kind: AppKind) -> AppServer:
    """The application server of a pool with this kind of application."""
    return pool.server or SERVERS[kind][0]


def without_effect(pool: AppKeys) -> Iterator[tuple[str, str, str, str]]:
    """Keys that mean nothing beside the others: (key, message, hint, key it depends on)."""
    kind = kind_of(pool)
    if kind is None:
        for name in APP_ONLY:
            yield (name, "this has no effect without an application",
                   'wsgi = "module:callable" or asgi = "module:callable"', "wsgi")
        return
    server = server_of(pool, kind)
    if not (kind == "wsgi" and server in ("gunicorn", "granian")):
        yield ("threads", f"{server} runs {kind} applications without threads of this kind",
               "more workers or instances", "server")
    if not pool.watch:
        yield "watch_paths", "this has no effect without watch", "watch = true", "watch"
    if not pool.user:
        yield "group", "this has no effect without user", 'user = "NAME"', "user"


def problems(pool: AppKeys) -> Iterator[tuple[str, str, str, str]]:
    """What contradicts itself: (key, message, hint, another key that it is about)."""
    for name, message, hint, needs in without_effect(pool):
        if name in pool.model_fields_set:
            yield name, message, hint, needs
    kind = kind_of(pool)
    if kind is None:
        return
    if pool.wsgi and pool.asgi:
        yield "asgi", "a pool runs one application, and this one has wsgi too", "keep one", "wsgi"
    elif pool.server and pool.server not in SERVERS[kind]:
        servers = " or ".join(f'"{name}"' for name in SERVERS[kind])
        yield "server", f"{pool.server} does not run {kind} applications", servers, kind
    if server_of(pool, kind) == "daphne" and pool.workers > 1:
        yield ("workers", "daphne is always one process",
               f"instances = {min(pool.workers, MAX_INSTANCES)} runs as many, each a backend",
               "server")
    if pool.venv and pool.python:
        yield "python", "venv names a Python already", "keep one of the two", "venv"


def backend_names(pool: AppKeys) -> list[str]:
    """The names of the backends that the application is."""
    if kind_of(pool) is None:
        return []
    if pool.instances == 1:
        return ["app"]
    return [f"app-{number}" for number in range(1, pool.instances + 1)]


def app_plan(pool: AppKeys) -> AppPlan | None:
    """What the keys mean; None for a pool without an application."""
    kind = kind_of(pool)
    if kind is None:
        return None
    return AppPlan(
        kind=kind,
        app=pool.wsgi or pool.asgi or "",
        server=server_of(pool, kind),
        workers=pool.workers,
        threads=pool.threads,
        names=tuple(backend_names(pool)),
        directory=pool.directory,
        env=tuple(pool.env.items()),
        venv=pool.venv,
        python=pool.python,
        user=pool.user,
        group=pool.group,
        options=tuple(pool.options),
        start_timeout_ms=pool.start_timeout,
        stop_timeout_ms=pool.stop_timeout,
        watch=pool.watch,
        watch_paths=tuple(pool.watch_paths),
    )


def shown(pool: AppKeys, tables: dict[str, Any]) -> None:
    """Takes keys without effect out of what ``lbcore show`` prints of a pool."""
    for name, *_ in list(without_effect(pool)):
        tables.pop(name, None)
    if kind_of(pool) is not None and tables["python"] == "" and tables["venv"] != "":
        del tables["python"]
