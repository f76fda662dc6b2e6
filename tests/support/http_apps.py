"""One application, for WSGI and for ASGI, that tells what it was asked.

Its answers say what it understood. With RECORD in the environment it also writes a line of JSON
to that file for each request: at its beginning if RECORD_BEGIN is set, and when its body has been
read, or could not be.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any
from urllib.parse import parse_qsl, quote

BLOCK = 65536
KEPT = 65536            # bytes of a body that are recorded
Json = dict[str, Any]
Headers = list[tuple[str, str]]


class Body:
    """What came of a request's body."""

    def __init__(self) -> None:
        self.size = 0
        self.digest = hashlib.sha256()
        self.start = b""
        self.broken = False

    def take(self, data: bytes) -> None:
        self.size += len(data)
        self.digest.update(data)
        self.start += data[: KEPT - len(self.start)]


def record(**said: Any) -> None:
    """Appends a line to the file of the environment's choice; whole, whoever else writes."""
    if path := os.environ.get("RECORD"):
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        os.write(fd, json.dumps(said).encode() + b"\n")
        os.close(fd)


def begin(method: str, target: str) -> None:
    if os.environ.get("RECORD_BEGIN"):
        record(event="begin", method=method, target=target)


def seen(method: str, target: str, headers: Headers, body: Body) -> Json:
    """What is recorded of a request."""
    host = ", ".join(value for name, value in headers if name == "host")
    return {"event": "request", "method": method, "target": target, "host": host,
            "size": body.size, "sha256": body.digest.hexdigest(), "broken": body.broken,
            "body": body.start.decode("latin-1"), "names": sorted(name for name, _ in headers)}


def filler(size: int) -> Iterator[bytes]:
    """So many bytes, the same each time and different everywhere."""
    block = hashlib.shake_128(b"lbcore").digest(BLOCK)
    for start in range(0, size, BLOCK):
        yield start.to_bytes(8, "big") + block[8 : min(BLOCK, size - start)] \
            if size - start >= 8 else block[: size - start]


def respond(said: Json, headers: Headers) -> tuple[int, Headers, Iterable[bytes]]:
    """Status, fields and body of the answer to a request."""
    path, _, query = said["target"].partition("?")
    asked = dict(parse_qsl(query))
    plain = [("Content-Type", "text/plain")]
    if path == "/download":
        size = int(asked["bytes"])
        length = [] if asked.get("chunked") else [("Content-Length", str(size))]
        return 200, plain + length, filler(size)
    if path == "/redirect":
        return 302, [("Location", "/there?x=1"), ("Content-Length", "0")], ()
    if path == "/status":
        code = int(asked["code"])
        empty = code in (204, 304)
        return code, [] if empty else [("Content-Length", "5")], () if empty else (b"12345",)
    if path == "/cookies":
        given = [value for name, value in headers if name == "cookie"]
        body = "|".join(given).encode()
        return 200, [*plain, ("Set-Cookie", "a=1; Path=/"), ("Set-Cookie", "b=2; HttpOnly"),
                     ("Content-Length", str(len(body)))], (body,)
    told = {name: said[name] for name in ("method", "target", "host", "size", "sha256")}
    body = json.dumps({**told, "name": os.environ.get("NAME", "")}).encode()
    return 200, [("Content-Type", "application/json"), ("Content-Length", str(len(body)))], (body,)


# ---- WSGI --------------------------------------------------------------------------------------

def wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    target = environ.get("RAW_URI") or environ.get("REQUEST_URI") or (
        quote(environ["PATH_INFO"].encode("latin-1"))
        + ("?" + environ["QUERY_STRING"] if environ.get("QUERY_STRING") else ""))
    headers = [(name[5:].lower().replace("_", "-"), value) for name, value in environ.items()
               if name.startswith("HTTP_")]
    method, body = environ["REQUEST_METHOD"], Body()
    begin(method, target)
    try:
        while data := environ["wsgi.input"].read(BLOCK):
            body.take(data)
    except Exception:       # noqa: BLE001  (each server has errors of its own)
        body.broken = True
    if environ.get("CONTENT_LENGTH") and int(environ["CONTENT_LENGTH"]) != body.size:
        body.broken = True
    said = seen(method, target, headers, body)
    record(**said)
    asked = dict(parse_qsl(environ.get("QUERY_STRING", "")))
    time.sleep(float(asked.get("sleep", "0")))
    status, fields, chunks = respond(said, headers)
    start_response(f"{status} Any", fields)
    return ended(said, chunks)


def ended(said: Json, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The chunks, and a record that the server has taken all of them."""
    if said["method"] != "HEAD":
        yield from chunks
    if os.environ.get("RECORD_BEGIN"):
        record(event="end", method=said["method"], target=said["target"])


# ---- ASGI --------------------------------------------------------------------------------------

Receive = Callable[[], Awaitable[Json]]
Send = Callable[[Json], Awaitable[None]]


async def asgi(scope: Json, receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
        return
    target = scope["raw_path"].decode("latin-1")
    if scope["query_string"]:
        target += "?" + scope["query_string"].decode("latin-1")
    headers = [(name.decode("latin-1"), value.decode("latin-1"))
               for name, value in scope["headers"]]
    method, body, more = scope["method"], Body(), True
    begin(method, target)
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            body.broken = True
            break
        body.take(message.get("body", b""))
        more = message.get("more_body", False)
    said = seen(method, target, headers, body)
    record(**said)
    if body.broken:
        return
    asked = dict(parse_qsl(scope["query_string"].decode("latin-1")))
    await asyncio.sleep(float(asked.get("sleep", "0")))
    if scope["path"] == "/events":
        await events(int(asked["count"]), float(asked.get("gap", "0")), send)
        return
    status, fields, chunks = respond(said, headers)
    await send({"type": "http.response.start", "status": status, "headers": [
        (name.lower().encode(), value.encode()) for name, value in fields]})
    for chunk in chunks if method != "HEAD" else ():
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def events(count: int, gap: float, send: Send) -> None:
    """A stream of server-sent events."""
    await send({"type": "http.response.start", "status": 200,
                "headers": [(b"content-type", b"text/event-stream")]})
    for number in range(count):
        await send({"type": "http.response.body", "body": b"data: %d\n\n" % number,
                    "more_body": True})
        await asyncio.sleep(gap)
    await send({"type": "http.response.body", "body": b""})
