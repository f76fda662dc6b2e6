"""More workers, fewer workers: without losing a connection that is queued anywhere.

Closing a listening socket resets what is queued in it. So a slot that goes away is first taken
out of the kernel's choice, then a surviving worker accepts what is still there, and only then its
sockets are closed.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress

from lbcore.config.plan import Plan
from lbcore.supervisor.fleet import WORKER_FAILURES, Fleet, LaunchError
from lbcore.supervisor.groups import NOBODY, ListenSocket
from lbcore.supervisor.sockets import listens

# A handshake that began before the steering ends up in the old socket's queue. One second covers
# a round trip and one repeated SYN-ACK.
HANDSHAKE_GRACE = 1.0


async def grow(fleet: Fleet, plan: Plan, count: int) -> None:
    """Adds slots up to ``count``. Raises LaunchError or BindError; then nothing has changed."""
    fresh = range(len(fleet.slots), count)
    # Processes first: what can fail with them leaves no socket behind.
    results = await asyncio.gather(*(fleet.prepare(index) for index in fresh),
                                   return_exceptions=True)
    workers = [r for r in results if not isinstance(r, BaseException)]
    try:
        for result in results:
            if isinstance(result, BaseException):
                raise result
        fleet.table.open_missing(plan, range(count))
    except BaseException:
        for worker in workers:
            worker.kill("no longer wanted")
        raise
    for worker in workers:
        try:
            fleet.occupy(worker.slot, await fleet.enlist(worker))
        except LaunchError as error:     # its sockets exist now: the slot's keeper tries again
            fleet.log.error("worker.start_failed", slot=worker.slot, error=str(error))
            fleet.occupy(worker.slot, None)
    await fleet.distribute()     # sockets that a neighbour served for an earlier, smaller fleet
    fleet.table.welcome(fresh)


async def shrink(fleet: Fleet, count: int) -> None:
    """Gives up the slots from ``count`` on; their workers drain."""
    leaving = sorted(index for index in fleet.slots if index >= count)
    fleet.table.leave(leaving)
    hand_over(fleet, count)
    await fleet.distribute()
    for index in leaving:
        worker = fleet.vacate(index)
        if worker is None:
            continue
        try:
            # Answered when its descriptors are closed: while it holds one, the socket stays in
            # the kernel's group, and nobody would serve it.
            await worker.release(
                [s for s in fleet.table.of_slots([index]) if s.id in worker.given],
                fleet.settings.hang_timeout_ms / 1000,
            )
        except WORKER_FAILURES as error:
            worker.kill(f"did not release its sockets: {error}")
        fleet.dismiss(worker)
    hand_over(fleet, count)      # once more: one that served for others may have ended meanwhile
    await fleet.distribute()
    if not fleet.orphans:        # they serve these sockets too, until all are relieved at once
        await close_surplus(fleet, count)


def hand_over(fleet: Fleet, count: int) -> None:
    """Assigns what slots from ``count`` on serve to the workers below; tells nobody yet."""
    for member in fleet.table:
        if member.slot >= count or member.server >= count:
            member.server = fleet.neighbour(member.slot, count)


async def give_back(fleet: Fleet, hurry: asyncio.Event) -> None:
    """Leaves the sockets that were passed to us, and what will queue in them, to who comes next.

    What the kernel would have given to others beside them goes there from now on. Takes about a
    second if there are others, unless ``hurry`` is set meanwhile.
    """
    given = [member for member in fleet.table if member.given]
    if fleet.table.prefer_given():
        with suppress(TimeoutError):
            await asyncio.wait_for(hurry.wait(), HANDSHAKE_GRACE)
    for worker in fleet.workers() if given else ():
        mine = [member for member in given if member.id in worker.given]
        if mine:
            with suppress(*WORKER_FAILURES):
                await worker.release(mine, fleet.settings.hang_timeout_ms / 1000)


def stop_deferring(member: ListenSocket) -> float:
    """Lets connections that the kernel holds back until their first bytes come out of a socket.

    Returns the seconds after which the last has. Closing the socket before would reset them: they
    are in no accept queue. Without TCP_DEFER_ACCEPT the kernel repeats the SYN-ACK when such a
    connection's timer ends next, and the client's answer lets it through. The timer runs 1, 3, 7,
    15... seconds after the SYN up to the time that getsockopt tells, so the longest stretch between
    two ends is half of that and half a second.
    """
    if member.sock.family == socket.AF_UNIX:
        return HANDSHAKE_GRACE
    deferred = member.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT)
    if not deferred:
        return HANDSHAKE_GRACE
    member.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 0)
    return (deferred + 1) / 2 + HANDSHAKE_GRACE


async def close_surplus(fleet: Fleet, count: int) -> None:
    """Closes the sockets of slots from ``count`` on, once nothing can arrive in them.

    Where the kernel's order of a group is not known, connections cannot be steered away: such
    sockets stay, served by the workers they were handed to.
    """
    closing = [m for m in fleet.table if m.slot >= count
               and (fleet.table.groups[m.bind].ordered or not listens(m.sock))]
    if closing:
        fleet.table.leave({m.slot for m in closing})
        await asyncio.sleep(max(stop_deferring(m) for m in closing))
        for member in closing:
            member.server = NOBODY
        await fleet.distribute()     # the workers accept what is queued and close
        fleet.table.close(sorted(closing, key=lambda m: -m.slot))
    fleet.table.welcome([s for s in fleet.table.leaving | fleet.table.idle if s >= count])
