"""What the waiting and the asynchronous client share: addresses, tables, and reading answers."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from pydantic import BaseModel, ValidationError

from lbcore.admin.calls import AdminError, Json
from lbcore.admin.models import Event, StreamState
from lbcore.admin.picture import BackendStatus, PoolStatus
from lbcore.config import admin_address, default_admin_address, load, values
from lbcore.config.plan import Address

M = TypeVar("M", bound=BaseModel)
ForcedState = Literal["up", "down"]
LogLevelName = Literal["debug", "info", "warning", "error"]
BackendLike = str | Mapping[str, Any]
ADVICE = "is it running, and is this its admin address?"
POLLS = (0.02, 0.02, 0.05, 0.05, 0.1, 0.1, 0.2)      # seconds; the last one again and again


class _Keep(Enum):
    KEEP = "as it is"


KEEP: Final = _Keep.KEEP         # for a value that a patch leaves alone; None means something
Keep = Literal[_Keep.KEEP]


@dataclass(frozen=True)
class Readiness:
    """Whether an instance serves everything; it is true if so. ``reasons``: what is missing."""

    ready: bool
    reasons: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.ready


def reached(
    where: str | os.PathLike[str] | None, token: str | None,
    token_file: str | os.PathLike[str] | None,
) -> tuple[Address, str]:
    """The admin address that somebody means, and the token to send there.

    None: where lbcore listens unless told otherwise. A path ending in .toml: what that file says,
    and over TCP the token that it names, unless there is another. Another path: a unix socket.
    Otherwise "unix:/PATH", "HOST:PORT" or "http://HOST:PORT". Raises ValueError, ConfigError for a
    file that is none, OSError for a token file not to be read.
    """
    if where is None:
        return default_admin_address(), _token(token, token_file)
    text = os.fspath(where)
    if not text.startswith("unix:") and text.endswith(".toml"):
        config = load(text)
        address = admin_address(config)
        named = None if address.path else config.admin.token_file
        return address, _token(token, token_file or named)
    if isinstance(where, Path) or text.startswith("/"):
        address = Address(path=os.path.abspath(text))    # noqa: PTH100  (keeps links)
    else:
        address = values.parse_backend(text.removeprefix("http://").removesuffix("/"))
    return address, _token(token, token_file)


def _token(token: str | None, file: str | os.PathLike[str] | None) -> str:
    """The token to send; of a file, its first line. Raises OSError."""
    if token is not None or file is None:
        return token or ""
    return next(iter(Path(file).read_text("utf-8").splitlines()), "").strip()


def read(model: type[M], said: Json, where: object) -> M:
    """An answer as a model. Raises AdminError for one that is not lbcore's."""
    try:
        return model.model_validate(said)
    except ValidationError as error:
        what = error.errors(include_url=False, include_input=False)[0]
        key = ".".join(map(str, what["loc"]))
        raise AdminError(
            f"{where} does not answer like this version of lbcore: {key}: {what['msg']}",
            "use the client of the version that runs") from error


def read_stream(name: str, said: Json, where: object) -> Iterator[StreamState | Event]:
    """A message of the stream; nothing for a kind that this version does not know."""
    if name == "state":
        yield read(StreamState, said, where)
    elif name == "event":
        yield read(Event, said, where)


def table_of(address: str, **keys: Any) -> Json:
    """A backend as a table of a file, with the keys that are given."""
    return {"address": address} | {name: value for name, value in keys.items()
                                   if value is not None}


def patch_of(**keys: Any) -> Json:
    """What a patch changes. Raises ValueError for nothing."""
    found = {name: value for name, value in keys.items() if value is not KEEP}
    if not found:
        raise ValueError("nothing to change: name weight, drain, force or max_connections")
    return found


def readiness(said: Json) -> Readiness:
    """What /readyz said."""
    ready = said["status"] < 400
    lines = [] if ready else [line.strip() for line in str(said["text"]).splitlines()]
    return Readiness(ready, tuple(line for line in lines if line))


def name_of(pool: PoolStatus, backend: str) -> str:
    """The name of a backend that is called by its name or its address."""
    names = {one.name for one in pool.backends}
    by_address = {one.address: one.name for one in pool.backends}
    return backend if backend in names else by_address.get(backend, backend)


def not_healthy(pool: PoolStatus, only: Sequence[str] = ()) -> list[str]:
    """Backends that are not up yet, in words. Drained ones and those forced down do not count."""
    missing = [name for name in only
               if name not in {one.name for one in pool.backends} | _addresses(pool)]
    found = [f"{name} is not in the pool" for name in missing]
    for one in pool.backends:
        if only and one.name not in only and one.address not in only:
            continue
        if one.draining or one.forced == "down":
            continue
        if one.state != "up":
            found.append(f"{one.name} is {one.state}" + (f": {one.reason}" if one.reason else ""))
        elif _unchecked(one):
            found.append(f"{one.name} has not been checked yet")
    return found


def _addresses(pool: PoolStatus) -> set[str]:
    return {one.address for one in pool.backends}


def _unchecked(backend: BackendStatus) -> bool:
    """Whether a backend has checks of which none has ended yet; until then it takes traffic."""
    return backend.last_check is not None and backend.last_check.ok is None
