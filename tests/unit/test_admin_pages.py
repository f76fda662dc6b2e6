"""The dashboard's files as they are served: what a browser may do with them, and no others."""

from __future__ import annotations

import gzip
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import ClientSession
from yarl import URL

from lbcore.admin import pages
from lbcore.admin.server import AdminServer
from tests.support.fake_control import FakeControl

SCRIPT = "export const answer = 42;\n" * 100


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    inside = tmp_path / "dashboard"
    (inside / "parts").mkdir(parents=True)
    (inside / "index.html").write_text("<!doctype html>" + "<p>hello</p>" * 100)
    (inside / "parts" / "app.js").write_text(SCRIPT)
    (inside / "icon.png").write_bytes(b"\x89PNG" + bytes(1000))
    (inside / "__init__.py").write_text("secret = 1")
    (tmp_path / "secret").write_text("secret")
    return inside


@pytest.fixture
async def session(directory: Path) -> AsyncIterator[ClientSession]:
    server = AdminServer(FakeControl())
    server._pages = pages.Pages(directory)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        await server.start(listening)
        async with ClientSession(f"http://127.0.0.1:{listening.getsockname()[1]}",
                                 auto_decompress=False) as session:
            yield session
        await server.stop()


@pytest.mark.parametrize(("path", "kind"), [
    ("/", "text/html; charset=utf-8"), ("/index.html", "text/html; charset=utf-8"),
    ("/parts/app.js", "text/javascript; charset=utf-8"), ("/icon.png", "image/png")])
async def test_files_come_with_their_type_and_without_rights(
    session: ClientSession, path: str, kind: str,
) -> None:
    async with session.get(path) as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"] == kind
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'self'" in policy and "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["X-Frame-Options"] == "DENY"


@pytest.mark.parametrize("path", [
    "/nothing.js", "/parts", "/parts/", "/../secret", "/%2e%2e/secret", "/parts/..%2f..%2fsecret",
    "/%2e%2e%2fsecret", "/.", "//etc/passwd", "/%2fetc%2fpasswd", "/parts//app.js", "/x%00.js",
    "/__init__.py", "/index.html/", "/" + "a" * 5000])
async def test_nothing_else_is_served(session: ClientSession, path: str) -> None:
    base = str(session._base_url).rstrip("/")
    async with session.get(URL(base + path, encoded=True)) as answer:    # as it stands here
        assert answer.status == 404
        assert b"secret" not in await answer.read()


async def test_file_that_a_browser_has_is_not_sent_again(
    session: ClientSession, directory: Path,
) -> None:
    async with session.get("/parts/app.js") as answer:
        etag = answer.headers["ETag"]
        assert answer.headers["Cache-Control"] == "no-cache"
    async with session.get("/parts/app.js", headers={"If-None-Match": f'"other", {etag}'}) as again:
        assert (again.status, await again.read()) == (304, b"")
    (directory / "parts" / "app.js").write_text(SCRIPT + "// another version\n")
    async with session.get("/parts/app.js", headers={"If-None-Match": etag}) as newer:
        assert newer.status == 200
        assert newer.headers["ETag"] != etag


@pytest.mark.parametrize(("accepted", "packed"), [
    ("gzip, deflate, br", True), ("br;q=1.0, gzip;q=0.5", True), ("GZIP", True),
    ("identity", False), ("gzip;q=0", False), ("gzip; q=0.0", False), ("", False)])
async def test_text_is_packed_for_those_who_take_it(
    session: ClientSession, accepted: str, packed: bool,
) -> None:
    async with session.get("/parts/app.js", headers={"Accept-Encoding": accepted}) as answer:
        assert ("Content-Encoding" in answer.headers) is packed
        assert answer.headers["Vary"] == "Accept-Encoding"
        body = await answer.read()
    assert (gzip.decompress(body) if packed else body).decode() == SCRIPT


async def test_pictures_are_not_packed(session: ClientSession) -> None:
    async with session.get("/icon.png", headers={"Accept-Encoding": "gzip"}) as answer:
        assert "Content-Encoding" not in answer.headers


async def test_head_and_other_methods(session: ClientSession) -> None:
    async with session.head("/") as answer:
        assert (answer.status, await answer.read()) == (200, b"")
    async with session.post("/") as answer:
        assert answer.status == 405


def test_the_dashboard_is_there() -> None:
    assert (pages.DIRECTORY / pages.INDEX).is_file()
