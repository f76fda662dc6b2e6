"""Each timeout over HTTP: what the client is told, what is counted, and that nothing is kept."""

from __future__ import annotations

import socket

import pytest

from tests.support.http_lab import HttpLab, blob, reply, request, sent
from tests.support.relay_lab import is_quiet, member, pool

GET = request()
SOON = 400      # ms


def test_head_that_does_not_come_to_its_end_is_408(web: HttpLab) -> None:
    web.web(pool(web.origin()), head_timeout_ms=SOON)
    client = web.client(b"GET / HTTP/1.1\r\nHost: a\r\n")
    answer = client.answer()
    assert (answer.status, answer.closes) == (408, True)
    web.expect_http(head_timeout=1)


def test_head_that_comes_a_byte_at_a_time_has_no_more_time_than_any(web: HttpLab) -> None:
    web.web(pool(web.origin()), head_timeout_ms=2 * SOON)
    client = web.client()
    said = 0
    for byte in b"GET / HTTP/1.1\r\nX-Slow: " + b"a" * 1000:
        client.say(bytes([byte]))
        said += 1
        if not is_quiet(client.sock, 0.02):
            break
    assert said < 100
    assert client.answer().status == 408


def test_client_that_says_nothing_is_let_go_without_a_word(web: HttpLab) -> None:
    origin = web.origin()
    web.web(pool(origin), keepalive_timeout_ms=SOON)
    assert web.client().end() == "eof"
    client, server, _ = web.pair(origin, GET)
    server.say(reply(b"x"))
    client.answer()
    assert client.end() == "eof"
    web.expect_ended(client_idle=2)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("framing", ["Content-Length: 100", "Transfer-Encoding: chunked"])
def test_body_that_stops_coming_is_408(web: HttpLab, stream: bool, framing: str) -> None:
    origin = web.origin()
    web.web(pool(origin), route={"body_timeout_ms": SOON, "buffer_request": not stream})
    client = web.client(request("POST / HTTP/1.1", framing))
    server = web.take(origin) if stream else None
    answer = client.answer()
    assert (answer.status, answer.closes) == (408, True)
    if server:
        server.head()
        assert server.cut().how == "reset"
    web.expect_http(head_timeout=1)
    web.expect_free()


def test_backend_that_does_not_answer_is_504(web: HttpLab) -> None:
    origin = web.origin()
    web.web(pool(origin), route={"first_byte_timeout_ms": 1000})
    client, server, _ = web.pair(origin, GET)
    answer = client.answer()
    assert (answer.status, answer.closes) == (504, False)
    assert server.end() == "reset"
    web.expect_http(first_byte=1)
    assert web.board.failures(0) == 1
    client.say(GET)
    server = web.take(origin)
    server.request()
    server.say(reply(b"x"))
    assert client.answer().body == b"x"


def test_backend_that_takes_no_request_is_504_too(web: HttpLab) -> None:
    origin = web.origin()
    web.web(pool(origin), route={"first_byte_timeout_ms": 2 * SOON})
    client = web.client()
    sender = sent(client, request("PUT / HTTP/1.1", body=blob(20 << 20)))
    web.take(origin)
    assert client.answer().status == 504
    sender.join()
    web.expect_http(first_byte=1)


@pytest.mark.parametrize("framing", ["Content-Length: 100", "Transfer-Encoding: chunked", "X: 1"])
def test_response_that_stops_coming_is_cut(web: HttpLab, framing: str) -> None:
    origin = web.origin()
    web.web(pool(origin), route={"read_timeout_ms": SOON})
    client, server, _ = web.pair(origin, GET)
    server.say(reply(b"", framing, length=False))
    assert client.head().status == 200
    assert client.cut().how == "reset"
    assert server.end() == "reset"
    web.expect_http(answer_cut=1)


@pytest.mark.parametrize("absorb", [False, True])
def test_client_that_takes_nothing_is_cut(web: HttpLab, absorb: bool) -> None:
    origin = web.origin()
    web.web(pool(origin), route={"send_timeout_ms": 2 * SOON, "buffer_response": absorb})
    client, server, _ = web.pair(origin, GET)
    sender = sent(server, reply(bytes(30 << 20)))
    web.expect_http(client_slow=1)
    sender.join()
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    assert client.cut().how == "reset"
    web.expect_free()


def test_whole_request_has_a_time_too(web: HttpLab) -> None:
    origin = web.origin()
    web.web(pool(origin), route={"total_timeout_ms": 1500, "buffer_response": False})
    client, server, _ = web.pair(origin, GET)
    assert client.answer().status == 504
    assert server.end() == "reset"
    client, server, _ = web.pair(origin, GET)
    server.say(reply(b"", "Content-Length: 100", length=False))
    assert client.head().status == 200
    assert client.cut().how == "reset"
    client = web.client(request("POST / HTTP/1.1", "Content-Length: 5"))
    assert client.answer().status == 504
    web.expect_http(total=3)


def test_connect_that_takes_too_long_is_504_and_a_refused_one_502(web: HttpLab) -> None:
    web.web(pool(web.blackhole(), connect_timeout_ms=SOON, connect_attempts=1))
    assert web.client(GET).answer().status == 504
    web.expect_http(connect_timeout=1)
    web.apply(pool(web.refusing(), connect_attempts=1))
    assert web.client(GET).answer().status == 502
    web.expect_http(connect_timeout=1, connect_failed=1)


def test_wait_for_a_place_ends_with_503_and_when_to_come_back(web: HttpLab) -> None:
    origin = web.origin()
    web.web(pool(member(origin, max_connections=1), queue_timeout_ms=SOON))
    client, server, _ = web.pair(origin, GET)
    other = web.client(GET)
    answer = other.answer()
    assert (answer.status, answer.closes) == (503, False)
    assert int(answer.get("retry-after") or 0) > 0
    web.expect_http(queue_timeout=1)
    server.say(reply(b"x"))
    assert client.answer().body == b"x"


def test_slow_pieces_that_keep_coming_are_no_timeout(web: HttpLab) -> None:
    origin = web.origin()
    web.web(pool(origin), route={
        "read_timeout_ms": 1000, "body_timeout_ms": 1000, "send_timeout_ms": 1000,
        "first_byte_timeout_ms": 1000})
    client = web.client(request("POST / HTTP/1.1", "Content-Length: 12"))
    for _ in range(12):
        client.say(b"x")
        assert is_quiet(client.sock, 0.12)
    server = web.take(origin)
    server.request()
    server.say(reply(b"", "Content-Length: 12", length=False))
    assert client.head().status == 200
    for _ in range(12):
        assert is_quiet(client.sock, 0.12)
        server.say(b"x")
        assert client.exactly(1) == b"x"
    web.expect_http(ok=1)
