"""The rounds: every peer in turn on every work, and what is read around each measurement."""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from .client import Answer, Clients, ask
from .origin import SIZES, Origin, start_origin
from .paced import build, run_paced
from .peers import Balancer, Peer, start_balancer
from .procs import (
    HarnessError,
    Processes,
    children_cpu_ns,
    core_busy_ns,
    cpu_ns,
    raise_descriptor_limit,
    settled_cpu_ns,
    unique_bytes,
)
from .stats import DISTURBED_SHARE, Sample, rotated
from .works import SATURATION, Work
from .wrk import InvalidSample, run_wrk

WARM_CONNECTIONS = 16
ATTEMPTS = 3                    # at a sample that is free of disturbance
DESCRIPTORS = 18_000            # nginx asks for one per connection and side, HAProxy for pipes

Tell = Callable[[str, str, int], None]      # work, peer, round: before each measurement


@dataclass(frozen=True)
class Settings:
    """How long and where to measure."""

    rounds: int
    seconds: int
    idle_connections: int
    balancer_cpu: int
    client_cpu: int


def choose_cpus(allowed: Sequence[int]) -> tuple[int, int]:
    """The balancer's CPU and the clients'; raises HarnessError when there is only one."""
    if len(allowed) < 2:
        raise HarnessError(
            "two CPUs are needed, one for the balancer and one for client and origin; "
            f"this process may use {list(allowed)}"
        )
    return allowed[0], allowed[1]


class Run:
    """A running origin and running balancers, ready to be measured."""

    def __init__(
        self, settings: Settings, peers: Sequence[Peer], processes: Processes, directory: Path
    ) -> None:
        self._settings = settings
        self._peers = {peer.name: peer for peer in peers}
        self._processes = processes
        self._directory = directory
        self._origin: Origin = start_origin(processes, settings.client_cpu, directory)
        self._balancers: dict[str, Balancer] = {}
        self._lengths = {path: self._origin.length(path) for path in SIZES}
        self._started = 0

    def start(self, peers: Sequence[str]) -> None:
        """Starts these peers and proves that each carries every size unharmed."""
        for name in peers:
            balancer = self._start(self._peers[name])
            self._balancers[name] = balancer
            for path, size in SIZES.items():
                if ask(balancer.port, path) != Answer(200, size):
                    raise HarnessError(f"{name} does not carry {path} unharmed")

    def measure(self, work: Work, peer: str, number: int, rate: float) -> Sample:
        """One sample; one that other programs disturbed is taken again, the calmest is kept."""
        samples = []
        for _ in range(ATTEMPTS):
            samples.append(self._measure(work, peer, number, rate))
            if samples[-1].error is None and _disturbance(samples[-1]) <= DISTURBED_SHARE:
                return samples[-1]
        return min(samples, key=_disturbance)

    def _measure(self, work: Work, peer: str, number: int, rate: float) -> Sample:
        """One sample; a failed one says why and does not end the run."""
        try:
            if work.kind == "closed":
                values = self._closed(work, peer)
            elif work.kind == "paced":
                values = self._paced(work, peer, rate, seed=number + 1)
            else:
                values = self._memory(peer)
        except (InvalidSample, OSError) as error:
            return Sample(work.name, peer, number, error=str(error))
        return Sample(work.name, peer, number, values)

    def _start(self, peer: Peer) -> Balancer:
        self._started += 1
        place = self._directory / str(self._started)
        return start_balancer(
            self._processes, peer, self._origin.port, [self._settings.balancer_cpu], place
        )

    def _closed(self, work: Work, peer: str) -> dict[str, float]:
        balancer = self._balancers[peer]
        with self._cpu_of(balancer) as spent:
            # "Connection: close" is answered in kind, some bytes longer than "keep-alive".
            longer = len("close") - len("keep-alive") if work.headers else 0
            result = run_wrk(
                f"http://127.0.0.1:{balancer.port}{work.path}",
                clients=work.clients,
                seconds=self._settings.seconds,
                cpu=self._settings.client_cpu,
                headers=work.headers,
                answer_bytes=self._lengths[work.path] + longer,
            )
        return {
            "cpu_us": spent["serving"] / 1e3 / result.requests,
            "cpu_all_us": spent["all"] / 1e3 / result.requests,
            "requests_per_s": result.requests / result.seconds,
            "p50_us": result.p50_us,
            "p99_us": result.p99_us,
            "requests": result.requests,
            **_shares(spent),
        }

    def _paced(self, work: Work, peer: str, rate: float, seed: int) -> dict[str, float]:
        balancer = self._balancers[peer]
        with self._cpu_of(balancer) as spent:
            result = run_paced(
                balancer.port, work.path, self._lengths[work.path], rate=rate,
                connections=work.clients, seconds=self._settings.seconds, seed=seed,
            )
        return {
            "p50_us": result.p50_us,
            "p99_us": result.p99_us,
            "p999_us": result.p999_us,
            "max_us": result.max_us,
            "requests_per_s": result.rate,
            "requests": result.requests,
            "client_late_us": result.client_late_us,
            **_shares(spent),
        }

    def _memory(self, peer: str) -> dict[str, float]:
        """Growth of a freshly started balancer over idle connections, each used once."""
        balancer = self._start(self._peers[peer])
        try:
            with Clients(balancer.port) as clients:
                clients.open(WARM_CONNECTIONS)
            settled_cpu_ns(balancer.pids())
            serving, everything = balancer.serving_pids(), balancer.pids()
            before, before_all = unique_bytes(serving), unique_bytes(everything)
            with Clients(balancer.port) as clients:
                clients.open(self._settings.idle_connections)
                settled_cpu_ns(everything)
                after, after_all = unique_bytes(serving), unique_bytes(everything)
                living = clients.alive()
            if living != self._settings.idle_connections:
                raise InvalidSample(f"only {living} idle connections survived")
            if balancer.serving_pids() != serving:
                raise InvalidSample("the serving processes changed meanwhile")
        finally:
            self._processes.stop(balancer.running)
        return {
            "bytes_per_pair": (after - before) / self._settings.idle_connections,
            "bytes_per_pair_all": (after_all - before_all) / self._settings.idle_connections,
            "unique_before": before_all,
            "unique_after": after_all,
        }

    @contextmanager
    def _cpu_of(self, balancer: Balancer) -> Iterator[dict[str, float]]:
        """Fills in, on leaving, the CPU nanoseconds that went by in between, by who used them.

        ``serving``: processes that carry traffic; ``all``: every process of the balancer;
        ``idle``: the other balancers, which have nothing to do; ``load``: client and origin;
        ``core`` and ``load_core``: everything that used the balancer's core and theirs;
        ``wall``: the time itself.
        """
        balancer.running.check()
        serving, everything = balancer.serving_pids(), balancer.pids()
        others = [pid for b in self._balancers.values() if b is not balancer for pid in b.pids()]
        origin = [process.pid for process in self._origin.running.tree()]

        def read() -> dict[str, int]:
            return {
                "all": settled_cpu_ns(everything),
                "serving": cpu_ns(serving),
                "idle": cpu_ns(others),
                "load": cpu_ns([*origin, os.getpid()]) + children_cpu_ns(),
                "core": core_busy_ns(self._settings.balancer_cpu),
                "load_core": core_busy_ns(self._settings.client_cpu),
                "wall": time.monotonic_ns(),
            }

        spent: dict[str, float] = {}
        before = read()
        yield spent
        spent.update({name: value - before[name] for name, value in read().items()})
        if balancer.serving_pids() != serving:
            raise InvalidSample("the serving processes changed during the measurement")


def _shares(spent: dict[str, float]) -> dict[str, float]:
    """Of the time: how busy the balancer and the load were, and how much others disturbed."""
    wall = spent["wall"]
    return {
        "busy_share": spent["all"] / wall,
        "load_busy_share": spent["load"] / wall,
        "idle_peers_share": spent["idle"] / wall,
        "foreign_share": max(0.0, spent["core"] - spent["all"] - spent["idle"]) / wall,
        "foreign_load_share": max(0.0, spent["load_core"] - spent["load"]) / wall,
    }


def _disturbance(sample: Sample) -> float:
    """The share of either core that outsiders used; a failed sample is worse than any."""
    if sample.error is not None:
        return math.inf
    values = sample.values
    return max(values.get("foreign_share", 0.0), values.get("foreign_load_share", 0.0))


def compare(
    settings: Settings, works: Sequence[Work], peers: Sequence[Peer], tell: Tell
) -> tuple[list[Sample], float]:
    """All rounds of all works; returns the samples and the paced rate (0 when none was needed).

    Raises HarnessError when the machine or a program is not fit to be measured.
    """
    os.sched_setaffinity(0, {settings.client_cpu})
    raise_descriptor_limit(DESCRIPTORS)
    samples: list[Sample] = []
    names = [peer.name for peer in peers]
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="compare-")))
        processes = stack.enter_context(Processes())
        run = Run(settings, peers, processes, directory)
        if any(work.kind != "memory" for work in works):
            run.start(names)
        rate = 0.0
        if any(work.kind == "paced" for work in works):
            build()
            rate = _half_of_saturation(run, names, tell)
        for number in range(settings.rounds):
            for work in works:
                for name in rotated(names, number):
                    tell(work.name, name, number)
                    samples.append(run.measure(work, name, number, rate))
    return samples, rate


def _half_of_saturation(run: Run, names: Sequence[str], tell: Tell) -> float:
    """Half of what the slowest peer reaches in a closed loop: a rate that all can be asked for."""
    reached = []
    for name in names:
        tell("saturation", name, 0)
        sample = run.measure(SATURATION, name, 0, 0.0)
        if sample.error is not None:
            raise HarnessError(f"saturation of {name} could not be measured: {sample.error}")
        reached.append(sample.values["requests_per_s"])
    return min(reached) / 2
