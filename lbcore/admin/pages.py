"""The dashboard's files: what is in the directory ``dashboard`` beside this file, and nothing else.

They are served without a token, because a browser that comes to ask for one has none; they say
nothing about the instance.
"""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from lbcore.config.files import media_type

# The page shows one of its signs when nobody answers any more: it has to have it by then.
KEPT = "max-age=604800"
DIRECTORY = Path(__file__).parent / "dashboard"
INDEX = "index.html"
SMALL = 512                      # bytes below which gzip gains nothing
PACKED = (".html", ".css", ".js", ".svg", ".json", ".txt")
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; "
                               "frame-ancestors 'none'; object-src 'none'",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-cache",         # asks each time, with the ETag
    "Vary": "Accept-Encoding",
}


@dataclass(frozen=True, slots=True)
class Page:
    """A file as it is sent."""

    stamp: tuple[int, int]       # time of its last change, and its length
    body: bytes
    packed: bytes                # gzip; empty: not worth it
    etag: str
    kind: str


class Pages:
    """The files of a directory, read when they are first asked for and when they have changed."""

    def __init__(self, directory: Path = DIRECTORY) -> None:
        self._directory = directory
        self._known: dict[str, Page] = {}

    def answer(self, request: web.Request, name: str) -> web.Response:
        """The file of that name. Raises HTTPNotFound."""
        page = self._page(name or INDEX)
        headers = HEADERS | {"ETag": page.etag}
        if name.endswith(".svg"):
            headers["Cache-Control"] = KEPT
        if page.etag in request.headers.get("If-None-Match", ""):
            return web.Response(status=304, headers=headers)
        body = page.body
        if page.packed and _takes_gzip(request.headers.get("Accept-Encoding", "")):
            body = page.packed
            headers["Content-Encoding"] = "gzip"
        return web.Response(body=body, headers=headers | {"Content-Type": page.kind})

    def _page(self, name: str) -> Page:
        # Names that could lead out of the directory lead nowhere.
        if any(part in ("", ".", "..") or "\0" in part for part in name.split("/")):
            raise web.HTTPNotFound
        path = self._directory / name
        try:
            info = path.stat()
            stamp = info.st_mtime_ns, info.st_size
            known = self._known.get(name)
            if known is None or known.stamp != stamp:
                if not path.is_file() or path.suffix == ".py":
                    raise web.HTTPNotFound
                known = self._known[name] = _read(path, stamp)
        except (OSError, ValueError):
            raise web.HTTPNotFound from None
        return known


def _read(path: Path, stamp: tuple[int, int]) -> Page:
    body = path.read_bytes()
    packed = b""
    if len(body) >= SMALL and path.suffix in PACKED:
        packed = gzip.compress(body, mtime=0)
    return Page(stamp, body, packed, f'"{hashlib.sha256(body).hexdigest()[:24]}"',
                media_type(path.name))


def _takes_gzip(accepted: str) -> bool:
    """Whether Accept-Encoding (RFC 9110, 12.5.3) names gzip without refusing it."""
    for one in accepted.lower().split(","):
        coding, _, weight = one.partition(";")
        if coding.strip() == "gzip":
            return weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False
