"""Kernel settings that matter to a balancer: what they are, what they should be, and why.

A setting that this kernel or container does not have is passed over.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from lbcore.config.host_dangers import NET_BIND_SERVICE, capable
from lbcore.doctor.model import SYSCTL_FILE, UNIT, Check, Level
from lbcore.doctor.needs import Needs

PROC = Path("/proc/sys")
NETWORK = "network"
FEW_PORTS = 20_000           # fewer were chosen by somebody: the kernel's own choice is 28,232
PORT_RANGE = "net.ipv4.ip_local_port_range"
WIDE = (1024, 65535)         # of ports, all that need no privilege
FULL = 0.8                   # share of a table from which on it counts as nearly full
NAMES = (
    "fs.nr_open", "fs.file-max", "fs.pipe-user-pages-soft",
    "net.core.somaxconn", "net.core.netdev_max_backlog", "net.core.rmem_max", "net.core.wmem_max",
    "net.ipv4.tcp_max_syn_backlog", "net.ipv4.tcp_syncookies", "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports", "net.ipv4.tcp_tw_reuse", "net.ipv4.tcp_migrate_req",
    "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_fastopen", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem",
    "net.ipv4.tcp_slow_start_after_idle", "net.ipv4.ip_nonlocal_bind",
    "net.ipv4.ip_unprivileged_port_start", "net.ipv4.tcp_max_tw_buckets",
    "net.netfilter.nf_conntrack_max", "net.netfilter.nf_conntrack_count",
)


def read(root: Path = PROC, names: Iterable[str] = NAMES) -> dict[str, str]:
    """The settings that there are, with one space between the parts of each."""
    found = {}
    for name in names:
        try:
            found[name] = " ".join((root / name.replace(".", "/")).read_text().split())
        except OSError:
            continue
    return found


@dataclass(frozen=True)
class Least:
    """A setting that should be at least so large."""

    name: str
    least: int
    why: str
    level: Level = Level.ADVICE
    part: int = -1               # of several numbers, which one; -1: there is one

    def check(self, value: str) -> Check:
        """What there is to say of a value."""
        parts = value.split()
        had = int(parts[self.part] if self.part >= 0 else parts[0])
        if had >= self.least:
            return Check(NETWORK, self.name, value)
        wanted = str(self.least)
        if self.part >= 0:
            wanted = " ".join([*parts[: self.part], wanted, *parts[self.part + 1 :]])
        return Check(NETWORK, self.name, value, self.level, wanted, self.why,
                     f"{self.name} = {wanted}", SYSCTL_FILE)


def checks(needs: Needs, values: Mapping[str, str]) -> Iterator[Check]:
    """Every setting that is there, judged by what is needed."""
    for rule in _least(needs):
        if rule.name in values:
            yield rule.check(values[rule.name])
    for judge in (_ports, _reserved, _waiting, _idle, _fin, _nonlocal, _privileged, _conntrack):
        yield from judge(needs, values)


def _least(needs: Needs) -> Iterator[Least]:
    backlog = needs.largest_backlog
    yield Least("net.core.somaxconn", backlog,
                f"queues of listeners are cut to this, whatever backlog says ({backlog})")
    yield Least("net.ipv4.tcp_max_syn_backlog", min(backlog, 4096),
                "handshakes under way; more are answered with SYN cookies, or not at all",
                Level.NOTE)
    yield Least("net.ipv4.tcp_syncookies", 1, "a flood of SYN packets locks everybody else out")
    yield Least("net.core.netdev_max_backlog", 1000,
                "packets that come faster than one CPU takes them are dropped")
    yield Least("net.ipv4.tcp_rmem", 4 << 20, "fast connections over long distances are held up",
                Level.NOTE, part=2)
    yield Least("net.ipv4.tcp_wmem", 4 << 20, "fast connections over long distances are held up",
                Level.NOTE, part=2)
    if needs.workers > 1:
        yield Least("net.ipv4.tcp_migrate_req", 1,
                    "a listening socket that is closed then hands what it holds to its neighbours: "
                    "for what lbcore cannot steer away before, such as after kill -9", Level.NOTE)
    if needs.fastopen:
        yield Least("net.ipv4.tcp_fastopen", 3, "fastopen of a listener has no effect: only the "
                    "second bit of this lets servers use it")


def _per_backend(needs: Needs) -> int:
    """Connections that each backend may have at once, if all have the same share."""
    return -(-needs.connections // max(1, needs.backends))


def _too_few(needs: Needs, ports: int) -> bool:
    return _per_backend(needs) > FULL * ports or ports < FEW_PORTS


def _ports(needs: Needs, values: Mapping[str, str]) -> Iterator[Check]:
    """Ports for connections to backends: as many at once to one address as the range has."""
    if PORT_RANGE not in values:
        return
    low, high = map(int, values[PORT_RANGE].split())
    ports = high - low + 1
    value = f"{values[PORT_RANGE]} ({ports:,} connections to each backend address)"
    if not _too_few(needs, ports):
        yield Check(NETWORK, PORT_RANGE, value)
        return
    wanted = _per_backend(needs)
    why = (f"max_connections allow {wanted:,} to each backend"
           if wanted > FULL * ports else "connections to a backend fail when all ports are taken")
    wide = "{} {}".format(*WIDE)
    yield Check(NETWORK, PORT_RANGE, value, Level.ADVICE, wide,
                f"{why}; reserve the ports of all servers here, as below",
                f"{PORT_RANGE} = {wide}", SYSCTL_FILE)


def _reserved(needs: Needs, values: Mapping[str, str]) -> Iterator[Check]:
    """Ports of listeners that an outgoing connection could take while lbcore is not there.

    Where a wider range is advised, that range is what counts: who follows one advice shall not need
    to ask for the next.
    """
    name = "net.ipv4.ip_local_reserved_ports"
    if PORT_RANGE not in values or name not in values:
        return
    low, high = map(int, values[PORT_RANGE].split())
    if _too_few(needs, high - low + 1):
        low, high = WIDE
    reserved = [part.partition("-") for part in values[name].split(",") if part]
    spans = [(int(first), int(last or first)) for first, _, last in reserved]
    open_ports = [port for port in needs.ports() if low <= port <= high
                  and not any(first <= port <= last for first, last in spans)]
    if open_ports:
        wanted = ",".join(filter(None, [values[name], *map(str, sorted(open_ports))]))
        yield Check(NETWORK, name, values[name] or "none", Level.ADVICE, wanted,
                    "any program's outgoing connection may have a listener's port when lbcore "
                    "starts", f"{name} = {wanted}", SYSCTL_FILE)
    else:
        yield Check(NETWORK, name, values[name] or "none")


def _waiting(needs: Needs, values: Mapping[str, str]) -> Iterator[Check]:
    name = "net.ipv4.tcp_tw_reuse"
    if name not in values:
        return
    worse = needs.short_lived and values[name] != "1"
    yield Check(NETWORK, name, values[name], Level.NOTE if worse else Level.OK,
                "1" if worse else "", "connections to backends leave their ports for a minute; "
                "with 1, one is used again after a second where timestamps make that safe"
                if worse else "", f"{name} = 1" if worse else "", SYSCTL_FILE if worse else "")


def _idle(needs: Needs, values: Mapping[str, str]) -> Iterator[Check]:
    name = "net.ipv4.tcp_slow_start_after_idle"
    if name not in values:
        return
    slow = values[name] != "0"
    yield Check(NETWORK, name, values[name], Level.NOTE if slow else Level.OK, "0" if slow else "",
                "a kept connection that was idle begins slowly again" if slow else "",
                f"{name} = 0" if slow else "", SYSCTL_FILE if slow else "")


def _fin(needs: Needs, values: Mapping[str, str]) -> Iterator[Check]:
    name = "net.ipv4.tcp_fin_timeout"
    if name not in values:
        return
    long = int(values[name]) > 60
    yield Check(NETWORK, name, values[name], Level.ADVICE if long else Level.OK,
                "60" if long else "", "connections that the other side does not end take memory "
                "for so many seconds" if long else "", f"{name} = 60" if long else "",
                SYSCTL_FILE if long else "")


def _nonlocal(needs: Needs, values: Mapping[str, str]) -> Iterator[Check]:
    """Addresses that this machine has not, or not yet: those that move between machines."""
    name = "net.ipv4.ip_nonlocal_bind"
    if name not in values:
        return
    own = {address.address.partition("%")[0]
           for addresses in psutil.net_if_addrs().values() for address in addresses}
    strange = [bind.host for bind in needs.binds if bind.host and "." in bind.host
               and not bind.host.startswith("127.") and bind.host not in {*own, "0.0.0.0"}]
    if strange and values[name] != "1":
        yield Check(NETWORK, name, values[name], Level.PROBLEM, "1",
                    f"this machine has no address {', '.join(strange)}; if it moves between "
                    "machines, lbcore may listen on it before it comes", f"{name} = 1", SYSCTL_FILE)
    else:
        yield Check(NETWORK, name, values[name])


def _privileged(needs: Needs, values: Mapping[str, str]) -> Iterator[Check]:
    name = "net.ipv4.ip_unprivileged_port_start"
    if name not in values:
        return
    low = [port for port in needs.ports() if port < int(values[name])]
    if low and not capable(NET_BIND_SERVICE):
        yield Check(NETWORK, name, values[name], Level.PROBLEM, str(min(low)),
                    f"user {os.geteuid()} may not listen on {', '.join(map(str, low))}",
                    "AmbientCapabilities=CAP_NET_BIND_SERVICE", UNIT)
    else:
        yield Check(NETWORK, name, values[name])


def _conntrack(needs: Needs, values: Mapping[str, str]) -> Iterator[Check]:
    """A packet filter that remembers connections: each of ours is two, and a full table drops."""
    name, count = "net.netfilter.nf_conntrack_max", "net.netfilter.nf_conntrack_count"
    if name not in values:
        return
    most, now = int(values[name]), int(values.get(count, "0"))
    least = 2 * needs.connections
    small, full = most < least, now > FULL * most
    value = f"{most:,} ({now:,} in use)"
    if small or full:
        wanted = max(least, 2 * most if full else 0, 262_144)
        why = (f"max_connections allow {needs.connections:,}, and each is two here"
               if small else "it is nearly full; packets of new connections are dropped then")
        yield Check(NETWORK, name, value, Level.ADVICE, str(wanted), why, f"{name} = {wanted}",
                    SYSCTL_FILE)
    else:
        yield Check(NETWORK, name, value)
