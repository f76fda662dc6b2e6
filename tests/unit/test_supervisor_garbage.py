"""What the garbage collector is spared: a large configuration, and nothing for ever."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from lbcore.supervisor.garbage import MANY, spare


class Knot:
    """In a cycle with itself: only the collector ends it."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    yield
    gc.unfreeze()


def test_a_small_configuration_is_looked_at_as_ever() -> None:
    spare(MANY - 1)
    assert gc.get_freeze_count() == 0


def test_what_became_garbage_while_it_was_spared_goes_with_the_next_configuration() -> None:
    knot = Knot()
    gone = weakref.ref(knot)
    spare(MANY)
    assert gc.get_freeze_count() > 0
    del knot
    gc.collect()
    assert gone() is not None            # spared
    spare(MANY)
    assert gone() is None


def test_a_configuration_that_has_become_small_is_looked_at_again() -> None:
    spare(MANY)
    spare(MANY - 1)
    assert gc.get_freeze_count() == 0
