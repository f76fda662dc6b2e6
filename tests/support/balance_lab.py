"""One pool in a real scoreboard and a real plan image, without a socket."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence

from lbcore._balance import Cursor, Selector
from lbcore._plan import build_image, sockaddr
from lbcore._scoreboard import Scoreboard
from lbcore._tables import ketama_ring, maglev_table
from lbcore.config.plan import Address, BackendPlan, PoolPlan

UP, DOWN, EJECTED, DRAIN, GONE = range(5)
PANIC, BACKUP = 1, 2
POOL = 0


class Lab:
    """A pool with these weights, primaries first, as ``seats`` workers see it.

    Every backend starts up and at full weight. ``limits`` are max_connections by index. With
    ``after`` this is the plan that the workers of another lab are given next.
    """

    def __init__(
        self,
        weights: Sequence[int],
        balance: str = "round_robin",
        *,
        backups: Sequence[int] = (),
        limits: dict[int, int] | None = None,
        load_bound: float = 0.0,
        seats: int = 1,
        names: Sequence[str] | None = None,
        first_row: int = 0,
        after: Lab | None = None,
    ) -> None:
        consistent = balance in ("maglev", "ketama")
        every = [*weights, *backups]
        self.primaries = len(weights)
        self.names = list(names or (f"backend-{i}" for i in range(len(every))))
        self.weights = list(every)
        self.ramps = [256] * len(every)
        self.states = [UP] * len(every)
        self.first_row = first_row
        self.flags = 0
        backends = tuple(
            BackendPlan(
                name=self.names[i],
                address=Address(host=f"10.{i >> 16}.{i >> 8 & 255}.{i & 255}", port=80),
                weight=weight,
                backup=i >= self.primaries,
                max_connections=(limits or {}).get(i, 0),
                label=self.names[i],
            )
            for i, weight in enumerate(every)
        )
        plan = PoolPlan(
            name="lab",
            backends=backends,
            balance="consistent" if consistent else balance,  # type: ignore[arg-type]
            hash=balance if consistent else "maglev",  # type: ignore[arg-type]
            load_bound=load_bound,
        )
        table = self._table(balance, backends[: self.primaries])
        backup_table = self._table(balance, backends[self.primaries :])
        members = [
            (first_row + i, b, sockaddr(b.address.host, 80)) for i, b in enumerate(backends)
        ]
        self.version: int = after.version + 1 if after else 1
        image = build_image(self.version, 0, [], [(POOL, plan, members, table, backup_table)])
        self.board: Scoreboard = after.board if after else Scoreboard.create()
        for i, weight in enumerate(every):
            self.board.set_backend(first_row + i, UP, weight)
        self.flag(0)
        self.workers: list[Selector]
        if after:
            self.workers = after.workers
            for worker in self.workers:
                worker.swap(image)
        else:
            self.workers = [
                Selector(self.board, image, self.board.take_seat(slot)) for slot in range(seats)
            ]
        os.close(image)

    @staticmethod
    def _table(balance: str, backends: Sequence[BackendPlan]) -> bytes:
        weights = [b.weight for b in backends]
        if balance == "maglev":
            return maglev_table([b.name.encode() for b in backends], weights)
        if balance == "ketama":
            return ketama_ring([b.label for b in backends], weights)
        return b""

    def set(self, i: int, **what: int) -> None:
        """What the supervisor writes: ``state``, ``weight``, ``ramp``."""
        self.states[i] = what.get("state", self.states[i])
        self.weights[i] = what.get("weight", self.weights[i])
        self.ramps[i] = what.get("ramp", self.ramps[i])
        self.board.set_backend(
            self.first_row + i, self.states[i], self.weights[i], self.ramps[i]
        )
        self.flag(self.flags)

    def flag(self, flags: int) -> None:
        self.flags = flags
        usable = (UP, DOWN, EJECTED) if flags & PANIC else (UP,)
        total = sum(
            weight
            for weight, state in zip(
                self.weights[: self.primaries], self.states[: self.primaries], strict=True
            )
            if state in usable
        )
        self.board.set_pool(POOL, flags, total)

    def begin(self, key: bytes = b"", worker: int = 0) -> Cursor:
        return self.workers[worker].begin(POOL, key)

    def pick(self, key: bytes = b"", worker: int = 0) -> int:
        """A new connection's backend; its place stays taken."""
        return self.workers[worker].pick(self.begin(key, worker))

    def release(self, i: int, worker: int = 0) -> None:
        self.workers[worker].release(POOL, i)

    def order(self, key: bytes = b"") -> list[int]:
        return self.workers[0].order(POOL, key)

    def route(self, keys: Iterable[bytes] | int, worker: int = 0) -> list[int]:
        """Backends of one connection after the other, each ended before the next begins."""
        if isinstance(keys, int):
            keys = (b"" for _ in range(keys))
        return self.workers[worker].route(POOL, keys)

    def inflight(self, i: int) -> int:
        return self.board.inflight(self.first_row + i)

def keys(count: int, salt: str = "") -> list[bytes]:
    return [f"key-{salt}{n}".encode() for n in range(count)]


def shares(picked: Iterable[int], count: int) -> list[float]:
    """Share of each of ``count`` backends in what was picked."""
    tally = Counter(picked)
    total = sum(tally.values())
    return [tally[i] / total for i in range(count)]

