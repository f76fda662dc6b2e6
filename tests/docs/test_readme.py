"""What the README says of lbcore is what lbcore says of itself."""

from __future__ import annotations

import re
from pathlib import Path

import click

from lbcore.cli import cli

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def section(title: str) -> str:
    """The text below a heading, up to the next one."""
    return README.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def rows(text: str) -> list[list[str]]:
    """The cells of tables, without their heads."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    ruled = [set("".join(row)) <= set("-:") for row in cells]
    return [row for row, rule, head in zip(cells, ruled, [*ruled[1:], False], strict=True)
            if not rule and not head]


def test_every_command_is_in_the_table_and_no_other() -> None:
    first = [row[0] for row in rows(section("Commands and signals")) if row[0].startswith("`")]
    shown = {word for cell in first for named in re.findall(r"`([^`]+)`", cell)
             for word in named.removeprefix("lbcore ").split()[:1] if word != "-c"}
    assert shown == set(cli.list_commands(click.Context(cli)))


def test_every_measured_number_is_one_of_the_page_about_them() -> None:
    page = (ROOT / "docs/performance.md").read_text()
    known = set(re.findall(r"[\d.,]*\d", page))
    found = [number for row in rows(section("Measured")) for cell in row[1:]
             for number in re.findall(r"[\d.,]*\d", cell)]
    assert len(found) > 40
    assert [number for number in found if number not in known] == []


def test_what_lbcore_lacks_stands_first_where_it_is_compared() -> None:
    answers = [row[1] for row in rows(section("Beside others"))]
    lacking = [index for index, answer in enumerate(answers) if answer == "**-**"]
    assert lacking == list(range(len(lacking)))
    assert len(lacking) >= 8
