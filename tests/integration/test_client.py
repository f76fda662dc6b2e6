"""The Python client with a real lbcore: what it reads is true, what it changes happens."""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

import lbcore
from lbcore.client.models import Event, StreamState
from tests.support.http_load import HttpLoad
from tests.support.http_servers import Server, gunicorn, served
from tests.support.instance import PATIENCE, Instance, free_port, instance, until

TOKEN = secrets.token_hex(16)


@pytest.fixture(scope="module")
def servers() -> Iterator[list[Server]]:
    with served(gunicorn("gthread", "--threads=4")) as one, served(
            gunicorn("gthread", "--threads=4")) as two:
        yield [one, two]


@pytest.fixture(scope="module")
def box(servers: list[Server]) -> Iterator[Instance]:
    """One with an admin address over TCP, which wants a token."""
    with instance() as made:
        token = made.directory / "token"
        token.touch(0o600)
        token.write_text(TOKEN)
        made.file["listener"][0]["protocol"] = "http"
        made.file["admin"] = {"listen": f"127.0.0.1:{free_port()}", "token_file": "token"}
        made.pool["backends"] = [{"address": one.address, "name": name}
                                 for one, name in zip(servers, ("one", "two"), strict=True)]
        made.pool["health"] = {"type": "http", "path": "/echo", "interval": "200ms"}
        made.write()
        made.start()
        yield made


@pytest.fixture
def client(box: Instance) -> Iterator[lbcore.Client]:
    with lbcore.Client(box.config, token=TOKEN, timeout=PATIENCE) as made:
        yield made
        made.forget_changes()


def test_what_it_reads_is_what_there_is(box: Instance, client: lbcore.Client) -> None:
    status = client.status()
    assert (status.pid, status.state) == (box.pid, "running")
    assert [one.name for one in client.pools()] == ["main"]
    assert client.listeners()[0].bind == [f"127.0.0.1:{box.port}"]
    assert client.workers()[0].state == "serving"
    assert client.config().config["pool"]["main"]["health"]["type"] == "http"
    assert 'name = "two"' in client.config_toml()
    assert client.openapi()["openapi"].startswith("3.1")
    assert "lbcore_" in client.metrics()
    client.wait_healthy()
    assert client.ready()
    assert client.healthy()


def test_live_figures_follow_the_traffic(box: Instance, client: lbcore.Client) -> None:
    client.live()                    # counting begins
    with HttpLoad(box.address, each=1) as load:
        rate = until(lambda: client.live(window=5).total.requests_per_s, "a rate")
        assert rate > 0
        load.expect_no_failure()


def test_changes_are_in_force_when_they_return(
    box: Instance, client: lbcore.Client, servers: list[Server]
) -> None:
    pool = client.pool("main")
    pool.wait_healthy()
    with HttpLoad(box.address, each=2) as load:
        pool.retire("one")
        before = load.report().names.get(servers[0].address, 0)
        load.wait_for(30)
        assert load.report().names.get(servers[0].address, 0) - before <= 1   # told just before
        differences = client.changes().changes
        assert [(one.op, one.backend) for one in differences if one.op == "remove"] == [
            ("remove", "one")]
        assert client.forget_changes().forgotten >= 1
        until(lambda: load.report().names.get(servers[0].address, 0) > before + 1, "it is back")
        load.expect_no_failure()


def test_who_expects_another_plan_changes_nothing(client: lbcore.Client) -> None:
    seen = client.status().plan_version
    client.set_weight("main", "one", 5, expect=seen)
    with pytest.raises(lbcore.Stale):
        client.set_weight("main", "one", 7, expect=seen)
    assert client.backend_status("main", "one").weight == 5


def test_a_refused_reload_has_every_problem(box: Instance, client: lbcore.Client) -> None:
    box.write("[[listener]]\nname = 7\n")
    try:
        with pytest.raises(lbcore.Refused) as raised:
            client.reload()
    finally:
        box.write()
    assert len(raised.value.problems) > 1
    assert all(problem["file"] == str(box.config) for problem in raised.value.problems)


def test_a_wrong_token_reads_and_changes_nothing(box: Instance) -> None:
    stranger = lbcore.Client(box.config, token="guessed", timeout=PATIENCE)
    for ask in (stranger.status, stranger.reload, lambda: next(stranger.stream())):
        with pytest.raises(lbcore.Denied):
            ask()


def test_a_configuration_names_address_and_token(box: Instance) -> None:
    for source in (str(box.config), box.config):
        assert lbcore.Client(source, timeout=PATIENCE).status().config == str(box.config)
    with pytest.raises(lbcore.Denied):           # an address alone does not
        lbcore.Client(lbcore.Client(box.config).address, timeout=PATIENCE).status()


def test_a_stream_shows_a_change_as_it_happens(client: lbcore.Client) -> None:
    drained: Any = None
    with closing(client.stream(60)) as stream:
        for one in stream:
            if isinstance(one, StreamState):
                if drained is None:
                    drained = client.drain("main", "two")
                elif one.status.pools[0].backends[1].draining:
                    break


async def test_the_asynchronous_client_does_the_same(
    box: Instance, client: lbcore.Client
) -> None:
    there = lbcore.AsyncClient(box.config, token=TOKEN, timeout=PATIENCE)
    status, pools, live = await asyncio.gather(there.status(), there.pools(), there.live())
    assert (status.pid, pools[0].name) == (box.pid, "main")
    assert live.total is not None
    known = (await there.events()).last
    await there.drain("main", "two")
    async with asyncio.timeout(PATIENCE):
        async for event in there.follow(known):
            if event.event == "changed":
                break
    assert event.seq > known
    assert (await there.backend_status("main", "two")).draining


def test_who_follows_hears_of_an_upgrade_and_what_comes_after(client: lbcore.Client) -> None:
    heard: list[str] = []
    generation = client.status().generation
    with closing(client.follow()) as events:
        threading.Thread(target=client.upgrade).start()
        seen: list[int] = []
        for event in events:
            assert isinstance(event, Event)
            heard.append(event.event)
            seen.append(event.seq)
            if event.event == "upgraded":
                break
    assert seen == sorted(set(seen))
    assert "upgrade.exec" in heard
    until(lambda: client.healthy() and client.status().generation == generation + 1, "the new one")
