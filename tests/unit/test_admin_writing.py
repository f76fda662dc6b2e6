"""Answers as JSON: laid out for people when small, quickly written when large."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lbcore.admin import writing


def picture(backends: int, reason: str = "é") -> dict[str, Any]:
    """An answer as large as one with so many backends."""
    return {"plan_version": 3, "pools": [{"name": "web", "backends": [
        {"name": f"b{n}", "reason": reason, "ms": 1.5, "forced": None} for n in range(backends)]}]}


def test_small_answers_are_laid_out_for_people() -> None:
    assert writing.dumps({"a": 1, "b": ["é"]}) == b'{"a": 1, "b": ["\\u00e9"]}'


@pytest.mark.parametrize("reason", ["é", "\udc80", "a\nb\0"])
@pytest.mark.parametrize("said", [picture(2000), {"backends": {"web": {
    str(n): {"ms": None} for n in range(2000)}}}], ids=["pictures", "figures"])
def test_large_answers_say_the_same(said: dict[str, Any], reason: str) -> None:
    whole = {**said, "reason": reason}
    written = writing.dumps(whole)
    assert json.loads(written) == whole
    assert b"\n" not in written          # nor may a message of a stream have any


def test_large_answers_take_the_quick_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(json, "dumps")
    assert json.loads(writing.dumps(picture(2000))) == picture(2000)
