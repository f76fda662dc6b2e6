"""Finding the workers of a supervisor that is gone, and taking their sockets over.

Workers outlive their supervisor and wait at their doors. A new supervisor adopts what they listen
on, starts workers of its own on the same sockets, and only when those serve lets the old ones
drain: at no moment is there a socket that nobody accepts from.
"""

from __future__ import annotations

import asyncio
import re
import socket
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from lbcore.supervisor.channel import Channel, ChannelClosed, WorkerRefused
from lbcore.supervisor.fleet import Fleet
from lbcore.supervisor.groups import SocketTable
from lbcore.supervisor.instance import Instance
from lbcore.supervisor.log import Log
from lbcore.supervisor.process import Process
from lbcore.supervisor.worker import Phase, Place, Worker

ADOPT_TIMEOUT = 5.0
KNOCKS = 10                  # a worker that has not noticed yet that its supervisor is gone
KNOCK_PAUSE = 0.2            # turns visitors away
KILL_PATIENCE = 5.0          # seconds until a worker that was killed is gone
ANOTHER_BOARD = -1       # the scoreboard went with the old supervisor: theirs cannot be read


@dataclass
class Orphan:
    """A worker of an earlier supervisor, and what it listens on."""

    worker: Worker
    sockets: list[tuple[str, socket.socket]] = field(default_factory=list)   # label, socket


async def find_orphans(instance: Instance, fleet: Fleet, log: Log) -> list[Orphan]:
    """Connects to every worker that waits at a door; doors of dead ones are removed.

    The fleet has them among its leaving workers when this returns, without having told them.
    """
    orphans = []
    for door in sorted(instance.runtime_dir.glob("worker-*.sock")):
        try:
            orphan = await _knock(instance, fleet, door)
        except (ConnectionRefusedError, ProcessLookupError):     # nobody is behind it any more
            door.unlink(missing_ok=True)
            continue
        except (ChannelClosed, WorkerRefused, TimeoutError, OSError) as error:
            # It holds listening sockets that it does not serve and that nobody can have.
            pids = await _kill_owner(instance, door)
            door.unlink(missing_ok=True)
            log.error("takeover.hung", message="a worker that does not answer was killed",
                      door=door.name, pid=pids, error=str(error) or "no answer")
            continue
        orphans.append(orphan)
        log.info("takeover.adopted", message="a worker of an earlier supervisor",
                 pid=orphan.worker.pid, slot=orphan.worker.slot, sockets=len(orphan.sockets))
    return orphans


def adopt_sockets(table: SocketTable, orphans: list[Orphan]) -> None:
    """Puts the orphans' sockets into the table, in the order of their slots."""
    labelled = [pair for orphan in orphans for pair in orphan.sockets]
    for label, sock in sorted(labelled, key=lambda pair: table.slot_in(pair[0])):
        table.adopt(label, sock)


async def _knock(instance: Instance, fleet: Fleet, door: Path) -> Orphan:
    for _ in range(KNOCKS):
        try:
            return await _adopt(instance, fleet, door)
        except ChannelClosed:
            await asyncio.sleep(KNOCK_PAUSE)
    return await _adopt(instance, fleet, door)


async def _kill_owner(instance: Instance, door: Path) -> list[int]:
    """Ends the workers whose door this is; returns their pids when they are gone.

    Until then their sockets are: an address would seem to be somebody else's.
    Another instance may have a door of the same name: names are made of process ids, which come
    back.
    """
    address = instance.path_of(door.name)
    if address.startswith("/proc/self/fd/"):    # too long a path: the number was its supervisor's
        ours = re.compile(rf"/proc/self/fd/\d+/{re.escape(door.name)}")
    else:
        ours = re.compile(re.escape(address))
    owners = {found.pid for found in psutil.net_connections("unix")
              if isinstance(found.laddr, str) and ours.fullmatch(found.laddr)}
    pids = sorted(pid for pid in owners if pid)
    workers = []
    for pid in pids:
        with suppress(ProcessLookupError):
            workers.append(Process(pid))
    for worker in workers:
        worker.kill("it does not answer")
    with suppress(TimeoutError):
        async with asyncio.timeout(KILL_PATIENCE):
            for worker in workers:
                await worker.ended.wait()
    return pids


async def _adopt(instance: Instance, fleet: Fleet, door: Path) -> Orphan:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    try:
        sock.connect(instance.path_of(door.name))
    except BaseException:
        sock.close()
        raise
    channel = Channel(sock)
    try:
        answers = await channel.ask({"op": "adopt"}, (), ADOPT_TIMEOUT)
        said = answers[0][0]
        place = Place(said["slot"], said["seat"], ANOTHER_BOARD, door)
        worker = Worker(said["pid"], place, fleet.heard, fleet.ended)
    except BaseException:
        channel.close()
        raise
    worker.channel = channel
    worker.version = said.get("version", 0)
    worker.phase = Phase.DRAINING if said.get("draining") else Phase.SERVING
    fleet.orphans.add(worker)
    orphan = Orphan(worker)
    for message, descriptors in answers:
        for (_, label, _), fd in zip(message["sockets"], descriptors, strict=True):
            orphan.sockets.append((label, socket.socket(fileno=fd)))
    return orphan
