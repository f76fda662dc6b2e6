"""Requests made to be read in two ways are read in one, or refused."""

from __future__ import annotations

import pytest

from tests.support.http1 import read
from tests.support.smuggling import CASES, SMUGGLED, Case

ids = [case.name for case in CASES]


def test_cases_have_names_of_their_own() -> None:
    assert len(set(ids)) == len(ids)


def test_no_case_means_the_request_that_it_hides() -> None:
    assert all(meant.target != SMUGGLED for case in CASES for meant in case.meant)


@pytest.mark.parametrize("case", CASES, ids=ids)
def test_it_means_what_it_must_or_is_refused(case: Case) -> None:
    reader = read(case.sent)
    assert (tuple(reader.meant), reader.refused) == (case.meant, case.refused)
    if reader.refused is None:
        assert (reader.waiting != "head") == case.waits
        assert not reader.left or case.waits


@pytest.mark.parametrize("case", CASES, ids=ids)
def test_it_means_the_same_byte_by_byte(case: Case) -> None:
    reader = read(case.sent, range(len(case.sent)))
    assert (tuple(reader.meant), reader.refused) == (case.meant, case.refused)
