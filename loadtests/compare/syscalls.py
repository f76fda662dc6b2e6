"""``python -m loadtests.compare.syscalls``: where the kernel is entered, per balancer.

strace counts the system calls of the processes that carry traffic while a fixed number of
requests goes through connections that are already open, and while a fixed number of connections
is opened, used once and closed.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import click

from .client import Answer, Clients, answer_length, ask_many
from .origin import SIZES, start_origin
from .peers import DEFAULT_PEERS, PEERS, Balancer, start_balancer
from .procs import HarnessError, Processes, raise_descriptor_limit, wait_until
from .report import markdown_table
from .works import HTTP, TCP

CLIENTS = 16


def parse_counts(output: str) -> dict[str, int]:
    """Calls by name from the summary of ``strace -c`` (its columns vary: errors may be blank)."""
    counts: dict[str, int] = {}
    for line in output.splitlines():
        fields = line.split()
        # time %, seconds, usecs/call, calls, [errors,] name
        if len(fields) in {5, 6} and fields[-1] != "total" and fields[3].isdigit():
            counts[fields[-1]] = int(fields[3])
    return counts


def merge(counted: Mapping[str, Mapping[str, int]], units: int) -> list[list[str]]:
    """A table: calls a unit of work by name, a column for each balancer, the frequent first."""
    names = sorted({name for counts in counted.values() for name in counts},
                   key=lambda name: (-sum(c.get(name, 0) for c in counted.values()), name))

    def number(count: int) -> str:
        return "" if count == 0 else f"{count / units:.2f}"

    lines = [["", *(PEERS[peer].title for peer in counted)]]
    for name in names:
        row = [counts.get(name, 0) for counts in counted.values()]
        if max(row) / units >= 0.005:
            lines.append([name, *map(number, row)])
    lines.append(["all", *(number(sum(counts.values())) for counts in counted.values())])
    return lines


def _attached(pids: Sequence[int]) -> bool:
    """Whether every thread of the processes is traced."""
    for pid in pids:
        for status in Path(f"/proc/{pid}/task").glob("*/status"):
            if "TracerPid:\t0\n" in status.read_text():
                return False
    return True


def count(
    balancer: Balancer, directory: Path, work: Callable[[], None], cpu: int
) -> dict[str, int]:
    """System calls of the balancer's serving processes during ``work``."""
    program = shutil.which("strace")
    if program is None:
        raise HarnessError("strace is missing: apt-get install strace")
    pids = balancer.serving_pids()
    summary = directory / "strace"
    command = ["taskset", "-c", str(cpu), program, "-c", "-f", "-o", str(summary)]
    command += [word for pid in pids for word in ("-p", str(pid))]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
        try:
            def attached() -> bool:
                if tracer.poll() is not None:
                    said = tracer.stderr.read() if tracer.stderr else ""
                    raise HarnessError(f"strace ended: {said}")
                return _attached(pids)

            wait_until(attached, 10, "strace's attachment")
            work()
        finally:
            tracer.send_signal(signal.SIGINT)
            try:
                tracer.wait(10)
            except subprocess.TimeoutExpired:
                tracer.kill()
    return parse_counts(summary.read_text())


def count_requests(
    balancer: Balancer, path: str, requests: int, *, directory: Path, cpu: int
) -> dict[str, int]:
    """Calls during exchanges on connections that were opened and used before the counting."""
    length = answer_length(balancer.port, path)
    with Clients(balancer.port) as clients:
        clients.open(CLIENTS)
        clients.exchange(CLIENTS * 8, path, length)
        return count(balancer, directory, lambda: clients.exchange(requests, path, length), cpu)


def count_connections(
    balancer: Balancer, number: int, directory: Path, cpu: int
) -> dict[str, int]:
    """Calls during connections that ask once for 1 KiB and are closed by the origin."""

    def work() -> None:
        answers = ask_many(balancer.port, "/1k", number, CLIENTS)
        if answers[Answer(200, SIZES["/1k"])] != number:
            raise HarnessError(f"{balancer.peer.name}: answers under strace were {dict(answers)}")

    return count(balancer, directory, work, cpu)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--peers", default=",".join(DEFAULT_PEERS), show_default=True, metavar="PEER,...")
@click.option("--protocol", default="tcp", show_default=True, type=click.Choice(["tcp", "http"]))
@click.option("--requests", default=2000, show_default=True, type=click.IntRange(100))
@click.option("--connections", "number", default=1000, show_default=True, type=click.IntRange(100))
@click.option("--out", type=click.Path(path_type=Path),
              help="The tables as Markdown. [default: loadtests/results/syscalls.md, or "
              "syscalls-http.md]")
def main(peers: str, protocol: str, requests: int, number: int, out: Path | None) -> None:
    """Count system calls per request and per connection with strace."""
    setup = {"tcp": TCP, "http": HTTP}[protocol]
    if out is None:
        name = "syscalls.md" if setup is TCP else "syscalls-http.md"
        out = Path(__file__).parents[1] / "results" / name
    names = [name.strip() for name in peers.split(",")]
    if unknown := [name for name in names if name not in PEERS]:
        raise click.UsageError(f"unknown peer: {', '.join(unknown)}; known: {', '.join(PEERS)}")
    cpus = sorted(os.sched_getaffinity(0))
    parts = [f"System calls of the serving processes, {CLIENTS} clients, counted by strace over "
             f"{requests} requests or {number} connections."]
    try:
        raise_descriptor_limit(18_000)
        with ExitStack() as stack:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="syscalls-")))
            processes = stack.enter_context(Processes())
            origin = start_origin(processes, cpus[-1:], directory)
            balancers = [
                start_balancer(processes, PEERS[n], setup, (origin.port, origin.own), cpus[:1],
                               directory) for n in names
            ]
            for path in SIZES:
                amount = requests if path != "/1m" else requests // 20
                counted = {}
                for b in balancers:
                    print(f"counting {path}, {b.peer.name}", flush=True)
                    counted[b.peer.name] = count_requests(
                        b, path, amount, directory=directory, cpu=cpus[-1]
                    )
                size = f"{SIZES[path] // 1024} KiB" if path != "/1m" else "1 MiB"
                parts += [f"### Per request, keep-alive, {size}",
                          markdown_table(merge(counted, amount))]
            counted = {}
            for b in balancers:
                print(f"counting connections, {b.peer.name}", flush=True)
                counted[b.peer.name] = count_connections(b, number, directory, cpus[-1])
            parts += ["### Per connection, one 1 KiB exchange each",
                      markdown_table(merge(counted, number))]
    except (HarnessError, OSError) as error:
        raise click.ClickException(str(error)) from None
    text = "\n\n".join(parts) + "\n"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text)
    print(f"\n{text}\nwritten: {out}")


if __name__ == "__main__":
    main()
