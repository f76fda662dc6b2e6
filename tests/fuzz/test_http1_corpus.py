"""What fuzzing found worth keeping holds the fuzz target's claims, in every run of the tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.http1 import all_claims, cuts_of

CORPUS = sorted((Path(__file__).parent / "corpus" / "http1").iterdir())


def test_there_is_a_corpus_of_small_files() -> None:
    assert len(CORPUS) > 100
    assert max(path.stat().st_size for path in CORPUS) <= 4096 + 8


@pytest.mark.parametrize("part", range(16))
def test_the_corpus_holds_every_claim(part: int) -> None:
    for path in CORPUS[part::16]:
        data = path.read_bytes()
        all_claims(data, cuts_of(data))
        if len(data) < 200:
            all_claims(data, range(len(data)))
