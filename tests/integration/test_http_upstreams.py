"""Connections to backends that are used again, and requests that are sent again."""

from __future__ import annotations

import socket
import time

import pytest

from lbcore._scoreboard import BackendState
from lbcore.config.plan import Address, PoolHttpPlan, PoolPlan, StickyPlan
from tests.support.http_lab import HttpLab, Wire, blob, echo_script, reply, request
from tests.support.relay_lab import Origin, is_quiet, pool, reached, until

GET = request()
POST = request("POST / HTTP/1.1", body=b"order")


def web_pool(*origins: object, **options: object) -> PoolPlan:
    """A pool whose keywords are those of its http part."""
    return pool(*origins, http=PoolHttpPlan(**options))     # type: ignore[arg-type]


def served(server: Wire, body: bytes = b"x", *fields: str) -> None:
    """Answers the next request."""
    server.request()
    server.say(reply(body, *fields))


def rest(web: HttpLab, origin: Origin) -> tuple[Wire, Wire]:
    """A client, and the backend's end of a connection that rests after one request."""
    client, server, _ = web.pair(origin, GET)
    server.say(reply(b"first"))
    assert client.answer().body == b"first"
    web.until_idle(1)
    return client, server


# ---- reuse -------------------------------------------------------------------------------------

@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_clients_share_one_connection_one_after_the_other(web: HttpLab, kind: str) -> None:
    site = web.site(echo_script, kind)
    web.web(pool(site.address))
    for _ in range(5):
        client = web.client()
        for _ in range(4):
            assert client.ask(GET).status == 200
        client.close()
    assert site.connections == 1
    assert web.backend()["reused"] == 19
    assert web.backend()["connections"] == 1
    assert web.backend()["requests"] == 20


def test_newest_connection_is_used_first_and_the_oldest_goes_first(web: HttpLab) -> None:
    origin = web.origin()
    web.web(web_pool(origin, keepalive_connections=2))
    pairs = [web.pair(origin, GET)[:2] for _ in range(3)]
    for number, (client, server) in enumerate(pairs):
        server.say(reply(b"x"))
        client.answer()
        web.until_idle(min(number + 1, 2))
    assert pairs[0][1].end() == "eof"
    pairs[0][0].say(GET)
    served(pairs[2][1], b"newest")
    assert pairs[0][0].answer().body == b"newest"


def test_connection_that_rests_too_long_is_closed(web: HttpLab) -> None:
    origin = web.origin()
    web.web(web_pool(origin, keepalive_idle_ms=500))
    client, server, _ = web.pair(origin, GET)
    began = time.monotonic()        # it rests from some moment after this one
    server.say(reply(b"x"))
    client.answer()
    assert server.end() == "eof"
    assert time.monotonic() - began > 0.4
    web.until_idle(0)


def test_without_keepalive_every_request_has_a_connection_of_its_own(web: HttpLab) -> None:
    site = web.site(echo_script)
    web.web(web_pool(site.address, keepalive_idle_ms=0))
    client = web.client()
    for _ in range(3):
        client.ask(GET)
    assert site.connections == 3


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 408 Request Timeout\r\n\r\n", b"x"])
def test_resting_connection_that_says_anything_is_closed(web: HttpLab, said: bytes) -> None:
    origin = web.origin()
    web.web(pool(origin))
    client, server = rest(web, origin)
    if said:
        server.say(said)
    else:
        server.finish()
    web.until_idle(0)
    client.say(GET)
    served(web.take(origin), b"fresh")
    assert client.answer().body == b"fresh"


@pytest.mark.parametrize("kind", ["tcp", "unix"])
@pytest.mark.parametrize("how", ["close", "reset", "say"])
def test_connection_that_ends_just_as_the_request_comes_costs_nothing(
    web: HttpLab, kind: str, how: str,
) -> None:
    """Both are there when the worker wakes up: the request must not be lost, and what the old
    connection said is not its answer."""
    origin = web.origin(kind)
    web.web(pool(origin))
    for data in (GET, POST):
        client, server = rest(web, origin)
        with web.asleep():
            client.say(data)
            if how == "say":
                server.say(reply(b"poison"))
                server.close()
            else:
                getattr(server, how)()
        served(web.take(origin), b"fresh", "Connection: close")
        assert client.answer().body == b"fresh"
    web.expect_http(ok=4)
    assert web.http_ended() == {"ok": 4}


def test_each_client_has_its_own_connection_behind_a_proxy_header(web: HttpLab) -> None:
    origin = web.origin()
    web.web(pool(origin, send_proxy=1))
    for _ in range(2):
        client = web.client(GET)
        server = web.take(origin)
        line = server.line()
        assert line.startswith("PROXY TCP4 127.0.0.1 127.0.0.1 ")
        assert line.split()[4] == str(client.sock.getsockname()[1])
        served(server)
        assert client.answer().body == b"x"


def test_tunnel_takes_no_connection_from_the_pool_and_gives_none_back(web: HttpLab) -> None:
    origin = web.origin()
    web.web(pool(origin))
    rest(web, origin)
    client = web.client(request("GET / HTTP/1.1", "Connection: Upgrade", "Upgrade: echo"))
    server = web.take(origin)
    got = server.request()
    assert got.get("upgrade") == "echo"
    server.say(b"HTTP/1.1 101 Switching Protocols\r\n",
               b"Connection: Upgrade\r\nUpgrade: echo\r\n\r\nhi")
    assert client.answer().status == 101
    assert client.exactly(2) == b"hi"
    client.say(b"ping")
    assert server.exactly(4) == b"ping"
    assert web.board.inflight(0) == 1
    server.say(b"pong")
    server.finish()
    assert client.rest() == b"pong"
    client.close()
    web.expect_free()
    assert web.idle() == 1


# ---- sent again --------------------------------------------------------------------------------

def test_backend_that_refuses_is_passed_over_for_every_method(web: HttpLab) -> None:
    origin = web.origin()
    web.web(pool(web.refusing(), origin))
    for data in (GET, POST):
        client = web.client(data)
        served(web.take(origin), b"ok", "Connection: close")
        assert client.answer().body == b"ok"
        client.close()
    web.expect_http(ok=2)


def test_request_without_an_answer_goes_to_another_backend_body_and_all(web: HttpLab) -> None:
    one, two = web.origin(), web.origin()
    body = blob(200_000)
    web.web(pool(one, two))
    for size in (0, 10, 200_000):
        client = web.client(request("PUT / HTTP/1.1", f"Content-Length: {size}", body=body[:size]))
        first = web.take(reached(one, two))
        assert first.request().body == body[:size]
        first.close()
        second = web.take(reached(one, two))
        assert second.request().body == body[:size]
        second.say(reply(b"second", "Connection: close"))
        assert client.answer().body == b"second"
        client.close()
    assert sum(web.backend(row)["retries"] for row in (0, 1)) == 3
    assert sum(web.backend(row)["early_resets"] for row in (0, 1)) == 3
    web.expect_http(ok=3)


@pytest.mark.parametrize("way", ["fresh", "reused"])
@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_unsafe_request_that_a_backend_has_read_is_never_sent_twice(
    web: HttpLab, way: str, kind: str,
) -> None:
    """An order that was read may have been carried out, whatever became of the connection."""
    origin = web.origin(kind)
    web.web(pool(origin))
    client, server = rest(web, origin)
    if way == "fresh":
        server.finish()
        web.until_idle(0)
        client.say(POST)
        server = web.take(origin)
    else:
        client.say(POST)
    assert server.request().body == b"order"
    server.close()
    assert client.answer().status == 502
    assert origin.nobody_came(0.05)
    web.expect_http(ok=1, empty_answer=1)


def test_safe_request_on_a_reused_connection_is_sent_again_at_once(web: HttpLab) -> None:
    origin = web.origin()
    web.web(pool(origin), route={"retry_attempts": 1})
    client, server = rest(web, origin)
    client.say(GET)
    server.request()
    server.close()
    served(web.take(origin), b"again")
    assert client.answer().body == b"again"
    assert web.backend()["early_resets"] == 0


def test_streamed_request_whose_bytes_are_gone_is_not_sent_again(web: HttpLab) -> None:
    one, two = web.origin(), web.origin()
    web.web(pool(one, two), route={"buffer_request": False})
    client = web.client(request("PUT / HTTP/1.1", "Content-Length: 10"))
    server = web.take(reached(one, two))
    server.head()
    client.say(b"hello")
    assert server.exactly(5) == b"hello"
    server.close()
    assert client.answer().status == 502
    assert one.nobody_came(0.05) and two.nobody_came(0.05)


def test_answer_that_has_begun_is_never_replaced(web: HttpLab) -> None:
    one, two = web.origin(), web.origin()
    web.web(pool(one, two))
    client = web.client(GET)
    server = web.take(reached(one, two))
    server.request()
    server.say(reply(b"", "Content-Length: 10", length=False) + b"short")
    assert client.head().status == 200
    server.close()
    assert client.cut().how == "reset"
    assert one.nobody_came(0.05) and two.nobody_came(0.05)


HEAD_ALONE = reply(b"", "Content-Length: 10", length=False)
CHUNKED_HEAD_ALONE = reply(b"", "Transfer-Encoding: chunked", length=False)


@pytest.mark.parametrize("head", [HEAD_ALONE, CHUNKED_HEAD_ALONE], ids=["length", "chunked"])
def test_head_without_any_of_its_body_is_no_answer_yet(web: HttpLab, head: bytes) -> None:
    one, two = web.origin(), web.origin()
    web.web(pool(one, two))
    client = web.client(GET)
    origin = reached(one, two)
    other = one if origin is two else two
    server = web.take(origin)
    server.request()
    server.say(head)
    server.close()
    served(web.take(other), b"whole")
    assert client.answer().body == b"whole"
    assert not client.kept
    web.expect_http(ok=1)


def test_head_without_any_of_its_body_is_502_for_what_must_not_be_sent_twice(
    web: HttpLab,
) -> None:
    one, two = web.origin(), web.origin()
    web.web(pool(one, two))
    client = web.client(POST)
    server = web.take(reached(one, two))
    server.request()
    server.say(HEAD_ALONE)
    server.close()
    assert client.answer().status == 502
    assert one.nobody_came(0.05) and two.nobody_came(0.05)


@pytest.mark.parametrize("head", [HEAD_ALONE, CHUNKED_HEAD_ALONE], ids=["length", "chunked"])
def test_head_does_not_wait_for_a_slow_body(web: HttpLab, head: bytes) -> None:
    origin = web.origin()
    web.web(pool(origin))
    client, server, _ = web.pair(origin, GET)
    server.say(head)
    assert client.head().status == 200
    server.close()
    assert client.cut().how == "reset"


def test_head_of_a_streamed_response_does_not_wait_at_all(web: HttpLab) -> None:
    origin = web.origin()
    web.web(pool(origin), route={"buffer_response": False})
    client, server, _ = web.pair(origin, GET)
    server.say(HEAD_ALONE)
    server.close()
    assert client.head().status == 200
    assert client.cut().how == "reset"


def test_head_and_body_that_come_one_after_the_other_reach_the_client_whole(
    web: HttpLab,
) -> None:
    body = blob(300_000)
    origin = web.origin()
    web.web(pool(origin))
    client = web.client()
    client.say(GET)
    server = web.take(origin)
    for size in (1, 10, 4096, 65_536, 70_000, 300_000):
        server.request()
        server.say(reply(b"", f"Content-Length: {size}", length=False))
        web.let_turn()
        server.say(body[:size])
        assert client.answer().body == body[:size]
        client.say(GET)
    server.request()
    server.say(CHUNKED_HEAD_ALONE)
    web.let_turn()
    server.say(b"5\r\nhello\r\n0\r\nX-T: 1\r\n\r\n")
    answer = client.answer()
    assert (answer.body, answer.trailers) == (b"hello", [("X-T", "1")])


def busy(wire: Wire) -> bool:
    """Always says 503, with a word of its own."""
    wire.request()
    wire.say(reply(b"busy", "Retry-After: 7", status="503 Service Unavailable"))
    return True


def test_chosen_statuses_send_a_safe_request_on(web: HttpLab) -> None:
    sites = [web.site(busy), web.site(echo_script)]
    web.web(pool(*(site.address for site in sites)), route={"retry_statuses": (503,)})
    for _ in range(4):
        assert web.client().ask(GET).status == 200
    assert web.backend(0)["retries"] == 2
    assert web.client().ask(POST).status in {200, 503}


@pytest.mark.parametrize("attempts", [2, 3, 5])
def test_last_answer_is_the_clients_when_all_are_busy(web: HttpLab, attempts: int) -> None:
    """More tries than backends and than connect attempts: the answer stays the application's."""
    sites = [web.site(busy), web.site(busy)]
    web.web(pool(*(site.address for site in sites), connect_attempts=2),
            route={"retry_statuses": (503,), "retry_attempts": attempts})
    answer = web.client().ask(GET)
    assert (answer.status, answer.body, answer.get("retry-after")) == (503, b"busy", "7")
    web.expect_http(ok=1)
    assert web.backend(0)["requests"] + web.backend(1)["requests"] >= 1
    assert web.board.route_totals(0)["retries"] == attempts - 1


def test_connect_budget_does_not_run_while_a_backend_thinks(web: HttpLab) -> None:
    """A backend that dies after longer than the connect budget: the request goes to another."""
    one, two = web.origin(), web.origin()
    web.web(pool(one, two, connect_budget_ms=100))
    client = web.client(GET)
    first = reached(one, two)
    server = web.take(first)
    server.request()
    time.sleep(0.2)         # what is tested is that time passes
    server.close()
    served(web.take(one if first is two else two), b"second")
    assert client.answer().body == b"second"


def test_retries_stop_when_their_budget_is_spent(web: HttpLab) -> None:
    sites = [web.site(busy), web.site(busy)]
    web.web(web_pool(*(site.address for site in sites), retry_share=0.1),
            route={"retry_statuses": (503,), "retry_attempts": 2})
    client = web.client()
    for _ in range(100):
        assert client.ask(GET).status == 503
    # Ten at once, and then a tenth of the requests.
    assert web.board.route_totals(0)["retries"] == 19


def test_a_pool_without_a_share_for_retries_makes_none(web: HttpLab) -> None:
    sites = [web.site(busy), web.site(busy)]
    web.web(web_pool(*(site.address for site in sites), retry_share=0.0),
            route={"retry_statuses": (503,)})
    assert web.client().ask(GET).status == 503
    assert web.board.route_totals(0)["retries"] == 0


# ---- what answers say about a backend ----------------------------------------------------------

def test_answers_with_a_failing_status_count_until_any_other_one(web: HttpLab) -> None:
    statuses = iter(["503 A", "500 B", "404 C", "503 D", "200 E"])

    def script(wire: Wire) -> bool:
        wire.request()
        wire.say(reply(b"x", status=next(statuses)))
        return True

    web.web(web_pool(web.site(script).address, failure_statuses=(500, 503)))
    client, counted = web.client(), []
    for _ in range(5):
        client.ask(GET)
        counted.append(web.board.failures(0))
    assert counted == [1, 2, 0, 1, 0]


def test_an_answer_that_begins_late_counts_as_a_failure_too(web: HttpLab) -> None:
    origin = web.origin()
    web.web(web_pool(origin, slow_ms=50))
    client, server, _ = web.pair(origin, GET)
    assert is_quiet(client.sock)                 # for longer than 50 ms
    server.say(reply(b"late"))
    assert client.answer().status == 200
    assert web.board.failures(0) == 1
    web.apply(web_pool(origin, slow_ms=600_000))
    client.say(GET)
    served(server)
    assert client.answer().status == 200
    assert web.board.failures(0) == 0


# ---- keys and cookies --------------------------------------------------------------------------

def test_key_finds_its_backend_again_after_a_pause(web: HttpLab) -> None:
    """All refuse, then they come back: each request still goes where its key leads."""
    socks = [web.keep(socket.socket()) for _ in range(4)]
    for sock in socks:
        sock.bind(("127.0.0.1", 0))
    origins = [Origin(sock, Address("127.0.0.1", sock.getsockname()[1])) for sock in socks]
    web.web(pool(*origins, balance="consistent", hash_on="header", connect_attempts=50,
                 http=PoolHttpPlan(hash_name="x-key")))
    client = web.client(request("GET / HTTP/1.1", "X-Key: a"))
    until(lambda: sum(web.backend(row)["refused"] for row in range(4)) >= 4)
    for sock in socks:
        sock.listen(64)
    for number in range(8):
        found = reached(*origins)
        if number == 0:
            first = found
        assert found is first
        served(web.take(found), b"x", "Connection: close")
        assert client.answer().body == b"x"
        client.say(request("GET / HTTP/1.1", "X-Key: a"))
    served(web.take(first), b"x", "Connection: close")
    client.answer()


def test_sticky_client_follows_its_cookie_until_its_backend_is_gone(web: HttpLab) -> None:
    sites = [web.site(echo_script), web.site(echo_script)]
    web.web(pool(*(site.address for site in sites), http=PoolHttpPlan(
        sticky=StickyPlan("lb", key=b"0123456789abcdef"))))
    answer = web.client().ask(GET)
    cookie = (answer.get("set-cookie") or "").split(";")[0]
    assert cookie.startswith("lb=")
    row = 0 if web.backend(0)["requests"] else 1
    for _ in range(5):
        answer = web.client().ask(request("GET / HTTP/1.1", f"Cookie: {cookie}"))
        assert answer.get("set-cookie") is None
    assert web.backend(row)["requests"] == 6
    web.pretend(row, BackendState.STATE_DOWN)
    answer = web.client().ask(request("GET / HTTP/1.1", f"Cookie: {cookie}"))
    assert (answer.get("set-cookie") or "").split(";")[0] not in {"", cookie}
    forged = web.client().ask(request("GET / HTTP/1.1", "Cookie: lb=AAAAAAAAAAAAAAAAAAAA"))
    assert forged.get("set-cookie")
