"""What a configuration asks of a machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address

from lbcore.config.cpus import usable_cpus
from lbcore.config.plan import Address, Plan
from lbcore.supervisor.limits import RESERVED

DEFAULT_BACKLOG = 4096
PIPES = 256


@dataclass(frozen=True)
class Needs:
    """Numbers that follow from a plan; without one, those of the defaults.

    ``connections`` is what listeners allow together, 0 when one of them sets no limit.
    """

    workers: int
    listening: int               # sockets of one worker
    connections: int
    largest_backlog: int
    pipes: int                   # of all workers
    fastopen: bool
    short_lived: bool            # a connection to a backend for each of a client
    backends: int
    binds: tuple[Address, ...]

    @classmethod
    def of(cls, plan: Plan | None) -> Needs:
        """What a plan needs."""
        if plan is None:
            workers = usable_cpus()
            return cls(workers, 1, 0, DEFAULT_BACKLOG, PIPES * workers, False, False, 0, ())
        limits = [listener.max_connections for listener in plan.listeners]
        return cls(
            workers=plan.workers,
            listening=sum(len(listener.binds) for listener in plan.listeners),
            connections=sum(limits) if all(limits) else 0,
            largest_backlog=max((one.backlog for one in plan.listeners), default=DEFAULT_BACKLOG),
            pipes=plan.max_pipes * plan.workers,
            fastopen=any(listener.fastopen for listener in plan.listeners),
            short_lived=any(_outside(backend.address) for listener in plan.listeners
                            if listener.protocol == "tcp"
                            for pool in plan.pools_of(listener) for backend in pool.backends),
            backends=sum(len(pool.backends) for pool in plan.pools),
            binds=tuple(bind for listener in plan.listeners for bind in listener.binds),
        )

    def descriptors(self, connections: int) -> int:
        """Descriptors that each worker needs for so many connections over all of them."""
        return 2 * -(-connections // self.workers) + self.listening + RESERVED

    def ports(self) -> Iterator[int]:
        """TCP ports that are listened on."""
        yield from dict.fromkeys(bind.port for bind in self.binds if bind.port)


def _outside(address: Address) -> bool:
    """Whether connections to an address leave this machine."""
    if address.path:
        return False
    try:
        return not ip_address(address.host).is_loopback
    except ValueError:           # a name
        return address.host != "localhost"
