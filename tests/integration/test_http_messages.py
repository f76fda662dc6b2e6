"""HTTP messages through a worker, as they are on the wire on both sides."""

from __future__ import annotations

import socket

import pytest

from tests.support.http_lab import Ended, HttpLab, Wire, chunks, echo_script, reply, request
from tests.support.relay_lab import is_quiet, pool

GET = request()


def test_request_and_response_pass_with_the_fields_that_are_the_proxys(web: HttpLab) -> None:
    origin = web.origin()
    web.web(pool(origin))
    client, server, got = web.pair(origin, request(
        "GET /a?b=c HTTP/1.1", "X-Own: 1", "Connection: X-Named, keep-alive", "X-Named: 2",
        "Keep-Alive: timeout=5", "TE: gzip", "Proxy-Connection: keep-alive"))
    assert got.start == "GET /a?b=c HTTP/1.1"
    assert got.get("host") == "a.example"
    assert got.get("x-own") == "1"
    assert got.get("x-named") is got.get("keep-alive") is got.get("proxy-connection") is None
    assert got.get("te") is None
    assert got.get("x-forwarded-for") == "127.0.0.1"
    assert got.get("x-forwarded-proto") == "http"
    server.say(reply(b"hello", "X-Reply: 3", "Connection: X-Gone", "X-Gone: 4"))
    answer = client.answer()
    assert (answer.start, answer.body) == ("HTTP/1.1 200 OK", b"hello")
    assert answer.get("x-reply") == "3"
    assert answer.get("x-gone") is None
    assert not answer.closes
    web.expect_http(ok=1)
    web.expect_free()


def test_pipelined_requests_are_answered_in_order(web: HttpLab) -> None:
    site = web.site(echo_script)
    web.web(pool(site.address))
    client = web.client()
    wanted = [f"/{number}" for number in range(100)]
    bodies = [b"x" * (number % 7) for number in range(100)]
    client.say(*(request(f"POST {path} HTTP/1.1", body=body) if body
                 else request(f"GET {path} HTTP/1.1")
                 for path, body in zip(wanted, bodies, strict=True)))
    for path, body in zip(wanted, bodies, strict=True):
        answer = client.answer()
        assert answer.body.split(b"\n")[0].split(b" ")[1].decode() == path
        assert answer.body.endswith(b"\n\n" + body)
    web.expect_http(ok=100)
    assert site.connections == 1


def test_pipelined_requests_cut_anywhere_are_the_same_requests(web: HttpLab) -> None:
    site = web.site(echo_script)
    web.web(pool(site.address))
    first = request("POST /one HTTP/1.1", "Transfer-Encoding: chunked",
                    body=chunks(b"abc", b"defg", trailers=["X-T: 1"]))
    data = first + request("POST /two HTTP/1.1", body=b"12345") + request("GET /three HTTP/1.1")
    for cut in range(1, len(data)):
        client = web.client(data[:cut])
        web.let_turn()
        client.say(data[cut:])
        found = [client.answer().body for _ in range(3)]
        assert [body.split(b"\n")[0] for body in found] == [
            b"POST /one HTTP/1.1", b"POST /two HTTP/1.1", b"GET /three HTTP/1.1"], cut
        assert found[0].endswith(b"\n\nabcdefg") and found[1].endswith(b"\n\n12345"), cut
        client.close()


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_byte_by_byte_is_the_same_request(web: HttpLab, stream: bool) -> None:
    site = web.site(echo_script)
    web.web(pool(site.address), route={"buffer_request": not stream})
    client = web.client()
    for byte in request("POST /slow HTTP/1.1", "Transfer-Encoding: chunked",
                        body=chunks(b"abc", b"de", trailers=["X-T: 1"])):
        client.say(bytes([byte]))
        web.let_turn()
    answer = client.answer()
    assert answer.body.startswith(b"POST /slow HTTP/1.1\n")
    assert answer.body.endswith(b"\n\nabcde")


RESPONSES = {
    "length": reply(b"hello world"),
    "chunked": reply(chunks(b"hello", b" world", trailers=["X-T: 1"]),
                     "Transfer-Encoding: chunked", length=False),
    "interim": b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + reply(b"hello world"),
    "close": reply(b"hello world", "Connection: close", length=False),
}


@pytest.mark.parametrize("which", RESPONSES)
def test_a_response_cut_anywhere_is_the_same_response(web: HttpLab, which: str) -> None:
    origin = web.origin()
    web.web(pool(origin))
    data = RESPONSES[which]
    client = web.client()
    server = None
    for cut in range(1, len(data)):
        client.say(GET)
        if server is None:
            server = web.take(origin)
        server.request()
        server.say(data[:cut])
        web.let_turn()
        server.say(data[cut:])
        if which == "close":
            server.close()
            server = None
        answer = client.answer()
        assert (answer.status, answer.body) == (200, b"hello world"), cut
        assert bool(answer.interim) == (which == "interim")
        if which == "chunked":
            assert answer.trailers == [("X-T", "1")]


@pytest.mark.parametrize("which", RESPONSES)
def test_a_response_that_ends_early_never_looks_whole(web: HttpLab, which: str) -> None:
    if which == "close":
        pytest.skip("its end is its end")
    origin = web.origin()
    web.web(pool(origin), route={"retry_attempts": 1})
    data = RESPONSES[which]
    begins = data.index(b"HTTP/1.1 200")
    body = data.index(b"\r\n\r\n", begins) + 4
    for cut in range(len(data)):
        client = web.client(GET)
        server = web.take(origin)
        server.request()
        server.say(data[:cut])
        if cut % 2:
            web.let_turn()
        server.close()
        if cut <= body:
            assert client.answer().status == 502, cut
        else:
            answer = client.head()
            while answer.status < 200:
                answer = client.head()
            assert client.cut().how == "reset", cut
        client.close()


def test_every_interim_response_reaches_the_client_but_an_unasked_100(web: HttpLab) -> None:
    origin = web.origin()
    web.web(pool(origin))
    client, server, _ = web.pair(origin, GET)
    server.say(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
    server.say(b"HTTP/1.1 102 Processing\r\n\r\n", reply(b"x"))
    answer = client.answer()
    assert [one.status for one in answer.interim] == [103, 102]
    assert answer.interim[0].get("link") == "</a>"
    assert not client.kept


def test_interim_response_is_passed_on_before_the_final_one_is_there(web: HttpLab) -> None:
    origin = web.origin()
    web.web(pool(origin))
    client, server, _ = web.pair(origin, GET)
    server.say(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
    assert client.head().status == 103
    server.say(reply(b"x"))
    assert client.answer().body == b"x"


def test_interim_responses_do_not_reach_http_10_clients(web: HttpLab) -> None:
    origin = web.origin()
    web.web(pool(origin))
    client, server, _ = web.pair(origin, request("GET / HTTP/1.0"))
    server.say(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", reply(b"x"))
    assert client.answer().interim == []
    assert client.end() == "eof"


# ---- HTTP/1.0 ----------------------------------------------------------------------------------

def test_http_10_client_gets_a_body_without_chunks_and_the_end(web: HttpLab) -> None:
    origin = web.origin()
    web.web(pool(origin))
    client, server, got = web.pair(origin, b"GET / HTTP/1.0\r\n\r\n")
    assert got.start == "GET / HTTP/1.1"
    assert got.get("host") is not None
    server.say(reply(chunks(b"hello", b" world", trailers=["X-T: 1"]),
                     "Transfer-Encoding: chunked", length=False))
    answer = client.answer()
    assert (answer.framing, answer.body) == ("close", b"hello world")


def test_http_10_client_that_asks_for_it_keeps_its_connection(web: HttpLab) -> None:
    site = web.site(echo_script)
    web.web(pool(site.address))
    client = web.client()
    for _ in range(3):
        answer = client.ask(request("GET / HTTP/1.0", "Connection: keep-alive"))
        assert answer.get("connection") == "keep-alive"
    answer = client.ask(request("GET / HTTP/1.0"))
    assert answer.closes
    assert client.end() == "eof"


def test_http_10_origin_is_not_asked_twice_on_one_connection(web: HttpLab) -> None:
    origin = web.origin()
    web.web(pool(origin))
    client, server, _ = web.pair(origin, GET)
    server.say(reply(b"one", version="1.0"))
    assert client.answer().body == b"one"
    assert server.end() == "eof"
    client.say(GET)
    server = web.take(origin)
    server.request()
    server.say(reply(b"two", "Connection: keep-alive", version="1.0"))
    assert client.answer().body == b"two"
    web.until_idle(1)


def test_http_10_origin_that_frames_by_closing_gets_through_whole(web: HttpLab) -> None:
    origin = web.origin()
    web.web(pool(origin))
    client, server, _ = web.pair(origin, GET)
    server.say(reply(b"hello ", version="1.0", length=False))
    web.let_turn()
    server.say(b"world")
    server.close()
    answer = client.answer()
    assert (answer.framing, answer.body) == ("chunked", b"hello world")
    assert not answer.closes


def test_close_framed_response_that_is_reset_is_not_passed_on_as_whole(web: HttpLab) -> None:
    origin = web.origin()
    web.web(pool(origin))
    client, server, _ = web.pair(origin, GET)
    server.say(reply(b"hello ", "Connection: close", length=False))
    assert client.head().status == 200
    server.reset()
    assert client.cut().how == "reset"
    web.expect_http(answer_cut=1)


# ---- no body -----------------------------------------------------------------------------------

@pytest.mark.parametrize(
    "framing", ["Content-Length: 1000", "Transfer-Encoding: chunked", "X-A: 1"])
def test_head_response_has_no_body_whatever_it_announces(web: HttpLab, framing: str) -> None:
    origin = web.origin()
    web.web(pool(origin))
    client, server, got = web.pair(origin, request("HEAD / HTTP/1.1"))
    assert got.method == "HEAD"
    server.say(reply(b"", framing, length=False))
    answer = client.answer("HEAD")
    assert answer.get("content-length") == ("1000" if "1000" in framing else None)
    web.until_idle(1)
    client.say(GET)
    server.request()
    server.say(reply(b"next"))
    assert client.answer().body == b"next"


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_responses_without_body_end_with_their_head(web: HttpLab, status: str) -> None:
    origin = web.origin()
    web.web(pool(origin))
    client, server, _ = web.pair(origin, GET)
    server.say(reply(b"", "ETag: \"a\"", status=status, length=False))
    answer = client.answer()
    assert answer.start == f"HTTP/1.1 {status}"
    client.say(GET)
    server.request()
    server.say(reply(b"next"))
    assert client.answer().body == b"next"


def test_304_repeats_the_length_that_it_was_given_and_nothing_follows(web: HttpLab) -> None:
    origin = web.origin()
    web.web(pool(origin))
    client, server, _ = web.pair(origin, GET)
    server.say(reply(b"", "Content-Length: 77", status="304 Not Modified", length=False))
    assert client.answer().get("content-length") == "77"
    client.say(GET)
    server.request()
    server.say(reply(b"next"))
    assert client.answer().body == b"next"


def test_204_with_a_body_is_nobodys_next_response(web: HttpLab) -> None:
    origin = web.origin()
    web.web(pool(origin))
    client, server, _ = web.pair(origin, GET)
    server.say(b"HTTP/1.1 204 No Content\r\n\r\n" + reply(b"poison"))
    assert client.answer().status == 204
    assert server.end() in {"eof", "reset"}
    client.say(GET)
    server = web.take(origin)
    server.request()
    server.say(reply(b"mine"))
    assert client.answer().body == b"mine"


# ---- Expect ------------------------------------------------------------------------------------

UPLOAD = request("POST / HTTP/1.1", "Expect: 100-continue", "Content-Length: 5")


def test_client_that_waits_is_told_to_go_on_before_a_backend_is_asked(web: HttpLab) -> None:
    origin = web.origin()
    web.web(pool(origin))
    client = web.client(UPLOAD)
    assert client.head().start == "HTTP/1.1 100 Continue"
    assert origin.nobody_came(0.05)
    client.say(b"hello")
    server = web.take(origin)
    got = server.request()
    assert got.body == b"hello"
    assert got.get("expect") is None
    server.say(reply(b"ok"))
    answer = client.answer()
    assert (answer.body, answer.interim) == (b"ok", [])


def test_client_that_does_not_wait_is_not_told_to_go_on(web: HttpLab) -> None:
    origin = web.origin()
    web.web(pool(origin))
    client, server, got = web.pair(origin, UPLOAD + b"hello")
    assert got.body == b"hello"
    server.say(reply(b"ok"))
    assert client.answer().interim == []


def test_expectation_of_a_streamed_request_is_the_backends_to_meet(web: HttpLab) -> None:
    origin = web.origin()
    web.web(pool(origin), route={"buffer_request": False})
    client = web.client(UPLOAD)
    server = web.take(origin)
    got = server.head()
    assert got.get("expect") == "100-continue"
    assert is_quiet(client.sock, 0.05)
    server.say(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert client.head().status == 100
    client.say(b"hello")
    assert server.exactly(5) == b"hello"
    server.say(reply(b"ok"))
    assert client.answer().body == b"ok"


def test_backend_that_will_not_have_the_body_says_so_instead_of_100(web: HttpLab) -> None:
    origin = web.origin()
    web.web(pool(origin), route={"buffer_request": False})
    client = web.client(UPLOAD)
    server = web.take(origin)
    server.head()
    server.say(reply(b"no", status="403 Forbidden"))
    answer = client.answer()
    assert (answer.status, answer.body, answer.interim) == (403, b"no", [])
    assert answer.closes
    assert client.end() == "eof"


def test_an_expectation_that_nobody_knows_is_417(web: HttpLab) -> None:
    origin = web.origin()
    web.web(pool(origin))
    client = web.client(request("GET / HTTP/1.1", "Expect: a-miracle"))
    assert client.answer().status == 417
    web.expect_http(bad_request=1)
    assert origin.nobody_came(0.05)


# ---- trailers ----------------------------------------------------------------------------------

def test_trailers_pass_both_ways_while_streaming(web: HttpLab) -> None:
    origin = web.origin()
    web.web(pool(origin), route={"buffer_request": False})
    client = web.client(request("POST / HTTP/1.1", "Transfer-Encoding: chunked"))
    server = web.take(origin)
    head = server.head()
    client.say(chunks(b"abc", trailers=["X-Sum: 7", "Content-Length: 9"]))
    got = server.body(head)
    assert (got.body, got.trailers) == (b"abc", [("X-Sum", "7")])
    server.say(reply(chunks(b"de", trailers=["X-Sum: 8", "Transfer-Encoding: x"]),
                     "Transfer-Encoding: chunked", "Trailer: X-Sum", length=False))
    answer = client.answer()
    assert (answer.body, answer.trailers) == (b"de", [("X-Sum", "8")])
    web.until_idle(1)


# ---- the end of a connection -------------------------------------------------------------------

def test_client_that_asks_for_the_end_gets_it_after_its_answer(web: HttpLab) -> None:
    origin = web.origin()
    web.web(pool(origin))
    client, server, got = web.pair(origin, request("GET / HTTP/1.1", "Connection: close"))
    assert not got.closes
    server.say(reply(b"x"))
    assert client.answer().closes
    assert client.end() == "eof"
    web.until_idle(1)


def test_backend_that_closes_after_its_answer_costs_the_client_nothing(web: HttpLab) -> None:
    origin = web.origin()
    web.web(pool(origin))
    client, server, _ = web.pair(origin, GET)
    server.say(reply(b"x", "Connection: close"))
    answer = client.answer()
    assert not answer.closes
    assert server.end() == "eof"
    client.say(GET)
    server = web.take(origin)
    server.request()
    server.say(reply(b"y"))
    assert client.answer().body == b"y"


def test_client_may_send_its_end_behind_the_request(web: HttpLab) -> None:
    origin = web.origin()
    web.web(pool(origin))
    client, server, _ = web.pair(origin, GET)
    client.finish()
    web.let_turn()
    server.say(reply(b"x"))
    assert client.answer().body == b"x"
    assert client.end() == "eof"
    web.expect_http(ok=1)
    web.expect_ended(normal=1)


def test_abort_on_close_ends_the_request_of_a_client_that_left(web: HttpLab) -> None:
    origin = web.origin()
    web.web(pool(origin), abort_on_close=True)
    client, server, _ = web.pair(origin, GET)
    client.finish()
    assert server.end() == "reset"
    web.expect_http(client_gone=1)
    web.expect_free()


def test_client_that_resets_ends_the_backends_work(web: HttpLab) -> None:
    origin = web.origin()
    web.web(pool(origin))
    client, server, _ = web.pair(origin, GET)
    client.reset()
    assert server.end() == "reset"
    web.expect_http(client_gone=1)
    web.expect_free()


@pytest.mark.parametrize("data", [b"", b"\r\n", b"GET / HT", b"GET / HTTP/1.1\r\nHost: a\r\n"])
def test_client_that_leaves_before_its_request_is_there_leaves_nothing(
    web: HttpLab, data: bytes,
) -> None:
    origin = web.origin()
    web.web(pool(origin))
    client = web.client(data)
    web.let_turn()
    client.finish()
    assert client.end() == "eof"
    assert origin.nobody_came(0.02)
    assert web.http_ended() == {}


def test_request_limit_of_a_connection_is_exact(web: HttpLab) -> None:
    site = web.site(echo_script)
    web.web(pool(site.address), max_requests=3)
    client = web.client()
    assert [client.ask(GET).closes for _ in range(3)] == [False, False, True]
    assert client.end() == "eof"


# ---- odd ones ----------------------------------------------------------------------------------

def test_options_star_and_absolute_form_arrive_as_they_should(web: HttpLab) -> None:
    origin = web.origin()
    web.web(pool(origin))
    client, server, got = web.pair(origin, request("OPTIONS * HTTP/1.1"))
    assert got.start == "OPTIONS * HTTP/1.1"
    server.say(reply(b"", "Allow: GET"))
    assert client.answer().get("allow") == "GET"
    client.say(request("GET http://a.example/x?y HTTP/1.1"))
    got = server.request()
    assert (got.start, got.get("host")) == ("GET /x?y HTTP/1.1", "a.example")
    server.say(reply(b"z"))
    assert client.answer().body == b"z"


@pytest.mark.parametrize("method", ["TRACE", "CONNECT"])
def test_methods_that_are_not_passed_on_are_named_in_allow(web: HttpLab, method: str) -> None:
    origin = web.origin()
    web.web(pool(origin))
    target = "a.example:80" if method == "CONNECT" else "/"
    client = web.client(request(f"{method} {target} HTTP/1.1"))
    answer = client.answer()
    assert answer.status in {400, 405}
    if answer.status == 405:
        assert answer.get("allow")
    assert origin.nobody_came(0.05)


def test_head_as_long_as_allowed_passes_and_one_byte_more_is_431(web: HttpLab) -> None:
    origin = web.origin()
    web.web(pool(origin), max_head=20_000)
    plain = len(request("GET / HTTP/1.1", "X-Long: "))
    client, server, got = web.pair(
        origin, request("GET / HTTP/1.1", "X-Long: " + "a" * (20_000 - plain)))
    assert len(got.get("x-long") or "") == 20_000 - plain
    server.say(reply(b"x", "X-Long: " + "b" * 60_000))
    assert len(client.answer().get("x-long") or "") == 60_000
    client.say(request("GET / HTTP/1.1", "X-Long: " + "a" * (20_001 - plain)))
    assert client.answer().status == 431
    assert client.end() == "eof"


def test_largest_head_that_can_be_allowed_comes_in_pieces(web: HttpLab) -> None:
    origin = web.origin()
    web.web(pool(origin), max_head=65_536)
    plain = len(request("GET / HTTP/1.1", "X-Long: "))
    for size, status in ((65_536, 200), (65_537, 431)):
        data = request("GET / HTTP/1.1", "X-Long: " + "a" * (size - plain))
        client = web.client()
        for at in range(0, size, 9000):
            client.say(data[at:at + 9000])
            web.let_turn()
        if status == 200:
            server = web.take(origin)
            server.request()
            server.say(reply(b"x"))
        assert client.answer().status == status


def test_response_head_without_end_is_a_bad_answer(web: HttpLab) -> None:
    origin = web.origin()
    web.web(pool(origin))
    client, server, _ = web.pair(origin, GET)
    server.say(b"HTTP/1.1 200 OK\r\nX-Long: ", b"a" * 70_000)
    assert client.answer().status == 502
    web.expect_http(bad_answer=1)


@pytest.mark.parametrize("said", [
    b"hello\r\n\r\n", b"HTTP/2 200 OK\r\n\r\n", b"HTTP/1.1 abc OK\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n X: folded\r\n\r\n", b"\x16\x03\x01\x02\x00",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
])
def test_what_is_no_response_is_502_and_not_asked_again(web: HttpLab, said: bytes) -> None:
    origin = web.origin()
    web.web(pool(origin))
    client, server, _ = web.pair(origin, GET)
    server.say(said)
    assert client.answer().status == 502
    assert origin.nobody_came(0.05)
    assert server.end() in {"eof", "reset"}
    web.expect_http(bad_answer=1)


def test_bad_chunk_of_a_client_is_400_and_of_a_backend_the_end(web: HttpLab) -> None:
    origin = web.origin()
    web.web(pool(origin))
    client = web.client(request("POST / HTTP/1.1", "Transfer-Encoding: chunked") + b"zz\r\n")
    assert client.answer().status == 400
    assert client.end() == "eof"
    client, server, _ = web.pair(origin, GET)
    server.say(reply(b"3\r\nabc\r\n", "Transfer-Encoding: chunked", length=False))
    assert client.head().status == 200
    server.say(b"zz\r\n")
    assert client.cut().how == "reset"
    web.expect_http(bad_request=1, answer_cut=1)


def test_answer_to_a_client_that_still_talks_is_not_lost_to_a_reset(web: HttpLab) -> None:
    origin = web.origin()
    web.web(pool(origin), route={"max_body": 10})
    client = web.client(request("POST / HTTP/1.1", "Content-Length: 1000000"))
    web.expect_http(too_large=1)
    web.let_turn()
    for _ in range(10):
        client.say(bytes(100_000))
        web.let_turn()
    assert client.answer().status == 413
    client.finish()
    assert client.end() == "eof"


def test_wire_reader_of_these_tests_rejects_what_is_wrong() -> None:
    """The reader is what all of this stands on."""
    for bad in (b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n", b"HTTP/1.1 200 OK\nA: b\r\n\r\n",
                b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
                b"HTTP/1.1 200 OK\r\n\r\n"):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            theirs.sendall(bad)
            theirs.close()
            with pytest.raises((AssertionError, Ended)):
                Wire(ours).answer()
