"""What ``lbcore show`` writes loads to the same plan, for any configuration."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lbcore.config import checks, parse, to_plan
from lbcore.config.http_values import format_size, parse_size
from lbcore.config.models import Config
from lbcore.config.show import effective, to_toml
from lbcore.config.values import MAX_DURATION_MS, format_duration, parse_duration

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,20}", fullmatch=True)
COUNTS = st.integers(0, 2**31 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
LINES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20)
SHARES = st.floats(0, 1)
PORTS = st.integers(1, 65535)
POSITIVE = st.integers(1, MAX_DURATION_MS).map(format_duration)
DURATIONS = POSITIVE | st.just("0")
PATHS = st.from_regex(r"/[A-Za-z0-9_. '\"\\-]{0,30}[A-Za-z0-9]", fullmatch=True)
IPV4 = st.ip_addresses(v=4, network="10.0.0.0/8").map(str)
IPV6 = st.ip_addresses(v=6, network="fd00::/16").map(str)
HOSTS = IPV4 | IPV6.map(lambda ip: f"[{ip}]")
BACKENDS = (
    st.builds("{}:{}".format, HOSTS | st.sampled_from(["app", "db.internal"]), PORTS)
    | PATHS.map(lambda path: f"unix:{path}")
)


SIZES = st.integers(0, 2**62).map(format_size)
MEMORY = st.integers(0, 2**31).map(format_size)
URL_PATHS = st.from_regex(r"/([a-z0-9._~!:|-]{1,4}/?|%7e){0,3}", fullmatch=True).filter(
    lambda path: not {".", ".."} & set(path.split("/")))
TEMPLATES = st.sampled_from(["", "x", "$$1", "$client_ip", "a ${header.x-a}$host", "${cookie.c}"])
RULES = st.fixed_dictionaries({}, optional={
    "set": st.dictionaries(st.sampled_from(["X-A", "X-B"]), TEMPLATES, max_size=2),
    "add": st.dictionaries(st.sampled_from(["X-C", "Via"]), TEMPLATES, max_size=2),
    "remove": st.lists(st.sampled_from(["Server", "x-d"]), max_size=2, unique=True),
})


def some(keys: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Any selection of keys."""
    return st.fixed_dictionaries({}, optional=keys)


def inline(*kinds: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """A table with one of these selections of keys."""
    return st.one_of(*(st.fixed_dictionaries(kind) for kind in kinds))


SETTINGS: dict[str, st.SearchStrategy[Any]] = {
    "max_body": SIZES, "body_timeout": POSITIVE, "first_byte_timeout": POSITIVE,
    "read_timeout": POSITIVE, "send_timeout": POSITIVE, "total_timeout": DURATIONS,
    "tunnel_timeout": DURATIONS, "buffer_request": st.booleans(), "buffer_response": st.booleans(),
    "request_memory": MEMORY, "response_memory": MEMORY, "response_disk": SIZES,
    "allow": st.lists(IPV4 | IPV6, max_size=2), "deny": st.lists(IPV4 | IPV6, max_size=2),
    "auth": inline({"enabled": st.just(False)}, {
        "realm": st.from_regex(r"[ !#-\[\]-~]{0,10}", fullmatch=True),
        "users": st.dictionaries(NAMES, st.just("$2y$05$" + "a" * 53), min_size=1, max_size=2),
    }),
    "rate_limit": some({
        "enabled": st.booleans(), "requests": st.sampled_from(["1/s", "20/m", "7/h", "1000/d"]),
        "burst": st.integers(1, 1000),
        "by": st.sampled_from(["source", "route", "header:X-A", "cookie:sid"]),
    }),
    "retry": some({
        "attempts": st.integers(1, 9), "unsafe": st.booleans(),
        "statuses": st.lists(st.just(429) | st.integers(500, 562), max_size=3),
    }),
    "request_headers": RULES, "response_headers": RULES,
}
CONDITIONS = st.dictionaries(
    st.sampled_from(["x-a", "X-B", "accept"]),
    LINES | inline({"equal": LINES}, {"prefix": LINES}, {"not": LINES}, {"present": st.booleans()},
                   {"regex": st.sampled_from(["^a", "b$", "[0-9]+"])}),
    max_size=3,
)


@st.composite
def routes(draw: st.DrawFn, pools: list[str]) -> dict[str, Any]:
    table: dict[str, Any] = draw(some({
        "methods": st.lists(st.sampled_from(["GET", "HEAD", "POST"]), min_size=1, max_size=3),
        "headers": CONDITIONS, "query": CONDITIONS,
        "host": st.sampled_from(["a.example", "*.B.example"]) | st.lists(
            st.sampled_from(["a.example", "c.example", "*.example"]), min_size=1, max_size=3),
    }))
    table |= draw(some(SETTINGS))
    match draw(st.sampled_from(["path", "path_exact", "path_regex", ""])):
        case "path":
            table["path"] = draw(URL_PATHS)
            table |= draw(inline({}, {"strip_prefix": st.booleans()},
                                 {"rewrite": st.just("/new/$tail")}))
        case "path_exact":
            table["path_exact"] = draw(URL_PATHS)
        case "path_regex":
            table |= {"path_regex": draw(st.sampled_from(["/a(.*)", "/[0-9]+$"])),
                      "rewrite": "/new/$0"}
    return table | draw(inline(
        {"pool": st.sampled_from(pools)},
        {"redirect": st.sampled_from(["/x", "https://$host$uri"]),
         "status": st.sampled_from([301, 302, 303, 307, 308])},
        {"respond": some({"status": st.integers(200, 203), "body": TEXT,
                          "type": st.just("text/html; charset=utf-8")})},
    ))


@st.composite
def http_listeners(draw: st.DrawFn, pools: list[str]) -> dict[str, Any]:
    table: dict[str, Any] = draw(some({
        "head_timeout": POSITIVE, "keepalive_timeout": POSITIVE, "max_requests": COUNTS,
        "max_head": st.sampled_from(["1KiB", "64KiB"]), "max_fields": st.integers(1, 128),
        "trusted_proxies": st.lists(IPV4 | IPV6, max_size=2), "request_id": st.booleans(),
        "forwarded": st.sampled_from(["x-forwarded", "rfc7239", "both", "none"]),
        "via": st.sampled_from(["", "edge"]), "underscores": st.booleans(),
        "abort_on_close": st.booleans(),
    }))
    table |= draw(some(SETTINGS))
    return table | {"protocol": "http", "route": draw(st.lists(routes(pools), max_size=4))}


@st.composite
def listeners(draw: st.DrawFn, pools: list[str]) -> list[dict[str, Any]]:
    names = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    ports = draw(st.lists(PORTS, min_size=len(names), max_size=len(names), unique=True))
    tables = []
    for name, port in zip(names, ports, strict=True):
        table = draw(some({
            "backlog": st.integers(1, 65535), "max_connections": COUNTS,
            "max_connections_per_source": COUNTS, "client_idle_timeout": DURATIONS,
            "half_closed_timeout": DURATIONS, "proxy_protocol": st.booleans(),
            "proxy_header_timeout": POSITIVE, "defer_accept": DURATIONS,
            "fastopen": st.integers(0, 65535), "keepalive": st.booleans(),
            "tcp_user_timeout": DURATIONS, "unix_mode": st.from_regex("0?[0-7]{3}", fullmatch=True),
        }))
        if draw(st.booleans()):
            table.pop("client_idle_timeout", None)
            table |= draw(http_listeners(pools))
        if table.get("proxy_protocol"):
            table["proxy_trusted"] = draw(st.lists(IPV4 | IPV6, max_size=3))
        bind = f"127.0.0.1:{port}"
        table |= {"name": name, "pool": draw(st.sampled_from(pools))}
        table["bind"] = draw(st.sampled_from([bind, [bind], [bind, f"[::1]:{port}"]]))
        tables.append(table)
    return tables


@st.composite
def pools(draw: st.DrawFn) -> dict[str, Any]:
    backends = draw(st.lists(
        BACKENDS | st.builds(
            lambda address, rest: {"address": address, **rest},
            BACKENDS,
            some({"name": NAMES, "weight": st.integers(0, 1000), "backup": st.booleans(),
                  "max_connections": COUNTS}),
        ), max_size=5,
    ))
    balance = draw(st.sampled_from(["round_robin", "least_conn", "random", "consistent"]))
    optional: dict[str, st.SearchStrategy[Any]] = {
        "connect_timeout": POSITIVE, "connect_attempts": st.integers(1, 1000),
        "connect_budget": POSITIVE, "queue_timeout": POSITIVE, "max_queue": COUNTS,
        "server_idle_timeout": DURATIONS, "slow_start": DURATIONS, "panic_threshold": SHARES,
        "send_proxy": st.sampled_from(["off", "v1", "v2"]), "source_transparent": st.booleans(),
        "keepalive": st.booleans(), "tcp_user_timeout": DURATIONS,
        "keepalive_idle": DURATIONS, "keepalive_connections": st.integers(0, 65535),
        "retry_share": SHARES,
        "ejection": some({"failures": st.integers(0, 9), "slow": DURATIONS,
                          "statuses": st.lists(st.just(429) | st.integers(500, 562))}),
        "sticky": some({"cookie": st.just("route"), "mode": st.just("learn"),
                        "expiry": POSITIVE}) | some({
            "cookie": st.just("route"), "secret": st.just("0123456789abcdef"),
            "path": st.just("/x"), "secure": st.just(True), "http_only": st.booleans(),
            "same_site": st.sampled_from(["", "None", "Lax"]),
            "max_age": st.sampled_from(["0", "1h"]),
        }),
    }
    if balance == "consistent":
        optional |= {
            "hash": st.sampled_from(["maglev", "ketama"]),
            "hash_on": st.sampled_from(["source_ip", "header:X-A", "uri"]),
            "load_bound": st.just(0) | st.floats(1.01, 1000),
        }
    pool = draw(some(optional)) | {"balance": balance, "backends": backends}
    pool["demo"] = draw(st.integers(0, 3)) if backends else draw(st.integers(1, 3))
    kind = draw(st.sampled_from([None, "tcp", "http"]))
    if kind:
        checks_of: dict[str, st.SearchStrategy[Any]] = {
            "interval": POSITIVE, "fast_interval": POSITIVE, "jitter": st.floats(0, 0.5),
            "timeout": POSITIVE, "rise": st.integers(1, 1000), "fall": st.integers(1, 1000),
        }
        if kind == "http":
            checks_of |= {
                "path": st.from_regex(r"/[!-~]{0,20}", fullmatch=True),
                "host": st.from_regex(r"[!-~]{0,20}", fullmatch=True),
                "expect_status": st.lists(
                    st.integers(100, 599) | st.sampled_from(["200-299", "404"]), min_size=1
                ),
                "expect_body": TEXT,
            }
        pool["health"] = draw(some(checks_of)) | {"type": kind}
    return pool


@st.composite
def configurations(draw: st.DrawFn) -> dict[str, Any]:
    names = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    return {
        "lbcore": draw(some({
            "workers": st.just("auto") | st.integers(1, 64), "drain_timeout": DURATIONS,
            "user": LINES, "group": LINES, "pid_file": PATHS, "pin_cpus": st.booleans(),
            "max_pipes": st.integers(0, 65536),
        })),
        "admin": draw(some({"listen": PATHS.map(lambda path: f"unix:{path}")})),
        "log": draw(some({
            "level": st.sampled_from(["debug", "info", "warning", "error"]),
            "format": st.sampled_from(["text", "json", "combined"]), "path": PATHS | st.just("-"),
            "access": PATHS | st.just("-"),
        })),
        "listener": draw(listeners(names)),
        "pool": {name: draw(pools()) for name in names},
    }


def without_contradictions(tables: dict[str, Any]) -> dict[str, Any]:
    """The same without the keys and routes that errors are about, if that helps."""
    tables = deepcopy(tables)
    for _ in range(8):
        config = Config.model_validate(tables)
        found = list(checks.errors(config, list(config.pool)))
        if not found:
            break
        for path in {finding.path for finding in found}:
            place: Any = tables
            for part in path[:-1]:
                place = place.get(part, {}) if isinstance(place, dict) else place[part]
            if isinstance(place, dict):
                place.pop(path[-1], None)
            elif path[-2] == "route":
                place[path[-1]] = None
        for table in tables["listener"]:
            if "route" in table:
                table["route"] = [route for route in table["route"] if route is not None]
    return tables


@given(configurations())
@settings(max_examples=60)
def test_what_show_writes_loads_to_the_same_plan(tables: dict[str, Any]) -> None:
    config = Config.model_validate(without_contradictions(tables))
    assume(not list(checks.errors(config, list(config.pool))))     # rules about several keys
    again = parse(to_toml(config), "shown").config
    assert to_plan(again) == to_plan(config)
    assert effective(again) == effective(config)
    json.dumps(effective(config))


@given(st.integers(0, MAX_DURATION_MS))
def test_a_duration_that_is_written_reads_the_same(ms: int) -> None:
    assert parse_duration(format_duration(ms)) == ms


@given(st.integers(0, 2**62))
def test_a_size_that_is_written_reads_the_same(size: int) -> None:
    assert parse_size(format_size(size)) == size


@given(TEXT)
def test_any_text_survives_being_written(text: str) -> None:
    tables = {
        "listener": [{"name": "a", "bind": "127.0.0.1:1", "pool": "p"}],
        "pool": {"p": {"demo": 1, "health": {"type": "http", "expect_body": text}}},
    }
    again = parse(to_toml(Config.model_validate(tables)), "shown").config
    assert again.pool["p"].health
    assert again.pool["p"].health.expect_body == text
