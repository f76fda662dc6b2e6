"""Limits of processes: descriptors, memory, CPUs, and what lbcore makes of them."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from lbcore.config.cpus import CGROUP_ROOT, SELF_CGROUP, usable_cpus
from lbcore.config.host_dangers import descriptor_limit
from lbcore.doctor.model import SYSCTL_FILE, UNIT, Check, Level
from lbcore.doctor.needs import Needs
from lbcore.supervisor.limits import connections_within

FEW = 4096                   # connections of one worker under which a limit was left as it came
SUPERVISOR = 96 << 20        # bytes resident; of an instance with 1,000 backends, rounded up
WORKER = 16 << 20            # bytes resident, less what connections need
PIPE_PAGES = 256             # of a pipe that moves a large stream: PIPE_SIZE in _relay.pyx
LIMITS = "limits"


@dataclass(frozen=True)
class Running:
    """What a running instance says of itself."""

    pid: int
    workers: tuple[int, ...]     # process numbers
    version: str = ""

    def descriptor_limit(self) -> int | None:
        """Descriptors that its workers may have; None when that is not for us to see."""
        for pid in self.workers:
            try:
                return psutil.Process(pid).rlimit(psutil.RLIMIT_NOFILE)[0]
            except psutil.Error:
                continue
        return None

    def resident(self) -> int | None:
        """Bytes of memory that supervisor and workers have; None when that is not to be seen."""
        try:
            return sum(int(psutil.Process(pid).memory_info().rss)
                       for pid in (self.pid, *self.workers))
        except psutil.Error:
            return None


def checks(
    needs: Needs, running: Running | None, sysctls: Mapping[str, str]
) -> Iterator[Check]:
    """Descriptors, pipes, memory and CPUs."""
    yield from _descriptors(needs, running, sysctls)
    yield from _pipes(needs, sysctls)
    yield from _memory(needs, running)
    yield from _cpus(needs)


def limit_for(running: Running | None) -> tuple[int, str]:
    """Descriptors that each worker has or would have, and whose limit that is."""
    found = running.descriptor_limit() if running else None
    if found is not None:
        return found, "of the running workers"
    return descriptor_limit(), "when started from here"


def _descriptors(
    needs: Needs, running: Running | None, sysctls: Mapping[str, str]
) -> Iterator[Check]:
    limit, whose = limit_for(running)
    room = connections_within(limit, needs.listening)
    total = room * needs.workers
    value = f"{limit:,} {whose}: {room:,} connections for each of {needs.workers} worker(s)"
    wanted = needs.descriptors(needs.connections)
    if not room:
        yield Check(LIMITS, "open files", value, Level.PROBLEM, f"{needs.descriptors(FEW)}",
                    "there is no descriptor left for a connection",
                    f"LimitNOFILE={needs.descriptors(FEW * needs.workers)}", UNIT)
    elif needs.connections > total:
        yield Check(LIMITS, "open files", value, Level.ADVICE, f"{wanted:,}",
                    f"max_connections allow {needs.connections:,}", f"LimitNOFILE={wanted}", UNIT)
    elif room < FEW:
        much = needs.descriptors(FEW * needs.workers)
        yield Check(LIMITS, "open files", value, Level.ADVICE, f"{much:,}",
                    "more connections wait until others end", f"LimitNOFILE={max(much, 65536)}",
                    UNIT)
    else:
        yield Check(LIMITS, "open files", value)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield Check(LIMITS, "open files of this shell", f"{soft:,} soft, {hard:,} hard")
    for name in ("fs.nr_open", "fs.file-max"):
        if name not in sysctls:
            continue
        had = int(sysctls[name])
        # Of all processes together: connections once, and as much again for everybody else.
        least = wanted if name == "fs.nr_open" else 2 * wanted * needs.workers
        enough = had >= least
        yield Check(LIMITS, name, f"{had:,}", Level.OK if enough else Level.ADVICE,
                    "" if enough else f"{least:,}",
                    "" if enough else "no process gets more than this, whatever its limit",
                    "" if enough else f"{name} = {least}", "" if enough else SYSCTL_FILE)


def _pipes(needs: Needs, sysctls: Mapping[str, str]) -> Iterator[Check]:
    name = "fs.pipe-user-pages-soft"
    if name not in sysctls:
        return
    had, wanted = int(sysctls[name]), needs.pipes * PIPE_PAGES
    # Who has CAP_SYS_RESOURCE or CAP_SYS_ADMIN is not held to it, see pipe(7).
    tight = 0 < had < wanted
    yield Check(LIMITS, name, f"{had:,} pages", Level.NOTE if tight else Level.OK,
                f"{wanted:,}" if tight else "",
                f"workers that are not root have {had // PIPE_PAGES} pipes for large streams; what "
                "is above is copied" if tight else "",
                f"{name} = {wanted}" if tight else "", SYSCTL_FILE if tight else "")


def memory_limit() -> tuple[int, str]:
    """Bytes that lbcore may use, and what says so: a cgroup (v2), or the machine's memory."""
    total = int(psutil.virtual_memory().total)
    tightest, whose = total, "of the machine"
    try:
        path = next(line[3:] for line in SELF_CGROUP.read_text().splitlines()
                    if line.startswith("0::"))
    except (OSError, StopIteration):
        return tightest, whose
    group = CGROUP_ROOT / path.lstrip("/")
    while group.is_relative_to(CGROUP_ROOT):
        limit = _number(group / "memory.max")
        if limit is not None and limit < tightest:
            tightest, whose = limit, "allowed by its cgroup"
        group = group.parent
    return tightest, whose


def _memory(needs: Needs, running: Running | None) -> Iterator[Check]:
    limit, whose = memory_limit()
    least = SUPERVISOR + WORKER * needs.workers
    value = f"{limit >> 20:,} MiB {whose}"
    used = running.resident() if running else None
    if used is not None:
        value += f"; lbcore has {used >> 20:,} MiB"
    short = limit < 2 * least
    yield Check(LIMITS, "memory", value, Level.ADVICE if short else Level.OK,
                f"{2 * least >> 20} MiB" if short else "",
                f"lbcore alone takes about {least >> 20} MiB before the first connection"
                if short else "", f"MemoryMax={2 * least >> 20}M" if short else "",
                UNIT if short else "")


def _cpus(needs: Needs) -> Iterator[Check]:
    usable, there = usable_cpus(), os.cpu_count() or 1
    value = f"{usable} usable of {there}, {needs.workers} worker(s)"
    many = needs.workers > usable
    yield Check(LIMITS, "CPUs", value, Level.NOTE if many else Level.OK,
                f"workers = {usable}" if many else "",
                "workers that share a CPU wait for each other" if many else "",
                'workers = "auto"' if many else "", "[lbcore] in the configuration" if many else "")


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):        # "max"
        return None
