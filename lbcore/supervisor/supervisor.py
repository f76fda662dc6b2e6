"""The supervisor: one instance of lbcore from its start to its end.

It owns the parts and their order; what each does is in a file of its own. Changes that touch the
workers (reload, resize, upgrade) take turns: ``changing`` is held by the one that is under way.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Coroutine
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import lbcore
from lbcore._scoreboard import Scoreboard
from lbcore.admin import ControlError
from lbcore.admin.server import AdminServer
from lbcore.config.plan import Plan
from lbcore.health import HealthEvent, HealthMonitor
from lbcore.supervisor import image, resize, takeover
from lbcore.supervisor.apps_rollout import ENDING, LEAVING, STARTING, AppRollout
from lbcore.supervisor.control import SupervisorControl
from lbcore.supervisor.demo import DemoBackends
from lbcore.supervisor.discovery import Discovery, NoBackends
from lbcore.supervisor.events import Events
from lbcore.supervisor.figures import LiveFigures
from lbcore.supervisor.fleet import Fleet
from lbcore.supervisor.groups import SocketTable
from lbcore.supervisor.instance import Instance, InstanceError
from lbcore.supervisor.limits import connections_within, raise_descriptor_limit
from lbcore.supervisor.live import Sampler
from lbcore.supervisor.log import Log
from lbcore.supervisor.meter import Meter
from lbcore.supervisor.notify import Notifier
from lbcore.supervisor.rollout import Rollout, every
from lbcore.supervisor.running import CANNOT_APPLY, Running
from lbcore.supervisor.settings import Read, settings_of
from lbcore.supervisor.sockets import open_admin

Json = dict[str, Any]
TASK_PATIENCE = 3.0              # seconds for what is under way to be broken off


class StartError(Exception):
    """The instance cannot start; ``exit_code`` is 2 when the configuration is to blame."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Supervisor:
    """A running instance. Made by :meth:`create`, or by ``upgrade.restore`` after an exec."""

    def __init__(
        self, config: Path, instance: Instance, log: Log, board: Scoreboard, board_number: int,
        bell: int, table: SocketTable,
    ) -> None:
        self.config = config
        self.instance = instance
        self.log = log
        self.table = table
        self.board = board
        self.bell = bell
        self.monitor = HealthMonitor(board, self._health_changed)
        self.demos = DemoBackends(instance, log)
        self.fleet = Fleet(board, board_number, bell, table, instance, log, self._rows_in_use)
        self.rollout = Rollout(board, self.monitor, table, self.fleet, self.demos, log)
        self.meter = Meter()
        self.figures = LiveFigures(self)
        self.events = Events()
        log.taps.append(self.events.take)
        self.sampler = Sampler(self.rollout)
        self.running = Running(self)
        self.discovery = Discovery(self)
        self.control = SupervisorControl(self)
        self.admin = AdminServer(self.control)
        self.admin_socket: socket.socket | None = None
        self.generation = 1              # counts upgrades, from 1
        self.text = ""                   # of the configuration in force
        self.started = datetime.now(UTC)
        self.workers_wanted = 0
        self.upgraded: Json = {"state": "none"}
        self.changing = asyncio.Lock()
        self.reloading = asyncio.Lock()
        self.stopping = ""               # "", "draining" or "now"
        self.leaving = False             # the version of an upgrade is about to take over
        self.serving = False             # from the end of the start, or of an exec, on
        self.notifier = Notifier()
        self._over = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self.hurry = asyncio.Event()
        self.apps = AppRollout(self)

    @classmethod
    def create(cls, config: Path, plan: Plan, log: Log) -> Supervisor:
        """An instance that has claimed its admin address. Raises InstanceError or OSError."""
        instance = Instance.claim(plan.admin)
        bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        return cls(config, instance, log, Scoreboard.create(), 0, bell, SocketTable())

    @property
    def plan(self) -> Plan:
        """The plan in force."""
        if self.rollout.plan is None:
            raise RuntimeError("no plan is in force yet")
        return self.rollout.plan

    @property
    def closed(self) -> str:
        """Why nothing can be changed just now; "" if it can."""
        if self.stopping:
            return ENDING
        return LEAVING if self.leaving else "" if self.serving else STARTING

    def _rows_in_use(self) -> tuple[int, int, int, int]:
        return self.rollout.rows_in_use()

    # -- starting

    async def start(self, found: Read) -> None:
        """Brings everything up, taking over from an earlier supervisor.

        Raises StartError, or ConfigError when this machine has something against the file.
        """
        try:
            self.use_settings(found.plan)
            await self.discovery.begin(found)
        except NoBackends as error:
            raise StartError(str(error)) from error
        except CANNOT_APPLY as error:
            raise StartError(str(error), 2) from error
        plan = self.running.begin(found, None)
        descriptors = raise_descriptor_limit()
        listening = sum(len(listener.binds) for listener in plan.listeners)
        room = connections_within(descriptors, listening)
        self.log.info("limits", message=f"each worker can hold {room:,} connections",
                      descriptors=descriptors)
        self.workers_wanted = plan.workers
        try:
            self.fleet.access.open(plan.log)
        except OSError as error:
            raise StartError(
                f"cannot open the access log {plan.log.access}: {error.strerror}", 2) from error
        orphans = await takeover.find_orphans(self.instance, self.fleet, self.log)
        takeover.adopt_sockets(self.table, orphans)
        try:
            self.rollout.look_at_host(plan, found.source)
            self.use_settings(plan)
            await self.apps.apps.adopt(plan)
            change = await self.apps.apps.prepare(plan, starting=True)
            plan = change.plan
            answers = await image.ask(image.hosts(plan))
            await self.apps.put(change, range(plan.workers), tell=False, answers=answers)
            self.running.begun()
            self.admin_socket = open_admin(plan.admin)
            if plan.pid_file:
                self.instance.write_pid_file(plan.pid_file)
        except InstanceError as error:
            raise StartError(str(error)) from error
        except CANNOT_APPLY as error:
            raise StartError(str(error), 2) from error
        self.monitor.start()
        resize.hand_over(self.fleet, plan.workers)
        await self.fleet.start(plan.workers)
        if not any(slot.worker for slot in self.fleet.slots.values()):
            raise StartError(f"no worker starts: {self.fleet.slots[0].error}")
        self.begin()
        await self.admin.start(self.admin_socket)
        self.serving = True
        self._announce(plan)
        if orphans:
            self.spawn(self.relieve())

    def begin(self) -> None:
        """Starts what goes on for as long as the instance lives."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self.bell, self._bell_rang)
        self.spawn(every(1.0, self._tick))
        self.spawn(self.discovery.apply(self.running.found))

    def use_settings(self, plan: Plan) -> None:
        """Takes over what concerns processes. Raises LookupError for an unknown user."""
        self.fleet.settings = settings_of(plan)
        self.demos.identity = self.fleet.settings.identity
        self.admin.configure(plan.api)

    def _announce(self, plan: Plan) -> None:
        binds = [str(bind) for listener in plan.listeners for bind in listener.binds]
        self.log.info("started", message=f"lbcore {lbcore.__version__}", pid=os.getpid(),
                      workers=plan.workers, listen=",".join(binds), admin=plan.admin)
        with suppress(OSError):      # nobody reads our standard output
            for line in invitation(plan):
                print(line, flush=True)

    async def relieve(self) -> None:
        """Lets the workers of an earlier supervisor go once every slot has one of ours."""
        await self.fleet.when_complete()
        async with self.changing:
            # Their copies are the last of sockets that no listener of ours wants.
            retired = self.table.retired_by(self.plan)
            orphans = list(self.fleet.orphans)
            await self.rollout.let_go(of_orphans_too=True)
            for worker in orphans:
                self.fleet.dismiss(worker, sweep=bool(retired))
            await resize.close_surplus(self.fleet, len(self.fleet.slots))
            self.table.steer()

    # -- life

    async def run(self) -> None:
        """Lives until somebody ends it, then leaves nothing behind."""
        await self._over.wait()

    def handle_signals(self) -> dict[signal.Signals, Callable[[], None]]:
        """What every signal does."""
        return {
            signal.SIGHUP: partial(self._do, self.control.reload, ""),      # the log knows
            signal.SIGUSR1: self._reopen_logs,
            signal.SIGUSR2: partial(self._do, self.control.upgrade, "upgrade.failed"),
            signal.SIGTERM: partial(self.end, "draining"),
            signal.SIGQUIT: partial(self.end, "draining"),
            signal.SIGINT: partial(self.end, "now"),
            signal.SIGTTIN: partial(self._step, 1),
            signal.SIGTTOU: partial(self._step, -1),
        }

    def _do(self, work: Callable[[], Coroutine[Any, Any, object]], event: str) -> None:
        self.spawn(self._logged(work(), event))

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs a task that ends with the instance."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.log.error("internal", message="please report this", error=repr(error))

    async def _logged(self, work: Coroutine[Any, Any, object], event: str) -> None:
        try:
            await work
        except ControlError as error:
            if event:
                self.log.error(event, message=error.message)

    def _reopen_logs(self) -> None:
        self.log.reopen()
        self.fleet.access.reopen(self.fleet.workers())

    def _step(self, by: int) -> None:
        # Counted from what is wanted when its turn comes: signals may come faster than workers.
        self.spawn(self._logged(
            self.running.set_workers(lambda: self.workers_wanted + by, None), "resize.failed"))

    def _tick(self) -> None:
        for work in (self.fleet.check, self.rollout.keep_house, self._measure, self._look_at_log):
            try:
                work()
            except Exception as error:      # noqa: BLE001  (hung workers must be found all the same)
                self.log.error("internal", message="please report this", error=repr(error))

    def _measure(self) -> None:
        ours = [w for w in self.fleet.workers() if w.place.board == self.fleet.board_number]
        self.meter.look((w, self.board.seat(w.place.seat)["accepted"]) for w in ours)

    def _look_at_log(self) -> None:
        self.fleet.access.look(self.fleet.seats(), asyncio.get_running_loop().time())

    def _bell_rang(self) -> None:
        try:
            os.eventfd_read(self.bell)
        except BlockingIOError:
            return
        self.monitor.ring()

    def _health_changed(self, event: HealthEvent) -> None:
        bad = event.new in ("down", "ejected", "panic", "backup panic", "none")
        name = "backend.state" if event.backend else "pool.state"
        fields = {"backend": event.backend} if event.backend else {}
        self.log.event("warning" if bad else "info", name, "",
                       {"pool": event.pool, **fields, "old": event.old, "new": event.new,
                        "reason": event.reason})
        self.control.changed()

    # -- the end

    def end(self, how: str) -> None:
        """Begins to end: "draining" lets connections finish, "now" does not, nor a second call."""
        if self.stopping:
            self.stopping = "now"
            self.hurry.set()
            return
        self.stopping = how
        if how == "now":
            self.hurry.set()
        self.log.info("stopping", how=how)
        self.notifier.stopping()
        self.apps.apps.interrupt(ENDING)
        self.discovery.interrupt(ENDING)
        self.running.interrupt()
        self.spawn(self._end())

    async def _end(self) -> None:
        self.fleet.stand_down()
        if not self.hurry.is_set():
            await resize.give_back(self.fleet, self.hurry)
            # Our copies first: a worker's own is then the last, and what it sweeps up is all.
            self.table.close_all()
            self.fleet.dismiss_all(sweep=True)
            hurry = asyncio.ensure_future(self.hurry.wait())
            drained = asyncio.ensure_future(self.fleet.wait_for(self.fleet.workers()))
            await asyncio.wait({hurry, drained}, return_when=asyncio.FIRST_COMPLETED)
            hurry.cancel()
            drained.cancel()
        await self.fleet.stop_all()
        self._over.set()

    async def close(self) -> None:
        """Ends what is left and removes every file; safe after a failed start."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=TASK_PATIENCE)
        self.events.close()
        self.sampler.stop()
        await self.discovery.stop()
        await self.admin.stop()
        # After a failed start they go on as if we had never been.
        left_alone = 0 if self.stopping else self.fleet.leave_orphans()
        await self.fleet.stop_all()
        await self.monitor.stop()
        await self.demos.stop()
        await self.apps.stop(spare_adopted=bool(left_alone))
        self.fleet.access.close()
        self.table.close(list(self.table), unlink=not left_alone)
        if self.admin_socket is not None:
            name = self.admin_socket.getsockname()
            self.admin_socket.close()
            if isinstance(name, str) and name and not name.startswith("\0"):
                with suppress(FileNotFoundError):
                    os.unlink(name)     # noqa: PTH108  (one system call at the very end)
        if not left_alone:
            self.running.let_go(started=bool(self.stopping))
        self.instance.leave()


def invitation(plan: Plan) -> list[str]:
    """What somebody may look at who starts an example: lines for a terminal.

    Who stands in front of servers of their own knows their addresses: there is none then.
    """
    lines = [f"try:  {_curl(bind.host, bind.port, bind.path)}"
             for listener in plan.listeners
             if any(pool.demo or pool.app for pool in plan.pools_of(listener))
             for bind in listener.binds if not bind.name]
    if lines and not plan.admin.path:
        lines.append(f"see:  {_url(plan.admin.host, plan.admin.port)}")
    return lines


def _curl(host: str, port: int, path: str) -> str:
    if path:
        return f"curl --unix-socket {path} http://localhost/"
    return f"curl {_url(host, port)}"


def _url(host: str, port: int) -> str:
    reachable = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host)
    return f"http://{reachable or (f'[{host}]' if ':' in host else host)}:{port}/"
