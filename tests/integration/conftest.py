"""Fixtures that several files of this directory share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.relay_lab import Lab


@pytest.fixture
def lab() -> Iterator[Lab]:
    """A worker process of this test's own."""
    with Lab() as lab:
        yield lab
