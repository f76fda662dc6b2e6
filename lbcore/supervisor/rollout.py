"""Making a plan the one in force: in the scoreboard, on the sockets, in health and in workers.

Everything that can fail comes first and changes nothing: names, rows, sockets, image. What comes
after cannot fail as a whole; a worker that does not take the plan is replaced by one that does.
docs/internals/life-of-a-reload.md tells the story.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from lbcore._scoreboard import CAPACITY, Scoreboard
from lbcore.config import ConfigError
from lbcore.config.host import host_problems
from lbcore.config.load import Source
from lbcore.config.plan import Plan, PoolPlan
from lbcore.health import HealthMonitor, Orders, PoolRows
from lbcore.supervisor import image
from lbcore.supervisor.demo import DemoBackends
from lbcore.supervisor.fleet import Fleet
from lbcore.supervisor.groups import SocketTable
from lbcore.supervisor.log import Log
from lbcore.supervisor.rows import RowTable

# Beyond the time for which a connection of the old plan may still look for a backend. Also longer
# than the health monitor takes to mark rows of backends that are gone.
ROW_HOLD = 15.0
# Exchanges are counted when they end. One that takes longer after its route has left the plan (a
# tunnel, most likely) may be counted on the route that has the row then.
ROUTE_HOLD = 600.0
NOTHING_ASKED: image.Answers = {}
OrderBook = Mapping[tuple[str, str], Orders]
LEAK_SIGHTINGS = 10          # the same difference, seconds apart, is no connection in between


class Rollout:
    """The plan in force and everything that follows from it."""

    def __init__(
        self, board: Scoreboard, monitor: HealthMonitor, table: SocketTable, fleet: Fleet,
        demos: DemoBackends, log: Log,
    ) -> None:
        self.board = board
        self.monitor = monitor
        self.table = table
        self.fleet = fleet
        self.demos = demos
        self.log = log
        self.listeners = RowTable("listener", CAPACITY["listeners"])
        self.pools = RowTable("pool", CAPACITY["pools"])
        self.backends = RowTable("backend", CAPACITY["backends"])
        self.routes = RowTable("route", CAPACITY["routes"])
        self.orders: OrderBook = {}      # an operator's, by pool and backend
        self.version = 0                 # of what is in force: plan, orders and settings
        self.plan: Plan | None = None
        self.members: list[PoolRows] = []
        self.resolved: dict[str, str] = {}
        self.applied_at = datetime.now(UTC)
        self._leaks: Counter[tuple[str, int, int]] = Counter()

    def row_tables(self) -> tuple[RowTable, ...]:
        """All of them, for keeping over an upgrade."""
        return self.listeners, self.pools, self.backends, self.routes

    def rows_in_use(self) -> tuple[int, int, int, int]:
        """Rows of backends, pools, listeners and routes that were ever used."""
        return self.backends.high, self.pools.high, self.listeners.high, self.routes.high

    def look_at_host(self, plan: Plan, source: Source) -> None:
        """Raises ConfigError when this machine has something against a plan.

        Such as somebody else listening on an address that we do not hold yet.
        """
        unknown = self.table.unknown_in(plan)
        if unknown is None:
            return
        ours = self.fleet.pids()
        if problems := host_problems(unknown, source, ignore=ours):
            raise ConfigError(problems)

    async def apply(
        self, plan: Plan, slots: range, *, tell: bool = True, orders: OrderBook | None = None,
        answers: image.Answers = NOTHING_ASKED, in_force: Callable[[], None] | None = None,
    ) -> list[str]:
        """Puts a plan into force, for workers in these slots.

        Returns what went wrong in single workers. With ``tell`` false, workers keep the plan
        they have: the caller replaces them. ``orders`` are what an operator wants from now on,
        without any what was wanted before. ``answers`` are what the resolver has said of names,
        of new ones at least: nobody is asked here, where others wait. ``in_force`` is called at
        the moment the plan is, with its version: workers hear of it after that. Raises
        ResolveError, BindError, ValueError or OSError, and then nothing has changed.
        """
        orders = self.orders if orders is None else orders
        weights = {key: order.weight for key, order in orders.items() if order.weight is not None}
        names = image.choose(plan, self.resolved, answers)
        resolved = names.addresses
        tables = await image.tables(plan, weights)
        rows = image.Rows(
            self.listeners.assign(image.listener_keys(plan)),
            self.pools.assign(image.pool_keys(plan)),
            self.backends.assign(image.backend_keys(plan)),
            self.routes.assign(image.route_keys(plan)),
        )
        made = self.table.open_missing(plan, slots)
        try:
            members = image.members(plan, rows, resolved)
            fd = image.build(self.version + 1, plan, rows, members, tables)
            try:
                self.demos.apply(plan)
            except BaseException:
                os.close(fd)
                raise
        except BaseException:
            self.table.close(made)
            raise

        self.version += 1
        self._commit(rows)
        self.plan, self.members, self.resolved = plan, members, resolved
        self.applied_at = datetime.now(UTC)
        self.orders = orders
        if in_force is not None:
            in_force()
        self._tell_of(names)
        try:
            self.table.update_options(plan)
        except OSError as error:     # the kernel refuses an option: the sockets serve all the same
            self.log.warning("listener.option_refused", error=str(error))
        # Before the plan: a worker finds every row filled in.
        self.monitor.apply(members, orders)
        self.fleet.set_plan(self.version, fd, plan)
        return await self.tell_workers() if tell else []

    def _tell_of(self, names: image.Names) -> None:
        for host, why in names.kept.items():
            self.log.warning("resolve.failed", message="the address it had stays", host=host,
                             address=names.addresses[host], error=why)
        for host, found in names.several.items():
            self.log.warning("resolve.several", host=host, address=names.addresses[host],
                             message=f"one of its {len(found)} addresses is used; to use others, "
                                     f"name them as backends")

    async def tell_workers(self) -> list[str]:
        """Brings every worker to the plan in force and lets go of what no plan needs any more."""
        failures = await self.fleet.distribute()
        await self.let_go()
        return failures

    async def let_go(self, *, of_orphans_too: bool = False) -> None:
        """Closes sockets and ends demonstration backends that are not in the plan any more.

        Workers of an earlier supervisor may serve both until they are relieved.
        """
        if self.plan is not None and (of_orphans_too or not self.fleet.orphans):
            self.table.close(self.table.retired_by(self.plan))
            await self.demos.forget_others(self.plan)

    # -- an operator's wishes

    def find(self, pool: str, backend: str) -> tuple[PoolPlan, int]:
        """The pool's plan and the row of a backend. Raises LookupError naming what there is."""
        by_name = {rows.plan.name: rows for rows in self.members}
        if pool not in by_name:
            raise LookupError(f"there is no pool {pool!r}; there are: {', '.join(by_name)}")
        members = {m.plan.name: m.row for m in by_name[pool].members}
        if backend not in members:
            raise LookupError(
                f"pool {pool!r} has no backend {backend!r}; it has: {', '.join(members)}")
        return by_name[pool].plan, members[backend]

    def needs_workers(self, plan: Plan, orders: OrderBook) -> bool:
        """Whether workers need another image for a plan and orders, or the scoreboard is enough.

        Tables of consistent pools are built by weight, and are part of the image.
        """
        if self.plan is None or (plan.pools, plan.listeners, plan.max_pipes) != (
                self.plan.pools, self.plan.listeners, self.plan.max_pipes):
            return True
        tables = {pool.name for pool in plan.pools if pool.table is not None}
        weights, before = ({key: order.weight for key, order in book.items()
                            if key[0] in tables and order.weight is not None}
                           for book in (orders, self.orders))
        return weights != before

    def order(self, plan: Plan, orders: OrderBook) -> None:
        """Puts orders and settings into force that need nothing of the workers."""
        self.version += 1
        self.plan = plan
        self.orders = dict(orders)
        self.applied_at = datetime.now(UTC)
        self.monitor.obey(self.orders)

    # -- once a second

    def keep_house(self) -> None:
        """Frees rows that nobody uses any more and mends counts that a killed worker left."""
        now, board = time.monotonic(), self.board
        self.backends.release(now, lambda row: board.inflight(row) == 0, board.reset_backend)
        self.pools.release(now, self._pool_idle, board.reset_pool)
        self.listeners.release(now, self._listener_idle, board.reset_listener)
        self.routes.release(now, lambda row: True, board.reset_route)
        found = board.reconcile(*self.rows_in_use()[:3])
        self._leaks = Counter({leak: self._leaks[leak] + 1 for leak in found})
        for (kind, row, excess), sightings in list(self._leaks.items()):
            if sightings >= LEAK_SIGHTINGS:
                board.adjust(kind, row, excess)
                del self._leaks[kind, row, excess]
                self.log.debug("scoreboard.mended", kind=kind, row=row, excess=excess)

    def _pool_idle(self, row: int) -> bool:
        live = self.board.pool(row)
        return not live["inflight"] and not live["waiting"]

    def _listener_idle(self, row: int) -> bool:
        return not self.board.listener_totals(row)["connections"]

    def _commit(self, rows: image.Rows) -> None:
        now = time.monotonic()
        old = self.plan.pools if self.plan is not None else ()
        searching = max((p.queue_timeout_ms + p.connect_budget_ms for p in old), default=0)
        hold = searching / 1000 + ROW_HOLD
        self.listeners.commit(dict(rows.listeners), now, hold)
        self.pools.commit(dict(rows.pools), now, hold)
        self.backends.commit(dict(rows.backends), now, hold)
        self.routes.commit(dict(rows.routes), now, ROUTE_HOLD)

async def every(seconds: float, work: Callable[[], None]) -> None:
    """Does something again and again, at this pace, until cancelled."""
    loop = asyncio.get_running_loop()
    due = loop.time()
    while True:
        work()
        due = max(due + seconds, loop.time())
        await asyncio.sleep(due - loop.time())


