"""Requests with a listener around them, without a worker: what would be written for them."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence
from typing import Any

from lbcore import _plan
from lbcore._message import Exchange
from lbcore._route import match
from lbcore.config.plan import (
    Address,
    BackendPlan,
    HttpPlan,
    ListenerPlan,
    PoolPlan,
    RoutePlan,
    Segment,
    Template,
)

STRANGER = "203.0.113.7"
PROXY = "10.0.0.1"
POOL = PoolPlan("app", (BackendPlan("one", Address("192.0.2.10", 8000)),))


def endpoint(text: str | None, port: int = 40000) -> tuple[bytes, int] | None:
    """An endpoint of an address; None for a unix socket."""
    return None if text is None else (ipaddress.ip_address(text).packed, port)


def template(*parts: str) -> Template:
    """Segments of words: "$part" or "$part:name" or "$1", anything else is text."""
    made = []
    for part in parts:
        if not part.startswith("$"):
            made.append(Segment("text", part))
        elif part[1:].isdigit():
            made.append(Segment("capture", number=int(part[1:])))
        else:
            name, _, text = part[1:].partition(":")
            made.append(Segment(name, text))  # type: ignore[arg-type]
    return tuple(made)


def image_of(http: HttpPlan, pool: PoolPlan = POOL) -> int:
    """Descriptor of a plan image with one http listener."""
    listener = ListenerPlan("web", (Address("127.0.0.1", 8080),), pool=0, protocol="http",
                            http=http)
    members = [(row, backend, _plan.sockaddr(backend.address.host, backend.address.port,
                                             backend.address.path))
               for row, backend in enumerate(pool.backends)]
    return _plan.build_image(1, 64, [(0, listener)], [(0, pool, members, b"", b"")])


def head_of(line: str, fields: Sequence[str] = (), *, host: str = "example.com") -> bytes:
    """A request head of "METHOD target", with a Host unless it is ""."""
    lines = [f"{line} HTTP/1.1", *([f"Host: {host}"] if host else []), *fields]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def exchange(head: bytes, *routes: RoutePlan, default: RoutePlan | None = None,
             peer: str | None = STRANGER, local: str | None = "192.0.2.1", pool: PoolPlan = POOL,
             random: tuple[int, int] = (0x0123456789ABCDEF, 1), **http: Any) -> Exchange:
    """A request at a listener with these routes; keywords are those of HttpPlan."""
    image = image_of(HttpPlan(routes=routes, default=default, **http), pool)
    try:
        return Exchange(image, head, peer=endpoint(peer), local=endpoint(local, 8080),
                        random=random, seconds=784111777)
    finally:
        os.close(image)


def fields_of(message: bytes | None) -> list[tuple[str, str]]:
    """The fields of a head, in order."""
    assert message is not None
    lines = message.split(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")[1:]
    return [(name, value) for name, _, value in (line.partition(": ") for line in lines)]


def field_of(message: bytes | None, name: str) -> str | None:
    """The value of a field that is there once, or None."""
    found = [value for key, value in fields_of(message) if key.lower() == name.lower()]
    assert len(found) < 2, f"{name} is there {len(found)} times"
    return found[0] if found else None


def route_of(*routes: RoutePlan, method: str = "GET", target: str = "/",
             headers: Sequence[tuple[str, str]] = (), host: str = "example.com") -> dict[str, Any]:
    """What the matching door says of a request at a listener with these routes; the default one
    has the last index."""
    image = image_of(HttpPlan(routes=routes))
    try:
        return match(image, 0, method, target, [("Host", host), *headers])
    finally:
        os.close(image)
