"""What a worker owes its clients when things change under it: each claim was broken once.

Plans change while connections rest, backends die at the worst moment, disks are full, and heads
come in pieces.
"""

from __future__ import annotations

import hashlib
import os
import select
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lbcore._scoreboard import BackendState
from lbcore.config.plan import FieldPlan, PoolHttpPlan, PoolPlan, Segment
from tests.support.http_lab import HttpLab, Wire, blob, chunks, http_lab, reply, request, sent
from tests.support.relay_lab import PATIENCE, Origin, is_quiet, member, pool, unsent, until

GET = request()
POST = request("POST / HTTP/1.1", body=b"order")
SOON = 20.0     # seconds in which a connection that nobody should use any more is closed


def rest(web: HttpLab, origin: Origin) -> tuple[Wire, Wire]:
    """A client, and the backend's end of a connection that rests after one request."""
    client, server, _ = web.pair(origin, GET)
    server.say(reply(b"first"))
    assert client.answer().body == b"first"
    web.until_idle(1)
    return client, server


def change(web: HttpLab, *pools: PoolPlan) -> None:
    """Another plan for the same worker. Rows are counted from 0 in each."""
    web.pools = pools
    web.apply(*pools)


# ---- whose connection it is --------------------------------------------------------------------

@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_row_with_another_backend_closes_what_led_to_the_one_before(
    web: HttpLab, kind: str,
) -> None:
    """Rows are given again: connections that rest belong to an address, not to a row."""
    one, two = web.origin(kind), web.origin(kind)
    web.web(pool(one))
    client, server = rest(web, one)
    change(web, pool(two))
    assert server.end() == "eof"
    web.until_idle(0)
    client.say(GET)
    fresh = web.take(two)
    fresh.request()
    fresh.say(reply(b"two"))
    assert client.answer().body == b"two"
    assert one.nobody_came(0.02)


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_connection_that_comes_back_late_serves_nobody_elses_backend(
    web: HttpLab, kind: str,
) -> None:
    """Its request began before the row was given to another backend, and ended after that."""
    one, two = web.origin(kind), web.origin(kind)
    web.web(pool(one))
    slow, server, _ = web.pair(one, GET)
    change(web, pool(two))
    server.say(reply(b"one"))
    assert slow.answer().body == b"one"
    client = web.client(GET)
    fresh = web.take(two)
    fresh.request()
    fresh.say(reply(b"two"))
    assert client.answer().body == b"two"
    assert server.end() == "eof"
    slow.say(GET)
    fresh.request()
    fresh.say(reply(b"two again"))
    assert slow.answer().body == b"two again"


def test_connections_of_a_backend_that_left_the_plan_are_closed_with_it(web: HttpLab) -> None:
    one, two = web.origin(), web.origin()
    web.web(pool(two, one))
    web.pretend(0, BackendState.STATE_DOWN)
    _, server = rest(web, one)
    change(web, pool(two))
    assert server.end() == "eof"
    web.until_idle(0)


def test_connections_of_a_backend_that_stays_outlive_the_change(web: HttpLab) -> None:
    one, two = web.origin(), web.origin()
    web.web(pool(one))
    client, server = rest(web, one)
    change(web, pool(one, two, http=PoolHttpPlan(keepalive_connections=3)))
    web.pretend(1, BackendState.STATE_DOWN)
    assert web.idle() == 1
    client.say(GET)
    server.request()
    server.say(reply(b"the same"))
    assert client.answer().body == b"the same"
    assert one.nobody_came(0.02)


# ---- whose listener is gone --------------------------------------------------------------------

def two_listeners(web: HttpLab, origin: Origin) -> None:
    """Two http listeners in front of a backend."""
    web.listen("tcp", protocol="http")
    web.web(pool(origin))


def without_the_second(web: HttpLab) -> None:
    """A plan in which the second listener is not any more."""
    answer = web.worker.apply(web.listeners[:1], web.pools, [(web.numbers[0], 0)])
    assert answer["op"] == "applied", answer
    web.let_turn()


def test_client_of_a_removed_listener_has_one_more_answer_that_says_close(web: HttpLab) -> None:
    origin = web.origin()
    two_listeners(web, origin)
    client, server, _ = web.pair(origin, GET, listener=1)
    server.say(reply(b"x"))
    assert not client.answer().closes
    without_the_second(web)
    client.say(GET)
    server.request()
    server.say(reply(b"last"))
    answer = client.answer()
    assert (answer.body, answer.closes) == (b"last", True)
    assert client.end() == "eof"


def test_idle_client_of_a_removed_listener_is_closed_within_seconds(web: HttpLab) -> None:
    origin = web.origin()
    two_listeners(web, origin)
    client, server, _ = web.pair(origin, GET, listener=1)
    server.say(reply(b"x"))
    client.answer()
    fresh = web.client(listener=1)                  # has asked nothing yet
    busy = web.client(GET, listener=1)              # and this one just now
    until(lambda: web.seat["connections"] == 3)
    server.request()
    without_the_second(web)
    began = time.monotonic()
    assert client.end() == fresh.end() == "eof"
    assert time.monotonic() - began < SOON
    server.say(reply(b"whole"))
    assert busy.answer().body == b"whole"
    assert busy.end() == "eof"


def test_client_of_a_listener_that_stays_notices_no_change(web: HttpLab) -> None:
    origin = web.origin()
    two_listeners(web, origin)
    client, server, _ = web.pair(origin, GET)
    server.say(reply(b"x"))
    client.answer()
    without_the_second(web)
    without_the_second(web)
    assert is_quiet(client.sock, 1.5)
    client.say(GET)
    server.request()
    server.say(reply(b"goes on"))
    answer = client.answer()
    assert (answer.body, answer.closes) == (b"goes on", False)


# ---- what may have been done -------------------------------------------------------------------

@pytest.mark.parametrize("kind", ["tcp", "unix"])
@pytest.mark.parametrize("how", ["close", "reset"])
def test_order_on_a_kept_connection_that_dies_late_is_not_sent_twice(
    web: HttpLab, kind: str, how: str,
) -> None:
    """An application that is killed while it works may have done the work."""
    origin = web.origin(kind)
    web.web(pool(origin))
    client, server = rest(web, origin)
    client.say(POST)
    assert server.request().body == b"order"
    time.sleep(0.1)         # what is tested is that time passes
    getattr(server, how)()
    assert client.answer("POST").status == 502
    assert origin.nobody_came(0.05)
    assert web.board.route_totals(0)["retries"] == 0


def test_late_end_of_a_safe_request_costs_the_budget_for_retries(web: HttpLab) -> None:
    """It is no connection that had rested too long: the application failed."""
    origin = web.origin()
    web.web(pool(origin, http=PoolHttpPlan(retry_share=0.0)))
    client, server = rest(web, origin)
    client.say(GET)
    server.request()
    time.sleep(0.1)         # what is tested is that time passes
    server.close()
    assert client.answer().status == 502
    assert origin.nobody_came(0.05)


def test_order_on_a_kept_connection_that_dies_at_once_unread_is_sent_again(web: HttpLab) -> None:
    """A unix socket says whether anything was left unread, so nothing was done."""
    origin = web.origin("unix")
    web.web(pool(origin))
    for _ in range(5):      # "at once" is 50 ms, which a busy machine may miss
        client, server = rest(web, origin)
        client.say(POST)
        assert select.select([server.sock], [], [], PATIENCE)[0]
        server.close()
        if origin.nobody_came(1):
            assert client.answer("POST").status == 502
            continue
        fresh = web.take(origin)
        assert fresh.request().body == b"order"
        fresh.say(reply(b"done"))
        assert client.answer("POST").body == b"done"
        return
    raise AssertionError("never sent again")


# ---- retries by status -------------------------------------------------------------------------

@pytest.mark.parametrize("why", ["down", "full"])
def test_answer_to_be_retried_is_passed_on_when_nobody_else_can_be_asked(
    web: HttpLab, why: str,
) -> None:
    """An answer of the application's is better than one of lbcore's; and costs no retry."""
    one, two = web.origin(), web.origin()
    if why == "down":
        web.web(pool(one, two), route={"retry_statuses": (503,)})
        web.pretend(1, BackendState.STATE_DOWN)
    else:
        web.web(pool(member(one, max_connections=1)), route={"retry_statuses": (503,)})
    client, server, _ = web.pair(one, GET)
    if why == "down":
        web.pretend(0, BackendState.STATE_DOWN)
    server.say(reply(b"busy", "Retry-After: 7", status="503 Service Unavailable"))
    answer = client.answer()
    assert (answer.status, answer.body, answer.get("retry-after")) == (503, b"busy", "7")
    assert one.nobody_came(0.02) and two.nobody_came(0.02)
    assert web.board.route_totals(0)["retries"] == 0
    web.expect_http(ok=1)


def test_retries_that_nobody_could_take_leave_their_budget_alone(web: HttpLab) -> None:
    """A budget is 10 retries at once; 15 answers were passed on for want of another backend."""
    one, two = web.origin(), web.origin()
    web.web(pool(member(one, max_connections=1), two, http=PoolHttpPlan(retry_share=0.001)),
            route={"retry_statuses": (503,)})
    web.pretend(1, BackendState.STATE_DOWN)
    busy = reply(b"busy", status="503 Service Unavailable")
    client, server, _ = web.pair(one, GET)
    for _ in range(15):
        server.say(busy)
        assert client.answer().status == 503
        client.say(GET)
        server.request()
    web.pretend(1, BackendState.STATE_UP)
    server.say(busy)
    other = web.take(two)
    other.request()
    other.say(reply(b"fine"))
    assert client.answer().body == b"fine"


# ---- no room for temporary files ---------------------------------------------------------------

LARGE = blob(24 << 20)
SUM = hashlib.sha256(LARGE).hexdigest()


@pytest.fixture(params=["missing", "full"])
def crowded(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> Iterator[HttpLab]:
    """A worker whose directory for temporary files is not there, or has no room."""
    directory = tmp_path / "spool"
    if request.param == "full":
        directory.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "none", str(directory)]
        if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip("a full disk is made by mounting one")
    monkeypatch.setenv("LBCORE_SPOOL_DIR", str(directory))
    try:
        with http_lab() as lab:
            yield lab
    finally:
        if request.param == "full":
            subprocess.run(["umount", str(directory)], check=True)


def say_all(server: Wire, data: bytes, end: bool) -> None:
    """Sends all of it, and then perhaps the end."""
    server.say(data)
    if end:
        server.finish()


@pytest.mark.parametrize("memory", [0, 256 << 10])
@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_slow_client_gets_all_of_what_no_disk_takes(
    crowded: HttpLab, framing: str, memory: int,
) -> None:
    """The backend waits for the client instead, and the log says why."""
    web, origin = crowded, crowded.origin("unix")    # what the kernel holds there is little
    web.web(pool(origin), route={"response_memory": memory})
    client, server, _ = web.pair(origin, GET)
    if framing == "length":
        data = reply(LARGE)
    elif framing == "close":
        data = reply(LARGE, "Connection: close", length=False)
    else:
        data = reply(chunks(*(LARGE[at:at + 50_000] for at in range(0, len(LARGE), 50_000))),
                     "Transfer-Encoding: chunked", length=False)
    sender = threading.Thread(target=say_all, args=(server, data, framing == "close"), daemon=True)
    sender.start()
    said = web.worker.receive()
    assert (said["op"], said["event"]) == ("log", "spool_failed")
    assert "LBCORE_SPOOL_DIR" in said["message"]
    web.let_turn()
    assert sender.is_alive()                # it is held back
    assert web.seat["buffers"] < 16         # rather than kept in memory
    sender.join(0.2)
    assert sender.is_alive()
    got = bytearray()
    while len(got) < 1 << 20:               # slow at first
        got += client.sock.recv(20_000)
    client.kept += got
    answer = client.answer()
    assert hashlib.sha256(answer.body).hexdigest() == SUM
    assert answer.framing == ("length" if framing == "length" else "chunked")
    sender.join()
    web.expect_http(ok=1)


def test_upload_that_no_disk_takes_is_a_503_and_a_word_in_the_log(crowded: HttpLab) -> None:
    web, origin = crowded, crowded.origin()
    web.web(pool(origin))
    client = web.client()
    sender = sent(client, request("POST / HTTP/1.1", body=LARGE[:2 << 20]))
    assert client.answer("POST").status == 503
    said = web.worker.receive()
    assert (said["op"], said["event"]) == ("log", "spool_failed")
    assert origin.nobody_came(0.02)
    sender.join()
    web.expect_http(internal=1)


# ---- heads in pieces ---------------------------------------------------------------------------

@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_head_in_two_pieces_with_a_large_body_behind_it_is_a_good_answer(
    web: HttpLab, framing: str,
) -> None:
    body = LARGE[:1 << 20]
    policy = "Content-Security-Policy: " + "p" * 2000
    if framing == "length":
        data = reply(body, policy)
    else:
        data = reply(chunks(body), policy, "Transfer-Encoding: chunked", length=False)
    head = data.index(b"\r\n\r\n") + 4
    origin = web.origin()
    web.web(pool(origin))
    client, server = rest(web, origin)
    for cut in (1, 9, 17, 40, 1400, head - 30, head - 3, head - 2, head - 1, head, head + 3):
        client.say(GET)
        server.request()
        server.say(data[:cut])
        web.let_turn()
        sender = sent(server, data[cut:], len(data))
        answer = client.answer()
        assert (answer.status, answer.body == body) == (200, True), cut
        assert answer.get("content-security-policy") == "p" * 2000
        sender.join()
    web.expect_http(ok=12)


def test_head_in_three_pieces_behind_an_early_hint_is_a_good_answer(web: HttpLab) -> None:
    body = LARGE[:1 << 20]
    hint = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    data = hint + reply(body, "X-Long: " + "l" * 2000)
    origin = web.origin()
    web.web(pool(origin))
    client, server = rest(web, origin)
    for first, second in ((5, 60), (len(hint) - 1, len(hint) + 9), (len(hint) + 7, 1500)):
        client.say(GET)
        server.request()
        server.say(data[:first])
        web.let_turn()
        server.say(data[first:second])
        web.let_turn()
        sender = sent(server, data[second:], len(data))
        answer = client.answer()
        assert [hinted.status for hinted in answer.interim] == [103]
        assert (answer.status, answer.body == body) == (200, True)
        sender.join()


@pytest.mark.parametrize("apart", [False, True])
def test_backend_that_only_hints_is_not_listened_to_for_ever(web: HttpLab, apart: bool) -> None:
    origin = web.origin()
    web.web(pool(origin))
    client, server, _ = web.pair(origin, GET)
    hints = [b"HTTP/1.1 103 Early Hints\r\nLink: </%d>\r\n\r\n" % number for number in range(33)]
    if apart:
        for hint in hints:
            server.say(hint)
            web.let_turn()
    else:
        server.say(*hints)
    answer = client.answer()
    assert [hint.get("link") for hint in answer.interim] == [f"</{n}>" for n in range(32)]
    assert answer.status == 502
    web.expect_http(bad_answer=1)


def test_as_many_hints_as_allowed_are_followed_by_the_answer(web: HttpLab) -> None:
    origin = web.origin()
    web.web(pool(origin))
    client, server, _ = web.pair(origin, GET)
    server.say(*[b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"] * 32, reply(b"x"))
    answer = client.answer()
    assert (len(answer.interim), answer.status, answer.body) == (32, 200, b"x")


# ---- bodies that are none ----------------------------------------------------------------------

@pytest.mark.parametrize("body", [b"z\r\n", b"5\r\nhelloX", b"5\r\nhello\r\n-1\r\n"])
def test_body_that_is_malformed_from_the_start_is_a_502(web: HttpLab, body: bytes) -> None:
    """Nothing has gone to the client yet, so there is no need to cut it off."""
    origin = web.origin()
    web.web(pool(origin))
    client, server, _ = web.pair(origin, GET)
    server.say(reply(body, "Transfer-Encoding: chunked", length=False))
    answer = client.answer()
    assert (answer.status, answer.closes) == (502, False)
    web.expect_http(bad_answer=1)
    assert server.end() == "reset"
    client.say(GET)
    fresh = web.take(origin)
    fresh.request()
    fresh.say(reply(b"x"))
    assert client.answer().body == b"x"


# ---- agreeing to another protocol --------------------------------------------------------------

ASK = request("GET / HTTP/1.1", "Connection: Upgrade", "Upgrade: echo")
AGREE = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"


def test_agreement_does_not_overtake_hints_that_a_slow_client_has_not_taken(web: HttpLab) -> None:
    origin = web.origin()
    web.web(pool(origin), kind="unix")
    client, server, _ = web.pair(origin, ASK)
    web.let_turn()
    before = web.seat["buffers"]
    hints = 0
    while web.seat["buffers"] == before:
        server.say(b"HTTP/1.1 103 Early Hints\r\nLink: </%d>, %b\r\n\r\n"
                   % (hints, b"l" * 12_000))
        until(lambda: unsent(server.sock) == 0)
        web.let_turn()
        hints += 1
    assert hints > 1
    server.say(AGREE, b"hello")
    web.let_turn()
    answer = client.answer()
    assert answer.status == 101
    assert [(hint.get("link") or "").split(",")[0] for hint in answer.interim] == [
        f"</{number}>" for number in range(hints)]
    assert client.exactly(5) == b"hello"
    client.say(b"ping")
    assert server.exactly(4) == b"ping"


@pytest.mark.parametrize("cut", [0, 30])
def test_agreement_with_much_behind_it_makes_a_tunnel(web: HttpLab, cut: int) -> None:
    """The head that the client gets is longer, and with what came behind it still one buffer."""
    origin = web.origin()
    web.web(pool(origin), route={"response_fields": (
        FieldPlan("set", "X-Long", (Segment("text", "l" * 4000),)),)})
    client, server, _ = web.pair(origin, ASK)
    if cut:
        server.say(AGREE[:cut])
        web.let_turn()
    with web.asleep():
        sender = sent(server, AGREE[cut:] + LARGE[:1 << 20], 2 << 20)
        sender.join(0.1)
    assert client.answer().status == 101
    assert client.exactly(1 << 20) == LARGE[:1 << 20]
    sender.join()
