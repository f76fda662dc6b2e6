"""What ``lbcore show`` writes loads to the same plan, for any configuration."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from lbcore.config import checks, parse, to_plan
from lbcore.config.models import Config
from lbcore.config.show import effective, to_toml
from lbcore.config.values import MAX_DURATION_MS, format_duration, parse_duration

settings.register_profile("config", suppress_health_check=[HealthCheck.too_slow], deadline=None)

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


def some(keys: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Any selection of keys."""
    return st.fixed_dictionaries({}, optional=keys)


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
            "protocol": st.just("tcp"),
        }))
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
    }
    if balance == "consistent":
        optional |= {
            "hash": st.sampled_from(["maglev", "ketama"]), "hash_on": st.just("source_ip"),
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
            "format": st.sampled_from(["text", "json"]), "path": PATHS | st.just("-"),
        })),
        "listener": draw(listeners(names)),
        "pool": {name: draw(pools()) for name in names},
    }


@given(configurations())
@settings(settings.get_profile("config"), max_examples=150)
def test_what_show_writes_loads_to_the_same_plan(tables: dict[str, Any]) -> None:
    config = Config.model_validate(tables)
    assume(not list(checks.errors(config, list(config.pool))))     # rules about several keys
    again = parse(to_toml(config), "shown").config
    assert to_plan(again) == to_plan(config)
    assert effective(again) == effective(config)
    json.dumps(effective(config))


@given(st.integers(0, MAX_DURATION_MS))
def test_a_duration_that_is_written_reads_the_same(ms: int) -> None:
    assert parse_duration(format_duration(ms)) == ms


@given(TEXT)
def test_any_text_survives_being_written(text: str) -> None:
    tables = {
        "listener": [{"name": "a", "bind": "127.0.0.1:1", "pool": "p"}],
        "pool": {"p": {"demo": 1, "health": {"type": "http", "expect_body": text}}},
    }
    again = parse(to_toml(Config.model_validate(tables)), "shown").config
    assert again.pool["p"].health
    assert again.pool["p"].health.expect_body == text
