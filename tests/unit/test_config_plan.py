"""What a configuration means: defaults filled in, names resolved."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lbcore.config import cpus, default_admin_address, parse, to_plan
from lbcore.config.plan import Address, BackendPlan, HealthPlan, ListenerPlan, Plan, PoolPlan

MINIMAL = """\
[[listener]]
name = "web"
bind = "127.0.0.1:8080"
pool = "web"
[pool.web]
backends = ["app:8000"]
"""


def plan_of(text: str) -> Plan:
    return to_plan(parse(text, "lb.toml").config)


def test_defaults_of_the_file_are_the_defaults_of_the_plan() -> None:
    backend = BackendPlan(name="app:8000", address=Address("app", 8000), label="app:8000")
    assert plan_of(MINIMAL) == Plan(
        listeners=(ListenerPlan(name="web", binds=(Address("127.0.0.1", 8080),), pool=0),),
        pools=(PoolPlan(name="web", backends=(backend,)),),
        workers=cpus.usable_cpus(),
        admin=default_admin_address(),
    )


def test_an_empty_health_table_is_the_default_check() -> None:
    assert plan_of(MINIMAL + "[pool.web.health]\n").pools[0].health == HealthPlan()


def test_every_key_arrives_in_the_plan() -> None:
    plan = plan_of("""\
[lbcore]
workers = 3
drain_timeout = "1s"
user = "u"
group = "g"
pid_file = "/p"
pin_cpus = false
max_pipes = 7
hang_timeout = "3s"
[admin]
listen = "[::1]:9"
[log]
level = "debug"
format = "json"
path = "/l"
[[listener]]
name = "a"
bind = ["127.0.0.1:1", "unix:/s"]
pool = "second"
backlog = 2
max_connections = 3
max_connections_per_source = 4
client_idle_timeout = "5s"
half_closed_timeout = "6s"
proxy_protocol = true
proxy_trusted = ["10.0.0.1"]
proxy_header_timeout = "7s"
defer_accept = "8s"
fastopen = 9
keepalive = false
tcp_user_timeout = "10s"
unix_mode = "0600"
[pool.first]
demo = 2
[pool.second]
balance = "consistent"
hash = "ketama"
hash_on = "source_ip"
load_bound = 1.5
backends = [{ address = "[0::2]:1", name = "n", weight = 0, backup = true, max_connections = 1 },
            "unix:/b"]
connect_timeout = "11ms"
connect_attempts = 12
connect_budget = "13ms"
queue_timeout = "14ms"
max_queue = 15
server_idle_timeout = "16ms"
slow_start = "17ms"
panic_threshold = 0.18
send_proxy = "v2"
source = "::1"
keepalive = false
tcp_user_timeout = "19ms"
[pool.second.health]
type = "http"
path = "/h"
host = "h"
expect_status = [200, "301-302"]
expect_body = "b"
interval = "20ms"
fast_interval = "21ms"
jitter = 0.22
timeout = "23ms"
rise = 24
fall = 25
[pool.second.ejection]
failures = 26
base = "27ms"
max = "28ms"
max_share = 0.29
""")
    assert (plan.workers, plan.drain_timeout_ms, plan.user, plan.group) == (3, 1000, "u", "g")
    assert (plan.pid_file, plan.pin_cpus, plan.max_pipes) == ("/p", False, 7)
    assert (plan.hang_timeout_ms, plan.admin) == (3000, Address("::1", 9))
    assert (plan.log.level, plan.log.format, plan.log.path) == ("debug", "json", "/l")
    assert plan.listeners == (
        ListenerPlan(
            "a", (Address("127.0.0.1", 1), Address(path="/s")), 1, "tcp", 2, 3, 4, 5000, 6000,
            True, ("10.0.0.1/32",), 7000, 8000, 9, False, 10000, 0o600,
        ),
    )
    first, second = plan.pools
    assert (first.name, first.demo) == ("first", 2)
    assert second.backends == (
        BackendPlan("n", Address("::2", 1), 0, True, 1, "[0::2]:1"),
        BackendPlan("unix:/b", Address(path="/b"), label="unix:/b"),
    )
    assert (second.balance, second.hash, second.hash_on) == ("consistent", "ketama", "source_ip")
    assert (second.load_bound, second.connect_timeout_ms, second.connect_attempts) == (1.5, 11, 12)
    assert (second.connect_budget_ms, second.queue_timeout_ms, second.max_queue) == (13, 14, 15)
    assert (second.server_idle_ms, second.slow_start_ms, second.panic_threshold) == (16, 17, 0.18)
    assert (second.send_proxy, second.source, second.keepalive) == (2, Address("::1", 0), False)
    assert second.tcp_user_timeout_ms == 19
    assert second.health == HealthPlan(
        "http", "/h", "h", ((200, 200), (301, 302)), "b", 0, 20, 21, 0.22, 23, 24, 25
    )
    ejection = second.ejection
    assert (ejection.failures, ejection.base_ms, ejection.max_ms) == (26, 27, 28)
    assert ejection.max_share == 0.29


def test_the_clients_own_address_arrives_in_the_plan_of_workers_that_stay_root() -> None:
    (pool,) = plan_of(MINIMAL + "source_transparent = true\n").pools
    assert pool.source_transparent


def test_the_label_of_a_backend_is_the_address_as_it_was_written() -> None:
    plan = plan_of(MINIMAL.replace('"app:8000"', '{ address = "[0:0::1]:80", name = "x" }'))
    (backend,) = plan.pools[0].backends
    assert (backend.label, backend.address.host) == ("[0:0::1]:80", "::1")


def test_fast_checks_are_never_slower_than_others_by_default() -> None:
    health = plan_of(MINIMAL + '[pool.web.health]\ninterval = "100ms"\n').pools[0].health
    assert health is not None
    assert health.fast_interval_ms == 100


@pytest.mark.parametrize(
    ("uid", "runtime", "path"),
    [
        (0, "/run/user/0", "/run/lbcore/admin.sock"),
        (1000, "/run/user/1000", "/run/user/1000/lbcore/admin.sock"),
        (1000, "", "/tmp/lbcore-1000/admin.sock"),
        (1000, "relative", "/tmp/lbcore-1000/admin.sock"),
    ],
)
def test_the_control_socket_has_a_default_place(
    monkeypatch: pytest.MonkeyPatch, uid: int, runtime: str, path: str
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
    assert default_admin_address() == Address(path=path)


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"": "max 100000"}, 4),
        ({}, 4),
        ({"": "200000 100000"}, 2),
        ({"": "150000 100000"}, 2),
        ({"": "50000 100000"}, 1),
        ({"": "900000 100000"}, 4),
        ({"": "300000 100000", "inner": "max 100000", "inner/most": "200000 100000"}, 2),
        ({"": "100000 100000", "inner/most": "300000 100000"}, 1),
        ({"": "garbage"}, 4),
    ],
)
def test_auto_workers_respect_the_cpu_limit_of_the_container(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, limits: dict[str, str], expected: int
) -> None:
    root = tmp_path / "cgroup"
    (root / "inner" / "most").mkdir(parents=True)
    for group, limit in limits.items():
        (root / group / "cpu.max").write_text(limit + "\n")
    membership = tmp_path / "self"
    membership.write_text("1:cpu:/legacy\n0::/inner/most\n")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3})
    monkeypatch.setattr(cpus, "CGROUP_ROOT", root)
    monkeypatch.setattr(cpus, "SELF_CGROUP", membership)
    assert cpus.usable_cpus() == expected
