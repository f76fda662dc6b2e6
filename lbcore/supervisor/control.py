"""What can be asked of a running instance (lbcore.admin.Control), answered by its parts."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import lbcore
from lbcore import _learn, _rate
from lbcore.admin import ControlError
from lbcore.admin.figures import FigureSource
from lbcore.config.show import effective, to_toml
from lbcore.supervisor import status, upgrade
from lbcore.supervisor.changes import ORDERING, Overlay, name_of
from lbcore.supervisor.edits import Edit
from lbcore.supervisor.events import Subscription
from lbcore.supervisor.log import LEVELS

if TYPE_CHECKING:
    from lbcore.supervisor.supervisor import Supervisor

Json = dict[str, Any]


class SupervisorControl:
    """One instance as its admin address sees it: see ``lbcore.admin.contract.Control``."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._watchers: set[asyncio.Event] = set()
        self._trying = False             # the installed version, before an upgrade

    # -- telling

    @property
    def figures(self) -> FigureSource:
        """What metrics are made of."""
        return self._supervisor.figures

    @property
    def plan_version(self) -> int:
        """Of what is in force now."""
        return self._supervisor.rollout.version

    async def status(self) -> Json:
        """Workers, listeners, pools and backends."""
        here = self._supervisor
        rollout = here.rollout
        return self._head() | {
            "events": here.events.last,
            "log_lines_dropped": here.log.dropped,
            "access_log": here.fleet.access.status(here.fleet.seats()),
            "rates_forgotten": _rate.forgotten(here.board),
            "learnt_forgotten": _learn.forgotten(here.board),
            "workers": await status.workers(here.fleet, here.meter, rollout.version),
            "listeners": status.listeners(here.plan, rollout),
            "pools": self._with_apps(await status.pools(rollout, here.running.overlay)),
        }

    async def state(self) -> Json:
        """The picture in short."""
        here = self._supervisor
        return self._head() | {
            "workers": status.slim_workers(here.fleet, here.meter),
            "listeners": status.slim_listeners(here.plan, here.rollout),
            "pools": self._with_apps(await status.slim_pools(here.rollout, here.running.overlay)),
        }

    def _head(self) -> Json:
        here = self._supervisor
        now = datetime.now(UTC)
        return {
            "version": lbcore.__version__, "pid": os.getpid(), "generation": here.generation,
            "state": here.stopping or "running", "started": status.iso(here.started),
            "time": status.iso(now), "uptime_s": round((now - here.started).total_seconds(), 1),
            "config": str(here.config), "admin": str(here.instance.admin),
            "plan_version": here.rollout.version,
            "plan": {"version": here.rollout.version,
                     "applied_at": status.iso(here.rollout.applied_at),
                     "file_version": here.running.file_version},
            "changes": len(here.running.overlay.changes),
            "upgrade": here.upgraded, "workers_wanted": here.workers_wanted,
        }

    def _with_apps(self, pools: list[Json]) -> list[Json]:
        apps = self._supervisor.apps.apps
        return [pool | {"app": apps.describe(pool["name"])} for pool in pools]

    def backend(self, pool: str, name: str) -> Json:
        """One backend."""
        here = self._supervisor
        for rows in here.rollout.members:
            if rows.plan.name != pool:
                continue
            for member in rows.members:
                if member.plan.name == name and (shown := status.backend(
                        here.rollout, rows, member, here.running.overlay)):
                    return {"plan_version": self.plan_version, "pool": pool, **shown}
            raise ControlError(404, f"pool {pool!r} has no backend {name!r}",
                               "GET /v1/pools/{pool} lists them")
        raise ControlError(404, f"there is no pool {pool!r}", "GET /v1/pools lists them")

    async def live(self, window: int) -> Json:
        """Rates and latencies of the last seconds."""
        return await self._supervisor.sampler.live(window)

    def events(self, after: int, limit: int, level: str) -> Json:
        """What the log said lately."""
        return self._supervisor.events.some(after, limit, level)

    def subscribe(self, after: int | None = None) -> Subscription:
        """Events as they happen."""
        return self._supervisor.events.subscribe(after)

    @contextmanager
    def watch(self) -> Iterator[asyncio.Event]:
        """An event that is set when a backend, a pool or the plan changes."""
        changed = asyncio.Event()
        self._watchers.add(changed)
        try:
            with self._supervisor.sampler.watching():
                yield changed
        finally:
            self._watchers.discard(changed)

    def changed(self) -> None:
        """Tells those who watch; called by whoever has changed something."""
        for watcher in self._watchers:
            watcher.set()

    def changes(self) -> Json:
        """Where what runs differs from the file."""
        here = self._supervisor
        return {"plan_version": here.rollout.version,
                "changes": [one.as_json() for one in here.running.overlay.changes.values()]}

    def config(self) -> Json:
        """What runs as the tables of a file."""
        here = self._supervisor
        return {"plan_version": here.rollout.version, "config": effective(here.running.config)}

    def config_toml(self) -> str:
        """What runs as the text of a file; what a file cannot say stands in comments on top."""
        here = self._supervisor
        running = here.running
        listed = {(pool, name_of(table)) for pool in running.found.tables.get("pool", {})
                  for table in running.overlay.backends(running.found.tables, pool)}
        return _comments(running.overlay, listed) + to_toml(running.config)

    # -- changing

    async def add_backend(self, pool: str, table: Mapping[str, Any] | str,
                          expect: int | None) -> Json:
        """One backend more."""
        name = await self._change(lambda edit: edit.add(pool, table), expect)
        return self.backend(pool, name)

    async def remove_backend(self, pool: str, name: str, expect: int | None) -> Json:
        """One less."""
        inflight = 0

        def edit(work: Edit) -> None:
            nonlocal inflight
            work.remove(pool, name)
            rollout = self._supervisor.rollout
            inflight = rollout.board.inflight(rollout.find(pool, name)[1])

        await self._change(edit, expect)
        return {"plan_version": self.plan_version, "pool": pool, "backend": name,
                "inflight": inflight}

    async def replace_backends(
        self, pool: str, tables: Sequence[Mapping[str, Any] | str], expect: int | None
    ) -> Json:
        """All backends of a pool."""
        running = self._supervisor.running

        def listed() -> dict[str, Mapping[str, Any]]:
            return {name_of(one): one
                    for one in running.overlay.backends(running.found.tables, pool)}

        before: dict[str, Mapping[str, Any]] = {}

        def edit(work: Edit) -> None:
            work.replace(pool, tables)
            before.clear()           # an edit is made once more after names were looked up
            before.update(listed())

        await self._change(edit, expect)
        after = listed()
        return {
            "plan_version": self.plan_version, "pool": pool,
            "added": [name for name in after if name not in before],
            "removed": [name for name in before if name not in after],
            "changed": [name for name, one in after.items()
                        if name in before and before[name] != one],
            "backends": [one for found in await status.pools(
                self._supervisor.rollout, running.overlay, only=pool) for one in found["backends"]],
        }

    async def patch_backend(
        self, pool: str, name: str, patch: Mapping[str, Any], expect: int | None
    ) -> Json:
        """Any of weight, drain, force and max_connections at once."""
        await self._change(lambda edit: edit.patch(pool, name, patch), expect)
        return self.backend(pool, name)

    async def change(self, changes: Sequence[Mapping[str, Any]], expect: int | None) -> Json:
        """All of these, or none."""

        def edit(work: Edit) -> None:
            for number, one in enumerate(changes):
                try:
                    work.one(one)
                except ControlError as error:
                    raise ControlError(
                        error.status, f"change {number}: {error.message}",
                        error.hint or "none of them was made", error.problems) from error

        await self._change(edit, expect)
        return self.changes()

    async def forget_changes(self, pool: str | None, expect: int | None) -> Json:
        """Back to the file."""
        ended = await self._supervisor.running.forget(pool, expect)
        return {"plan_version": self.plan_version, "forgotten": ended}

    async def set_log_level(self, level: str | None, expect: int | None = None) -> Json:
        """What is logged; None is what the file says."""
        if level is not None and level not in LEVELS:
            raise ControlError(400, f"{level!r} is no level", f"one of {', '.join(LEVELS)}")
        await self._change(lambda edit: edit.setting("log_level", level), expect)
        here = self._supervisor
        return {"plan_version": self.plan_version, "level": here.plan.log.level,
                "configured": here.running.found.plan.log.level}

    async def set_workers(self, count: int | None, expect: int | None = None) -> Json:
        """How many workers; None is what the file says."""
        workers = await self._supervisor.running.set_workers(lambda: count, expect)
        return {"plan_version": self.plan_version, "workers": workers}

    async def reload(self, expect: int | None = None) -> Json:
        """Reads the configuration again and puts it into force."""
        return await self._supervisor.running.reload(expect)

    async def restart(self, pool: str) -> Json:
        """Replaces the servers of an application by new ones, without a failed request."""
        self._refuse_when_stopping()
        return await self._supervisor.apps.restart(pool)

    async def upgrade(self) -> Json:
        """Replaces supervisor and workers by what is installed now; the configuration stays."""
        here = self._supervisor
        self._refuse_upgrade()
        self._trying = True
        try:
            await self._try_installed()
        finally:
            self._trying = False
        here.spawn(upgrade.exec_new_version(here))
        return {"plan_version": self.plan_version, "generation": here.generation,
                "next_generation": here.generation + 1}

    async def stop(self, now: bool) -> Json:
        """Ends the instance: after its connections, or at once."""
        here = self._supervisor
        here.end("now" if now else "draining")
        return {"plan_version": self.plan_version, "state": here.stopping,
                "drain_timeout_ms": here.plan.drain_timeout_ms, "pid": os.getpid()}

    # -- inside

    async def _change(self, edit: Callable[[Edit], Any], expect: int | None) -> Any:
        return await self._supervisor.running.change(edit, expect)

    async def _try_installed(self) -> None:
        """Ends with an upgrade under way. Raises ControlError.

        Others may change something meanwhile: a version that hangs takes a minute to be found out.
        """
        here = self._supervisor
        while here.upgraded["state"] != "running":
            text = here.text
            here.log.info("upgrade.checking", message="trying the installed version")
            problem = await upgrade.preflight(here.config, text)
            if problem:
                raise ControlError(409, f"the installed version does not start: {problem}",
                                   "nothing has changed; the running version goes on")
            async with here.changing:
                self._refuse_when_stopping()
                if here.text == text:        # nobody has reloaded another file, nor can from now on
                    here.upgraded, here.leaving = {"state": "running"}, True

    def _refuse_upgrade(self) -> None:
        self._refuse_when_stopping()
        if self._trying or self._supervisor.upgraded["state"] == "running":
            raise ControlError(409, "an upgrade is under way already", "`lbcore status` shows it")

    def _refuse_when_stopping(self) -> None:
        if self._supervisor.closed:
            raise ControlError(409, self._supervisor.closed)


def _comments(overlay: Overlay, listed: Collection[tuple[str, str]]) -> str:
    """What runs and cannot be written as a configuration. ``listed``: backends of the file."""
    said = []
    for one in overlay.changes.values():
        if one.op == "weight" and (one.pool, one.backend) in listed:
            continue
        if one.op in ORDERING:
            words = {"drain": "is drained", "force": f"is forced {one.running}",
                     "weight": f"has weight {one.running}"}
            said.append(f"# {one.pool}/{one.backend} {words[one.op]}, since {one.since}\n")
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    head = f"# The running configuration of lbcore, {now}.\n"
    if said:
        head += "# No file can say that\n" + "".join(said)
    return head + "\n"
