"""``lbcore top``: what it shows of a picture, and what keys do, with an instance made up here.

``tests/integration/test_top.py`` has a real one.
"""

from __future__ import annotations

import queue
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from lbcore.admin import calls
from lbcore.admin.calls import AdminError, NotRunning
from lbcore.cli.instance import APP_PATIENCE
from lbcore.cli.tables import plain, words
from lbcore.cli.top.app import Top
from lbcore.cli.top.dialogs import weight_problem
from lbcore.cli.top.grid import Grid
from lbcore.cli.top.look import bars
from lbcore.cli.top.once import report
from lbcore.cli.top.panes import GAP, PANES, Order, Picture, headline, shown

Json = dict[str, Any]
THEN = "2026-01-01T00:00:00.000Z"
BACKENDS, POOLS, LISTENERS, WORKERS, EVENTS = PANES


def backend(name: str, state: str = "up", **more: Any) -> Json:
    return {
        "name": name, "address": "10.0.0.1:80", "state": state, "since": THEN, "reason": "",
        "weight": 1, "weight_configured": 1, "backup": False, "draining": False, "forced": None,
        "runtime": False, "inflight": 0, "last_check": None, **more,
    }


def figures(per_second: float, errors: float = 0.0) -> Json:
    return {"requests_per_s": per_second, "connections_per_s": 1.0, "errors_per_s": errors,
            "p50_ms": 1.5, "p90_ms": 2.0, "p99_ms": 20.0, "bytes_up_per_s": 10.0,
            "bytes_down_per_s": 2048.0, "retries_per_s": 0.0, "connections": 3}


def state(rates: dict[str, float], **more: Any) -> tuple[str, Json]:
    """What a stream says of one pool ``web`` with these backends and requests a second."""
    known = {name: backend(name) for name in rates} | more.pop("backends", {})
    status = {
        "version": "9.9", "pid": 1, "state": "running", "started": THEN, "time": THEN,
        "uptime_s": 300, "plan": {"version": 4}, "plan_version": 4, "changes": 0, "generation": 1,
        "upgrade": {"state": "none"}, "workers_wanted": 1, "admin": "", "config": "/etc/lb.toml",
        "workers": [{"slot": 0, "pid": 77, "state": "serving", "cpu_percent": 12.5,
                     "connections": 3, "accepts_per_s": 4.0, "rss_bytes": 9 << 20,
                     "requests": 12}],
        "listeners": [{"name": "in", "protocol": "http", "bind": ["0.0.0.0:80"], "pool": "web",
                       "connections": 3, "routes": [
                           {"name": "old", "action": "redirect", "pool": None, "match": "/old"}]}],
        "pools": [{"name": "web", "balance": "least_conn", "state": "normal", "inflight": 1,
                   "waiting": 0, "app": None, "source": "file",
                   "backends": list(known.values())}],
        **more,
    }
    live = {
        "window_s": 10, "time": THEN, "total": figures(sum(rates.values())),
        "listeners": {"in": figures(5)}, "routes": {"in": {"old": figures(1)}},
        "pools": {"web": figures(5)},
        "backends": {"web": {name: figures(rate) for name, rate in rates.items()}},
    }
    return "state", {"status": status, "live": live}


def picture(*args: Any, **more: Any) -> Picture:
    said = state(*args, **more)[1]
    return Picture(said["status"], said["live"])


def event(seq: int, name: str = "reloaded", level: str = "info") -> Json:
    return {"seq": seq, "time": THEN, "level": level, "event": name, "message": "hello",
            "fields": {"pool": "web"}}


class Instance:
    """A client of an instance that says what a test wants, and remembers what it was asked."""

    def __init__(self) -> None:
        self.address = "unix:/nowhere"
        self.asked: list[tuple[Any, ...]] = []
        self.refuses: Exception | None = None
        self.past: list[Json] = [event(1)]
        self._news: queue.Queue[tuple[str, Json] | Exception] = queue.Queue()

    def says(self, *news: tuple[str, Json] | Exception) -> None:
        """The next messages of the stream; an exception ends it."""
        for one in news:
            self._news.put(one)

    def events(self, limit: int) -> Json:
        """The past."""
        return {"events": self.past[-limit:], "last": self.past[-1]["seq"]}

    def follow(self, interval: float, live: bool, after: int) -> Iterator[tuple[str, Json]]:
        """The stream."""
        while True:
            said = self._news.get()
            if isinstance(said, Exception):
                raise said
            yield said

    def __getattr__(self, name: str) -> Any:
        def asked(*args: Any) -> Json:
            if self.refuses:
                raise self.refuses
            self.asked.append((name, *args))
            return {"state": "drain", "weight": 5, "plan_version": 5, "workers": 2,
                    "name": "new", "forgotten": 1, "level": "debug", "generation": 3,
                    "needs_restart": ["pid_file"], "workers_failed": [], "dropped": [],
                    "changes": [
                        {"op": "drain", "pool": "web", "backend": "a", "running": True}]}

        return asked


class Screen:
    """The application on a screen that is not there."""

    def __init__(self, app: Top, pilot: Pilot[None], instance: Instance) -> None:
        self.app, self.pilot, self.instance = app, pilot, instance

    async def until(self, what: Any) -> None:
        """Waits until that is so."""
        for _ in range(1000):
            await self.pilot.pause(0.01)
            if what():
                return
        raise AssertionError(f"it did not come about; on the screen:\n{self.text()}")

    async def sees(self, rates: dict[str, float], **more: Any) -> None:
        """The instance says so, and the application has drawn it."""
        before = self.app.picture
        self.instance.says(state(rates, **more))
        await self.until(lambda: self.app.picture is not before)

    async def press(self, *keys: str) -> None:
        """Keys, and what they bring about."""
        await self.pilot.press(*keys)
        await self.pilot.pause()

    async def asks(self, key: str) -> None:
        """A key that opens a dialog, and the dialog."""
        await self.until(lambda: not isinstance(self.app.screen, ModalScreen))
        await self.pilot.press(key)
        await self.until(lambda: isinstance(self.app.screen, ModalScreen))
        await self.pilot.pause()

    @property
    def names(self) -> list[str]:
        """The rows' keys as they are shown."""
        return [row.key for row in self.app.grid.rows]

    @property
    def chosen(self) -> str:
        """What the cursor is on."""
        return self.app.grid.chosen

    def text(self) -> str:
        """All that stands on the screen."""
        lines = self.app.screen._compositor.render_strips()
        return "\n".join("".join(part.text for part in line) for line in lines)


@asynccontextmanager
async def top(size: tuple[int, int] = (80, 24)) -> AsyncIterator[Screen]:
    instance = Instance()
    app = Top(instance, 1.0)  # type: ignore[arg-type]
    async with app.run_test(size=size, notifications=True) as pilot:
        yield Screen(app, pilot, instance)


# -- what is shown of a picture


@pytest.mark.parametrize("pane", PANES, ids=lambda pane: pane.id)
def test_every_row_has_a_cell_for_every_heading(pane: Any) -> None:
    seen = Picture(*picture({"a": 1.0}).__dict__.values())
    seen.events = [event(1), event(2)]
    rows = list(pane.rows(seen))
    assert rows
    assert {len(row.cells) for row in rows} == {len(pane.headings)}
    assert len({row.key for row in rows}) == len(rows)


@pytest.mark.parametrize("pane", PANES, ids=lambda pane: pane.id)
@pytest.mark.parametrize("width", [20, 79, 80, 120, 250])
def test_columns_fit_and_the_first_is_always_among_them(pane: Any, width: int) -> None:
    columns = shown(pane, width)
    assert columns[0][0] == 0
    if width >= 79:
        assert sum(room + GAP for _, room in columns) <= width
    if width == 250:
        assert [index for index, _ in columns] == list(range(len(pane.headings)))


def test_80_columns_have_state_rate_errors_latency_connections_and_weight() -> None:
    names = [BACKENDS.headings[index].name for index, _ in shown(BACKENDS, 79)]
    assert names == ["BACKEND", "STATE", "RATE", "ERR/S", "P99", "CONNS", "WEIGHT"]


def test_what_was_not_counted_comes_last_either_way() -> None:
    rows = list(BACKENDS.rows(picture({"a": 1.0, "c": 3.0}, backends={"b": backend("b")})))
    assert [row.key for row in rows] == ["web/a", "web/c", "web/b"]
    rate = [heading.name for heading in BACKENDS.headings].index("RATE")
    for descending, order in ((True, "cab"), (False, "acb")):
        sorted_ = Order(rate, descending).of(rows)
        assert "".join(row.key[-1] for row in sorted_) == order


def test_orders_go_round_through_every_column_and_the_configured_order() -> None:
    order, seen = Order(), []
    for _ in range(len(POOLS.headings) + 1):
        seen.append(order.column)
        order = order.next(POOLS)
    assert seen == [-1, *range(len(POOLS.headings))]
    assert order == Order()
    assert order.next(POOLS, -1).column == len(POOLS.headings) - 1


def test_the_headline_says_what_is_wrong() -> None:
    good = words(headline(picture({"a": 1.0})))
    assert good == "lbcore 9.9  running 5m  plan 4  1/1 workers"
    bad = words(headline(picture({"a": 1.0}, changes=2, workers_wanted=2,
                                 backends={"a": backend("a", "down")})))
    assert "2 changes from the file" in bad
    assert "1/2 workers  1 backend down" in bad


def test_a_picture_can_be_printed_with_every_pane() -> None:
    lines = list(plain(report(picture({"a": 12.0}))))
    assert lines[1].startswith("requests/s 12.0  connections/s 1.0  errors/s 0  p50 1.5ms")
    heads = [line.split()[0] for line in lines if line.split()[:1] and line.isupper()]
    assert {"BACKEND", "POOL", "WORKER"} <= set(heads)


def test_bars_are_as_high_as_their_share_and_never_hide_what_is_not_zero() -> None:
    upper, lower = bars([None, 0.0, 0.001, 50.0, 100.0], 6)
    assert lower == "   ▁██"
    assert upper == "     █"
    assert bars([], 3) == ("   ", "   ")


@pytest.mark.parametrize(("value", "good"), [
    ("0", True), ("1000", True), ("default", True), ("1001", False), ("-1", False), ("x", False),
    ("", False), ("²", False)])
def test_weights_are_looked_at_before_they_are_sent(value: str, good: bool) -> None:
    assert (weight_problem(value) == "") is good


# -- keys


async def test_the_cursor_stays_with_its_backend_when_the_order_changes() -> None:
    async with top() as screen:
        await screen.sees({"a": 1.0, "b": 2.0, "c": 3.0})
        await screen.press("s", "s", "s", "down")
        assert screen.names == ["web/c", "web/b", "web/a"]
        assert screen.chosen == "web/b"
        await screen.sees({"a": 9.0, "b": 1.0, "c": 3.0})
        assert screen.names == ["web/a", "web/c", "web/b"]
        assert screen.chosen == "web/b"


async def test_a_cursor_at_the_top_of_an_order_stays_at_the_top() -> None:
    async with top() as screen:
        await screen.sees({"a": 1.0, "b": 2.0})
        await screen.press("s", "s", "s")
        assert screen.chosen == "web/b"
        await screen.sees({"a": 3.0, "b": 2.0})
        assert screen.chosen == "web/a"


async def test_another_order_begins_at_the_top() -> None:
    async with top() as screen:
        await screen.sees({"a": 1.0, "b": 2.0, "c": 3.0})
        await screen.press("down", "s", "s", "s")
        assert screen.chosen == "web/c"
        await screen.press("o")
        assert screen.names == ["web/a", "web/b", "web/c"]
        assert screen.chosen == "web/a"


async def test_a_click_on_a_heading_sorts_and_another_turns_it_round() -> None:
    async with top() as screen:
        await screen.sees({"a": 1.0, "b": 2.0, "c": 3.0})
        column = screen.text().split("\n")[grid_line(screen)].index("RATE")
        await screen.pilot.click(Grid, offset=(column, 0))
        await screen.until(lambda: screen.names == ["web/c", "web/b", "web/a"])
        await screen.pilot.click(Grid, offset=(column, 0))
        await screen.until(lambda: screen.names == ["web/a", "web/b", "web/c"])
        await screen.pilot.click(Grid, offset=(3, 3))
        await screen.until(lambda: screen.chosen == "web/c")


def grid_line(screen: Screen) -> int:
    return screen.app.grid.region.y


async def test_the_filter_keeps_rows_with_all_words_until_escape() -> None:
    async with top() as screen:
        await screen.sees({"a1": 1.0, "a2": 2.0, "b1": 3.0},
                          backends={"a2": backend("a2", "down")})
        await screen.press("slash", *"a", "space", *"down", "enter")
        assert screen.names == ["web/a2"]
        await screen.sees({"a1": 1.0, "a2": 2.0}, backends={"a1": backend("a1", "down")})
        assert screen.names == ["web/a1"]
        await screen.press("escape")
        assert screen.names == ["web/a1", "web/a2"]


async def test_letters_typed_into_the_filter_are_no_commands() -> None:
    async with top() as screen:
        await screen.sees({"a": 1.0})
        await screen.press("slash", *"dqwr1")
        assert screen.app.query_one("#filter", Input).value == "dqwr1"
        assert screen.app.is_running
        assert screen.instance.asked == []


async def test_numbers_and_tab_change_the_pane() -> None:
    async with top() as screen:
        await screen.sees({"a": 1.0})
        for key, names in (("2", ["web"]), ("3", ["in", "in old"]), ("4", ["0 77"]), ("5", ["1"]),
                           ("tab", ["web/a"]), ("shift+tab", ["1"]), ("1", ["web/a"])):
            await screen.press(key)
            await screen.until(lambda names=names: screen.names == names)


async def test_enter_on_a_pool_shows_its_backends() -> None:
    async with top() as screen:
        await screen.sees({"a": 1.0})
        await screen.press("2", "enter")
        await screen.until(lambda: screen.names == ["web/a"])
        assert screen.app.query_one("#filter", Input).value == "web/"


async def test_nothing_is_drained_without_a_yes() -> None:
    async with top() as screen:
        await screen.sees({"a": 1.0, "b": 2.0})
        await screen.press("down")
        await screen.asks("d")
        assert "Drain web/b?" in screen.text()
        await screen.press("n")
        assert screen.instance.asked == []
        await screen.asks("d")
        await screen.press("y")
        await screen.until(lambda: screen.instance.asked == [("drain", "web", "b")])
        await screen.until(lambda: "web/b is drain" in screen.text())


async def test_the_question_is_about_the_backend_that_it_named() -> None:
    async with top() as screen:
        await screen.sees({"a": 1.0, "b": 2.0})
        await screen.press("s", "s", "s")
        await screen.asks("d")
        assert "Drain web/b?" in screen.text()
        await screen.sees({"a": 5.0, "b": 2.0})
        await screen.press("enter")
        await screen.until(lambda: screen.instance.asked == [("drain", "web", "b")])


KEYS: list[tuple[list[str], tuple[Any, ...]]] = [
    (["u", "y"], ("undrain", "web", "a")),
    (["w", "backspace", "5", "enter"], ("weight", "web", "a", 5)),
    (["w", "backspace", *"default", "enter"], ("weight", "web", "a", None)),
    (["f", "u"], ("force", "web", "a", "up")),
    (["f", "d"], ("force", "web", "a", "down")),
    (["f", "o"], ("force", "web", "a", None)),
    (["x", "y"], ("remove", "web", "a")),
    (["a", *"10.9", "enter"], ("add", "web", {"address": "10.9"})),
    (["r", "y"], ("do", calls.reload(), APP_PATIENCE)),
    (["L", "d"], ("log_level", "debug")),
    (["L", "f"], ("log_level", None)),
    (["plus", "y"], ("workers", 2)),
]


async def test_keys_change_the_instance() -> None:
    async with top() as screen:
        await screen.sees({"a": 1.0})
        for (first, *others), asked in KEYS:
            screen.instance.asked.clear()
            await screen.asks(first)
            await screen.press(*others)
            await screen.until(lambda asked=asked: screen.instance.asked == [asked])


async def test_changes_are_listed_and_undone_at_the_version_that_was_seen() -> None:
    async with top() as screen:
        await screen.sees({"a": 1.0})
        await screen.asks("c")
        assert "drain web a: True" in screen.text()
        await screen.press("y")
        await screen.until(lambda: ("forget_changes", None, 5) in screen.instance.asked)


async def test_a_weight_that_makes_no_sense_is_not_sent() -> None:
    async with top() as screen:
        await screen.sees({"a": 1.0})
        await screen.asks("w")
        await screen.press(*"99999", "enter")
        assert "a number from 0 to 1000" in screen.text()
        await screen.press("escape")
        assert screen.instance.asked == []


async def test_a_refusal_is_shown_with_its_hint() -> None:
    async with top() as screen:
        await screen.sees({"a": 1.0})
        screen.instance.refuses = AdminError("a pool needs one", "add another")
        await screen.asks("x")
        await screen.press("y")
        await screen.until(lambda: "a pool needs one. Hint: add" in screen.text())


async def test_what_a_reload_could_not_change_is_said() -> None:
    async with top() as screen:
        await screen.sees({"a": 1.0})
        await screen.asks("r")
        await screen.press("y")
        await screen.until(lambda: "needs a restart to change: pid_file" in screen.text())


async def test_an_application_is_restarted_and_shows_that_it_failed() -> None:
    server = {"backend": "app", "pid": 7, "state": "ready", "restarts": 0, "error": ""}
    app = {"application": "site:app", "server": "gunicorn", "generation": 2, "retiring": 0,
           "failed": {"error": "no such module"}, "servers": [server]}
    pool = state({"a": 1.0})[1]["status"]["pools"][0]
    async with top((160, 24)) as screen:
        await screen.sees({"a": 1.0}, pools=[pool | {"app": app}])
        await screen.press("2")
        assert "failed: site:app" in screen.text()
        await screen.asks("R")
        await screen.press("y")
        await screen.until(lambda: screen.instance.asked)
        assert screen.instance.asked == [("do", calls.restart("web"), APP_PATIENCE)]
        await screen.until(lambda: "generation 3" in screen.text())
        await screen.sees({"a": 1.0})
        await screen.press("R")
        await screen.until(lambda: "web runs no Python application" in screen.text())


async def test_what_a_backend_says_cannot_command_the_terminal() -> None:
    async with top((200, 24)) as screen:
        await screen.sees({"a": 1.0}, backends={"a": backend("a", reason="\x1b[2Jnot [red]me")})
        assert "\\x1b[2Jnot [red]me" in screen.text()


async def test_the_last_worker_stays() -> None:
    async with top() as screen:
        await screen.sees({"a": 1.0})
        await screen.press("minus")
        await screen.until(lambda: "one worker has to stay" in screen.text())
        assert screen.instance.asked == []


async def test_a_held_picture_does_not_move() -> None:
    async with top() as screen:
        await screen.sees({"a": 1.0})
        await screen.press("space")
        screen.instance.says(state({"b": 1.0}), ("event", event(2)))
        await screen.until(lambda: len(screen.app._events) == 2)
        assert screen.names == ["web/a"]
        await screen.press("space")
        await screen.sees({"b": 1.0})
        assert screen.names == ["web/b"]


async def test_events_come_newest_first_and_the_cursor_at_the_top_stays_there() -> None:
    async with top() as screen:
        await screen.sees({"a": 1.0})
        await screen.press("5")
        screen.instance.says(("event", event(2, "backend.state", "warning")))
        await screen.until(lambda: screen.names == ["2", "1"])
        assert screen.chosen == "2"
        assert "backend.state" in screen.text()


async def test_an_instance_that_is_gone_is_told_and_found_again() -> None:
    async with top() as screen:
        await screen.sees({"a": 1.0})
        screen.instance.past = [event(1), event(2)]
        screen.instance.says(NotRunning("no lbcore answers at unix:/nowhere"))
        await screen.until(lambda: "no answer for" in screen.text())
        assert "no lbcore answers" in screen.text()
        assert screen.names == ["web/a"]
        await screen.sees({"b": 1.0})
        assert "no answer" not in screen.text()
        await screen.press("5")
        assert screen.names == ["2", "1"]


async def test_an_instance_that_began_anew_has_events_of_its_own() -> None:
    async with top() as screen:
        screen.instance.past = [event(number) for number in range(1, 50)]
        await screen.sees({"a": 1.0})
        screen.instance.past = [event(1, "started")]
        screen.instance.says(NotRunning("gone"))
        await screen.sees({"a": 1.0})
        await screen.press("5")
        assert screen.names == ["1"]


async def test_help_names_the_keys_and_q_only_closes_it() -> None:
    async with top() as screen:
        await screen.sees({"a": 1.0})
        await screen.asks("question_mark")
        assert "drain the backend under the cursor" in screen.text()
        await screen.press("q")
        assert screen.app.is_running
        await screen.press("q")
        assert not screen.app.is_running


@pytest.mark.parametrize("size", [(80, 24), (40, 12), (200, 60)])
async def test_it_fits_terminals_of_any_size(size: tuple[int, int]) -> None:
    async with top(size) as screen:
        await screen.sees({f"b{number}": 1.0 for number in range(500)})
        lines = screen.text().split("\n")
        assert len(lines) == size[1]
        assert {len(line) for line in lines} == {size[0]}
        await screen.press("end")
        assert screen.chosen == "web/b499"
        assert "web/b499" in screen.text()
        await screen.press("home")
        assert "web/b0" in screen.text()
        assert screen.app.query_one("#headline", Static).region.height == 1
