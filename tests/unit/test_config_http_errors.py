"""What can be wrong with http keys: told at once, with line, key and a hint."""

from __future__ import annotations

from pathlib import Path

import pytest

from lbcore.config import ConfigError, Problem, compile_http, parse

GOOD = """\
[[listener]]
name = "web"
bind = "127.0.0.1:8080"
protocol = "http"
pool = "web"
{listener}
{routes}
[pool.web]
backends = ["10.0.0.1:8000"]
{pool}
"""
HASH = "$2y$05$" + "a" * 53


def text_of(listener: str = "", routes: str = "", pool: str = "") -> str:
    return GOOD.format(listener=listener, routes=routes, pool=pool)


def route(keys: str, listener: str = "") -> str:
    """A configuration whose listener has a route with these keys, from line 8 on."""
    return text_of(listener, f"[[listener.route]]\n{keys}")


def problems(text: str, file: str = "lb.toml") -> list[Problem]:
    with pytest.raises(ConfigError) as refused:
        parse(text, file)
    return refused.value.problems


def only(text: str, file: str = "lb.toml") -> Problem:
    found = problems(text, file)
    assert len(found) == 1, "\n".join(map(str, found))
    return found[0]


def is_told(problem: Problem, key: str, message: str, hint: str) -> None:
    assert problem.key == key
    assert message in problem.message
    assert hint in problem.hint


@pytest.mark.parametrize(
    ("keys", "key", "message", "hint"),
    [
        ('client_idle_timeout = "1m"', "client_idle_timeout", "no effect", "tunnel_timeout"),
        ("max_fields = 129", "max_fields", "too large", "128"),
        ('max_head = "1B"', "max_head", "too small", '"1KiB"'),
        ('max_head = "2MiB"', "max_head", "too large", '"64KiB"'),
        ('max_head = "65KiB"', "max_head", "too large", '"64KiB"'),
        ("max_body = 5", "max_body", "with a unit", '"5B"'),
        ('trusted_proxies = ["x"]', "trusted_proxies[0]", "not a network", ""),
        ('forwarded = "rfc"', "forwarded", "not a choice", '"rfc7239"'),
        ('via = "a b"', "via", "characters", ""),
        ('error_pages = { 200 = "/x.html" }', "error_pages.200", "no status of an error", '"404"'),
        ('error_pages = { 404 = "/nowhere/x.html" }', "error_pages.404", "cannot be read", ""),
        ('error_pages = { 404 = "/etc/passwd" }', "error_pages.404", "none of the kinds", ".html"),
        ('deny = ["10.0.0.1/8"]', "deny[0]", "bits set", '"10.0.0.0/8"'),
        ('auth = { users = { "a:b" = "' + HASH + '" } }', 'auth.users."a:b"', "cannot be a user",
         ""),
        ('auth = { users = { alice = "secret" } }', "auth.users.alice", "not a password hash",
         "htpasswd"),
        ("auth = {}", "auth", "nobody could enter", "users"),
        ('auth = { users_file = "/nowhere" }', "auth.users_file", "cannot be read", ""),
        ('rate_limit = { requests = "5" }', "rate_limit.requests", "not a rate", '"100/s"'),
        ('rate_limit = { by = "ip" }', "rate_limit.by", "count requests by", "source"),
        ("rate_limit = { burst = 0 }", "rate_limit.burst", "too small", "1"),
        ("retry = { statuses = [404] }", "retry.statuses[0]", "cannot be in this list", "429"),
        ("retry = { attempts = 0 }", "retry.attempts", "too small", ""),
        ('request_headers = { set = { "X Y" = "1" } }', 'request_headers.set."X Y"',
         "not a name of a header", ""),
        ('request_headers = { set = { X = "$zzzz" } }', "request_headers.set.X",
         'nothing is called "$zzzz"', "$client_ip"),
        ('request_headers = { set = { X = "$1" } }', "request_headers.set.X", "path_regex", ""),
        ('request_headers = { add = { host = "x" } }', "request_headers.add.host", "exactly one",
         "set"),
        ('request_headers = { set = { Connection = "x" } }', "request_headers.set.Connection",
         "own affair", "remove"),
        ('response_headers = { set = { Host = "x" } }', "response_headers.set.Host", "no Host", ""),
        ('response_headers = { remove = ["Content-Length"] }', "response_headers.remove[0]",
         "own affair", ""),
        ('response_headers = { add = { A = "1", a = "2" } }', "response_headers.add.a",
         "other letters (line 6)", ""),
        ("hosts = 1", "hosts", "unknown", ""),
        ('strip_prefix = true', "strip_prefix", "unknown key here", "[[listener.route]]"),
    ],
)
def test_a_bad_listener_key_is_told_once(keys: str, key: str, message: str, hint: str) -> None:
    problem = only(text_of(keys))
    assert problem.line == 6
    is_told(problem, f"listener[0].{key}", message, hint)


@pytest.mark.parametrize(
    ("keys", "key", "message", "hint"),
    [
        ('path = "/x"', "", "does not say", '"pool", "redirect" or "respond"'),
        ('path = "/x"\npool = "wbe"', ".pool", "no pool is called", '"web"'),
        ('path = "/x"\npath_exact = "/y"\npool = "web"', ".path_exact", "path too (line 8)",
         "keep one"),
        ('path = "/x"\npool = "web"\nredirect = "/y"', ".redirect", "pool too (line 9)",
         "keep one"),
        ('path = "x"\npool = "web"', ".path", "not a path", '"/x"'),
        ('path_regex = "/(x"\npool = "web"', ".path_regex", "not a regular expression", ""),
        ('host = "a.b:80"\npool = "web"', ".host", "no port here", '"a.b"'),
        ('host = ["a.b", "x*"]\npool = "web"', ".host[1]", "wildcard", ""),
        ('host = []\npool = "web"', ".host", "empty", "1"),
        ('methods = ["get"]\npool = "web"', ".methods[0]", "case-sensitive", '"GET"'),
        ('headers = { "a b" = "1" }\npool = "web"', '.headers."a b"', "not a name", ""),
        ('headers = { a = {} }\npool = "web"', ".headers.a", "no condition", "equal"),
        ('headers = { a = { equal = "1", prefix = "2" } }\npool = "web"', ".headers.a",
         "2 conditions", "one of"),
        ('headers = { a = { regex = "(" } }\npool = "web"', ".headers.a.regex", "not a regular",
         ""),
        ('headers = { a = { nto = "x" } }\npool = "web"', ".headers.a.nto", "unknown", '"not"'),
        ('headers = { A = "1", a = "2" }\npool = "web"', ".headers.a", "other letters", ""),
        ('path = "/x"\npool = "web"\nstatus = 301', ".status", "without redirect", "$uri"),
        ('path = "/x"\nredirect = "/y"\nstatus = 200', ".status", "not a choice", "308"),
        ('path = "/x"\nredirect = "/$1"', ".redirect", "path_regex", ""),
        ('path_exact = "/x"\nredirect = "/$tail"', ".redirect", "$tail", ""),
        ('path = "/x"\nredirect = "/y"\nstrip_prefix = true', ".strip_prefix", "with redirect",
         "remove"),
        ('path = "/x"\nrespond = {}\nread_timeout = "1s"', ".read_timeout", "with respond", ""),
        ('path_exact = "/x"\npool = "web"\nstrip_prefix = true', ".strip_prefix", "no prefix",
         "path"),
        ('path = "/x"\npool = "web"\nstrip_prefix = true\nrewrite = "/y"', ".rewrite",
         "strip_prefix", ""),
        ('path = "/x"\npool = "web"\nrewrite = "y"', ".rewrite", "slash", '"/y"'),
        ('path = "/x"\npool = "web"\nrewrite = "/$2"', ".rewrite", "$2", "path_regex"),
        ('path = "/x"\npool = "web"\nbuffer_request = false\nrequest_memory = "1KiB"',
         ".request_memory", "buffer_request = false", ""),
        ('path = "/x"\nrespond = { body = "a", file = "b" }', ".respond.file", "in body already",
         ""),
        ('path = "/x"\nrespond = { file = "/nowhere" }', ".respond.file", "cannot be read", ""),
        ('path = "/x"\nrespond = { status = 204, body = "a" }', ".respond.body", "no body", ""),
        ('path = "/x"\nrespond = { status = 101 }', ".respond.status", "too small", "200"),
        ('name = "default"\npath = "/x"\npool = "web"', ".name", "no other takes", "another"),
        ('proxy_pass = "web"\npath = "/x"', ".proxy_pass", "unknown", '"pool"'),
        ('location = "/x"\npool = "web"', ".location", "unknown", '"path"'),
    ],
)
def test_a_bad_route_key_is_told_once(keys: str, key: str, message: str, hint: str) -> None:
    is_told(only(route(keys)), f"listener[0].route[0]{key}", message, hint)


@pytest.mark.parametrize("name", [
    "Connection", "Content-Length", "Expect", "Keep-Alive", "Proxy-Connection", "TE", "Trailer",
    "Transfer-Encoding", "Upgrade",
])
def test_no_rule_touches_how_messages_are_framed(name: str) -> None:
    for rule in (f'remove = ["{name}"]', f'set = {{ {name} = "x" }}', f'add = {{ {name} = "x" }}'):
        for key in ("request_headers", "response_headers"):
            assert "own affair" in only(text_of(f"{key} = {{ {rule} }}")).message


def test_no_effect_of_buffers_is_told_also_where_the_listener_turns_them_off() -> None:
    keys = 'path = "/x"\npool = "web"\nresponse_disk = "1MiB"'
    assert only(route(keys, "buffer_response = false")).key == "listener[0].route[0].response_disk"
    parse(route(keys + "\nbuffer_response = true", "buffer_response = false"), "lb.toml")


@pytest.mark.parametrize(
    ("keys", "key", "message", "hint"),
    [
        ('server_idle_timeout = "1m"', "server_idle_timeout", "only http listeners", ""),
        ('[pool.web.sticky]\nsecret = "short"', "sticky.secret", "too short", "16 characters"),
        ('[pool.web.sticky]\nsame_site = "None"', "sticky.same_site", "secure", "secure = true"),
        ('[pool.web.sticky]\nsame_site = "lax"', "sticky.same_site", "not a choice", '"Lax"'),
        ('[pool.web.sticky]\nmax_age = "1500ms"', "sticky.max_age", "whole seconds", ""),
        (f'[pool.web.sticky]\npath = "/{"p" * 255}"', "sticky.path", "too long", "255"),
        (f'[pool.web.sticky]\ncookie = "{"c" * 65}"', "sticky.cookie", "too long", "64 bytes"),
        ('[pool.web.sticky]\npath = "x;y"', "sticky.path", "not a path", ""),
        ('[pool.web.sticky]\nmode = "learn"\nsecure = true', "sticky.secure", "application sets",
         '"insert"'),
        ('[pool.web.sticky]\nexpiry = "1h"', "sticky.expiry", "not remembered", "max_age"),
        ('send_proxy = "v1"\nkeepalive_idle = "1s"', "keepalive_idle", "one client (line 10)", ""),
        ('[pool.web.ejection]\nstatuses = [404]', "ejection.statuses[0]", "cannot be", "429"),
        ('hash_on = "path"', "hash_on", "no effect", "consistent"),
        ('hash_on = "ip"\nbalance = "consistent"', "hash_on", "nothing to hash on", "source_ip"),
    ],
)
def test_a_bad_pool_key_is_told_once(keys: str, key: str, message: str, hint: str) -> None:
    is_told(only(text_of(pool=keys)), f"pool.web.{key}", message, hint)


TCP = text_of(pool="{}").replace('protocol = "http"\n', "")


@pytest.mark.parametrize(
    ("keys", "key"),
    [
        ('keepalive_idle = "1s"', "keepalive_idle"),
        ("retry_share = 0.5", "retry_share"),
        ("[pool.web.sticky]", "sticky"),
        ('[pool.web.ejection]\nslow = "1s"', "ejection.slow"),
    ],
)
def test_http_keys_of_a_pool_for_tcp_have_no_effect(keys: str, key: str) -> None:
    is_told(only(TCP.replace("{}", keys)), f"pool.web.{key}", "only tcp listeners", '"http"')


def test_a_tcp_connection_has_no_header_to_hash() -> None:
    problem = only(TCP.replace("{}", 'balance = "consistent"\nhash_on = "header:x"'))
    is_told(problem, "pool.web.hash_on", "cannot be known on a tcp connection", '"source_ip"')


def test_a_pool_of_both_protocols_may_have_keys_of_both() -> None:
    both = text_of(pool='keepalive_idle = "1s"\nserver_idle_timeout = "1s"\n[[listener]]\n'
                        'name = "t"\nbind = "127.0.0.1:1"\npool = "web"\n')
    assert parse(both, "lb.toml").warnings == []


def test_a_tcp_listener_needs_a_pool_and_an_http_one_a_pool_or_a_route() -> None:
    without = text_of().replace('pool = "web"\n', "")
    is_told(problems(without.replace('protocol = "http"\n', ""))[0], "listener[0].pool",
            "missing", "one of the pools")
    is_told(problems(without)[0], "listener[0].pool", "missing", "or routes")
    parse(route('path = "/x"\npool = "web"').replace('pool = "web"\n', "", 1), "lb.toml")


def test_without_a_machine_identity_the_secret_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(compile_http, "MACHINE_ID", tmp_path / "none")
    problem = only(text_of(pool="[pool.web.sticky]"))
    is_told(problem, "pool.web.sticky.secret", '"secret" is missing', "16 characters")
    parse(text_of(pool='[pool.web.sticky]\nmode = "learn"'), "lb.toml")


# ---- routes among themselves


def routes(*tables: str) -> str:
    return text_of("", "\n".join(f"[[listener.route]]\n{table}" for table in tables))


def test_two_routes_that_match_the_same_are_refused() -> None:
    problem = only(routes('path = "/a"\npool = "web"', 'path = "/%61"\nrespond = {}'))
    is_told(problem, "listener[0].route[1]", "matches the same (line 7)", "merge")
    assert problem.line == 10


def test_a_route_that_shares_one_of_its_hosts_is_refused_naming_it() -> None:
    problem = only(routes('host = "a.b"\npool = "web"', 'host = ["c.d", "a.b"]\npool = "web"'))
    assert "matches the same for a.b" in problem.message


def test_a_route_that_nothing_reaches_is_refused() -> None:
    problem = only(routes(
        'path = "/a"\nmethods = ["GET", "POST"]\npool = "web"',
        'path = "/a"\nmethods = ["POST"]\npool = "web"',
    ))
    is_told(problem, "listener[0].route[1]", "no request gets here", "before")
    parse(routes(
        'path = "/a"\nmethods = ["POST"]\npool = "web"',
        'path = "/a"\nmethods = ["GET", "POST"]\npool = "web"',
    ), "lb.toml")


def test_two_routes_of_one_name_are_refused() -> None:
    problem = only(routes('name = "n"\npath = "/a"\npool = "web"',
                          'name = "n"\npath = "/b"\npool = "web"'))
    is_told(problem, "listener[0].route[1].name", 'called "n" (line 8)', "")


def test_every_problem_of_a_file_is_told_at_once_in_its_order() -> None:
    found = problems(routes(
        'path = "x"\npool = "web"',
        'path = "/b"\npool = "wbe"',
        'path = "/c"\nheaders = { a = 1 }\npool = "web"',
        'path = "/b"\npool = "web"\nmax_body = 1',
    ))
    assert [problem.key for problem in found] == [
        "listener[0].route[0].path",
        "listener[0].route[1].pool",
        "listener[0].route[2].headers.a",
        "listener[0].route[3]",
        "listener[0].route[3].max_body",
    ]


def test_a_route_with_a_broken_condition_is_not_called_a_duplicate() -> None:
    found = problems(routes('path = "/a"\npool = "web"',
                            'path = "/a"\nmethods = ["get"]\npool = "web"'))
    assert [problem.key for problem in found] == ["listener[0].route[1].methods[0]"]


# ---- files


def test_a_line_of_a_users_file_that_is_no_user_is_named(tmp_path: Path) -> None:
    (tmp_path / "users").write_text(f"# people\nbob:{HASH}\nalice:$apr1$x$yyyyyyyy\n")
    problem = only(text_of('auth = { users_file = "users" }'), str(tmp_path / "lb.toml"))
    is_told(problem, "listener[0].auth.users_file", f"line 3 of {tmp_path}/users", "htpasswd -nB")


def test_a_user_in_the_file_and_the_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "users").write_text(f"bob:{HASH}\n")
    keys = f'auth = {{ users_file = "users", users = {{ bob = "{HASH}" }} }}'
    problem = only(text_of(keys), str(tmp_path / "lb.toml"))
    is_told(problem, "listener[0].auth.users.bob", "in users_file, too", "keep one")


def test_two_pages_of_a_kind_for_a_status_are_refused(tmp_path: Path) -> None:
    for name in ("a.html", "b.htm", "c.txt"):
        (tmp_path / name).write_text("x")
    good = 'error_pages = { 404 = ["a.html", "c.txt"] }'
    parse(text_of(good), str(tmp_path / "lb.toml"))
    problem = only(text_of(good.replace("c.txt", "b.htm")), str(tmp_path / "lb.toml"))
    is_told(problem, "listener[0].error_pages.404[1]", "another html page", "")


def test_a_page_that_is_a_directory_or_too_large_is_refused(tmp_path: Path) -> None:
    (tmp_path / "d.html").mkdir()
    with (tmp_path / "l.html").open("wb") as file:
        file.truncate(2**20 + 1)
    for name, message in (("d.html", "cannot be read"), ("l.html", "too large")):
        problem = only(text_of(f'error_pages = {{ default = "{name}" }}'), str(tmp_path / "x.toml"))
        assert message in problem.message


# ---- warnings


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (text_of('trusted_proxies = ["0.0.0.0/0"]'), "listener[0].trusted_proxies[0]"),
        (text_of('auth = { users = { bob = "ab0123456789c" } }'), "listener[0].auth.users.bob"),
        (route('path = "/x"\npool = "web"\nauth = { users = { bob = "ab0123456789c" } }'),
         "listener[0].route[0].auth.users.bob"),
        (route('path = "/"\npool = "web"'), "listener[0].pool"),
        (text_of(pool="[pool.spare]\ndemo = 1"), "pool.spare"),
    ],
)
def test_what_is_dangerous_or_pointless_is_warned_about(text: str, key: str) -> None:
    assert [problem.key for problem in parse(text, "lb.toml").warnings] == [key]


def test_a_pool_that_only_a_route_uses_is_used() -> None:
    text = route('path = "/x"\npool = "api"') + "[pool.api]\ndemo = 1\n"
    assert parse(text, "lb.toml").warnings == []


def test_a_backend_that_is_the_listener_is_found_through_a_route() -> None:
    text = route('path = "/x"\npool = "api"') + '[pool.api]\nbackends = ["127.0.0.1:8080"]\n'
    assert "go round for ever" in only(text).message
