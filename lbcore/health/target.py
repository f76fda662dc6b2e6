"""What a check of one backend connects to, sends and expects: prepared once per plan."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from lbcore.config.plan import Address, HealthPlan

USER_AGENT = "lbcore-health"


@dataclass(frozen=True, slots=True)
class Target:
    """One backend to check. ``request`` is empty for a tcp check."""

    family: int
    sockaddr: Any           # what socket.connect takes for the family
    timeout_s: float
    request: bytes = b""
    wanted: tuple[tuple[int, int], ...] = ()
    needle: bytes = b""


def target_of(health: HealthPlan, resolved: Address, written: Address) -> Target:
    """The target for a backend.

    ``resolved`` is where to connect and has to be numeric: names would block here. ``written`` is
    the address as the user wrote it, for the Host header. A check port of its own does not apply
    to unix sockets. Raises ValueError when ``resolved`` is a name.
    """
    family: int
    sockaddr: Any
    if resolved.path:
        family, sockaddr = socket.AF_UNIX, resolved.path
    else:
        port = health.port or resolved.port
        try:
            found = socket.getaddrinfo(
                resolved.host, port, type=socket.SOCK_STREAM,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV)
        except (OSError, UnicodeError) as error:
            raise ValueError(f"{resolved} is not a numeric address: {error}") from None
        family, sockaddr = found[0][0], found[0][4]
    timeout_s = health.timeout_ms / 1000
    if health.type == "tcp":
        return Target(family, sockaddr, timeout_s)
    return Target(family, sockaddr, timeout_s, _request(health, written),
                  health.expect_status, health.expect_body.encode())


def _request(health: HealthPlan, written: Address) -> bytes:
    """HTTP/1.1 with ``Connection: close``, so that the backend ends the connection and keeps its
    TIME_WAIT, as with any client."""
    if health.host:
        host = health.host
    elif written.path:
        host = "localhost"
    else:
        host = str(Address(written.host, health.port or written.port))
    # Quoting leaves no white space or control byte: nothing written here can split the request.
    path = quote(health.path, safe="/?&=%:@!$'()*+,;~-._#[]")
    return (
        f"GET {path} HTTP/1.1\r\nHost: {quote(host, safe='[]:.-_~%')}\r\n"
        f"User-Agent: {USER_AGENT}\r\nAccept: */*\r\nAccept-Encoding: identity\r\n"
        "Connection: close\r\n\r\n"
    ).encode("ascii")
