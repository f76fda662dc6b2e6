"""Descriptors: as many as the system allows, because every connection takes two."""

from __future__ import annotations

import resource
from pathlib import Path

NR_OPEN = Path("/proc/sys/fs/nr_open")
# Standard streams, scoreboard, control channel, timers, listening sockets and spare pipes.
RESERVED = 128


def raise_descriptor_limit() -> int:
    """Raises the soft limit of open descriptors to the hard one, and that if we may.

    Workers inherit it. Returns the soft limit in force.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        ceiling = int(NR_OPEN.read_text())
    except (OSError, ValueError):
        ceiling = hard
    for wanted in (max(hard, ceiling), hard):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(wanted, hard)))
        except (ValueError, OSError):   # not privileged, or the container forbids it
            continue
        return wanted
    return soft


def connections_within(descriptors: int, pipes: int) -> int:
    """Connections one worker can hold: two descriptors each, besides its splice pipes."""
    return max(0, (descriptors - RESERVED - 2 * pipes) // 2)
