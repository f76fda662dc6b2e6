"""The dashboard's files as they lie in the package: complete, shipped, and from nowhere else."""

from __future__ import annotations

import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

from lbcore.admin.pages import DIRECTORY

ROOT = Path(__file__).parents[2]
FILES = sorted(DIRECTORY.iterdir())
SCRIPTS = [file for file in FILES if file.suffix == ".js"]
INDEX = (DIRECTORY / "index.html").read_text()


def test_every_file_is_in_the_wheel_and_in_the_sdist() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    shipped = project["tool"]["setuptools"]["package-data"]["lbcore"]
    [line] = [line for line in (ROOT / "MANIFEST.in").read_text().splitlines()
              if line.startswith("recursive-include lbcore/admin/dashboard ")]
    for file in FILES:
        path = str(file.relative_to(ROOT / "lbcore"))
        assert any(fnmatch(path, pattern) for pattern in shipped), path
        assert any(fnmatch(file.name, pattern) for pattern in line.split()[2:]), path


def test_what_the_page_refers_to_is_there_and_nothing_else_is() -> None:
    wanted = {"index.html"} | set(re.findall(
        r'(?:href|src|data-(?:ok|warn|down|gone))="([\w-]+\.\w+)"', INDEX))
    for script in SCRIPTS:
        wanted |= set(re.findall(r'from "\./([\w-]+\.js)"', script.read_text()))
    assert wanted == {file.name for file in FILES}


def test_every_icon_that_is_used_is_drawn() -> None:
    drawn = set(re.findall(r'<symbol id="i-(\w+)"', INDEX))
    used = set(re.findall(r'href="#i-(\w+)"', INDEX))
    for script in SCRIPTS:
        text = script.read_text()
        used |= set(re.findall(r'icon\("(\w+)"\)', text))
        used |= set(re.findall(r'icon: "(\w+)"', text))
    assert used <= drawn


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_nothing_that_the_content_security_policy_forbids(file: Path) -> None:
    text = file.read_text()
    addresses = set(re.findall(r"(?:https?:)?//[\w.-]+\.\w+", text))
    assert addresses <= {"http://www.w3.org"}              # a name space, which nobody asks
    if file.suffix == ".html":
        assert not re.search(r"<[^>]+\s(?:style|on\w+)=", text)
        assert not re.search(r"<style|<script>|<script type=\"module\">", text)
    if file.suffix == ".js":
        for forbidden in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write",
                          "eval(", "new Function", '"style"', "cssText"):
            assert forbidden not in text
