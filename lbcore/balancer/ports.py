"""Ports that are chosen for a program and stay its own until its lbcore has ended."""

from __future__ import annotations

import re
import socket

_ZERO = re.compile(r"(.*):0")


class Held:
    """Sockets that are bound and never listen.

    The kernel gives such a port to nobody who asks for any, and lets lbcore listen on it beside
    us, because both allow reuse (SO_REUSEADDR and, by the same user, SO_REUSEPORT). No connection
    ever comes to a socket that does not listen.
    """

    def __init__(self) -> None:
        self._sockets: list[socket.socket] = []

    def chosen(self, bind: str) -> str:
        """An address with a port of its own in the place of port 0; others as they are.

        Raises OSError when its host is no address of this machine.
        """
        found = _ZERO.fullmatch(bind)
        if found is None or bind.startswith("unix:"):
            return bind
        host = found[1].removeprefix("[").removesuffix("]")
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            socket.inet_pton(family, host)
        except OSError:
            return bind                  # not an address: the configuration's checks say why
        sock = socket.socket(family, socket.SOCK_STREAM)
        self._sockets.append(sock)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, 0))
        return f"{found[1]}:{sock.getsockname()[1]}"

    def release(self) -> None:
        """Gives the ports back."""
        for sock in self._sockets:
            sock.close()
        self._sockets.clear()
