"""Lines of keys: every way in which TOML can write one."""

from __future__ import annotations

import pytest

from lbcore.config.positions import Positions

DOCUMENT = '''\
# a comment with [brackets] and = signs

title = "x"   # line 3
[lbcore]
workers = 2
"quoted key" = 1
'literal' = 2
a.b.c = 3

[[listener]]
name = "one"
bind = [
  "127.0.0.1:1",   # a comment, with a comma
  "127.0.0.1:2", "127.0.0.1:3",
]
[[listener]]
name = """
several
lines \\""" and more""""
pool = "p"
[listener.sub]
x = {y = 1, "z" = [1,
  2]}
[pool."a.b"]
backends = [ {address = "a:1", weight = 2},
  {address = "b:1"} ]
text = \'\'\'
[not.a.header]
\'\'\'
when = 1979-05-27 07:32:00Z
[pool.late.health]
type = "tcp"
[pool.late]
demo = 1
'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("title",), 3),
        (("lbcore",), 4),
        (("lbcore", "workers"), 5),
        (("lbcore", "quoted key"), 6),
        (("lbcore", "literal"), 7),
        (("lbcore", "a", "b", "c"), 8),
        (("listener",), 10),
        (("listener", 0), 10),
        (("listener", 0, "bind"), 12),
        (("listener", 0, "bind", 0), 13),
        (("listener", 0, "bind", 2), 14),
        (("listener", 1), 16),
        (("listener", 1, "name"), 17),
        (("listener", 1, "pool"), 20),
        (("listener", 1, "sub"), 21),
        (("listener", 1, "sub", "x", "z"), 22),
        (("listener", 1, "sub", "x", "z", 1), 23),
        (("pool", "a.b"), 24),
        (("pool", "a.b", "backends", 0, "weight"), 25),
        (("pool", "a.b", "backends", 1, "address"), 26),
        (("pool", "a.b", "text"), 27),
        (("pool", "a.b", "when"), 30),
        (("pool", "late", "health"), 31),
        (("pool", "late"), 33),
        (("pool", "late", "demo"), 34),
    ],
)
def test_each_key_has_the_line_it_stands_on(path: tuple[str | int, ...], line: int) -> None:
    assert Positions(DOCUMENT).line(path) == line


def test_windows_line_ends_count_once() -> None:
    assert Positions("a = 1\r\n\r\nb = '''x\r\ny'''\r\nc = 2\r\n").line(("c",)) == 5


def test_a_key_that_is_missing_has_the_line_of_its_table() -> None:
    assert Positions("\n[a]\nb = 1\n").line(("a", "c", 0, "d")) == 2


def test_a_path_into_nothing_has_no_line() -> None:
    assert Positions("a = 1").line(("b",)) == 0


@pytest.mark.parametrize(
    "text", ["[", "[[", "a", "a =", "a = [", "a = {b", 'a = "', "= 1", "a = 1 b = 2", "]", "\0"]
)
def test_what_is_not_toml_ends_the_scan_without_an_error(text: str) -> None:
    assert Positions("ok = 1\n" + text).line(("ok",)) == 1
