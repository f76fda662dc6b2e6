"""HTTP/1.1 heads and bodies: any bytes at all, messages built to be valid, every cut of both."""

from __future__ import annotations

import string
from dataclasses import dataclass

from hypothesis import example, given, settings
from hypothesis import strategies as st

from lbcore._http1 import FieldFlag, Framing, Head, HeadFlag, Method, parse_request, parse_response
from tests.support.http1 import (
    Meant,
    all_claims,
    chunks_agree,
    parts_agree_with_the_whole,
    read,
    requests,
    responses,
)
from tests.support.smuggling import CASES, Case

TOKEN = string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~"
TARGET = [byte for byte in range(0x21, 0x100) if byte not in (0x7F, ord("#"))]
VALUE = [*range(0x20, 0x7F), *range(0x80, 0x100), 9]

tokens = st.text(TOKEN, min_size=1, max_size=20).map(str.encode)
values = st.lists(st.sampled_from(VALUE), max_size=40).map(bytes).map(lambda v: v.strip(b" \t"))
blanks = st.text(" \t", max_size=3).map(str.encode)
hosts = st.sampled_from(
    [b"a", b"example.com", b"EXAMPLE.com:80", b"10.0.0.1:8080", b"[::1]", b"[2001:db8::7]:443",
     b"under_score.example", b"example.com:"]
)
ACTED_ON = {
    b"host", b"content-length", b"transfer-encoding", b"connection", b"upgrade", b"expect", b"te",
}
lines = st.tuples(tokens, values).filter(lambda line: line[0].lower() not in ACTED_ON)
cut_lists = st.lists(st.integers(0, 2000), max_size=12)

# Bytes that parsers care about, more often than chance would have them.
pieces = st.one_of(
    st.binary(max_size=6),
    st.sampled_from(
        [b"\r\n", b"\n", b"\r", b" ", b"\t", b":", b",", b";", b"0", b"5", b"chunked", b"HTTP/1.1",
         b"HTTP/1.0", b"GET / HTTP/1.1\r\n", b"HTTP/1.1 200 OK\r\n", b"Host: a\r\n", b"Host:",
         b"Content-Length: 5\r\n", b"Content-Length:", b"Transfer-Encoding: chunked\r\n",
         b"Transfer-Encoding:", b"Connection: close\r\n", b"Connection: ", b"\r\n\r\n", b"hello",
         b"5\r\nhello\r\n", b"0\r\n\r\n", b"POST http://a/ HTTP/1.1\r\n", b"X: y\r\n", b"\0"]
    ),
)
anything = st.lists(pieces, max_size=25).map(b"".join)


@given(anything, cut_lists)
@settings(max_examples=400)
def test_whatever_arrives_the_parser_agrees_with_itself(data: bytes, cuts: list[int]) -> None:
    all_claims(data, cuts)


@given(st.sampled_from(CASES), st.integers(0, 200), pieces, cut_lists)
@settings(max_examples=300)
def test_it_agrees_with_itself_on_damaged_attacks(
    case: Case, at: int, damage: bytes, cuts: list[int]
) -> None:
    sent = case.sent
    at %= len(sent) + 1
    all_claims(sent[:at] + damage + sent[at:], cuts)
    all_claims(sent[:at] + damage + sent[at + len(damage):], cuts)


@dataclass(frozen=True)
class Built:
    """A request, and what it was built of."""

    text: bytes
    method: bytes
    target: bytes
    host: bytes
    lines: tuple[tuple[bytes, bytes], ...]
    body: bytes
    trailers: tuple[tuple[bytes, bytes], ...]
    chunked: bool
    head_size: int


def chunks_of(body: bytes, sizes: list[int], extension: bytes) -> bytes:
    out = b""
    while body:
        size = min(sizes.pop() if sizes else len(body), len(body))
        out += b"%x%s\r\n%s\r\n" % (size, extension, body[:size])
        body = body[size:]
    return out + b"0" + extension + b"\r\n"


@st.composite
def built_requests(draw: st.DrawFn) -> Built:
    method = draw(st.one_of(
        st.sampled_from([b"GET", b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS"]),
        tokens.filter(lambda token: token != b"CONNECT"),
    ))
    target = b"/" + bytes(draw(st.lists(st.sampled_from(TARGET), max_size=30)))
    host = draw(hosts)
    if draw(st.booleans()):
        target = b"http://" + host + target
    given_lines = draw(st.lists(lines, max_size=8))
    sent = [(b"Host", host), *given_lines]
    body, trailers, chunked = draw(st.binary(max_size=60)), [], draw(st.booleans())
    rest = body
    if chunked:
        trailers = draw(st.lists(
            st.tuples(tokens.map(lambda token: b"X-T-" + token), values), max_size=3))
        sent.append((b"transfer-encoding", draw(st.sampled_from([b"chunked", b"Chunked"]))))
        rest = chunks_of(body, draw(st.lists(st.integers(1, 20))),
                         draw(st.sampled_from([b"", b";a=b", b' ; a="\t b"'])))
        rest += b"".join(b"%s:%s\r\n" % line for line in trailers) + b"\r\n"
    elif body or draw(st.booleans()):
        sent.append((b"Content-Length", b"%d" % len(body)))
    sent = draw(st.permutations(sent))
    head = b"%s %s HTTP/1.1\r\n" % (method, target)
    for name, value in sent:
        head += name + b":" + draw(blanks) + value + draw(blanks) + b"\r\n"
    head += b"\r\n"
    return Built(head + rest, method, target, host, tuple(sent), body, tuple(trailers), chunked,
                 len(head))


@given(built_requests())
def test_a_valid_request_parses_to_what_it_was_built_of(built: Built) -> None:
    head = parse_request(built.text)
    assert isinstance(head, Head)
    assert head.size == built.head_size
    assert (head.method_text, head.target, head.host) == (built.method, built.target, built.host)
    assert tuple((line.name, line.value) for line in head.fields) == built.lines
    assert head.flags & HeadFlag.HEAD_KEEP_ALIVE
    if built.chunked:
        assert head.framing == Framing.BODY_CHUNKED
    elif built.body:
        assert (head.framing, head.length) == (Framing.BODY_LENGTH, len(built.body))
    path = head.path if head.query is None else head.path + b"?" + head.query
    assert built.target in (path, b"http://" + built.host + path)


@given(st.lists(built_requests(), min_size=1, max_size=4), cut_lists)
def test_pipelined_requests_are_read_one_after_the_other_however_they_arrive(
    stream: list[Built], cuts: list[int]
) -> None:
    data = b"".join(built.text for built in stream)
    reader = read(data, {cut % (len(data) + 1) for cut in cuts})
    assert reader.refused is None
    assert reader.left == b""
    assert reader.meant == [
        Meant(built.method, built.target, built.host, built.body, built.trailers)
        for built in stream
    ]


@given(built_requests())
@settings(max_examples=30)
def test_a_request_cut_at_any_byte_is_the_same_request(built: Built) -> None:
    cuts = range(len(built.text))
    parts_agree_with_the_whole(requests, built.text, cuts)
    for cut in cuts:
        assert read(built.text, [cut]).meant == read(built.text).meant


@st.composite
def built_responses(draw: st.DrawFn) -> tuple[bytes, int, bytes, list[tuple[bytes, bytes]]]:
    status = draw(st.integers(100, 599))
    reason = draw(values)
    sent = draw(st.lists(lines, max_size=8))
    text = b"HTTP/1.1 %d" % status + (b" " + reason if reason or draw(st.booleans()) else b"")
    text += b"\r\n" + b"".join(b"%s: %s\r\n" % line for line in sent) + b"\r\n"
    return text, status, reason, sent


@given(built_responses(), st.sampled_from(list(Method)))
def test_a_valid_response_parses_to_what_it_was_built_of(
    built: tuple[bytes, int, bytes, list[tuple[bytes, bytes]]], method: Method
) -> None:
    text, status, reason, sent = built
    head = parse_response(text, method)
    assert isinstance(head, Head)
    assert (head.status, head.reason) == (status, reason)
    assert [(line.name, line.value) for line in head.fields] == sent
    bodiless = status < 200 or status in (204, 304) or method == Method.METHOD_HEAD
    assert head.framing == (Framing.BODY_NONE if bodiless else Framing.BODY_CLOSE)
    parts_agree_with_the_whole(responses, text, range(0, len(text), 3))


@given(st.binary(max_size=300), st.lists(st.integers(1, 64)), cut_lists, st.binary(max_size=20))
@example(b"", [], [0], b"")
def test_chunks_cut_anywhere_give_the_body_they_were_made_of(
    body: bytes, sizes: list[int], cuts: list[int], behind: bytes
) -> None:
    text = chunks_of(body, sizes, b"") + b"\r\n" + behind
    chunks_agree(text, [cut % (len(text) + 1) for cut in cuts])
    reader = read(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + text)
    assert reader.meant[0].body == body


@given(tokens, st.sampled_from([b"close", b"keep-alive"]), values)
def test_what_connection_names_is_hop_by_hop_and_nothing_else_is(
    named: bytes, also: bytes, value: bytes
) -> None:
    other = b"y-" + named
    name = b"X-" + named
    head = parse_request(
        b"GET / HTTP/1.1\r\nHost: a\r\n%s: %s\r\nConnection: %s ,\t%s\r\n%s: z\r\n\r\n"
        % (name.upper(), value, also, name.lower(), other)
    )
    assert isinstance(head, Head)
    hops = {line.name for line in head.fields if line.flags & FieldFlag.FIELD_HOP}
    kept = {b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-port",
            b"x-forwarded-prefix", b"x-forwarded-server", b"x-real-ip", b"x-request-id",
            b"x-accel-buffering"}
    expected = {b"Connection"} if name.lower() in kept else {b"Connection", name.upper()}
    assert hops == expected
