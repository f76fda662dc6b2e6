"""The pictures of the dashboard in docs/images: taken again with LBCORE_SCREENSHOTS=1.

They show a real instance with traffic. With Debian's fonts-inter they look as they do in the
documentation; without it, in another font.
"""

from __future__ import annotations

import http.client
import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.dashboard import MANY, Site, confirmed, row
from tests.support.http_load import HttpLoad
from tests.support.instance import ROOT

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(300),
    pytest.mark.skipif(os.environ.get("LBCORE_SCREENSHOTS") != "1",
                       reason="pictures are taken with LBCORE_SCREENSHOTS=1"),
]
IMAGES = ROOT / "docs" / "images"
POINTS = 70                      # seconds of figures that the charts show
HEAVIER = 6                      # clients of each kind, besides those that always ask


@pytest.fixture
def busy(site: Site) -> Iterator[Site]:
    """More of everything: a pool of many, redirects, one backend that drains and one forced down.
    """
    port = site.servers[0].port
    site.ask("PUT", "pools/batch/backends", {"backends": [
        {"name": f"batch-{n}", "address": f"{address}:{port}"}
        for n, address in enumerate(["127.0.0.1", *MANY[:63]])]})
    site.ask("POST", "backends/batch/batch-17/force", {"state": "down"})
    site.ask("POST", "backends/batch/batch-40/drain")
    site.ask("POST", "backends/api/api-2/drain")
    ended = threading.Event()

    def wander() -> None:
        while not ended.wait(0.03):
            asked = http.client.HTTPConnection("127.0.0.1", site.port, timeout=20)
            asked.request("GET", "/old/page")
            asked.getresponse().read()
            asked.close()

    walker = threading.Thread(target=wander)
    walker.start()
    with (HttpLoad(site.address, path="/echo/batch", each=4) as batch,
          HttpLoad(site.address, each=HEAVIER) as shop):
        yield site
        ended.set()
        walker.join()
        batch.expect_no_failure()
        shop.expect_no_failure()


def test_pictures_of_a_busy_instance(chromium: Any, busy: Site) -> None:
    sizes = {"light": (1360, 1180, 1.5), "dark": (1360, 1000, 1.5), "phone": (390, 844, 2)}
    contexts = {
        name: chromium.new_context(
            viewport={"width": width, "height": height}, device_scale_factor=scale,
            color_scheme="dark" if name == "dark" else "light", reduced_motion="reduce")
        for name, (width, height, scale) in sizes.items()
    }
    pages = {}
    for name, context in contexts.items():
        context.set_default_timeout(20_000)
        pages[name] = context.new_page()
        pages[name].goto(busy.url)
    for page in pages.values():
        page.wait_for_function("(n) => Number(document.documentElement.dataset.drawn) > n",
                               arg=POINTS, polling=500, timeout=200_000)
    pages["light"].screenshot(path=IMAGES / "dashboard-light.png")
    pages["phone"].evaluate("() => document.getElementById('topology').scrollIntoView()")
    pages["phone"].screenshot(path=IMAGES / "dashboard-phone.png")
    dark = pages["dark"]
    dark.evaluate("() => document.getElementById('backends').scrollIntoView()")
    row(dark, "shop/shop-3").get_by_role("button", name="Drain shop/shop-3").click()
    dark.screenshot(path=IMAGES / "dashboard-dark.png")
    confirmed(dark, "Drain")             # the pictures are of something that works
    assert busy.told("shop-3")["state"] == "drain"
    for context in contexts.values():
        context.close()
