"""How many CPUs this process may use: what ``workers = "auto"`` means."""

from __future__ import annotations

import math
import os
from pathlib import Path

CGROUP_ROOT = Path("/sys/fs/cgroup")
SELF_CGROUP = Path("/proc/self/cgroup")


def usable_cpus() -> int:
    """CPUs in the affinity mask, or fewer where a cgroup (v2) limits CPU time; at least 1.

    A container with a quota of two CPUs on a machine of 64 sees 64 in its mask; 64 workers
    would be throttled together in every period.
    """
    allowed = len(os.sched_getaffinity(0))
    quota = _quota(SELF_CGROUP, CGROUP_ROOT)
    return max(1, min(allowed, math.ceil(quota)) if quota else allowed)


def _quota(membership: Path, root: Path) -> float:
    """CPUs that the tightest ``cpu.max`` from our cgroup up to the root allows; 0: no limit."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return 0.0
    path = next((line[3:] for line in lines if line.startswith("0::")), None)
    if path is None:
        return 0.0
    group = root / path.lstrip("/")
    tightest = 0.0
    while group.is_relative_to(root):
        try:
            quota, period = (group / "cpu.max").read_text().split()
        except (OSError, ValueError):
            quota, period = "max", "1"
        if quota != "max":
            cpus = int(quota) / int(period)
            tightest = min(tightest, cpus) if tightest else cpus
        group = group.parent
    return tightest
