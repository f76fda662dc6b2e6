"""The lb.toml of a run, and the changed ones that are reloaded over it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

POOL = "echo"
LISTENER = "load"
VARIANTS = 5
WEIGHTS = (1, 3, 2, 5)


@dataclass(frozen=True)
class Ports:
    """Loopback ports of one run. ``spare`` is for a listener that comes and goes."""

    listener: int
    spare: int
    backends: tuple[int, ...]


def backend_name(number: int) -> str:
    """Name of a backend, counted from 1."""
    return f"b{number}"


def lb_toml(admin: Path, workers: int, ports: Ports, variant: int = 0) -> str:
    """A configuration. Variant 0 is the plain one; each other changes something else:

    1 takes the last backend out, 2 changes weights, 3 adds a listener and a pool, and 4 changes
    how backends are picked and timeouts.
    """
    kind = variant % VARIANTS
    numbers = list(range(1, len(ports.backends) + 1))
    if kind == 1:
        numbers.pop()
    weights = [WEIGHTS[n % len(WEIGHTS)] if kind == 2 else 1 for n in numbers]
    balance = "least_conn" if kind == 4 else "round_robin"
    text = f"""\
# Configuration {variant} of a load scenario.
[lbcore]
workers = {workers}
drain_timeout = "1s"

[admin]
listen = "unix:{admin}"

[[listener]]
name = "{LISTENER}"
bind = "127.0.0.1:{ports.listener}"
pool = "{POOL}"
"""
    if kind == 3:
        text += f"""
[[listener]]
name = "spare"
bind = "127.0.0.1:{ports.spare}"
pool = "spare"
"""
    text += _pool(POOL, numbers, weights, ports, balance, f"{1000 + kind}ms")
    if kind == 3:
        text += _pool("spare", numbers[:1], [1], ports, balance, "1s")
    return text


def _pool(
    name: str, numbers: Sequence[int], weights: Sequence[int], ports: Ports, balance: str,
    connect_timeout: str,
) -> str:
    backends = "\n".join(
        f'  {{ address = "127.0.0.1:{ports.backends[number - 1]}", '
        f'name = "{backend_name(number)}", weight = {weight} }},'
        for number, weight in zip(numbers, weights, strict=True)
    )
    return f"""
[pool.{name}]
balance = "{balance}"
connect_timeout = "{connect_timeout}"
backends = [
{backends}
]

[pool.{name}.health]
type = "tcp"
interval = "500ms"
fast_interval = "100ms"
timeout = "1s"
rise = 2
fall = 2
"""
