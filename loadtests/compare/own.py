"""``python -m loadtests.compare.own --port N``: the origin of ``_own.pyx`` as a process."""

from __future__ import annotations

import argparse
import socket

from .client import HOST
from .compiled import compiled


def main() -> None:
    """Listens and serves until it is killed."""
    parser = argparse.ArgumentParser(description="Reads bodies and echoes WebSocket messages.")
    parser.add_argument("--port", type=int, required=True)
    port: int = parser.parse_args().port
    serve = compiled("_own").serve
    with socket.create_server((HOST, port), backlog=4096) as listening:
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)     # inherited
        listening.setblocking(False)
        serve(listening.fileno())


if __name__ == "__main__":
    main()
