"""The head that a client gets of a backend's response, trailers and dates, a claim each."""

from __future__ import annotations

from email.utils import formatdate

import pytest

from lbcore._answers import AnswerFlag
from lbcore._http1 import Framing
from lbcore._message import Exchange, date, trailers
from lbcore.config.plan import FieldPlan, RoutePlan
from tests.support.exchange_lab import exchange, field_of, fields_of, head_of, template

TODAY = "Sun, 06 Nov 1994 08:49:37 GMT"


def plain(line: str = "GET /", *rules: FieldPlan) -> Exchange:
    return exchange(head_of(line), RoutePlan("all", pool=0, response_fields=rules), via="")


def said(*fields: str, status: str = "200 OK", version: str = "1.1") -> bytes:
    lines = [f"HTTP/{version} {status}", *fields]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def names(message: bytes | None) -> list[str]:
    return [name for name, _ in fields_of(message)]


# ---- what is kept ------------------------------------------------------------------------------


def test_a_plain_response_goes_on_as_it_came() -> None:
    response = said("Server: x", "date: today", "Set-Cookie: a=b; Path=/", "Set-Cookie: c=d",
                    "X_Under: 1", "X-Forwarded-For: kept", "Content-Length: 3")
    assert plain().response(response) == response


def test_connection_fields_go() -> None:
    response = said("Date: d", "Connection: close, X-Hop", "X-Hop: 1", "Keep-Alive: timeout=5",
                    "Upgrade: h2c", "Content-Length: 0")
    assert plain().response(response) == said("Date: d", "Content-Length: 0")


def test_http_1_0_goes_on_as_http_1_1_to_the_client_whose_version_is_its_own() -> None:
    made = plain().response(said("Date: d", "Content-Length: 0", version="1.0"))
    assert made == said("Date: d", "Content-Length: 0")


@pytest.mark.parametrize(("line", "written"), [
    (b"HTTP/1.1 200", b"HTTP/1.1 200 \r\n"), (b"HTTP/1.1 200 ", b"HTTP/1.1 200 \r\n"),
    (b"HTTP/1.1 599 Never heard of", b"HTTP/1.1 599 Never heard of\r\n"),
])
def test_the_reason_is_the_backends(line: bytes, written: bytes) -> None:
    made = plain().response(line + b"\r\nContent-Length: 0\r\n\r\n")
    assert made is not None
    assert made.startswith(written)


def test_a_missing_date_is_added() -> None:
    assert field_of(plain().response(said("Content-Length: 0")), "Date") == TODAY


def test_via_names_lbcore_and_the_version_that_came() -> None:
    made = exchange(head_of("GET /"), via="lb1").response(
        said("Via: 1.1 inner", "Content-Length: 0", version="1.0"))
    assert [value for name, value in fields_of(made) if name == "Via"] == ["1.1 inner", "1.0 lb1"]


# ---- framing -----------------------------------------------------------------------------------


def test_a_length_is_made_anew() -> None:
    made = plain().response(said("Content-Length: 0042", "Date: d"))
    assert fields_of(made) == [("Date", "d"), ("Content-Length", "42")]


def test_chunked_keeps_the_announcement_of_trailers() -> None:
    response = said("Date: d", "Trailer: X-Sum", "Transfer-Encoding: chunked")
    assert plain().response(response) == response
    made = plain().response(response, Framing.BODY_LENGTH, 7)
    assert fields_of(made) == [("Date", "d"), ("Content-Length", "7")]


def test_a_body_until_the_end_closes_the_connection() -> None:
    assert fields_of(plain().response(said("Date: d"), Framing.BODY_CLOSE)) == [
        ("Date", "d"), ("Connection", "close")]


@pytest.mark.parametrize("flag", [AnswerFlag.ANSWER_CLOSE, AnswerFlag.ANSWER_KEEP_ALIVE])
def test_the_connection_field_is_what_the_flags_say(flag: AnswerFlag) -> None:
    value = {AnswerFlag.ANSWER_CLOSE: "close", AnswerFlag.ANSWER_KEEP_ALIVE: "keep-alive"}[flag]
    made = plain().response(said("Content-Length: 0"), flags=flag)
    assert field_of(made, "Connection") == value


@pytest.mark.parametrize(("line", "status"), [("HEAD /", "200 OK"), ("GET /", "304 Not Modified")])
@pytest.mark.parametrize("framing", [Framing.BODY_NONE, Framing.BODY_LENGTH])
def test_a_length_without_a_body_is_repeated_if_there_was_one(
        line: str, status: str, framing: Framing) -> None:
    made = plain(line)
    with_length = made.response(said("Content-Length: 42", status=status), framing)
    assert field_of(with_length, "Content-Length") == "42"
    assert field_of(made.response(said(status=status), framing), "Content-Length") is None
    chunked = made.response(said("Transfer-Encoding: chunked", status=status), framing)
    assert names(chunked) == ["Date"]


def test_no_content_has_no_length() -> None:
    assert names(plain().response(said(status="204 No Content"))) == ["Date"]


def test_a_response_that_cannot_have_a_body_says_so() -> None:
    made = plain().response(said("Date: d"), Framing.BODY_NONE)
    assert field_of(made, "Content-Length") == "0"


# ---- 1xx and 101 -------------------------------------------------------------------------------


def test_interim_responses_get_nothing_added() -> None:
    made = exchange(head_of("GET /"), RoutePlan(
        "all", pool=0, response_fields=(FieldPlan("set", "X", template("1")),
                                        FieldPlan("remove", "Server")))).response(
        said("Link: </a.css>; rel=preload", "Server: x", "X: 0", "Connection: close",
             status="103 Early Hints"), extra=b"Set-Cookie: s\r\n")
    assert made == said("Link: </a.css>; rel=preload", status="103 Early Hints")


def test_switching_protocols_goes_on_with_its_fields() -> None:
    made = plain("GET /", FieldPlan("set", "X", template("1"))).response(
        said("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Accept: abc",
             status="101 Switching Protocols"), extra=b"Set-Cookie: s\r\n")
    assert made == said("Sec-WebSocket-Accept: abc", "Connection: upgrade", "Upgrade: websocket",
                        "Set-Cookie: s", "X: 1", status="101 Switching Protocols")


# ---- what is added -----------------------------------------------------------------------------


def test_extra_lines_are_added_as_they_are() -> None:
    made = plain().response(said("Set-Cookie: a=b", "Date: d", "Content-Length: 0"),
                            extra=b"Set-Cookie: lb=1; Path=/\r\n")
    assert fields_of(made) == [("Set-Cookie", "a=b"), ("Date", "d"), ("Content-Length", "0"),
                               ("Set-Cookie", "lb=1; Path=/")]


def test_rules_change_the_response() -> None:
    made = plain("GET /", FieldPlan("remove", "server"), FieldPlan("set", "Date", template("x")),
                 FieldPlan("add", "X-Backend", template("$backend", "/", "$request_id")),
                 FieldPlan("remove", "Content-Length")).response(
        said("Server: x", "Date: d", "Content-Length: 3"))
    assert fields_of(made) == [
        ("Content-Length", "3"), ("Date", "x"),
        ("X-Backend", "one/fedcba98765432101000000000000000")]


def test_too_little_room_is_said_and_never_overstepped() -> None:
    made = plain("GET /a?b", FieldPlan("set", "X", template("$uri")))
    response = said("A: 1", "B:2", "Connection: close", "Content-Length: 3")
    whole = made.response(response, extra=b"C: 4\r\n")
    assert whole is not None
    for room in range(len(whole)):
        assert made.response(response, extra=b"C: 4\r\n", room=room) is None
    assert made.response(response, extra=b"C: 4\r\n", room=len(whole)) == whole


# ---- trailers and dates ------------------------------------------------------------------------


def test_trailers_go_on() -> None:
    assert trailers(b"X-Sum:  abc \r\nServer-Timing: x\r\n\r\n") == (
        b"X-Sum: abc\r\nServer-Timing: x\r\n\r\n")
    assert trailers(b"\r\n") == b"\r\n"


@pytest.mark.parametrize("name", [
    "Content-Length", "Transfer-Encoding", "Host", "Connection", "Authorization", "TE", "Trailer",
    "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "Forwarded", "X_User",
])
def test_what_must_not_come_late_goes(name: str) -> None:
    assert trailers(f"A: 1\r\n{name}: 7\r\nB: 2\r\n\r\n".encode()) == b"A: 1\r\nB: 2\r\n\r\n"


def test_trailers_need_their_room() -> None:
    for room in range(8):
        assert trailers(b"A: 1\r\n\r\n", room=room) is None
    assert trailers(b"A: 1\r\n\r\n", room=8) is not None


@pytest.mark.parametrize("seconds", [
    0, 1, 59, 86399, 86400, 784111777, 951782399, 951782400, 951868800, 1078012800, 1709164800,
    1709251199, 1709251200, 4102444799, 4107542400, 7258118400, 253402300799,
])
def test_dates_are_what_the_calendar_says(seconds: int) -> None:
    assert date(seconds) == formatdate(seconds, usegmt=True)
