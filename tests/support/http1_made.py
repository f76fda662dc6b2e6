"""HTTP/1.1 messages for property tests: valid ones with what they were made of, and all others."""

from __future__ import annotations

import string
from dataclasses import dataclass

from hypothesis import strategies as st

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


@st.composite
def built_responses(draw: st.DrawFn) -> tuple[bytes, int, bytes, list[tuple[bytes, bytes]]]:
    status = draw(st.integers(100, 599))
    reason = draw(values)
    sent = draw(st.lists(lines, max_size=8))
    text = b"HTTP/1.1 %d" % status + (b" " + reason if reason or draw(st.booleans()) else b"")
    text += b"\r\n" + b"".join(b"%s: %s\r\n" % line for line in sent) + b"\r\n"
    return text, status, reason, sent


@st.composite
def responses_with_bodies(draw: st.DrawFn) -> bytes:
    text, status, _, _ = draw(built_responses())
    body = draw(st.binary(max_size=30))
    framing = draw(st.sampled_from(["close", "length", "chunked"]))
    if framing == "close" or status < 200:
        return text + body
    if framing == "length":
        return text[:-2] + b"Content-Length: %d\r\n\r\n" % len(body) + body
    chunks = chunks_of(body, draw(st.lists(st.integers(1, 9))), b"")
    return text[:-2] + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"\r\n"
