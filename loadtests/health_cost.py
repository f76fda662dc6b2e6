"""What active checks cost the supervisor: CPU of one health monitor over many real backends.

    .venv/bin/python -m loadtests.health_cost                  # 1,000 backends, 1 s, tcp and http
    .venv/bin/python -m loadtests.health_cost --backends 4000 --type http --seconds 30

The backends are real listeners on addresses of 127.0.0.0/8, all in another process, so their CPU
is not counted. Nothing else runs in the measured process: what is printed is what the checks add
to a supervisor. Exits with 1 when a check failed or the limit given with --limit is exceeded.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import resource
import select
import socket
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from typing import Literal

from lbcore._scoreboard import Scoreboard
from lbcore.config.plan import Address, BackendPlan, HealthPlan, PoolPlan
from lbcore.health import HealthEvent, HealthMonitor, Member, PoolRows

Kind = Literal["tcp", "http"]
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n"


@dataclass(frozen=True)
class Result:
    """One measurement. Times are seconds."""

    kind: Kind
    backends: int
    interval: float
    seconds: float
    checks: int
    failed: int
    user: float
    system: float

    @property
    def cores(self) -> float:
        """Share of one core."""
        return (self.user + self.system) / self.seconds

    @property
    def microseconds(self) -> float:
        """CPU of one check."""
        return (self.user + self.system) / max(1, self.checks) * 1e6


def hosts(count: int) -> list[str]:
    """That many loopback addresses."""
    return [f"127.{64 + i // 62500}.{i // 250 % 250}.{i % 250 + 1}" for i in range(count)]


def raise_descriptor_limit() -> None:
    """As far as it goes; a check or listener takes one descriptor."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


# ---- the backends: one process, one epoll

def serve(count: int) -> None:
    """Listens on ``count`` addresses, prints the port, answers until standard input ends."""
    raise_descriptor_limit()
    epoll = select.epoll()
    listeners: dict[int, socket.socket] = {}
    clients: dict[int, socket.socket] = {}
    port = 0
    for host in hosts(count):
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        port = listener.getsockname()[1]
        listener.listen(16)
        listener.setblocking(False)
        listeners[listener.fileno()] = listener
        epoll.register(listener, select.EPOLLIN)
    epoll.register(sys.stdin, select.EPOLLIN)
    print(port, flush=True)
    while True:
        for descriptor, _ in epoll.poll():
            if descriptor == sys.stdin.fileno():
                return
            if descriptor in listeners:
                with contextlib.suppress(OSError):
                    client, _ = listeners[descriptor].accept()
                    client.setblocking(False)
                    clients[client.fileno()] = client
                    epoll.register(client, select.EPOLLIN)
                continue
            client = clients.pop(descriptor)
            with contextlib.suppress(OSError):
                if client.recv(4096):
                    client.send(ANSWER)
            client.close()


# ---- the measured side

async def measure(kind: Kind, count: int, interval: float, seconds: float, port: int) -> Result:
    """Runs a monitor for ``seconds`` after everything has been checked once."""
    backends = tuple(
        BackendPlan(f"b{i}", Address(host, port)) for i, host in enumerate(hosts(count)))
    members = tuple(Member(i, backend, backend.address) for i, backend in enumerate(backends))
    health = HealthPlan(type=kind, interval_ms=round(interval * 1000), timeout_ms=1000)
    rows = PoolRows(0, PoolPlan("cost", backends, health=health), members)
    events: list[HealthEvent] = []
    monitor = HealthMonitor(Scoreboard.create(), events.append)
    monitor.apply([rows])
    monitor.start()
    await asyncio.sleep(interval + 1.5)
    events.clear()
    passed = checks_passed(monitor, count)
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
    await asyncio.sleep(seconds)
    after, ended = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
    checks = checks_passed(monitor, count) - passed
    failed = sum(monitor.backend(row).consecutive_fail for row in range(count)) + len(events)
    await monitor.stop()
    return Result(kind, count, interval, ended - began, checks, failed,
                  after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime)


def checks_passed(monitor: HealthMonitor, count: int) -> int:
    """Checks passed in a row, over all backends: all there were, as long as none fails."""
    return sum(monitor.backend(row).consecutive_ok for row in range(count))


def report(result: Result) -> str:
    """One line of the table."""
    return (f"{result.kind:<5} {result.backends:>8} {result.checks / result.seconds:>9.0f} "
            f"{result.microseconds:>9.0f} {100 * result.cores:>8.1f} % "
            f"{result.user:>7.2f} {result.system:>7.2f} {result.failed:>7}")


def main() -> int:
    """Measures and prints; the exit code says whether the limit was kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backends", type=int, default=1000)
    parser.add_argument("--interval", type=float, default=1.0, help="seconds between checks")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of a measurement")
    parser.add_argument("--type", choices=["tcp", "http", "both"], default="both")
    parser.add_argument("--limit", type=float, default=1 / 3, help="most cores allowed")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
        return 0
    raise_descriptor_limit()
    kinds: tuple[Kind, ...] = ("tcp", "http") if options.type == "both" else (options.type,)
    results = []
    if not options.json:
        print("type  backends  checks/s  us/check  of a core   user s   sys s  failed")
    with subprocess.Popen(
        [sys.executable, "-m", "loadtests.health_cost", "--serve", str(options.backends)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as backends:
        assert backends.stdin is not None and backends.stdout is not None
        try:
            port = int(backends.stdout.readline())
            for kind in kinds:
                result = asyncio.run(measure(
                    kind, options.backends, options.interval, options.seconds, port))
                results.append(result)
                if not options.json:
                    print(report(result), flush=True)
        finally:
            backends.stdin.close()
    if options.json:
        print(json.dumps([{**asdict(r), "cores": r.cores, "us_per_check": r.microseconds}
                          for r in results], indent=2))
    return int(any(r.cores > options.limit or r.failed for r in results))


if __name__ == "__main__":
    sys.exit(main())
