"""Each refusal names the rule that was broken, and the same one however the bytes arrive."""

from __future__ import annotations

from pathlib import Path

import pytest

from lbcore._http1 import FIELDS_MAX, Head, Rule, broken_rule, parse_request
from tests.support.smuggling import CASES, Case

LINE = b"GET / HTTP/1.1\r\n"
HOST = b"Host: a.example\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
DOCUMENT = Path(__file__).parents[2] / "docs/guide/logs.md"


def having(*lines: bytes) -> bytes:
    return LINE + HOST + b"".join(lines) + b"\r\n"


BROKEN = [
    (b"no request\r\n\r\n", Rule.RULE_REQUEST_LINE),
    (b"GET /\r\n\r\n", Rule.RULE_REQUEST_LINE),
    (b"GET  / HTTP/1.1\r\n\r\n", Rule.RULE_REQUEST_LINE),
    (b"GET / HTTP/1.1 \r\n\r\n", Rule.RULE_REQUEST_LINE),
    (b"G@T / HTTP/1.1\r\n\r\n", Rule.RULE_REQUEST_LINE),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", Rule.RULE_TLS),
    (b"M" * 65, Rule.RULE_METHOD),
    (b"GET /a#b HTTP/1.1\r\n" + HOST + b"\r\n", Rule.RULE_TARGET),
    (b"GET a HTTP/1.1\r\n" + HOST + b"\r\n", Rule.RULE_TARGET),
    (b"CONNECT / HTTP/1.1\r\n" + HOST + b"\r\n", Rule.RULE_TARGET),
    (b"GET / HTTP/2.0\r\n" + HOST + b"\r\n", Rule.RULE_VERSION),
    (b"GET / HTTP/1.1\n" + HOST + b"\r\n", Rule.RULE_BARE_LF),
    (b"GET /\n", Rule.RULE_BARE_LF),
    (b"\n" + LINE + HOST + b"\r\n", Rule.RULE_BARE_LF),
    (LINE + b"Host: a\n\r\n", Rule.RULE_BARE_LF),
    (LINE + HOST + b"\n", Rule.RULE_BARE_LF),
    (b"\rGET / HTTP/1.1\r\n", Rule.RULE_BARE_CR),
    (b"GET / HTTP/1.1\rHost: a\r\n\r\n", Rule.RULE_BARE_CR),
    (having(b"A: b\rC: d\r\n"), Rule.RULE_BARE_CR),
    (having(b"A: b\0\r\n"), Rule.RULE_CONTROL_BYTE),
    (having(b"A : b\r\n"), Rule.RULE_FIELD_NAME),
    (having(b": b\r\n"), Rule.RULE_FIELD_NAME),
    (having(b"A: b\r\n c\r\n"), Rule.RULE_FOLDED_LINE),
    (LINE + b"\r\n", Rule.RULE_NO_HOST),
    (LINE + b"Host:\r\n\r\n", Rule.RULE_NO_HOST),
    (having(HOST), Rule.RULE_TWO_HOSTS),
    (LINE + b"Host: a/b\r\n\r\n", Rule.RULE_HOST),
    (b"GET http://b.example/ HTTP/1.1\r\n" + HOST + b"\r\n", Rule.RULE_HOST_DIFFERS),
    (having(b"Connection: host\r\n"), Rule.RULE_CONNECTION),
    (having(CHUNKED, b"Content-Length: 5\r\n"), Rule.RULE_BOTH_LENGTHS),
    (having(b"Content-Length: 5\r\n" * 2), Rule.RULE_TWO_LENGTHS),
    (having(b"Content-Length: 5, 5\r\n"), Rule.RULE_LENGTH),
    (having(b"Content-Length:\r\n"), Rule.RULE_LENGTH),
    (having(b"Content-Length: 9223372036854775808\r\n"), Rule.RULE_LENGTH),
    (having(CHUNKED, CHUNKED), Rule.RULE_CODING),
    (having(b"Transfer-Encoding: gzip\r\n"), Rule.RULE_CODING),
    (b"GET / HTTP/1.0\r\n" + CHUNKED + b"\r\n", Rule.RULE_CODING),
    (b"GET /" + b"a" * 70_000, Rule.RULE_LINE_TOO_LONG),
    (LINE + b"A: " + b"a" * 70_000, Rule.RULE_HEAD_TOO_LONG),
    (having(*[b"A: b\r\n"] * FIELDS_MAX), Rule.RULE_TOO_MANY_FIELDS),
]


@pytest.mark.parametrize(("sent", "rule"), BROKEN, ids=[f"{s[:24]!r}-{r}" for s, r in BROKEN])
def test_a_refusal_names_the_rule_that_was_broken(sent: bytes, rule: Rule) -> None:
    assert broken_rule(sent) == rule


def test_a_request_breaks_none_and_neither_does_its_beginning() -> None:
    sent = having(b"A: b\r\n")
    assert {broken_rule(sent[:end]) for end in range(len(sent) + 1)} == {Rule.RULE_NONE}


def head_refused(case: Case) -> bool:
    result = parse_request(case.sent)
    return not isinstance(result, Head) and result < 0


@pytest.mark.parametrize("sent", [
    *(sent for sent, _ in BROKEN if len(sent) < 1000),
    *(case.sent for case in CASES if head_refused(case))])
def test_the_rule_is_the_same_when_bytes_come_one_by_one(sent: bytes) -> None:
    rules = [broken_rule(sent[:end]) for end in range(len(sent) + 1)]
    assert set(rules) == {Rule.RULE_NONE, broken_rule(sent)}
    assert broken_rule(sent)


def test_the_guide_lists_every_rule_and_no_other() -> None:
    section = DOCUMENT.read_text().split("`rule` of a")[1].split("\n## ")[0]
    listed = [line.split("`")[1] for line in section.splitlines() if line.startswith("| `")]
    assert listed == ["rule", *(rule.name.removeprefix("RULE_").lower() for rule in Rule
                                if 0 < rule < Rule.RULES)]
