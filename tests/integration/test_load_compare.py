"""The comparison's own origin and WebSocket client, which everything there is measured with."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtests.compare.client import Answer, ask, request
from loadtests.compare.compiled import compiled
from loadtests.compare.echo import run_echo, upgraded
from loadtests.compare.procs import Processes, free_port, wait_until
from loadtests.compare.wrk import InvalidSample

pytestmark = pytest.mark.timeout(240)       # the first one compiles what it needs
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n"


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of the origin."""
    compiled("_own")
    port = free_port()
    with Processes() as processes:
        running = processes.start(
            "own", [sys.executable, "-m", "loadtests.compare.own", "--port", str(port)],
            [0], tmp_path_factory.mktemp("own"), cwd=Path(__file__).parents[2])

        def up() -> bool:
            running.check()
            return ask(port, "/tiny") == Answer(200, 2)

        wait_until(up, 30, "the start of the origin")
        yield port


def test_a_body_is_read_to_its_end_before_it_is_answered(own: int) -> None:
    whole = request("/own/post", body=16 * 1024)
    with socket.create_connection(("127.0.0.1", own), 20) as sock:
        sock.sendall(whole[:-1])
        sock.settimeout(0.1)
        with pytest.raises(TimeoutError):
            sock.recv(1)
        sock.settimeout(20)
        sock.sendall(whole[-1:])
        assert sock.recv(1000) == ANSWER + b"\r\nok"


def test_requests_in_one_packet_are_answered_one_by_one(own: int) -> None:
    with socket.create_connection(("127.0.0.1", own), 20) as sock:
        sock.sendall(request("/own/a", body=3) * 2 + request("/own/b", close=True))
        received = b""
        while part := sock.recv(1000):
            received += part
    assert received == 2 * (ANSWER + b"\r\nok") + ANSWER + b"Connection: close\r\n\r\nok"


def test_messages_are_echoed_whole_and_unmasked(own: int) -> None:
    with upgraded(own, "/own/chat") as sock:
        sock.sendall(bytes([0x81, 0x80 | 3, 1, 2, 3, 4, *(a ^ b for a, b in zip(
            b"abc", (1, 2, 3), strict=True))]))
        assert sock.recv(100) == b"\x81\x03abc"


def test_every_connection_of_the_client_has_its_echoes(own: int) -> None:
    result = run_echo(own, "/own/chat", connections=8, seconds=0.05)
    assert result.messages >= 8 and 0 < result.p50_us <= result.p99_us


@pytest.mark.parametrize(("spoil", "says"), [
    (lambda sock: sock.sendall(b"\x82\x20" + b"?" * 32), "not what was sent"),
    (lambda sock: sock.shutdown(socket.SHUT_WR), "closed a connection"),
])
def test_a_wrong_or_missing_echo_fails_the_client(spoil, says: str) -> None:  # type: ignore[no-untyped-def]
    ours, theirs = socket.socketpair()
    with ours, theirs:
        thread = threading.Thread(target=lambda: (theirs.recv(38), spoil(theirs)))
        thread.start()
        with pytest.raises(ConnectionError, match=says):
            compiled("_echo").Echoes([ours.fileno()], 1000).run(1.0)
        thread.join()


def test_a_refused_handshake_is_no_sample() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        def refuse() -> None:
            sock, _ = server.accept()
            with sock:
                sock.recv(1000)
                sock.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

        thread = threading.Thread(target=refuse)
        thread.start()
        with pytest.raises(InvalidSample, match="403 Forbidden"):
            run_echo(server.getsockname()[1], "/own/chat", connections=1, seconds=0.01)
        thread.join()
