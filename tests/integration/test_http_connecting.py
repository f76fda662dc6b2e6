"""Backends that cannot be connected to: how long a request waits for them, and what it is told."""

from __future__ import annotations

import time

from tests.support.http_lab import HttpLab, Wire, echo_script, reply, request
from tests.support.relay_lab import pool

GET = request()


def test_a_connect_ends_at_its_timeout_and_not_with_the_whole_budget(web: HttpLab) -> None:
    """The client is told 504: nobody refused, somebody was too slow."""
    web.web(pool(web.blackhole(), connect_timeout_ms=200, connect_attempts=1,
                 connect_budget_ms=60_000))
    began = time.monotonic()
    answer = web.client().ask(GET)
    assert 0.19 < time.monotonic() - began < 20
    assert answer.status == 504
    web.expect_http(connect_timeout=1)
    assert web.backend()["timeouts"] == 1


def test_a_backend_that_does_not_answer_costs_its_timeout_and_another_serves(web: HttpLab) -> None:
    site = web.site(echo_script)
    web.web(pool(web.blackhole(), site.address, connect_timeout_ms=200, connect_attempts=2,
                 connect_budget_ms=60_000))
    for _ in range(4):          # not all of them begin with the one that answers
        began = time.monotonic()
        assert web.client().ask(GET).status == 200
        assert time.monotonic() - began < 20
    assert web.backend()["timeouts"] >= 1


def test_who_refuses_is_told_apart_from_who_is_slow(web: HttpLab) -> None:
    web.web(pool(web.refusing(), connect_attempts=2))
    assert web.client().ask(GET).status == 502
    web.expect_http(connect_failed=1)


def test_a_spent_budget_ends_a_connect(web: HttpLab) -> None:
    web.web(pool(web.blackhole(), connect_timeout_ms=60_000, connect_budget_ms=200))
    began = time.monotonic()
    assert web.client().ask(GET).status == 504
    assert 0.19 < time.monotonic() - began < 20
    web.expect_http(connect_timeout=1)


def test_each_backend_counts_the_requests_that_it_was_sent(web: HttpLab) -> None:
    """Second tries too; one that went again to the same backend counts once."""
    def busy(wire: Wire) -> bool:
        wire.request()
        wire.say(reply(b"", status="503 Busy"))
        return False                # it closes: the next request meets a connection that is gone

    web.web(pool(web.site(busy).address, web.site(echo_script).address),
            route={"retry_statuses": (503,)})
    client = web.client()
    while web.backend(0)["retries"] < 2:
        assert client.ask(GET).status == 200
    web.until_idle()
    first, second = web.backend(0), web.backend(1)
    assert first["requests"] == first["retries"] == sum(first["status"].values())
    assert second["requests"] == sum(second["status"].values())
