"""WebSocket messages through a balancer: opens the connections and runs the compiled client."""

from __future__ import annotations

import base64
import hashlib
import os
import socket
from contextlib import ExitStack
from dataclasses import dataclass

from .client import HOST
from .compiled import compiled
from .paced import percentile
from .wrk import InvalidSample

MOST_PER_SECOND = 1_000_000     # messages whose latency there is room for
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"      # RFC 6455, section 1.3


@dataclass(frozen=True)
class EchoResult:
    """One run; every echo of it was right."""

    messages: int
    seconds: float
    p50_us: float
    p99_us: float


def upgraded(port: int, path: str) -> socket.socket:
    """A connection that has become a WebSocket. Raises OSError when it has not."""
    sock = socket.create_connection((HOST, port), 10)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        key = base64.b64encode(os.urandom(16))
        sock.sendall(
            f"GET {path} HTTP/1.1\r\nHost: origin\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: {key.decode()}\r\n\r\n".encode())
        received = b""
        while b"\r\n\r\n" not in received:
            part = sock.recv(4096)
            if not part:
                raise ConnectionError(f"the handshake was answered with {received[:200]!r}")
            received += part
        proof = base64.b64encode(hashlib.sha1(key + GUID).digest())
        if not received.startswith(b"HTTP/1.1 101 ") or proof not in received:
            raise ConnectionError(f"the handshake was answered with {received[:200]!r}")
    except BaseException:
        sock.close()
        raise
    return sock


def run_echo(port: int, path: str, *, connections: int, seconds: float) -> EchoResult:
    """One message under way on each of ``connections``, for ``seconds``.

    Raises InvalidSample when a connection failed or an echo was not what had been sent.
    """
    try:
        with ExitStack() as stack:
            sockets = [stack.enter_context(upgraded(port, path)) for _ in range(connections)]
            loop = compiled("_echo").Echoes(
                [sock.fileno() for sock in sockets], round(MOST_PER_SECOND * seconds))
            latencies = loop.run(seconds)
    except OSError as error:
        raise InvalidSample(str(error)) from None
    if not latencies:
        raise InvalidSample("no message came back")
    return EchoResult(len(latencies), loop.seconds, percentile(latencies, 0.5) / 1e3,
                      percentile(latencies, 0.99) / 1e3)
