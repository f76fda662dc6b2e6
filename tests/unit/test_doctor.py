"""``lbcore doctor``: what it makes of a machine that the test describes, and of this one."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from lbcore.cli import execute
from lbcore.config.plan import Address, BackendPlan, ListenerPlan, Plan, PoolPlan
from lbcore.config.problems import Problem
from lbcore.doctor import Check, Level, examine, kernel, limits, sysctl
from lbcore.doctor.limits import Running
from lbcore.doctor.needs import Needs

GOOD = {
    "fs.nr_open": "1073741816", "fs.file-max": "9223372036854775807",
    "fs.pipe-user-pages-soft": "1000000",
    "net.core.somaxconn": "4096", "net.core.netdev_max_backlog": "1000",
    "net.ipv4.tcp_max_syn_backlog": "4096", "net.ipv4.tcp_syncookies": "1",
    "net.ipv4.ip_local_port_range": "32768 60999", "net.ipv4.ip_local_reserved_ports": "",
    "net.ipv4.tcp_tw_reuse": "1", "net.ipv4.tcp_migrate_req": "1",
    "net.ipv4.tcp_fin_timeout": "60", "net.ipv4.tcp_fastopen": "1",
    "net.ipv4.tcp_rmem": "4096 131072 6291456", "net.ipv4.tcp_wmem": "4096 16384 4194304",
    "net.ipv4.tcp_slow_start_after_idle": "0", "net.ipv4.ip_nonlocal_bind": "0",
    "net.ipv4.ip_unprivileged_port_start": "1024",
    "net.netfilter.nf_conntrack_max": "262144", "net.netfilter.nf_conntrack_count": "10",
}
LISTENER = ListenerPlan("web", (Address("127.0.0.1", 8080),), 0)
POOL = PoolPlan("web", (BackendPlan("a", Address("10.0.0.1", 80)),))


def plan(*, listener: ListenerPlan = LISTENER, pool: PoolPlan = POOL, workers: int = 2) -> Plan:
    return Plan((listener,), (pool,), workers, Address(path="/run/lbcore/admin.sock"))


def judged(name: str, value: str, what: Plan | None = None) -> Check:
    """What is said of one setting of a machine that is good otherwise."""
    found = sysctl.checks(Needs.of(what or plan()), GOOD | {name: value})
    return next(check for check in found if check.name == name)


def test_a_machine_with_good_settings_needs_no_change() -> None:
    assert all(check.level == "ok" for check in sysctl.checks(Needs.of(plan()), GOOD))


@pytest.mark.parametrize(("name", "value", "level", "change"), [
    ("net.core.somaxconn", "128", "advice", "net.core.somaxconn = 4096"),
    ("net.ipv4.tcp_syncookies", "0", "advice", "net.ipv4.tcp_syncookies = 1"),
    ("net.ipv4.tcp_max_syn_backlog", "128", "note", "net.ipv4.tcp_max_syn_backlog = 4096"),
    ("net.core.netdev_max_backlog", "300", "advice", "net.core.netdev_max_backlog = 1000"),
    ("net.ipv4.tcp_rmem", "4096 131072 212992", "note",
     "net.ipv4.tcp_rmem = 4096 131072 4194304"),
    ("net.ipv4.tcp_migrate_req", "0", "note", "net.ipv4.tcp_migrate_req = 1"),
    ("net.ipv4.tcp_fin_timeout", "180", "advice", "net.ipv4.tcp_fin_timeout = 60"),
    ("net.ipv4.tcp_tw_reuse", "2", "note", "net.ipv4.tcp_tw_reuse = 1"),
    ("net.ipv4.tcp_slow_start_after_idle", "1", "note",
     "net.ipv4.tcp_slow_start_after_idle = 0"),
    ("net.ipv4.ip_local_port_range", "50000 51000", "advice",
     "net.ipv4.ip_local_port_range = 1024 65535"),
    ("net.netfilter.nf_conntrack_count", "260000", "", ""),
])
def test_a_setting_that_is_in_the_way_comes_with_the_line_to_write(
    name: str, value: str, level: str, change: str
) -> None:
    if not level:                # the one that is looked at with another
        check = next(c for c in sysctl.checks(Needs.of(plan()), GOOD | {name: value})
                     if c.name == "net.netfilter.nf_conntrack_max")
        assert (check.level, check.change) == ("advice", "net.netfilter.nf_conntrack_max = 524288")
        return
    check = judged(name, value)
    assert (check.level, check.change) == (level, change)
    assert check.why
    assert check.where.startswith("/etc/sysctl.d/")


def test_a_setting_that_this_kernel_does_not_have_is_passed_over() -> None:
    assert list(sysctl.checks(Needs.of(plan()), {})) == []


def test_connections_that_are_configured_need_ports_and_room_in_conntrack() -> None:
    much = plan(listener=replace(LISTENER, max_connections=200_000))
    ports = judged("net.ipv4.ip_local_port_range", "32768 60999", much)
    assert ports.level == "advice"
    assert "200,000" in ports.why
    table = judged("net.netfilter.nf_conntrack_max", "262144", much)
    assert table.change == "net.netfilter.nf_conntrack_max = 400000"
    spread = replace(POOL, backends=tuple(
        BackendPlan(str(n), Address("10.0.0.1", 80 + n)) for n in range(20)))
    assert judged("net.ipv4.ip_local_port_range", "32768 60999",
                  plan(listener=replace(LISTENER, max_connections=200_000),
                       pool=spread)).level == "ok"


@pytest.mark.parametrize(("reserved", "level", "wanted"), [
    ("", "advice", "40000"), ("1-5", "advice", "1-5,40000"), ("40000", "ok", ""),
    ("39999-40001", "ok", ""),
])
def test_the_port_of_a_listener_is_kept_from_outgoing_connections(
    reserved: str, level: str, wanted: str
) -> None:
    inside = plan(listener=replace(LISTENER, binds=(Address("127.0.0.1", 40000),)))
    check = judged("net.ipv4.ip_local_reserved_ports", reserved, inside)
    assert (check.level, check.wanted) == (level, wanted)


def test_who_widens_the_range_as_advised_is_told_of_the_ports_to_keep_out_of_it() -> None:
    many = Needs.of(plan(listener=replace(LISTENER, max_connections=50_000)))
    found = {check.name: check for check in sysctl.checks(many, GOOD)}
    wide = found["net.ipv4.ip_local_port_range"].wanted
    reserved = found["net.ipv4.ip_local_reserved_ports"].wanted
    assert (wide, reserved) == ("1024 65535", "8080")
    again = GOOD | {"net.ipv4.ip_local_port_range": wide,
                    "net.ipv4.ip_local_reserved_ports": reserved}
    assert all(check.level == "ok" for check in sysctl.checks(many, again)
               if "nf_conntrack" not in check.name)


def test_fastopen_is_looked_at_where_a_listener_uses_it() -> None:
    assert "net.ipv4.tcp_fastopen" not in [
        check.name for check in sysctl.checks(Needs.of(plan()), GOOD)]
    fast = plan(listener=replace(LISTENER, fastopen=16))
    assert judged("net.ipv4.tcp_fastopen", "1", fast).change == "net.ipv4.tcp_fastopen = 3"


def test_an_address_that_is_elsewhere_is_a_problem_unless_the_kernel_takes_it() -> None:
    far = plan(listener=replace(LISTENER, binds=(Address("192.0.2.77", 80),)))
    assert judged("net.ipv4.ip_nonlocal_bind", "0", far).level == "problem"
    assert judged("net.ipv4.ip_nonlocal_bind", "1", far).level == "ok"


def test_a_low_port_needs_a_capability_which_root_of_a_container_may_lack(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    low = plan(listener=replace(LISTENER, binds=(Address("127.0.0.1", 80),)))
    monkeypatch.setattr(sysctl, "capable", lambda number: False)
    check = judged("net.ipv4.ip_unprivileged_port_start", "1024", low)
    assert (check.level, check.change) == ("problem", "AmbientCapabilities=CAP_NET_BIND_SERVICE")
    assert judged("net.ipv4.ip_unprivileged_port_start", "80", low).level == "ok"
    monkeypatch.setattr(sysctl, "capable", lambda number: number == 10)
    assert judged("net.ipv4.ip_unprivileged_port_start", "1024", low).level == "ok"


@pytest.mark.parametrize(("limit", "level"), [(60, "problem"), (1024, "advice"), (65536, "ok")])
def test_descriptors_decide_how_many_connections_there_can_be(
    monkeypatch: pytest.MonkeyPatch, limit: int, level: str
) -> None:
    monkeypatch.setattr(limits, "descriptor_limit", lambda: limit)
    found = {check.name: check for check in limits.checks(Needs.of(plan()), None, GOOD)}
    assert found["open files"].level == level
    if level != "ok":
        assert found["open files"].change.startswith("LimitNOFILE=")


def test_the_limit_that_is_advised_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = plan(listener=replace(LISTENER, max_connections=50_001))
    monkeypatch.setattr(limits, "descriptor_limit", lambda: 20_000)
    [check] = [c for c in limits.checks(Needs.of(wanted), None, GOOD) if c.name == "open files"]
    assert check.level == "advice"
    enough = int(check.change.partition("=")[2])
    monkeypatch.setattr(limits, "descriptor_limit", lambda: enough)
    [check] = [c for c in limits.checks(Needs.of(wanted), None, GOOD) if c.name == "open files"]
    assert check.level == "ok"


def test_a_running_instance_is_asked_for_its_own_limit() -> None:
    me = Running(os.getpid(), (os.getpid(),), "1")
    assert limits.limit_for(me) == (me.descriptor_limit(), "of the running workers")
    assert (me.resident() or 0) > 1 << 20
    gone = Running(2**22 + 1, (2**22 + 1,))
    assert gone.descriptor_limit() is None
    assert gone.resident() is None


def test_memory_of_a_small_cgroup_is_advised_to_grow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "group/inner").mkdir(parents=True)
    (tmp_path / "group/memory.max").write_text("67108864\n")
    (tmp_path / "group/inner/memory.max").write_text("max\n")
    (tmp_path / "membership").write_text("0::/group/inner\n")
    monkeypatch.setattr(limits, "CGROUP_ROOT", tmp_path)
    monkeypatch.setattr(limits, "SELF_CGROUP", tmp_path / "membership")
    [check] = [c for c in limits.checks(Needs.of(plan()), None, GOOD) if c.name == "memory"]
    assert (check.level, check.value) == ("advice", "64 MiB allowed by its cgroup")


def test_a_feature_that_is_missing_says_what_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(kernel, "FEATURES", (("memfd", refused, Level.PROBLEM, "it is shared"),))
    version, memfd = kernel.checks()
    assert version.name == "version"
    assert (memfd.level, memfd.why) == ("problem", "it is shared")


def test_exit_codes_and_lines_follow_from_the_worst() -> None:
    fine = examine(plan(), sysctls=GOOD)
    assert fine.exit_code == 0
    advice = examine(plan(), sysctls=GOOD | {"net.core.somaxconn": "128"})
    assert advice.exit_code == 1
    assert advice.changes() == {"/etc/sysctl.d/90-lbcore.conf": ["net.core.somaxconn = 4096"]}
    problem = examine(plan(), sysctls=GOOD, obstacles=[
        Problem("lb.toml", 3, "listener[0].bind", "127.0.0.1:8080 is in use", "another port")])
    assert problem.exit_code == 2


def test_notes_are_no_reason_to_change_anything() -> None:
    report = examine(plan(), sysctls=GOOD | {"net.ipv4.tcp_migrate_req": "0"})
    assert (report.exit_code, report.changes()) == (0, {})
    assert report.changes(notes=True) == {
        "/etc/sysctl.d/90-lbcore.conf": ["net.ipv4.tcp_migrate_req = 1"]}


def test_every_setting_that_is_judged_is_read() -> None:
    assert set(GOOD) <= set(sysctl.NAMES)


def test_this_machine_is_told_in_text_and_in_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    admin = f"unix:{tmp_path}/admin.sock"
    code = execute(["doctor", "--admin", admin, "--all"])
    text = capsys.readouterr().out
    assert "not running" in text
    assert "net.core.somaxconn" in text
    assert execute(["doctor", "--admin", admin, "--json"]) == code
    said = json.loads(capsys.readouterr().out)
    assert said["exit_code"] == code
    assert {"section", "name", "value", "level", "wanted", "why", "change", "where"} == set(
        said["checks"][0])


def test_an_instance_that_does_not_run_is_not_ready(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(["ready", "--admin", f"unix:{tmp_path}/admin.sock"]) == 1
    assert "no lbcore answers" in capsys.readouterr().err
