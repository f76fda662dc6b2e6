"""Where application servers listen: names in the runtime directory, and how they are removed.

    app-POOL-BACKEND.GENERATION.sock         a socket that lbcore makes
    app-POOL-BACKEND.GENERATION.d/s/sock     one that the server makes, in a directory of its own

What is removed, root may remove on somebody else's word. So a name counts only where lbcore makes
such names, and a directory only if it is ours: a server owns no more than the `s` inside.
"""

from __future__ import annotations

import os
import shutil
import stat
import zlib
from contextlib import suppress
from pathlib import Path

from lbcore.supervisor.instance import MAX_UNIX_PATH, Instance
from lbcore.supervisor.worker import Identity

PREFIX = "app-"                  # of everything that belongs to servers in the runtime directory
_OWN = ("s", "sock")             # the server's directory, and its socket in there


def server_path(runtime_dir: Path, pool: str, name: str, number: int, descriptor: bool) -> Path:
    """Where a server listens; long pool names are shortened to fit.

    ``descriptor``: whether it inherits its socket; otherwise it makes one.
    """
    ending = f"-{name}.{number}.sock" if descriptor else f"-{name}.{number}.d/{'/'.join(_OWN)}"
    path = runtime_dir / f"{PREFIX}{pool}{ending}"
    if len(os.fsencode(path)) > MAX_UNIX_PATH:
        path = runtime_dir / f"{PREFIX}{zlib.crc32(pool.encode()):08x}{ending}"
    return path


def entry_of(runtime_dir: Path, path: Path) -> str:
    """The entry of the runtime directory that a server's path begins with.

    Raises ValueError for every path that is none of a server.
    """
    name, *rest = path.relative_to(runtime_dir).parts or ("",)
    if not name.startswith(PREFIX) or rest not in ([], [*_OWN]):
        raise ValueError(f"{path} is not where a server of lbcore listens")
    return name


def make_directory(instance: Instance, path: Path, uid: int | None, workers: Identity) -> None:
    """The directory in which a server makes the socket of this path, as open as it likes: only
    the group of the workers gets there. ``uid``: whose process it is, if not ours. Raises OSError.
    """
    remove(instance, path)
    outer, inner = instance.runtime_dir / entry_of(instance.runtime_dir, path), path.parent
    outer.mkdir(mode=0o711)
    outer.chmod(0o711)
    inner.mkdir(mode=0o700)
    if workers.gid is not None:
        os.chown(inner, -1, workers.gid)
        inner.chmod(0o710)
    if uid is not None:
        os.chown(inner, uid, -1)


def remove(instance: Instance, path: Path) -> None:
    """Removes a server's socket with the directory that lbcore has made for it, and nothing else:
    neither a path that is none of a server nor what a link leads to."""
    with suppress(OSError, ValueError):
        name, where = entry_of(instance.runtime_dir, path), instance.runtime_fd
        found = os.stat(name, dir_fd=where, follow_symlinks=False)
        if not stat.S_ISDIR(found.st_mode):
            os.unlink(name, dir_fd=where)
        elif found.st_uid == os.geteuid():
            shutil.rmtree(name, dir_fd=where)
