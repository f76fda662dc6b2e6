"""The rounds: every peer in turn on every work, one stage after the other."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from .compiled import compiled
from .peers import Peer
from .procs import HarnessError, Processes, raise_descriptor_limit
from .sampler import Lengths, Places, Sampler
from .stats import Sample, rotated
from .works import WORKS, Setup, Work

DESCRIPTORS = 18_000            # nginx asks for one per connection and side, HAProxy for pipes
TOOLS = ("_paced", "_echo", "_own")

Tell = Callable[[str, str, int], None]      # work, peer, round: before each measurement


@dataclass(frozen=True)
class Settings:
    """How long and where to measure. ``cpus``: the balancer's, then those of client and origin."""

    rounds: int
    lengths: Lengths
    cpus: tuple[int, ...]


def choose_cpus(allowed: Sequence[int], setup: Setup) -> Places:
    """Where balancers and the load run; raises HarnessError when there is only one CPU.

    One worker has the first CPU, client and origin have the second. Two workers have two, and
    client and origin two others if there are four; otherwise all share the two. So do they in
    front of an application.
    """
    if len(allowed) < 2:
        raise HarnessError(
            "two CPUs are needed, one for the balancer and one for client and origin; "
            f"this process may use {list(allowed)}"
        )
    if not setup.shared:
        return Places((allowed[0],), (allowed[1],))
    pair = tuple(allowed[:2])
    apart = setup.workers > 1 and len(allowed) >= 4
    return Places(pair, tuple(allowed[2:4]) if apart else pair)


def stages(works: Sequence[Work]) -> list[list[Work]]:
    """The works by stage, both in the order given."""
    found: dict[str, list[Work]] = {}
    for work in works:
        found.setdefault(work.setup.stage, []).append(work)
    return list(found.values())


def steps(works: Sequence[Work], peers: Sequence[Peer], rounds: int) -> int:
    """Measurements that a run takes, those of saturation included."""
    return sum(
        (rounds + bool(work.saturation)) * sum(peer.takes(work) for peer in peers)
        for work in works)


def compare(
    settings: Settings, works: Sequence[Work], peers: Sequence[Peer], tell: Tell
) -> tuple[list[Sample], dict[str, float]]:
    """All rounds of all works; returns the samples and the rates of the paced works.

    Raises HarnessError when the machine or a program is not fit to be measured.
    """
    raise_descriptor_limit(DESCRIPTORS)
    for tool in TOOLS:
        compiled(tool)
    samples: list[Sample] = []
    rates: dict[str, float] = {}
    for stage in stages(works):
        _stage(settings, stage, peers, tell, samples, rates)
    return samples, rates


def _stage(
    settings: Settings, works: Sequence[Work], peers: Sequence[Peer], tell: Tell,
    samples: list[Sample], rates: dict[str, float],
) -> None:
    """One stage: its origin and its balancers run from its first measurement to its last."""
    first = works[0].setup
    places = choose_cpus(settings.cpus, first)
    os.sched_setaffinity(0, places.load)
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="compare-")))
        processes = stack.enter_context(Processes())
        sampler = Sampler(settings.lengths, places, processes, directory,
                          application=first.application)
        for setup, taking in _setups(works, peers):
            sampler.start(setup, taking)
        for work in works:
            if work.saturation:
                rates[work.name] = _half_of_saturation(sampler, work, peers, tell)
        for number in range(settings.rounds):
            for work in works:
                taking = [peer for peer in peers if peer.takes(work)]
                for peer in rotated(taking, number):
                    tell(work.name, peer.name, number)
                    samples.append(sampler.measure(work, peer, number, rates.get(work.name, 0.0)))


def _setups(works: Sequence[Work], peers: Sequence[Peer]) -> list[tuple[Setup, list[Peer]]]:
    """The setups that are needed, each with the peers to be started; memory starts its own."""
    found: dict[Setup, list[Peer]] = {}
    for work in works:
        if work.kind == "memory":
            continue
        taking = found.setdefault(work.setup, [])
        taking += [peer for peer in peers if peer.takes(work) and peer not in taking]
    return list(found.items())


def _half_of_saturation(
    sampler: Sampler, work: Work, peers: Sequence[Peer], tell: Tell
) -> float:
    """Half of what the slowest peer reaches in a closed loop: a rate that all can be asked for."""
    reached = []
    for peer in peers:
        if not peer.takes(work):
            continue
        tell(f"saturation for {work.name}", peer.name, 0)
        sample = sampler.measure(WORKS[work.saturation], peer, 0, 0.0)
        if sample.error is not None:
            raise HarnessError(f"saturation of {peer.name} could not be measured: {sample.error}")
        reached.append(sample.values["requests_per_s"])
    return min(reached) / 2
