"""Making listening sockets: options, permissions, and what to say when a bind fails.

They are bound here and do not listen yet: what is queued in a socket dies with the last process
that holds it, so a socket begins to listen when a worker has it (``SocketTable.begin``).

Who is in the way of an address is ``lbcore.config.host``'s to find out, before we come here.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import stat
from pathlib import Path

from lbcore.config.plan import Address, ListenerPlan

# Seconds of silence before the first probe, seconds between probes, and how many of them unanswered
# end a connection. The kernel's own two hours are longer than what routers on the way remember.
KEEPALIVE = {socket.TCP_KEEPIDLE: 60, socket.TCP_KEEPINTVL: 15, socket.TCP_KEEPCNT: 4}

# Congestion control of connections that cross no network. The algorithms that pace what they send
# (bbr, which many servers use) set a timer for nearly every segment of a long answer: on loopback
# that is a third and more of all that such an answer costs. Every kernel has reno, for everybody.
WITHOUT_NETWORK = b"reno"


class BindError(Exception):
    """An address cannot be listened on; the text says why and what to try."""


def open_tcp(bind: Address, plan: ListenerPlan) -> socket.socket:
    """One more socket for the SO_REUSEPORT group of ``bind``. Raises BindError."""
    family = socket.AF_INET6 if ":" in bind.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            # "[::]:80" beside "0.0.0.0:80" is what people write; one must not swallow the other.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((bind.host, bind.port))
        apply_options(sock, plan)
    except OSError as error:
        sock.close()
        raise BindError(_explain(bind, f"listener {plan.name!r}", error)) from error
    except BaseException:
        sock.close()
        raise
    return sock


def apply_options(sock: socket.socket, plan: ListenerPlan) -> None:
    """Sets what accepted connections inherit, and the backlog of a socket that listens."""
    if sock.family != socket.AF_UNIX:
        tcp = socket.IPPROTO_TCP
        sock.setsockopt(tcp, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, int(plan.keepalive))
        if plan.keepalive:
            for option, value in KEEPALIVE.items():
                sock.setsockopt(tcp, option, value)
        # The kernel counts in seconds, and 0 would switch it off.
        defer = max(1, round(plan.defer_accept_ms / 1000)) if plan.defer_accept_ms else 0
        sock.setsockopt(tcp, socket.TCP_DEFER_ACCEPT, defer)
        sock.setsockopt(tcp, socket.TCP_FASTOPEN, plan.fastopen)
        sock.setsockopt(tcp, socket.TCP_USER_TIMEOUT, plan.tcp_user_timeout_ms)
        if _is_loopback(sock):
            sock.setsockopt(tcp, socket.TCP_CONGESTION, WITHOUT_NETWORK)
    if listens(sock):
        sock.listen(plan.backlog)


def _is_loopback(sock: socket.socket) -> bool:
    """Whether only this machine can reach what a socket is bound to."""
    return ipaddress.ip_address(sock.getsockname()[0].partition("%")[0]).is_loopback


def listens(sock: socket.socket) -> bool:
    """Whether a socket listens, whichever process that holds it made it do so."""
    return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def open_unix(bind: Address, plan: ListenerPlan) -> socket.socket:
    """A unix socket that can listen; a file left behind by a dead process is replaced.

    Raises BindError when somebody listens there or the path cannot be used.
    """
    abstract = bind.path.startswith("@")
    name = "\0" + bind.path[1:] if abstract else bind.path
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        if not abstract:
            remove_stale(bind.path)
        sock.bind(name)
        if not abstract:
            Path(bind.path).chmod(plan.unix_mode)
    except OSError as error:
        sock.close()
        raise BindError(_explain(bind, f"listener {plan.name!r}", error)) from error
    except BaseException:
        sock.close()
        raise
    return sock


def remove_stale(path: str) -> None:
    """Removes a unix socket that nobody listens on.

    Raises OSError (EADDRINUSE) when somebody does, or when the path is something else.
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise OSError(errno.EEXIST, "the path exists and is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        try:
            sock.connect(path)
        except ConnectionRefusedError:
            Path(path).unlink(missing_ok=True)
            return
        except FileNotFoundError:
            return
        except BlockingIOError:     # its queue is full: somebody is there
            pass
    raise OSError(errno.EADDRINUSE, "somebody listens there already")


def same_socket(one: socket.socket, other: socket.socket) -> bool:
    """Whether two descriptors are of one socket."""
    return os.fstat(one.fileno()).st_ino == os.fstat(other.fileno()).st_ino


def open_admin(address: Address) -> socket.socket:
    """The listening socket of the admin address. Raises BindError."""
    plan = ListenerPlan("admin", (address,), 0, backlog=64, unix_mode=0o600)
    if address.path:
        sock = open_unix(address, plan)
        sock.listen(plan.backlog)
        return sock
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address.host, address.port))
        sock.listen(plan.backlog)
    except OSError as error:
        sock.close()
        raise BindError(_explain(address, "[admin]", error)) from error
    return sock


def _explain(bind: Address, who: str, error: OSError) -> str:
    what = f"{who} cannot listen on {bind}"
    if error.errno == errno.EADDRINUSE:
        return f"{what}: the address is in use; `lbcore check` says by whom"
    if error.errno in {errno.EACCES, errno.EPERM}:
        return (f"{what}: not permitted; ports below 1024 need root or CAP_NET_BIND_SERVICE"
                if bind.port else f"{what}: not permitted; check the directory's owner and mode")
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{what}: this machine has no such address"
    return f"{what}: {error.strerror or error}"
