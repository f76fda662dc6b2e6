"""What the kernel can do: found out by doing it, not by its version."""

from __future__ import annotations

import os
import platform
import select
import socket
from collections.abc import Callable, Iterator

from lbcore.doctor.model import Check, Level
from lbcore.supervisor import reuseport

OLDEST = (5, 10)             # of long-term kernels that get repairs


def checks() -> Iterator[Check]:
    """The kernel's version and each feature that lbcore builds on."""
    release = platform.release()
    old = _version(release) < OLDEST
    yield Check("kernel", "version", release, Level.ADVICE if old else Level.OK,
                wanted="5.10 or later" if old else "",
                why="older kernels get no repairs any more" if old else "")
    for name, attempt, level, why in FEATURES:
        try:
            attempt()
        except (OSError, AttributeError) as error:
            yield Check("kernel", name, f"missing ({error})", level, wanted="there", why=why)
        else:
            yield Check("kernel", name, "there")


def _version(release: str) -> tuple[int, ...]:
    numbers = release.split("-", maxsplit=1)[0].split(".")[:2]
    return tuple(int(part) if part.isdecimal() else 0 for part in numbers)


def _reuseport() -> None:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)


def _steering() -> None:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        reuseport.steer(sock, [0])


def _exclusive() -> None:
    with socket.socket() as sock, select.epoll() as poll:
        poll.register(sock, select.EPOLLIN | select.EPOLLEXCLUSIVE)


def _memory_file() -> None:
    os.close(os.memfd_create("lbcore-doctor"))


def _pidfd() -> None:
    os.close(os.pidfd_open(os.getpid()))


def _splice() -> None:
    source, target = os.pipe(), os.pipe()
    try:
        os.write(source[1], b"x")
        os.splice(source[0], target[1], 1)
    finally:
        for fd in (*source, *target):
            os.close(fd)


FEATURES: tuple[tuple[str, Callable[[], None], Level, str], ...] = (
    ("SO_REUSEPORT", _reuseport, Level.PROBLEM, "each worker has a listening socket of its own"),
    ("steering (SO_ATTACH_REUSEPORT_CBPF)", _steering, Level.ADVICE,
     "the number of workers cannot shrink without refusing connections"),
    ("EPOLLEXCLUSIVE", _exclusive, Level.PROBLEM, "workers share sockets by it"),
    ("memfd", _memory_file, Level.PROBLEM, "plans and counters are shared through memory files"),
    ("pidfd", _pidfd, Level.PROBLEM, "the end of processes is seen through it"),
    ("splice", _splice, Level.ADVICE, "large streams are copied through each worker"),
)
