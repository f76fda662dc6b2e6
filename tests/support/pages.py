"""Pages of the documentation as what can be run: the files that they show, and the commands.

The convention, for whoever writes a page (docs/internals/documentation.md says it with examples):

- A fenced block with a title, such as ``toml title="lb.toml"``, is a file of that name; with
  ``title="settings.py (at the end)"`` it is added to that file.
- A ``console`` block has commands, each behind ``$ ``; a line that ends in a backslash goes on in
  the next. What stands below a command is its output: each of these lines must come, in order and
  whatever is between; ``...`` stands for anything in a line.
- A comment ``<!-- test: WORDS -->`` before a block, which no reader sees, says how it is to be run.
- Any other block is a picture of something, and must not begin like a command.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^(?P<indent> *)(?P<marks>`{3,})(?P<language>[\w-]*) *(?P<rest>[^`]*)$")
TITLE = re.compile(r'title="([^"]+)"')
DIRECTIVE = re.compile(r"<!-- test: (.*?)\s*-->", re.DOTALL)
COMMANDS = ("$ ", "# ", "lbcore ", "curl ", "make ", "pip ", "python", ".venv/", "sudo ",
            "systemctl ", "/opt/", "apt", "gunicorn ", "uvicorn ", "docker ", "podman ")
KINDS = {"skip", "long", "serves", "fails", "figures", "setup", "instead", "eventually", "end",
         "kill", "serve", "files"}

HIDDEN = {"setup", "end", "kill", "serve", "files"}      # are blocks of their own


class BadPage(Exception):
    """A page does not keep to the convention; the message says where."""


@dataclass
class Command:
    """One command, and the lines that its output must have."""

    line: int
    text: str
    output: list[str] = field(default_factory=list)


@dataclass
class Block:
    """What a page has between two fences, or in a comment for the test alone.

    ``kind`` is "file", "console", "picture" or one of ``HIDDEN``; ``directives`` are the comments
    before it, by their first word.
    """

    page: Path
    line: int
    kind: str
    text: str
    title: str = ""
    language: str = ""
    directives: dict[str, str] = field(default_factory=dict)

    @property
    def where(self) -> str:
        """Page and line, as people write them."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def skipped(self) -> str:
        """Why its commands are not run; empty if they are."""
        return self.directives.get("skip", self.directives.get("long", ""))

    def commands(self) -> list[Command]:
        """The commands of a console block. Raises ``BadPage`` if there is none, or output first."""
        found: list[Command] = []
        going_on = False
        for number, line in enumerate(self.text.splitlines(), self.line + 1):
            if going_on:
                found[-1].text += "\n" + line.removeprefix("> ")
            elif line.startswith("$ "):
                found.append(Command(number, line[2:]))
            elif not found:
                raise BadPage(f"{self.where}: a console block begins with a command: $ ...")
            else:
                found[-1].output.append(line)
            going_on = found[-1].text.endswith("\\") and (going_on or line.startswith("$ "))
        if not found:
            raise BadPage(f"{self.where}: a console block without a command")
        return found


def pages() -> list[Path]:
    """The pages of the site, and the README."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path) -> list[Block]:
    """The blocks of a page from top to bottom. Raises ``BadPage``."""
    return list(_blocks(page))


def _blocks(page: Path) -> Iterator[Block]:
    waiting: dict[str, str] = {}
    lines = page.read_text().splitlines()
    number = 0
    while number < len(lines):
        line, here = lines[number], number + 1
        if line.lstrip().startswith("<!-- test:"):
            comment, number = _until(lines, number, "-->", page)
            for said in DIRECTIVE.findall(comment):
                word, _, rest = said.partition("\n" if said.startswith("setup") else " ")
                if word not in KINDS:
                    raise BadPage(f"{page}:{here}: no directive is called {word!r}")
                if word in HIDDEN:
                    yield Block(page, here, word, rest)
                else:
                    waiting[word] = rest
            continue
        fence = FENCE.match(line)
        if fence is None:
            if line.startswith("    ") and line[4:].startswith(COMMANDS[1:]):
                raise BadPage(f"{page}:{here}: commands belong into a console block, each behind $")
            if line.strip() and waiting:
                raise BadPage(f"{page}:{here}: a test directive stands before no block")
            number += 1
            continue
        indent, marks = len(fence["indent"]), fence["marks"]
        body = []
        number += 1
        while number < len(lines) and lines[number].strip() != marks:
            body.append(lines[number][indent:])
            number += 1
        number += 1
        title = TITLE.search(fence["rest"])
        kind = ("console" if fence["language"] == "console" else
                "file" if title else "picture")
        block = Block(page, here, kind, "\n".join(body) + "\n", title[1] if title else "",
                      fence["language"], waiting)
        waiting = {}
        if kind == "picture" and fence["language"] in ("", "sh", "bash", "shell"):
            first = body[0] if body else ""
            if fence["language"] or first.startswith(COMMANDS):
                raise BadPage(f"{block.where}: commands belong into a console block, each behind $")
        yield block


def _until(lines: list[str], number: int, end: str, page: Path) -> tuple[str, int]:
    """The text from a line up to one that has ``end``, and the number of the next line."""
    begin = number
    while end not in lines[number]:
        number += 1
        if number == len(lines):
            raise BadPage(f"{page}:{begin + 1}: a comment without an end")
    return "\n".join(lines[begin:number + 1]), number + 1
