"""Bodies through a worker: every size around its buffers, every framing, slow and broken peers."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
from typing import Any

import pytest

from lbcore.config.plan import PoolPlan
from tests.support.http_lab import (
    Ended,
    HttpLab,
    Wire,
    blob,
    chunks,
    echo_script,
    reply,
    request,
    sent,
)
from tests.support.relay_lab import fill, is_quiet, pool, until

SIZES = [0, 1, 2, *(edge + more for edge in (1 << 12, 1 << 14, 1 << 16, 1 << 17, 1 << 20)
                    for more in (-1, 0, 1)), 5 << 20]
DATA = blob(6 << 20)
WAYS: dict[str, dict[str, Any]] = {
    "collected, absorbed": {},
    "streamed": {"buffer_request": False, "buffer_response": False},
    "collected in files": {"request_memory": 0, "response_memory": 0},
}


def pieces(data: bytes, seed: int) -> list[bytes]:
    """The data in pieces of random lengths."""
    rng = random.Random(seed)
    found = []
    at = 0
    while at < len(data):
        size = rng.choice((1, 700, 4096, 1 << 14, 1 << 16, 1 << 18, 1 << 20))
        found.append(data[at:at + size])
        at += size
    return found


def framed_reply(framing: str, data: bytes) -> bytes:
    """A response with this body in this framing."""
    if framing == "chunked":
        return reply(chunks(*pieces(data, len(data))), "Transfer-Encoding: chunked", length=False)
    if framing == "close":
        return reply(data, "Connection: close", length=False)
    return reply(data)


def framed_request(framing: str, target: str, data: bytes, version: str = "1.1") -> bytes:
    """A request with this body in this framing."""
    if framing == "chunked":
        return request(f"POST {target} HTTP/1.1", "Transfer-Encoding: chunked",
                       body=chunks(*pieces(data, len(data) + 1)))
    if framing == "none":
        return request(f"GET {target} HTTP/{version}")
    return request(f"POST {target} HTTP/{version}", f"Content-Length: {len(data)}", body=data)


def sized_script(wire: Wire) -> bool:
    """/framing/size/expected: checks the body of the request, and answers with such a one."""
    got = wire.request()
    _, framing, size, expected = got.target.split("/")
    assert got.body == DATA[:int(expected)], f"{len(got.body)} other bytes than {expected}"
    wire.say(framed_reply(framing, DATA[1:1 + int(size)]))
    return framing != "close"


def careless_script(wire: Wire) -> bool:
    """As sized_script, for clients that may stop in the middle."""
    got = wire.request()
    _, framing, size, _ = got.target.split("/")
    wire.say(framed_reply(framing, DATA[1:1 + int(size)]))
    return framing != "close"


def ask(client: Wire, up: str, down: str, size_up: int, size_down: int) -> None:
    """A request of one size and a response of another, checked byte for byte."""
    if up == "none":
        size_up = 0
    sender = sent(client, framed_request(
        up, f"/{down}/{size_down}/{size_up}", DATA[:size_up]), 1 << 18)
    answer = client.answer("GET" if up == "none" else "POST")
    assert answer.status == 200
    assert answer.body == DATA[1:1 + size_down], (up, down, size_up, size_down)
    assert answer.framing == ("length" if down == "length" else "chunked")
    sender.join()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("up", ["none", "length", "chunked"])
def test_bodies_of_every_size_arrive_as_they_were_sent(web: HttpLab, way: str, up: str) -> None:
    site = web.site(sized_script)
    web.web(pool(site.address), route=WAYS[way])
    client = web.client()
    for down in ("length", "chunked", "close"):
        for size in SIZES:
            ask(client, up, down, size, size)
    for size in SIZES:
        ask(client, up, "length", size, 5)
        ask(client, up, "chunked", 5, size)
    web.expect_http(ok=5 * len(SIZES))


@pytest.mark.parametrize("pipes", [0, 64])
def test_large_bodies_arrive_with_and_without_pipes(web: HttpLab, pipes: int) -> None:
    site = web.site(sized_script)
    web.worker.max_pipes = pipes
    web.web(pool(site.address), route=WAYS["streamed"])
    clients = [web.client() for _ in range(8)]
    threads = [threading.Thread(target=ask, args=(
        client, "length", "length", (1 << 20) + number, (5 << 20) - number))
        for number, client in enumerate(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    web.expect_http(ok=8)


@pytest.mark.parametrize("kind", ["unix", "tcp6"])
def test_bodies_pass_over_other_sockets_too(web: HttpLab, kind: str) -> None:
    site = web.site(sized_script, kind)
    web.web(pool(site.address), kind=kind, route=WAYS["streamed"])
    client = web.client()
    for size in SIZES:
        for down in ("length", "chunked", "close"):
            ask(client, "length", down, size, size)
            ask(client, "chunked", down, size, size)


@pytest.mark.parametrize("down", ["length", "chunked", "close"])
def test_http_10_client_gets_all_of_every_body(web: HttpLab, down: str) -> None:
    site = web.site(sized_script)
    web.web(pool(site.address))
    for size in SIZES:
        client = web.client(framed_request("none", f"/{down}/{size}/0", b"", "1.0"))
        answer = client.answer()
        assert answer.body == DATA[1:1 + size]
        assert answer.framing == ("length" if down == "length" else "close")
        client.close()


def small_client(web: HttpLab, data: bytes) -> Wire:
    """A client that takes little at a time."""
    client = web.client()
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 17)
    client.say(data)
    return client


@pytest.mark.parametrize("pipes", [0, 64])
@pytest.mark.parametrize("down", ["length", "chunked", "close"])
@pytest.mark.parametrize("way", WAYS)
def test_slow_reader_gets_all_of_it(web: HttpLab, way: str, down: str, pipes: int) -> None:
    site = web.site(sized_script)
    web.worker.max_pipes = pipes
    web.web(pool(site.address), route=WAYS[way])
    client = small_client(web, framed_request("none", f"/{down}/{3 << 20}/0", b""))
    rng = random.Random(1)
    got = bytearray()
    while len(got) < 3 << 20:
        got += client.sock.recv(rng.choice((100, 3000, 20_000)))
        if rng.random() < 0.02:
            web.let_turn()
    client.kept += got
    assert client.answer().body == DATA[1:1 + (3 << 20)]
    web.expect_http(ok=1)


@pytest.mark.parametrize("up", ["length", "chunked"])
@pytest.mark.parametrize("way", WAYS)
def test_slow_writer_is_heard_to_the_end(web: HttpLab, way: str, up: str) -> None:
    site = web.site(sized_script)
    web.web(pool(site.address), route=WAYS[way])
    data = framed_request(up, "/length/3/200000", DATA[:200_000])
    client = web.client()
    rng = random.Random(2)
    at = 0
    while at < len(data):
        size = rng.choice((1, 10, 3000, 9000))
        client.say(data[at:at + size])
        at += size
        if rng.random() < 0.3:
            web.let_turn()
    assert client.answer().body == DATA[1:4]
    web.expect_http(ok=1)


def test_backend_that_reads_slowly_holds_back_the_client(web: HttpLab) -> None:
    origin = web.origin()
    web.web(pool(origin), route={**WAYS["streamed"], "max_body": 0})
    client = web.client(request("POST / HTTP/1.1", f"Content-Length: {1 << 30}"))
    server = web.take(origin)
    server.head()
    amount = fill(client.sock)
    assert amount < 64 << 20
    assert web.resident() < 200 << 20
    got = server.exactly(1 << 20)
    assert got == bytes(1 << 20)
    client.reset()
    web.expect_http(client_gone=1)


def say_late(client: Wire, data: bytes, begun: threading.Event) -> None:
    """Sends a request whose last bytes wait until something has happened."""
    client.say(data[:-100])
    begun.wait()
    client.say(data[-100:])


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_both_directions_flow_at_once(web: HttpLab, framing: str) -> None:
    """The backend answers while it reads: neither side ever has more than a little outstanding."""
    size = 5 << 20

    def mirror(wire: Wire) -> bool:
        wire.head()
        if framing == "length":
            wire.say(reply(b"", f"Content-Length: {size}", length=False))
            left = size
            while left:
                if not wire.kept:
                    wire.more()
                part = wire.exactly(min(len(wire.kept), left))
                left -= len(part)
                wire.say(part)
        else:
            wire.say(reply(b"", "Transfer-Encoding: chunked", length=False))
            while (length := int(wire.line(), 16)):
                part = wire.exactly(length)
                assert wire.exactly(2) == b"\r\n"
                wire.say(chunks(part, end=False))
            assert wire.fields() == []
            wire.say(chunks())
        return True

    site = web.site(mirror)
    web.web(pool(site.address), route=WAYS["streamed"])
    client = web.client()
    for _ in range(2):
        begun = threading.Event()
        sender = threading.Thread(target=say_late, daemon=True, args=(
            client, framed_request(framing, "/", DATA[:size]), begun))
        sender.start()
        while b"\r\n\r\n" not in client.kept:
            client.more()
        begun.set()
        answer = client.answer("POST")
        assert answer.body == DATA[:size]
        sender.join()
        assert answer.closes        # its end was promised before the request was here
        assert client.end() == "eof"
        client = web.client()


@pytest.mark.parametrize("way", WAYS)
def test_response_before_the_request_is_whole_is_passed_on_at_once(web: HttpLab, way: str) -> None:
    """A backend refuses an upload after its head. Collected or not, the client hears why."""
    origin = web.origin()
    web.web(pool(origin), route=WAYS[way])
    client = web.client()
    sender = sent(client, framed_request("length", "/", DATA[:5 << 20]))
    server = web.take(origin)
    server.head()
    server.say(reply(b"no", status="403 Forbidden"))
    answer = client.answer("POST")
    assert (answer.status, answer.body) == (403, b"no")
    server.close()
    if answer.closes:
        client.finish()
        sender.join()
        with pytest.raises(Ended):
            client.more()
    else:
        # Everything of it was read: the connection is as good as new.
        sender.join()
        client.say(request())
        server = web.take(origin)
        server.request()
        server.say(reply(b"next"))
        assert client.answer().body == b"next"


def test_a_client_whose_collected_upload_was_refused_keeps_its_connection(web: HttpLab) -> None:
    origin = web.origin()
    web.web(pool(origin))
    client = web.client()
    sender = sent(client, framed_request("length", "/", DATA[:5 << 20]))
    server = web.take(origin)
    server.head()
    server.say(reply(b"no", status="403 Forbidden"))
    answer = client.answer("POST")
    sender.join()
    assert (answer.status, answer.closes) == (403, False)
    client.say(request())
    server = web.take(origin)
    server.request()
    server.say(reply(b"next"))
    assert client.answer().body == b"next"


@pytest.mark.parametrize("up", ["length", "chunked"])
@pytest.mark.parametrize("end", ["polite", "abrupt"])
def test_refused_stream_ends_with_the_answer_and_not_with_a_reset(
    web: HttpLab, up: str, end: str,
) -> None:
    """The backend answers and reads nothing more: the client gets the answer. A backend that
    closes with bytes unread resets its connection; what it had said by then counts."""
    origin = web.origin()
    web.web(pool(origin), route=WAYS["streamed"])
    for _ in range(5):
        client = web.client()
        sender = sent(client, framed_request(up, "/", DATA[:5 << 20]))
        server = web.take(origin)
        server.head()
        body = DATA[:300_000] if end == "polite" else b"no"
        server.say(reply(body, "Connection: close", status="413 Content Too Large"))
        if end == "polite":
            server.finish()
        else:
            server.close()
        answer = client.answer("POST")
        assert (answer.status, answer.body) == (413, body)
        assert answer.closes
        client.close()
        sender.join()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("up", ["length", "chunked"])
def test_client_that_leaves_within_its_body_never_makes_a_whole_request(
    web: HttpLab, way: str, up: str,
) -> None:
    origin = web.origin()
    web.web(pool(origin), route=WAYS[way])
    data = framed_request(up, "/", DATA[:100_000])
    for leave in ("finish", "reset"):
        client = web.client(data[:60_000])
        web.let_turn()
        if WAYS[way].get("buffer_request", True):
            getattr(client, leave)()
            assert origin.nobody_came(0.05)
        else:
            server = web.take(origin)
            server.head()           # before the reset that would destroy it
            getattr(client, leave)()
            assert server.cut().how == "reset"
    web.expect_http(client_gone=2)
    web.expect_free()


@pytest.mark.parametrize("pipes", [0, 64])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("down", ["length", "chunked"])
@pytest.mark.parametrize("end", ["close", "reset"])
def test_short_response_cuts_a_slow_client_too(
    web: HttpLab, way: str, down: str, end: str, pipes: int,
) -> None:
    """At once, not when a timeout comes; and what was read before is delivered after a FIN."""
    origin = web.origin()
    web.worker.max_pipes = pipes
    web.web(pool(origin), route=WAYS[way])
    client = small_client(web, request())
    server = web.take(origin)
    server.request()
    whole = framed_reply(down, DATA[:3 << 20])
    sender = sent(server, whole[:(3 << 20) - 5000])
    web.let_turn()
    client.more()
    if end == "close":
        got = bytearray()

        def leave() -> None:
            sender.join()
            server.finish()

        threading.Thread(target=leave, daemon=True).start()
        with pytest.raises(OSError):
            while part := client.sock.recv(7000):
                got += part
            assert not got, f"looked whole after {len(got)} bytes"
    else:
        server.reset()
        sender.join()
        assert client.cut().how == "reset"
    web.expect_http(answer_cut=1)
    web.expect_free()


@pytest.mark.parametrize("bytes_more", [b"x", reply(b"poison")])
@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("size", [0, 5, 100_000])
def test_bytes_behind_a_response_are_nobodys(
    web: HttpLab, framing: str, bytes_more: bytes, size: int,
) -> None:
    origin = web.origin()
    web.web(pool(origin), route=WAYS["streamed"])
    client, server, _ = web.pair(origin, request())
    server.say(framed_reply(framing, DATA[:size]) + bytes_more)
    assert client.answer().body == DATA[:size]
    assert server.end() in {"eof", "reset"}
    client.say(request())
    server = web.take(origin)
    server.request()
    server.say(reply(b"mine"))
    assert client.answer().body == b"mine"


@pytest.mark.parametrize("way", WAYS)
def test_body_limit_is_exact_in_both_framings(web: HttpLab, way: str) -> None:
    site = web.site(sized_script)
    web.web(pool(site.address), route={**WAYS[way], "max_body": 100_000})
    for up in ("length", "chunked"):
        client = web.client()
        ask(client, up, "length", 100_000, 1)
        sender = sent(client, framed_request(up, "/length/1/100001", DATA[:100_001]))
        answer = client.answer("POST")
        assert answer.status == 413
        client.close()
        sender.join()
    web.expect_http(ok=2, too_large=2)


def test_many_clients_with_many_bodies_at_once(web: HttpLab) -> None:
    """Sizes and framings mixed over connections that are reused: nobody gets another's bytes."""
    site = web.site(sized_script)
    other = web.site(sized_script, "unix")
    web.web(PoolPlan("pool", pool(site.address, other.address).backends))
    problems: list[BaseException] = []

    def customer(number: int) -> None:
        rng = random.Random(number)
        try:
            client = web.client()
            for _ in range(25):
                ask(client, rng.choice(("none", "length", "chunked")),
                    rng.choice(("length", "chunked", "close")),
                    rng.choice(SIZES[:-1]), rng.choice(SIZES[:-1]))
        except BaseException as problem:    # noqa: BLE001 - told below
            problems.append(problem)

    threads = [threading.Thread(target=customer, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems, problems
    web.expect_http(ok=12 * 25)


def test_clients_that_leave_at_any_moment_leave_nothing(web: HttpLab) -> None:
    site = web.site(careless_script)
    web.web(pool(site.address), route={"retry_attempts": 1})
    rng = random.Random(5)
    for number in range(150):
        size = rng.choice(SIZES)
        data = framed_request(rng.choice(("none", "length", "chunked")),
                              f"/{rng.choice(('length', 'chunked'))}/{rng.choice(SIZES)}/{size}",
                              DATA[:size])
        client = web.client()
        sender = sent(client, data[:rng.randrange(len(data)) if number % 3 else len(data)])
        if number % 2:
            client.sock.settimeout(rng.random() * 0.02 + 0.001)
            with contextlib.suppress(TimeoutError):
                client.sock.recv(rng.choice((1, 10_000)))
        rng.choice((client.reset, client.close))()
        sender.join()
    until(lambda: web.seat["connections"] == 0)


def test_idle_connection_owns_no_memory(web: HttpLab) -> None:
    site = web.site(echo_script)
    web.web(pool(site.address))
    clients = [web.client() for _ in range(50)]
    for client in clients:
        client.ask(request("POST / HTTP/1.1", body=b"x" * 50_000))
    web.let_turn()
    assert (web.seat["buffers"], web.seat["pipes"], web.seat["requests"]) == (0, 0, 0)
    assert is_quiet(clients[0].sock, 0.01)
