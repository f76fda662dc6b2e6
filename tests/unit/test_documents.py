"""What the documents show can be used as it stands: configurations load, links lead somewhere."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from lbcore.config import load_file, to_plan

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r'^```toml(?: title="lb[^"]*")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)")
SOURCES = {"wsgi", "asgi", "demo", "backends", "discover"}
NEWLINE = "\n"
PASSWORD = "$6$TvPWwb2YOZXmhbWy$" + "a" * 86


def blocks() -> list[Any]:
    """Each configuration in a document, named by where it stands."""
    return [
        pytest.param(found[1], id=f"{page.name}:{text.count(NEWLINE, 0, found.start()) + 1}")
        for page in PAGES
        for text in [page.read_text()]
        for found in BLOCK.finditer(text)
    ]


def completed(text: str) -> str:
    """A whole configuration: keys before the first table are the listener's, and what the block
    leaves to others, its listener or backends of a pool, is put beside it."""
    first = re.search(r"^\[", text, re.MULTILINE)
    bare, tables = (text[:first.start()], text[first.start():]) if first else (text, "")
    said = tomllib.loads(text)
    pools: dict[str, Any] = said.get("pool", {})
    wanted = dict.fromkeys([*pools, *re.findall(r'^\s*pool\s*=\s*"([^"]+)"', text, re.MULTILINE)])
    if "name" not in next(iter(said.get("listener", [])), {}):
        wanted.setdefault("app")
        first_pool = next(iter(wanted))
        tables = (f'[[listener]]\nname = "web"\nbind = "127.0.0.1:8080"\nprotocol = "http"\n'
                  f'pool = "{first_pool}"\n{bare}' + tables)
        bare = ""
    for pool in wanted:
        if SOURCES & pools.get(pool, {}).keys():
            continue
        header = f"[pool.{pool}]\n"
        if header in tables:
            tables = tables.replace(header, header + "demo = 2\n")
        else:
            tables += f"\n{header}demo = 2\n"
    used = re.findall(r'^\s*pool\s*=\s*"([^"]+)"', bare + tables, re.MULTILINE)
    routes = "".join(
        f'\n[[listener.route]]\nhost = "{pool}.example"\npool = "{pool}"\n'
        for pool in wanted if pool not in used)
    head, table, rest = tables.partition("[pool.")
    return bare + head + routes + "\n" + table + rest


@pytest.mark.parametrize("text", blocks())
def test_every_configuration_in_the_documents_loads(text: str, tmp_path: Path) -> None:
    whole = completed(text)
    for name in re.findall(r'"([\w.-]+\.(?:html|txt|json|htpasswd))"', whole):
        content = f"anna:{PASSWORD}\n" if name.endswith("htpasswd") else "{}"
        (tmp_path / name).write_text(content)
    for name in re.findall(r'token_file *= *"([^"/]+)"', whole):
        (tmp_path / name).write_text("t" * 64 + "\n")
        (tmp_path / name).chmod(0o600)
    path = tmp_path / "lb.toml"
    path.write_text(whole)
    assert to_plan(load_file(path).config).listeners, whole


def anchors(page: Path) -> set[str]:
    """What can be linked to within a page: headings as they are named on the web, and marks."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    made = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return made | set(re.findall(r'<a id="([^"]+)">', text))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in LINK.findall(text):
        if "://" in target or target.startswith("mailto:"):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), target
        if anchor:
            assert anchor in anchors(there), target
