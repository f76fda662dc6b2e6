"""Messages written anew, against a plain reading of what should be in them.

The model takes fields one by one; lbcore copies runs of lines. Values, names and white space are
anything that the parser accepts.
"""

from __future__ import annotations

import re
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from lbcore._http1 import FieldFlag, FieldId, Framing, Head, parse_request, parse_response
from lbcore._message import trailers
from lbcore.config.plan import FieldPlan, RoutePlan, Segment
from tests.support.exchange_lab import PROXY, STRANGER, exchange

QUIET: dict[str, Any] = {"forwarded": "none", "request_id": False, "via": ""}
GONE = {
    FieldId.FIELD_HOST, FieldId.FIELD_CONTENT_LENGTH, FieldId.FIELD_TRANSFER_ENCODING,
    FieldId.FIELD_CONNECTION, FieldId.FIELD_KEEP_ALIVE, FieldId.FIELD_PROXY_CONNECTION,
    FieldId.FIELD_TE, FieldId.FIELD_TRAILER, FieldId.FIELD_UPGRADE,
}
STRANGERS = {
    FieldId.FIELD_X_FORWARDED_FOR, FieldId.FIELD_X_FORWARDED_PROTO, FieldId.FIELD_X_FORWARDED_HOST,
    FieldId.FIELD_FORWARDED, FieldId.FIELD_EXPECT,
}

token = st.text("abcXYZ019-!#$%&'*+.^`|~_", min_size=1, max_size=12)
known = st.sampled_from([
    "Accept", "Connection", "cookie", "X-Forwarded-For", "x-forwarded-proto", "X-Forwarded-Host",
    "X-Forwarded-Port", "Forwarded", "Via", "X-Request-ID", "Keep-Alive", "TE", "Trailer",
    "Upgrade", "Proxy", "X_Real_IP", "X-Real-IP", "User-Agent", "X-Set", "X-Gone", "Date",
    "Set-Cookie",
])
names = st.one_of(known, token)
values = st.text(
    [chr(c) for c in (9, *range(0x20, 0x7F), *range(0x80, 0x100))], max_size=20,
).map(str.strip).map(lambda text: text.strip(" \t\x85\xa0\x1c"))
blanks = st.text(" \t", max_size=2)
lines = st.lists(st.builds(lambda n, a, v, b: f"{n}:{a}{v}{b}", names, blanks, values, blanks),
                 max_size=12)
parts = st.one_of(
    st.builds(Segment, st.sampled_from([
        "client_ip", "host", "method", "scheme", "path", "query", "uri", "request_id", "route",
        "backend", "tail"])),
    st.builds(lambda name: Segment("header", name), st.sampled_from(["cookie", "accept", "x-set"])),
    st.builds(lambda name: Segment("cookie", name), st.sampled_from(["a", "b"])),
    st.builds(lambda text: Segment("text", text), st.text("ab /?#:<\"", max_size=4)),
)
templates = st.lists(parts, max_size=4).map(tuple)
rules = st.lists(
    st.builds(FieldPlan, st.sampled_from(["set", "add", "remove"]),
              st.sampled_from(["X-Set", "X-Gone", "Host", "Content-Length", "Via", "Date",
                               "X-Forwarded-For", "Connection", "Transfer-Encoding"]), templates),
    max_size=4).map(tuple)
targets = st.text([chr(c) for c in range(0x21, 0x100) if c not in (0x23, 0x25, 0x7F)],
                  max_size=20).map(lambda text: "/" + text)


def head(first: str, fields: list[str]) -> bytes:
    return ("\r\n".join([first, *fields]) + "\r\n\r\n").encode("latin-1")


def as_head(parsed: Head | int) -> Head:
    assert isinstance(parsed, Head), parsed
    return parsed


def dropped(name: bytes) -> bool:
    """What a stranger's request does not bring along, beside known fields."""
    lower = name.lower()
    return lower in {b"proxy", b"x-real-ip"} or lower.startswith(b"x-forwarded-")


def assert_lines(message: bytes) -> None:
    """Every line of a head ends where it should, and nowhere else."""
    assert message.endswith(b"\r\n\r\n")
    assert re.fullmatch(rb"(?:[^\r\n\0]+\r\n)+\r\n", message)


@given(lines)
def test_what_is_sent_on_is_what_was_understood(fields: list[str]) -> None:
    source = head("GET / HTTP/1.1", ["Host: a", *fields])
    parsed = parse_request(source)
    if isinstance(parsed, int):
        return
    made = exchange(source, **QUIET).request(Framing.BODY_NONE, 0)
    assert made is not None
    wanted = b"".join(
        field.name + b": " + field.value + b"\r\n" for field in parsed.fields
        if field.id not in GONE | STRANGERS and not field.flags and not dropped(field.name))
    trailers_wanted = re.search(rb"^TE: trailers\r\nConnection: TE\r\n", made, re.M)
    if trailers_wanted:
        wanted += trailers_wanted[0]
    assert made == b"GET / HTTP/1.1\r\nHost: a\r\n" + wanted + b"\r\n"


@settings(max_examples=300)
@given(lines, rules, targets, st.booleans(), st.booleans(),
       st.sampled_from([(), ("Content-Length: 7",), ("Transfer-Encoding: chunked",)]))
def test_whatever_comes_the_backend_gets_one_request_framed_as_meant(
        fields: list[str], changes: tuple[FieldPlan, ...], target: str, underscores: bool,
        trusted: bool, framing: tuple[str, ...]) -> None:
    source = head(f"POST {target} HTTP/1.1", ["Host: a", *fields, *framing])
    parsed = parse_request(source)
    if isinstance(parsed, int):
        return
    route = RoutePlan("r", pool=0, request_fields=changes)
    try:
        request = exchange(source, route, underscores=underscores, forwarded="both",
                           peer=PROXY if trusted else STRANGER, trusted=("10.0.0.0/8",))
    except ValueError:
        return                                          # a path that means nothing
    made = request.request()
    assert made is not None
    assert_lines(made)
    again = as_head(parse_request(made))
    assert again.size == len(made)
    assert again.method_text == b"POST"
    assert re.match(rb"POST [!$%&'()*+,./0-9:;=?@A-Z\[\]_a-z~-]+ HTTP/1\.1\r\n", made)
    assert (again.framing, again.length) in (
        (parsed.framing, parsed.length), (Framing.BODY_LENGTH, 0))
    if parsed.framing != Framing.BODY_NONE:
        assert (again.framing, again.length) == (parsed.framing, parsed.length)
    for hop in again.fields:
        if hop.flags & FieldFlag.FIELD_HOP:
            assert hop.name in (b"TE", b"Connection", b"Transfer-Encoding")


@settings(max_examples=300)
@given(lines, rules, st.integers(200, 599), st.sampled_from(["1.0", "1.1"]),
       st.sampled_from([(), ("Content-Length: 7",), ("Transfer-Encoding: chunked",)]))
def test_whatever_comes_the_client_gets_one_response_framed_as_meant(
        fields: list[str], changes: tuple[FieldPlan, ...], status: int, version: str,
        framing: tuple[str, ...]) -> None:
    source = head(f"HTTP/{version} {status} \xe9 reason", [*fields, *framing])
    parsed = parse_response(source)
    if isinstance(parsed, int) or parsed.size != len(source):
        return
    route = RoutePlan("r", pool=0, response_fields=changes)
    made = exchange(head("GET /a?b HTTP/1.1", ["Host: a", "Cookie: a=b"]), route).response(source)
    assert made is not None
    assert_lines(made)
    again = as_head(parse_response(made))
    assert (again.status, again.size) == (status, len(made))
    length = 0 if status == 204 else parsed.length     # RFC 9110, 8.6: a 204 does not say any
    assert (again.framing, again.length) == (parsed.framing, length)


@given(lines, rules, st.integers(0, 600), st.sampled_from(["request", "answer", "response"]))
def test_no_room_is_ever_overstepped(fields: list[str], changes: tuple[FieldPlan, ...], room: int,
                                     what: str) -> None:
    source = head("GET /a?b HTTP/1.1", ["Host: a", *fields])
    if isinstance(parse_request(source), int):
        return
    route = RoutePlan("r", pool=0, request_fields=changes, response_fields=changes)
    request = exchange(source, route)
    arguments: dict[str, tuple[Any, ...]] = {
        "request": (), "answer": (404,),
        "response": (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",)}
    write = getattr(request, what)
    whole = write(*arguments[what])                     # in the room that is said to suffice
    assert whole is not None
    made = write(*arguments[what], room=room)
    if room < len(whole):
        assert made is None
    else:   # a field whose value turns out empty is written before it is taken back
        assert made == whole or (made is None and room < len(whole) + 64)


@given(lines)
def test_trailers_never_say_more_than_they_may(fields: list[str]) -> None:
    section = ("".join(f"{field}\r\n" for field in fields) + "\r\n").encode("latin-1")
    try:
        made = trailers(section)
    except ValueError:
        return
    assert made is not None
    assert made == b"\r\n" or re.fullmatch(rb"(?:[^\r\n\0]+\r\n)+\r\n", made)
    assert not re.search(rb"^(connection|te|trailer|x-forwarded-for|forwarded):", made, re.I | re.M)
