"""One sample of one work, and what is read around it."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .client import Answer, Clients, answer_length, ask
from .echo import run_echo
from .origin import PAGE, SIZES, Origin, start_application, start_origin
from .paced import run_paced
from .peers import Balancer, Peer, start_balancer
from .procs import (
    HarnessError,
    Processes,
    children_cpu_ns,
    core_busy_ns,
    cpu_ns,
    settled_cpu_ns,
    unique_bytes,
)
from .stats import DISTURBED_SHARE, Sample
from .works import Setup, Work
from .wrk import InvalidSample, run_wrk

WARM_CONNECTIONS = 16
ATTEMPTS = 3            # at a sample that is free of disturbance
LOGGED_SHARE = 0.95     # of the requests: the rest may still be in a buffer
OWN_BODY = 16 * 1024


@dataclass(frozen=True)
class Places:
    """The CPUs of the balancers and those of client and origin: apart, or the same ones."""

    balancer: tuple[int, ...]
    load: tuple[int, ...]

    @property
    def shared(self) -> bool:
        """Whether all share them."""
        return self.balancer == self.load


@dataclass(frozen=True)
class Lengths:
    """How long a measurement takes, seconds, and over how many idle connections."""

    seconds: int
    idle_connections: int


class Sampler:
    """A running origin and running balancers of one stage, ready to be measured."""

    def __init__(
        self, lengths: Lengths, places: Places, processes: Processes, directory: Path, *,
        application: bool,
    ) -> None:
        self._lengths = lengths
        self._places = places
        self._processes = processes
        self._directory = directory
        self._origin: Origin = (
            start_application(processes, places.load, directory) if application
            else start_origin(processes, places.load, directory, workers=len(places.load)))
        self._balancers: dict[tuple[Setup, str], Balancer] = {}
        self._answers: dict[tuple[str, str], int] = {}      # work, peer: bytes of an answer
        self._started = 0

    def start(self, setup: Setup, peers: Sequence[Peer]) -> None:
        """Starts these peers and proves that each carries what it will be asked for unharmed."""
        for peer in peers:
            balancer = self._start(setup, peer)
            self._balancers[setup, peer.name] = balancer
            if setup.application:
                wanted = ask(self._origin.port, PAGE)
                if wanted.status != 200 or ask(balancer.port, PAGE) != wanted:
                    raise HarnessError(f"{peer.name} does not carry {PAGE} unharmed")
                continue
            for path, size in SIZES.items():
                if ask(balancer.port, path) != Answer(200, size):
                    raise HarnessError(f"{peer.name} does not carry {path} unharmed")
            if setup.protocol == "http":
                if ask(balancer.port, "/own/post", body=OWN_BODY) != Answer(200, 2):
                    raise HarnessError(f"{peer.name} does not carry a POST unharmed")
                try:
                    run_echo(balancer.port, "/own/chat", connections=1, seconds=0.01)
                except InvalidSample as error:
                    raise HarnessError(f"{peer.name} carries no WebSocket: {error}") from None

    def measure(self, work: Work, peer: Peer, number: int, rate: float) -> Sample:
        """One sample; one that other programs disturbed is taken again, the calmest is kept."""
        samples = []
        for _ in range(ATTEMPTS):
            samples.append(self._measure(work, peer, number, rate))
            if samples[-1].error is None and _disturbance(samples[-1]) <= DISTURBED_SHARE:
                return samples[-1]
        return min(samples, key=_disturbance)

    def _measure(self, work: Work, peer: Peer, number: int, rate: float) -> Sample:
        """One sample; a failed one says why and does not end the run."""
        try:
            match work.kind:
                case "closed":
                    values = self._closed(work, peer.name)
                case "echo":
                    values = self._echo(work, peer.name)
                case "paced":
                    values = self._paced(work, peer.name, rate, seed=number + 1)
                case "memory":
                    values = self._memory(work.setup, peer)
        except (InvalidSample, OSError) as error:
            return Sample(work.name, peer.name, number, error=str(error))
        return Sample(work.name, peer.name, number, values)

    def _start(self, setup: Setup, peer: Peer) -> Balancer:
        self._started += 1
        return start_balancer(
            self._processes, peer, setup, (self._origin.port, self._origin.own),
            self._places.balancer, self._directory / str(self._started))

    def _answer_bytes(self, work: Work, balancer: Balancer) -> int:
        """Bytes of an answer through this balancer, which may add fields of its own."""
        key = work.name, balancer.peer.name
        if key not in self._answers:
            self._answers[key] = answer_length(
                balancer.port, work.path, close=work.close, body=work.body)
        return self._answers[key]

    def _closed(self, work: Work, peer: str) -> dict[str, float]:
        balancer = self._balancers[work.setup, peer]
        answer_bytes = self._answer_bytes(work, balancer)
        if work.setup.log:
            balancer.empty_log()
        with self._cpu_of(balancer) as spent:
            result = run_wrk(
                f"http://127.0.0.1:{balancer.port}{work.path}",
                clients=work.clients,
                seconds=self._lengths.seconds,
                cpus=self._places.load,
                close=work.close,
                body=work.body,
                answer_bytes=answer_bytes,
            )
        values = {
            "cpu_us": spent["serving"] / 1e3 / result.requests,
            "cpu_all_us": spent["all"] / 1e3 / result.requests,
            "requests_per_s": result.requests / result.seconds,
            "p50_us": result.p50_us,
            "p99_us": result.p99_us,
            "requests": result.requests,
            **_shares(spent, self._places),
        }
        if work.setup.log:
            values["log_lines"] = _lines(balancer, result.requests)
        return values

    def _echo(self, work: Work, peer: str) -> dict[str, float]:
        balancer = self._balancers[work.setup, peer]
        with self._cpu_of(balancer) as spent:
            result = run_echo(
                balancer.port, work.path, connections=work.clients,
                seconds=self._lengths.seconds)
        return {
            "cpu_us": spent["serving"] / 1e3 / result.messages,
            "cpu_all_us": spent["all"] / 1e3 / result.messages,
            "requests_per_s": result.messages / result.seconds,
            "p50_us": result.p50_us,
            "p99_us": result.p99_us,
            "requests": result.messages,
            **_shares(spent, self._places),
        }

    def _paced(self, work: Work, peer: str, rate: float, seed: int) -> dict[str, float]:
        balancer = self._balancers[work.setup, peer]
        answer_bytes = self._answer_bytes(work, balancer)
        with self._cpu_of(balancer) as spent:
            result = run_paced(
                balancer.port, work.path, answer_bytes, rate=rate,
                connections=work.clients, seconds=self._lengths.seconds, seed=seed,
            )
        return {
            "p50_us": result.p50_us,
            "p99_us": result.p99_us,
            "p999_us": result.p999_us,
            "max_us": result.max_us,
            "requests_per_s": result.rate,
            "requests": result.requests,
            "client_late_us": result.client_late_us,
            **_shares(spent, self._places),
        }

    def _memory(self, setup: Setup, peer: Peer) -> dict[str, float]:
        """Growth of a freshly started balancer over idle connections, each used once."""
        wanted = self._lengths.idle_connections
        balancer = self._start(setup, peer)
        try:
            with Clients(balancer.port) as clients:
                clients.open(WARM_CONNECTIONS)
            settled_cpu_ns(balancer.pids())
            serving, everything = balancer.serving_pids(), balancer.pids()
            before, before_all = unique_bytes(serving), unique_bytes(everything)
            with Clients(balancer.port) as clients:
                clients.open(wanted)
                settled_cpu_ns(everything)
                after, after_all = unique_bytes(serving), unique_bytes(everything)
                living = clients.alive()
            if living != wanted:
                raise InvalidSample(f"only {living} idle connections survived")
            if balancer.serving_pids() != serving:
                raise InvalidSample("the serving processes changed meanwhile")
        finally:
            self._processes.stop(balancer.running)
        return {
            "bytes_per_pair": (after - before) / wanted,
            "bytes_per_pair_all": (after_all - before_all) / wanted,
            "unique_before": before_all,
            "unique_after": after_all,
        }

    @contextmanager
    def _cpu_of(self, balancer: Balancer) -> Iterator[dict[str, float]]:
        """Fills in, on leaving, the CPU nanoseconds that went by in between, by who used them.

        ``serving``: processes that carry traffic; ``all``: every process of the balancer;
        ``idle``: the other balancers, which have nothing to do; ``load``: client and origin;
        ``core`` and ``load_core``: everything that used the balancer's cores and theirs;
        ``wall``: the time itself.
        """
        balancer.running.check()
        self._origin.check()
        serving, everything = balancer.serving_pids(), balancer.pids()
        others = [pid for b in self._balancers.values() if b is not balancer for pid in b.pids()]
        origin = [process.pid for process in self._origin.processes()]

        def read() -> dict[str, int]:
            return {
                "all": settled_cpu_ns(everything),
                "serving": cpu_ns(serving),
                "idle": cpu_ns(others),
                "load": cpu_ns([*origin, os.getpid()]) + children_cpu_ns(),
                "core": core_busy_ns(self._places.balancer),
                "load_core": core_busy_ns(self._places.load),
                "wall": time.monotonic_ns(),
            }

        spent: dict[str, float] = {}
        before = read()
        yield spent
        spent.update({name: value - before[name] for name, value in read().items()})
        if balancer.serving_pids() != serving:
            raise InvalidSample("the serving processes changed during the measurement")


def _shares(spent: dict[str, float], places: Places) -> dict[str, float]:
    """Of the time: how busy the balancer and the load were, and how much others disturbed."""
    wall, load_wall = (spent["wall"] * len(cpus) for cpus in (places.balancer, places.load))
    foreign = spent["core"] - spent["all"] - spent["idle"]
    foreign_load = spent["load_core"] - spent["load"]
    if places.shared:
        foreign -= spent["load"]
        foreign_load = 0.0              # the same cores: counted once
    return {
        "busy_share": spent["all"] / wall,
        "load_busy_share": spent["load"] / load_wall,
        "idle_peers_share": spent["idle"] / wall,
        "foreign_share": max(0.0, foreign) / wall,
        "foreign_load_share": max(0.0, foreign_load) / load_wall,
    }


def _lines(balancer: Balancer, requests: int) -> int:
    """The lines of the access log; InvalidSample when requests are missing from it."""
    deadline = time.monotonic() + 1.5           # the longest that a buffer is kept is a second
    lines = 0
    while True:
        lines += balancer.empty_log()
        if lines >= LOGGED_SHARE * requests:
            return lines
        if time.monotonic() > deadline:
            raise InvalidSample(f"{lines} lines in the access log after {requests} requests")
        time.sleep(0.1)


def _disturbance(sample: Sample) -> float:
    """The share of either side's cores that outsiders used; a failed sample is worse than any."""
    if sample.error is not None:
        return math.inf
    values = sample.values
    return max(values.get("foreign_share", 0.0), values.get("foreign_load_share", 0.0))
