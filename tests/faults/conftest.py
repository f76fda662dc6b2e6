"""What every fault is injected into: an lbcore that the test holds, and backends beside it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.descriptors import raise_limit
from tests.support.echo import Backends
from tests.support.instance import Instance, instance


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With full counts, and on a busy machine, a test may take a while."""
    for item in items:
        if item.path.parent.name == "faults" and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(300))


@pytest.fixture
def backends() -> Iterator[Backends]:
    """Backends in a process of their own."""
    raise_limit()
    with Backends() as made:
        yield made


@pytest.fixture
def lb(backends: Backends) -> Iterator[Instance]:
    """An instance that has not started yet, with two backends; it must not have complained."""
    with instance() as made:
        made.pool["backends"] = backends.echo(2)
        yield made
        assert made.complaints() == []
