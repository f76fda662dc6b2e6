"""What a scrape of many backends costs, and what it does to traffic and to the supervisor.

    .venv/bin/python -m loadtests.scrape                       # 1,000 backends
    .venv/bin/python -m loadtests.scrape --backends 4000 --rounds 5

One lbcore with one worker, all backends checked and up, requests at a steady pace. Stretches
without scrapes and stretches with one scrape a second, many times more often than usual, take
turns. Latencies of requests count from the moment each was due. Whether the supervisor's event
loop stands still is asked all the time at /healthz: the longest wait for an answer is printed.
Exits with 1 when a scrape takes longer than --limit, half of the time.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import toml

from lbcore.admin.client import AdminClient, NotRunning, _UnixConnection
from lbcore.config.plan import Address
from loadtests.compare.client import HOST, request
from loadtests.compare.paced import PacedResult, run_paced
from loadtests.compare.procs import free_port
from loadtests.health_cost import hosts, raise_descriptor_limit

BODY = b"x" * 1024
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY
PROBE_EVERY = 0.002              # seconds between two questions at /healthz
PATIENCE = 60.0


@dataclass
class Scrapes:
    """What was seen of the admin address in one stretch. Times are milliseconds."""

    took: list[float]
    size: int
    lines: int
    probe_median: float
    probe_longest: float


@dataclass
class Round:
    """One stretch without and one with scrapes."""

    quiet: PacedResult
    quiet_probes: Scrapes
    scraped: PacedResult
    scrapes: Scrapes
    cpu_ms: float                # of the supervisor for one scrape, probes taken off


# ---- processes of their own

class Answering(asyncio.Protocol):
    """The backends: one answer for every request that ends in this packet."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(ANSWER * data.count(b"\r\n\r\n"))


async def serve(port: int) -> None:
    """Answers on every loopback address until standard input ends."""
    loop = asyncio.get_running_loop()
    await loop.create_server(Answering, "0.0.0.0", port, backlog=4096)
    await loop.run_in_executor(None, sys.stdin.read)


def ask(path: str, what: str) -> bytes:
    """One answer of the admin address."""
    connection = _UnixConnection(path, PATIENCE)
    try:
        connection.request("GET", what)
        answer = connection.getresponse()
        body = answer.read()
    finally:
        connection.close()
    if answer.status != 200:
        raise SystemExit(f"GET {what}: {answer.status} {body[:200]!r}")
    return body


def watch(path: str, every: float, seconds: float) -> Scrapes:
    """Asks for metrics every so many seconds (0: never), and for /healthz all the time."""
    end = time.monotonic() + seconds
    took: list[float] = []
    body = b""
    # In a process of its own: what reading metrics takes is not to show.
    with ProcessPoolExecutor(1) as pool:
        probing = pool.submit(probe, path, end)
        due = time.monotonic() + every
        while every and due < end:
            time.sleep(max(0.0, due - time.monotonic()))
            began = time.perf_counter()
            body = ask(path, "/metrics")
            took.append((time.perf_counter() - began) * 1000)
            due += every
        probes = probing.result()
    return Scrapes(took, len(body), body.count(b"\n"), statistics.median(probes), max(probes))


def probe(path: str, end: float) -> list[float]:
    """Asks for /healthz until then; how long each answer took."""
    found = []
    while time.monotonic() < end:
        began = time.perf_counter()
        ask(path, "/healthz")
        found.append((time.perf_counter() - began) * 1000)
        time.sleep(PROBE_EVERY)
    return found


# ---- the measurement

@contextlib.contextmanager
def running(backends: int, checks: str) -> Iterator[tuple[int, Path, int]]:
    """lbcore with its backends: its port, its admin socket, its process id."""
    with tempfile.TemporaryDirectory(prefix="lbcore-scrape-") as directory:
        admin, config = Path(directory, "admin.sock"), Path(directory, "lb.toml")
        origin, port = free_port(), free_port()
        config.write_text(toml.dumps({
            "lbcore": {"workers": 1},
            "admin": {"listen": f"unix:{admin}"},
            "log": {"level": "error"},
            "listener": [{"name": "web", "protocol": "http", "bind": f"127.0.0.1:{port}",
                          "pool": "web"}],
            "pool": {"web": {"health": {"type": "tcp", "interval": checks},
                             "backends": [f"{host}:{origin}" for host in hosts(backends)]}}}))
        words = [sys.executable, "-m"]
        last = str(max(os.sched_getaffinity(0)))
        with subprocess.Popen(["taskset", "-c", last, *words, "loadtests.scrape", "--serve",
                               str(origin)], stdin=subprocess.PIPE) as serving:
            lbcore = subprocess.Popen([*words, "lbcore", "-c", str(config)])
            try:
                wait_until_up(admin, backends)
                yield port, admin, lbcore.pid
            finally:
                lbcore.terminate()
                lbcore.wait(PATIENCE)
                assert serving.stdin is not None
                serving.stdin.close()


def wait_until_up(admin: Path, backends: int) -> None:
    """Until every backend has passed a check."""
    deadline = time.monotonic() + PATIENCE
    client = AdminClient(Address(path=str(admin)))
    while time.monotonic() < deadline:
        with contextlib.suppress(NotRunning):
            found = [one for pool in client.status()["pools"] for one in pool["backends"]]
            if sum(bool(one["last_check"]) and one["state"] == "up" for one in found) == backends:
                return
        time.sleep(0.2)
    raise SystemExit("the backends did not come up")


def answer_size(port: int) -> int:
    """Bytes of one answer, with the head that lbcore gives it."""
    with socket.create_connection((HOST, port), PATIENCE) as sock:
        sock.sendall(request("/"))
        said = b""
        while not said.endswith(BODY):
            said += sock.recv(65536)
    return len(said)


def stretch(port: int, admin: Path, size: int, every: float, seconds: float, rate: float,
            seed: int) -> tuple[PacedResult, Scrapes]:
    """Requests for so many seconds, with a scrape every so many."""
    last = str(max(os.sched_getaffinity(0)))
    command = ["taskset", "-c", last, sys.executable, "-m", "loadtests.scrape", "--watch",
               str(admin), "--every", str(every), "--seconds", str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watching:
        paced = run_paced(port, "/", size, rate=rate, connections=32, seconds=seconds,
                          seed=seed)
        assert watching.stdout is not None
        return paced, Scrapes(**json.loads(watching.stdout.read()))


def measure(options: argparse.Namespace) -> list[Round]:
    """All rounds."""
    found = []
    with running(options.backends, options.checks) as (port, admin, pid):
        size, supervisor = answer_size(port), psutil.Process(pid)
        for number in range(options.rounds):
            used = [cpu(supervisor)]
            results = []
            for every in (0.0, 1.0):
                results.append(stretch(port, admin, size, every, options.seconds, options.rate,
                                       number))
                used.append(cpu(supervisor))
            (quiet, probes), (scraped, scrapes) = results
            idle, busy = used[1] - used[0], used[2] - used[1]
            found.append(Round(quiet, probes, scraped, scrapes,
                               (busy - idle) * 1000 / max(1, len(scrapes.took))))
            print(line(found[-1]), flush=True)
    return found


def cpu(process: psutil.Process) -> float:
    """Seconds that a process has used."""
    times = process.cpu_times()
    return times.user + times.system


HEAD = ("scrape ms   longest   supervisor   /healthz ms          requests without, p50 p99 max us"
        "      with scrapes, p50 p99 max us\n"
        "   median        ms   CPU ms each   longest: quiet scraped")


def line(one: Round) -> str:
    """One round as a line of the table."""
    took, quiet, scraped = one.scrapes.took, one.quiet, one.scraped
    return (f"{statistics.median(took):9.0f} {max(took):9.0f} {one.cpu_ms:13.1f} "
            f"{one.quiet_probes.probe_longest:15.1f} {one.scrapes.probe_longest:7.1f} "
            f"{quiet.p50_us:15.0f} {quiet.p99_us:6.0f} {quiet.max_us:7.0f} "
            f"{scraped.p50_us:18.0f} {scraped.p99_us:6.0f} {scraped.max_us:7.0f}")


def main() -> int:
    """Measures and prints; the exit code says whether the limit was kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backends", type=int, default=1000)
    parser.add_argument("--checks", default="5s", help="interval of health checks")
    parser.add_argument("--rate", type=float, default=1000, help="requests a second")
    parser.add_argument("--seconds", type=float, default=10, help="length of a stretch")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=float, default=200, help="milliseconds for a scrape")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--watch", help=argparse.SUPPRESS)
    parser.add_argument("--every", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve(options.serve))
        return 0
    if options.watch:
        print(json.dumps(asdict(watch(options.watch, options.every, options.seconds))))
        return 0
    raise_descriptor_limit()
    print(HEAD, flush=True)
    rounds = measure(options)
    took = [ms for one in rounds for ms in one.scrapes.took]
    last = rounds[-1].scrapes
    print(f"{len(took)} scrapes of {last.size:,} bytes in {last.lines:,} lines: median "
          f"{statistics.median(took):.0f} ms, longest {max(took):.0f} ms")
    if options.json:
        print(json.dumps([asdict(one) for one in rounds], indent=2))
    return int(statistics.median(took) > options.limit)


if __name__ == "__main__":
    sys.exit(main())
