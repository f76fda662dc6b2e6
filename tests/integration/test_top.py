"""``lbcore top`` on a running lbcore with traffic. ``tests/unit/test_cli_top.py`` has its keys.

With LBCORE_SCREENSHOTS=1 the picture in the documentation is taken anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from xml.etree import ElementTree

import pytest
from textual.pilot import Pilot
from textual.screen import ModalScreen

from lbcore.cli.top.app import Top
from tests.support.http_load import HttpLoad
from tests.support.http_servers import Server, uvicorns
from tests.support.instance import PATIENCE, ROOT, Instance, free_port, instance
from tests.support.terminal import on_terminal

PICTURE = ROOT / "docs" / "images" / "top.svg"


@pytest.fixture(scope="module")
def servers() -> Iterator[list[Server]]:
    """Two applications."""
    with uvicorns(2) as made:
        yield made


@pytest.fixture(scope="module")
def lb(servers: list[Server]) -> Iterator[Instance]:
    """An instance in front of them, and a pool whose only backend is down."""
    with instance() as made:
        made.file["lbcore"]["workers"] = 2
        made.file["listener"][0] |= {"name": "web", "protocol": "http", "route": [
            {"path": "/admin", "pool": "spare"}]}
        made.pool.update(
            backends=[{"name": f"app-{number}", "address": server.address}
                      for number, server in enumerate(servers, 1)],
            health={"type": "tcp", "interval": "200ms"})
        made.file["pool"]["spare"] = {
            "backends": [{"name": "gone", "address": f"127.0.0.1:{free_port()}"}],
            "health": {"type": "tcp", "interval": "200ms"}}
        made.write()
        made.start()
        yield made
        assert made.complaints() == []


class Screen:
    """``lbcore top`` on a screen that is not there, of a real instance."""

    def __init__(self, app: Top, pilot: Pilot[None]) -> None:
        self.app, self.pilot = app, pilot

    async def until(self, what: Callable[[], object], why: str = "") -> None:
        """Waits until that is so."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                while not what():
                    await self.pilot.pause(0.05)
                return
        raise AssertionError(f"{why} did not come about; on the screen:\n{self.text()}")

    async def press(self, *keys: str) -> None:
        """Keys, one after the other."""
        await self.pilot.press(*keys)
        await self.pilot.pause()

    async def answer(self, key: str, *answer: str) -> None:
        """A key that asks something, and what is answered."""
        await self.pilot.press(key)
        await self.until(lambda: isinstance(self.app.screen, ModalScreen), "a question")
        await self.pilot.pause()
        await self.pilot.press(*answer)
        await self.until(lambda: not isinstance(self.app.screen, ModalScreen), "the answer")

    def row(self, key: str) -> dict[str, str]:
        """The cells of a row by their heading; empty if it is not there."""
        grid = self.app.grid
        for row in grid.rows:
            if row.key == key:
                return {heading.name: cell.said.text
                        for heading, cell in zip(grid.pane.headings, row.cells, strict=True)}
        return {}

    def text(self) -> str:
        """All that stands on the screen."""
        lines = self.app.screen._compositor.render_strips()
        return "\n".join("".join(part.text for part in line) for line in lines)


@asynccontextmanager
async def top(lb: Instance, size: tuple[int, int] = (80, 24)) -> AsyncIterator[Screen]:
    app = Top(lb.admin, 0.5)
    async with app.run_test(size=size, notifications=True) as pilot:
        screen = Screen(app, pilot)
        await screen.until(lambda: app.picture is not None, "a picture")
        yield screen


def number(text: str) -> float:
    """The number in a cell."""
    return float(re.sub(r"[^0-9.]", "", text) or 0)


async def test_traffic_is_seen_where_it_flows(lb: Instance) -> None:
    async with top(lb, (100, 30)) as screen:
        with HttpLoad(lb.address, each=2) as load:
            for name in ("main/app-1", "main/app-2"):
                await screen.until(lambda name=name: number(screen.row(name)["RATE"]) > 1, name)
                assert screen.row(name)["STATE"] == "up"
            await screen.until(lambda: number(screen.row("main/app-1")["P99"]) > 0, "latency")
            assert screen.row("spare/gone")["STATE"] == "down"
            assert "1 backend down" in screen.text()
            await screen.until(lambda: len([one for one in screen.app._charts[0].past if one]) > 1)
            await screen.press("2")
            assert screen.row("main")["UP"] == "2/2"
            assert screen.row("spare")["UP"] == "0/1"
            await screen.press("3")
            await screen.until(lambda: number(screen.row("web default")["RATE"]) > 1, "a route")
            await screen.press("4")
            workers = screen.app.grid.rows
            assert [row.cells[1].said.text for row in workers] == ["serving", "serving"]
            await screen.press("5")
            await screen.until(lambda: "backend.state" in screen.text(), "the past")
            load.expect_no_failure()


async def test_drain_and_back_lose_no_request(lb: Instance) -> None:
    async with top(lb) as screen:
        with HttpLoad(lb.address, each=2) as load:
            await screen.answer("d", "n")
            assert not lb.status()["pools"][0]["backends"][0]["draining"]
            await screen.answer("d", "y")
            await screen.until(lambda: screen.row("main/app-1")["STATE"] == "drain")
            assert lb.status()["pools"][0]["backends"][0]["draining"]
            await screen.until(lambda: "1 change from the file" in screen.text())
            load.wait_for(20)
            await screen.answer("u", "y")
            await screen.until(lambda: screen.row("main/app-1")["STATE"] == "up")
            load.expect_no_failure()


async def test_weight_force_and_back_to_the_file(lb: Instance) -> None:
    async with top(lb) as screen:
        await screen.answer("w", "backspace", "7", "enter")
        await screen.until(lambda: screen.row("main/app-1")["WEIGHT"] == "7*")
        await screen.answer("f", "d")
        await screen.until(lambda: screen.row("main/app-1")["STATE"] == "down forced")
        assert lb.status()["changes"] == 2
        await screen.answer("c", "y")
        await screen.until(lambda: screen.row("main/app-1")["WEIGHT"] == "1"
                           and screen.row("main/app-1")["STATE"] == "up")
        assert lb.status()["changes"] == 0


async def test_a_backend_comes_and_goes_with_a_key(lb: Instance, servers: list[Server]) -> None:
    async with top(lb) as screen:
        address = servers[0].address.replace("127.0.0.1", "localhost")
        await screen.answer("a", *address, "enter")
        await screen.until(lambda: screen.row(f"main/{address}"), "the new backend")
        await screen.press("end", "up")
        assert screen.app.grid.chosen == f"main/{address}"
        await screen.answer("x", "y")
        await screen.until(lambda: not screen.row(f"main/{address}"), "its end")


async def test_a_refusal_says_why(lb: Instance) -> None:
    async with top(lb) as screen:
        await screen.press("end")
        assert screen.app.grid.chosen == "spare/gone"
        await screen.answer("x", "y")
        await screen.until(lambda: "is the last of pool" in " ".join(screen.text().split()),
                           "a refusal")
        assert screen.row("spare/gone")


async def test_reload_with_a_key_takes_what_the_file_says_now(lb: Instance) -> None:
    before = lb.status()["plan"]["version"]
    async with top(lb) as screen:
        await screen.answer("r", "y")
        await screen.until(lambda: lb.status()["plan"]["version"] > before)
        await screen.press("5")
        await screen.until(lambda: "reloaded" in screen.text(), "the event")


async def test_it_goes_on_over_an_upgrade(lb: Instance) -> None:
    async with top(lb) as screen:
        before = lb.status()["generation"]
        await asyncio.to_thread(lb.admin.upgrade)
        await screen.until(
            lambda: screen.app.picture.status["generation"] == before + 1, "the new one")
        await screen.until(lambda: not screen.app.lost and "2/2 workers" in screen.text())


WATCHED = 45 if os.environ.get("LBCORE_SCREENSHOTS") == "1" else 3     # pictures


@pytest.fixture
def town() -> Iterator[Instance]:
    """An instance worth a picture: several pools, one backend in drain, one down."""
    with instance() as made:
        made.file["lbcore"]["workers"] = 2
        made.file["listener"] = [{
            "name": "web", "protocol": "http", "bind": f"127.0.0.1:{made.port}", "pool": "shop",
            "route": [{"path": "/api", "pool": "api"}, {"path": "/search", "pool": "search"}]}]
        made.file["pool"] = {
            "shop": {"demo": 4, "balance": "least_conn", "health": {}},
            "api": {"demo": 3, "balance": "least_conn", "health": {}},
            "search": {"demo": 2, "health": {}, "backends": [
                {"name": "demo-3", "address": f"127.0.0.1:{free_port()}"}]}}
        made.write()
        made.start()
        made.admin.drain("shop", "demo-3")
        made.admin.weight("api", "demo-1", 3)
        yield made


async def visit(lb: Instance) -> None:
    """Asks for this and that until it is cancelled."""
    for path in itertools.cycle(("/", "/a", "/api/1", "/", "/api/2", "/search?q=x")):
        reader, writer = await asyncio.open_connection(*lb.address)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        assert (await reader.read()).startswith(b"HTTP/1.1 200")
        writer.close()


async def test_the_picture_of_the_documentation(town: Instance) -> None:
    async with top(town, (96, 20)) as screen:
        visitors = [asyncio.create_task(visit(town)) for _ in range(8)]
        await screen.press("s", "s", "s")
        await screen.until(lambda: len(screen.app._charts[0].past) >= WATCHED, "a past")
        await screen.press("down", "down")
        svg = screen.app.export_screenshot(title="lbcore top")
        for visitor in visitors:
            visitor.cancel()
        ends = await asyncio.gather(*visitors, return_exceptions=True)
    assert {type(end) for end in ends} == {asyncio.CancelledError}
    assert "demo-1" in svg
    ElementTree.fromstring(svg)
    if os.environ.get("LBCORE_SCREENSHOTS") == "1":
        # Fonts of other servers are not asked for by a page of ours.
        PICTURE.write_text(re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL))


def command(lb: Instance, *words: str) -> list[str]:
    return [sys.executable, "-m", "lbcore", "top", "-c", str(lb.config), *words]


def test_once_prints_a_picture_without_a_terminal(lb: Instance) -> None:
    with HttpLoad(lb.address, each=2):
        said = subprocess.run(command(lb, "--once"), capture_output=True, text=True, check=True,
                              timeout=60)
    assert "\x1b" not in said.stdout
    lines = said.stdout.splitlines()
    assert lines[0].startswith("lbcore ")
    assert re.search(r"requests/s [0-9.]+", lines[1])
    row = next(line for line in lines if line.startswith("main/app-1"))
    assert row.split()[1] == "up"
    assert number(row.split()[2]) > 0


def test_nobody_there_is_an_error_before_the_screen_changes(lb: Instance) -> None:
    words = [sys.executable, "-m", "lbcore", "top", "--admin", f"unix:{lb.directory}/nobody"]
    code, text = on_terminal(words)
    assert code == 1
    assert "no lbcore answers" in text
    assert "\x1b[?1049h" not in text


def test_it_runs_in_a_terminal_of_80_by_24_and_ends_with_q(lb: Instance) -> None:
    code, text = on_terminal(command(lb), "main/app-2", b"q")
    assert code == 0, text
    assert "\x1b[?1049h" in text         # the screen is given back
    assert "\x1b[?1049l" in text


async def test_an_instance_that_is_started_again_is_found_again(lb: Instance) -> None:
    """The last test of this file: what was counted begins anew."""
    async with top(lb) as screen:
        lb.admin.stop(now=True)
        assert await asyncio.to_thread(lb.exit_code) == 0
        await screen.until(lambda: "no answer for" in screen.text(), "the loss")
        assert screen.row("main/app-1")
        await asyncio.to_thread(lb.start)
        await screen.until(lambda: not screen.app.lost, "the new one")
        pid = lb.status()["pid"]
        await screen.until(lambda: screen.app.picture.status["pid"] == pid)
        await screen.press("5")
        await screen.until(lambda: "started" in screen.text(), "its events")
