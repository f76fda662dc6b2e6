"""The site is built without a warning, every link in it leads somewhere, and nothing is foreign."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).parents[2]
ZENSICAL = Path(sys.executable).with_name("zensical")
SECONDS = 30

pytestmark = pytest.mark.skipif(not ZENSICAL.exists(), reason="needs zensical: make docs")


class Seen(HTMLParser):
    """What a page of the site refers to, and what in it can be referred to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.anchors: set[str] = set()
        self.classes: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        said = {name: value or "" for name, value in attrs}
        self.anchors |= {said[name] for name in ("id", "name") if name in said}
        self.classes |= set(said.get("class", "").split())
        if tag == "a" and "href" in said:
            self.links.append(said["href"])
        elif tag in ("script", "img", "iframe", "source") and "src" in said:
            self.loads.append(said["src"])
        elif tag == "link" and said.get("rel") not in ("canonical", "prev", "next"):
            self.loads.append(said.get("href", ""))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` does, from a copy that takes no old cache along."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(ROOT / "docs", folder / "docs")
    shutil.copy(ROOT / "mkdocs.yml", folder)
    built = subprocess.run([ZENSICAL, "build", "--strict"], cwd=folder, capture_output=True,
                           text=True, check=False, timeout=SECONDS)
    said = re.sub(r"\x1b\[[\d;]*m", "", built.stdout + built.stderr)
    assert built.returncode == 0, said
    return folder / "build/site"


def shown(site: Path) -> Iterator[tuple[Path, Seen]]:
    for path in sorted(site.rglob("*.html")):
        yield path, Seen(path.read_text())


def test_every_page_is_in_the_navigation() -> None:
    named = set(re.findall(r"- .*?([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(),
                           re.MULTILINE))
    there = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    assert named == there


def test_every_link_and_anchor_leads_somewhere(site: Path) -> None:
    anchors = {path: seen.anchors for path, seen in shown(site)}
    broken = []
    for path, seen in shown(site):
        if path.name == "404.html":
            continue
        for link in [*seen.links, *seen.loads]:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or link.startswith("/"):
                continue
            there = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if there.is_dir():
                there /= "index.html"
            if not there.is_file():
                broken.append(f"{path.relative_to(site)}: {link}")
            elif parts.fragment and unquote(parts.fragment) not in anchors.get(there, set()):
                broken.append(f"{path.relative_to(site)}: {link} (no such anchor)")
    assert broken == []


def test_nothing_is_loaded_from_other_servers(site: Path) -> None:
    foreign = [f"{path.relative_to(site)}: {load}" for path, seen in shown(site)
               for load in seen.loads if urlsplit(load).netloc]
    styles = [f"{path.relative_to(site)}: {found}"
              for path in [*site.rglob("*.css"), *site.rglob("*.svg")]
              for found in re.findall(r"(?:@import|url\()\s*[\"']?(https?:[^\"')]+)",
                                      path.read_text())]
    assert foreign + styles == []


def test_no_page_has_what_a_script_would_draw_with_help_from_elsewhere(site: Path) -> None:
    """The theme fetches these libraries from a public server when a page asks for them."""
    fetched = {"mermaid", "glightbox", "pyodide", "arithmatex"}
    assert [path for path, seen in shown(site) if fetched & seen.classes] == []


def test_search_finds_words_of_the_pages(site: Path) -> None:
    index = next(site.rglob("search*.json")).read_text()
    assert "trusted_proxies" in index
    assert "tcp_migrate_req" in index


def test_the_examples_are_those_in_conf() -> None:
    made = subprocess.run([ROOT / "scripts/examples-page"], capture_output=True, text=True,
                          check=True, timeout=SECONDS).stdout
    assert (ROOT / "docs/examples.md").read_text() == made, "make docs"
