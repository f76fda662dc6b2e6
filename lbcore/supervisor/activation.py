"""Listening sockets that whoever started us passed: sd_listen_fds(3), socket activation.

A socket that the service manager holds outlives us: what connects while lbcore is restarted waits
in its queue. A passed socket takes the place of one that we would have opened, for the bind that
has its address or that names it ("fd:NAME").

With SO_REUSEPORT (``ReusePort=yes``) passed sockets are those of the first slots, and the other
slots' are opened beside them. Where that is not possible, without SO_REUSEPORT or because another
user made them, all workers accept from all of them (``SocketTable``).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any

from lbcore.config.plan import Address, Plan
from lbcore.supervisor.sockets import same_socket

FIRST = 3                    # SD_LISTEN_FDS_START
VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
Json = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Given:
    """A socket that was passed to us. We keep this descriptor for as long as we live."""

    name: str
    sock: socket.socket
    address: Address
    blocking: bool = False       # as it came: whoever passes it next time makes it so again

    @property
    def alone(self) -> bool:
        """Whether no other socket can listen beside it, so that all workers share it."""
        return self.sock.family == socket.AF_UNIX or not self.sock.getsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEPORT)

    def answers(self, bind: Address) -> bool:
        """Whether this is the socket that a bind asks for."""
        return self.name == bind.name if bind.name else self.address == bind

    def __str__(self) -> str:
        return f"{self.address} (fd:{self.name})"


class Activation:
    """All sockets that were passed."""

    def __init__(self, given: Iterable[Given] = (), refused: Iterable[str] = ()) -> None:
        self.given = list(given)
        self.refused = list(refused)     # what was passed and cannot be served, and why

    @classmethod
    def take(cls, environment: MutableMapping[str, str]) -> Activation:
        """What was passed to this process; the variables that say so are removed.

        Nothing when they are meant for another process, such as one that started us.
        """
        said = {name: environment.pop(name, "") for name in VARIABLES}
        try:
            count = int(said["LISTEN_FDS"])
        except ValueError:
            return cls()
        if said["LISTEN_PID"] != str(os.getpid()):
            return cls()
        names = said["LISTEN_FDNAMES"].split(":") if said["LISTEN_FDNAMES"] else []
        names += ["unknown"] * (count - len(names))      # as sd_listen_fds_with_names(3)
        given, refused = [], []
        for fd, name in zip(range(FIRST, FIRST + max(0, count)), names, strict=False):
            try:
                given.append(_given(fd, name))
            except (OSError, ValueError) as error:
                refused.append(f"descriptor {fd} (fd:{name}): {error}")
        return cls(given, refused)

    def find(self, bind: Address) -> list[Given]:
        """The sockets for a bind, in the order in which they were passed."""
        return [given for given in self.given if given.answers(bind)]

    def holds(self, sock: socket.socket) -> bool:
        """Whether a descriptor is of a socket that was passed."""
        return any(same_socket(given.sock, sock) for given in self.given)

    def unused(self, plan: Plan) -> list[Given]:
        """Sockets that no listener of a plan serves: who connects there waits for ever."""
        binds = [bind for listener in plan.listeners for bind in listener.binds]
        return [given for given in self.given if not any(given.answers(bind) for bind in binds)]

    # -- upgrades

    def export(self, passed: Callable[[int], int]) -> list[Json]:
        """What the next version needs; ``passed`` notes a descriptor that it inherits."""
        return [{"name": one.name, "fd": passed(one.sock.fileno())} for one in self.given]

    @classmethod
    def restore(cls, state: Iterable[Json]) -> Activation:
        """What an earlier version had been passed."""
        return cls(_given(entry["fd"], entry["name"]) for entry in state)


def _given(fd: int, name: str) -> Given:
    """Raises OSError or ValueError for what no listener can serve."""
    os.set_inheritable(fd, False)
    sock = socket.socket(fileno=fd)
    try:
        if sock.type != socket.SOCK_STREAM or sock.family not in (
                socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
            raise ValueError(f"a {sock.family.name} socket of type {sock.type.name}; listeners "
                             f"take streams of TCP or unix sockets (ListenStream=)")
        address = _address(sock)
    except BaseException:
        sock.detach()        # whoever passed it may have meant it for somebody else
        raise
    blocking = os.get_blocking(fd)
    os.set_blocking(fd, False)
    return Given(name, sock, address, blocking)


def _address(sock: socket.socket) -> Address:
    found = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        if isinstance(found, bytes):
            return Address(path="@" + os.fsdecode(found[1:]))
        if not found:
            raise ValueError("a unix socket without an address")
        return Address(path=str(found))
    if not found[1]:
        raise ValueError("a socket without a port")
    return Address(host=str(found[0]), port=int(found[1]))
