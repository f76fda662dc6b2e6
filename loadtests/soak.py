"""``python -m loadtests.soak``: ten minutes of everything at once, and memory must stay flat.

An lbcore of its own takes new connections all the time and holds others that stay. Meanwhile it
is reloaded every few seconds with another plan, a backend leaves and comes back, clients reset,
half-close and stream. Every few seconds the resident memory, the descriptors and the connections
of every process are written down. In the end each process must be the one that began, its memory
in the last quarter of the time no larger than in the second (the first warms up), and no
connection may have failed.
"""

from __future__ import annotations

import json
import random
import select
import socket
import statistics
import struct
import sys
import time
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import psutil

from tests.support.descriptors import raise_limit
from tests.support.echo import Backends
from tests.support.instance import Instance, descriptors, instance
from tests.support.load import Load, LongLived, Report

MIB = 1 << 20
RESET = struct.pack("ii", 1, 0)
STREAM = 4 * MIB             # bytes of one streamed exchange
RESETS_A_ROUND = 20
ALLOWED_GROWTH = 512 * 1024  # bytes, second quarter to last
ALLOWED_DESCRIPTORS = 5


@dataclass(frozen=True)
class Sample:
    """One process at one moment. Memory in bytes; ``own`` is what it shares with nobody."""

    second: int
    pid: int
    name: str
    resident: int
    own: int
    descriptors: int


@dataclass(frozen=True)
class Judged:
    """One process over the whole time; means of the second and of the last quarter, bytes."""

    name: str
    second_quarter: float
    last_quarter: float
    faults: tuple[str, ...]

    @property
    def growth(self) -> float:
        """Bytes from the second quarter to the last."""
        return self.last_quarter - self.second_quarter


def sample(lb: Instance, names: dict[int, str], second: int) -> list[Sample]:
    """Every process as it is now."""
    found = []
    for pid, name in names.items():
        with suppress(psutil.NoSuchProcess):
            memory = psutil.Process(pid).memory_full_info()
            found.append(Sample(second, pid, name, memory.rss, memory.uss, descriptors(pid)))
    return found


def judge(samples: list[Sample], name: str, seconds: int) -> Judged:
    """What the samples of one process say."""
    mine = [s for s in samples if s.name == name]
    second = [s for s in mine if seconds / 4 <= s.second < seconds / 2]
    last = [s for s in mine if s.second >= seconds * 3 / 4]
    if not second or not last:
        return Judged(name, 0.0, 0.0, ("it did not live to the end",))
    before, after = (statistics.fmean(s.resident for s in part) for part in (second, last))
    faults = []
    if after - before > ALLOWED_GROWTH:
        faults.append(f"resident memory grew by {(after - before) / 1024:.0f} KiB "
                      f"(allowed: {ALLOWED_GROWTH // 1024})")
    opened = max(s.descriptors for s in last) - max(s.descriptors for s in second)
    if opened > ALLOWED_DESCRIPTORS and name == "supervisor":
        faults.append(f"{opened} descriptors more than before")
    return Judged(name, before, after, tuple(faults))


class Disturbance:
    """What happens beside the load, a round of it every few seconds."""

    def __init__(self, lb: Instance, backends: Backends, seed: int) -> None:
        self.lb = lb
        self.backends = backends
        self.random = random.Random(seed)
        self.all = list(lb.pool["backends"])
        self.leaver = backends.echo(1)[0]
        self.rounds = 0
        self.away = False

    def round(self) -> None:
        """A reload, a backend that leaves or returns, resets, and a stream that half-closes."""
        self.rounds += 1
        if self.away:
            self.backends.come_back(self.leaver)
        else:
            self.backends.leave(self.leaver)
        self.away = not self.away
        count = self.random.randrange(1, len(self.all) + 1)
        self.lb.pool["backends"] = [*self.all[:count], self.leaver]
        self.lb.pool["balance"] = self.random.choice(
            ["round_robin", "least_conn", "random", "consistent"])
        self.lb.write()
        self.lb.admin.reload()
        for _ in range(RESETS_A_ROUND):
            self.reset()
        self.stream()

    def reset(self) -> None:
        """A client that says something and is gone."""
        with socket.create_connection(self.lb.address, 30) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            sock.sendall(bytes(self.random.randrange(1, 100_000)))

    def stream(self) -> None:
        """A client that sends much, ends its side, and reads until the other side ends."""
        sent = received = 0
        chunk = bytes(1 << 16)
        with socket.create_connection(self.lb.address, 30) as sock:
            sock.setblocking(False)
            while True:
                readable, writable, _ = select.select(
                    [sock], [sock] if sent < STREAM else [], [], 30)
                if not readable and not writable:
                    raise click.ClickException(f"a stream stalled after {received} bytes")
                if writable:
                    sent += sock.send(chunk[: STREAM - sent])
                    if sent == STREAM:
                        sock.shutdown(socket.SHUT_WR)
                if readable:
                    part = sock.recv(1 << 20)
                    if not part:
                        break
                    received += len(part)
        if received != STREAM:
            raise click.ClickException(f"{received} of {STREAM} streamed bytes came back")


def configure(lb: Instance, backends: Backends, workers: int) -> None:
    """Health checks on, so that they are part of what is watched."""
    lb.file["lbcore"]["workers"] = workers
    lb.file["log"]["level"] = "warning"
    lb.pool.update(backends=backends.echo(4), connect_timeout="500ms",
                   health={"type": "tcp", "interval": "500ms"})
    lb.write()


def soak(seconds: int, every: int, rate: int, workers: int, staying: int) -> dict[str, Any]:
    """Runs it; returns samples, what became of the connections, and the verdicts."""
    samples: list[Sample] = []
    with ExitStack() as stack:
        backends = stack.enter_context(Backends())
        lb = stack.enter_context(instance())
        configure(lb, backends, workers)
        lb.start(wait=False)
        lb.wait_until_serving()
        names = {lb.pid: "supervisor"} | {w["pid"]: f"worker {w['slot']}" for w in lb.serving()}
        clients = stack.enter_context(LongLived(lb.address))
        clients.open(staying)
        load = stack.enter_context(Load(lb.address, rate=rate))
        disturbance = Disturbance(lb, backends, seed=1)
        begin = time.monotonic()
        while (second := round(time.monotonic() - begin)) < seconds:
            disturbance.round()
            dead = clients.ask()
            if dead:
                raise click.ClickException(f"{len(dead)} connections that stay are dead: {dead[0]}")
            now = sample(lb, names, second)
            samples += now
            show(second, now, load.mark())
            time.sleep(max(0.0, begin + second + every - time.monotonic()))
        report = load.finish()
        changed = sorted(set(lb.processes()) ^ set(names))
        complaints = lb.complaints()
    judged = [judge(samples, name, seconds) for name in names.values()]
    faults = [f"{one.name}: {fault}" for one in judged for fault in one.faults]
    if report.failures:
        faults.append(f"connections failed: {report}")
    if changed:
        faults.append(f"processes came or went: {changed}")
    faults += complaints
    return {"seconds": seconds, "rounds": disturbance.rounds, "report": asdict(report),
            "samples": [asdict(s) for s in samples],
            "judged": [asdict(one) for one in judged], "faults": faults}


def show(second: int, samples: list[Sample], report: Report) -> None:
    """One line for one moment."""
    memory = "  ".join(f"{s.name} {s.resident / MIB:6.2f} ({s.own / MIB:5.2f}) MiB "
                       f"{s.descriptors:4d} fds" for s in samples)
    print(f"{second:5d} s  {memory}  {report.succeeded:8,} ok  {report.failures} failed  "
          f"p99 {report.p99_ms:.1f} ms", flush=True)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--minutes", default=10.0, show_default=True, type=click.FloatRange(0.2))
@click.option("--every", default=5, show_default=True, type=click.IntRange(1),
              help="Seconds from one round of disturbances, and one sample, to the next.")
@click.option("--rate", default=300, show_default=True, type=click.IntRange(1),
              help="New connections a second.")
@click.option("--workers", default=2, show_default=True, type=click.IntRange(1))
@click.option("--staying", default=200, show_default=True, type=click.IntRange(1),
              help="Connections that stay from beginning to end.")
@click.option("--out", type=click.Path(path_type=Path),
              default=Path(__file__).parent / "results" / "soak.json",
              help="Samples and verdict as JSON. [default: loadtests/results/soak.json]")
def main(minutes: float, every: int, rate: int, workers: int, staying: int, out: Path) -> None:
    """Soak lbcore and judge whether its memory stays flat. Exit code 1 when it does not."""
    raise_limit()
    found = soak(round(minutes * 60), every, rate, workers, staying)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(found, indent=1) + "\n")
    print(f"\n{found['rounds']} rounds, {found['report']['succeeded']:,} connections, "
          f"{found['report']['failed'] or 'none'} failed")
    print("| process | resident, second quarter, MiB | last quarter, MiB | growth, KiB |")
    print("|---|---|---|---|")
    for one in found["judged"]:
        before, after = one["second_quarter"], one["last_quarter"]
        print(f"| {one['name']} | {before / MIB:.2f} | {after / MIB:.2f} "
              f"| {(after - before) / 1024:.0f} |")
    for fault in found["faults"]:
        print(f"FAULT  {fault}")
    print(f"\n{'FAIL' if found['faults'] else 'PASS'}    written: {out}")
    sys.exit(1 if found["faults"] else 0)


if __name__ == "__main__":
    main()
