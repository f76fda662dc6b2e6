"""The position scanner finds what tomllib finds, in any document, where it stands."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from typing import Any

import toml
from hypothesis import given
from hypothesis import strategies as st

from lbcore.config import ConfigError, parse
from lbcore.config.positions import Positions
from lbcore.config.problems import KeyPath

KEYS = st.from_regex(r"[A-Za-z0-9_-]{1,8}", fullmatch=True)
WORDS = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF, exclude_characters="\x7f"))
SCALARS = st.integers() | st.booleans() | WORDS
STRINGS: dict[str, Callable[[str], str]] = {
    "basic": lambda text: '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"',
    "long": lambda text: '"""\n' + text.replace("\\", "\\\\").replace('"', '\\"') + '"""',
    "bare quotes": lambda text: '"""a""b"x' + text.replace("\\", "").replace('"', "") + '"""""',
    "literal": lambda text: "'" + text.replace("'", "") + "'",
    "long literal": lambda text: "'''\n" + text.replace("'", "") + "''" + "'''",
}


def paths(value: Any, path: KeyPath = ()) -> set[KeyPath]:
    """Every path of a document."""
    found = {path} if path else set()
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, item in items:
        found |= paths(item, (*path, key))
    return found


@st.composite
def written(draw: st.DrawFn, depth: int = 2) -> str:
    """A value in one of the ways TOML can write it."""
    kind = draw(st.sampled_from(["scalar", "array", "table"] if depth else ["scalar"]))
    gap = draw(st.sampled_from(["", " ", "\n", " # ] } = \"\n", "\n\n"]))
    if kind == "array":
        items = draw(st.lists(written(depth - 1), max_size=3))
        comma = draw(st.sampled_from(["", ","])) if items else ""
        return "[" + gap + ("," + gap).join(items) + comma + gap + "]"
    if kind == "table":
        names = draw(st.lists(KEYS, max_size=3, unique=True))
        return "{" + ", ".join(f"{name} = {draw(written(depth - 1))}" for name in names) + "}"
    value = draw(SCALARS)
    if isinstance(value, str):
        return STRINGS[draw(st.sampled_from(sorted(STRINGS)))](value)
    return str(value).lower()


@st.composite
def documents(draw: st.DrawFn) -> str:
    lines = []
    for name in draw(st.lists(KEYS, max_size=4, unique=True)):
        header = draw(st.sampled_from(["[{}]", "[[{}]]", "[ {} . sub ]", "[['{}'.\"x\"]]"]))
        for _ in range(2 if header.startswith("[[") else 1):
            lines.append(header.format(name))
            keys = draw(st.lists(KEYS, max_size=3, unique=True))
            indent = draw(st.sampled_from(["", "  "]))
            lines.extend(f"{indent}{key} = {draw(written())}" for key in keys)
            lines.append(draw(st.sampled_from(["", "# [x]", "   "])))
    return draw(st.sampled_from(["\n", "\r\n"])).join("\n".join(lines).split("\n"))


@given(documents())
def test_the_scanner_finds_exactly_the_paths_that_tomllib_finds(text: str) -> None:
    assert set(Positions(text).lines) == paths(tomllib.loads(text))


@given(documents())
def test_a_key_stands_on_the_line_that_is_told(text: str) -> None:
    lines = text.split("\n")
    for path, line in Positions(text).lines.items():
        if isinstance(path[-1], str):
            assert path[-1] in lines[line - 1]


@given(st.dictionaries(KEYS, st.dictionaries(KEYS, st.lists(st.integers()) | st.booleans())))
def test_documents_of_the_toml_library_are_scanned_too(tables: dict[str, Any]) -> None:
    text = toml.dumps(tables)
    assert set(Positions(text).lines) == paths(tomllib.loads(text))


@given(st.text(max_size=200))
def test_no_text_makes_the_scanner_fail(text: str) -> None:
    Positions(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["lbcore", "listener", "pool", "name", "bind", "backends", "address", "x",
                         "health", "weight", "web"]), inner, max_size=4,
    ),
    max_leaves=20,
)


def dumped(value: Any) -> str:
    """A value as TOML; what TOML has not becomes a date, which no key wants."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {dumped(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(dumped, value)) + "]"
    if isinstance(value, str):
        return STRINGS["literal"]("".join(c for c in value if c.isprintable()))
    return "2020-01-01" if value is None else str(value).lower()


@given(st.dictionaries(
    st.sampled_from(["lbcore", "admin", "log", "listener", "pool", "y"]), JSON, max_size=4,
))
def test_any_file_ends_in_a_configuration_or_in_problems(tables: dict[str, Any]) -> None:
    text = "\n".join(f"{key} = {dumped(value)}" for key, value in tables.items())
    try:
        parse(text, "lb.toml")
    except ConfigError as refused:
        assert refused.problems
