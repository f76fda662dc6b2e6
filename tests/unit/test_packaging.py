"""What the package says of itself in several places is the same in all of them."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

from lbcore import __version__

ROOT = Path(__file__).parents[2]


def test_the_newest_entry_of_the_changelog_is_this_version() -> None:
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert newest[1] == __version__


def test_python_dash_m_is_the_same_command() -> None:
    said = subprocess.run(
        [sys.executable, "-m", "lbcore", "--version"], cwd=ROOT, capture_output=True, text=True,
        timeout=30, check=True,
    )
    assert said.stdout == f"lbcore, version {__version__}\n"


def test_cython_is_needed_to_build_and_not_to_run() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert any(need.startswith("cython") for need in project["build-system"]["requires"])
    assert not any(need.startswith("cython") for need in project["project"]["dependencies"])


def test_documents_link_to_files_that_exist() -> None:
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")]
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert broken == []
