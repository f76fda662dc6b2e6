"""What this machine has against a plan: addresses in use, users that do not exist.

A file can be right and still not start here. Looking costs a socket per address, so ``load``
does not; ``lbcore check`` and the start of lbcore do.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import socket
from collections.abc import Callable, Container, Iterator
from pathlib import Path
from typing import Any

import psutil

from lbcore.config.host_apps import app_problems, app_warnings
from lbcore.config.load import Source
from lbcore.config.plan import Address, Plan
from lbcore.config.problems import KeyPath, Problem, key_text

Ignored = Container[int] | Callable[[int], bool]


def host_problems(
    plan: Plan, source: Source | None = None, ignore: Ignored = ()
) -> list[Problem]:
    """Everything that keeps a plan from starting on this machine.

    ``source`` gives the problems their lines. ``ignore`` holds, or recognises, the processes
    whose sockets are no obstacle: those of the running instance.
    """
    apps = app_problems(plan, source) if source else []
    return [*ports_in_use(plan, source, ignore), *_missing_accounts(plan, source), *apps]


def host_warnings(plan: Plan, source: Source | None = None) -> list[Problem]:
    """What in a plan has no effect on this machine."""
    uid = os.geteuid()
    found = []
    for key, name in (("user", plan.user), ("group", plan.group)):
        if name and uid != 0:
            message = f"this has no effect: only root can change it, and this is user {uid}"
            found.append(_problem(source, ("lbcore", key), message, "leave it out", "no-effect"))
    return [*found, *(app_warnings(plan, source) if source else [])]


def ports_in_use(
    plan: Plan, source: Source | None = None, ignore: Ignored = ()
) -> list[Problem]:
    """Addresses of a plan that cannot be listened on here, and who has them; see above."""
    places: list[tuple[KeyPath, Address]] = [
        (("listener", i, "bind", j), address)
        for i, listener in enumerate(plan.listeners)
        for j, address in enumerate(listener.binds)
    ]
    places.append((("admin", "listen"), plan.admin))
    ignored = ignore if callable(ignore) else ignore.__contains__
    found = []
    for path, address in places:
        if address.name:         # only who starts lbcore knows whether it is passed
            continue
        reason = _unix_obstacle(address, ignored) if address.path else _obstacle(address, ignored)
        if reason:
            message, hint = reason
            found.append(_problem(source, path, message, hint))
    return found


def is_lbcore(pid: int) -> bool:
    """Whether a process is a supervisor or a worker of some lbcore, by its command line."""
    try:
        words = psutil.Process(pid).cmdline()[:4]
    except psutil.Error:
        return False
    return any(Path(word).name == "lbcore" or word.startswith("lbcore.") for word in words)


def own_processes(plan: Plan) -> Callable[[int], bool]:
    """Recognises the processes of the instance that answers at a plan's admin address.

    Workers that have lost their supervisor count as such: they make room for whoever starts next.
    """
    def own(pid: int) -> bool:
        if not is_lbcore(pid):
            return False
        try:
            supervisor = _supervisor(pid)
        except psutil.Error:
            return False
        return supervisor is None or supervisor.pid in _holders(plan.admin)

    return own


def _supervisor(pid: int) -> psutil.Process | None:
    """That of a worker of lbcore, if it has one; of a supervisor, itself."""
    process = psutil.Process(pid)
    parent = process.parent()
    if parent is not None and is_lbcore(parent.pid):
        return parent
    return None if "lbcore.worker" in process.cmdline()[:4] else process


def _problem(
    source: Source | None, path: KeyPath, message: str, hint: str, code: str = ""
) -> Problem:
    if source:
        return source.problem(path, message, hint, code)
    return Problem("this machine", 0, key_text(path), message, hint, code)


def _obstacle(address: Address, ignored: Callable[[int], bool]) -> tuple[str, str] | None:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            # Passes over connections in TIME_WAIT. Without SO_REUSEPORT, so that sockets that
            # would share the port, and its connections, are found.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind((address.host, address.port))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return _in_use(address, ignored)
        if error.errno == errno.EACCES:
            limit = _first_free_port()
            return (
                f"only root may listen on port {address.port}",
                f"a port from {limit} up, or start lbcore as root with user set",
            )
        if error.errno == errno.EADDRNOTAVAIL:
            own = ", ".join(_own_addresses(family))
            return f"{address.host} is no address of this machine", f"it has {own}" if own else ""
        if error.errno == errno.EAFNOSUPPORT:
            return f"this machine cannot use {address.host}: IPv6 is off", "an IPv4 address"
        return f"cannot listen on {address}: {error.strerror}", ""
    return None


def _in_use(address: Address, ignored: Callable[[int], bool]) -> tuple[str, str] | None:
    return _held(str(address), _holders(address), ignored,
                 "another port, or stop that process first")


def _holders(address: Address) -> set[int | None]:
    """Processes that have a socket at an address; None: one that this user may not see."""
    if address.path:
        return {connection.pid for connection in _connections("unix")
                if connection.laddr == address.path}
    return {
        connection.pid
        for connection in _connections("tcp")
        if connection.status == psutil.CONN_LISTEN
        and connection.laddr.port == address.port
        and (
            connection.laddr.ip == address.host
            or connection.laddr.ip in ("0.0.0.0", "::")
            or address.host in ("0.0.0.0", "::")
        )
    }


def _unix_obstacle(address: Address, ignored: Callable[[int], bool]) -> tuple[str, str] | None:
    path = Path(address.path)
    try:
        if path.is_socket():
            holders = _holders(address)
            # a socket that nobody holds was left behind; lbcore replaces it
            hint = "another path, or stop that process first"
            return _held(str(address), holders, ignored, hint) if holders else None
        if path.exists():
            return f"{path} exists and is not a socket", "another path; lbcore does not remove it"
        return _directory_obstacle(path.parent)
    except PermissionError:
        return f"{path} is out of reach for user {os.geteuid()}", "a directory of your own"


def _directory_obstacle(directory: Path) -> tuple[str, str] | None:
    """What keeps a socket from being made in a directory; its last part may have to be made."""
    if not directory.exists():
        if not directory.parent.is_dir():
            return f"there is no directory {directory}", "create it first"
        directory = directory.parent
    if not os.access(directory, os.W_OK | os.X_OK):
        return f"{directory} cannot be written to by user {os.geteuid()}", "a directory of your own"
    return None


def _held(
    what: str, holders: set[int | None], ignored: Callable[[int], bool], hint: str
) -> tuple[str, str] | None:
    strangers = {pid for pid in holders if pid is None or not ignored(pid)}
    if holders and not strangers:
        return None
    names = sorted({_process(pid) for pid in strangers if pid is not None})
    who = ", ".join(names) or "a process that this user may not see"
    return f"{what} is in use by {who}", hint


def _process(pid: int) -> str:
    """A process by its name; a worker of lbcore by its supervisor, who would only replace it."""
    try:
        process = (_supervisor(pid) if is_lbcore(pid) else None) or psutil.Process(pid)
        return f"{process.name()} (pid {process.pid})"
    except psutil.Error:
        return f"pid {pid}"


def _connections(kind: str) -> Iterator[Any]:
    """Sockets of this machine; those of other users have no pid unless we are root."""
    try:
        yield from psutil.net_connections(kind)
    except (psutil.Error, OSError):
        return


def _own_addresses(family: socket.AddressFamily) -> list[str]:
    return sorted(
        address.address.partition("%")[0]
        for addresses in psutil.net_if_addrs().values()
        for address in addresses
        if address.family == family
    )


def _first_free_port() -> int:
    try:
        return int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    except (OSError, ValueError):
        return 1024


def _missing_accounts(plan: Plan, source: Source | None) -> list[Problem]:
    found = []
    accounts = (("user", plan.user, pwd.getpwnam), ("group", plan.group, grp.getgrnam))
    for key, name, look_up in accounts:
        if not name:
            continue
        try:
            look_up(name)
        except KeyError:
            message = f'this machine has no {key} "{name}"'
            hint = f"create it, or name another {key}"
            found.append(_problem(source, ("lbcore", key), message, hint))
    return found
