"""Claims about single checks, against real backends that behave and backends that do not."""

import asyncio
import contextlib
import os
import resource
import socket
import struct
import time
from pathlib import Path

import pytest

from lbcore.config.plan import Address, HealthPlan
from lbcore.health.probe import Prober
from lbcore.health.target import target_of
from lbcore.health.timers import Timers
from tests.support.health_lab import (
    address_of,
    answers,
    http_ok,
    listening,
    open_sockets,
    refused,
    serving,
    soon,
)

TCP = HealthPlan(type="tcp", timeout_ms=5000)
HTTP = HealthPlan(type="http", path="/healthz", timeout_ms=5000)
IMPATIENT = HealthPlan(type="http", timeout_ms=500)


@contextlib.asynccontextmanager
async def checking():
    timers = Timers()
    prober = Prober(timers)
    loop = asyncio.get_running_loop()
    prober.open(loop)
    timers.open(loop)
    try:
        yield prober, timers
    finally:
        prober.close()
        timers.close()


async def check(health, address, prober=None):
    """The outcome of one check."""
    async with contextlib.AsyncExitStack() as stack:
        if prober is None:
            prober, _ = await stack.enter_async_context(checking())
        done = asyncio.get_running_loop().create_future()
        prober.begin(target_of(health, address, address), done.set_result)
        return await soon(done)


def changed(health, **values):
    return HealthPlan(**{**{f: getattr(health, f) for f in health.__dataclass_fields__}, **values})


# ---- tcp

@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_a_listening_port_passes_a_tcp_check(host):
    with listening(host) as sock:
        outcome = await check(TCP, address_of(sock))
    assert outcome.ok and outcome.detail == "connected"
    assert 0 <= outcome.latency_ms < 5000


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("health", [TCP, HTTP])
async def test_a_closed_port_fails_with_the_reason(host, health):
    outcome = await check(health, refused(host))
    assert not outcome.ok and outcome.detail == "connection refused"


async def test_a_unix_socket_passes_a_tcp_check(tmp_path):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "s"))
        sock.listen()
        assert (await check(TCP, address_of(sock))).ok


async def test_a_unix_socket_without_a_file_or_a_listener_fails_with_the_reason(tmp_path):
    path = tmp_path / "s"
    assert (await check(TCP, Address(path=str(path)))).detail == "socket file does not exist"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
    assert (await check(TCP, Address(path=str(path)))).detail == "connection refused"


async def test_a_unix_socket_whose_accept_queue_is_full_fails(tmp_path):
    with socket.socket(socket.AF_UNIX) as sock, contextlib.ExitStack() as stack:
        sock.bind(str(tmp_path / "s"))
        sock.listen(0)
        first = stack.enter_context(socket.socket(socket.AF_UNIX))
        first.connect(str(tmp_path / "s"))
        outcome = await check(TCP, address_of(sock))
    assert outcome.ok is False and "queue is full" in outcome.detail


async def test_a_backend_that_drops_packets_fails_at_the_deadline():
    # A full accept queue makes the kernel drop handshakes, as a dead host would.
    with listening(backlog=0) as sock, contextlib.ExitStack() as stack:
        for _ in range(3):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(sock.getsockname())
        await asyncio.sleep(0)
        began = time.monotonic()
        outcome = await check(changed(TCP, timeout_ms=200), address_of(sock))
    assert not outcome.ok and outcome.detail == "no connection within 200 ms"
    assert time.monotonic() - began >= 0.2


async def test_a_tcp_check_never_reaches_the_application():
    with listening() as sock:
        async with checking() as (prober, _):
            for _ in range(50):
                assert (await check(TCP, address_of(sock), prober)).ok
        with pytest.raises(BlockingIOError):
            sock.accept()


async def test_tcp_checks_leave_no_connection_behind_in_the_kernel():
    with listening() as sock:
        address = address_of(sock)
        before = connections_to(address.port)
        async with checking() as (prober, _):
            for _ in range(50):
                await check(TCP, address, prober)
        assert connections_to(address.port) <= before


def connections_to(port, client=False):
    """Addresses and state of sockets with this port at either end (``client``: at the other end),
    the listening one aside. Connections to an earlier owner of the port can be among them: the
    kernel remembers those for a minute (TIME_WAIT)."""
    port_hex = f":{port:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {(row[1], row[2], row[3]) for row in rows if row[3] != "0A" and (
        row[2].endswith(port_hex) or (row[1].endswith(port_hex) and not client))}


async def test_a_check_may_go_to_another_port():
    with listening() as alive:
        health = changed(TCP, port=address_of(alive).port)
        assert (await check(health, refused())).ok
        assert not (await check(changed(TCP, port=refused().port), address_of(alive))).ok


def test_a_name_is_refused_because_looking_it_up_would_block():
    name = Address("localhost", 80)
    with pytest.raises(ValueError, match="not a numeric address"):
        target_of(TCP, name, name)


# ---- http

async def request_seen_by_backend(health, host="127.0.0.1", written=None, path=""):
    seen = asyncio.get_running_loop().create_future()

    async def handler(reader, writer):
        seen.set_result(await reader.readuntil(b"\r\n\r\n"))
        writer.write(http_ok())

    async with serving(handler, host=host, path=path) as address, checking() as (prober, _):
        done = asyncio.get_running_loop().create_future()
        prober.begin(target_of(health, address, written or address), done.set_result)
        assert (await soon(done)).ok
        return (await seen).decode(), address


async def test_an_http_check_is_a_plain_get_that_asks_to_close():
    request, address = await request_seen_by_backend(HTTP)
    lines = request.split("\r\n")
    assert lines[0] == "GET /healthz HTTP/1.1"
    assert f"Host: 127.0.0.1:{address.port}" in lines
    assert "Connection: close" in lines


@pytest.mark.parametrize(("health", "host", "written", "expected"), [
    (changed(HTTP, host="api.example.com"), "127.0.0.1", None, "Host: api.example.com\r\n"),
    (HTTP, "127.0.0.1", Address("app.internal", 8000), "Host: app.internal:8000\r\n"),
    (HTTP, "::1", None, "Host: [::1]:"),
])
async def test_the_host_header_is_the_configured_one_or_the_address_as_written(
        health, host, written, expected):
    request, _ = await request_seen_by_backend(health, host, written)
    assert expected in request


async def test_an_http_check_works_over_a_unix_socket(tmp_path):
    request, _ = await request_seen_by_backend(HTTP, path=str(tmp_path / "s"))
    assert "Host: localhost\r\n" in request


async def test_a_path_cannot_smuggle_a_header():
    request, _ = await request_seen_by_backend(
        changed(HTTP, path="/a b\r\nX-Evil: 1", host="h\r\nX-Evil: 2"))
    assert "\r\nX-Evil" not in request


async def test_status_and_body_decide():
    async with serving(answers(http_ok(b"state: GREEN"))) as address:
        assert (await check(HTTP, address)).ok
        assert (await check(changed(HTTP, expect_body="GREEN"), address)).ok
        outcome = await check(changed(HTTP, expect_body="BLUE"), address)
        assert outcome.detail == "status 200, but the body has no 'BLUE'"
        outcome = await check(changed(HTTP, expect_status=((204, 204),)), address)
        assert outcome.detail == "status 200, wanted 204"


async def test_an_answer_that_drips_in_byte_by_byte_is_understood():
    async with serving(answers(http_ok(b"GREEN"), pace=lambda: asyncio.sleep(0))) as address:
        assert (await check(changed(HTTP, expect_body="GREEN"), address)).ok


async def test_http_checks_leave_no_connection_behind_on_this_side():
    async def keeps(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(http_ok())
        await reader.read()

    async with serving(keeps) as address, checking() as (prober, _):
        before = connections_to(address.port, client=True)
        for _ in range(20):
            assert (await check(HTTP, address, prober)).ok
        prober.close()
        assert connections_to(address.port, client=True) <= before


# ---- backends that misbehave

async def nobody_accepts(reader, writer):
    await asyncio.Event().wait()


async def drips_for_ever(reader, writer):
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X")
        await writer.drain()
        await asyncio.sleep(0.001)


async def resets_at_once(reader, writer):
    writer.get_extra_info("socket").setsockopt(
        socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.close()


async def resets_in_the_middle(reader, writer):
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 2")
    await writer.drain()
    await resets_at_once(reader, writer)


async def floods(reader, writer):
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        writer.write(b"." * 65536)
        await writer.drain()


async def floods_head(reader, writer):
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X-Filler: 12345678901234567890\r\n" * 500)
        await writer.drain()


async def closes_at_once(reader, writer):
    await reader.readuntil(b"\r\n\r\n")


async def sends_garbage(reader, writer):
    writer.write(os.urandom(1 << 20))
    await writer.drain()


@pytest.mark.parametrize(("handler", "health", "text"), [
    (nobody_accepts, IMPATIENT, "connected, but no answer within 500 ms"),
    (drips_for_ever, changed(IMPATIENT, expect_body="GREEN"), "answer not complete within 500 ms"),
    (resets_at_once, HTTP, "connection"),
    (resets_in_the_middle, HTTP, "connection reset in the middle of the answer"),
    (closes_at_once, HTTP, "closed without an answer"),
    (floods, changed(HTTP, expect_body="GREEN"), "the first 64 KiB has no 'GREEN'"),
    (floods_head, changed(HTTP, expect_body="GREEN"), "head longer than 16 KiB"),
    (sends_garbage, HTTP, "not an HTTP/1 answer"),
])
async def test_a_backend_that_misbehaves_fails_and_is_let_go(handler, health, text):
    async with serving(handler) as address, checking() as (prober, _):
        outcome = await check(health, address, prober)
        assert outcome.ok is False
        assert text in outcome.detail
        assert len(prober) == 0, "no connection stays open after a failure"


async def test_a_flood_after_a_good_status_passes_but_is_not_read_for_ever():
    ended = asyncio.Event()

    async def handler(reader, writer):
        try:
            await floods(reader, writer)
        finally:
            ended.set()

    async with serving(handler) as address, checking() as (prober, _):
        assert (await check(HTTP, address, prober)).ok
        await soon(ended.wait())
        assert len(prober) == 0


async def test_the_rest_of_an_answer_is_waited_for_so_that_the_backend_sees_no_reset():
    judged, ending = asyncio.Event(), asyncio.get_running_loop().create_future()

    async def handler(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
        await judged.wait()
        writer.write(b"ok")
        writer.write_eof()
        try:
            ending.set_result(await reader.read())
        except ConnectionError as error:
            ending.set_result(error)

    async with serving(handler) as address, checking() as (prober, _):
        assert (await check(HTTP, address, prober)).ok
        judged.set()
        assert await soon(ending) == b""


async def test_a_check_is_over_when_the_backend_closes_not_at_the_deadline():
    patient = changed(HTTP, timeout_ms=600_000)
    async with serving(answers(http_ok())) as address, checking() as (prober, _):
        for _ in range(20):
            assert (await check(patient, address, prober)).ok

        async def all_closed():
            while len(prober):      # noqa: ASYNC110 - the end after the verdict is not reported
                await asyncio.sleep(0.001)
        await soon(all_closed())


async def test_a_backend_that_keeps_the_connection_is_left_at_the_deadline():
    gone = asyncio.Event()

    async def handler(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(http_ok())
        with contextlib.suppress(ConnectionError):
            await reader.read()
        gone.set()

    async with serving(handler) as address, checking() as (prober, _):
        assert (await check(IMPATIENT, address, prober)).ok
        await soon(gone.wait())
        assert len(prober) == 0


# ---- this side

async def test_a_shortage_of_descriptors_is_not_held_against_the_backend():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with listening() as sock:
        async with checking() as (prober, _):
            with contextlib.ExitStack() as stack:
                lowest_free = stack.enter_context(socket.socket()).fileno()
                resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
                try:
                    outcome = await check(TCP, address_of(sock), prober)
                finally:
                    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            assert outcome.ok is None
            assert (await check(TCP, address_of(sock), prober)).ok


async def test_answers_that_came_in_time_count_even_if_this_process_was_stopped_meanwhile():
    with listening(backlog=1024) as sock:
        async with checking() as (prober, _):
            target = target_of(changed(TCP, timeout_ms=50), address_of(sock), address_of(sock))
            outcomes = [asyncio.get_running_loop().create_future() for _ in range(300)]
            for outcome in outcomes:
                prober.begin(target, outcome.set_result)
            time.sleep(0.2)     # noqa: ASYNC251 - the pause is the point
            assert all([(await soon(outcome)).ok for outcome in outcomes])


async def test_stopping_leaves_no_descriptor_open():
    before = open_sockets()
    with listening(backlog=0) as sock:
        timers = Timers()
        prober = Prober(timers)
        prober.open(asyncio.get_running_loop())
        timers.open(asyncio.get_running_loop())
        reports = []
        for _ in range(20):
            target = target_of(HTTP, address_of(sock), address_of(sock))
            prober.begin(target, reports.append)
        assert len(prober) == 20
        prober.close()
        timers.close()
    assert open_sockets() == before
    assert reports == []
