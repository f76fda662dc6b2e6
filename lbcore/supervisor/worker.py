"""One worker process as the supervisor sees it: starting it and talking to it."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from lbcore.supervisor.channel import Channel, ChannelClosed, Message
from lbcore.supervisor.groups import SHARED, ListenSocket
from lbcore.supervisor.process import Process, start

SOCKETS_A_MESSAGE = 100          # a packet holds 64 KiB and 250 descriptors; labels are long


class Phase(StrEnum):
    """Where a worker stands in its life."""

    STARTING = "starting"        # exec'ed, has no plan yet
    SERVING = "serving"
    DRAINING = "draining"        # accepts nothing new
    ENDED = "ended"


@dataclass(frozen=True)
class Identity:
    """Which user workers run as; None: the supervisor's own."""

    uid: int | None = None
    gid: int | None = None


@dataclass(frozen=True)
class Place:
    """Where a worker sits: the slot it serves, its row in a scoreboard, and its door.

    ``board`` counts scoreboards: the seat of a worker whose version had another layout is in a
    board that this supervisor cannot read.
    """

    slot: int
    seat: int
    board: int
    door: Path


class Worker(Process):
    """A worker process."""

    def __init__(
        self, pid: int, place: Place, on_event: Callable[[Worker, Message], None],
        on_ended: Callable[[Worker], None], child: subprocess.Popen[bytes] | None = None,
    ) -> None:
        super().__init__(pid, child)
        self.place = place
        self.phase = Phase.STARTING
        self.version = 0                     # of the plan it has applied
        self.given: set[int] = set()         # ids of sockets it has received
        self.channel: Channel | None = None
        self.changing = asyncio.Lock()       # held while it is brought to plan and sockets
        self._ready = asyncio.Event()
        self._on_event = on_event
        self._on_ended = on_ended

    @property
    def slot(self) -> int:
        """The slot it serves, or served."""
        return self.place.slot

    def connect(self, control: socket.socket) -> None:
        """Takes the supervisor's end of a control channel into use."""
        self.channel = Channel(control, self._heard)

    async def started_up(self, timeout: float) -> None:     # noqa: ASYNC109
        """Waits until the worker says that it is up. Raises TimeoutError or ChannelClosed."""
        waits = {asyncio.ensure_future(event.wait()) for event in (self._ready, self.ended)}
        try:
            await asyncio.wait(waits, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if self.ended.is_set():
            raise ChannelClosed(f"it ended at once ({self.how_it_ended()}); see its output")
        if not self._ready.is_set():
            raise TimeoutError(f"it was not ready within {timeout:g} seconds")

    def give(self, sockets: Sequence[ListenSocket], label: Callable[[ListenSocket], str]) -> None:
        """Sends the listening sockets that the worker does not have yet. Raises ChannelClosed."""
        new = [s for s in sockets if s.id not in self.given]
        for at in range(0, len(new), SOCKETS_A_MESSAGE):
            part = new[at : at + SOCKETS_A_MESSAGE]
            self.send(
                {"op": "sockets", "sockets": [[s.id, label(s), _family(s)] for s in part]},
                [s.sock.fileno() for s in part],
            )
        self.given.update(s.id for s in new)

    async def apply(
        self, version: int, image: int, sockets: Sequence[tuple[int, int]],
        listen: Sequence[tuple[int, int]], timeout: float, sent: Callable[[], None],  # noqa: ASYNC109
    ) -> None:
        """Swaps the worker's plan; ``sockets`` are (id, listener index) pairs.

        ``listen`` are (id, backlog) pairs of sockets that do not listen yet. ``sent`` is called as
        soon as the worker will do all of this even if nobody asks for it again. Raises
        WorkerRefused, ChannelClosed or TimeoutError.
        """
        await self._ask(
            {"op": "plan", "version": version, "sockets": [list(pair) for pair in sockets],
             "listen": [list(pair) for pair in listen]},
            [image], timeout, sent,
        )
        self.version = version
        self.given &= {number for number, _ in sockets}     # it has closed the others

    async def release(self, sockets: Sequence[ListenSocket], timeout: float) -> None:  # noqa: ASYNC109
        """Makes the worker close sockets that somebody else serves. Raises like :meth:`apply`."""
        await self._ask({"op": "release", "sockets": [s.id for s in sockets]}, (), timeout,
                        lambda: None)
        self.given -= {s.id for s in sockets}

    def drain(self, timeout_ms: int, sweep: bool) -> None:
        """Starts the worker's end: it accepts nothing new and exits after its last connection."""
        if self.phase in (Phase.DRAINING, Phase.ENDED):
            return
        self.phase = Phase.DRAINING
        with suppress(ChannelClosed):
            self.send({"op": "drain", "timeout_ms": timeout_ms, "sweep": sweep})

    def stop(self) -> None:
        """Tells the worker to reset everything and exit."""
        with suppress(ChannelClosed):
            self.send({"op": "stop"})

    def send(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Sends a message. Raises ChannelClosed."""
        if self.channel is None:
            raise ChannelClosed("the worker has no control channel")
        self.channel.send(message, descriptors)

    def on_end(self) -> None:
        """Cleans up after the process, then tells whoever asked for it."""
        self.phase = Phase.ENDED
        with suppress(OSError):
            self.place.door.unlink(missing_ok=True)
        self._on_ended(self)
        if self.channel is not None:
            self.channel.close()

    async def _ask(
        self, message: Message, descriptors: Sequence[int], timeout: float,  # noqa: ASYNC109
        sent: Callable[[], None],
    ) -> None:
        if self.channel is None:
            raise ChannelClosed("the worker has no control channel")
        await self.channel.ask(message, descriptors, timeout, sent)

    def _heard(self, message: Message) -> None:
        if message.get("op") == "ready":
            self._ready.set()
        self._on_event(self, message)


def _family(member: ListenSocket) -> int:
    """The family that workers are told: they treat a socket that all share as a unix one, which
    wakes one of them for a connection, and not all (EPOLLEXCLUSIVE)."""
    return int(socket.AF_UNIX if member.slot == SHARED else member.sock.family)


def spawn(
    place: Place, door_address: str, scoreboard: int, bell: int, cpu: int | None,
    identity: Identity, on_event: Callable[[Worker, Message], None],
    on_ended: Callable[[Worker], None],
) -> Worker:
    """Starts a worker process. ``door_address`` is a short path of its door. Raises OSError."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    with theirs, door:
        try:
            place.door.unlink(missing_ok=True)
            door.bind(door_address)
            place.door.chmod(0o600)
            door.listen(4)
            inherited = {"control": theirs.fileno(), "scoreboard": scoreboard,
                         "door": door.fileno(), "bell": bell}
            options = {"slot": place.slot, "seat": place.seat, **inherited,
                       "cpu": cpu, "uid": identity.uid, "gid": identity.gid}
            # The worker drops its privileges itself: pinning to a CPU comes first.
            child = start("lbcore.worker", [f"--{name}={value}" for name, value in options.items()
                                            if value is not None], list(inherited.values()))
        except BaseException:
            ours.close()
            place.door.unlink(missing_ok=True)
            raise
    worker = Worker(child.pid, place, on_event, on_ended, child)
    worker.connect(ours)
    return worker
