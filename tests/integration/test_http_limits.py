"""Limits and rules over HTTP: places at backends, queues, sources, and what routes do."""

from __future__ import annotations

import base64
import contextlib
import subprocess

import pytest

from lbcore._scoreboard import BackendState
from lbcore.config.plan import FieldPlan, PagePlan, PoolHttpPlan, RatePlan, RoutePlan, Segment
from tests.support.http_lab import HttpLab, Wire, blob, echo_script, reply, request, sent
from tests.support.relay_lab import member, pool, until

GET = request()


def served(server: Wire, body: bytes = b"x") -> None:
    """Answers the next request."""
    server.request()
    server.say(reply(body))


# ---- places and queues -------------------------------------------------------------------------

def test_requests_beyond_a_backends_limit_wait_in_order_on_one_connection(web: HttpLab) -> None:
    origin = web.origin()
    web.web(pool(member(origin, max_connections=1)))
    first, server, _ = web.pair(origin, GET)
    clients = []
    for number in range(10):
        clients.append(web.client(request(f"GET /{number} HTTP/1.1")))
        until(lambda: web.board.pool(0)["waiting"] == number + 1)     # noqa: B023
    server.say(reply(b"x"))
    assert first.answer().body == b"x"
    for number, client in enumerate(clients):
        assert server.request().target == f"/{number}"
        assert web.board.inflight(0) == 1
        server.say(reply(b"x"))
        assert client.answer().body == b"x"
    assert origin.nobody_came(0.02)
    assert web.board.pool_totals(0)["queued"] == 10
    web.expect_free()


def test_full_queue_turns_requests_away_but_not_their_connections(web: HttpLab) -> None:
    origin = web.origin()
    web.web(pool(member(origin, max_connections=1), max_queue=1))
    first, server, _ = web.pair(origin, GET)
    waiting = web.client(GET)
    until(lambda: web.board.pool(0)["waiting"] == 1)
    late = web.client(GET)
    answer = late.answer()
    assert (answer.status, answer.closes) == (503, False)
    web.expect_http(queue_full=1)
    server.say(reply(b"x"))
    assert first.answer().body == b"x"
    served(server)
    assert waiting.answer().body == b"x"
    late.say(GET)
    served(server, b"now")
    assert late.answer().body == b"now"


def test_client_that_leaves_the_queue_takes_no_place(web: HttpLab) -> None:
    origin = web.origin()
    web.web(pool(member(origin, max_connections=1)))
    first, server, _ = web.pair(origin, GET)
    gone, stays = web.client(request("GET /gone HTTP/1.1")), None
    until(lambda: web.board.pool(0)["waiting"] == 1)
    stays = web.client(request("GET /stays HTTP/1.1"))
    until(lambda: web.board.pool(0)["waiting"] == 2)
    gone.reset()
    until(lambda: web.board.pool(0)["waiting"] == 1)
    server.say(reply(b"x"))
    first.answer()
    assert server.request().target == "/stays"
    server.say(reply(b"y"))
    assert stays.answer().body == b"y"
    web.expect_http(ok=2, client_gone=1)
    assert web.board.route_totals(0)["status"]["4xx"] == 1          # 499, as the log has it


def test_nobody_up_is_503_after_the_wait_or_served_when_somebody_comes(web: HttpLab) -> None:
    origin = web.origin()
    web.web(pool(origin))
    web.pretend(0, BackendState.STATE_DOWN)
    client = web.client(GET)
    until(lambda: web.board.pool(0)["waiting"] == 1)
    web.pretend(0, BackendState.STATE_UP)
    served(web.take(origin))
    assert client.answer().body == b"x"
    web.apply(pool(origin, max_queue=0))
    web.pretend(0, BackendState.STATE_DOWN)
    assert web.client(GET).answer().status == 503
    web.expect_http(ok=1, no_backend=1)


def test_upload_takes_no_place_before_it_is_here(web: HttpLab) -> None:
    """Four slow uploads in front of a backend with one place: a fast client is not delayed."""
    origin = web.origin()
    web.web(pool(member(origin, max_connections=1)))
    slow = [web.client(request("POST / HTTP/1.1", "Content-Length: 10") + b"12345")
            for _ in range(4)]
    web.let_turn()
    fast, server, _ = web.pair(origin, GET)
    server.say(reply(b"x"))
    assert fast.answer().body == b"x"
    for client in slow:
        client.say(b"67890")
        assert server.request().body == b"1234567890"
        server.say(reply(b"y"))
        assert client.answer().body == b"y"


# ---- buffering ---------------------------------------------------------------------------------

def test_backend_is_free_while_a_slow_client_has_not_read_its_response(web: HttpLab) -> None:
    origin = web.origin()
    web.web(pool(member(origin, max_connections=1)))
    body = blob(20 << 20)
    slow, server, _ = web.pair(origin, GET)
    server.say(reply(body))
    web.expect_free()
    web.until_idle(1)
    fast = web.client(GET)
    served(server, b"fast")
    assert fast.answer().body == b"fast"
    assert slow.answer().body == body
    web.expect_http(ok=2)


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_no_more_of_a_response_is_absorbed_than_allowed(web: HttpLab, framing: str) -> None:
    origin = web.origin()
    web.web(pool(origin), route={"response_memory": 100_000, "response_disk": 1 << 20})
    client, server, _ = web.pair(origin, GET)
    body = blob(40 << 20)
    data = (reply(body) if framing == "length" else
            reply(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body), "Transfer-Encoding: chunked",
                  length=False))
    sender = sent(server, data)
    until(lambda: web.backend()["bytes_down"] > 1 << 20)
    assert sender.is_alive()
    web.let_turn()
    assert web.board.inflight(0) == 1
    assert client.answer().body == body
    sender.join()
    web.expect_free()


@pytest.mark.parametrize("says", ["X-Accel-Buffering: no", "Content-Type: text/event-stream"])
def test_response_that_must_not_be_held_back_is_not_absorbed(web: HttpLab, says: str) -> None:
    origin = web.origin()
    web.web(pool(origin))
    client, server, _ = web.pair(origin, GET)
    server.say(reply(b"", says, "Transfer-Encoding: chunked", length=False))
    assert client.head().status == 200
    for number in range(5):
        server.say(b"2\r\n%02d\r\n" % number)
        assert client.line() == "2"
        assert client.exactly(4) == b"%02d\r\n" % number
    sender = sent(server, b"1000000\r\n" + bytes(1 << 24))
    until(lambda: web.backend()["bytes_down"] > 1 << 17)
    sender.join(0.5)                # would be enough: there is room for all of it
    assert sender.is_alive()        # but the backend is held back
    assert web.board.inflight(0) == 1
    client.reset()
    web.expect_http(client_gone=1)
    sender.join()


# ---- sources -----------------------------------------------------------------------------------

def test_source_limit_counts_connections_and_gives_back(web: HttpLab) -> None:
    site = web.site(echo_script)
    web.web(pool(site.address), listener={"max_connections_per_source": 2})
    one, two = web.client(), web.client()
    assert one.ask(GET).status == two.ask(GET).status == 200
    assert web.turned_away(GET)
    assert web.client(source="127.0.0.9").ask(GET).status == 200
    one.close()
    until(lambda: web.seat["connections"] == 2)
    assert web.client().ask(GET).status == 200
    assert web.ended()["source_limit"] == 1


def test_client_that_a_proxy_header_names_is_the_client(web: HttpLab) -> None:
    site = web.site(echo_script)
    web.web(pool(site.address), listener={"proxy_protocol": True})
    header = b"PROXY TCP4 192.0.2.9 192.0.2.1 4711 80\r\n"
    for cut in (0, 10, len(header), len(header) + 5):
        client = web.client((header + GET)[:cut])
        web.let_turn()
        client.say((header + GET)[cut:])
        assert b"X-Forwarded-For: 192.0.2.9\n" in client.answer().body
    assert web.turned_away(GET)
    web.expect_ended(proxy_malformed=1)


# ---- rules -------------------------------------------------------------------------------------

def text(value: str) -> tuple[Segment, ...]:
    """A template of plain text."""
    return (Segment("text", value),)


def test_routes_do_what_they_say_end_to_end(web: HttpLab) -> None:
    site = web.site(echo_script)
    web.web(pool(site.address), routes=[
        RoutePlan("old", path_kind="exact", path="/old", action="redirect", status=308,
                  location=(Segment("text", "https://new.example"), Segment("uri"))),
        RoutePlan("ping", path_kind="exact", path="/ping", action="respond", status=200,
                  type="text/plain", body=b"pong"),
        RoutePlan("api", path_kind="prefix", path="/api", pool=0, strip_prefix=True,
                  request_fields=(FieldPlan("set", "X-Api", text("1")),
                                  FieldPlan("remove", "X-Secret")),
                  response_fields=(FieldPlan("set", "X-Served", text("api")),)),
        RoutePlan("closed", path_kind="prefix", path="/closed", pool=0, deny=("127.0.0.0/8",)),
    ])
    client = web.client()
    answer = client.ask(request("GET /old?x=1 HTTP/1.1"))
    assert (answer.status, answer.get("location")) == (308, "https://new.example/old?x=1")
    assert client.ask(request("GET /ping HTTP/1.1")).body == b"pong"
    assert client.ask(request("HEAD /ping HTTP/1.1")).get("content-length") == "4"
    answer = client.ask(request("GET /api/users HTTP/1.1", "X-Secret: s"))
    assert answer.get("x-served") == "api"
    assert answer.body.startswith(b"GET /users HTTP/1.1\n")
    assert b"X-Api: 1\n" in answer.body and b"Secret" not in answer.body
    assert client.ask(request("GET /closed/x HTTP/1.1")).status == 403
    assert client.ask(request("GET /other HTTP/1.1")).status == 200
    web.expect_http(ok=5, denied=1)


def test_password_opens_and_nothing_else_does(web: HttpLab) -> None:
    site = web.site(echo_script)
    hashed = subprocess.run(["openssl", "passwd", "-6", "-salt", "saltsalt", "secret"],
                            check=True, capture_output=True, text=True).stdout.strip()
    web.web(pool(site.address), route={"users": (("ann", hashed),), "realm": "shop"})
    client = web.client()
    answer = client.ask(GET)
    assert (answer.status, answer.get("www-authenticate")) == (
        401, 'Basic realm="shop", charset="UTF-8"')
    for word in ("ann:wrong", "bob:secret", "ann", ":"):
        token = base64.b64encode(word.encode()).decode()
        assert client.ask(request("GET / HTTP/1.1", f"Authorization: Basic {token}")).status == 401
    token = base64.b64encode(b"ann:secret").decode()
    assert client.ask(request("GET / HTTP/1.1", f"Authorization: Basic {token}")).status == 200


@pytest.mark.parametrize("target", [
    "/secret/a", "/secret%2fa", "/secret%2Fa", "//secret/a", "/%2fsecret%2F/a", "/%73ecret%2Fa",
    "/x/../secret%2Fa", "/x/%2e%2e/secret/a",
])
def test_no_spelling_that_an_application_reads_as_a_path_passes_by_its_rules(
    web: HttpLab, target: str,
) -> None:
    site = web.site(echo_script)
    web.web(pool(site.address), routes=[
        RoutePlan("closed", path_kind="prefix", path="/secret/", pool=0, deny=("0.0.0.0/0",))])
    client = web.client()
    assert client.ask(request(f"GET {target} HTTP/1.1")).status == 403
    served = client.ask(request("GET /open%2Fsecret%2fa HTTP/1.1"))
    assert served.body.startswith(b"GET /open%2Fsecret%2Fa HTTP/1.1\n")


def test_rate_is_limited_by_source_header_and_route(web: HttpLab) -> None:
    site = web.site(echo_script)
    slow = 3_600_000_000
    web.web(pool(site.address), routes=[
        RoutePlan("source", path_kind="prefix", path="/s", pool=0, rate=RatePlan(slow, 2)),
        RoutePlan("header", path_kind="prefix", path="/h", pool=0,
                  rate=RatePlan(slow, 1, "header", "x-key")),
        RoutePlan("route", path_kind="prefix", path="/r", pool=0, rate=RatePlan(slow, 1, "route")),
    ])

    def status(path: str, *fields: str, source: str = "127.0.0.1") -> int:
        client = web.client(source=source)
        answer = client.ask(request(f"GET {path} HTTP/1.1", *fields))
        client.close()
        if answer.status == 429:
            assert int(answer.get("retry-after") or 0) > 0
        return answer.status

    assert [status("/s") for _ in range(3)] == [200, 200, 429]
    assert status("/s", source="127.0.0.2") == 200
    assert [status("/h", "X-Key: a") for _ in range(2)] == [200, 429]
    assert status("/h", "X-Key: b") == 200
    assert [status("/r"), status("/r", source="127.0.0.2")] == [200, 429]


def test_nobody_can_use_up_the_rate_of_an_address_by_naming_it(web: HttpLab) -> None:
    site = web.site(echo_script)
    web.web(pool(site.address), route={"rate": RatePlan(3_600_000_000, 1, "header", "x-key")})
    for key in ("127.0.0.1", ""):
        assert web.client().ask(request("GET / HTTP/1.1", f"X-Key: {key}")).status == 200
    assert web.client().ask(GET).status == 200
    assert web.client().ask(GET).status == 429


def test_ipv6_client_has_one_bucket_for_all_its_addresses(web: HttpLab) -> None:
    site = web.site(echo_script)
    web.web(pool(site.address), listener={"proxy_protocol": True},
            route={"rate": RatePlan(3_600_000_000, 1)})

    def status(address: str) -> int:
        header = f"PROXY TCP6 {address} 2001:db8:ffff::1 4711 80\r\n".encode()
        return web.client(header + GET).answer().status

    assert [status("2001:db8:0:1::1"), status("2001:db8:0:1:ffff::2"),
            status("2001:db8:0:2::1")] == [200, 429, 200]


def test_error_page_of_the_users_own_comes_in_the_kind_that_is_asked_for(web: HttpLab) -> None:
    web.web(pool(web.refusing(), connect_attempts=1),
            pages=(PagePlan(502, "html", b"<h1>ours</h1>"), PagePlan(0, "json", b'{"ours": 1}')))
    client = web.client()
    answer = client.ask(request("GET / HTTP/1.1", "Accept: text/html"))
    assert (answer.status, answer.body) == (502, b"<h1>ours</h1>")
    answer = client.ask(request("HEAD / HTTP/1.1", "Accept: text/html"))
    assert (answer.status, answer.body, answer.get("content-length")) == (502, b"", "13")


@pytest.mark.parametrize("on", ["header", "cookie", "query", "path", "uri"])
def test_consistent_hash_follows_what_it_is_told_to(web: HttpLab, on: str) -> None:
    sites = [web.site(echo_script) for _ in range(4)]
    web.web(pool(*(site.address for site in sites), balance="consistent", hash_on=on,
                 http=PoolHttpPlan(hash_name="key" if on in {"header", "cookie", "query"} else "")))
    client = web.client()

    def row(key: int) -> int:
        before = [web.backend(row)["requests"] for row in range(4)]
        client.ask(request(f"GET /{key}?key={key} HTTP/1.1", f"Key: {key}", f"Cookie: key={key}"))
        after = [web.backend(row)["requests"] for row in range(4)]
        return next(i for i in range(4) if after[i] > before[i])

    found = [row(key) for key in range(30)]
    assert found == [row(key) for key in range(30)]
    assert len(set(found)) == 4


# ---- drain -------------------------------------------------------------------------------------

def test_drain_finishes_requests_says_close_and_lets_idle_clients_go(web: HttpLab) -> None:
    origin = web.origin()
    web.web(pool(origin))
    idle, first, _ = web.pair(origin, GET)
    first.say(reply(b"x"))
    idle.answer()
    web.until_idle(1)
    busy = web.client(GET)
    first.request()
    late = web.client(GET)
    server = web.take(origin)
    server.request()
    server.say(reply(b"", "Content-Length: 2", length=False), b"a")
    assert late.head().status == 200
    web.worker.send({"op": "drain", "timeout_ms": 20000})
    until(lambda: web.seat["state"] == 3)
    first.say(reply(b"done"))
    answer = busy.answer()
    assert (answer.body, answer.closes) == (b"done", True)
    assert busy.end() == "eof"
    server.say(b"b")
    assert late.exactly(2) == b"ab"
    assert late.end() == "eof"
    assert idle.end() == "eof"
    with contextlib.suppress(OSError):
        web.worker.control.recv(65536)
    assert web.worker.wait_for_exit() == 0
    web.drained = True
