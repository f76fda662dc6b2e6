"""The client of the load scenarios notices everything that a broken balancer could do to it."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from loadtests.scenarios.conversation import Address, Conversation, Ended
from loadtests.scenarios.echo import Echo
from loadtests.scenarios.wire import ANSWER, QUESTION, Life, WrongAnswer

Peer = Callable[[socket.socket], None]


@contextmanager
def other_side(behave: Peer) -> Iterator[Address]:
    """The address of somebody who treats one connection in his own way, and closes it then."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)

        def serve() -> None:
            sock, _ = server.accept()
            with sock, suppress(OSError):
                sock.settimeout(10)
                behave(sock)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()
        finally:
            thread.join(10)


def take(sock: socket.socket) -> tuple[int, bytes]:
    """One question: number and payload."""
    length, number = QUESTION.unpack(sock.recv(QUESTION.size, socket.MSG_WAITALL))
    return number, sock.recv(length, socket.MSG_WAITALL) if length else b""


def answer(sock: socket.socket, backend: int = 1, *, spoil: int = 0, shift: int = 0) -> None:
    """A right answer to the next question, but for what is ``spoil``ed or ``shift``ed."""
    number, payload = take(sock)
    body = bytes([payload[0] ^ spoil]) + payload[1:]
    sock.sendall(ANSWER.pack(len(body), number + shift, backend, 1) + body)


def reset(sock: socket.socket) -> None:
    """Makes closing the connection a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def test_a_right_answer_tells_who_gave_it_and_closing_waits_for_the_other_side() -> None:
    def behave(sock: socket.socket) -> None:
        answer(sock, 3)
        assert sock.recv(1) == b""

    with other_side(behave) as address:
        one = Conversation(address)
        assert one.open(100) == 100
        assert one.who == Life(3, 1) and one.is_open
        assert one.close() == 0
        assert not one.is_open


@pytest.mark.parametrize(("behave", "error", "says"), [
    (lambda sock: answer(sock, spoil=1), WrongAnswer, "wrong from byte 0"),
    (lambda sock: answer(sock, shift=1), WrongAnswer, "of number"),
    (take, Ended, "ended after 0 of 16"),
    (lambda sock: (take(sock), sock.sendall(b"x" * 5)), Ended, "ended after 5 of 16"),
    (lambda sock: (take(sock), reset(sock)), ConnectionResetError, None),
], ids=["payload", "number", "end", "early end", "reset"])
def test_a_wrong_first_answer_is_a_failed_open(
    behave: Peer, error: type[Exception], says: str | None
) -> None:
    with other_side(behave) as address:
        one = Conversation(address)
        with pytest.raises(error, match=says):
            one.open(100)
        assert not one.is_open


def test_another_backend_on_the_same_connection_is_noticed() -> None:
    def behave(sock: socket.socket) -> None:
        answer(sock, 1)
        answer(sock, 2)

    with other_side(behave) as address:
        one = Conversation(address)
        one.open(10)
        with pytest.raises(WrongAnswer, match="began with b1#1, answered by b2#1"):
            one.exchange(10)


def test_bytes_that_nobody_asked_for_are_noticed_at_the_end() -> None:
    def behave(sock: socket.socket) -> None:
        answer(sock)
        sock.sendall(b"more")
        sock.recv(1)

    with other_side(behave) as address:
        one = Conversation(address)
        one.open(10)
        with pytest.raises(WrongAnswer, match="4 bytes or more"):
            one.close()
        assert not one.is_open


def test_an_answer_that_does_not_come_is_a_timeout() -> None:
    hold = threading.Event()

    def behave(sock: socket.socket) -> None:
        take(sock)
        hold.wait(10)

    with other_side(behave) as address:
        one = Conversation(address, seconds=0.05)
        with pytest.raises(TimeoutError):
            one.open(10)
        hold.set()


async def test_the_echo_backend_answers_pipelined_and_cut_questions() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Echo(2, 3), "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        both = QUESTION.pack(3, 7) + b"abc" + QUESTION.pack(0, 8)
        for byte in both:
            writer.write(bytes([byte]))
            await writer.drain()
        writer.write_eof()
        said = await asyncio.wait_for(reader.read(), 10)
        assert said == ANSWER.pack(3, 7, 2, 3) + b"abc" + ANSWER.pack(0, 8, 2, 3)
        writer.close()


async def test_the_echo_backend_ends_a_connection_that_makes_no_sense() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Echo(1, 1), "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"\xff" * QUESTION.size)
        assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()
