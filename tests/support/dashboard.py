"""A real lbcore with a dashboard to look at, and what tests ask of a page in a browser."""

from __future__ import annotations

import bisect
import json
import urllib.request
from typing import Any

from lbcore.admin.client import AdminClient
from lbcore.config.plan import Address
from tests.support.http_servers import Server
from tests.support.instance import Instance, free_port, until

Json = dict[str, Any]
MANY = [f"127.0.{n // 250 + 1}.{n % 250 + 1}" for n in range(492)]


class Site(Instance):
    """An instance whose admin address a browser can reach, before servers that run already."""

    def __init__(self, servers: list[Server]) -> None:
        super().__init__()
        self.servers = servers
        self.admin_port = free_port()
        self.direct_port = free_port()
        self.url = f"http://127.0.0.1:{self.admin_port}/"
        self.file["admin"]["listen"] = f"127.0.0.1:{self.admin_port}"
        first, second = servers
        one, two = (f"{address}:{first.port}" for address in ("127.0.0.1", MANY[0]))
        three = second.address
        health = {"type": "tcp", "interval": "200ms", "fall": 1, "rise": 1}
        self.file["listener"] = [
            {"name": "web", "bind": f"127.0.0.1:{self.port}", "protocol": "http", "pool": "shop",
             "route": [{"path": "/old/", "redirect": "/"},
                       {"path": "/echo/api", "pool": "api"},
                       {"path": "/echo/batch", "pool": "batch"}]},
            {"name": "direct", "bind": f"127.0.0.1:{self.direct_port}", "pool": "direct"},
        ]
        self.file["pool"] = {
            "shop": {"balance": "least_conn", "health": health, "backends": [
                {"name": "shop-1", "address": one}, {"name": "shop-2", "address": two},
                {"name": "shop-3", "address": three, "weight": 2}]},
            "api": {"health": health, "backends": [
                {"name": "api-1", "address": one}, {"name": "api-2", "address": two}]},
            "batch": {"backends": [{"name": "batch-0", "address": one}]},
            "direct": {"health": health, "backends": [
                {"name": "direct-1", "address": one},
                {"name": "direct-2", "address": two, "backup": True}]},
        }

    @property
    def admin(self) -> AdminClient:
        """Its admin address."""
        return AdminClient(Address(host="127.0.0.1", port=self.admin_port), timeout=30)

    def ask(self, method: str, path: str, body: Json | None = None, token: str = "") -> Json:
        """An answer of its API; raises HTTPError for any that is not a success."""
        request = urllib.request.Request(
            self.url + "v1/" + path, method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"}
            | ({"Authorization": f"Bearer {token}"} if token else {}))
        with urllib.request.urlopen(request, timeout=30) as answer:
            found: Json = json.load(answer)
            return found

    def told(self, backend: str, pool: str = "shop") -> Json:
        """What its API says of a backend."""
        pools = {one["name"]: one for one in self.status()["pools"]}
        return next(one for one in pools[pool]["backends"] if one["name"] == backend)

    def as_in_the_file(self) -> None:
        """Everything runs again as its file says, and every backend is up."""
        self.ask("DELETE", "changes")

        def all_up() -> bool:
            return all(backend["state"] == "up" for pool in self.status()["pools"]
                       for backend in pool["backends"])

        until(all_up, "all backends up")


class Watched:
    """A page, and what went wrong with it that no test asks for."""

    def __init__(self, page: Any, own: str) -> None:
        self.page = page
        self.foreign: list[str] = []
        self.errors: list[str] = []
        page.on("request", lambda request: self._asked(request.url, own))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", self._said)

    def _asked(self, url: str, own: str) -> None:
        if not url.startswith(own):
            self.foreign.append(url)

    def _said(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.errors.append(f"{message.type}: {message.text} {message.location}")


# ---- parts of the page, by what they are -------------------------------------------------------

def row(page: Any, backend: str) -> Any:
    """A line of the table of backends."""
    return page.locator(f'.backend-row[data-id="{backend}"]')


def node(page: Any, name: str) -> Any:
    """A part of the topology: l: listener, r: route, p: pool, b: backend."""
    return page.locator(f'[data-node="{name}"]')


def confirmed(page: Any, verb: str) -> None:
    """Presses the dialog's button, and waits until the dialog is gone."""
    dialogs = page.locator("dialog[open]")
    there = dialogs.count()
    dialogs.last.get_by_role("button", name=verb, exact=True).click()
    page.wait_for_function("(n) => document.querySelectorAll('dialog').length < n", arg=there)


def text_becomes(page: Any, selector: str, pattern: str) -> None:
    """Waits for words in an element."""
    page.wait_for_function(
        "([where, what]) => new RegExp(what).test(document.querySelector(where)?.textContent)",
        arg=[selector, pattern])


# ---- for everybody ------------------------------------------------------------------------------

# What a person can press must have a name; every name must be one that is read out.
NAMELESS = """() =>
  [...document.querySelectorAll('button, a[href], input, select, [role=img], dialog')]
  .filter((el) => el.checkVisibility())
  .filter((el) => !(el.ariaLabel || el.textContent.trim() || el.labels?.[0]?.textContent.trim()
    || document.getElementById(el.getAttribute('aria-labelledby'))?.textContent.trim()))
  .map((el) => el.outerHTML.slice(0, 120))"""

# Text whose contrast with what it stands on is below 4.5 (WCAG 2.2, 1.4.3), by painting both.
FAINT = """() => {
  const canvas = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
  const painted = (colours) => {
    canvas.clearRect(0, 0, 1, 1);
    for (const colour of colours) { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); }
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const luminance = (rgb) => rgb.map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const found = new Map();
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const el = walk.currentNode.parentElement;
    const words = walk.currentNode.textContent.trim();
    if (!words || !el.checkVisibility({ visibilityProperty: true })) continue;
    if (el.closest('.sr, .skip, script, style, symbol, noscript, :disabled')) continue;
    const style = getComputedStyle(el), grounds = [];
    for (let at = el; at; at = at.parentElement) {
      grounds.unshift(getComputedStyle(at).backgroundColor);
    }
    const ground = painted(['white', ...grounds]);
    const ink = painted(['white', ...grounds, el.closest('svg') ? style.fill : style.color]);
    const [dark, light] = [luminance(ink), luminance(ground)].sort((a, b) => a - b);
    const ratio = (light + 0.05) / (dark + 0.05);
    if (ratio < 4.5) found.set(el.className + ' ' + words.slice(0, 20), ratio.toFixed(2));
  }
  return Object.fromEntries(found);
}"""


# ---- how much work it is ------------------------------------------------------------------------

def scripting(trace: bytes) -> list[float]:
    """CPU milliseconds of script for each update of the page, from a trace of the browser.

    An update is what runs until the page has drawn, from the end of the drawing before: reading
    the stream, sorting what it says, and putting it on the page, which marks "draw" as it begins.
    """
    events = json.loads(trace)["traceEvents"]
    marks = sorted(e["ts"] for e in events if e.get("name") == "draw"
                   and "blink.user_timing" in e.get("cat", ""))
    kinds = ("FireAnimationFrame", "FunctionCall", "RunMicrotasks", "EvaluateScript")
    script = [e for e in events if e.get("ph") == "X" and e["name"] in kinds]
    thread = next((e["pid"], e["tid"]) for e in script if e["name"] == "FireAnimationFrame"
                  and any(e["ts"] <= mark <= e["ts"] + e["dur"] for mark in marks))
    found, covered = [0.0] * len(marks), 0.0
    for event in sorted(script, key=lambda e: (e["ts"], -e["dur"])):
        if (event["pid"], event["tid"]) != thread or event["ts"] < covered:
            continue                     # what runs within another is counted with that one
        covered = event["ts"] + event["dur"]
        update = bisect.bisect_left(marks, event["ts"])
        if update < len(marks):
            found[update] += event["tdur"] / 1000
    return found[1:]                     # of the first, the beginning is not in the trace
