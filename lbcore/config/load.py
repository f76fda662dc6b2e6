"""lb.toml -> Config, or every problem in it at once."""

from __future__ import annotations

import itertools
import os
import re
import stat
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lbcore.config import checks, findings
from lbcore.config.explain import Explained, explain
from lbcore.config.models import Config
from lbcore.config.positions import Positions
from lbcore.config.problems import ConfigError, KeyPath, Problem, key_text

MAX_FILE_BYTES = 16 * 1024 * 1024
_AT = re.compile(r"\s*\(at (?:line (\d+), column (\d+)|end of document)\)$")
_TWICE = ("Cannot declare", "Cannot overwrite", "Cannot mutate", "Duplicate inline table key")


@dataclass(frozen=True, slots=True)
class Source:
    """A configuration file that was read, for saying where something in it stands."""

    file: str
    positions: Positions

    def problem(
        self, path: KeyPath, message: str, hint: str = "", code: str = ""
    ) -> Problem:
        """A problem with the key at ``path``; where one string stands for a list, with the list."""
        lines = self.positions.lines     # empty: there is no text, only tables
        if path and isinstance(path[-1], int) and lines and path not in lines:
            path = path[:-1]
        return Problem(self.file, self.positions.line(path), key_text(path), message, hint, code)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A usable configuration, where its keys stand, what is doubtful about it, and its text."""

    config: Config
    source: Source
    warnings: list[Problem]
    text: str


def load(path: str | os.PathLike[str]) -> Config:
    """The configuration in a file. Raises ``ConfigError`` with everything wrong with it."""
    return load_file(path).config


def load_file(path: str | os.PathLike[str]) -> Loaded:
    """``load`` with positions and warnings beside the configuration."""
    file = os.fspath(path)
    return parse(_read(file), file)


def parse(text: str, file: str) -> Loaded:
    """The configuration in a text. ``file`` is what problems say they are in."""
    raw, source = read_tables(text, file)
    config, warnings = check_tables(raw, source, os.path.dirname(file))  # noqa: PTH120  (keeps "")
    return Loaded(config, source, warnings, text)


def read_text(path: str | os.PathLike[str]) -> str:
    """The text of a configuration file. Raises ``ConfigError`` when there is none to read."""
    return _read(os.fspath(path))


def read_tables(text: str, file: str) -> tuple[dict[str, Any], Source]:
    """The tables of a TOML text, not checked yet, and where they stand. Raises ``ConfigError``."""
    try:
        raw = tomllib.loads(text)
        positions = Positions(text)
    except RecursionError:
        raise ConfigError([Problem(file, 0, "", "brackets are nested too deeply")]) from None
    except ValueError as error:
        raise ConfigError([_syntax_problem(text, file, str(error))]) from None
    return raw, Source(file, positions)


def check_tables(
    raw: dict[str, Any], source: Source, directory: str
) -> tuple[Config, list[Problem]]:
    """The configuration that tables are, and what is doubtful about it.

    Paths in it that are not absolute start in ``directory``. Tables that no text says have a
    source without positions. Raises ``ConfigError`` with everything wrong.
    """
    file, positions = source.file, source.positions
    if not raw:
        raise ConfigError(
            [
                Problem(
                    file, 0, "", "this configuration is empty",
                    "it needs at least one [[listener]] and one [pool.NAME]",
                )
            ]
        )
    config, explained, salvage = _validated(raw, directory)
    # a misspelt key spoils the one that was meant, unless that is there as well
    spoiled = [one.path if one.spoils in positions.lines else one.spoils for one in explained]
    problems = [source.problem(one.path, one.message, one.hint) for one in explained]
    pools = raw.get("pool", {})
    for finding in checks.errors(config, list(pools) if isinstance(pools, dict) else []):
        path = salvage.original(finding.path)
        needs = [salvage.original(need) for need in finding.needs]
        if not _depends(path, needs, spoiled):
            problems.append(_found(source, path, salvage.original(finding.see), finding))
    if problems:
        raise ConfigError(sorted(problems, key=lambda problem: problem.line))
    doubts = [told(source, doubt) for doubt in checks.warnings(config)]
    return config, sorted(findings.unaccepted(doubts, config.lbcore.accept_warnings),
                          key=lambda problem: problem.line)


def told(source: Source, finding: findings.Finding) -> Problem:
    """A finding about a whole configuration, with its lines in the file."""
    return _found(source, finding.path, finding.see, finding)


def _found(source: Source, path: KeyPath, see: KeyPath, finding: findings.Finding) -> Problem:
    line = source.positions.line(see)
    return source.problem(path, finding.message + (f" (line {line})" if line else ""),
                          finding.hint, finding.code)


def _depends(path: KeyPath, needs: list[KeyPath], spoiled: list[KeyPath]) -> bool:
    """Whether a finding is about something broken, or needs something that is."""
    return any(
        path[: len(bad)] == bad
        or any(need[: len(bad)] == bad or bad[: len(need)] == need for need in needs)
        for bad in spoiled
    )


class _Salvage:
    """What of a broken file can still be examined: everything but the values cut out."""

    def __init__(self, raw: dict[str, Any]) -> None:
        self._raw = raw
        self._cut: set[KeyPath] = set()
        self._stand_ins: dict[KeyPath, dict[str, str]] = {}      # by table

    def cut(self, path: KeyPath) -> None:
        """Leave out the value at a path, or put another into its place where one is needed."""
        match path:
            case ("listener", int(), "name" | "pool"):
                stand_in = "missing"
            case ("listener", int(), "bind") | ("pool", str(), "backends", int(), "address"):
                stand_in = "127.0.0.1:1"
            case _:
                stand_in = ""
        put = self._stand_ins.setdefault(path[:-1], {}) if stand_in else {}
        if stand_in and path[-1] not in put:
            put[str(path[-1])] = stand_in
            return
        while path in self._cut or (stand_in and path):
            path, stand_in = path[:-1], ""
        self._cut.add(path)

    def rest(self) -> Any:
        """A copy of the file's content without what was cut."""
        return {} if () in self._cut else self._copy(self._raw, ())

    def _copy(self, value: Any, path: KeyPath) -> Any:
        if isinstance(value, dict):
            kept = {
                key: self._copy(item, (*path, key))
                for key, item in value.items()
                if (*path, key) not in self._cut
            }
            return kept | self._stand_ins.get(path, {})
        if isinstance(value, list):
            return [
                self._copy(item, (*path, index))
                for index, item in enumerate(value)
                if (*path, index) not in self._cut
            ]
        return value

    def original(self, path: KeyPath) -> KeyPath:
        """Where a value of the copy is in the file.

        Items before it may have been cut, and a string may stand for a list or a table there.
        """
        found: KeyPath = ()
        value: Any = self._raw
        for part in path:
            if not isinstance(value, dict | list):
                break
            if isinstance(value, dict):
                found = (*found, part)
                value = value.get(str(part))
                if value is None:
                    break
            else:
                index = self._index(found, int(part))
                found = (*found, index)
                value = value[index]
        return found

    def _index(self, path: KeyPath, index: int) -> int:
        """The place in the file of an item of a list that items were cut out of."""
        gone = {cut[-1] for cut in self._cut if cut[:-1] == path}
        left = (place for place in itertools.count() if place not in gone)
        return next(itertools.islice(left, index, None))


def _validated(raw: dict[str, Any], directory: str) -> tuple[Config, list[Explained], _Salvage]:
    """A Config of everything that is valid, and what is not.

    ``directory`` is where paths of files in it start.
    """
    context = {"directory": directory}
    salvage = _Salvage(raw)
    explained: list[Explained] = []
    while True:
        try:
            return Config.model_validate(salvage.rest(), context=context), explained, salvage
        except ValidationError as error:
            details = error.errors(include_url=False)
        located = []
        for detail in details:
            # pydantic marks an error in a table's name by a last part "[key]"
            location = tuple(part for part in detail["loc"] if part != "[key]")
            located.append((detail, salvage.original(location)))
        known = [one.spoils for one in explained]
        told = [(detail["type"], explain(detail, path)) for detail, path in located]
        meant = {one.spoils for kind, one in told if kind == "extra_forbidden"}
        for kind, one in told:
            misspelt = kind == "missing" and one.path in meant
            if not misspelt and not _depends(one.path, [one.path], known):
                explained.append(one)
            salvage.cut(one.path)


def _syntax_problem(text: str, file: str, message: str) -> Problem:
    """What tomllib's message means; it names the place in its last words."""
    lines = text.split("\n")
    found = _AT.search(message)
    reason = message[: found.start()] if found else message
    line, column = (
        (int(found[1]), int(found[2])) if found and found[1] else (len(text.splitlines()) or 1, 0)
    )
    if reason.startswith(_TWICE):
        upto = "\n".join([*lines[: line - 1], lines[line - 1][: max(0, column - 1)]])
        positions = Positions(upto)
        name = key_text(positions.last)
        return Problem(
            file, line, name, "this is defined twice",
            f"first in line {positions.line(positions.last)}: merge the two, or rename one",
        )
    shown = lines[line - 1].strip() if line <= len(lines) else ""
    hint = f"the line is: {shown}" if shown and shown.isprintable() and len(shown) <= 120 else ""
    if reason == "Invalid value":
        hint = "text goes into quotation marks" + (f"; {hint}" if hint else "")
    return Problem(file, line, "", f"this is not TOML: {reason[:1].lower()}{reason[1:]}", hint)


def _read(file: str) -> str:
    """The text of a file. Raises ``ConfigError`` when there is none to read."""
    path = Path(file)
    try:
        if path.is_dir():
            inside = path / "lb.toml"
            hint = f"{inside} is in it" if inside.is_file() else "name a file in it"
            raise ConfigError([Problem(file, 0, "", "this is a directory", hint)])
        # A pipe without a writer would wait for ever, and who reloads waits on the event loop.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                hint = "write it into a file first"
                raise ConfigError([Problem(file, 0, "", "this is not an ordinary file", hint)])
            data = stream.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError([Problem(file, 0, "", "there is no such file", _similar(path))]) from None
    except PermissionError:
        hint = f"it must be readable for user {os.geteuid()}"
        raise ConfigError([Problem(file, 0, "", "this file cannot be read", hint)]) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ConfigError([Problem(file, 0, "", f"this file cannot be read: {reason}")]) from None
    if len(data) > MAX_FILE_BYTES:
        hint = f"a configuration has at most {MAX_FILE_BYTES // 2**20} MiB"
        raise ConfigError([Problem(file, 0, "", "this file is too large", hint)])
    try:
        text = data.decode("utf-8-sig")
        bad = data.find(b"\0")
    except UnicodeDecodeError as error:
        text, bad = "", error.start
    if bad >= 0:
        line = data.count(b"\n", 0, bad) + 1
        message = f"this is not text: byte 0x{data[bad]:02x} at offset {bad}"
        raise ConfigError([Problem(file, line, "", message, "a configuration is TOML in UTF-8")])
    return text


def _similar(path: Path) -> str:
    try:
        siblings = [entry.name for entry in path.parent.iterdir() if entry.is_file()]
    except OSError:
        return f"there is no directory {path.parent} either"
    close = findings.nearest(path.name, siblings)
    return f'did you mean "{path.parent / close}"?' if close else ""
