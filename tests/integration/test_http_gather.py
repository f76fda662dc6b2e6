"""Long bodies are taken from the kernel in longer pieces; nobody waits for the sake of it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.http_lab import Ended, HttpLab, Wire, blob, reply, request
from tests.support.relay_lab import is_quiet, pool

GET = request()
SIZE = 4 << 20
DATA = blob(SIZE)
WAYS: dict[str, dict[str, Any]] = {
    "absorbed": {},
    "streamed": {"buffer_response": False},
}


def begun(web: HttpLab, client: Wire, server: Wire, size: int) -> None:
    """A body of SIZE bytes of which so many have come to the client."""
    server.request()
    server.say(reply(DATA)[:-SIZE], DATA[:size])
    client.head()
    assert client.exactly(size) == DATA[:size]


@pytest.mark.parametrize("size", [1, 70_000, 300_000, SIZE - 1000, SIZE - 1])
@pytest.mark.parametrize("way", WAYS)
def test_what_a_backend_said_before_a_pause_comes_within_the_pause(
    web: HttpLab, way: str, size: int,
) -> None:
    origin = web.origin()
    web.web(pool(origin), route=WAYS[way])
    client = web.client(GET)
    server = web.take(origin)
    begun(web, client, server, size)
    while size < SIZE:                  # also behind the first pause, and to the very end
        part = DATA[size:size + (SIZE - size + 1) // 2]
        server.say(part)
        assert client.exactly(len(part)) == part
        size += len(part)
    web.expect_http(ok=1)


@pytest.mark.parametrize("way", WAYS)
def test_a_short_answer_behind_a_long_one_is_not_kept_back(web: HttpLab, way: str) -> None:
    origin = web.origin()
    web.web(pool(origin), route=WAYS[way])
    client = web.client(GET)
    server = web.take(origin)
    for _ in range(3):
        server.request()
        server.say(reply(DATA))
        assert client.answer().body == DATA
        client.say(GET)
        server.request()                # on the connection that the long one came by
        server.say(reply(b"short"))
        assert client.answer().body == b"short"
        client.say(GET)
    server.request()
    server.say(reply(b"last"))
    assert client.answer().body == b"last"
    assert is_quiet(server.sock)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", [300_000, SIZE - 1000])
def test_a_long_answer_that_is_cut_is_cut_where_it_was(web: HttpLab, way: str, size: int) -> None:
    origin = web.origin()
    web.web(pool(origin), route=WAYS[way])
    client = web.client(GET)
    server = web.take(origin)
    begun(web, client, server, size)
    server.say(DATA[size:size + 500])
    assert client.exactly(500) == DATA[size:size + 500]
    server.sock.close()
    with pytest.raises(Ended):
        client.more()
    web.expect_http(answer_cut=1)


def test_a_long_answer_that_pauses_for_too_long_is_cut(web: HttpLab) -> None:
    origin = web.origin()
    web.web(pool(origin), route={"read_timeout_ms": 300})
    client = web.client(GET)
    begun(web, client, web.take(origin), 300_000)
    with pytest.raises(Ended):
        client.more()
    web.expect_http(answer_cut=1)
