"""PROXY protocol: whom a client claims to speak for, and what backends are told."""

from __future__ import annotations

import ipaddress
import os
import socket
import struct

import pytest

from lbcore._scoreboard import BackendState
from lbcore.config.plan import PoolPlan
from tests.support.relay_lab import (
    Lab,
    Origin,
    ending,
    pool,
    reached,
    read_exactly,
    read_to_end,
    until,
)

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
V1 = b"PROXY TCP4 192.0.2.1 198.51.100.1 4711 443\r\n"
TLV = b"\x04\x00\x03abc"


def v2(source: str, destination: str, source_port: int, destination_port: int,
       command: int = 0x21, more: bytes = b"") -> bytes:
    """A header of version 2."""
    addresses = [ipaddress.ip_address(text) for text in (source, destination)]
    body = b"".join(a.packed for a in addresses) + struct.pack(
        ">HH", source_port, destination_port) + more
    family = 0x11 if addresses[0].version == 4 else 0x21
    return SIGNATURE + bytes((command, family)) + struct.pack(">H", len(body)) + body


V2 = v2("192.0.2.1", "198.51.100.1", 4711, 443)
V2_TLV = v2("2001:db8::1", "2001:db8::2", 4711, 443, more=TLV)
LOCAL = SIGNATURE + b"\x20\x00\x00\x00"


def v1_line(server: socket.socket) -> bytes:
    """The header that a backend got, read to its end and no further."""
    line = b""
    while not line.endswith(b"\r\n"):
        line += read_exactly(server, 1)
    return line


def v2_header(server: socket.socket) -> bytes:
    """The same for version 2."""
    head = read_exactly(server, 16)
    return head + read_exactly(server, struct.unpack(">H", head[14:])[0])


# ---- in ------------------------------------------------------------------------------------------

@pytest.mark.parametrize("header", [V1, V2, V2_TLV, LOCAL, b"PROXY UNKNOWN\r\n"])
@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_header_is_taken_off_and_what_stands_behind_it_arrives(
        lab: Lab, header: bytes, kind: str) -> None:
    origin = lab.origin()
    lab.serve(pool(origin), kind=kind, proxy_protocol=True)
    for data in (b"", b"x", b"hello" * 10, os.urandom(200_000)):
        client = lab.connect(header + data)
        server = origin.accept()
        client.sendall(b"more")
        client.shutdown(socket.SHUT_WR)
        assert read_to_end(server) == (data + b"more", "eof")
        server.sendall(b"answer")
        server.close()
        assert read_to_end(client) == (b"answer", "eof")
    lab.expect_ended(normal=4)
    lab.expect_nothing_held()


@pytest.mark.parametrize("header", [V1, V2, V2_TLV, LOCAL])
@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_header_may_come_in_any_two_pieces(lab: Lab, header: bytes, kind: str) -> None:
    origin = lab.origin()
    lab.serve(pool(origin), kind=kind, proxy_protocol=True)
    for cut in range(1, len(header)):
        client = lab.connect(header[:cut])
        lab.let_turn()
        client.sendall(header[cut:] + b"hello")
        server = origin.accept()
        assert read_exactly(server, 5) == b"hello"
        server.close()
        client.close()
    assert origin.nobody_came(0)


def test_header_may_come_byte_by_byte(lab: Lab) -> None:
    origin = lab.origin()
    lab.serve(pool(origin), proxy_protocol=True)
    client = lab.connect()
    for byte in V2_TLV + b"hello":
        client.sendall(bytes((byte,)))
        lab.let_turn()
    assert read_exactly(origin.accept(), 5) == b"hello"


def test_no_backend_hears_of_a_client_before_its_header_is_complete(lab: Lab) -> None:
    origin = lab.origin()
    lab.serve(pool(origin), proxy_protocol=True)
    lab.connect()
    lab.connect(V1[:-1])
    lab.connect(V2[:-1])
    assert origin.nobody_came()


@pytest.mark.parametrize("garbage", [
    b"GET / HTTP/1.1\r\n\r\n", b"\0", b"PROXY TCP4 1.2.3.4 5.6.7.8 1 99999\r\n",
    b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n", b"PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n",
    b"PROXY " + b"x" * 200, SIGNATURE + b"\x31\x11\x00\x0c" + bytes(12),
    SIGNATURE + b"\x21\x11\x00\x04" + bytes(4), SIGNATURE + b"\x21\x11\xff\xff" + bytes(6000),
    SIGNATURE[:-1] + b"\r",
])
def test_malformed_header_resets_and_is_counted(lab: Lab, garbage: bytes) -> None:
    origin = lab.origin()
    lab.serve(pool(origin), proxy_protocol=True)
    assert lab.turned_away(garbage)
    lab.expect_ended(proxy_malformed=1)
    assert origin.nobody_came(0)
    lab.expect_nothing_held()


def test_client_that_ends_within_its_header_is_malformed(lab: Lab) -> None:
    lab.serve(pool(lab.origin()), proxy_protocol=True)
    client = lab.connect(V1[:20])
    client.shutdown(socket.SHUT_WR)
    assert ending(client) == "reset"
    lab.expect_ended(proxy_malformed=1)


def test_client_that_leaves_before_its_header_is_gone(lab: Lab) -> None:
    """As the health check of a balancer in front of this one does."""
    lab.serve(pool(lab.origin()), proxy_protocol=True)
    for _ in range(3):
        lab.connect().close()
    lab.expect_ended(client_gone=3)


def test_only_trusted_sources_may_send_a_header(lab: Lab) -> None:
    origin = lab.origin()
    lab.serve(pool(origin, send_proxy=1), proxy_protocol=True,
              proxy_trusted=("127.0.0.8/29", "2001:db8::/32"))
    lab.connect(V1 + b"trusted", source="127.0.0.9")
    server = origin.accept()
    assert v1_line(server) == V1
    assert read_exactly(server, 7) == b"trusted"
    lab.connect(V1 + b"not", source="127.0.0.17")
    server = origin.accept()
    assert v1_line(server).startswith(b"PROXY TCP4 127.0.0.17 127.0.0.1 ")
    assert read_exactly(server, len(V1) + 3) == V1 + b"not"


def test_an_untrusted_client_that_waits_for_the_server_is_not_kept_waiting(lab: Lab) -> None:
    origin = lab.origin()
    lab.serve(pool(origin), proxy_protocol=True, proxy_trusted=("192.0.2.0/24",))
    client, server = lab.link(origin)
    server.sendall(b"220 hello")
    assert read_exactly(client, 9) == b"220 hello"


def test_consistent_hashing_goes_by_the_address_in_the_header(lab: Lab) -> None:
    origins = [lab.origin() for _ in range(3)]
    lab.serve(pool(*origins, balance="consistent"), proxy_protocol=True)
    lab.listen()
    lab.apply(pool(*origins, balance="consistent"))

    def chosen(client: socket.socket) -> int:
        origin = reached(*origins)
        origin.accept().close()
        client.close()
        return origins.index(origin)

    for number in range(1, 30):
        address = f"127.0.3.{number}"
        claimed = chosen(lab.connect(b"PROXY TCP4 %s 127.0.0.1 1 2\r\n" % address.encode()))
        assert claimed == chosen(lab.connect(listener=1, source=address))


# ---- out -----------------------------------------------------------------------------------------

def told(lab: Lab, pool_plan: PoolPlan, origin: Origin, **listener: object) -> tuple[
        socket.socket, socket.socket]:
    """A client of a new listener and its backend's end."""
    index = lab.listen(**listener)      # type: ignore[arg-type]
    lab.apply(pool_plan)
    client = lab.connect(listener=index)
    return client, lab.keep(origin.accept())


def test_backend_is_told_the_addresses_of_the_client(lab: Lab) -> None:
    origin = lab.origin()
    client, server = told(lab, pool(origin, send_proxy=1), origin)
    here, there = client.getsockname(), client.getpeername()
    assert v1_line(server) == b"PROXY TCP4 127.0.0.1 127.0.0.1 %d %d\r\n" % (here[1], there[1])
    client.sendall(b"hello")
    assert read_exactly(server, 5) == b"hello"

    client, server = told(lab, pool(origin, send_proxy=2), origin)
    here, there = client.getsockname(), client.getpeername()
    assert v2_header(server) == v2("127.0.0.1", "127.0.0.1", here[1], there[1])
    client.sendall(b"hello")
    assert read_exactly(server, 5) == b"hello"


def test_backend_is_told_ipv6_addresses(lab: Lab) -> None:
    origin = lab.origin()
    client, server = told(lab, pool(origin, send_proxy=1), origin, kind="tcp6")
    here, there = client.getsockname(), client.getpeername()
    assert v1_line(server) == b"PROXY TCP6 ::1 ::1 %d %d\r\n" % (here[1], there[1])
    client, server = told(lab, pool(origin, send_proxy=2), origin, kind="tcp6")
    here, there = client.getsockname(), client.getpeername()
    assert v2_header(server) == v2("::1", "::1", here[1], there[1])


def test_backend_is_told_that_a_unix_client_has_no_address(lab: Lab) -> None:
    origin = lab.origin("unix")
    client, server = told(lab, pool(origin, send_proxy=1), origin, kind="unix")
    assert v1_line(server) == b"PROXY UNKNOWN\r\n"
    client.sendall(b"hello")
    assert read_exactly(server, 5) == b"hello"
    client, server = told(lab, pool(origin, send_proxy=2), origin, kind="unix")
    assert v2_header(server) == LOCAL
    client.sendall(b"hello")
    assert read_exactly(server, 5) == b"hello"


@pytest.mark.parametrize(("header", "passed"), [
    (V1, V1), (V2, V1),
    (V2_TLV, b"PROXY TCP6 2001:db8::1 2001:db8::2 4711 443\r\n"),
])
def test_an_incoming_address_is_passed_on(lab: Lab, header: bytes, passed: bytes) -> None:
    origin = lab.origin()
    lab.serve(pool(origin, send_proxy=1), proxy_protocol=True)
    lab.connect(header + b"hello")
    server = origin.accept()
    assert v1_line(server) == passed
    assert read_exactly(server, 5) == b"hello"


def test_a_local_header_leaves_the_connections_own_address(lab: Lab) -> None:
    origin = lab.origin()
    lab.serve(pool(origin, send_proxy=1), proxy_protocol=True)
    client = lab.connect(LOCAL + b"hello")
    server = origin.accept()
    assert v1_line(server) == b"PROXY TCP4 127.0.0.1 127.0.0.1 %d %d\r\n" % (
        client.getsockname()[1], client.getpeername()[1])


def test_header_and_early_data_arrive_together_in_order(lab: Lab) -> None:
    origin = lab.origin()
    lab.serve(pool(origin, send_proxy=1))
    for number in range(40):    # often enough for the worker to look for early data
        data = os.urandom(1 + number * 1000)
        client = lab.connect(data)
        client.shutdown(socket.SHUT_WR)
        server = origin.accept()
        assert v1_line(server).startswith(b"PROXY TCP4 127.0.0.1 ")
        assert read_to_end(server) == (data, "eof")
        server.close()


@pytest.mark.parametrize("data", [b"", b"hello"])
@pytest.mark.parametrize("version", [1, 2])
def test_header_is_sent_once_however_many_backends_fail(
        lab: Lab, version: int, data: bytes) -> None:
    origin = lab.origin()
    lab.serve(pool(lab.blackhole(), lab.refusing(), lab.refusing_unix(), origin,
                   send_proxy=version, connect_timeout_ms=60, connect_attempts=4))
    for _ in range(8):
        client = lab.connect(data)
        server = origin.accept()
        port = client.getsockname()[1], client.getpeername()[1]
        if version == 1:
            assert v1_line(server) == b"PROXY TCP4 127.0.0.1 127.0.0.1 %d %d\r\n" % port
        else:
            assert v2_header(server) == v2("127.0.0.1", "127.0.0.1", *port)
        client.shutdown(socket.SHUT_WR)
        assert read_to_end(server) == (data, "eof")
        server.close()


def test_header_reaches_a_backend_that_speaks_first(lab: Lab) -> None:
    origin = lab.origin()
    lab.serve(pool(origin, send_proxy=1))
    client, server = lab.link(origin)
    assert v1_line(server).startswith(b"PROXY TCP4 ")
    server.sendall(b"220 hello")
    assert read_exactly(client, 9) == b"220 hello"


def test_header_is_sent_after_waiting_in_the_queue(lab: Lab) -> None:
    origin = lab.origin()
    lab.serve(pool(origin, send_proxy=1))
    lab.pretend(0, BackendState.STATE_DOWN)
    lab.connect(b"hello")
    until(lambda: lab.board.pool(0)["waiting"] == 1)
    lab.pretend(0, BackendState.STATE_UP)
    server = origin.accept()
    assert v1_line(server).startswith(b"PROXY TCP4 ")
    assert read_exactly(server, 5) == b"hello"
