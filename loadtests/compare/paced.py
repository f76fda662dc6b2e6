"""Latency at a given rate: runs the paced client."""

from __future__ import annotations

import math
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from .client import HOST, request
from .compiled import compiled
from .wrk import InvalidSample

WARMUP_SECONDS = 0.3


@dataclass(frozen=True)
class PacedResult:
    """Latencies of one paced run, microseconds from the moment a request was due."""

    requests: int
    rate: float
    p50_us: float
    p99_us: float
    p999_us: float
    max_us: float
    client_late_us: float


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that at least ``share`` of the (sorted) values do not exceed."""
    if not ordered:
        raise ValueError("no values")
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def run_paced(
    port: int, path: str, answer_bytes: int, *, rate: float, connections: int, seconds: float,
    seed: int,
) -> PacedResult:
    """``rate`` requests a second at Poisson times for ``seconds``.

    Raises InvalidSample when a connection failed, answers fell behind, or the rate was missed.
    """
    pacer_class = compiled("_paced").Pacer
    sockets: list[socket.socket] = []
    try:
        for _ in range(connections):
            sock = socket.create_connection((HOST, port), 10)
            sockets.append(sock)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        pacer = pacer_class([s.fileno() for s in sockets], request(path), answer_bytes, rate)
        latencies = pacer.run(seconds, WARMUP_SECONDS, seed)
    except (OSError, OverflowError) as error:
        raise InvalidSample(str(error)) from None
    finally:
        for sock in sockets:
            sock.close()
    reached = len(latencies) / seconds
    if not 0.95 * rate < reached < 1.05 * rate:
        raise InvalidSample(f"{reached:.0f} requests/s instead of {rate:.0f}")
    return PacedResult(
        requests=len(latencies),
        rate=reached,
        p50_us=percentile(latencies, 0.5) / 1e3,
        p99_us=percentile(latencies, 0.99) / 1e3,
        p999_us=percentile(latencies, 0.999) / 1e3,
        max_us=latencies[-1] / 1e3,
        client_late_us=pacer.late_ns / 1e3,
    )
