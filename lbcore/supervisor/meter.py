"""Rates of single workers: accepts and CPU, from one look at them a second."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

import psutil

from lbcore.supervisor.worker import Worker

WINDOW = 5                   # looks, a second apart, that a rate is taken over


@dataclass(frozen=True)
class Look:
    """What was seen of a worker at one moment."""

    at: float                # monotonic seconds
    accepted: int
    cpu: float               # seconds of user and system time


@dataclass(frozen=True)
class Rates:
    """How busy a worker has been in the last few seconds."""

    accepts_per_second: float
    cpu_percent: float       # of one CPU


class Meter:
    """Remembers the last few looks at every worker."""

    def __init__(self) -> None:
        self._looks: dict[int, deque[Look]] = {}
        self._processes: dict[int, psutil.Process] = {}

    def look(self, workers: Iterable[tuple[Worker, int]]) -> None:
        """Notes the state of workers, each given with what it has accepted so far."""
        seen = set()
        for worker, accepted in workers:
            try:
                process = self._processes.setdefault(worker.pid, psutil.Process(worker.pid))
                times = process.cpu_times()
            except psutil.Error:     # it is ending just now
                continue
            seen.add(worker.pid)
            looks = self._looks.setdefault(worker.pid, deque(maxlen=WINDOW))
            looks.append(Look(time.monotonic(), accepted, times.user + times.system))
        for pid in set(self._looks) - seen:
            del self._looks[pid]
        for pid in set(self._processes) - seen:
            del self._processes[pid]

    def rates(self, pid: int) -> Rates:
        """Rates of a worker; zeros until it has been seen twice."""
        looks = self._looks.get(pid)
        if not looks or len(looks) < 2:
            return Rates(0.0, 0.0)
        first, last = looks[0], looks[-1]
        seconds = last.at - first.at
        return Rates((last.accepted - first.accepted) / seconds,
                     100 * (last.cpu - first.cpu) / seconds)

    def memory(self, pid: int) -> tuple[int, int]:
        """Bytes of its own (USS) and resident (RSS) of a worker; zeros when it is gone."""
        try:
            found = psutil.Process(pid).memory_full_info()
        except psutil.Error:
            return 0, 0
        return found.uss, found.rss
