"""lbcore's parser beside h11 and llhttp: what lbcore accepts, the others read in the same way.

Others may refuse what lbcore accepts, for the reasons in `REFUSED_BY_OTHERS`. That they read it
differently is never excused. Where lbcore is stricter than one of them stands in `STRICTER`, for
the whole corpus of smuggling requests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbcore._http1 import (
    CHUNKS_BAD,
    CHUNKS_LAST,
    Chunked,
    Framing,
    Head,
    Method,
    parse_response,
    parse_trailers,
)
from tests.support.http1 import read
from tests.support.http1_made import (
    Built,
    anything,
    built_requests,
    pieces,
    responses_with_bodies,
)
from tests.support.http1_peers import (
    Lines,
    Read,
    Reading,
    h11_requests,
    h11_responses,
    llhttp_requests,
    llhttp_responses,
)
from tests.support.smuggling import CASES, Case

PEERS: dict[str, Callable[[bytes], Reading]] = {
    "h11": h11_requests, "llhttp": llhttp_requests,
}


@dataclass(frozen=True)
class Refused:
    """What another parser refuses, or does not go on to, and lbcore accepts."""

    peer: str
    error: str                  # how the peer's begins; empty: it stops reading
    sent: bytes
    why: str


def get(lines: bytes = b"", line: bytes = b"GET / HTTP/1.1") -> bytes:
    return line + b"\r\nHost: a\r\n" + lines + b"\r\n"


CHUNKED = b"Transfer-Encoding: chunked\r\n"

REFUSED_BY_OTHERS = [
    Refused("h11", "illegal request line", get(line=b"GET /\xc3\xa4 HTTP/1.1"),
            "bytes from 0x80 on: what browsers of old and scripts send"),
    Refused("llhttp", "Invalid char in url", get(line=b"GET /\xc3\xa4 HTTP/1.1"), "the same"),
    Refused("h11", "no request line received", b"\r\n" + get(), "RFC 9112, 2.2: SHOULD be skipped"),
    Refused("llhttp", "Invalid method encountered", get(line=b"FETCH / HTTP/1.1"),
            "methods are an open set (RFC 9110, 16.1); llhttp has a list"),
    Refused("llhttp", "Expected space after method", get(line=b"GETS / HTTP/1.1"), "the same"),
    Refused("llhttp", "Invalid HTTP version", get(line=b"GET / HTTP/1.2"),
            "RFC 9110, 2.5: read as the highest minor version that is known"),
    Refused("llhttp", "Request has invalid `Transfer-Encoding`",
            get(b"Transfer-Encoding: chunked\t\r\n", b"POST / HTTP/1.1") + b"0\r\n\r\n",
            "a tab behind a value is white space like any other (RFC 9110, 5.6.3)"),
    Refused("h11", "illegal chunk header", get(CHUNKED, b"POST / HTTP/1.1") + b"0 ;a\r\n\r\n",
            "RFC 9112, 7.1.1: recipients MUST take white space before an extension"),
    Refused("llhttp", "Invalid character in chunk size",
            get(CHUNKED, b"POST / HTTP/1.1") + b"0 ;a\r\n\r\n", "the same"),
    Refused("llhttp", "Invalid character in chunk extensions",
            get(CHUNKED, b"POST / HTTP/1.1") + b"0;a; b\r\n\r\n", "the same"),
    *(Refused(peer, error, get(CHUNKED, b"POST / HTTP/1.1") + b"0\r\n" + line + b"\r\n\r\n" + get(),
              "a trailer frames nothing, here or later: lbcore drops it")
      for peer, error, line in [
          ("h11", "bad Content-Length", b"Content-Length: x"),
          ("h11", "conflicting Content-Length", b"Content-Length: 5, 6"),
          ("h11", "Only Transfer-Encoding: chunked", b"Transfer-Encoding: x"),
          ("h11", "multiple Transfer-Encoding", CHUNKED + b"Transfer-Encoding: chunked"),
          ("llhttp", "Content-Length can't be present", b"Content-Length: 5"),
          ("llhttp", "Invalid `Transfer-Encoding`", b"Transfer-Encoding: x"),
          ("llhttp", "Empty Transfer-Encoding", b"Transfer-Encoding:"),
          ("llhttp", "Data after `Connection: close`", b"Connection: close"),
      ]),
    Refused("llhttp", "", get(b"Connection: upgrade\r\nUpgrade: x\r\n") + get(),
            "llhttp stops where the protocol could change; a server that does not goes on"),
    Refused("h11", "", get(b"Connection: keep-alive\r\n", b"GET / HTTP/1.0") + get(),
            "h11 keeps no connection of HTTP/1.0"),
]

def comparable(lines: Lines) -> Lines:
    """h11 lowers the value of Transfer-Encoding."""
    return tuple((name.lower(), value.lower() if name.lower() == b"transfer-encoding" else value)
                 for name, value in lines)


def understood(data: bytes) -> list[Read]:
    reader = read(data)
    return [
        Read((meant.method, meant.target),
             comparable(tuple((line.name, line.value) for line in head.fields)),
             meant.body, complete=True)
        for meant, head in zip(reader.meant, reader.heads, strict=True)
    ]


def others_agree(data: bytes) -> None:
    ours = understood(data)
    for peer, parse in PEERS.items():
        reading = parse(data)
        theirs = reading.complete
        for message in theirs:
            message.lines = comparable(message.lines)
        shared = min(len(ours), len(theirs))
        assert theirs[:shared] == ours[:shared], peer
        if shared < len(ours):
            reasons = [reason.error for reason in REFUSED_BY_OTHERS if reason.peer == peer]
            assert any(reading.error.startswith(reason) if reason else not reading.error
                       for reason in reasons), (peer, reading.error)


@given(st.lists(built_requests(), min_size=1, max_size=3))
@settings(max_examples=300, deadline=None)
def test_others_read_valid_requests_in_the_same_way(stream: list[Built]) -> None:
    others_agree(b"".join(built.text for built in stream))


@given(anything)
@settings(max_examples=300, deadline=None)
def test_others_read_what_is_accepted_of_anything_in_the_same_way(data: bytes) -> None:
    others_agree(data)


@given(st.sampled_from(CASES), st.integers(0, 200), pieces, st.integers(0, 4))
@settings(max_examples=400, deadline=None)
def test_others_read_what_is_accepted_of_damaged_attacks_in_the_same_way(
    case: Case, at: int, damage: bytes, lost: int
) -> None:
    at %= len(case.sent) + 1
    others_agree(case.sent[:at] + damage + case.sent[at + lost:])


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_others_read_what_is_accepted_of_an_attack_in_the_same_way(case: Case) -> None:
    others_agree(case.sent)


@pytest.mark.parametrize("known", REFUSED_BY_OTHERS, ids=lambda known: f"{known.peer} {known.why}")
def test_what_others_refuse_is_still_accepted_here_and_refused_there(known: Refused) -> None:
    reader = read(known.sent)
    assert reader.refused is None
    assert not reader.left
    reading = PEERS[known.peer](known.sent)
    assert len(reading.complete) < len(reader.meant)
    assert reading.error.startswith(known.error)
    assert bool(known.error) == bool(reading.error)


# ---- where lbcore is stricter ------------------------------------------------------------------


@dataclass(frozen=True)
class Stricter:
    """Cases of the corpus of which other parsers read a request that lbcore refuses."""

    peers: str
    why: str
    cases: tuple[str, ...]


STRICTER = [
    Stricter(
        "h11", "both framings are an attack, or as good as one (RFC 9112, 6.3); h11 takes chunked",
        ("CL.TE", "TE.CL", "CL.TE, far apart", "CL 0 and TE")),
    Stricter(
        "llhttp", "codings but chunked would have to be understood to be sent on; empty members of "
        "the list are where parsers part",
        ("TE.TE gzip, chunked", "TE.TE empty member before", "TE.TE cow first")),
    Stricter("h11 llhttp", "RFC 9112, 6.1: the framing is faulty", ("TE.TE in HTTP/1.0",)),
    Stricter(
        "h11", "equal lengths may be taken for one (RFC 9112, 6.3); nothing honest repeats them",
        ("CL twice, the same", "CL list", "CL list without spaces")),
    Stricter(
        "h11", "a recipient MAY take a bare LF for a line end (RFC 9112, 2.2): some do, some not",
        ("TE.TE behind a bare LF", "CL bare LF behind", "chunk trailers ended by LF",
         "chunk trailer with bare LF", "line ended by LF", "empty line ended by LF")),
    Stricter(
        "h11", "folded lines are refused or unfolded (RFC 9112, 5.2); who forgets sees others",
        ("TE.TE folded", "TE.TE folded behind another", "TE.TE folded with a tab",
         "chunk trailer folded", "Host folded", "Host in another one's fold",
         "field empty line of spaces")),
    Stricter("llhttp", "one space stands between the parts of a request line (RFC 9112, 3)",
             ("line two spaces", "line two spaces before the version")),
    Stricter("llhttp", "one empty line before a request is enough, and none of LF alone",
             ("line LF before", "line two empty ones before")),
    Stricter("h11 llhttp", "a fragment is never sent; who ends the path there sees another one",
             ("line fragment",)),
    Stricter("llhttp", "nothing says where HTTP/0.9 ends", ("line no version",)),
    Stricter("h11 llhttp", "another major version is another protocol (RFC 9110, 2.5)",
             ("line version 0.9", "line version 2.0")),
    Stricter("h11", "that version has no such requests", ("HTTP/2 preface",)),
    Stricter("h11", "longer than any method that is known (RFC 9112, 3)",
             ("line method of 65 letters",)),
    Stricter(
        "h11", "a target has one of four forms, each for its methods (RFC 9112, 3.2)",
        ("line path without its slash", "line authority with GET",
         "line absolute, backslash for a slash")),
    Stricter(
        "h11 llhttp", "the same; both leave the target to the application",
        ("line asterisk with GET", "line CONNECT with a path", "line CONNECT without a port",
         "line CONNECT to another host", "line absolute, another host",
         "line absolute, another port", "line absolute, user information",
         "line absolute, user information before ours", "line absolute, no host",
         "line absolute, another scheme")),
    Stricter(
        "llhttp", "Host is there once (RFC 9112, 3.2); llhttp does not look at it",
        ("Host missing", "Host twice", "Host twice, the same", "Host twice in HTTP/1.0",
         "pipelined, second one bad")),
    Stricter(
        "h11 llhttp", "Host routes: a name or an address; both leave it to the application",
        ("Host empty", "Host list", "Host list without spaces", "Host with user information",
         "Host with a path", "Host with a query", "Host with a fragment", "Host with a backslash",
         "Host with a space", "Host with an escape", "Host with a quote", "Host with a semicolon",
         "Host with letters for a port", "Host with too large a port", "Host with two ports",
         "Host with a port only", "Host with a bracket open", "Host with text behind the bracket",
         "Host with a zone", "Host with no address in brackets", "Host with bytes beyond ASCII")),
    Stricter(
        "h11 llhttp", "a proxy that obeys would remove what frames or routes the request",
        ("CL named by Connection", "Host named by Connection")),
    Stricter("h11", "values have no control bytes (RFC 9110, 5.5)",
             ("field with DEL in its value", "field with a bell in its value")),
]


def test_where_lbcore_is_stricter_than_others_is_written_down() -> None:
    found: dict[str, set[str]] = {}
    for case in CASES:
        for peer, parse in PEERS.items():
            if len(parse(case.sent).complete) > len(read(case.sent).meant):
                found.setdefault(case.name, set()).add(peer)
    assert found == {name: set(row.peers.split()) for row in STRICTER for name in row.cases}


# ---- responses ---------------------------------------------------------------------------------


def response_understood(data: bytes, method: Method) -> list[Read]:
    """1xx responses and the final one, with what has arrived of its body."""
    found: list[Read] = []
    while True:
        head = parse_response(data, method)
        if not isinstance(head, Head):
            return found
        rest = data[head.size:]
        message = Read((b"%d" % head.status,),
                       comparable(tuple((line.name, line.value) for line in head.fields)))
        if head.framing == Framing.BODY_NONE:
            message.complete = True
        elif head.framing == Framing.BODY_LENGTH:
            message.body = rest[:head.length]
            message.complete = len(message.body) == head.length
        elif head.framing == Framing.BODY_CLOSE:
            message.body = rest
        else:
            got, taken, message.body = Chunked().feed(rest)
            if got == CHUNKS_BAD:
                return found
            message.complete = got == CHUNKS_LAST and isinstance(
                parse_trailers(rest[taken:]), Head)
        found.append(message)
        if head.status >= 200 or head.status == 101:
            return found
        data = rest


def others_agree_on_responses(data: bytes, method: Method) -> None:
    ours = response_understood(data, method)
    name = method.name.removeprefix("METHOD_").encode()
    readings = {"h11": h11_responses(data, name)}
    if method != Method.METHOD_HEAD:        # of which llhttp would have to be told
        readings["llhttp"] = llhttp_responses(data)
    for peer, reading in readings.items():
        theirs = reading.messages
        if reading.error and theirs and not theirs[-1].complete:
            theirs.pop()
        for message in theirs:
            message.lines = comparable(message.lines)
        shared = min(len(ours), len(theirs))
        assert theirs[:shared] == ours[:shared], peer
        if shared < len(ours):
            # 101 to whom nobody asked: the parser does not know, and its caller does.
            assert (peer == "h11" and ours[shared].start == (b"101",)) or any(
                reading.error.startswith(reason.error)
                for reason in REFUSED_BY_OTHERS if reason.peer == peer and reason.error), reading


@given(responses_with_bodies(), st.sampled_from([Method.METHOD_GET, Method.METHOD_HEAD]))
@settings(max_examples=300, deadline=None)
def test_others_read_valid_responses_in_the_same_way(data: bytes, method: Method) -> None:
    others_agree_on_responses(data, method)


@given(anything, st.sampled_from([Method.METHOD_GET, Method.METHOD_HEAD]))
@settings(max_examples=300, deadline=None)
def test_others_read_accepted_responses_of_anything_in_the_same_way(
    data: bytes, method: Method
) -> None:
    others_agree_on_responses(data, method)
