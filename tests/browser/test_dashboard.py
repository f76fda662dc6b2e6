"""The dashboard in a real Chromium, looking at a real instance with traffic.

With LBCORE_SCREENSHOTS=1 the pictures in docs/images are taken again (see test_pictures.py).
"""

from __future__ import annotations

import copy
import re
import time
from typing import Any

import pytest

from tests.support.dashboard import (
    FAINT,
    MANY,
    NAMELESS,
    Site,
    Watched,
    confirmed,
    node,
    row,
    scripting,
    text_becomes,
)
from tests.support.http_load import HttpLoad
from tests.support.instance import until

pytestmark = [pytest.mark.browser]


# ---- what it shows ------------------------------------------------------------------------------

def test_everything_that_runs_is_on_the_page(page: Any, site: Site) -> None:
    for name in ("l:web", "l:direct", "p:shop", "p:api", "p:direct", "b:shop/shop-1",
                 "b:shop/shop-3", "b:api/api-2", "b:direct/direct-2"):
        assert node(page, name).is_visible(), name
    routes = page.locator(".node.route").all_inner_texts()
    assert len(routes) == 5              # two of the file, what no route takes, tcp
    assert any("redirect" in words for words in routes)
    for backend in ("shop/shop-1", "shop/shop-2", "api/api-1", "direct/direct-2"):
        assert row(page, backend).is_visible()
    assert page.locator("#worker-rows tr").count() == 1
    assert "pid" in page.locator("#worker-rows tr").inner_text()
    assert page.locator("#facts").inner_text().endswith(" · lb.toml")
    assert page.locator("#facts").get_attribute("title") == str(site.config)
    assert page.title() == "all backends up · lbcore"
    assert page.locator("#favicon").get_attribute("href") == "sign-ok.svg"
    assert page.locator("#event-list li").count() > 0
    # Each line ends where it should: at its node.
    lines = page.locator(".map .lines path")
    assert lines.count() == 5 + 4 + 8
    assert all(path.get_attribute("d") for path in lines.all())


def test_figures_and_charts_move_while_traffic_flows(page: Any) -> None:
    text_becomes(page, ".card:nth-child(1) .figure", r"^[1-9][\d.,]*/s")
    before = page.locator(".card").first.locator(".line.s2").get_attribute("d")
    drawn = int(page.locator("html").get_attribute("data-drawn"))
    page.wait_for_function(
        "(n) => Number(document.documentElement.dataset.drawn) > n + 1", arg=drawn)
    after = page.locator(".card").first.locator(".line.s2").get_attribute("d")
    assert after != before
    assert re.search(r"\d\sms$", page.locator(".card").nth(1).locator(".figure").inner_text())
    assert "2xx" in page.locator(".card .plot").first.get_attribute("aria-label")
    page.wait_for_function("""() =>             // lines that carry something are drawn so
      document.querySelectorAll('.lines path[data-health="up"]:not([data-idle])').length >= 3""")


def test_killed_backend_turns_red_within_two_seconds(page: Any, site: Site) -> None:
    server = site.servers[1]

    def in_time() -> bool:
        already = len(site.events("backend.state", backend="shop-3", new="down"))
        server.kill()
        site.wait_for("backend.state", already + 1, backend="shop-3", new="down")
        began = time.monotonic()
        page.wait_for_selector('[data-node="b:shop/shop-3"][data-state="down"]')
        return time.monotonic() - began < 2

    def back() -> None:
        server.start()
        page.wait_for_selector('[data-node="b:shop/shop-3"][data-state="up"]')

    try:
        for _ in range(2):                   # a busy machine may be late, not always
            if in_time():
                break
            back()
        else:
            assert in_time()
        shown = row(page, "shop/shop-3").locator(".state")
        assert shown.inner_text() == "down"                # a word, and an icon, not only red
        assert shown.locator("use").get_attribute("href") == "#i-down"
        red = shown.evaluate("el => getComputedStyle(el).color.match(/[\\d.]+/g).map(Number)")
        assert red[0] > 2 * max(red[1], red[2])
        page.wait_for_function("() => document.title === '⚠ 1 of 8 backends down · lbcore'")
        assert page.locator("#favicon").get_attribute("href") == "sign-warn.svg"
        event = page.locator("#event-list li.warning", has_text="shop-3").first
        assert "backend.state" in event.inner_text()
        text_becomes(page, "#announcer", "shop-3")
    finally:
        back()
    page.wait_for_function("() => document.title.startsWith('all backends up')")


def test_a_tab_in_the_background_tells_by_its_title_and_icon(page: Any, site: Site) -> None:
    # A browser draws no frames of a tab that nobody sees.
    page.evaluate("""() => {
      Object.defineProperty(document, 'hidden', { get: () => true });
      window.requestAnimationFrame = () => 1;
    }""")
    try:
        for backend in ("api-1", "api-2"):
            site.ask("POST", f"backends/api/{backend}/force", {"state": "down"})
        page.wait_for_function("() => document.title === '✖ api takes no traffic · lbcore'",
                               polling=100)
        assert page.locator("#favicon").get_attribute("href") == "sign-down.svg"
    finally:
        site.as_in_the_file()


def test_events_are_filtered_by_level_and_words(page: Any, site: Site) -> None:
    site.ask("PUT", "log", {"level": "debug"})
    site.ask("PUT", "log", {"level": None})
    every = page.locator("#event-list li").count()
    page.locator("#event-level").select_option("warning")
    kinds = page.locator("#event-list li").evaluate_all("all => all.map(one => one.className)")
    assert set(kinds) <= {"warning", "error"}
    page.locator("#event-level").select_option("debug")
    assert page.locator("#event-list li").count() >= every
    page.locator("#event-filter").fill("worker.started")
    assert page.locator("#event-list li").count() >= 1
    assert all("worker.started" in words
               for words in page.locator("#event-list li").all_inner_texts())
    page.locator("#event-filter").fill("no such words")
    assert page.locator("#event-none").is_visible()


def test_a_node_shows_what_belongs_to_it(page: Any) -> None:
    node(page, "p:api").hover()
    assert "lit" in node(page, "l:web").get_attribute("class")
    assert "lit" in node(page, "b:api/api-1").get_attribute("class")
    assert "lit" not in node(page, "b:shop/shop-1").get_attribute("class")
    node(page, "p:api").click()
    assert page.locator("#backend-pool").input_value() == "api"
    assert page.locator(".backend-row").count() == 2


# ---- what can be done from it -------------------------------------------------------------------

def test_drain_from_the_page(page: Any, site: Site) -> None:
    try:
        row(page, "shop/shop-2").get_by_role("button", name="Drain shop/shop-2").click()
        said = page.locator("dialog[open]").inner_text()
        assert "Drain shop/shop-2?" in said
        assert "2 other backends of shop" in said          # what will happen
        assert not site.told("shop-2")["draining"]         # nothing before it is confirmed
        confirmed(page, "Drain")
        assert site.told("shop-2")["state"] == "drain"
        page.wait_for_selector('[data-node="b:shop/shop-2"][data-state="drain"]')
        row(page, "shop/shop-2").get_by_role("button", name="Undrain shop/shop-2").click()
        confirmed(page, "Undrain")
        assert not site.told("shop-2")["draining"]
    finally:
        site.as_in_the_file()


def test_drain_with_the_keyboard_alone(page: Any, site: Site) -> None:
    def focused() -> str:
        return str(page.evaluate(
            "document.activeElement.ariaLabel || document.activeElement.textContent.trim()"))

    def tab_to(wanted: str) -> None:
        for _ in range(120):
            if focused() == wanted:
                break
            page.keyboard.press("Tab")
        assert focused() == wanted
        assert page.evaluate(
            "getComputedStyle(document.activeElement).outlineStyle") == "solid"    # it is seen

    try:
        page.keyboard.press("Tab")
        assert focused() == "Skip to the figures"
        tab_to("Drain shop/shop-1")
        page.keyboard.press("Enter")
        page.wait_for_selector("dialog[open]")
        inside = "el => el === document.body || !!el.closest('dialog')"
        for _ in range(8):               # the focus does not leave it
            page.keyboard.press("Tab")
            assert page.evaluate(f"({inside})(document.activeElement)")
        page.keyboard.press("Escape")    # and back to where it was, with nothing done
        page.wait_for_selector("dialog", state="detached")
        assert focused() == "Drain shop/shop-1"
        assert not site.told("shop-1")["draining"]
        page.keyboard.press("Enter")
        tab_to("Drain")
        page.keyboard.press("Enter")
        page.wait_for_selector("dialog", state="detached")
        assert site.told("shop-1")["draining"]
        page.wait_for_function("() => document.activeElement.ariaLabel === 'Undrain shop/shop-1'")
        page.reload()                    # hundreds of rows need not be gone through
        page.wait_for_selector("html[data-drawn]", state="attached")
        tab_to("Skip the table of backends")
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        assert focused() == "One worker more"
    finally:
        site.as_in_the_file()


def test_changes_are_made_listed_and_taken_back(page: Any, site: Site) -> None:
    def details(button: str) -> None:
        page.locator("dialog[open]").first.get_by_role("button", name=button, exact=True).click()

    try:
        row(page, "shop/shop-1").get_by_role("button", name="shop-1", exact=True).click()
        details("Weight…")
        page.get_by_label("Weight", exact=True).fill("7")
        confirmed(page, "Set weight")
        # Said in front of the dialog that is still open, and not lost with it.
        assert "has weight 7" in page.locator("dialog[open] #toasts").inner_text()
        assert site.told("shop-1")["weight"] == 7
        details("Force down")
        confirmed(page, "Force down")
        assert (site.told("shop-1")["state"], site.told("shop-1")["forced"]) == ("down", "down")
        text_becomes(page, "dialog[open] .state.big", "down, forced")
        details("No longer force down")
        confirmed(page, "Let checks decide")
        assert site.told("shop-1")["forced"] is None
        page.keyboard.press("Escape")
        page.wait_for_selector("body > #toasts")

        page.locator("#backend-add").click()
        page.get_by_label("Pool", exact=True).last.select_option("shop")
        page.get_by_label("Address", exact=True).fill(site.servers[0].address)
        page.get_by_label("Name", exact=True).fill("shop-4")
        confirmed(page, "Add backend")
        assert site.told("shop-4")["address"] == site.servers[0].address
        row(page, "shop/shop-4").get_by_role("button", name="shop-4", exact=True).click()
        text_becomes(page, ".facts-list", "a change at run time")
        page.keyboard.press("Escape")
        page.wait_for_selector("dialog", state="detached")
        row(page, "shop/shop-3").get_by_role("button", name="shop-3", exact=True).click()
        details("Remove…")
        confirmed(page, "Remove")
        page.wait_for_selector("dialog", state="detached")
        row(page, "shop/shop-3").wait_for(state="detached")

        page.wait_for_function("() => document.querySelectorAll('#change-list tr').length === 4")
        listed = page.locator("#change-list").inner_text()
        for words in ("Pool shop", "shop-1", "shop-3", "shop-4", "removed", "added", "7"):
            assert words in listed
        page.locator("#change-show").click()
        text_becomes(page, "dialog[open] pre", "shop-4")
        page.keyboard.press("Escape")
        page.locator("#change-forget").click()
        assert "3 changes" in page.locator("dialog[open]").inner_text()
        confirmed(page, "Back to the file")
        page.wait_for_selector("#change-none", state="visible")
        assert site.ask("GET", "changes")["changes"] == []
        assert site.told("shop-3")["state"] == "up"
    finally:
        site.as_in_the_file()


def test_what_the_api_refuses_is_said_with_its_hint(watched: Watched, page: Any, site: Site
                                                    ) -> None:
    page.locator("#backend-add").click()
    page.get_by_label("Address", exact=True).fill("127.0.0.1")
    page.get_by_role("button", name="Add backend", exact=True).click()
    trouble = page.locator("dialog[open] [role=alert]")
    trouble.wait_for()
    assert "port" in trouble.inner_text()
    assert page.locator("dialog[open]").is_visible()       # what was typed is still there
    assert site.ask("GET", "changes")["changes"] == []
    # The browser itself reports an answer that is an error: this one was wanted.
    assert len(watched.errors) == 1
    assert "422" in watched.errors.pop()


def test_a_change_by_somebody_else_is_noticed_before_it_is_trodden_on(
        watched: Watched, page: Any, site: Site) -> None:
    try:
        row(page, "shop/shop-1").get_by_role("button", name="Drain shop/shop-1").click()
        site.ask("POST", "backends/shop/shop-2/drain")     # meanwhile
        page.wait_for_selector('[data-node="b:shop/shop-2"][data-state="drain"]')
        dialog = page.locator("dialog[open]")
        dialog.get_by_role("button", name="Drain", exact=True).click()
        dialog.locator("[role=alert]").wait_for()
        assert not site.told("shop-1")["draining"]
        assert "412" in watched.errors.pop()
        confirmed(page, "Drain all the same")
        assert site.told("shop-1")["draining"]
    finally:
        site.as_in_the_file()


def test_workers_and_reload(page: Any, site: Site) -> None:
    page.get_by_role("button", name="One worker more").click()
    assert "2 workers instead of 1" in page.locator("dialog[open]").inner_text()
    confirmed(page, "Add a worker")
    serving = "document.querySelectorAll('#worker-rows tr[data-state=up]').length"
    page.wait_for_function(f"() => {serving} === 2")
    page.get_by_role("button", name="One worker less").click()
    confirmed(page, "Take one away")
    page.wait_for_function("() => document.querySelectorAll('#worker-rows tr').length === 1")
    page.get_by_role("button", name="One worker more").click()
    confirmed(page, "Add a worker")
    page.get_by_role("button", name="workers back to the file").click()
    confirmed(page, "Back to the file")
    page.wait_for_selector("#change-none", state="visible")
    page.wait_for_function("() => document.querySelectorAll('#worker-rows tr').length === 1")
    already = len(site.events("reloaded"))
    page.get_by_role("button", name="Reload").click()
    confirmed(page, "Reload")
    site.wait_for("reloaded", already + 1)
    assert "in force" in page.locator("#toasts").inner_text()


def test_a_reload_says_what_it_could_not_change(page: Any, site: Site) -> None:
    site.ask("POST", "backends/shop/shop-3/drain")
    page.wait_for_selector('[data-node="b:shop/shop-3"][data-state="drain"]')
    file = copy.deepcopy(site.file)
    site.file["lbcore"]["pid_file"] = str(site.directory / "pid")
    site.file["pool"]["shop"]["backends"].pop()
    site.write()
    try:
        page.get_by_role("button", name="Reload").click()
        page.get_by_role("button", name="Reload", exact=True).click()
        text_becomes(page, "dialog[open]", "restart of lbcore to change: pid_file")
        text_becomes(page, "dialog[open]", "has ended: shop/shop-3: drained")
    finally:
        site.file = file
        site.write()
        site.ask("POST", "reload")
        site.as_in_the_file()


def test_log_level_and_limit_of_a_backend(page: Any, site: Site) -> None:
    try:
        page.get_by_role("button", name="Log level…").click()
        assert page.get_by_label("From level").input_value() == "info"       # what is so now
        page.get_by_label("From level").select_option("debug")
        confirmed(page, "Set level")
        assert site.ask("GET", "config")["config"]["log"]["level"] == "debug"
        page.get_by_role("button", name="log level back to the file").click()
        confirmed(page, "Set level")
        page.wait_for_selector("#change-none", state="visible")
        row(page, "api/api-1").get_by_role("button", name="api-1", exact=True).click()
        page.get_by_role("button", name="Limit…").click()
        page.get_by_label("Connections at most").last.fill("5")
        confirmed(page, "Set limit")
        assert site.told("api-1", "api")["max_connections"] == 5
    finally:
        site.as_in_the_file()


def test_an_application_is_restarted_or_says_why_not(
        watched: Watched, page: Any, site: Site) -> None:
    code = site.directory / "own.py"
    good = "def app(environ, start):\n    start('200 OK', [])\n    return [b'']\n"
    code.write_text(good)
    site.file["pool"]["own"] = {"wsgi": "own:app", "directory": str(site.directory)}
    site.write()
    try:
        assert page.locator("#applications").is_hidden()
        site.ask("POST", "reload")
        restart = page.get_by_role("button", name="Restart the application of own")
        restart.click()
        assert "own:app" in page.locator("dialog[open]").inner_text()
        confirmed(page, "Restart")
        text_becomes(page, "#toasts", "generation 2 of own:app")
        code.write_text(good + "import nothing_of_that_name\n")
        restart.click()
        page.get_by_role("button", name="Restart", exact=True).click()
        text_becomes(page, "dialog[open] [role=alert]", "nothing_of_that_name.*the old one goes on")
        page.keyboard.press("Escape")
        # Nothing of it is lost with the dialog.
        page.get_by_role("button", name="the last restart failed").click()
        text_becomes(page, "dialog[open]", "No module named 'nothing_of_that_name'")
        assert len(watched.errors) == 1            # what the browser itself says of 422
        assert "422" in watched.errors.pop()
        page.keyboard.press("Escape")
        row(page, "own/app").get_by_role("button", name="app", exact=True).click()
    finally:
        del site.file["pool"]["own"]
        site.write()
        site.ask("POST", "reload")
    # What is looked at while it goes says so, and can no longer be changed.
    text_becomes(page, "dialog[open] .state.big", "gone")
    assert page.locator("dialog[open]").get_by_role("button").all_inner_texts() == [""]
    page.wait_for_selector("#applications", state="hidden")


def test_an_upgrade_from_the_page(watched: Watched, page: Any, site: Site) -> None:
    before = site.status()["generation"]
    page.get_by_role("button", name="Upgrade…").click()
    confirmed(page, "Upgrade")
    until(lambda: site.status()["upgrade"]["state"] == "done", "the upgrade")
    assert site.status()["generation"] == before + 1
    text_becomes(page, "#event-list", "upgrade")
    page.wait_for_selector("#pulse[data-live]")
    page.wait_for_selector("#lost", state="hidden")
    watched.errors[:] = [words for words in watched.errors if "Failed to load" not in words]


# ---- everybody can read it ----------------------------------------------------------------------

@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_has_contrast_and_controls_have_names(page: Any, site: Site, theme: str) -> None:
    page.emulate_media(color_scheme=theme)
    try:
        site.ask("POST", "backends/shop/shop-2/drain")
        site.ask("POST", "backends/api/api-2/force", {"state": "down"})
        page.wait_for_selector('[data-node="b:api/api-2"][data-state="down"]')
        page.wait_for_selector("#change-list tr")
        ground = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", ground)[:3])) < 200) == (theme == "dark")
        assert page.evaluate(FAINT) == {}
        assert page.evaluate(NAMELESS) == []
        row(page, "api/api-2").get_by_role("button", name="api-2", exact=True).click()
        page.get_by_role("button", name="Remove…").click()
        assert page.evaluate(FAINT) == {}
        assert page.evaluate(NAMELESS) == []
    finally:
        site.as_in_the_file()


def test_the_theme_can_be_chosen_and_is_remembered(page: Any) -> None:
    switch = page.locator("#theme")
    assert switch.get_attribute("aria-label") == "Theme: system"
    switch.click()
    switch.click()
    assert switch.get_attribute("aria-label") == "Theme: dark"
    page.reload()
    page.wait_for_selector("html[data-drawn]", state="attached")
    assert page.locator("html").get_attribute("data-theme") == "dark"
    assert page.evaluate("getComputedStyle(document.documentElement).colorScheme") == "dark"
    page.evaluate("localStorage.clear()")


def test_it_is_readable_on_a_phone(page: Any, site: Site) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    page.wait_for_function("() => document.documentElement.scrollWidth <= 390")
    for name in ("overview", "topology", "backends", "workers", "changes", "events"):
        box = page.locator(f"#{name}").bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 390
    assert page.evaluate("""() => [...document.querySelectorAll('nav, nav a, .wide-table')]
      .filter((el) => el.getBoundingClientRect().right > 390 || el.scrollWidth > el.clientWidth)
      .map((el) => el.outerHTML)""") == []                 # nothing has to be pushed aside
    assert page.evaluate("""() => [...document.querySelectorAll('main button, main select')]
      .filter((el) => el.checkVisibility() && el.getBoundingClientRect().height < 24)
      .map((el) => el.outerHTML)""") == []                 # WCAG 2.2, 2.5.8
    row(page, "api/api-1").get_by_role("button", name="Drain api/api-1").click()
    box = page.locator("dialog[open]").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 390
    page.get_by_role("button", name="Cancel").click()


# ---- many backends ------------------------------------------------------------------------------

def test_five_hundred_backends_are_no_burden(chromium: Any, page: Any, site: Site) -> None:
    port = site.servers[0].port
    many = [{"name": f"batch-{n}", "address": f"{address}:{port}"}
            for n, address in enumerate(["127.0.0.1", *MANY])]
    try:
        site.ask("PUT", "pools/batch/backends", {"backends": many})
        page.wait_for_function("() => document.querySelectorAll('.cells use').length === 493")
        assert page.locator(".backend-row").count() < 40   # the others when they are scrolled to
        assert page.locator("#backend-table").get_attribute("aria-rowcount") == "501"
        page.locator("#backend-rows").evaluate("el => el.scrollTo(0, el.scrollHeight)")
        row(page, "direct/direct-2").wait_for()
        page.locator("#backend-filter").fill("batch-49")
        page.wait_for_function("() => document.querySelectorAll('.backend-row').length === 4")
        page.locator("#backend-filter").fill("")
        # However much the topology shows, what is below it stays near.
        assert page.locator("#topology-map").bounding_box()["height"] <= 1600
        lines = page.locator(".map .lines path")
        assert all(path.get_attribute("d") for path in lines.all())

        with HttpLoad(site.address, path="/echo/batch", each=2) as load:
            chromium.start_tracing(page=page, categories=["devtools.timeline", "blink.user_timing"])
            drawn = int(page.locator("html").get_attribute("data-drawn"))
            page.wait_for_function("(n) => Number(document.documentElement.dataset.drawn) > n + 5",
                                   arg=drawn, polling=500)
            took = scripting(chromium.stop_tracing())
            print(f"script of each update, CPU ms: {[round(ms, 1) for ms in took]}")
            assert len(took) >= 4
            assert 1 < sorted(took)[len(took) // 2] < 50
            load.expect_no_failure()
    finally:
        site.as_in_the_file()


# ---- when lbcore goes away ----------------------------------------------------------------------

def test_it_comes_back_with_the_instance_and_asks_for_a_token(
        watched: Watched, page: Any, site: Site) -> None:
    """The last test: the instance ends, and begins again wanting a token."""
    site.ask("POST", "stop", {"now": True})
    site.exit_code()
    page.wait_for_selector("#lost", state="visible")
    text_becomes(page, "#heard", r"last heard .*\d\ss ago")
    assert "not reached" in page.title()
    assert page.locator("#favicon").get_attribute("href") == "sign-gone.svg"

    secret = site.directory / "token"
    secret.write_text("correct-horse\n")
    secret.chmod(0o600)
    site.file["admin"]["token_file"] = str(secret)
    site.write()
    site.start(wait=False)
    dialog = page.locator("dialog[open]")
    dialog.wait_for()
    dialog.get_by_label("Token").fill("battery-staple")
    dialog.get_by_role("button", name="Continue").click()
    page.locator("dialog[open] [role=alert]").wait_for()
    dialog.get_by_label("Token").fill("correct-horse")
    dialog.get_by_role("button", name="Continue").click()
    page.wait_for_selector("#pulse[data-live]")
    page.wait_for_selector("#lost", state="hidden")
    until(lambda: "started" in page.locator("#event-list").inner_text(), "events of the new one")
    assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
    # What the browser itself says of connections that were refused, and of 401.
    assert all("Failed to load resource" in words for words in watched.errors)
    assert not [words for words in watched.errors if ".svg" in words]    # it has all its signs
    watched.errors.clear()
