"""Backends by DNS: all addresses that a name has, asked for again and again.

    [pool.api.discover]
    python = "discovery:backends"

A name in `backends` of lb.toml stands for one of its addresses. This is for a name behind which
there are several servers, such as a headless service.
"""

import os
import socket

NAME = os.environ.get("API_NAME", "localhost")
PORT = int(os.environ.get("API_PORT", "8000"))


def backends():
    """The servers behind the name, in an order that does not change with every answer."""
    found = socket.getaddrinfo(NAME, PORT, family=socket.AF_INET, type=socket.SOCK_STREAM)
    return sorted({address[:2] for *_, address in found})
