"""Every command that the documents show is run, and says what they say it says."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.support.page_runner import page as opened
from tests.support.pages import ROOT, BadPage, Block, blocks, pages

PAGES = pages()
MOST_SKIPPED = 40
PATHS = "/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/sbin:/bin"
PROGRAMS = ("curl", "haproxy", "nginx", "promtool", "systemd-analyze", "logrotate")


def runs(page: Path) -> bool:
    """Whether a page has anything to run; one that is wrongly written has, so that it fails."""
    try:
        return any(block.kind == "console" and "skip" not in block.directives
                   for block in blocks(page))
    except BadPage:
        return True


def skipped() -> list[Block]:
    found = []
    for page in PAGES:
        try:
            found += [block for block in blocks(page)
                      if block.kind == "console" and block.skipped]
        except BadPage:
            continue
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_keep_to_the_convention(page: Path) -> None:
    for block in blocks(page):
        if block.kind == "console":
            assert block.commands()


@pytest.mark.parametrize("page", [page for page in PAGES if runs(page)],
                         ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_of_a_page_do_what_it_says(page: Path) -> None:
    shown = blocks(page)
    lacking = [program for program in PROGRAMS if shutil.which(program, path=PATHS) is None
               and any(re.search(rf"(^|[;|&$\d] *){program} ", block.text, re.MULTILINE)
                       for block in shown if block.kind != "file" and not block.skipped)]
    if lacking:
        pytest.skip(f"needs {', '.join(lacking)}: scripts/system-packages test")
    with opened(shown) as running:
        for block in shown:
            running.run(block)


def test_commands_that_are_not_run_are_few_and_say_why(
    capsys: pytest.CaptureFixture[str],
) -> None:
    left_out = skipped()
    with capsys.disabled():
        print(f"\nnot run: {len(left_out)} blocks of commands in the documents")
        for block in left_out:
            print(f"  {block.where}: {block.skipped}")
    assert all(len(block.skipped) > 3 for block in left_out)
    assert len(left_out) <= MOST_SKIPPED
