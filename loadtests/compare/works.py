"""The work that every balancer does, and what lbcore has to reach on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["closed", "paced", "memory"]


@dataclass(frozen=True)
class Target:
    """What ``--check`` demands of lbcore."""

    limit: float
    relative: bool      # a ratio to the best peer of the run; otherwise an absolute value

    def __str__(self) -> str:
        return f"<= {self.limit:.2f} x the best peer" if self.relative else f"<= {self.limit:g}"


@dataclass(frozen=True)
class Work:
    """One kind of work and the value it is judged by."""

    name: str
    title: str
    kind: Kind
    metric: str                 # the value that is compared; less is better
    unit: str
    target: Target
    path: str = "/tiny"
    clients: int = 64
    headers: tuple[str, ...] = ()


def _cpu(
    name: str, title: str, path: str, limit: float, *, clients: int = 64,
    headers: tuple[str, ...] = (),
) -> Work:
    return Work(name, title, "closed", "cpu_us", "CPU µs per request", Target(limit, True),
                path, clients, headers)


WORKS = {
    work.name: work
    for work in (
        _cpu("keepalive-1k", "keep-alive, 1 KiB answers, 64 clients", "/1k", 0.92),
        _cpu("connection", "a connection per request, 1 KiB answers, 64 clients", "/1k", 1.00,
             headers=("Connection: close",)),
        _cpu("keepalive-16k", "keep-alive, 16 KiB answers, 64 clients", "/16k", 0.75),
        _cpu("keepalive-64k", "keep-alive, 64 KiB answers, 64 clients", "/64k", 0.80),
        _cpu("keepalive-1m", "keep-alive, 1 MiB answers, 16 clients", "/1m", 0.80, clients=16),
        Work("latency", "1 KiB answers at half of saturation, 64 connections", "paced", "p99_us",
             "p99 µs", Target(1.00, True), "/1k"),
        Work("memory", "idle connection pairs", "memory", "bytes_per_pair", "bytes per pair",
             Target(600, False)),
    )
}
SATURATION = WORKS["keepalive-1k"]
