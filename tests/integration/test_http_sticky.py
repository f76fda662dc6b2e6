"""Clients stay with their backend by a cookie: lbcore's own, or the application's."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Iterator
from typing import Any

import pytest

from lbcore._scoreboard import BackendState
from lbcore._sticky import Sticky
from lbcore.config.plan import PoolHttpPlan, PoolPlan, RoutePlan, StickyPlan
from tests.support.http_lab import HttpLab, Message, Script, Site, Wire, reply, request
from tests.support.instance import instance
from tests.support.relay_lab import member, pool, until

KEY = bytes(range(16))
INSERT = StickyPlan("lb", "insert", KEY, "; Path=/; HttpOnly")
LEARN = StickyPlan("sid", "learn", b"", "")


def naming(name: str) -> Script:
    """A backend that answers with its name, and nothing that concerns cookies."""
    def script(wire: Wire) -> bool:
        wire.request()
        wire.say(reply(name.encode()))
        return True
    return script


def session(name: str) -> Script:
    """An application with sessions in its memory, as many are written: /login begins one,
    /logout ends it, everything else says who has it, and with which session."""
    numbers = itertools.count(1)
    known: set[str] = set()

    def script(wire: Wire) -> bool:
        got = wire.request()
        sid = cookie_of(got.get("cookie") or "", "sid")
        fields: list[str] = []
        if got.target == "/login":
            known.discard(sid)
            sid = f"{name}-{next(numbers)}"
            known.add(sid)
            fields = ["Set-Cookie: theme=dark; Path=/", f"Set-Cookie: sid={sid}; HttpOnly; Path=/"]
        elif got.target == "/logout":
            known.discard(sid)
            fields = ['Set-Cookie: sid=""; Max-Age=0; Path=/']
        said = f"{name} {sid if sid in known else '-'}"
        wire.say(reply(said.encode(), *fields))
        return True
    return script


def cookie_of(text: str, name: str) -> str:
    """The value of a cookie in a Cookie field."""
    found = re.search(rf"(?:^|; ){name}=([^;]*)", text)
    return found[1] if found else ""


def sites(web: HttpLab, script: Any, names: str) -> dict[str, Site]:
    """A backend for each letter."""
    return {name: web.site(script(name)) for name in names}


def sticky_pool(sticky: StickyPlan, backends: dict[str, Site], **options: Any) -> PoolPlan:
    """A pool of named backends, asked in turn."""
    return pool(*(member(site.address, name) for name, site in backends.items()),
                http=PoolHttpPlan(sticky=sticky), **options)


class Browser:
    """A client that keeps cookies, on a new connection for each request."""

    def __init__(self, web: HttpLab) -> None:
        self.web = web
        self.jar: dict[str, str] = {}
        self.set: list[str] = []         # Set-Cookie of the last answer

    def get(self, path: str = "/", web: HttpLab | None = None) -> str:
        """The body of an answer with status 200."""
        answer = self.answer(path, web)
        assert answer.status == 200, answer.start
        return answer.body.decode()

    def answer(self, path: str = "/", web: HttpLab | None = None) -> Message:
        """An answer; its cookies are kept."""
        wire = (web or self.web).client()
        cookies = "; ".join(f"{name}={value}" for name, value in self.jar.items())
        answer = wire.ask(request(f"GET {path} HTTP/1.1",
                                  *([f"Cookie: {cookies}"] if cookies else [])))
        wire.close()
        self.set = answer.all("set-cookie")
        for field in self.set:
            name, value = field.split(";")[0].split("=", 1)
            self.jar[name] = value
            if "Max-Age=0" in field:
                del self.jar[name]
        return answer


@contextlib.contextmanager
def beside(**options: Any) -> Iterator[HttpLab]:
    """Another worker in front of the same backends, which keep its connections to the end."""
    with HttpLab(**options) as lab:
        yield lab
        until(lambda: lab.seat["connections"] == 0)
        lab.let_turn()


# ---- a cookie of lbcore's own ------------------------------------------------------------------

def test_a_client_is_told_once_and_stays(web: HttpLab) -> None:
    web.web(sticky_pool(INSERT, sites(web, naming, "abc")))
    browser = Browser(web)
    first = browser.get()
    assert re.fullmatch(r"lb=[0-9a-f]{32}; Path=/; HttpOnly", browser.set[0])
    for _ in range(10):
        assert browser.get() == first
        assert browser.set == []
    assert {Browser(web).get() for _ in range(6)} == {"a", "b", "c"}


def test_the_cookie_does_not_name_a_backend_in_clear_text(web: HttpLab) -> None:
    web.web(sticky_pool(INSERT, sites(web, naming, "ab")))
    values = set()
    for _ in range(4):
        browser = Browser(web)
        browser.get()
        values.add(browser.jar["lb"])
    assert len(values) == 2


@pytest.mark.parametrize("value", ["", "0" * 32, "f" * 31, "f" * 33, "../etc", "a" * 4000])
def test_a_cookie_that_nobody_signed_names_nobody(web: HttpLab, value: str) -> None:
    web.web(sticky_pool(INSERT, sites(web, naming, "ab")))
    browser = Browser(web)
    browser.jar["lb"] = value
    browser.get()
    assert len(browser.set) == 1 and browser.jar["lb"] != value


def test_when_its_backend_is_gone_a_client_gets_another_and_a_new_cookie(web: HttpLab) -> None:
    backends = sites(web, naming, "abc")
    web.web(sticky_pool(INSERT, backends))
    browser = Browser(web)
    first = browser.get()
    del backends[first]
    web.apply(sticky_pool(INSERT, backends))
    second = browser.get()
    assert second != first and len(browser.set) == 1
    assert [browser.get() for _ in range(4)] == [second] * 4
    assert browser.set == []


@pytest.mark.parametrize("state", [BackendState.STATE_DOWN, BackendState.STATE_EJECTED])
def test_when_its_backend_is_down_a_client_gets_another_and_a_new_cookie(
    web: HttpLab, state: BackendState,
) -> None:
    web.web(sticky_pool(INSERT, sites(web, naming, "ab")))
    browser = Browser(web)
    first = browser.get()
    web.pretend("ab".index(first), state)
    second = browser.get()
    assert second != first and len(browser.set) == 1
    web.pretend("ab".index(first), BackendState.STATE_UP)
    assert [browser.get() for _ in range(4)] == [second] * 4


def test_when_its_backend_refuses_a_client_gets_another_and_a_new_cookie(web: HttpLab) -> None:
    lone = web.site(naming("a"))
    web.web(pool(member(web.refusing(), "dead"), member(lone.address, "a"),
                 http=PoolHttpPlan(sticky=INSERT)))
    browser = Browser(web)
    browser.jar["lb"] = value_of("dead")
    assert browser.get() == "a"
    assert len(browser.set) == 1
    assert web.backend(0)["refused"] == 1


def value_of(name: str) -> str:
    """The cookie that names a backend under KEY."""
    return Sticky([name.encode()], KEY).write(0).decode()


def test_a_drained_backend_keeps_its_sessions_and_gets_no_others(web: HttpLab) -> None:
    web.web(sticky_pool(INSERT, sites(web, naming, "ab")))
    browser = Browser(web)
    first = browser.get()
    web.pretend("ab".index(first), BackendState.STATE_DRAIN)
    assert [browser.get() for _ in range(4)] == [first] * 4
    assert browser.set == []
    assert first not in {Browser(web).get() for _ in range(6)}


def test_when_its_backend_is_full_another_takes_the_request_but_not_the_client(
    web: HttpLab,
) -> None:
    """The session is in that backend's memory: a burst must not end it."""
    full, free = web.origin(), web.site(naming("free"))
    web.web(pool(member(full, "full", max_connections=1), member(free.address, "free"),
                 http=PoolHttpPlan(sticky=INSERT)))
    browser = Browser(web)
    browser.jar["lb"] = value_of("full")
    cookie = f"Cookie: lb={browser.jar['lb']}"
    holder = web.client(request("GET / HTTP/1.1", cookie))
    server = web.take(full)
    server.request()
    assert browser.get() == "free"
    assert browser.set == []
    server.say(reply(b"full"))
    assert holder.answer().body == b"full"
    holder.say(request("GET / HTTP/1.1", cookie))
    server.request()
    server.say(reply(b"full again"))
    assert holder.answer().body == b"full again"


def test_when_all_are_full_a_client_that_waited_keeps_its_cookie(web: HttpLab) -> None:
    full, other = web.origin(), web.origin()
    web.web(pool(member(full, "full", max_connections=1), member(other, "other", max_connections=1),
                 http=PoolHttpPlan(sticky=INSERT), queue_timeout_ms=20_000))
    cookie = f"Cookie: lb={value_of('full')}"
    holders = [web.client(request("GET / HTTP/1.1", f"Cookie: lb={value_of(name)}"))
               for name in ("full", "other")]
    servers = [web.take(full), web.take(other)]
    for server in servers:
        server.request()
    waiting = web.client(request("GET / HTTP/1.1", cookie))
    until(lambda: web.board.pool(0)["waiting"] == 1)
    servers[1].say(reply(b"held"))
    assert holders[1].answer().body == b"held"
    servers[1].request()
    servers[1].say(reply(b"served"))
    answer = waiting.answer()
    assert (answer.body, answer.all("set-cookie")) == (b"served", [])
    servers[0].say(reply(b"held"))
    assert holders[0].answer().body == b"held"


@pytest.mark.parametrize("state", [BackendState.STATE_DOWN, BackendState.STATE_EJECTED])
def test_when_its_full_backend_is_down_as_well_a_client_gets_a_new_cookie(
    web: HttpLab, state: BackendState,
) -> None:
    full, free = web.origin(), web.site(naming("free"))
    web.web(pool(member(full, "full", max_connections=1), member(free.address, "free"),
                 http=PoolHttpPlan(sticky=INSERT)))
    browser = Browser(web)
    browser.jar["lb"] = value_of("full")
    holder = web.client(request("GET / HTTP/1.1", f"Cookie: lb={browser.jar['lb']}"))
    server = web.take(full)
    server.request()
    web.pretend(0, state)
    assert browser.get() == "free"
    assert len(browser.set) == 1 and browser.jar["lb"] == value_of("free")
    server.say(reply(b"full"))
    assert holder.answer().body == b"full"


def test_another_worker_and_another_start_understand_the_cookie(web: HttpLab) -> None:
    """The value is all there is to it; the key comes from the configuration."""
    backends = sites(web, naming, "abc")
    web.web(sticky_pool(INSERT, backends))
    browser = Browser(web)
    first = browser.get()
    with beside() as other:         # with a scoreboard of its own, as after a new start
        other.web(sticky_pool(INSERT, dict(reversed(backends.items()))))
        assert [browser.get(web=other) for _ in range(4)] == [first] * 4
        assert browser.set == []


def test_the_cookie_holds_over_reload_and_restart(web: HttpLab) -> None:
    backends = sites(web, naming, "abc")

    def listed(names: str) -> list[dict[str, Any]]:
        return [{"address": str(backends[name].address), "name": name} for name in names]

    with instance() as lbcore:
        lbcore.file["listener"][0]["protocol"] = "http"
        lbcore.pool["sticky"] = {"cookie": "lb"}
        lbcore.pool["backends"] = listed("ab")
        lbcore.write()
        lbcore.start()
        web.places.append((2, lbcore.address))      # clients go there
        browser = Browser(web)

        def get() -> str:
            wire = Wire(web.connect(listener=len(web.places) - 1))
            cookie = [f"Cookie: lb={browser.jar['lb']}"] if browser.jar else []
            answer = wire.ask(request("GET / HTTP/1.1", *cookie))
            wire.close()
            browser.set = answer.all("set-cookie")
            return answer.body.decode()

        first = get()
        browser.jar["lb"] = browser.set[0].split(";")[0].removeprefix("lb=")
        lbcore.pool["backends"] = listed("cba")
        lbcore.write()
        lbcore.admin.reload()
        assert [get() for _ in range(6)] == [first] * 6
        assert browser.set == []
        lbcore.admin.stop()
        assert lbcore.exit_code() == 0
        lbcore.start()
        assert [get() for _ in range(6)] == [first] * 6
        assert browser.set == []


# ---- a cookie of the application ---------------------------------------------------------------

def test_a_session_stays_where_it_began(web: HttpLab) -> None:
    web.web(sticky_pool(LEARN, sites(web, session, "abc")))
    browsers = [Browser(web) for _ in range(9)]
    said = [browser.get("/login") for browser in browsers]
    assert {text[0] for text in said} == {"a", "b", "c"}
    for _ in range(5):
        assert [browser.get() for browser in browsers] == said


def test_nobody_stays_without_a_session(web: HttpLab) -> None:
    web.web(sticky_pool(LEARN, sites(web, session, "abc")))
    browser = Browser(web)
    assert {browser.get()[0] for _ in range(6)} == {"a", "b", "c"}
    browser.jar["sid"] = "made-up"
    assert {browser.get()[0] for _ in range(6)} == {"a", "b", "c"}


def test_lbcore_sets_no_cookie_of_its_own_beside_the_applications(web: HttpLab) -> None:
    web.web(sticky_pool(LEARN, sites(web, session, "ab")))
    browser = Browser(web)
    browser.get("/login")
    assert [field.split("=")[0] for field in browser.set] == ["theme", "sid"]


def test_all_workers_know_what_one_has_learnt(web: HttpLab) -> None:
    """Two workers that share a scoreboard, as those of one instance do."""
    backends = sites(web, session, "abcd")
    web.web(sticky_pool(LEARN, backends))
    with beside(beside=web) as other:
        other.web(sticky_pool(LEARN, backends))
        browsers = [Browser(web) for _ in range(8)]
        said = [browser.get("/login", [web, other][number % 2])
                for number, browser in enumerate(browsers)]
        for turn in range(4):
            assert [browser.get("/", [web, other][(number + turn) % 2])
                    for number, browser in enumerate(browsers)] == said
        browsers[0].get("/logout", other)
        browsers[0].jar["sid"] = said[0].split()[1]
        assert len({browsers[0].get("/", web)[0] for _ in range(8)}) == 4


def test_a_new_session_of_the_same_client_belongs_to_who_began_it(web: HttpLab) -> None:
    """A login changes the session's name; the old one is no longer used."""
    web.web(sticky_pool(LEARN, sites(web, session, "abc")))
    browser = Browser(web)
    first = browser.get("/login")
    second = browser.get("/login")
    assert second[0] == first[0] and second != first
    assert [browser.get() for _ in range(4)] == [second] * 4


@pytest.mark.parametrize("state", [BackendState.STATE_DOWN, BackendState.STATE_EJECTED])
def test_a_session_goes_on_elsewhere_when_its_backend_is_down(
    web: HttpLab, state: BackendState,
) -> None:
    web.web(sticky_pool(LEARN, sites(web, session, "ab")))
    browser = Browser(web)
    first = browser.get("/login")[0]
    web.pretend("ab".index(first), state)
    second = browser.get("/login")
    assert second[0] != first
    web.pretend("ab".index(first), BackendState.STATE_UP)
    assert [browser.get() for _ in range(4)] == [second] * 4


def test_a_session_goes_back_when_its_backend_comes_back_and_nobody_else_took_it(
    web: HttpLab,
) -> None:
    web.web(sticky_pool(LEARN, sites(web, session, "ab")))
    browser = Browser(web)
    said = browser.get("/login")
    web.pretend("ab".index(said[0]), BackendState.STATE_DOWN)
    assert browser.get()[0] != said[0]
    web.pretend("ab".index(said[0]), BackendState.STATE_UP)
    assert [browser.get() for _ in range(4)] == [said] * 4


def test_a_session_goes_on_elsewhere_when_its_backend_left_the_plan(web: HttpLab) -> None:
    backends = sites(web, session, "abc")
    web.web(sticky_pool(LEARN, backends))
    browser = Browser(web)
    first = browser.get("/login")[0]
    del backends[first]
    web.apply(sticky_pool(LEARN, backends))
    second = browser.get("/login")
    assert second[0] != first
    assert [browser.get() for _ in range(4)] == [second] * 4


def test_a_session_stays_over_a_reload_that_moves_backends(web: HttpLab) -> None:
    backends = sites(web, session, "abc")
    web.web(sticky_pool(LEARN, backends))
    browser = Browser(web)
    said = browser.get("/login")
    fresh = {"d": web.site(session("d")), **dict(reversed(backends.items()))}
    web.apply(sticky_pool(LEARN, fresh))
    assert [browser.get() for _ in range(6)] == [said] * 6


def test_a_drained_backend_keeps_learnt_sessions(web: HttpLab) -> None:
    web.web(sticky_pool(LEARN, sites(web, session, "ab")))
    browser = Browser(web)
    said = browser.get("/login")
    web.pretend("ab".index(said[0]), BackendState.STATE_DRAIN)
    assert [browser.get() for _ in range(4)] == [said] * 4
    assert said[0] not in {Browser(web).get()[0] for _ in range(6)}


def test_a_session_that_was_ended_leads_nowhere(web: HttpLab) -> None:
    web.web(sticky_pool(LEARN, sites(web, session, "abc")))
    browser = Browser(web)
    sid = browser.get("/login").split()[1]
    browser.get("/logout")
    assert "sid" not in browser.jar
    browser.jar["sid"] = sid
    assert {browser.get()[0] for _ in range(6)} == {"a", "b", "c"}


def test_a_session_that_rests_too_long_is_forgotten(web: HttpLab) -> None:
    short = StickyPlan("sid", "learn", b"", "", expiry_ms=1)
    web.web(sticky_pool(short, sites(web, session, "abc")))
    browser = Browser(web)
    browser.get("/login")
    assert {browser.get()[0] for _ in range(9)} == {"a", "b", "c"}


def test_two_pools_do_not_share_values(web: HttpLab) -> None:
    one, two = sites(web, session, "ab"), sites(web, naming, "ab")
    web.web(sticky_pool(LEARN, one), sticky_pool(LEARN, two, name="two"),
            routes=[RoutePlan("two", pool=1, path="/two", path_kind="prefix")])
    browser = Browser(web)
    browser.get("/login")
    assert {browser.get("/two") for _ in range(4)} == {"a", "b"}


def test_what_is_learnt_is_what_the_last_try_said(web: HttpLab) -> None:
    """A backend whose answer the client never saw keeps nobody."""
    def refusing(wire: Wire) -> bool:
        wire.request()
        wire.say(reply(b"", "Set-Cookie: sid=shared", status="503 Busy"))
        return True

    def taking(wire: Wire) -> bool:
        wire.request()
        wire.say(reply(b"taken", "Set-Cookie: sid=shared"))
        return True

    web.web(sticky_pool(LEARN, {"busy": web.site(refusing), "b": web.site(taking)}),
            route={"retry_statuses": (503,)})
    browser = Browser(web)
    while not web.backend(0)["retries"]:
        browser.jar.clear()
        assert browser.get() == "taken"
    assert [browser.get() for _ in range(6)] == ["taken"] * 6
    assert web.backend(0)["retries"] == 1


def test_a_response_with_a_cookie_in_pieces_is_learnt_from(web: HttpLab) -> None:
    origin = web.origin()
    other = web.site(naming("other"))
    web.web(pool(member(origin, "slow"), member(other.address, "other"),
                 http=PoolHttpPlan(sticky=LEARN)))
    web.pretend(1, BackendState.STATE_DRAIN)
    client, server, _ = web.pair(origin, request())
    for byte in reply(b"", "Set-Cookie: a=1", "Set-Cookie: sid=pieces; Path=/"):
        server.say(bytes([byte]))
    assert client.answer().status == 200
    web.pretend(1, BackendState.STATE_UP)
    for _ in range(3):
        client.say(request("GET / HTTP/1.1", "Cookie: a=1; sid=pieces"))
        assert server.request().get("cookie") == "a=1; sid=pieces"
        server.say(reply(b"slow"))
        assert client.answer().body == b"slow"
