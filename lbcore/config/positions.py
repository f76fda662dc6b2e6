"""Which line of a TOML file each key and each array item stands on.

``tomllib`` reads values and forgets where they were. This scanner does the opposite: it walks a
text that tomllib has accepted, skips over the values and keeps the lines. It never judges the
text; on one that is not TOML it stops where it no longer understands.

A path is a tuple of keys and indexes: ``("listener", 0, "bind", 1)``. The line of a table is
that of its header, or of the first key that implies it.
"""

from __future__ import annotations

import contextlib
import re
import tomllib

from lbcore.config.problems import KeyPath

_BLANK = re.compile(r"(?:[ \t\n]|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_BASIC_KEY = re.compile(r'"(?:[^"\\\n]|\\.)*"')
_LITERAL_KEY = re.compile(r"'[^'\n]*'")
_BARE_VALUE = re.compile(r"[^,\]}\n#]+")
# Up to two quotation marks may stand directly before the closing three of a multi-line string.
_STRINGS = (
    ('"""', re.compile(r'"""(?:[^"\\]|\\[\s\S]|"(?!""))*"""(?:""?(?!"))?')),
    ("'''", re.compile(r"'''(?:[^']|'(?!''))*'''(?:''?(?!'))?")),
    ('"', _BASIC_KEY),
    ("'", _LITERAL_KEY),
)


class _NotToml(Exception):
    """The scanner met something that no TOML has there."""


class Positions:
    """Lines of the keys of one file."""

    def __init__(self, text: str) -> None:
        self.lines: dict[KeyPath, int] = {}
        self.last: KeyPath = ()          # the key that was read last
        self._text = text.replace("\r\n", "\n")
        self._at = 0
        self._line = 1
        self._counted = 0                # newlines before here are in _line
        self._items: dict[KeyPath, int] = {}     # arrays of tables: items so far
        self._implied: set[KeyPath] = set()      # tables that had no header of their own so far
        with contextlib.suppress(_NotToml):
            self._document()

    def line(self, path: KeyPath) -> int:
        """The line of a key, or of the closest table around it; 0 where there is none."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 0)

    def _document(self) -> None:
        table: KeyPath = ()
        while True:
            self._skip(_BLANK)
            if self._at >= len(self._text):
                return
            if self._text.startswith("[[", self._at):
                table = self._header(2)
            elif self._text.startswith("[", self._at):
                table = self._header(1)
            else:
                self._pair(table)

    def _header(self, brackets: int) -> KeyPath:
        line = self._here()
        self._at += brackets
        keys = self._keys()
        path: KeyPath = ()
        for name in keys[:-1]:
            path = self._into((*path, name), line)
        self.last = path = (*path, keys[-1])
        if path in self._implied:
            self._implied.discard(path)
            self.lines[path] = line
        self.lines.setdefault(path, line)
        if brackets == 2:
            index = self._items.get(path, 0)
            self._items[path] = index + 1
            path = (*path, index)
            self.lines.setdefault(path, line)
        self._expect("]" * brackets)
        return path

    def _into(self, path: KeyPath, line: int) -> KeyPath:
        """The table that a key in a header means: for an array of tables, its last item."""
        if path not in self.lines:
            self.lines[path] = line
            self._implied.add(path)
        return (*path, self._items[path] - 1) if path in self._items else path

    def _pair(self, table: KeyPath) -> None:
        line = self._here()
        path = table
        for name in self._keys():
            path = (*path, name)
            self.lines.setdefault(path, line)
        self.last = path
        self._expect("=")
        self._skip(_SPACE)
        self._value(path)
        self.last = path

    def _value(self, path: KeyPath) -> None:
        if self._text.startswith("[", self._at):
            self._array(path)
        elif self._text.startswith("{", self._at):
            self._inline_table(path)
        else:
            for opening, pattern in _STRINGS:
                if self._text.startswith(opening, self._at):
                    self._skip(pattern, needed=True)
                    return
            self._skip(_BARE_VALUE, needed=True)

    def _array(self, path: KeyPath) -> None:
        self._at += 1
        index = 0
        while not self._taken("]"):
            item = (*path, index)
            self.lines.setdefault(item, self._here())
            self._value(item)
            index += 1
            if not self._taken(","):
                self._expect("]")
                return

    def _inline_table(self, path: KeyPath) -> None:
        self._at += 1
        while not self._taken("}"):
            self._pair(path)
            if not self._taken(","):
                self._expect("}")
                return

    def _keys(self) -> list[str]:
        names = [self._key()]
        while True:
            self._skip(_SPACE)
            if not self._text.startswith(".", self._at):
                return names
            self._at += 1
            names.append(self._key())

    def _key(self) -> str:
        self._skip(_SPACE)
        for pattern in (_BARE_KEY, _LITERAL_KEY, _BASIC_KEY):
            if found := pattern.match(self._text, self._at):
                self._at = found.end()
                word = found[0]
                if pattern is _LITERAL_KEY:
                    return word[1:-1]
                return str(tomllib.loads(f"k={word}")["k"]) if pattern is _BASIC_KEY else word
        raise _NotToml

    def _taken(self, mark: str) -> bool:
        """Whether ``mark`` comes next, after blanks; it is passed if so."""
        self._skip(_BLANK)
        if self._at >= len(self._text):
            raise _NotToml
        if not self._text.startswith(mark, self._at):
            return False
        self._at += len(mark)
        return True

    def _expect(self, mark: str) -> None:
        if not self._taken(mark):
            raise _NotToml

    def _skip(self, pattern: re.Pattern[str], *, needed: bool = False) -> None:
        found = pattern.match(self._text, self._at)
        if found:
            self._at = found.end()
        elif needed:
            raise _NotToml

    def _here(self) -> int:
        self._line += self._text.count("\n", self._counted, self._at)
        self._counted = self._at
        return self._line
