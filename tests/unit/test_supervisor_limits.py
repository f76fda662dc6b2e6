"""The number of connections that the log promises."""

from __future__ import annotations

import re
from pathlib import Path

from lbcore.supervisor import limits

ROOT = Path(__file__).parents[2]


def test_room_is_what_a_worker_admits() -> None:
    assert limits.connections_within(1024, 1) == 479
    assert limits.connections_within(60, 1) == 0


def test_as_many_descriptors_are_reserved_as_a_worker_keeps_free() -> None:
    (kept,) = re.findall(r"RESERVED_DESCRIPTORS = (\d+)",
                         (ROOT / "lbcore" / "_loop.pxd").read_text())
    assert int(kept) == limits.RESERVED
