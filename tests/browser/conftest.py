"""A real lbcore with traffic, and a real Chromium that looks at its dashboard."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.dashboard import MANY, Site, Watched
from tests.support.http_load import HttpLoad
from tests.support.http_servers import gunicorn, served

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DESK = {"width": 1360, "height": 900}


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """The instance, with clients that ask all the time."""
    # The first listens on many addresses: for those who need many backends.
    also = [f"--bind={address}:PORT" for address in MANY]
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(served(gunicorn("gthread", "--threads=8", *words)))
                   for words in (also, [])]
        made = Site(servers)
        stack.callback(made.close)
        made.write()
        made.start()
        for port, path, each in ((made.port, "/echo", 2), (made.port, "/echo/api", 1),
                                 (made.direct_port, "/echo", 1)):
            stack.enter_context(HttpLoad(("127.0.0.1", port), path=path, each=each, pause=0.1))
        yield made
        print(made.tail())


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """The browser."""
    if os.environ.get("LBCORE_SANITIZE") == "1":
        pytest.skip("a browser does not run with the sanitizers' libraries before its own")
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed (scripts/system-packages test)")
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def person(chromium: Any) -> Iterator[Any]:
    """A browser's memory: its cache is kept from test to test."""
    context = chromium.new_context(viewport=DESK, color_scheme="light")
    context.set_default_timeout(20_000)
    yield context
    context.close()


@pytest.fixture
def watched(person: Any, site: Site) -> Iterator[Watched]:
    """A tab of its own. The dashboard is not open yet.

    At the end: it asked no other origin for anything, and its console has nothing to say.
    """
    made = Watched(person.new_page(), site.url)
    yield made
    made.page.close()
    assert made.foreign == []
    assert made.errors == []


@pytest.fixture
def page(watched: Watched, site: Site) -> Any:
    """The dashboard, as soon as it shows something."""
    watched.page.goto(site.url)
    watched.page.wait_for_selector("html[data-drawn]", state="attached")
    return watched.page
