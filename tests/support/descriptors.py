"""Descriptors for the tests' own processes."""

from __future__ import annotations

import resource


def raise_limit() -> int:
    """Allows this process as many descriptors as it may allow itself; returns how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
