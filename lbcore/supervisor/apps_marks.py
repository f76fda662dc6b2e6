"""Marks: how a supervisor knows the application servers that an earlier one has started.

A server carries its mark in its environment. Anybody can put anything into the environment of a
process, even of one that root will own: they only have to start a setuid program. So a mark has a
seal, made with a key in a file that only the user of the supervisor can read, and it says whose
process it is. A user who runs a server can read that server's mark and give it to another process
of theirs; of several with the same mark, the oldest is the server.

Marks have no paths: those follow from what they say (``apps_place.py``).
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from lbcore.supervisor.apps_output import ServerKey
from lbcore.supervisor.apps_place import entry_of, server_path
from lbcore.supervisor.process import began_at

MARK = "LBCORE_APP"              # the variable
KEY_NAME = "apps.key"            # in the runtime directory
KEY_SIZE = 32                    # bytes


@dataclass(frozen=True)
class Mark:
    """What a server is."""

    at: str                      # the runtime directory of its instance
    pool: str
    backend: str
    generation: int
    descriptor: bool             # whether it inherited its socket
    fingerprint: str             # of its settings
    uid: int                     # whose process it is

    @property
    def key(self) -> ServerKey:
        """Its name."""
        return self.pool, self.backend, self.generation

    @property
    def path(self) -> Path:
        """Where it listens."""
        return server_path(Path(self.at), *self.key, self.descriptor)

    def sealed(self) -> str:
        """The variable's value. Raises OSError when there can be no key."""
        facts = asdict(self)
        return json.dumps({**facts, "seal": _seal(_make_key(Path(self.at)), facts)})


@dataclass(frozen=True)
class Found:
    """A server that runs."""

    mark: Mark
    pid: int
    began: int                   # as began_at() tells


def find_servers(runtime_dir: Path) -> tuple[list[Found], list[int]]:
    """The servers of an instance that run, and processes that claim in vain to be one."""
    key = _key(runtime_dir)
    found: dict[ServerKey, Found] = {}
    impostors = []
    for pid in psutil.pids():
        with suppress(psutil.Error, OSError, ValueError):
            began = began_at(pid)
            process = psutil.Process(pid)
            said = claim(process.environ(), runtime_dir)
            if said is None or os.getsid(pid) != pid:    # what servers start is in their sessions
                continue
            mark = _proven(said, key)
            if mark is None or set(process.uids()) != {mark.uid}:
                impostors.append(pid)
                continue
            if mark.key not in found or began < found[mark.key].began:
                found[mark.key] = Found(mark, pid, began)
    return [*found.values()], impostors


def claim(environment: Mapping[str, str], runtime_dir: Path) -> dict[str, object] | None:
    """What a process says that it is, if it names this instance; true or not."""
    with suppress(ValueError, RecursionError):
        said = json.loads(environment.get(MARK, ""))
        if isinstance(said, dict) and said.get("at") == str(runtime_dir):
            return said
    return None


def forget_key(runtime_dir: Path) -> None:
    """Removes the key: no server is left."""
    with suppress(OSError):
        (runtime_dir / KEY_NAME).unlink()


def _proven(said: Mapping[str, object], key: bytes) -> Mark | None:
    facts = {name: value for name, value in said.items() if name != "seal"}
    with suppress(TypeError, ValueError):
        seal = str(said.get("seal")).encode()
        if key and hmac.compare_digest(_seal(key, facts).encode(), seal):
            mark = Mark(**facts)     # type: ignore[arg-type]  # it is as we once wrote it
            entry_of(Path(mark.at), mark.path)
            return mark
    return None


def _seal(key: bytes, facts: Mapping[str, object]) -> str:
    return hmac.new(key, json.dumps(facts, sort_keys=True).encode(), hashlib.sha256).hexdigest()


def _key(runtime_dir: Path) -> bytes:
    """The key of an instance; empty when there is none that only we know."""
    with suppress(OSError):
        fd = os.open(runtime_dir / KEY_NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            status = os.fstat(fd)
            key = file.read(KEY_SIZE + 1)
        private = status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IRWXG
                                                                          | stat.S_IRWXO)
        if private and stat.S_ISREG(status.st_mode) and len(key) == KEY_SIZE:
            return key
    return b""


def _make_key(runtime_dir: Path) -> bytes:
    key = _key(runtime_dir)
    if not key:
        forget_key(runtime_dir)
        key = secrets.token_bytes(KEY_SIZE)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with os.fdopen(os.open(runtime_dir / KEY_NAME, flags, 0o600), "wb") as file:
            file.write(key)
    return key
