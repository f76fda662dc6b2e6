"""HTTP/1.1 heads and bodies: any bytes at all, messages built to be valid, every cut of both."""

from __future__ import annotations

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
from tests.support.http1_made import (
    Built,
    anything,
    built_requests,
    built_responses,
    chunks_of,
    cut_lists,
    pieces,
    tokens,
    values,
)
from tests.support.smuggling import CASES, Case


@given(anything, cut_lists)
@settings(max_examples=400, deadline=None)
def test_whatever_arrives_the_parser_agrees_with_itself(data: bytes, cuts: list[int]) -> None:
    all_claims(data, cuts)


@given(st.sampled_from(CASES), st.integers(0, 200), pieces, cut_lists)
@settings(max_examples=300, deadline=None)
def test_it_agrees_with_itself_on_damaged_attacks(
    case: Case, at: int, damage: bytes, cuts: list[int]
) -> None:
    sent = case.sent
    at %= len(sent) + 1
    all_claims(sent[:at] + damage + sent[at:], cuts)
    all_claims(sent[:at] + damage + sent[at + len(damage):], cuts)


@given(built_requests())
@settings(deadline=None)
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
@settings(deadline=None)
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
@settings(max_examples=30, deadline=None)
def test_a_request_cut_at_any_byte_is_the_same_request(built: Built) -> None:
    cuts = range(len(built.text))
    parts_agree_with_the_whole(requests, built.text, cuts)
    for cut in cuts:
        assert read(built.text, [cut]).meant == read(built.text).meant


@given(built_responses(), st.sampled_from(list(Method)))
@settings(deadline=None)
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
@settings(deadline=None)
def test_chunks_cut_anywhere_give_the_body_they_were_made_of(
    body: bytes, sizes: list[int], cuts: list[int], behind: bytes
) -> None:
    text = chunks_of(body, sizes, b"") + b"\r\n" + behind
    chunks_agree(text, [cut % (len(text) + 1) for cut in cuts])
    reader = read(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + text)
    assert reader.meant[0].body == body


@given(tokens, st.sampled_from([b"close", b"keep-alive"]), values)
@settings(deadline=None)
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
