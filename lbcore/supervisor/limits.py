"""Descriptors: as many as the system allows, because every connection takes two."""

from __future__ import annotations

import resource
from pathlib import Path

NR_OPEN = Path("/proc/sys/fs/nr_open")
# The interpreter's, the control channel's and others of the kind: RESERVED_DESCRIPTORS in
# _session.pxd, which a worker keeps free.
RESERVED = 64


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


def connections_within(descriptors: int, listening: int) -> int:
    """Connections one worker can hold: two descriptors each, besides its listening sockets.

    Splice pipes take what connections leave.
    """
    return max(0, (descriptors - RESERVED - listening) // 2)
