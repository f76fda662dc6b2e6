"""``lbcore top`` as a Textual application: keys, panes and what they change."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar

from rich.text import Text
from textual import work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.widgets import Footer, Input, Static, Tab, Tabs

from lbcore.admin import calls
from lbcore.admin.calls import AdminError, ClientError
from lbcore.cli.instance import APP_PATIENCE, refusal, reloaded
from lbcore.cli.tables import Said, counted, milliseconds, pieces, rate, visible
from lbcore.cli.top import panes
from lbcore.cli.top.dialogs import Ask, Choose, Enter, Page, weight_problem
from lbcore.cli.top.feed import KNOWN, Events, Feed, Lost, News, State
from lbcore.cli.top.grid import Grid
from lbcore.cli.top.look import ERRORS, LATENCY, OPEN, RATE, STYLE, THEME, TONES, Chart
from lbcore.cli.top.panes import PANES, Order, Picture

if TYPE_CHECKING:
    from lbcore.admin.client import AdminClient

Json = dict[str, Any]
SHOWN = 12                   # changes in a dialog
READING = 15.0               # seconds that a refusal is shown
HELP = """\
1 to 5, Tab   backends, pools, listeners and routes, workers, events
Up, Down      move the cursor; it stays with its row
s, S, o       sort by the next column, the one before; turn it round
/             filter: rows with all of these words; Esc takes it off
Enter         on a pool: its backends
d, u          drain the backend under the cursor; put it back
w             its weight
f             hold it up or down whatever its checks say
x, a          remove it; add another to its pool
c             what differs from the file; back to the file
r             reload the configuration
R, L          restart the pool's Python application; what is logged
+, -          a worker more; one less
Space         hold the picture still
?, q          this page; the end

RATE is requests a second, or connections where there are none.
A weight with * is not the configured one. Every change asks first."""


class Top(App[None]):
    """The instance live. ``client`` is asked from threads, so a slow answer stops nothing."""

    CSS = STYLE
    ENABLE_COMMAND_PALETTE = False
    TITLE = "lbcore top"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "Quit"), Binding("ctrl+c", "quit", show=False, priority=True),
        Binding("question_mark", "help", "Help", key_display="?"),
        Binding("slash", "filter", "Filter", key_display="/"),
        Binding("s", "sort(1)", "Sort"), Binding("S", "sort(-1)", show=False),
        Binding("o", "turn", show=False),
        Binding("d", "drain(True)", "Drain"), Binding("u", "drain(False)", "Undrain"),
        Binding("w", "weight", "Weight"), Binding("f", "force", "Force"),
        Binding("x", "remove", "Remove"), Binding("a", "add", "Add"),
        Binding("c", "changes", "Changes"), Binding("r", "reload", "Reload"),
        Binding("R", "restart", "Restart"), Binding("L", "log_level", show=False),
        Binding("plus", "workers(1)", show=False), Binding("minus", "workers(-1)", show=False),
        Binding("space", "hold", show=False), Binding("enter", "open", show=False),
        Binding("escape", "unfilter", show=False),
        *(Binding(str(number + 1), f"show('{pane.id}')", show=False)
          for number, pane in enumerate(PANES)),
    ]

    def __init__(self, client: AdminClient, interval: float = 1.0) -> None:
        super().__init__()
        self.theme = THEME
        self.picture: Picture | None = None
        self.lost = ""                   # why there is no news
        self.held = False
        self.pane = PANES[0]
        self.orders = {pane.id: Order() for pane in PANES}
        self._client = client
        self._events: deque[Json] = deque(maxlen=KNOWN)
        self._heard = monotonic()
        self._words: list[str] = []
        self._feed = Feed(client, interval, self._take_from_feed)
        self._head = Static(id="headline")
        self._charts = [Chart("requests/s", RATE), Chart("p99", LATENCY),
                        Chart("errors/s", ERRORS), Chart("connections", OPEN)]
        self._tabs = Tabs(*(Tab(f"{number + 1} {pane.title}", id=pane.id)
                            for number, pane in enumerate(PANES)))
        self._filter = Input(placeholder="words that a row has to have", id="filter")
        self.grid = Grid(self.pane)

    def compose(self) -> ComposeResult:
        """Headline, charts, panes, keys."""
        yield self._head
        with Horizontal(id="charts"):
            yield from self._charts
        yield self._tabs
        yield self._filter
        yield self.grid
        yield Footer()

    def on_mount(self) -> None:
        """Begins to listen."""
        self._tabs.can_focus = False
        self.grid.focus()
        self._draw_head()
        self.set_interval(1.0, self._draw_head)
        self._feed.start()

    def on_unmount(self) -> None:
        """Nobody looks any more."""
        self._feed.stop()

    # -- news

    def _take_from_feed(self, news: News) -> None:
        if self.is_running:
            self.call_from_thread(self.take, news)

    def take(self, news: News) -> None:
        """Shows what is new."""
        if isinstance(news, Lost):
            self.lost = news.why
            self.grid.add_class("old")
            self._draw_head()
            return
        self._heard = monotonic()
        if isinstance(news, Events):
            if news.anew:
                self._events.clear()
            self._events.extend(news.found)
            if self.picture and self.pane.newest_first:
                self._draw_grid()
            return
        self.lost = ""
        self.grid.remove_class("old")
        self._see(news)

    def _see(self, news: State) -> None:
        if self.held:
            return
        self.picture = Picture(news.status, news.live, self._events)
        total = self.picture.total
        http = total.get("requests_per_s") is not None
        per_second = total.get("requests_per_s" if http else "connections_per_s")
        shown = [
            ("requests/s" if http else "connections/s", per_second, rate(per_second)),
            ("p99", total.get("p99_ms"), milliseconds(total.get("p99_ms"))),
            ("errors/s", total.get("errors_per_s"), rate(total.get("errors_per_s"))),
            ("connections", total.get("connections"), str(total.get("connections", "-"))),
        ]
        for chart, values in zip(self._charts, shown, strict=True):
            chart.add(*values)
        self._draw_head()
        self._draw_grid()

    def _draw_head(self) -> None:
        line: list[str | Said]
        silent = round(monotonic() - self._heard)
        if self.lost:
            line = [Said(f"no answer for {silent} s, trying again: ", "bad"), self.lost]
        elif self.picture is None:
            line = [f"asking {self._client.address} ..."]
        else:
            line = panes.headline(self.picture)
            if self.held:
                line.append(Said("  held: space goes on", "doubtful"))
        text = Text.assemble(*[(said.text, TONES[said.tone]) for said in pieces(line)])
        text.no_wrap, text.overflow = True, "ellipsis"
        self._head.update(text)

    def _draw_grid(self) -> None:
        if self.picture is None:
            return
        rows = list(self.pane.rows(self.picture))
        kept = [row for row in rows if row.matches(self._words)] if self._words else rows
        order = self.orders[self.pane.id]
        self.grid.show(self.pane, order, order.of(kept))

    # -- looking

    def on_tabs_tab_activated(self, event: Tabs.TabActivated) -> None:
        """Another pane."""
        self.pane = next(pane for pane in PANES if pane.id == event.tab.id)
        self.refresh_bindings()
        self._draw_grid()
        self.grid.focus()

    def on_grid_heading_pressed(self, event: Grid.HeadingPressed) -> None:
        """Sorted by what was clicked on; again: the other way round."""
        order = self.orders[self.pane.id]
        if order.column == event.index:
            self.action_turn()
        else:
            right = self.pane.headings[event.index].right
            self._sort(Order(event.index, right))

    def on_input_changed(self, event: Input.Changed) -> None:
        """The filter works while it is typed."""
        if event.input.id == "filter":
            self._words = event.value.lower().split()
            self._draw_grid()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Back to the rows; the filter stays."""
        if event.input.id == "filter":
            event.input.set_class(bool(self._words), "wanted")
            self.grid.focus()

    def action_show(self, pane: str) -> None:
        """A pane by its number."""
        self._tabs.active = pane

    def action_pane(self, step: int) -> None:
        """The next pane."""
        self.action_show(PANES[(PANES.index(self.pane) + step) % len(PANES)].id)

    def action_sort(self, step: int) -> None:
        """By the next of the columns that are seen."""
        seen = {index for index, _ in self.grid.columns} | {-1}
        order = self.orders[self.pane.id].next(self.pane, step)
        while order.column not in seen:
            order = order.next(self.pane, step)
        self._sort(order)

    def action_turn(self) -> None:
        """The other way round."""
        order = self.orders[self.pane.id]
        self._sort(Order(order.column, not order.descending))

    def action_filter(self) -> None:
        """The line for the filter."""
        self._filter.add_class("wanted")
        self._filter.focus()

    def action_unfilter(self) -> None:
        """All rows again."""
        self._filter.value = ""
        self._filter.remove_class("wanted")
        self.grid.focus()

    def action_open(self) -> None:
        """From a pool to its backends."""
        if self.pane.id == "pools" and (chosen := self.grid.chosen):
            self._filter.value = f"{chosen}/"
            self._filter.add_class("wanted")
            self.action_show("backends")

    def action_hold(self) -> None:
        """Nothing moves, or everything again."""
        self.held = not self.held
        self._draw_head()

    def action_help(self) -> None:
        """The keys."""
        self.push_screen(Page("lbcore top", HELP))

    def _sort(self, order: Order) -> None:
        self.orders[self.pane.id] = order
        self._draw_grid()

    # -- changing

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Which keys make sense here."""
        if action in ("drain", "weight", "force", "remove"):
            return self.pane.id == "backends"
        if action in ("add", "restart"):
            return self.pane.id in ("backends", "pools")
        return True

    @work
    async def action_drain(self, on: bool) -> None:
        """Asks, and drains the backend under the cursor or puts it back."""
        found = self._backend()
        if found is None:
            return
        pool, one = found
        where = f"{pool}/{one['name']}"
        if on:
            question = Ask(f"Drain {where}?", f"It gets no new connections. {_in_flight(one)}",
                           "Drain it")
        else:
            question = Ask(f"Put {where} back?", "It gets traffic as its checks allow.",
                           "Put it back")
        if await self.push_screen_wait(question):
            call = self._client.drain if on else self._client.undrain
            said = await self._do(partial(call, pool, one["name"]))
            if said:
                self.notify(f"{where} is {said['state']}", markup=False)

    @work
    async def action_weight(self) -> None:
        """Asks for the weight of the backend under the cursor."""
        found = self._backend()
        if found is None:
            return
        pool, one = found
        where = f"{pool}/{one['name']}"
        value = await self.push_screen_wait(Enter(
            f"Weight of {where}",
            f'0 to 1000; 0 gets nothing new. "default" is the configured one, '
            f'{one["weight_configured"]}.', str(one["weight"]), weight_problem))
        if value:
            weight = None if value == "default" else int(value)
            said = await self._do(partial(self._client.weight, pool, one["name"], weight))
            if said:
                self.notify(f"{where} has weight {said['weight']}", markup=False)

    @work
    async def action_force(self) -> None:
        """Asks how the backend under the cursor is to be held."""
        found = self._backend()
        if found is None:
            return
        pool, one = found
        where = f"{pool}/{one['name']}"
        now = f"It is held {one['forced']}." if one["forced"] else "Its checks decide."
        choice = await self.push_screen_wait(Choose(
            f"Hold {where}?", f"{now} Held up it gets traffic although checks fail; held down "
            "it gets none although they pass.",
            [("u", "up", "Hold it up"), ("d", "down", "Hold it down"),
             ("o", "off", "Let its checks decide")]))
        if choice:
            state = None if choice == "off" else choice
            said = await self._do(partial(self._client.force, pool, one["name"], state))
            if said:
                self.notify(f"{where} is {said['state']}", markup=False)

    @work
    async def action_remove(self) -> None:
        """Asks, and removes the backend under the cursor."""
        found = self._backend()
        if found is None:
            return
        pool, one = found
        where = f"{pool}/{one['name']}"
        if await self.push_screen_wait(Ask(
                f"Remove {where}?", f"It leaves the pool until lbcore is stopped or the change is "
                f"undone (c). {_in_flight(one)}", "Remove it")
        ) and await self._do(partial(self._client.remove, pool, one["name"])):
            self.notify(f"{where} is removed", markup=False)

    @work
    async def action_add(self) -> None:
        """Asks for the address of a backend for the pool under the cursor."""
        chosen = self.grid.chosen
        pool = chosen.partition("/")[0]
        if not pool:
            return
        address = await self.push_screen_wait(Enter(
            f"Add a backend to {pool}", "Its address, such as 10.0.0.7:8000. It gets traffic at "
            "once; its first check decides whether it goes on.", "",
            lambda value: "" if value else "an address"))
        if address:
            said = await self._do(partial(self._client.add, pool, {"address": address}))
            if said:
                self.notify(f"{pool}/{said['name']} is added", markup=False)

    @work
    async def action_changes(self) -> None:
        """Shows what differs from the file, and asks whether to undo it."""
        said = await self._do(self._client.changes)
        if said is None:
            return
        if not said["changes"]:
            self.notify("what runs is what the file says")
            return
        lines = [" ".join(str(one[key]) for key in ("op", "pool", "backend") if one.get(key))
                 + (f": {one['running']}" if one.get("running") is not None else "")
                 for one in said["changes"]]
        number = len(lines)
        if number > SHOWN:
            lines[SHOWN:] = [f"and {number - SHOWN} more"]
        if await self.push_screen_wait(Ask(
                f"{counted(number, 'change')} from the file", "\n".join(lines),
                "Back to the file")
        ) and await self._do(partial(self._client.forget_changes, None, said["plan_version"])):
            self.notify("what runs is what the file says")

    @work
    async def action_reload(self) -> None:
        """Asks, and has the configuration read again."""
        config = self.picture.status["config"] if self.picture else "the configuration"
        if await self.push_screen_wait(Ask(
                "Reload?", f"{config} is read again and put into force. Established connections "
                "are not touched; a file with problems changes nothing.", "Reload")):
            said = await self._do(partial(self._client.do, calls.reload(), APP_PATIENCE))
            if said:
                self.notify(f"plan {said['plan_version']} is in force")
                if notes := reloaded(said):
                    self.notify("\n".join(notes), severity="warning", timeout=READING, markup=False)

    @work
    async def action_restart(self) -> None:
        """Asks, and has the application of the pool under the cursor replaced."""
        name = self.grid.chosen.partition("/")[0]
        pools = self.picture.status["pools"] if self.picture else []
        app = next((pool["app"] for pool in pools if pool["name"] == name), None)
        if app is None:
            self.notify(f"{name or 'nothing'} runs no Python application", severity="warning",
                        markup=False)
            return
        if await self.push_screen_wait(Ask(
                f"Restart the application of {name}?", f"{app['application']} is started anew "
                "beside the processes that serve now. They end after their last request; if the "
                "new ones do not come up, they stay.", "Restart it")):
            said = await self._do(partial(self._client.do, calls.restart(name), APP_PATIENCE))
            if said:
                self.notify(f"{name} serves with generation {said['generation']}", markup=False)

    @work
    async def action_log_level(self) -> None:
        """Asks what is logged from now on."""
        choice = await self.push_screen_wait(Choose(
            "What is logged?", "From this level up. The events here do not depend on it.",
            [("d", "debug", "debug"), ("i", "info", "info"), ("w", "warning", "warning"),
             ("e", "error", "error"), ("f", "file", "as in the file")]))
        if choice:
            level = None if choice == "file" else choice
            said = await self._do(partial(self._client.log_level, level))
            if said:
                self.notify(f"logged from level {said['level']} up")

    @work
    async def action_workers(self, by: int) -> None:
        """Asks, and starts or ends a worker."""
        if self.picture is None:
            return
        now = self.picture.status["workers_wanted"]
        if now + by < 1:
            self.notify("one worker has to stay", severity="warning")
            return
        what = "It shares the load from its first second." if by > 0 else \
            "Its connections finish first."
        if await self.push_screen_wait(Ask(f"{now + by} workers instead of {now}?", what,
                                           "Do it")):
            said = await self._do(partial(self._client.workers, now + by))
            if said:
                self.notify(counted(said["workers"], "worker"))

    async def _do(self, call: Callable[[], Json]) -> Json | None:
        """What the instance answers; a refusal is shown, and is None."""
        try:
            return await asyncio.to_thread(call)
        except AdminError as error:
            problems = [f"\n{visible(one.get('key', ''))} {visible(one.get('message', ''))}"
                        for one in error.problems]
            self._refused(refusal(error) + "".join(problems))
        except ClientError as error:
            self._refused(visible(str(error)))
        return None

    def _refused(self, why: str) -> None:
        self.notify(why, severity="error", timeout=READING, markup=False)

    def _backend(self) -> tuple[str, Json] | None:
        """Pool and backend under the cursor."""
        chosen = self.grid.chosen
        if self.picture is not None and self.pane.id == "backends":
            for pool in self.picture.status["pools"]:
                for one in pool["backends"]:
                    if f"{pool['name']}/{one['name']}" == chosen:
                        return pool["name"], one
        return None


def _in_flight(backend: Json) -> str:
    """What becomes of a backend's connections that are established."""
    there = backend["inflight"]
    return f"{counted(there, 'connection')} may finish." if there else "Nothing is in flight there."
