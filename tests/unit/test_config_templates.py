"""Templates: text with $names in it."""

from __future__ import annotations

import pytest

from lbcore.config.plan import Segment
from lbcore.config.templates import (
    NAMES,
    parse_field_value,
    parse_location,
    parse_rewrite,
    parse_template,
)
from lbcore.config.values import BadValue


def test_text_and_names_take_turns() -> None:
    assert parse_template("https://$host$uri") == (
        Segment("text", "https://"), Segment("host"), Segment("uri"),
    )


@pytest.mark.parametrize("name", NAMES)
def test_every_name_stands_for_itself_with_and_without_braces(name: str) -> None:
    assert parse_template(f"${name}") == parse_template(f"${{{name}}}") == (Segment(name),)  # type: ignore[arg-type]


def test_headers_cookies_and_groups_have_names_and_numbers() -> None:
    assert parse_template("${header.X-Id}-${cookie.SID}/$1${2}") == (
        Segment("header", "x-id"), Segment("text", "-"), Segment("cookie", "SID"),
        Segment("text", "/"), Segment("capture", number=1), Segment("capture", number=2),
    )


def test_two_dollars_are_one_and_join_the_text_around_them() -> None:
    assert parse_template("a$$b$$") == (Segment("text", "a$b$"),)
    assert parse_template("") == ()


def test_braces_end_a_name_where_letters_follow() -> None:
    assert parse_template("${host}name") == (Segment("host"), Segment("text", "name"))


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("$", '"$$"'), ("100$", '"$$"'), ("$-", '"$$"'), ("${host", '"$$"'), ("$HOST", '"$$"'),
        ("$hots", "$host"), ("$remote_addr", "$client_ip"), ("$http_x_id", "${header.x-id}"),
        ("$cookie_sid", "${cookie.sid}"), ("$hostname", "$host"), ("${12}", "$1"), ("${}", "$host"),
        ("$zzzzzz", "one of $client_ip"),
    ],
)
def test_unknown_names_are_refused_with_the_one_that_was_meant(text: str, hint: str) -> None:
    with pytest.raises(BadValue) as refused:
        parse_template(text)
    assert hint in refused.value.hint


@pytest.mark.parametrize("text", ["a\r\nX: y", "a\nb", "a\0b", "\x7f", " a", "a "])
def test_a_field_value_cannot_end_its_line(text: str) -> None:
    with pytest.raises(BadValue):
        parse_field_value(text)


def test_a_field_value_can_have_tabs_and_other_languages() -> None:
    assert parse_field_value("a\tb é") == (Segment("text", "a\tb é"),)


@pytest.mark.parametrize("text", ["", "/a b", "/é", "/\n", 'x"y', "<script>"])
def test_a_redirect_goes_to_a_uri(text: str) -> None:
    with pytest.raises(BadValue):
        parse_location(text)


@pytest.mark.parametrize("text", ["", "new/$1", "$host/x", "/a#b", "/a b", "/x?$query", "/$uri"])
def test_a_rewrite_makes_a_path(text: str) -> None:
    with pytest.raises(BadValue):
        parse_rewrite(text)


@pytest.mark.parametrize("text", ["/new/$1", "$path/x", "/search?q=$tail", "/$tail"])
def test_a_rewrite_may_use_groups_and_bring_a_query(text: str) -> None:
    assert parse_rewrite(text) == parse_template(text)
