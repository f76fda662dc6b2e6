"""Sizes, hosts, paths, rates, keys and hashes of http listeners."""

from __future__ import annotations

import pytest

from lbcore.config.http_values import (
    format_size,
    is_weak_hash,
    parse_expression,
    parse_hash_on,
    parse_host,
    parse_method,
    parse_password_hash,
    parse_path,
    parse_path_expression,
    parse_rate,
    parse_rate_key,
    parse_size,
    parse_user,
    rate_plan,
)
from lbcore.config.plan import RatePlan
from lbcore.config.values import BadValue

BCRYPT = "$2y$05$" + "a" * 53


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0), ("0B", 0), ("1B", 1), ("64KiB", 65536), ("1.5MiB", 1572864), ("2GiB", 2**31),
        ("1kB", 1000), ("100MB", 10**8), ("1 GiB", 2**30), ("1TiB", 2**40),
    ],
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("value", "message", "hint"),
    [
        (64, "a string with a unit", '"64B"'),
        (True, "a string with a unit", '"64KiB"'),
        ("64", "no unit", '"64KiB"'),
        ("64k", "not a unit", '"64KiB"'),
        ("64m", "not a unit", '"64MiB"'),
        ("64Q", "not a unit", "KiB"),
        ("-1B", "not a size", ""),
        ("1.0005kB", "whole number of bytes", '"1000B"'),
        ("9999999999TiB", "too large", ""),
    ],
)
def test_other_sizes_are_refused(value: object, message: str, hint: str) -> None:
    with pytest.raises(BadValue, match=message) as refused:
        parse_size(value)
    assert hint in refused.value.hint


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0"), (1023, "1023B"), (1024, "1KiB"), (2**20, "1MiB"), (1000, "1000B")]
)
def test_sizes_are_written_as_short_as_they_can_be(size: int, text: str) -> None:
    assert format_size(size) == text
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("example.com", "example.com"),
        ("API.Example.COM.", "api.example.com"),
        ("*.example.com", "*.example.com"),
        ("localhost", "localhost"),
        ("127.0.0.1", "127.0.0.1"),
        ("müller.example", "xn--mller-kva.example"),
        ("a_b.example", "a_b.example"),
    ],
)
def test_hosts_are_read_as_workers_compare_them(text: str, host: str) -> None:
    assert parse_host(text) == host


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("example.com:8080", '"example.com"'),
        ("https://example.com/x", '"example.com"'),
        ("example.com/v1", '"example.com"'),
        ("api*.example.com", '"*.example.com"'),
        ("www.*.com", '"*.com"'),
        ("*", '"*.example.com"'),
        ("", "example.com"),
        ("a..b", "example.com"),
        ("-a.b", "example.com"),
        ("[::1]", "leave host out"),
    ],
)
def test_other_hosts_are_refused_with_what_was_meant(text: str, hint: str) -> None:
    with pytest.raises(BadValue) as refused:
        parse_host(text)
    assert hint in refused.value.hint


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("/", "/"),
        ("/v1/", "/v1/"),
        ("/%7euser", "/~user"),
        ("/a%2fb", "/a/b"),
        ("/%40a%3ab", "/@a:b"),
        ("/a%3fb%23%25%ff", "/a%3Fb%23%25%FF"),
        ("/café", "/caf%C3%A9"),
        ("/a b", "/a%20b"),
        ("/a..b/.c", "/a..b/.c"),
        ("/a|b", "/a|b"),
    ],
)
def test_paths_that_workers_take_for_the_same_have_one_form(text: str, path: str) -> None:
    assert parse_path(text) == path
    assert parse_path(path) == path


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("v1", '"/v1"'),
        ("", '"/"'),
        ("/v1/*/x?y", "query"),
        ("/a#b", "servers"),
        ("/a//b", '"/a/b"'),
        ("/a/%2Fb", '"/a/b"'),
        ("/a%2f..%2fb", "without"),
        ("/a/../b", "without"),
        ("/a/%2e%2E/b", "without"),
        ("/100%", '"%25"'),
        ("/a%00", '"%25"'),
        ("/a\n", ""),
    ],
)
def test_paths_that_no_request_has_are_refused(text: str, hint: str) -> None:
    with pytest.raises(BadValue) as refused:
        parse_path(text)
    assert hint in refused.value.hint


def test_an_expression_that_asks_for_escapes_is_refused() -> None:
    """A rule that matches nothing any more would be worse."""
    for text in ("/a%20b", "/x(%2F|/)y"):
        with pytest.raises(BadValue, match="decoded") as refused:
            parse_path_expression(text)
        assert "itself" in refused.value.hint
    for text in ("/100%", "/[%]20", "/a b"):
        assert parse_path_expression(text) == text


def test_methods_are_upper_case_tokens() -> None:
    assert parse_method("PROPFIND") == "PROPFIND"
    for bad in ("get", "GE T", "", "GET,POST"):
        with pytest.raises(BadValue):
            parse_method(bad)


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("source_ip", ("source_ip", "")), ("path", ("path", "")), ("uri", ("uri", "")),
        ("header:X-User", ("header", "x-user")), ("cookie:SID", ("cookie", "SID")),
        ("query:q", ("query", "q")),
    ],
)
def test_what_can_be_hashed(text: str, meaning: tuple[str, str]) -> None:
    assert parse_hash_on(text) == meaning


@pytest.mark.parametrize("text", ["header", "header:", "source", "path:x", "cookie:a b", "x:y"])
def test_what_cannot_be_hashed(text: str) -> None:
    with pytest.raises(BadValue):
        parse_hash_on(text)


def test_a_rate_is_a_bucket_that_holds_what_comes_in_its_time() -> None:
    assert rate_plan("100/s", None, "source") == RatePlan(10_000, 100, "source", "")
    assert rate_plan("20/m", 5, "header:X-Key") == RatePlan(3_000_000, 5, "header", "x-key")
    assert rate_plan("1/h", None, "route") == RatePlan(3_600_000_000, 1, "route", "")
    assert parse_rate_key("cookie:SID") == ("cookie", "SID")


@pytest.mark.parametrize(
    "text", ["100", "100/x", "0/s", "-1/s", "1.5/s", "100001/s", "9999999/d", "1/d"]
)
def test_other_rates_are_refused(text: str) -> None:
    with pytest.raises(BadValue):
        parse_rate(text)


@pytest.mark.parametrize(
    "text", [BCRYPT, "$6$salt$" + "x" * 86, "$5$rounds=1000$s$" + "x" * 43, "$y$j9T$ab$" + "x" * 43,
             "$1$salt$" + "x" * 22, "$sha1$1000$salt$" + "x" * 28,
             "$md5,rounds=100$salt$$" + "x" * 22, "ab0123456789c"],
)
def test_hashes_of_the_c_library_are_taken(text: str) -> None:
    assert parse_password_hash(text) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("$apr1$salt$" + "x" * 22, "apr1"),
        ("{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", "SHA-1"),
        ("secret", "not a password hash"),
        ("", "not a password hash"),
        ("$3$" + "x" * 32, "not a password hash"),
    ],
)
def test_other_hashes_say_how_to_make_a_good_one(text: str, message: str) -> None:
    with pytest.raises(BadValue, match=message) as refused:
        parse_password_hash(text)
    assert "htpasswd -nB" in refused.value.hint


@pytest.mark.parametrize("text", [
    BCRYPT[:-1], BCRYPT + "a", BCRYPT[:-1] + "\u00e4", "$6$salt$" + "x" * 85, "$6$salt",
    "$y$j9T$ab$", "$2y$",
])
def test_a_hash_that_is_cut_off_would_let_nobody_in(text: str) -> None:
    with pytest.raises(BadValue, match="not whole"):
        parse_password_hash(text)


@pytest.mark.parametrize(("dear", "usual"), [
    ("$2y$16$" + "x" * 53, "$2y$15$" + "x" * 53),
    ("$6$rounds=10000001$s$" + "x" * 86, "$6$rounds=10000000$s$" + "x" * 86),
    ("$5$rounds=999999999$s$" + "x" * 43, "$5$s$" + "x" * 43),
])
def test_a_hash_that_would_hold_up_a_worker_for_seconds_is_refused(dear: str, usual: str) -> None:
    with pytest.raises(BadValue, match="hold up a worker"):
        parse_password_hash(dear)
    assert parse_password_hash(usual) == usual


def test_weak_hashes_are_known() -> None:
    assert is_weak_hash("ab0123456789c")
    assert is_weak_hash("$1$salt$" + "x" * 22)
    assert not any(map(is_weak_hash, (BCRYPT, "$y$j9T$ab$", "$7$CU..../", "$6$salt$", "$5$salt$")))


@pytest.mark.parametrize("name", ["", "a:b", "x" * 65, "a\tb"])
def test_users_have_names_that_can_be_sent(name: str) -> None:
    with pytest.raises(BadValue):
        parse_user(name)


def test_an_expression_that_does_not_compile_says_where() -> None:
    assert parse_expression(r"/(\d+)/x") == r"/(\d+)/x"
    with pytest.raises(BadValue, match="not a regular expression"):
        parse_expression("/(a")
