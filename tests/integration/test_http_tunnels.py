"""Tunnels: what becomes of a connection once a backend has agreed to another protocol.

The backend is a listening socket in the test's own hands.
"""

from __future__ import annotations

import contextlib
import json
import select
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.instance import Instance, instance, until

SECONDS = 20
ASK = (b"GET /chat HTTP/1.1\r\nHost: test\r\nConnection: Upgrade, Keep-Alive\r\n"
       b"Keep-Alive: 5\r\nUpgrade: %b\r\nSec-WebSocket-Key: a\r\n\r\n")
AGREE = (b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %b\r\n"
         b"Sec-WebSocket-Accept: b\r\n\r\n")
Ends = tuple[socket.socket, socket.socket]


@dataclass
class Site:
    """lbcore and the backend behind it."""

    lb: Instance
    listener: socket.socket
    log: Path

    def client(self, data: bytes) -> socket.socket:
        """A client that has said this."""
        sock = socket.create_connection(self.lb.address, SECONDS)
        sock.sendall(data)
        return sock

    def accept(self) -> tuple[socket.socket, bytes]:
        """The connection that comes to the backend next, and the head of its request."""
        sock, _ = self.listener.accept()
        sock.settimeout(SECONDS)
        return sock, read_head(sock)

    def tunnel(self, protocol: bytes = b"websocket") -> Ends:
        """Both ends of a new tunnel."""
        client = self.client(ASK % protocol)
        server, _ = self.accept()
        server.sendall(AGREE % protocol)
        assert read_head(client).startswith(b"HTTP/1.1 101 ")
        return client, server

    def inflight(self) -> int:
        return int(self.lb.status()["pools"][0]["backends"][0]["inflight"])

    def line(self, **fields: object) -> dict[str, object]:
        """The line of the access log with these fields, once it is there."""

        def looked() -> list[dict[str, object]]:
            lines = self.log.read_text().splitlines() if self.log.exists() else []
            return [said for said in map(json.loads, lines) if fields.items() <= said.items()]

        return until(looked, f"a line with {fields}")[-1]


def read_head(sock: socket.socket) -> bytes:
    """Up to the end of a head, and not a byte more."""
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        part = sock.recv(1)
        assert part, data
        data += part
    return data


def read(sock: socket.socket, size: int) -> bytes:
    """So many bytes, or as many as come before the end."""
    data = b""
    while len(data) < size and (part := sock.recv(size - len(data))):
        data += part
    return data


def fields(head: bytes) -> dict[str, str]:
    lines = head.decode().split("\r\n")[1:-2]
    return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}


def silent(sock: socket.socket) -> bool:
    """Whether nothing is there to be read now."""
    return not select.select([sock], [], [], 0)[0]


@contextlib.contextmanager
def site_of(drain: str = "30s", **listener_keys: object) -> Iterator[Site]:
    with instance() as lb, socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(SECONDS)
        log = lb.directory / "access.log"
        lb.file["log"]["access"] = str(log)
        lb.file["lbcore"]["drain_timeout"] = drain
        lb.file["listener"][0].update(protocol="http", **listener_keys)
        lb.pool["backends"] = [f"127.0.0.1:{listener.getsockname()[1]}"]
        lb.pool["ejection"] = {"failures": 0}
        lb.write()
        lb.start()
        yield Site(lb, listener, log)
        assert lb.complaints() == []


@pytest.fixture(scope="module")
def shared() -> Iterator[Site]:
    """One instance for the tests that leave it as it was."""
    with site_of(tunnel_timeout="2s") as made:
        yield made


@pytest.fixture
def site(shared: Site) -> Iterator[Site]:
    """It, and afterwards no connection or place at the backend may be left."""
    yield shared
    until(lambda: shared.inflight() == 0, "no place at the backend taken")
    until(lambda: all(worker["connections"] == 0 for worker in shared.lb.serving()),
          "no connection left")


@pytest.fixture
def alone(request: pytest.FixtureRequest) -> Iterator[Site]:
    """An instance of the test's own."""
    with site_of(*request.param if hasattr(request, "param") else ()) as made:
        yield made


# ---- agreeing ----------------------------------------------------------------------------------

@pytest.mark.parametrize("protocol", [b"websocket", b"foo/2.1", b"chat, other"])
def test_any_protocol_is_passed_on_and_its_bytes_are_not_looked_at(
    site: Site, protocol: bytes,
) -> None:
    client = site.client(ASK % protocol)
    server, head = site.accept()
    with client, server:
        asked = fields(head)
        assert asked["upgrade"].encode() == protocol
        assert asked["connection"].lower() == "upgrade"
        assert asked["sec-websocket-key"] == "a"
        assert "keep-alive" not in asked
        server.sendall(AGREE % protocol)
        told = fields(read_head(client))
        assert told["upgrade"].encode() == protocol and told["connection"].lower() == "upgrade"
        assert told["sec-websocket-accept"] == "b"
        data = bytes(range(256)) + b"GET / HTTP/1.1\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"
        client.sendall(data)
        assert read(server, len(data)) == data
        server.sendall(data)
        assert read(client, len(data)) == data


def test_bytes_right_behind_the_request_and_right_behind_the_101_come_through(site: Site) -> None:
    client = site.client(ASK % b"websocket" + b"early")
    server, _ = site.accept()
    with client, server:
        server.sendall(AGREE % b"websocket" + b"at once")
        read_head(client)
        assert read(client, 7) == b"at once"
        assert read(server, 5) == b"early"
        client.sendall(b", and late")
        assert read(server, 10) == b", and late"


@pytest.mark.parametrize("early", [4096, 60_000, 300_000])
def test_many_bytes_before_the_answer_come_through_in_order(site: Site, early: int) -> None:
    data = bytes(i % 251 for i in range(early))
    client = site.client(ASK % b"websocket" + data)
    server, _ = site.accept()
    with client, server:
        server.sendall(AGREE % b"websocket" + data)
        server.shutdown(socket.SHUT_WR)
        client.shutdown(socket.SHUT_WR)
        read_head(client)
        assert read(client, early) == data and client.recv(1) == b""
        assert read(server, early) == data and server.recv(1) == b""


def test_a_101_that_comes_byte_by_byte_is_one(site: Site) -> None:
    client = site.client(ASK % b"websocket")
    server, _ = site.accept()
    with client, server:
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in AGREE % b"websocket" + b"tail":
            server.sendall(bytes([byte]))
        assert read_head(client).startswith(b"HTTP/1.1 101 ")
        assert read(client, 4) == b"tail"


def test_interim_answer_before_the_101_is_passed_on(site: Site) -> None:
    client = site.client(ASK % b"websocket")
    server, _ = site.accept()
    with client, server:
        server.sendall(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + AGREE % b"websocket")
        assert read_head(client).startswith(b"HTTP/1.1 103 ")
        assert read_head(client).startswith(b"HTTP/1.1 101 ")


def test_upgrade_behind_other_requests_of_a_connection_works(site: Site) -> None:
    client = site.client(b"GET /first HTTP/1.1\r\nHost: test\r\n\r\n" + ASK % b"websocket" + b"up")
    server, head = site.accept()
    with client, server:
        assert head.startswith(b"GET /first ")
        server.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        read_head(client)
        assert read(client, 2) == b"ok"
        server2, head = site.accept()       # a connection of its own
        with server2:
            assert head.startswith(b"GET /chat ")
            server2.sendall(AGREE % b"websocket")
            read_head(client)
            assert read(server2, 2) == b"up"


# ---- not agreeing ------------------------------------------------------------------------------

def test_refused_upgrade_is_an_answer_like_any_other_and_the_connection_goes_on(
    site: Site,
) -> None:
    client = site.client(ASK % b"websocket" + b"GET /next HTTP/1.1\r\nHost: test\r\n\r\n")
    server, _ = site.accept()
    with client, server:
        server.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
        assert read_head(client).startswith(b"HTTP/1.1 403 ")
        assert read(client, 2) == b"no"
        head = read_head(server)                # on the same connection: it was read to its end
        assert head.startswith(b"GET /next ")
        server.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
        assert read_head(client).startswith(b"HTTP/1.1 204 ")


def test_101_that_nobody_asked_for_is_a_bad_answer(site: Site) -> None:
    client = site.client(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
    server, _ = site.accept()
    with client, server:
        server.sendall(AGREE % b"websocket" + b"unasked")
        assert read_head(client).startswith(b"HTTP/1.1 502 ")


@pytest.mark.parametrize("ask", [
    b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIA",
    b"Connection: Upgrade\r\nUpgrade: h2c",
    b"Connection: Upgrade\r\nUpgrade: H2C",
    b"Connection: Upgrade\r\nUpgrade: websocket, h2c",
    b"Connection: Upgrade\r\nUpgrade: foo\r\nUpgrade: h2c",
    b"Connection: Upgrade\r\nUpgrade: h2c\t",
], ids=["with settings", "alone", "upper case", "in a list", "in a second line", "with a tab"])
def test_h2c_is_not_passed_on(site: Site, ask: bytes) -> None:
    client = site.client(b"GET / HTTP/1.1\r\nHost: test\r\n" + ask + b"\r\n\r\n")
    server, head = site.accept()
    with client, server:
        assert b"h2c" not in head.lower() and b"http2-settings" not in head.lower()
        server.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n"
                       b"Upgrade: h2c\r\n\r\n")
        answer = read_head(client)
        assert b"101" not in answer.split(b"\r\n")[0] or b"h2c" not in answer


@pytest.mark.parametrize("head", [
    b"GET / HTTP/1.0\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\n\r\n",
], ids=["HTTP/1.0", "not named by Connection", "to nothing"])
def test_what_is_no_upgrade_is_not_passed_on_as_one(site: Site, head: bytes) -> None:
    client = site.client(head)
    server, asked = site.accept()
    with client, server:
        assert "upgrade" not in fields(asked)
        assert fields(asked).get("connection", "").lower() != "upgrade"
        server.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
        read_head(client)


@pytest.mark.parametrize(("framing", "body"), [
    (b"Content-Length: 4", b"body"), (b"Transfer-Encoding: chunked", b"4\r\nbody\r\n0\r\n\r\n")])
def test_request_with_a_body_is_passed_on_without_its_upgrade(
    site: Site, framing: bytes, body: bytes,
) -> None:
    client = site.client(b"POST / HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\n"
                         b"Upgrade: websocket\r\n" + framing + b"\r\n\r\n" + body)
    server, asked = site.accept()
    with client, server:
        assert "upgrade" not in fields(asked)
        assert read(server, 4) == b"body"
        server.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
        assert read_head(client).startswith(b"HTTP/1.1 204 ")


def test_tunnel_takes_a_place_at_its_backend_until_it_ends() -> None:
    with site_of() as site:
        address, = site.lb.pool["backends"]
        site.lb.pool.update(backends=[{"address": address, "max_connections": 1}],
                            queue_timeout="20s")
        site.lb.write()
        site.lb.admin.reload()
        client, server = site.tunnel()
        waits = site.client(b"GET /waits HTTP/1.1\r\nHost: test\r\n\r\n")
        until(lambda: site.lb.status()["pools"][0]["waiting"] == 1, "it in the queue")
        assert not select.select([site.listener], [], [], 0)[0]
        client.close()
        server.close()
        server, head = site.accept()
        with waits, server:
            assert head.startswith(b"GET /waits ")
            server.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
            assert read_head(waits).startswith(b"HTTP/1.1 204 ")


# ---- ending ------------------------------------------------------------------------------------

def test_half_close_is_passed_on_each_way(site: Site) -> None:
    client, server = site.tunnel()
    with client, server:
        client.sendall(b"last words")
        client.shutdown(socket.SHUT_WR)
        assert read(server, 10) == b"last words" and server.recv(1) == b""
        server.sendall(b"answer")
        assert read(client, 6) == b"answer" and silent(client)
        server.close()
        assert client.recv(1) == b""


@pytest.mark.parametrize("who", ["client", "server"])
def test_reset_is_passed_on(site: Site, who: str) -> None:
    client, server = site.tunnel()
    gone, other = (client, server) if who == "client" else (server, client)
    with other:
        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        gone.close()
        with pytest.raises(ConnectionResetError):
            other.recv(1)


def test_silence_of_both_ends_ends_it(site: Site) -> None:
    client, server = site.tunnel()
    with client, server:
        for end in (client, server):
            with contextlib.suppress(ConnectionResetError):
                assert end.recv(1) == b""
    assert site.line(tunnel=True, reason="tunnel_idle")["status"] == 101


@pytest.mark.parametrize("who", ["client", "server"])
def test_one_end_that_speaks_keeps_it_though_the_other_is_silent(site: Site, who: str) -> None:
    client, server = site.tunnel()
    speaker, listener = (client, server) if who == "client" else (server, client)
    with client, server:
        begin = time.monotonic()
        while time.monotonic() < begin + 4.5:       # tunnel_timeout is 2 s: the claim is about time
            speaker.sendall(b"x")
            assert read(listener, 1) == b"x"
            time.sleep(0.2)


def test_timeouts_of_requests_do_not_concern_a_tunnel() -> None:
    with site_of(tunnel_timeout="0", read_timeout="1s", first_byte_timeout="1s",
                 send_timeout="1s", keepalive_timeout="1s", head_timeout="1s",
                 body_timeout="1s", total_timeout="1s") as site:
        client, server = site.tunnel()
        with client, server:
            assert not select.select([client, server], [], [], 2.5)[0]
            client.sendall(b"still")
            assert read(server, 5) == b"still"


# ---- stopping and changing ---------------------------------------------------------------------

def test_stop_waits_for_tunnels_and_they_work_until_they_end(alone: Site) -> None:
    client, server = alone.tunnel()
    with client, server:
        alone.lb.signal(signal.SIGTERM)
        alone.lb.wait_for("worker.draining")
        client.sendall(b"still")
        assert read(server, 5) == b"still"
        server.sendall(b"here")
        assert read(client, 4) == b"here"
        assert alone.lb.process is not None and alone.lb.process.poll() is None
    assert alone.lb.exit_code() == 0
    assert alone.line(tunnel=True)["status"] == 101


@pytest.mark.parametrize("alone", [["1s"]], indirect=True)
def test_stop_ends_tunnels_that_outlast_the_drain_timeout(alone: Site) -> None:
    client, server = alone.tunnel()
    with client, server:
        alone.lb.signal(signal.SIGTERM)
        for end in (client, server):
            with contextlib.suppress(ConnectionResetError):
                assert end.recv(1) == b""
        assert alone.lb.exit_code() == 0
    assert alone.line(tunnel=True)["reason"] == "shutdown"


def test_tunnel_outlives_reloads_that_take_its_backend_away(alone: Site) -> None:
    client, server = alone.tunnel()
    with client, server, socket.create_server(("127.0.0.1", 0)) as another:
        alone.lb.pool["backends"] = [f"127.0.0.1:{another.getsockname()[1]}"]
        alone.lb.write()
        alone.lb.admin.reload()
        client.sendall(b"still")
        assert read(server, 5) == b"still"
        server.sendall(b"here")
        assert read(client, 4) == b"here"


# ---- what is said of it ------------------------------------------------------------------------

def test_line_comes_at_the_end_with_the_bytes_of_both_directions(site: Site) -> None:
    client, server = site.tunnel(b"line")
    with client, server:
        client.sendall(b"u" * 1000)
        assert read(server, 1000)
        server.sendall(b"d" * 200_000)
        assert len(read(client, 200_000)) == 200_000
        assert site.inflight() == 1
        before = len(site.log.read_text().splitlines())
    until(lambda: len(site.log.read_text().splitlines()) > before)
    line = json.loads(site.log.read_text().splitlines()[-1])
    assert line["tunnel"] is True and line["status"] == 101
    assert line["target"] == "/chat"
    assert 1000 <= line["bytes_in"] < 1400 and 200_000 <= line["bytes_out"] < 200_400, line


def test_refused_upgrade_has_a_line_without_a_tunnel(site: Site) -> None:
    client = site.client(ASK % b"refused")
    server, _ = site.accept()
    with client, server:
        server.sendall(b"HTTP/1.1 418 No\r\nContent-Length: 0\r\n\r\n")
        read_head(client)
    assert "tunnel" not in site.line(status=418)
