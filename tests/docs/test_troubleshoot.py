"""Who looks up what lbcore said finds it: the page has lbcore's own words."""

from __future__ import annotations

import re
from itertools import chain
from pathlib import Path

from lbcore._scoreboard import END_REASON_NAMES, HTTP_END_NAMES

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/guide/troubleshoot.md").read_text()
MESSAGES = ("It does not start", "The admin address does not answer", "Building fails")
FOREIGN = {"Python.h: No such file or directory"}      # a compiler's words


def said() -> list[str]:
    """What the page says that lbcore, or its build, says: the words around the blanks."""
    sections = [PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0] for title in MESSAGES]
    cells = [line.split("|")[1] for line in "\n".join(sections).splitlines() if "|" in line]
    quoted = chain.from_iterable(re.findall(r"`([^`]+)`", cell) for cell in cells)
    parts = [part.strip() for text in quoted if text not in FOREIGN
             for part in re.split(r"\.\.\.|\b[A-Z]{2,}\b|\(.*?\)", text)]
    return [part for part in parts if " " in part]


def test_every_reason_is_explained() -> None:
    good = {"normal", "ok"}
    names = {*END_REASON_NAMES, *HTTP_END_NAMES} - good
    assert {name for name in names if f"`{name}`" not in PAGE} == set()


def test_every_message_is_one_that_is_printed() -> None:
    sources = [*(ROOT / "lbcore").rglob("*.py"), ROOT / "scripts/system-packages",
               ROOT / "lbcore/admin/dashboard/app.js"]
    # As one would read it: pieces of a literal that stand on several lines are put together.
    printed = "\n".join(re.sub(r'"\s*\n\s*f?"', "", path.read_text()) for path in sources)
    found = said()
    assert len(found) >= 10
    assert [part for part in found if part not in printed] == []
