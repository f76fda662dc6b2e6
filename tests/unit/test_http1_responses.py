"""Response heads, trailers and chunks, a claim each."""

from __future__ import annotations

import pytest

from lbcore._http1 import (
    CHUNKED_SIZE,
    CHUNKS_BAD,
    CHUNKS_LAST,
    CHUNKS_MORE,
    Chunked,
    FieldFlag,
    FieldId,
    Framing,
    Head,
    HeadFlag,
    Method,
    parse_response,
    parse_trailers,
)

GET = Method.METHOD_GET


def head_of(*lines: bytes, method: Method = GET) -> Head:
    head = parse_response(b"\r\n".join(lines) + b"\r\n\r\n", method)
    assert isinstance(head, Head), head
    return head


def refused(*lines: bytes) -> bool:
    return parse_response(b"\r\n".join(lines) + b"\r\n\r\n") == -502


# ---- the status line ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "status", "reason"),
    [
        (b"HTTP/1.1 200 OK", 200, b"OK"),
        (b"HTTP/1.1 200 ", 200, b""),
        (b"HTTP/1.1 200", 200, b""),
        (b"HTTP/1.0 404 Not  Found", 404, b"Not  Found"),
        (b"HTTP/1.1 599 \xc3\xa4\tb", 599, b"\xc3\xa4\tb"),
        (b"HTTP/1.1 100 Continue", 100, b"Continue"),
    ],
)
def test_a_status_line_may_leave_out_the_reason(line: bytes, status: int, reason: bytes) -> None:
    head = head_of(line)
    assert (head.status, head.reason) == (status, reason)


@pytest.mark.parametrize(
    "line",
    [b"HTTP/1.1 99 x", b"HTTP/1.1 099 x", b"HTTP/1.1 600 x", b"HTTP/1.1 2000 x", b"HTTP/1.1 20 x",
     b"HTTP/1.1  200 x", b"HTTP/1.1\t200 x", b"HTTP/1.1 2x0 x", b"HTTP/1.1 200\tx", b"HTTP/1.1",
     b"HTTP/1.1 ", b"HTTP/2.0 200 x", b"HTTP/0.9 200 x", b"HTTP/2 200", b"http/1.1 200 x",
     b"ICY 200 x", b"HTTP/1.1 200 x\0", b"HTTP/1.1 200 x\ry", b"HTTP/1.1 +20 x",
     b"\r\nHTTP/1.1 200", b" HTTP/1.1 200 OK", b"<html>"],
)
def test_other_status_lines_are_refused(line: bytes) -> None:
    assert refused(line)


@pytest.mark.parametrize(
    "line",
    [b"A : b", b" A: b", b"A", b": b", b"A: b\0", b"A: b\r c", b"A: b\nC: d", b"A: b\r\n c",
     b"A(: b", b"A: \x7f"],
)
def test_bad_fields_are_refused(line: bytes) -> None:
    assert refused(b"HTTP/1.1 200 OK", line)


def test_lines_that_end_in_lf_alone_are_refused() -> None:
    assert parse_response(b"HTTP/1.1 200 OK\nA: b\n\n") == -502


def test_a_head_beyond_its_limits_is_refused() -> None:
    text = b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 20 + b"\r\n"
    assert isinstance(parse_response(text, max_size=len(text), max_fields=20), Head)
    assert parse_response(text, max_size=len(text) - 1) == -502
    assert parse_response(text, max_fields=19) == -502
    assert parse_response(text[:-1], max_size=len(text)) == 0


# ---- framing (RFC 9112, 6.3) -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "status", "lines", "framing"),
    [
        (GET, 200, [], Framing.BODY_CLOSE),
        (GET, 200, [b"Content-Length: 5"], Framing.BODY_LENGTH),
        (GET, 200, [b"Content-Length: 0"], Framing.BODY_LENGTH),
        (GET, 200, [b"Transfer-Encoding: Chunked"], Framing.BODY_CHUNKED),
        (GET, 100, [], Framing.BODY_NONE),
        (GET, 103, [b"Link: </a>; rel=preload"], Framing.BODY_NONE),
        (GET, 101, [b"Connection: upgrade", b"Upgrade: websocket"], Framing.BODY_NONE),
        (GET, 204, [], Framing.BODY_NONE),
        (GET, 204, [b"Content-Length: 0"], Framing.BODY_NONE),
        (GET, 304, [b"Content-Length: 5"], Framing.BODY_NONE),
        (GET, 304, [b"Transfer-Encoding: chunked"], Framing.BODY_NONE),
        (Method.METHOD_HEAD, 200, [b"Content-Length: 5"], Framing.BODY_NONE),
        (Method.METHOD_HEAD, 200, [b"Transfer-Encoding: chunked"], Framing.BODY_NONE),
        (Method.METHOD_HEAD, 200, [], Framing.BODY_NONE),
        (Method.METHOD_POST, 404, [b"Content-Length: 5"], Framing.BODY_LENGTH),
        (GET, 205, [b"Content-Length: 0"], Framing.BODY_LENGTH),
    ],
)
def test_framing_follows_method_status_and_fields(
    method: Method, status: int, lines: list[bytes], framing: Framing
) -> None:
    assert head_of(b"HTTP/1.1 %d x" % status, *lines, method=method).framing == framing


def test_a_length_that_frames_nothing_is_still_known() -> None:
    head = head_of(b"HTTP/1.1 200 OK", b"Content-Length: 1234", method=Method.METHOD_HEAD)
    assert head.length == 1234
    assert head.flags & HeadFlag.HEAD_LENGTH_GIVEN
    assert not head_of(b"HTTP/1.1 304 x").flags & HeadFlag.HEAD_LENGTH_GIVEN


@pytest.mark.parametrize(
    "lines",
    [
        [b"Content-Length: 5", b"Transfer-Encoding: chunked"],
        [b"Content-Length: 5", b"Content-Length: 5"],
        [b"Content-Length: 5, 5"],
        [b"Content-Length: x"],
        [b"Content-Length:"],
        [b"Content-Length: 4611686018427387905"],
        [b"Transfer-Encoding: gzip, chunked"],
        [b"Transfer-Encoding: gzip"],
        [b"Transfer-Encoding: identity"],
        [b"Transfer-Encoding: chunked, chunked"],
        [b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"],
        [b"Transfer-Encoding:"],
        [b"Connection: content-length", b"Content-Length: 5"],
    ],
)
@pytest.mark.parametrize("status", [b"200", b"204", b"304"])
def test_framing_that_is_not_certain_is_refused(lines: list[bytes], status: bytes) -> None:
    assert refused(b"HTTP/1.1 " + status, *lines)


@pytest.mark.parametrize("line", [b"Content-Length: 5", b"Transfer-Encoding: chunked"])
def test_a_1xx_response_that_announces_a_body_is_refused(line: bytes) -> None:
    assert refused(b"HTTP/1.1 103 x", line)
    assert head_of(b"HTTP/1.1 103 x", b"Content-Length: 0").framing == Framing.BODY_NONE


def test_chunked_in_http_1_0_is_refused() -> None:
    assert refused(b"HTTP/1.0 200 OK", b"Transfer-Encoding: chunked")


@pytest.mark.parametrize(
    ("lines", "kept"),
    [
        ([b"HTTP/1.1 200 OK", b"Content-Length: 5"], True),
        ([b"HTTP/1.1 200 OK", b"Content-Length: 5", b"Connection: close"], False),
        ([b"HTTP/1.1 200 OK"], False),
        ([b"HTTP/1.1 204 x"], True),
        ([b"HTTP/1.0 200 OK", b"Content-Length: 5"], False),
        ([b"HTTP/1.0 200 OK", b"Content-Length: 5", b"Connection: keep-alive"], True),
        ([b"HTTP/1.0 200 OK", b"Connection: keep-alive"], False),
    ],
)
def test_a_connection_is_kept_when_the_body_has_an_end_of_its_own(
    lines: list[bytes], kept: bool
) -> None:
    assert bool(head_of(*lines).flags & HeadFlag.HEAD_KEEP_ALIVE) == kept


def test_hop_by_hop_fields_of_responses_are_marked() -> None:
    head = head_of(b"HTTP/1.1 401 x", b"Connection: X-A", b"X-A: b", b"Proxy-Authenticate: Basic",
                   b"WWW-Authenticate: Basic", b"Set-Cookie: a=b", b"Keep-Alive: timeout=5")
    assert [line.name for line in head.fields if line.flags & FieldFlag.FIELD_HOP] == [
        b"Connection", b"X-A", b"Proxy-Authenticate", b"Keep-Alive"]


# ---- trailers ----------------------------------------------------------------------------------


def test_trailers_are_fields_up_to_an_empty_line() -> None:
    head = parse_trailers(b"A: b\r\nc:d\r\n\r\nGET")
    assert isinstance(head, Head)
    assert head.size == 13
    assert [(line.name, line.value) for line in head.fields] == [(b"A", b"b"), (b"c", b"d")]


def test_a_trailer_section_may_be_empty() -> None:
    head = parse_trailers(b"\r\n")
    assert isinstance(head, Head)
    assert (head.size, head.fields) == (2, ())
    assert parse_trailers(b"\r") == 0
    assert parse_trailers(b"") == 0


@pytest.mark.parametrize(
    "name",
    [b"Content-Length", b"Transfer-Encoding", b"Host", b"Connection", b"TE", b"Trailer",
     b"Authorization", b"Cookie", b"Set-Cookie", b"WWW-Authenticate", b"Proxy-Authorization",
     b"Content-Type", b"Content-Encoding", b"Content-Range", b"Cache-Control", b"Expect",
     b"Max-Forwards", b"Range", b"If-Match", b"Location", b"Retry-After", b"Vary", b"Date",
     b"X-Forwarded-For", b"Forwarded", b"Via", b"X-Request-ID"],
)
def test_what_must_not_be_a_trailer_is_marked(name: bytes) -> None:
    head = parse_trailers(name.lower() + b": x\r\nA: b\r\n\r\n")
    assert isinstance(head, Head)
    assert [bool(line.flags & FieldFlag.FIELD_HOP) for line in head.fields] == [True, False]


@pytest.mark.parametrize(
    "name", [b"grpc-status", b"Server-Timing", b"Digest", b"Content-Digest", b"ETag"])
def test_real_trailers_are_not(name: bytes) -> None:
    head = parse_trailers(name + b": x\r\n\r\n")
    assert isinstance(head, Head)
    assert head.fields[0].flags == 0
    assert head.fields[0].id == FieldId.FIELD_OTHER


def test_bad_trailers_are_400_and_too_large_ones_431() -> None:
    assert parse_trailers(b"A : b\r\n\r\n") == -400
    assert parse_trailers(b"A: b\n\r\n") == -400
    assert parse_trailers(b"A: b\r\n\r\n", max_size=7) == -431
    assert parse_trailers(b"A: b\r\nA: b\r\n\r\n", max_fields=1) == -431


# ---- chunks ------------------------------------------------------------------------------------


def test_the_state_of_a_chunked_body_is_small() -> None:
    assert CHUNKED_SIZE == 16


def test_chunks_become_a_body_without_gaps() -> None:
    text = b"5\r\nhello\r\n1;a=b\r\n \r\n00A\r\nwide world\r\n0\r\n"
    assert Chunked().feed(text + b"\r\nGET") == (CHUNKS_LAST, len(text), b"hello wide world")


def test_what_is_left_of_a_chunk_is_known() -> None:
    chunked = Chunked()
    assert chunked.feed(b"ff\r\nabc") == (CHUNKS_MORE, 7, b"abc")
    assert chunked.left == 252


def test_the_largest_chunk_has_2_to_the_62_bytes() -> None:
    chunked = Chunked()
    assert chunked.feed(b"4000000000000000\r\n")[0] == CHUNKS_MORE
    assert chunked.left == 2**62
    for size in range(2**62 + 1, 2**62 + 20):
        assert Chunked().feed(b"%x\r\n" % size)[0] == CHUNKS_BAD
    for digits in range(17, 40):
        assert Chunked().feed(b"%x\r\n" % 16 ** digits)[0] == CHUNKS_BAD


def test_a_size_line_has_at_most_4096_bytes() -> None:
    assert Chunked().feed(b"1;" + b"a" * 4092 + b"\r\n")[0] == CHUNKS_MORE
    assert Chunked().feed(b"1;" + b"a" * 4093 + b"\r\n")[0] == CHUNKS_BAD


def test_size_lines_are_measured_one_by_one() -> None:
    line = b"1;" + b"a" * 4000 + b"\r\n"
    assert Chunked().feed((line + b"b\r\n") * 3 + b"0\r\n")[0] == CHUNKS_LAST


def test_after_its_end_a_body_takes_nothing_more() -> None:
    chunked = Chunked()
    assert chunked.feed(b"0\r\n") == (CHUNKS_LAST, 3, b"")
    assert chunked.feed(b"1\r\na\r\n") == (CHUNKS_LAST, 0, b"")


def test_a_bad_body_stays_bad() -> None:
    chunked = Chunked()
    assert chunked.feed(b"x")[0] == CHUNKS_BAD
    assert chunked.feed(b"0\r\n") == (CHUNKS_BAD, 0, b"")
