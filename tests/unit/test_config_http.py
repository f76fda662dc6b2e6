"""What http keys mean: defaults filled in, routes in order, settings inherited."""

from __future__ import annotations

from pathlib import Path

import pytest

from lbcore.config import compile_http, parse, to_plan
from lbcore.config.plan import (
    NO_POOL,
    EjectionPlan,
    FieldPlan,
    HttpPlan,
    ListenerPlan,
    LogPlan,
    MatchPlan,
    PagePlan,
    Plan,
    PoolHttpPlan,
    RatePlan,
    RoutePlan,
    Segment,
    StickyPlan,
)

MINIMAL = """\
[[listener]]
name = "web"
bind = "127.0.0.1:8080"
protocol = "http"
pool = "web"
{}
[pool.web]
backends = ["127.0.0.1:8000"]
[pool.api]
backends = ["127.0.0.1:8001"]
"""
HASH = "$2y$05$" + "a" * 53


def plan_of(text: str, file: str = "lb.toml") -> Plan:
    return to_plan(parse(text, file).config)


def http_of(listener: str, file: str = "lb.toml") -> HttpPlan:
    """The http part of a listener with these keys and routes."""
    http = plan_of(MINIMAL.format(listener), file).listeners[0].http
    assert http is not None
    return http


def route_of(route: str, listener: str = "") -> RoutePlan:
    """The plan of the only route of a listener."""
    (route_plan,) = http_of(f"{listener}\n[[listener.route]]\n{route}").routes
    return route_plan


def test_defaults_of_the_file_are_the_defaults_of_the_plan() -> None:
    listener = plan_of(MINIMAL.format("")).listeners[0]
    assert listener == ListenerPlan("web", listener.binds, 0, "http")
    assert listener.http == HttpPlan(default=RoutePlan("default", pool=0))


def test_a_listener_without_a_pool_answers_404_where_no_route_takes_a_request() -> None:
    http = http_of('[[listener.route]]\npath = "/x"\npool = "api"\n')
    assert http.default == RoutePlan("default", pool=0)
    plan = plan_of(MINIMAL.format('[[listener.route]]\npath = "/x"\npool = "api"\n').replace(
        'pool = "web"\n', "", 1) + '[[listener]]\nname = "b"\nbind = "127.0.0.1:1"\npool = "web"\n')
    assert plan.listeners[0].pool == NO_POOL
    assert plan.listeners[0].http is not None
    assert plan.listeners[0].http.default == RoutePlan("none", action="respond", status=404)


def test_every_listener_key_arrives_in_the_plan(tmp_path: Path) -> None:
    (tmp_path / "404.html").write_text("<h1>gone</h1>")
    (tmp_path / "all.json").write_text("{}")
    http = http_of("""\
head_timeout = "1s"
keepalive_timeout = "2s"
max_requests = 3
max_head = "4KiB"
max_fields = 5
trusted_proxies = ["10.0.0.1"]
forwarded = "both"
request_id = false
via = ""
underscores = true
abort_on_close = true
error_pages = { 404 = "404.html", default = ["all.json"] }
""", str(tmp_path / "lb.toml"))
    assert http == HttpPlan(
        (), RoutePlan("default", pool=0), 1000, 2000, 3, 4096, 5, ("10.0.0.1/32",), "both", False,
        "", True, True, (PagePlan(404, "html", b"<h1>gone</h1>"), PagePlan(0, "json", b"{}")),
    )


def test_every_route_key_arrives_in_the_plan() -> None:
    route = route_of(f"""\
name = "n"
host = "Example.com"
path_regex = "/x/(.*)"
methods = ["POST", "GET"]
headers = {{ X-Canary = "1", Accept = {{ prefix = "text/" }}, Via = {{ present = false }} }}
query = {{ Q = {{ regex = "^a" }}, r = {{ not = "b" }}, s = {{ present = true }} }}
pool = "api"
rewrite = "/y/$1"
request_headers = {{ set = {{ X-A = "$host" }}, add = {{ X-B = "b" }}, remove = ["X-C"] }}
response_headers = {{ remove = ["Server"] }}
allow = ["10.0.0.0/8"]
deny = ["10.0.0.1"]
auth = {{ realm = "r", users = {{ alice = "{HASH}" }} }}
rate_limit = {{ requests = "10/s", burst = 3, by = "cookie:SID" }}
retry = {{ attempts = 2, statuses = [503, 429], unsafe = true }}
max_body = "1MiB"
body_timeout = "1s"
first_byte_timeout = "2s"
read_timeout = "3s"
send_timeout = "4s"
total_timeout = "5s"
tunnel_timeout = "6s"
buffer_request = true
buffer_response = true
request_memory = "1KiB"
response_memory = "2KiB"
response_disk = "3KiB"
""")
    assert route == RoutePlan(
        name="n", host="example.com", path_kind="regex", path="/x/(.*)",
        methods=("GET", "HEAD", "POST"),
        headers=(MatchPlan("x-canary", "equal", "1"), MatchPlan("accept", "prefix", "text/"),
                 MatchPlan("via", "present", negated=True)),
        queries=(MatchPlan("Q", "regex", "^a"), MatchPlan("r", "equal", "b", negated=True),
                 MatchPlan("s", "present")),
        pool=1, rewrite=(Segment("text", "/y/"), Segment("capture", number=1)),
        request_fields=(FieldPlan("remove", "X-C"), FieldPlan("set", "X-A", (Segment("host"),)),
                        FieldPlan("add", "X-B", (Segment("text", "b"),))),
        response_fields=(FieldPlan("remove", "Server"),),
        allow=("10.0.0.0/8",), deny=("10.0.0.1/32",), users=(("alice", HASH),), realm="r",
        rate=RatePlan(100_000, 3, "cookie", "SID"), max_body=2**20, body_timeout_ms=1000,
        first_byte_timeout_ms=2000, read_timeout_ms=3000, send_timeout_ms=4000,
        total_timeout_ms=5000, tunnel_timeout_ms=6000, buffer_request=True, buffer_response=True,
        request_memory=1024, response_memory=2048, response_disk=3072, retry_attempts=2,
        retry_statuses=(503, 429), retry_unsafe=True, origin=0,
    )


def test_a_route_takes_from_its_listener_what_it_does_not_say() -> None:
    listener = f"""\
max_body = "1MiB"
read_timeout = "7s"
buffer_response = false
allow = ["10.0.0.0/8"]
auth = {{ users = {{ alice = "{HASH}" }} }}
rate_limit = {{ requests = "1/s" }}
retry = {{ attempts = 9, unsafe = true }}
request_headers = {{ set = {{ X-A = "listener" }} }}
"""
    http = http_of(listener + """\
[[listener.route]]
path = "/a"
pool = "api"
[[listener.route]]
path = "/b"
pool = "api"
max_body = "0"
buffer_response = true
allow = []
auth = { enabled = false }
rate_limit = { enabled = false }
retry = { attempts = 1 }
request_headers = { set = { X-A = "route" } }
""")
    heir, own = http.routes
    assert http.default is not None
    for route in (heir, http.default):
        assert (route.max_body, route.read_timeout_ms) == (2**20, 7000)
        assert not route.buffer_response
        assert route.allow == ("10.0.0.0/8",)
        assert route.users == (("alice", HASH),)
        assert route.rate == RatePlan(1_000_000, 1)
        assert (route.retry_attempts, route.retry_unsafe) == (9, True)
    assert (own.max_body, own.read_timeout_ms, own.buffer_response) == (0, 7000, True)
    assert (own.allow, own.users, own.rate) == ((), None, None)
    assert (own.retry_attempts, own.retry_unsafe) == (1, True)
    assert [field.value for field in own.request_fields] == [
        (Segment("text", "listener"),), (Segment("text", "route"),),
    ]


def test_a_redirect_has_a_status_and_a_place_to_go() -> None:
    route = route_of('host = "a.b"\nredirect = "https://$host$uri"\n')
    assert (route.action, route.status, route.pool) == ("redirect", 302, NO_POOL)
    assert route.location == (Segment("text", "https://"), Segment("host"), Segment("uri"))
    assert route_of('path = "/x"\nredirect = "/y"\nstatus = 308\n').status == 308


@pytest.mark.parametrize(
    ("respond", "status", "type_", "body"),
    [
        ("{}", 200, "text/plain; charset=utf-8", b""),
        ('{ status = 410, body = "gone" }', 410, "text/plain; charset=utf-8", b"gone"),
        ('{ file = "robots.txt" }', 200, "text/plain; charset=utf-8", b"User-agent: *"),
        ('{ body = "{}", type = "application/json" }', 200, "application/json", b"{}"),
    ],
)
def test_a_fixed_response_has_a_type_and_a_body(
    tmp_path: Path, respond: str, status: int, type_: str, body: bytes
) -> None:
    (tmp_path / "robots.txt").write_text("User-agent: *")
    (route,) = http_of(f'[[listener.route]]\npath = "/x"\nrespond = {respond}\n',
                       str(tmp_path / "lb.toml")).routes
    assert (route.action, route.status, route.type, route.body) == ("respond", status, type_, body)


def test_a_route_with_several_hosts_is_one_route_for_each_of_the_same_name() -> None:
    http = http_of('[[listener.route]]\nhost = ["*.b.c", "a.b.c", "A.b.c."]\npool = "api"\n')
    assert [(route.name, route.host, route.origin) for route in http.routes] == [
        ("*.b.c+", "a.b.c", 0), ("*.b.c+", "*.b.c", 0),
    ]


def test_users_come_from_the_file_and_the_table(tmp_path: Path) -> None:
    (tmp_path / "users").write_text(f"# people\nbob:{HASH}\n\n")
    (route,) = http_of(f"""\
[[listener.route]]
path = "/x"
pool = "api"
auth = {{ users_file = "users", users = {{ alice = "{HASH}" }} }}
""", str(tmp_path / "lb.toml")).routes
    assert route.users == (("bob", HASH), ("alice", HASH))
    assert route.realm == "Restricted"


def test_every_pool_key_arrives_in_the_plan() -> None:
    plan = plan_of(MINIMAL.format("") + """\
balance = "consistent"
hash_on = "header:X-User"
keepalive_idle = "1s"
keepalive_connections = 2
retry_share = 0.3
ejection = { statuses = [500], slow = "4s" }
[pool.api.sticky]
cookie = "route"
secret = "0123456789abcdef"
path = "/x"
secure = true
http_only = false
same_site = "None"
max_age = "1h"
[[listener]]
name = "b"
bind = "127.0.0.1:1"
protocol = "http"
pool = "api"
""")
    pool = plan.pools[1]
    assert pool.hash_on == "header"
    assert pool.http.sticky is not None
    assert len(pool.http.sticky.key) == 16
    attributes = "; Path=/x; Max-Age=3600; Secure; SameSite=None"
    assert pool.http == PoolHttpPlan(
        1000, 2, 0.3, (500,), 4000, "x-user",
        StickyPlan("route", "insert", pool.http.sticky.key, attributes),
    )
    assert pool.ejection == EjectionPlan()


def sticky_key(pool: str, keys: str) -> bytes:
    text = MINIMAL.format("").replace("pool.web]", f"pool.{pool}]").replace(
        'pool = "web"', f'pool = "{pool}"')
    sticky = plan_of(text + f"[pool.{pool}.sticky]\n{keys}\n").pools[0].http.sticky
    assert sticky is not None
    return sticky.key


def test_cookies_are_signed_the_same_on_all_machines_with_one_secret(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    identity = tmp_path / "machine-id"
    monkeypatch.setattr(compile_http, "MACHINE_ID", identity)
    identity.write_text("one\n")
    shared, own = sticky_key("web", 'secret = "0123456789abcdef"'), sticky_key("web", "")
    assert own == sticky_key("web", "")
    assert own != sticky_key("other", "")
    identity.write_text("two\n")
    assert shared == sticky_key("web", 'secret = "0123456789abcdef"')
    assert own != sticky_key("web", "")


def test_a_learnt_cookie_needs_no_key_and_is_known_for_a_day() -> None:
    text = MINIMAL.format("") + '[pool.web.sticky]\nmode = "learn"\ncookie = "SID"\n'
    pool = plan_of(text).pools[0]
    assert pool.http.sticky == StickyPlan("SID", "learn", b"", "", 86_400_000)
    assert (pool.balance, pool.table) == ("round_robin", None)
    pool = plan_of(text + 'expiry = "90m"\n').pools[0]
    assert pool.http.sticky is not None and pool.http.sticky.expiry_ms == 5_400_000


@pytest.mark.parametrize(
    ("keys", "log"),
    [
        ("", LogPlan()),
        ('access = "-"', LogPlan(access="-")),
        ('access = "/a"\nformat = "json"', LogPlan(access="/a", format="json")),
        ('format = "combined"', LogPlan(access_format="combined")),
    ],
)
def test_the_format_is_of_both_logs(keys: str, log: LogPlan) -> None:
    assert plan_of(f"[log]\n{keys}\n" + MINIMAL.format("")).log == log


def test_paths_of_files_start_where_the_configuration_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "page.txt").write_text("x")
    monkeypatch.chdir(tmp_path / "sub")
    http = http_of('error_pages = { default = "page.txt" }', "../lb.toml")
    assert http.pages == (PagePlan(0, "text", b"x"),)
