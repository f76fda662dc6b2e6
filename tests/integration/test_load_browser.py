"""The browser of the shop's customers notices what a broken balancer could do to it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException

import pytest

from loadtests.scenarios.shop.browser import Browser, Unexpected
from loadtests.scenarios.wire import Life, WrongAnswer

HEAD = b"HTTP/1.1 200 OK\r\nX-Shop-Instance: 2.1\r\nContent-Length: "


@contextmanager
def shop(*answers: bytes) -> Iterator[tuple[Browser, list[bytes]]]:
    """A browser before somebody who gives these answers on one connection and closes it then; and
    what he was asked."""
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)

        def serve() -> None:
            sock, _ = server.accept()
            with sock:
                for answer in answers:
                    asked.append(sock.recv(65536))
                    sock.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        browser = Browser(server.getsockname(), "10.1.2.3", seconds=5)
        try:
            yield browser, asked
        finally:
            browser.close()
            thread.join(10)


def test_answers_come_on_one_connection_and_tell_who_gave_them() -> None:
    with shop(HEAD + b"2\r\n\r\nhi", HEAD + b"0\r\n\r\n") as (browser, asked):
        page = browser.ask("GET", "/")
        assert (page.body, page.who, browser.who) == (b"hi", Life(2, 1), Life(2, 1))
        assert browser.ask("GET", "/again").body == b""
    assert all(b"\r\nX-Forwarded-For: 10.1.2.3\r\n" in one for one in asked)


def test_cookies_are_kept_sent_back_and_dropped() -> None:
    first = (b"HTTP/1.1 302 Found\r\nX-Shop-Instance: 1.1\r\n"
             b"Set-Cookie: lbcore=abc; Path=/; HttpOnly\r\n"
             b"Set-Cookie: csrftoken=t; Max-Age=99\r\nContent-Length: 0\r\n\r\n")
    second = HEAD + b"0\r\nSet-Cookie: lbcore=; Max-Age=0\r\n\r\n"
    with shop(first, second) as (browser, asked):
        browser.ask("GET", "/", expect=(302,))
        browser.post("/basket", b"article=1")
        assert browser.cookies == {"csrftoken": "t"}
    assert b"\r\nCookie: lbcore=abc; csrftoken=t\r\n" in asked[1]
    assert b"\r\nX-CSRFToken: t\r\n" in asked[1]


@pytest.mark.parametrize(("answer", "error"), [
    (HEAD + b"9\r\n\r\ncut", HTTPException),
    (HEAD + b"9\r\n", HTTPException),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", WrongAnswer),
    (b"", OSError),
    (b"nonsense\r\n\r\n", HTTPException),
    (b"HTTP/1.1 200 OK\r\nX-Shop-Instance: who?\r\nContent-Length: 0\r\n\r\n", WrongAnswer),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel", HTTPException),
], ids=["cut body", "cut head", "no instance", "nothing", "no HTTP", "instance", "cut chunk"])
def test_an_answer_that_is_not_whole_is_an_error(answer: bytes, error: type[Exception]) -> None:
    with shop(answer) as (browser, _):
        with pytest.raises(error):
            browser.ask("GET", "/")
        assert browser.who is None


def test_a_status_that_should_not_be_is_an_error_with_the_one_who_gave_it() -> None:
    answer = b"HTTP/1.1 503 No\r\nX-Shop-Instance: 2.1\r\nContent-Length: 2\r\n\r\nno"
    with shop(answer) as (browser, _):
        with pytest.raises(Unexpected, match="GET /: 503 b'no'"):
            browser.ask("GET", "/")
        assert browser.who == Life(2, 1)


def test_a_kept_connection_that_was_closed_without_a_word_is_an_error() -> None:
    with shop(HEAD + b"0\r\n\r\n") as (browser, _):
        browser.ask("GET", "/")
        with pytest.raises(OSError):
            browser.ask("GET", "/")
