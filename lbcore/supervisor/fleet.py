"""The workers: one in every slot, started, watched, replaced and drained.

Every slot has a task of its own that keeps a worker in it. A worker that leaves its slot on
purpose (upgrade, fewer workers, shutdown) goes on in ``leaving`` until its process has ended.

While a slot stays without a worker, a neighbour takes what comes to its sockets.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from lbcore._scoreboard import Scoreboard
from lbcore.config.plan import Plan
from lbcore.supervisor.access_log import AccessLog
from lbcore.supervisor.backoff import Backoff
from lbcore.supervisor.channel import ChannelClosed, Message, WorkerRefused
from lbcore.supervisor.groups import ListenSocket, SocketTable
from lbcore.supervisor.instance import Instance
from lbcore.supervisor.log import Log
from lbcore.supervisor.slot_counts import SlotCounts
from lbcore.supervisor.sockets import listens
from lbcore.supervisor.worker import Identity, Phase, Place, Worker, spawn

START_TIMEOUT = 20.0         # seconds from exec to ready: an interpreter on a busy machine
DRAIN_MARGIN = 5.0           # seconds beyond its drain timeout before a worker is killed
LEND_AFTER = 0.5             # seconds without a worker until a neighbour serves a slot's sockets
WORKER_FAILURES = (ChannelClosed, WorkerRefused, TimeoutError)


class LaunchError(Exception):
    """A worker could not be started; the text says why."""


@dataclass(frozen=True)
class Current:
    """What every worker is to run now."""

    version: int
    image: int                           # descriptor of the plan image
    listener_of: dict[str, int]          # bind address -> index into Plan.listeners
    backlogs: dict[str, int]             # bind address -> backlog of its sockets


@dataclass
class Slot:
    """A listening position and the worker in it."""

    index: int
    worker: Worker | None = None
    task: asyncio.Task[None] | None = None
    backoff: Backoff = field(default_factory=Backoff)
    error: str = ""                      # why the last start failed
    deaths: int = 0
    patience: asyncio.TimerHandle | None = None      # runs while there is no worker
    lent: bool = False                   # a neighbour may serve its sockets
    taking: bool = False                 # a new worker is about to get them


@dataclass
class Settings:
    """What of a plan concerns worker processes."""

    identity: Identity = field(default_factory=Identity)
    cpus: Sequence[int] = ()             # empty: no pinning
    drain_timeout_ms: int = 30_000
    hang_timeout_ms: int = 10_000

    def cpu_of(self, slot: int) -> int | None:
        """The CPU that the worker of a slot is pinned to."""
        return self.cpus[slot % len(self.cpus)] if self.cpus else None


class Fleet:
    """All worker processes of this instance."""

    def __init__(
        self, board: Scoreboard, board_number: int, bell: int, table: SocketTable,
        instance: Instance, log: Log, rows_in_use: Callable[[], tuple[int, int, int, int]],
    ) -> None:
        self.board = board
        self.board_number = board_number
        self.bell = bell
        self.table = table
        self.instance = instance
        self.log = log
        self.settings = Settings()
        self.access = AccessLog(log)
        self.counts = SlotCounts()
        self.slots: dict[int, Slot] = {}
        self.starting: set[Worker] = set()
        self.orphans: set[Worker] = set()            # of an earlier supervisor, serving still
        self.leaving: dict[Worker, float] = {}       # worker -> when it is killed (monotonic)
        self.current: Current | None = None
        self.drained_in_time = True
        self._rows_in_use = rows_in_use
        self._epoch = 0                  # counts plans and changes of who serves which socket
        self._epochs: dict[Worker, int] = {}
        self._stale: dict[Worker, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._filled = asyncio.Event()
        self._standing_down = False

    # -- looking

    def workers(self) -> list[Worker]:
        """Every worker process that lives, leaving ones included, once each."""
        seated = [slot.worker for slot in self.slots.values() if slot.worker is not None]
        # At the end of the instance those that leave still have their slots.
        return list(dict.fromkeys([*seated, *self.starting, *self.orphans, *self.leaving]))

    def pids(self) -> set[int]:
        """The processes that may hold our sockets."""
        return {os.getpid(), *(worker.pid for worker in self.workers())}

    def seats(self) -> list[dict[str, int]]:
        """What living workers say of themselves on the scoreboard in use."""
        return [self.board.seat(worker.place.seat) for worker in self.workers()
                if worker.place.board == self.board_number and not worker.ended.is_set()]

    @property
    def complete(self) -> bool:
        """Whether every slot has a serving worker."""
        return all(slot.worker is not None for slot in self.slots.values())

    # -- the plan

    def set_plan(self, version: int, image: int, plan: Plan) -> None:
        """What workers run from now on; the fleet owns ``image``. See :meth:`distribute`."""
        listener_of = {str(bind): index for index, listener in enumerate(plan.listeners)
                       for bind in listener.binds}
        backlogs = {bind: plan.listeners[index].backlog for bind, index in listener_of.items()}
        if self.current is not None:
            os.close(self.current.image)
        self.current = Current(version, image, listener_of, backlogs)

    async def distribute(self) -> list[str]:
        """Brings plan and sockets of all workers in slots up to date.

        Returns what went wrong, one text per worker; such a worker goes on as it was and is
        replaced by a new one.
        """
        if self._standing_down:          # they drain, and take nothing any more
            return []
        self._epoch += 1
        return await self._bring_up([s for s in self.slots.values() if s.worker is not None])

    async def _bring_up(self, slots: Sequence[Slot]) -> list[str]:
        results = await asyncio.gather(*(self._brought_up(slot.worker) for slot in slots),
                                       return_exceptions=True)
        failures = []
        for slot, result in zip(slots, results, strict=True):
            if isinstance(result, WORKER_FAILURES):
                if self._standing_down:
                    continue
                worker = slot.worker
                failures.append(f"worker of slot {slot.index}: {result or type(result).__name__}")
                self.log.error("worker.plan_failed", slot=slot.index, error=str(result),
                               pid=worker.pid if worker else 0)
                if worker is not None and worker.phase is Phase.SERVING:
                    self._background(self._replace_quietly(slot))
            elif isinstance(result, BaseException):
                raise result
        return failures

    async def _brought_up(self, worker: Worker | None) -> None:
        """Sends the worker whatever it lacks until it is as the fleet should be."""
        if worker is None:
            return
        if worker.place.board != self.board_number:
            raise WorkerRefused("it is of an earlier version that reads another scoreboard")
        async with worker.changing:
            while self._epochs.get(worker) != self._epoch:
                current, epoch = self.current, self._epoch
                if current is None:
                    raise RuntimeError("there is no plan yet")
                sockets = [s for s in self.table.served_by(worker.slot)
                           if s.bind in current.listener_of]
                self.access.give(worker)
                worker.give(sockets, self.table.label)
                await worker.apply(
                    current.version, current.image,
                    [(s.id, current.listener_of[s.bind]) for s in sockets],
                    [(s.id, current.backlogs[s.bind]) for s in sockets if not listens(s.sock)],
                    self.settings.hang_timeout_ms / 1000,
                    partial(self._begin, sockets, current.backlogs),
                )
                self._epochs[worker] = epoch

    def _begin(self, sockets: Sequence[ListenSocket], backlogs: dict[str, int]) -> None:
        with suppress(OSError):      # the worker meets it too, and says so
            self.table.begin(sockets, backlogs)

    # -- slots

    async def start(self, count: int) -> None:
        """Puts workers into slots 0..count-1 and returns when all have started or failed once."""
        for index in range(count):
            self.slots[index] = Slot(index)
        await asyncio.gather(*(self._fill(slot) for slot in self.slots.values()))
        for slot in self.slots.values():
            self.keep(slot)

    def keep(self, slot: Slot) -> None:
        """From now on a worker that ends in this slot is replaced."""
        if self._standing_down:
            return
        if slot.task is not None:
            slot.task.cancel()
        slot.task = asyncio.create_task(self._keep(slot), name=f"slot-{slot.index}")
        if slot.worker is None:
            self._miss(slot)

    async def _keep(self, slot: Slot) -> None:
        while True:
            worker = slot.worker
            if worker is None:
                await self._fill(slot)
                continue
            await worker.ended.wait()
            slot.worker = None
            slot.deaths += 1
            self._miss(slot)
            delay = slot.backoff.died(time.monotonic() - worker.started)
            await self._pause(slot, delay)

    async def _fill(self, slot: Slot) -> None:
        """One attempt to start a worker in an empty slot."""
        began = time.monotonic()
        try:
            worker = await self.prepare(slot.index)
            slot.taking = True
            slot.worker = await self.enlist(worker)
        except LaunchError as error:
            slot.error = str(error)
            if self._standing_down:      # that is why
                return
            self.log.error("worker.start_failed", slot=slot.index, error=str(error))
            slot.deaths += 1
            slot.taking = False
            self._miss(slot)
            await self._pause(slot, slot.backoff.died(time.monotonic() - began))
        else:
            slot.error = ""
            self._found(slot)
            self._filled.set()
        finally:
            slot.taking = False

    async def when_complete(self) -> None:
        """Waits until every slot has a serving worker."""
        while not self.complete:
            self._filled.clear()
            await self._filled.wait()

    async def _pause(self, slot: Slot, delay: float) -> None:
        if delay:
            self.log.warning("worker.backoff", message="workers of this slot keep ending",
                             slot=slot.index, delay=f"{delay:g}s")
            if delay >= LEND_AFTER:
                self._lend(slot)
            await asyncio.sleep(delay)

    async def launch(self, index: int) -> Worker:
        """Starts a worker for a slot and gives it plan and sockets. Raises LaunchError."""
        return await self.enlist(await self.prepare(index))

    async def prepare(self, index: int) -> Worker:
        """Starts a worker process and waits until it is ready for a plan. Raises LaunchError."""
        try:
            seat = self.board.take_seat(index)
        except LookupError as error:
            raise LaunchError(str(error)) from error
        number = f"{self.board_number}." if self.board_number else ""
        name = f"worker-{os.getpid()}-{number}{seat}.sock"
        place = Place(index, seat, self.board_number, self.instance.runtime_dir / name)
        try:
            worker = spawn(
                place, self.instance.path_of(name), self.board.fd, self.bell,
                self.settings.cpu_of(index), self.settings.identity, self.heard, self.ended,
            )
        except OSError as error:
            self.board.leave_seat(seat, 0, 0, 0)
            raise LaunchError(f"cannot start a worker process: {error.strerror}") from error
        self.starting.add(worker)
        try:
            await worker.started_up(START_TIMEOUT)
        except WORKER_FAILURES as error:
            await self._give_up(worker, str(error))
        except BaseException:
            worker.kill("no longer wanted")
            raise
        return worker

    async def enlist(self, worker: Worker) -> Worker:
        """Gives a ready worker its plan and sockets. Raises LaunchError."""
        for member in self.table.of_slots([worker.slot]):
            member.server = worker.slot      # whoever served it meanwhile is told when this works
        try:
            await self._brought_up(worker)
        except WORKER_FAILURES as error:
            await self._give_up(worker, f"it did not take the plan: {error or 'no answer'}")
        except BaseException:
            worker.kill("no longer wanted")
            raise
        if self._standing_down:
            await self._give_up(worker, "lbcore is ending")
        self.starting.discard(worker)
        worker.phase = Phase.SERVING
        self.log.info("worker.started", slot=worker.slot, pid=worker.pid, seat=worker.place.seat)
        return worker

    async def _give_up(self, worker: Worker, why: str) -> None:
        worker.kill("did not start")
        await worker.ended.wait()
        raise LaunchError(why)

    async def replace(self, slot: Slot) -> None:
        """A new worker takes over a slot, the old one drains.

        Raises LaunchError, in which case the old one goes on.
        """
        if slot.worker is None:      # its keeper is starting a new one anyway
            return
        new = await self.launch(slot.index)
        if self.slots.get(slot.index) is not slot:
            # Given up meanwhile: who replaces a worker that failed does not wait for a resize.
            self.dismiss(new)
            return
        old, slot.worker = slot.worker, new
        self.keep(slot)
        self._found(slot)
        if old is not None:
            self.dismiss(old)

    async def _replace_quietly(self, slot: Slot) -> None:
        try:
            await self.replace(slot)
        except LaunchError as error:
            self.log.error("worker.start_failed", message="the old worker goes on", slot=slot.index,
                           error=str(error))

    def vacate(self, index: int) -> Worker | None:
        """Gives a slot up; its worker, if any, is the caller's to dismiss."""
        slot = self.slots.pop(index)
        if slot.task is not None:
            slot.task.cancel()
        if slot.patience is not None:
            slot.patience.cancel()
        self._filled.set()               # it may have been the one that others waited for
        return slot.worker

    def occupy(self, index: int, worker: Worker | None) -> None:
        """Makes a slot with a worker that runs already, or one that has yet to be started."""
        slot = self.slots[index] = Slot(index, worker)
        self.keep(slot)

    # -- slots without a worker

    def neighbour(self, index: int, count: int) -> int:
        """The slot below ``count`` that serves what ``index`` does not: ``index`` where nobody can.
        """
        for step in range(count):
            slot = self.slots.get((index - step) % count)
            if (slot is not None and slot.worker is not None
                    and slot.worker.place.board == self.board_number):
                return slot.index
        return index % count

    def _miss(self, slot: Slot) -> None:
        """From now on a slot is without a worker."""
        if slot.lent:
            self._lend(slot)             # its sockets were meant for the worker that did not start
        elif slot.patience is None:
            slot.patience = asyncio.get_running_loop().call_later(LEND_AFTER, self._lend, slot)

    def _lend(self, slot: Slot) -> None:
        """Lets a neighbour take what is queued, and no more come, until the slot has a worker."""
        if slot.patience is not None:
            slot.patience.cancel()
            slot.patience = None
        if self._standing_down or slot.worker is not None or slot.taking:
            return
        slot.lent = True
        waiting = [m for m in self.table if m.server == slot.index and listens(m.sock)]
        other = self.slots.get(self.neighbour(slot.index, len(self.slots)))
        if other is None or other.worker is None or not waiting:
            return
        for member in waiting:
            member.server = other.index
        with suppress(OSError):          # a kernel without filters: the neighbour serves more
            self.table.avoid([slot.index])
        self.log.warning("worker.slot_lent", message="another worker serves its connections",
                         slot=slot.index, to=other.index)
        self._background(self._update([other]))

    def _found(self, slot: Slot) -> None:
        """A slot has a worker again, which serves all that is the slot's."""
        if slot.patience is not None:
            slot.patience.cancel()
            slot.patience = None
        if slot.lent:
            slot.lent = False
            ours = self.table.of_slots([slot.index])
            for member in ours:
                member.server = slot.index
            with suppress(OSError):
                self.table.welcome([slot.index])
            numbers = {member.id for member in ours}
            self._background(self._update(
                [s for s in self.slots.values()
                 if s.worker is not None and (s is slot or s.worker.given & numbers)]))
        for other in self.slots.values():
            if other.lent:               # there was nobody to lend to, perhaps
                self._lend(other)

    async def _update(self, slots: Sequence[Slot]) -> None:
        """Tells the workers of these slots who serves which socket now."""
        self._epoch += 1
        await self._bring_up(slots)

    # -- leaving

    def dismiss(self, worker: Worker, sweep: bool = False) -> None:
        """Lets a worker finish its connections and end."""
        if worker.phase is Phase.ENDED or worker in self.leaving:
            return
        timeout = self.settings.drain_timeout_ms
        self.orphans.discard(worker)
        self.leaving[worker] = time.monotonic() + timeout / 1000 + DRAIN_MARGIN
        worker.drain(timeout, sweep)
        self.log.info("worker.draining", slot=worker.slot, pid=worker.pid)

    def dismiss_all(self, sweep: bool) -> None:
        """Lets every worker finish; nobody is replaced any more."""
        self.stand_down()
        for worker in self.workers():
            self.dismiss(worker, sweep)

    def stand_down(self) -> None:
        """Stops starting workers, for good."""
        self._standing_down = True
        for slot in self.slots.values():
            if slot.task is not None:
                slot.task.cancel()
                slot.task = None
            if slot.patience is not None:
                slot.patience.cancel()
        for task in self._tasks:
            task.cancel()

    def leave_orphans(self) -> int:
        """Lets workers of an earlier supervisor wait for another one; returns how many."""
        for worker in self.orphans:
            if worker.channel is not None:
                worker.channel.close()
        count = len(self.orphans)
        self.orphans.clear()
        return count

    async def stop_all(self, patience: float = 2.0) -> None:
        """Ends every worker now; one that has not obeyed after so many seconds is killed."""
        self.stand_down()
        workers = self.workers()
        for worker in workers:
            self.orphans.discard(worker)
            self.leaving.setdefault(worker, time.monotonic() + patience + DRAIN_MARGIN)
            worker.stop()
        await self.wait_for(workers, patience)
        for worker in workers:
            if not worker.ended.is_set():
                worker.kill("did not stop")
        await self.wait_for(workers, patience)

    async def wait_for(self, workers: Iterable[Worker], timeout: float | None = None) -> bool:  # noqa: ASYNC109
        """Waits for processes to end; False when some have not after ``timeout`` seconds."""
        waits = [asyncio.ensure_future(worker.ended.wait()) for worker in workers]
        if not waits:
            return True
        _, pending = await asyncio.wait(waits, timeout=timeout)
        for wait in pending:
            wait.cancel()
        return not pending

    # -- watching

    def longest_silence(self) -> float:
        """Seconds since the worker in a slot that has been silent for longest showed itself."""
        now, silence = time.monotonic(), 0.0
        for slot in self.slots.values():
            worker = slot.worker
            if worker is None or worker.place.board != self.board_number or worker.ended.is_set():
                continue
            beat = self.board.heartbeat_ms(worker.place.seat) / 1000
            silence = max(silence, now - (beat or worker.started))
        return silence

    def check(self) -> None:
        """Once a second: kills workers that hang, and leaving ones whose time is up."""
        now = time.monotonic()
        for worker, deadline in self.leaving.items():
            if now > deadline:
                worker.kill("drain timeout")
        for worker in self.workers():
            if worker.place.board != self.board_number or worker.ended.is_set():
                continue
            if worker.channel is not None and worker.channel.closed:
                self._hung(worker, "lost its control channel")
            beat = self.board.heartbeat_ms(worker.place.seat)
            age = now * 1000 - (beat or worker.started * 1000)
            # Seen twice with the same heartbeat: when this process was the one that stood
            # still, the workers have had a second to show that they live.
            if age > self.settings.hang_timeout_ms and self._stale.get(worker) == beat:
                self._hung(worker, f"no heartbeat for {age / 1000:.1f} s")
            elif age > self.settings.hang_timeout_ms:
                self._stale[worker] = beat
            else:
                self._stale.pop(worker, None)

    def _hung(self, worker: Worker, why: str) -> None:
        if worker.phase is not Phase.STARTING and not worker.killed:
            self.log.error("worker.hung", message="killed and replaced", slot=worker.slot,
                           pid=worker.pid, reason=why)
            worker.kill(why)

    def heard(self, worker: Worker, message: Message) -> None:
        """What a worker says without being asked."""
        if message.get("op") == "log":
            fields = {k: v for k, v in message.items()
                      if k not in ("op", "level", "event", "message")}
            self.log.event(str(message.get("level", "info")), str(message.get("event", "worker")),
                           str(message.get("message", "")), {"pid": worker.pid, **fields})

    def ended(self, worker: Worker) -> None:
        """A worker's process is gone: what it counted is kept, its seat is free."""
        expected = worker in self.leaving or worker in self.starting
        self.leaving.pop(worker, None)
        self.starting.discard(worker)
        self.orphans.discard(worker)
        self._stale.pop(worker, None)
        self._epochs.pop(worker, None)
        connections = 0
        seat = None
        if worker.place.board == self.board_number:
            seat = self.board.seat(worker.place.seat)
            connections = seat["connections"]
            self.access.worker_ended(seat)
            self.board.leave_seat(worker.place.seat, *self._rows_in_use())
        self.counts.worker_ended(worker.slot, seat, worker.cpu_s)
        if expected and not worker.killed:
            self.log.info("worker.ended", slot=worker.slot, pid=worker.pid,
                          how=worker.how_it_ended())
        else:
            self.log.warning("worker.died", slot=worker.slot, pid=worker.pid,
                             how=worker.killed or worker.how_it_ended(), connections=connections)

    def _background(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
