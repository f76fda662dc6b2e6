"""``python -m loadtests.compare.reloads``: what reloads cost and lose, per balancer.

First with connections that stay: 20 more are opened before each of 20 reloads, then processes
and memory are counted and every connection is asked to carry one more exchange. Then with
connections that come and go: 100 reloads, 100 ms apart, under a stream of new connections.
Each reload takes a changed configuration.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import click

from .client import Answer, Clients, ask
from .origin import SIZES, Origin, start_origin
from .peers import PEERS, Balancer, Peer, start_balancer
from .procs import HarnessError, Processes, raise_descriptor_limit, unique_bytes
from .report import markdown_table
from .works import TCP

RELOADABLE = [name for name, peer in PEERS.items() if peer.reload_signal is not None]
DEFAULT = ("lbcore", "nginx", "haproxy")


@dataclass(frozen=True)
class Stayed:
    """After reloads under connections that stay. Memory is unique to the processes, bytes."""

    processes_before: int
    processes_after: int
    bytes_before: int
    bytes_after: int
    opened: int
    alive: int


@dataclass(frozen=True)
class Came:
    """Reloads under a stream of new connections."""

    connections: int
    failed: int
    slowest_ms: float


def settle(balancer: Balancer, seconds: float = 20.0) -> list[int]:
    """The balancer's processes once none came or went for a second, or after ``seconds``."""
    deadline = time.monotonic() + seconds
    pids, since = balancer.pids(), time.monotonic()
    while time.monotonic() < min(deadline, since + 1.0):
        time.sleep(0.05)
        if (now := balancer.pids()) != pids:
            pids, since = now, time.monotonic()
    return pids


def reload_once(balancer: Balancer, number: int) -> None:
    """A reload with a configuration that differs from the one before."""
    balancer.running.check()
    balancer.reload(connect_seconds=5 + number % 2)


def staying(balancer: Balancer, reloads: int, more: int, pause: float) -> Stayed:
    """``more`` connections before each of the ``reloads``, all of them kept."""
    before = settle(balancer)
    bytes_before = unique_bytes(before)
    with Clients(balancer.port) as clients:
        for number in range(1, reloads + 1):
            clients.open(more)
            reload_once(balancer, number)
            time.sleep(pause)
        after = settle(balancer)
        return Stayed(len(before), len(after), bytes_before, unique_bytes(after), len(clients),
                      clients.alive())


def coming(balancer: Balancer, reloads: int, apart: float, clients: int) -> Came:
    """Reloads ``apart`` seconds apart while ``clients`` open, ask and close without a pause."""
    stop = threading.Event()
    answers: Counter[Answer] = Counter()

    def come_and_go() -> tuple[Counter[Answer], float]:
        mine: Counter[Answer] = Counter()
        slowest = 0.0
        while not stop.is_set():
            start = time.monotonic()
            mine[ask(balancer.port, "/1k")] += 1
            slowest = max(slowest, time.monotonic() - start)
        return mine, slowest

    with ThreadPoolExecutor(clients) as pool:
        running = [pool.submit(come_and_go) for _ in range(clients)]
        try:
            for number in range(1, reloads + 1):
                reload_once(balancer, number)
                time.sleep(apart)
            settle(balancer, 5)
        finally:
            stop.set()
        results = [future.result() for future in running]
    for mine, _ in results:
        answers.update(mine)
    right = answers[Answer(200, SIZES["/1k"])]
    return Came(answers.total(), answers.total() - right, max(s for _, s in results) * 1e3)


def staying_table(found: dict[str, Stayed]) -> str:
    """Markdown: processes and memory before and after."""
    lines = [["", "processes before", "after", "own memory before, MiB", "after, MiB",
              "connections alive"]]
    lines += [
        [PEERS[name].title, str(s.processes_before), str(s.processes_after),
         f"{s.bytes_before / 2**20:.1f}", f"{s.bytes_after / 2**20:.1f}",
         f"{s.alive} of {s.opened}"]
        for name, s in found.items()
    ]
    return markdown_table(lines)


def coming_table(found: dict[str, Came]) -> str:
    """Markdown: new connections and how many of them failed."""
    lines = [["", "connections", "failed", "slowest, ms"]]
    lines += [
        [PEERS[name].title, f"{c.connections:,}", str(c.failed), f"{c.slowest_ms:.0f}"]
        for name, c in found.items()
    ]
    return markdown_table(lines)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--peers", default=",".join(DEFAULT), show_default=True, metavar="PEER,...",
              help=f"Of: {', '.join(RELOADABLE)}.")
@click.option("--workers", default=2, show_default=True, type=click.IntRange(1))
@click.option("--out", type=click.Path(path_type=Path),
              default=Path(__file__).parents[1] / "results" / "reloads.md",
              help="The tables as Markdown. [default: loadtests/results/reloads.md]")
def main(peers: str, workers: int, out: Path) -> None:
    """Reload each balancer under connections that stay and under a stream of new ones."""
    names = [name.strip() for name in peers.split(",")]
    if unknown := [name for name in names if name not in RELOADABLE]:
        raise click.UsageError(f"no reload of: {', '.join(unknown)}; of: {', '.join(RELOADABLE)}")
    stayed: dict[str, Stayed] = {}
    came: dict[str, Came] = {}
    try:
        raise_descriptor_limit(18_000)
        for name in names:
            stayed[name], came[name] = _measure(PEERS[name], workers)
    except (HarnessError, OSError) as error:
        raise click.ClickException(str(error)) from None
    text = "\n\n".join([
        f"{workers} workers (HAProxy: threads), default timeouts of old generations.",
        "### 20 reloads, 20 more connections that stay before each", staying_table(stayed),
        "### 100 reloads, 100 ms apart, under a stream of new connections", coming_table(came),
    ]) + "\n"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text)
    print(f"\n{text}\nwritten: {out}")


def _measure(peer: Peer, workers: int) -> tuple[Stayed, Came]:
    """Both parts, each with a freshly started balancer."""
    cpus: Sequence[int] = sorted(os.sched_getaffinity(0))
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="reloads-")))
        processes = stack.enter_context(Processes())
        origin: Origin = start_origin(processes, cpus[-1:], directory)

        def start(part: str) -> Balancer:
            print(f"{peer.name}: {part}", flush=True)
            place = directory / part.replace(" ", "-")
            return start_balancer(processes, peer, replace(TCP, workers=workers),
                                  (origin.port, origin.own), cpus, place, for_reloads=True)

        balancer = start("connections that stay")
        stayed = staying(balancer, reloads=20, more=20, pause=0.3)
        processes.stop(balancer.running)
        return stayed, coming(start("new connections"), reloads=100, apart=0.1, clients=4)


if __name__ == "__main__":
    main()
