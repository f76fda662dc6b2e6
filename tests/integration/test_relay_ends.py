"""How connections end: what one side does, the other side sees."""

from __future__ import annotations

import contextlib
import select
import socket

import pytest

from lbcore._scoreboard import BackendState
from tests.support.relay_lab import (
    PATIENCE,
    Lab,
    block,
    ending,
    fill,
    is_quiet,
    pool,
    read_exactly,
    read_to_end,
    reset,
    until,
)

KINDS = [("tcp", "tcp"), ("unix", "unix")]


# ---- half-close ----------------------------------------------------------------------------------

@pytest.mark.parametrize(("client_kind", "server_kind"), KINDS)
def test_half_close_of_the_client_is_passed_on_and_answers_still_arrive(
        lab: Lab, client_kind: str, server_kind: str) -> None:
    origin = lab.origin(server_kind)
    lab.serve(pool(origin), kind=client_kind)
    client, server = lab.link(origin)
    client.sendall(b"question")
    client.shutdown(socket.SHUT_WR)
    assert read_to_end(server) == (b"question", "eof")
    for _ in range(3):
        server.sendall(b"answer")
        assert read_exactly(client, 6) == b"answer"
    assert lab.seat["connections"] == 1
    server.close()
    assert ending(client) == "eof"
    lab.expect_ended(normal=1)


@pytest.mark.parametrize(("client_kind", "server_kind"), KINDS)
def test_half_close_of_the_server_is_passed_on_and_the_client_may_go_on(
        lab: Lab, client_kind: str, server_kind: str) -> None:
    origin = lab.origin(server_kind)
    lab.serve(pool(origin), kind=client_kind)
    client, server = lab.link(origin)
    server.sendall(b"greeting")
    server.shutdown(socket.SHUT_WR)
    assert read_to_end(client) == (b"greeting", "eof")
    for _ in range(3):
        client.sendall(b"more")
        assert read_exactly(server, 4) == b"more"
    client.close()
    assert ending(server) == "eof"
    lab.expect_ended(normal=1)


def test_half_close_in_the_middle_of_a_stream_comes_behind_all_of_it(lab: Lab) -> None:
    origin = lab.origin()
    lab.serve(pool(origin))
    client, server = lab.link(origin)
    sent = fill(client)
    client.shutdown(socket.SHUT_WR)
    got, how = read_to_end(server)
    assert (len(got), how) == (sent, "eof")
    server.sendall(b"late answer")
    server.close()
    assert read_to_end(client) == (b"late answer", "eof")
    lab.expect_ended(normal=1)


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_a_client_that_sends_and_shuts_down_at_once_is_served(lab: Lab, kind: str) -> None:
    origin = lab.origin()
    lab.serve(pool(origin), kind=kind)
    for _ in range(40):     # so often that the worker starts to look for early data
        client = lab.connect(b"ping")
        client.shutdown(socket.SHUT_WR)
        server = origin.accept()
        assert read_to_end(server) == (b"ping", "eof")
        server.sendall(b"pong")
        server.close()
        assert read_to_end(client) == (b"pong", "eof")
    lab.expect_ended(normal=40)


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_what_a_client_sent_before_it_closed_arrives(lab: Lab, kind: str) -> None:
    """Senders of log lines connect, write and close without waiting for anything."""
    origin = lab.origin()
    lab.serve(pool(origin), kind=kind)
    for number in range(40):
        client = lab.connect(b"line %d" % number)
        client.close()
        server = origin.accept()
        assert read_to_end(server) == (b"line %d" % number, "eof")
        server.close()
    lab.expect_nothing_held()


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_what_a_client_sent_before_it_closed_arrives_even_when_it_had_to_wait_for_a_backend(
        lab: Lab, kind: str) -> None:
    origin = lab.origin()
    lab.serve(pool(origin), kind=kind)
    lab.pretend(0, BackendState.STATE_DOWN)
    lines = [b"first" * 10, b"second" * 10, b"third" * 10]
    for line in lines:
        lab.connect(line).close()
    until(lambda: lab.board.pool(0)["waiting"] == len(lines))
    lab.pretend(0, BackendState.STATE_UP)
    for line in lines:
        assert read_to_end(origin.accept()) == (line, "eof")


def test_server_that_speaks_first_is_heard(lab: Lab) -> None:
    origin = lab.origin()
    lab.serve(pool(origin))
    for _ in range(20):
        client, server = lab.link(origin)
        server.sendall(b"220 ready\r\n")
        assert read_exactly(client, 11) == b"220 ready\r\n"
        client.sendall(b"QUIT\r\n")
        assert read_exactly(server, 6) == b"QUIT\r\n"
        server.close()
        client.close()
    lab.expect_ended(normal=20)


def test_server_that_greets_and_closes_is_heard(lab: Lab) -> None:
    origin = lab.origin()
    lab.serve(pool(origin))
    for _ in range(20):
        client, server = lab.link(origin)
        server.sendall(b"busy, come back later")
        server.close()
        assert read_to_end(client) == (b"busy, come back later", "eof")
        client.close()
    lab.expect_ended(normal=20)


def test_empty_connections_end_normally(lab: Lab) -> None:
    origin = lab.origin()
    lab.serve(pool(origin))
    for number in range(20):
        client, server = lab.link(origin)
        first, second = (client, server) if number % 2 else (server, client)
        first.close()
        assert ending(second) == "eof"
        second.close()
    lab.expect_ended(normal=20)
    lab.expect_nothing_held()


def test_both_ends_closing_at_once_is_normal(lab: Lab) -> None:
    origin = lab.origin()
    lab.serve(pool(origin))
    for _ in range(20):
        client, server = lab.link(origin)
        client.shutdown(socket.SHUT_WR)
        server.shutdown(socket.SHUT_WR)
        assert ending(client) == ending(server) == "eof"
        client.close()
        server.close()
    lab.expect_ended(normal=20)


# ---- reset ---------------------------------------------------------------------------------------

def test_reset_of_the_client_reaches_the_server_as_a_reset(lab: Lab) -> None:
    origin = lab.origin()
    lab.serve(pool(origin))
    for _ in range(20):
        client, server = lab.link(origin)
        client.sendall(b"hello")
        assert read_exactly(server, 5) == b"hello"
        reset(client)
        assert ending(server) == "reset"
    lab.expect_ended(client_reset=20)
    lab.expect_nothing_held()


def test_reset_of_the_server_reaches_the_client_as_a_reset(lab: Lab) -> None:
    origin = lab.origin()
    lab.serve(pool(origin))
    for _ in range(20):
        client, server = lab.link(origin)
        server.sendall(b"hello")
        assert read_exactly(client, 5) == b"hello"
        reset(server)
        assert ending(client) == "reset"
    lab.expect_ended(server_reset=20)
    lab.expect_nothing_held()


@pytest.mark.parametrize("length", [1, 1000, 20_000])
def test_an_answer_cut_by_a_reset_never_looks_complete(lab: Lab, length: int) -> None:
    """Bytes and reset come so close together that one event tells both."""
    origin = lab.origin()
    lab.serve(pool(origin))
    for _ in range(30):
        client, server = lab.link(origin)
        client.sendall(b"question")
        assert read_exactly(server, 8) == b"question"
        with lab.asleep():
            server.sendall(b"x" * length)
            reset(server)
        assert read_to_end(client)[1] == "reset"
    lab.expect_ended(server_reset=30)


@pytest.mark.parametrize("length", [1, 1000, 20_000])
def test_a_request_cut_by_a_reset_never_looks_complete(lab: Lab, length: int) -> None:
    origin = lab.origin()
    lab.serve(pool(origin))
    for _ in range(30):
        client, server = lab.link(origin)
        with lab.asleep():
            client.sendall(b"x" * length)
            reset(client)
        assert read_to_end(server)[1] == "reset"
    lab.expect_ended(client_reset=30)


@pytest.mark.parametrize("size", [0, 1 << 30])
def test_reset_in_the_middle_of_a_stream_reaches_the_other_end(lab: Lab, size: int) -> None:
    """With nothing and with everything in between filled up."""
    origin = lab.origin()
    lab.serve(pool(origin))
    client, server = lab.link(origin)
    fill(client, size)
    reset(client)
    assert read_to_end(server)[1] == "reset"
    client, server = lab.link(origin)
    fill(server, size)
    reset(server)
    assert read_to_end(client)[1] == "reset"
    lab.expect_ended(client_reset=1, server_reset=1)
    lab.expect_nothing_held()


def test_a_client_that_leaves_with_unread_data_resets_the_server(lab: Lab) -> None:
    origin = lab.origin()
    lab.serve(pool(origin))
    client, server = lab.link(origin)
    server.sendall(b"never read")
    assert select.select([client], [], [], PATIENCE)[0]
    client.close()      # the kernel sends RST: bytes were left unread
    assert read_to_end(server)[1] == "reset"
    lab.expect_ended(client_reset=1)


def test_a_client_that_resets_while_the_server_sends_ends_the_connection(lab: Lab) -> None:
    origin = lab.origin()
    lab.serve(pool(origin))
    client, server = lab.link(origin)
    fill(server)
    reset(client)
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        while True:
            server.sendall(b"x" * 65536)
    lab.expect_ended(client_reset=1)
    lab.expect_nothing_held()


# ---- a server that does not listen to the end ----------------------------------------------------

@pytest.mark.parametrize("answer", [b"too large", b"a" * 60_000])
def test_answer_of_a_server_that_closes_while_the_client_still_sends_arrives(
        lab: Lab, answer: bytes) -> None:
    """As with 413: the server answers and closes with bytes unread, which resets."""
    origin = lab.origin()
    lab.serve(pool(origin))
    for _ in range(10):
        client, server = lab.link(origin)
        client.sendall(b"x" * 100_000)
        assert read_exactly(server, 1000) == b"x" * 1000
        server.sendall(answer)
        server.close()
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            for _ in range(50):
                client.sendall(b"x" * 10_000)
        assert read_to_end(client)[0] == answer
    until(lambda: lab.seat["connections"] == 0)


def test_a_client_that_goes_on_sending_to_a_server_that_has_closed_is_ended_at_once(
        lab: Lab) -> None:
    """The server's end was passed on already when the reset comes: nothing is left to wait for."""
    origin = lab.origin()
    lab.serve(pool(origin))
    for _ in range(10):
        client, server = lab.link(origin)
        server.sendall(b"that is all")
        server.close()
        assert read_to_end(client) == (b"that is all", "eof")
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            while True:
                client.sendall(b"x" * 1_000_000)
    lab.expect_ended(server_reset=10)
    lab.expect_nothing_held()


def test_a_reset_behind_the_orderly_end_of_a_server_ends_the_connection_once_all_is_read(
        lab: Lab) -> None:
    """Nobody takes what the client sends any more, but the server's stream was complete."""
    origin = lab.origin()
    lab.serve(pool(origin))
    client, server = lab.link(origin)
    sent = block(lab, server)
    server.sendall(b"the end")
    server.close()
    client.sendall(b"x" * 100)      # answered with a reset
    until(lambda: lab.board.listener_totals(0)["bytes_up"] == 100)
    lab.let_turn()
    got, how = read_to_end(client)
    assert (len(got), got[-7:], how) == (sent + 7, b"the end", "eof")
    lab.expect_ended(server_reset=1)


def test_a_stream_that_a_server_cannot_finish_is_never_cut_silently(lab: Lab) -> None:
    """The server has closed, the client has much to read still, and what it sends resets."""
    origin = lab.origin()
    lab.serve(pool(origin))
    client, server = lab.link(origin)
    sent = fill(server)
    server.close()
    with contextlib.suppress(ConnectionResetError, BrokenPipeError):
        client.sendall(b"x" * 100)
    got, how = read_to_end(client)
    assert len(got) == sent or how == "reset"
    until(lambda: lab.seat["connections"] == 0)


# ---- urgent data ---------------------------------------------------------------------------------

def test_urgent_data_does_not_stall_messages(lab: Lab) -> None:
    origin = lab.origin()
    lab.serve(pool(origin))
    client, server = lab.link(origin)
    for sender, receiver in ((client, server), (server, client)):
        for _ in range(10):
            sender.sendall(b"before")
            sender.send(b"!", socket.MSG_OOB)
            sender.sendall(b"after")
            assert read_exactly(receiver, 11) == b"beforeafter"
    assert is_quiet(client)


def test_urgent_data_does_not_stall_a_stream(lab: Lab) -> None:
    origin = lab.origin()
    lab.serve(pool(origin))
    client, server = lab.link(origin)
    for sender, receiver in ((client, server), (server, client)):
        for _ in range(10):
            client_data = b"s" * 300_000
            sent = 0
            while sent < len(client_data):      # in steps that the receiver keeps up with
                part = client_data[sent:sent + 100_000]
                sender.sendall(part)
                assert read_exactly(receiver, len(part)) == part
                sent += len(part)
            sender.sendall(b"a" * 100_000)
            sender.send(b"!", socket.MSG_OOB)
            sender.sendall(b"b" * 100_000)
            assert read_exactly(receiver, 200_000) == b"a" * 100_000 + b"b" * 100_000
