"""Fixtures that several files of this directory share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.http_lab import HttpLab, http_lab
from tests.support.relay_lab import Lab


@pytest.fixture
def lab() -> Iterator[Lab]:
    """A worker process of this test's own."""
    with Lab() as lab:
        yield lab


@pytest.fixture
def web() -> Iterator[HttpLab]:
    """A worker of this test's own that speaks HTTP; at the end it must hold nothing any more."""
    with http_lab() as lab:
        yield lab
