"""What makes an instance the only one of its admin address: lock, runtime directory, pid file.

The lock is held with flock(2) on a descriptor that no worker inherits: it is free again the
moment the supervisor is gone, however it went.
"""

from __future__ import annotations

import fcntl
import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lbcore.config.compile import default_directory
from lbcore.config.plan import Address

MAX_UNIX_PATH = 107          # sun_path less its zero byte


class InstanceError(Exception):
    """This instance cannot be set up; the text says why and what to try."""


def base_path(admin: Address) -> Path:
    """The path from which the names of lock and runtime directory are derived.

    For a unix socket that is the socket itself; for a TCP address a name in the system's
    runtime directory (``/run/lbcore`` for root).
    """
    if admin.path:
        return Path(os.path.abspath(admin.path))    # noqa: PTH100  (resolve() follows links)
    return default_directory() / str(admin).replace(":", "-").replace("[", "").replace("]", "")


@dataclass
class Instance:
    """The files of a running instance."""

    admin: Address
    lock_path: Path
    lock_fd: int
    runtime_dir: Path
    runtime_fd: int              # O_PATH: names below it are reached without the length limit
    pid_file: Path | None = None

    @classmethod
    def claim(cls, admin: Address) -> Instance:
        """Locks the admin address and makes the runtime directory.

        Raises InstanceError when another supervisor holds it (its pid is named), or when the
        directory cannot be used.
        """
        base = base_path(admin)
        if base.parent == default_directory() and os.path.lexists(base.parent):
            _require_private(base.parent)
        if not base.parent.is_dir():
            # /run is empty after a reboot, so the last part of the path may have to be made.
            if not base.parent.parent.is_dir():
                raise InstanceError(
                    f"the directory of the admin socket does not exist: {base.parent} "
                    f"(make it, or change [admin] listen)")
            _make_directory(base.parent, 0o755)
        lock_path = base.with_name(base.name + ".lock")
        lock_fd = _lock(lock_path, admin)
        try:
            runtime_dir = base.with_name(base.name + ".d")
            # Workers that dropped their privileges connect to demonstration backends in here;
            # the doors inside are for the owner alone.
            _make_directory(runtime_dir, 0o711)
            runtime_fd = os.open(runtime_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except BaseException:
            os.close(lock_fd)
            raise
        return cls(admin, lock_path, lock_fd, runtime_dir, runtime_fd)

    @classmethod
    def resume(cls, admin: Address, lock_fd: int, pid_file: str) -> Instance:
        """The same instance after an exec, with the lock it kept."""
        base = base_path(admin)
        runtime_dir = base.with_name(base.name + ".d")
        os.set_inheritable(lock_fd, False)
        runtime_fd = os.open(runtime_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        lock_path = base.with_name(base.name + ".lock")
        return cls(admin, lock_path, lock_fd, runtime_dir, runtime_fd,
                   Path(pid_file) if pid_file else None)

    def path_of(self, name: str) -> str:
        """A path for bind(2) or connect(2), short however deep the directory is (sun_path)."""
        path = str(self.runtime_dir / name)
        if len(os.fsencode(path)) <= MAX_UNIX_PATH:
            return path
        return f"/proc/self/fd/{self.runtime_fd}/{name}"

    def write_pid_file(self, path: str) -> None:
        """Writes our pid. Raises InstanceError when that is not possible."""
        target = Path(path)
        try:
            target.write_text(f"{os.getpid()}\n")
        except OSError as error:
            raise InstanceError(f"cannot write pid_file {path}: {error.strerror}") from error
        self.pid_file = target

    def leave(self) -> None:
        """Removes every file of the instance and gives the lock back."""
        if self.pid_file is not None:
            with suppress(OSError):
                if self.pid_file.read_text().strip() == str(os.getpid()):
                    self.pid_file.unlink()
        with suppress(OSError):
            self.runtime_dir.rmdir()
        os.close(self.runtime_fd)
        with suppress(OSError):
            self.lock_path.unlink()
        os.close(self.lock_fd)


def _require_private(path: Path) -> None:
    """Raises InstanceError unless a directory is ours and nobody else can put anything into it.

    The default directory has a known name, in /tmp perhaps: somebody may have made it before us.
    """
    try:
        found = path.stat(follow_symlinks=False)
    except OSError as error:
        raise InstanceError(f"cannot use directory {path}: {error.strerror}") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise InstanceError(f"{path} is not a directory of this user: remove it, or name another "
                            f"place with [admin] listen")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise InstanceError(f"others may write to {path}: look what is in it, then chmod go-w it")


def _make_directory(path: Path, mode: int) -> None:
    try:
        path.mkdir(mode=mode, parents=True, exist_ok=True)
        found = path.stat(follow_symlinks=False)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise InstanceError(f"{path} is not a directory of this user: remove it")
        path.chmod(mode)
    except OSError as error:
        raise InstanceError(f"cannot use directory {path}: {error.strerror}") from error


def _lock(path: Path, admin: Address) -> int:
    while True:
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        except OSError as error:
            raise InstanceError(f"cannot open lock file {path}: {error.strerror}") from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(fd, 32).decode("ascii", "replace").strip() or "unknown"
            os.close(fd)
            raise InstanceError(
                f"lbcore runs already on admin address {admin} (pid {holder}): "
                f"stop it with `lbcore stop`, or give this one another [admin] listen"
            ) from None
        # The holder before us may have removed the file between our open and our lock.
        with suppress(FileNotFoundError):
            if path.stat().st_ino == os.fstat(fd).st_ino:
                os.ftruncate(fd, 0)
                os.write(fd, f"{os.getpid()}\n".encode())
                return fd
        os.close(fd)
