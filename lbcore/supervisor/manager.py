"""What the service manager is told of an instance, and when (see ``notify.py``).

A task of its own, so that it also speaks while the instance starts and while it drains. It runs
on the supervisor's event loop: a loop that stands still sends no sign of life.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import lbcore

if TYPE_CHECKING:
    from lbcore.supervisor.supervisor import Supervisor

PACE = 0.5                   # seconds between two looks
# A hung worker is killed and replaced by the supervisor. One that stays hung for so much longer
# shows that the supervisor does not do its work.
HUNG_FOR_LONG = 5.0


async def keep_told(supervisor: Supervisor) -> None:
    """Tells the service manager how the instance is, until cancelled."""
    notifier, told = supervisor.notifier, ""
    while True:
        now = state(supervisor)
        if now == "starting":
            notifier.waiting("starting")
        elif now == "serving":
            if told != now:
                notifier.ready(summary(supervisor))
            notifier.status(summary(supervisor))
        else:
            notifier.draining(connections(supervisor))
        told = now
        if now == "starting" or workers_live(supervisor):
            notifier.beat()
        await asyncio.sleep(PACE)


def state(supervisor: Supervisor) -> str:
    """Where the instance is in its life: "starting", "serving" or "stopping"."""
    if supervisor.stopping:
        return "stopping"
    return "serving" if supervisor.serving else "starting"


def summary(supervisor: Supervisor) -> str:
    """One line for people."""
    slots = supervisor.fleet.slots.values()
    serving = sum(slot.worker is not None for slot in slots)
    pools = supervisor.rollout.members
    down = [rows.plan.name for rows in pools
            if rows.members and not any(supervisor.monitor.backend(m.row).state == "up"
                                    for m in rows.members)]
    text = f"lbcore {lbcore.__version__}: {serving} of {len(slots)} worker(s) serve"
    return f"{text}; no backend is up in {', '.join(down)}" if down else text


def connections(supervisor: Supervisor) -> int:
    """Connections that workers still have."""
    return sum(seat["connections"] for seat in supervisor.fleet.seats())


def workers_live(supervisor: Supervisor) -> bool:
    """Whether no worker has been silent for longer than the supervisor should have let it."""
    fleet = supervisor.fleet
    limit = fleet.settings.hang_timeout_ms / 1000 + HUNG_FOR_LONG
    return fleet.longest_silence() <= limit
