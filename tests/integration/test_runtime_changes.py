"""What can be changed at run time, while connections and requests come all the time."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from lbcore.admin.calls import backend
from lbcore.admin.client import AdminError
from tests.support.echo import Backends
from tests.support.http_load import HttpLoad
from tests.support.http_servers import Server, uvicorns
from tests.support.instance import ROOT, Instance, free_port, instance, until
from tests.support.load import Load

Json = dict[str, Any]


@pytest.fixture(scope="module")
def servers() -> Iterator[list[Server]]:
    """Three applications under uvicorn."""
    with uvicorns(3) as made:
        yield made


@pytest.fixture(scope="module")
def echoes() -> Iterator[list[str]]:
    """Three backends that send back what they get."""
    with Backends() as made:
        yield made.echo(3)


@pytest.fixture(scope="module")
def running(servers: list[Server], echoes: list[str]) -> Iterator[Instance]:
    """Two workers; ``main`` is tcp before two echoing backends, ``web`` http before two servers."""
    with instance() as made:
        made.file["lbcore"]["workers"] = 2
        made.file["listener"].append({"name": "web", "bind": f"127.0.0.1:{free_port()}",
                                      "protocol": "http", "pool": "web"})
        made.file["pool"]["web"] = {"backends": [one.address for one in servers[:2]]}
        made.pool["backends"] = echoes[:2]
        made.write()
        made.start()
        yield made
        assert made.complaints() == []


@pytest.fixture
def lb(running: Instance) -> Iterator[Instance]:
    """The same instance for every test, which ends as its file says."""
    yield running
    running.admin.forget_changes()
    assert running.admin.changes()["changes"] == []


def web(lb: Instance) -> tuple[str, int]:
    """Where HTTP is served."""
    host, port = lb.file["listener"][1]["bind"].split(":")
    return host, int(port)


def version(lb: Instance) -> int:
    """Of what is in force."""
    return int(lb.status()["plan_version"])


def names(lb: Instance, pool: str = "main") -> list[str]:
    """The backends of a pool."""
    return [one["name"] for found in lb.status()["pools"] if found["name"] == pool
            for one in found["backends"]]


def shown(lb: Instance, name: str, pool: str = "main") -> Json:
    """What status says of a backend."""
    return next(dict(one) for found in lb.status()["pools"] if found["name"] == pool
                for one in found["backends"] if one["name"] == name)


@contextlib.contextmanager
def held(lb: Instance, word: str) -> Iterator[None]:
    """Keeps the process whose command has this word from going on, as soon as there is one."""
    (pid,) = until(lambda: [pid for pid, command in lb.processes().items() if word in command],
                   word)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def refused(status: int, error: pytest.ExceptionInfo[AdminError]) -> bool:
    """Whether that is why."""
    return bool(error.value.status == status)


def test_backends_that_come_go_and_change_fail_nobody(
    lb: Instance, servers: list[Server], echoes: list[str],
) -> None:
    third = {"main": echoes[2], "web": servers[2].address}
    two = {"main": echoes[:2], "web": [one.address for one in servers[:2]]}
    with Load(lb.address) as connections, HttpLoad(web(lb)) as requests:
        for _ in range(3):
            for pool, new in third.items():
                first, second = two[pool]
                lb.admin.add(pool, {"address": new, "name": "new", "weight": 3})
                lb.admin.patch(pool, first, {"weight": 0, "max_connections": 500})
                requests.wait_for(30)
                lb.admin.patch(pool, second, {"drain": True})
                requests.wait_for(30)
                lb.admin.replace(pool, [second, {"address": new, "name": "new"}])
                lb.admin.change([
                    {"op": "drain", "pool": pool, "backend": second, "value": False},
                    {"op": "add", "pool": pool, "backend": first},
                    {"op": "remove", "pool": pool, "backend": "new"}])
                assert sorted(names(lb, pool)) == sorted(two[pool])
                requests.wait_for(30)
        connections.expect_no_failure()
        report = requests.expect_no_failure()
    assert len(report.names) == 3       # the one that came has answered, too
    assert lb.admin.changes()["changes"] == []


def test_what_stays_keeps_its_counters_and_connections(lb: Instance, echoes: list[str]) -> None:
    with Load(lb.address, rate=100) as load:
        load.wait_for(50)
        load.expect_no_failure()
    before = shown(lb, echoes[0])["connections"]
    assert before > 0
    lb.admin.replace("main", [{"address": echoes[0], "weight": 9}, echoes[2]])
    after = shown(lb, echoes[0])
    assert after["connections"] == before and after["weight"] == 9
    assert names(lb) == [echoes[0], echoes[2]]


@pytest.mark.parametrize("what", ["add", "remove", "replace", "patch", "change", "forget_changes",
                                  "log_level", "workers", "reload"])
def test_change_of_another_version_than_expected_changes_nothing(
    lb: Instance, echoes: list[str], what: str,
) -> None:
    lb.admin.weight("main", echoes[0], 7)
    now, before = version(lb), lb.admin.changes()
    arguments: dict[str, tuple[Any, ...]] = {
        "add": ("main", {"address": echoes[2]}), "remove": ("main", echoes[0]),
        "replace": ("main", [echoes[2]]), "patch": ("main", echoes[0], {"drain": True}),
        "change": ([{"op": "remove", "pool": "main", "backend": echoes[0]}],),
        "forget_changes": (None,), "log_level": ("debug",), "workers": (3,), "reload": ()}
    with pytest.raises(AdminError) as error:
        getattr(lb.admin, what)(*arguments[what], expect=now - 1)
    assert refused(412, error)
    assert lb.admin.changes() == before and version(lb) == now
    assert names(lb) == echoes[:2]


def test_expected_version_lets_exactly_one_of_two_changes_through(
    lb: Instance, echoes: list[str],
) -> None:
    now = version(lb)
    said = lb.admin.weight("main", echoes[0], 7, expect=now)
    assert said["plan_version"] == now + 1 and said["weight"] == 7
    with pytest.raises(AdminError) as error:
        lb.admin.weight("main", echoes[0], 8, expect=now)
    assert refused(412, error) and shown(lb, echoes[0])["weight"] == 7


def test_what_several_count_up_at_once_with_if_match_is_counted_exactly(
    lb: Instance, echoes: list[str],
) -> None:
    one = backend("main", echoes[0])

    def count_up(times: int) -> None:
        while times:
            seen = lb.admin.do(one)
            try:
                lb.admin.weight("main", echoes[0], seen["weight"] + 1, expect=seen["plan_version"])
                times -= 1
            except AdminError as error:
                assert error.status == 412

    before = shown(lb, echoes[0])["weight"]
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(count_up, 60) for _ in range(4)]:
            done.result()
    assert shown(lb, echoes[0])["weight"] == before + 240


def test_a_new_version_is_never_seen_with_what_an_old_one_stood_for(
    lb: Instance, echoes: list[str],
) -> None:
    """A worker that does not listen keeps a change from being answered, not from being seen."""
    before = lb.admin.changes()["plan_version"]
    stopped = lb.serving()[0]["pid"]
    os.kill(stopped, signal.SIGSTOP)
    try:
        with ThreadPoolExecutor(1) as pool:
            change = pool.submit(lb.admin.add, "main", {"address": echoes[2]})
            until(lambda: lb.admin.changes()["plan_version"] > before, "another version")
            assert [one["op"] for one in lb.admin.changes()["changes"]] == ["add"]
            assert not change.done()
            os.kill(stopped, signal.SIGCONT)
            change.result()
    finally:
        os.kill(stopped, signal.SIGCONT)


def test_one_bad_change_of_several_changes_nothing(lb: Instance, echoes: list[str]) -> None:
    now = version(lb)
    good: list[Json] = [{"op": "add", "pool": "main", "backend": {"address": echoes[2]}},
            {"op": "force", "pool": "main", "backend": echoes[0], "value": "down"}]
    bad: Json
    for bad, status in (
        ({"op": "remove", "pool": "main", "backend": "nobody"}, 404),
        ({"op": "add", "pool": "main", "backend": {"address": echoes[1]}}, 409),
        ({"op": "add", "pool": "none", "backend": {"address": echoes[1]}}, 404),
        ({"op": "add", "pool": "main", "backend": {"address": "10.0.0.1:99999"}}, 422),
    ):
        with pytest.raises(AdminError) as error:
            lb.admin.change([*good, bad])
        assert refused(status, error), error.value
        assert lb.admin.changes()["changes"] == [] and version(lb) == now
        assert names(lb) == echoes[:2] and shown(lb, echoes[0])["forced"] is None


def test_what_no_file_may_say_is_refused_with_the_reason(lb: Instance, echoes: list[str]) -> None:
    cases: list[tuple[str, tuple[Any, ...], int, str]] = [
        ("add", ("main", {"address": "10.0.0.1"}), 422, "port"),
        ("add", ("main", {"address": f"127.0.0.1:{lb.port}"}), 422, "go round for ever"),
        ("add", ("main", {"address": echoes[2], "weight": 1001}), 400, "1001"),
        ("add", ("main", {"address": echoes[2], "colour": "red"}), 400, "colour"),
        ("replace", ("main", [{"address": one, "name": "a"} for one in echoes]), 422, "called"),
        ("replace", ("main", []), 422, "no backends"),
        ("patch", ("main", echoes[0], {"max_connections": -1}), 400, ""),
    ]
    for what, arguments, status, why in cases:
        with pytest.raises(AdminError) as error:
            getattr(lb.admin, what)(*arguments)
        assert refused(status, error), error.value
        said = str(error.value) + str(error.value.problems)
        assert why in said, said
    lb.admin.remove("main", echoes[0])
    with pytest.raises(AdminError) as error:
        lb.admin.remove("main", echoes[1])
    assert refused(409, error) and names(lb) == [echoes[1]]
    with pytest.raises(AdminError) as error:
        lb.admin.weight("main", echoes[1], 0)
    assert refused(422, error)


def test_other_backends_by_the_thousand_have_to_wait_for_the_room_of_those_that_left(
    lb: Instance, echoes: list[str],
) -> None:
    before = names(lb)

    def fill(turn: int) -> None:
        lb.admin.replace("main", [f"127.{turn}.{n // 250}.{n % 250 + 1}:1" for n in range(6000)])

    fill(1)
    fill(2)
    with pytest.raises(AdminError, match="no room for another backend just now") as error:
        fill(3)
    assert refused(503, error) and "try again" in error.value.hint
    assert names(lb)[0] == "127.2.0.1:1"
    lb.admin.forget_changes("main")
    assert names(lb) == before and lb.complaints() == []


def test_forced_backend_does_not_do_what_checks_say(lb: Instance, echoes: list[str]) -> None:
    dead = free_port()
    lb.file["pool"]["main"]["health"] = {"interval": "100ms"}
    lb.write()
    lb.admin.reload()
    lb.admin.add("main", {"address": f"127.0.0.1:{dead}", "name": "dead", "weight": 1000})
    until(lambda: shown(lb, "dead")["state"] == "down", "a check that fails")
    lb.admin.force("main", "dead", "up")
    one = shown(lb, "dead")
    assert (one["state"], one["forced"], one["reason"]) == ("up", "up", "forced by the operator")
    failing = one["failures"]
    with Load(lb.address, rate=100) as load:     # it is asked, and others take over
        load.wait_for(50)
        load.expect_no_failure()
    assert shown(lb, "dead")["failures"] > failing
    assert shown(lb, "dead")["state"] == "up"

    lb.admin.force("main", echoes[0], "down")
    checked = shown(lb, echoes[0])["last_check"]["at"]
    until(lambda: shown(lb, echoes[0])["last_check"]["at"] != checked, "another check")
    one = shown(lb, echoes[0])
    assert (one["state"], one["underlying"], one["last_check"]["ok"]) == ("down", "up", True)
    before = one["connections"]
    with Load(lb.address, rate=100) as load:
        load.wait_for(50)
        load.expect_no_failure()
    assert shown(lb, echoes[0])["connections"] == before

    lb.admin.force("main", "dead", None)
    until(lambda: shown(lb, "dead")["state"] == "down", "checks decide again")
    lb.admin.force("main", echoes[0], None)
    assert shown(lb, echoes[0])["state"] == "up"
    del lb.file["pool"]["main"]["health"]
    lb.write()
    lb.admin.forget_changes()
    lb.admin.reload()


def test_forced_down_takes_nothing_even_when_all_are_tried(
    lb: Instance, echoes: list[str],
) -> None:
    lb.file["pool"]["main"] |= {"health": {"interval": "100ms"}, "panic_threshold": 1.0}
    lb.write()
    lb.admin.reload()
    lb.admin.add("main", {"address": f"127.0.0.1:{free_port()}", "name": "dead"})
    lb.admin.force("main", echoes[0], "down")
    until(lambda: "panic" in next(pool["state"] for pool in lb.status()["pools"]
                                  if pool["name"] == "main"), "panic")
    before = shown(lb, echoes[0])["connections"]
    with Load(lb.address, rate=100) as load:
        load.wait_for(50)
        load.expect_no_failure()
    assert shown(lb, echoes[0])["connections"] == before
    for key in ("health", "panic_threshold"):
        del lb.file["pool"]["main"][key]
    lb.write()
    lb.admin.forget_changes()
    lb.admin.reload()


def everything(lb: Instance, echoes: list[str]) -> Json:
    """One change of every kind; returns the differences without their times."""
    lb.admin.change([
        {"op": "add", "pool": "main", "backend": {"address": echoes[2], "name": "new"}},
        {"op": "remove", "pool": "main", "backend": echoes[1]},
        {"op": "weight", "pool": "main", "backend": echoes[0], "value": 5},
        {"op": "drain", "pool": "web", "backend": names(lb, "web")[0], "value": True},
        {"op": "force", "pool": "main", "backend": "new", "value": "up"}])
    lb.admin.patch("web", names(lb, "web")[1], {"max_connections": 70})
    lb.admin.workers(3)
    lb.admin.log_level("debug")
    return lb.admin.changes()


def in_force(lb: Instance, echoes: list[str]) -> None:
    """That all of :func:`everything` is."""
    found = lb.status()
    assert names(lb) == [echoes[0], "new"] and found["changes"] == 8
    assert shown(lb, echoes[0])["weight"] == 5 and shown(lb, echoes[0])["weight_configured"] == 1
    assert shown(lb, "new")["forced"] == "up" and shown(lb, "new")["runtime"]
    first, second = found["pools"][1]["backends"]
    assert first["state"] == "drain" and second["max_connections"] == 70
    assert found["workers_wanted"] == 3 and found["pools"][0]["source"] == "api"
    with Load(lb.address, rate=100) as load:
        load.wait_for(30)
        load.expect_no_failure()


def test_changes_survive_reload_upgrade_and_a_killed_supervisor(
    lb: Instance, echoes: list[str],
) -> None:
    before = everything(lb, echoes)
    in_force(lb, echoes)
    with Load(lb.address, rate=200) as load, HttpLoad(web(lb), each=1) as requests:
        lb.admin.reload()
        in_force(lb, echoes)
        assert lb.admin.changes()["changes"] == before["changes"]

        old = [one["pid"] for one in lb.serving()]
        lb.signal(signal.SIGUSR2)
        with held(lb, "lbcore.supervisor.preflight"):    # trying may take its time: nobody waits
            lb.admin.patch("web", names(lb, "web")[0], {"weight": 9})
            lb.admin.patch("web", names(lb, "web")[0], {"weight": None})
            with pytest.raises(AdminError, match="an upgrade is under way already"):
                lb.admin.upgrade()
        lb.wait_serving(3, but=old)
        in_force(lb, echoes)
        assert lb.admin.changes()["changes"] == before["changes"]

        now, old = version(lb), [one["pid"] for one in lb.serving()]
        lb.kill_supervisor()
        load.wait_for(50)
        lb.start()
        lb.wait_serving(3, but=old)
        in_force(lb, echoes)
        assert lb.admin.changes()["changes"] == before["changes"]
        assert version(lb) > now
        load.expect_no_failure()
        requests.expect_no_failure()
    assert [one["event"] for one in lb.admin.events(level="info", limit=1000)["events"]
            ].count("changes.restored") == 1
    lb.admin.forget_changes()
    lb.wait_serving(2)
    assert names(lb) == echoes[:2] and shown(lb, echoes[0])["weight"] == 1


def test_upgrade_waits_for_nobody_who_wants_to_change_something(echoes: list[str]) -> None:
    """Each of them is answered: it is done, or not and to be asked for again."""
    with instance() as made, ThreadPoolExecutor(6) as pool:
        made.pool["backends"] = echoes
        made.write()
        made.start()
        over = threading.Event()
        refused = threading.Event()

        def script(number: int) -> list[str]:
            done: list[str] = []
            while not over.is_set():
                name = f"{number}-{len(done)}"
                try:
                    made.admin.add("main", {"address": echoes[0], "name": name})
                    done.append(name)
                except AdminError as error:
                    assert (error.status, "upgrade" in str(error)) == (409, True)
                    refused.set()
            return done

        scripts = [pool.submit(script, number) for number in range(6)]
        try:
            made.wait_for("changed", 12)
            made.admin.upgrade()
            made.wait_for("upgraded")
        finally:
            over.set()
        done = {name for one in scripts for name in one.result()}
        assert refused.is_set()
        assert {one["backend"] for one in made.admin.changes()["changes"]} == done
        assert made.complaints() == []


def test_changes_outlive_a_start_that_fails(echoes: list[str]) -> None:
    with instance() as made:
        made.pool["backends"] = echoes[:2]
        made.write()
        made.start()
        made.admin.drain("main", echoes[0])
        version = made.status()["plan_version"]
        for pid in made.processes():     # as when the machine has no memory left
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        made.exit_code()
        until(lambda: not made.processes(), "the end of all")
        made.file["lbcore"]["pid_file"] = "/proc/no/such/place"
        made.write()
        made.start(wait=False)
        assert made.exit_code() == 1
        del made.file["lbcore"]["pid_file"]
        made.write()
        made.start()
        assert made.backend(echoes[0])["draining"]
        # What was coming into force when it was killed may have been seen by somebody.
        assert made.status()["plan_version"] > version + 1


def test_stop_ends_changes_and_leaves_nothing(servers: list[Server], echoes: list[str]) -> None:
    with instance() as lb:
        lb.pool["backends"] = echoes[:2]
        lb.write()
        lb.start()
        lb.admin.add("main", {"address": echoes[2]})
        lb.signal(signal.SIGTERM)
        assert lb.exit_code() == 0 and lb.leftovers() == []
        lb.start()
        assert names(lb) == echoes[:2] and lb.admin.changes()["changes"] == []
        lb.signal(signal.SIGINT)
        lb.exit_code()


def test_change_that_the_new_file_says_itself_or_that_has_lost_its_backend_ends(
    lb: Instance, echoes: list[str],
) -> None:
    lb.admin.add("main", {"address": echoes[2], "name": "new"})
    lb.admin.weight("main", echoes[1], 4)
    lb.admin.drain("main", echoes[0])
    lb.admin.patch("web", names(lb, "web")[0], {"drain": True})
    lb.pool["backends"] = [{"address": echoes[1]}, {"address": echoes[2], "name": "new"}]
    lb.write()
    said = lb.admin.reload()
    assert {(one["op"], one["backend"]) for one in said["dropped"]} == {
        ("add", "new"), ("drain", echoes[0])}
    kept = {(one["op"], one["backend"]) for one in lb.admin.changes()["changes"]}
    assert kept == {("weight", echoes[1]), ("drain", names(lb, "web")[0])}
    told = lb.events("change.dropped")
    assert {"the file says the same now", "the backend is gone"} <= {
        one["message"].rpartition(": ")[2] for one in told}
    lb.pool["backends"] = [{"address": echoes[1], "weight": 4}, {"address": echoes[0]}]
    lb.write()
    assert [one["op"] for one in lb.admin.reload()["dropped"]] == ["weight"]
    lb.pool["backends"] = echoes[:2]
    lb.write()
    lb.admin.reload()


def test_new_file_that_changes_do_not_go_with_wins(lb: Instance, echoes: list[str]) -> None:
    """Without the change that was made over the old file, the new one would be good."""
    lb.admin.remove("main", echoes[0])
    lb.pool["backends"] = [echoes[0]]
    lb.write()
    (dropped,) = lb.admin.reload()["dropped"]
    assert (dropped["op"], dropped["backend"]) == ("remove", echoes[0])
    assert names(lb) == [echoes[0]]
    lb.pool["backends"] = echoes[:2]
    lb.write()
    lb.admin.reload()


def test_show_running_is_a_file_that_runs_the_same(lb: Instance, echoes: list[str]) -> None:
    everything(lb, echoes)
    path = lb.directory / "written.toml"
    command = [sys.executable, "-m", "lbcore", "show", "--running", "-c", str(lb.config)]
    text = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    path.write_text(text)
    assert f"# web/{names(lb, 'web')[0]} is drained" in text and "# main/new is forced up" in text
    checked = [sys.executable, "-m", "lbcore", "check", "--file-only", "-c", str(path)]
    subprocess.run(checked, cwd=ROOT, capture_output=True, check=True)
    running = lb.admin.config()["config"]
    lb.config.write_text(text)
    said = lb.admin.reload()
    assert {one["op"] for one in said["dropped"]} == {
        "add", "remove", "weight", "set", "workers", "log_level"}
    assert lb.admin.config()["config"] == running
    assert {one["op"] for one in lb.admin.changes()["changes"]} == {"drain", "force"}
    path.unlink()
    lb.write()
    lb.admin.reload()
    lb.wait_serving(2)


def test_log_says_more_as_soon_as_it_is_asked_to(lb: Instance) -> None:
    said = lb.admin.log_level("error")
    assert (said["level"], said["configured"]) == ("error", "info")
    before = len(lb.events("reloaded"))
    lb.admin.reload()
    assert len(lb.events("reloaded")) == before          # not written, and yet an event
    last = lb.admin.events(limit=1000)["events"]
    assert [one["event"] for one in last][-1] == "reloaded"
    lb.admin.log_level(None)
    lb.admin.reload()
    assert len(lb.events("reloaded")) == before + 1


def test_workers_null_is_what_the_file_says(lb: Instance) -> None:
    lb.admin.workers(1)
    lb.wait_serving(1)
    assert lb.admin.changes()["changes"][0]["op"] == "workers"
    assert lb.admin.workers(None)["workers"] == 2
    lb.wait_serving(2)
    lb.signal(signal.SIGTTIN)
    (change,) = until(lambda: lb.admin.changes()["changes"], "the change being listed")
    lb.wait_serving(3)
    assert (change["op"], change["file"], change["running"]) == ("workers", 2, 3)
    lb.admin.forget_changes()
    lb.wait_serving(2)


def test_events_tell_what_was_changed(lb: Instance, echoes: list[str]) -> None:
    last = lb.admin.events(limit=1)["last"]
    lb.admin.drain("main", echoes[0])
    said = lb.admin.events(after=last)["events"]
    assert [one["event"] for one in said] == ["backend.state", "changed"]
    assert said[0]["fields"] | {"backend": echoes[0], "new": "drain"} == said[0]["fields"]
    assert f"main/{echoes[0]} drain" in said[1]["message"]
    assert [one["seq"] for one in said] == [last + 1, last + 2]


def test_live_figures_show_the_traffic_of_the_last_seconds(
    lb: Instance, servers: list[Server], echoes: list[str],
) -> None:
    with Load(lb.address, rate=100) as load, HttpLoad(web(lb), each=1) as requests:

        def flows() -> Json | None:
            live = lb.admin.live(2)
            busy = [live["total"]["requests_per_s"], live["pools"]["main"]["connections_per_s"]]
            return live if all(busy) and live["window_s"] > 1 else None

        live = until(flows, "traffic in the figures")
        assert live is not None
        load.expect_no_failure()
        requests.expect_no_failure()
    main, http = live["listeners"]["main"], live["listeners"]["web"]
    assert main["requests_per_s"] is None and main["status"] is None and main["p50_ms"] is None
    assert 20 < main["connections_per_s"] < 200
    assert http["status"]["2xx"] == pytest.approx(http["requests_per_s"], rel=0.2)
    assert http["p99_ms"] >= http["p50_ms"] > 0 and http["errors_per_s"] == 0
    assert set(live["routes"]["web"]) and set(live["backends"]["main"]) == set(echoes[:2])
    for pool, key in (("main", "connections_per_s"), ("web", "requests_per_s")):
        found = live["backends"][pool]
        assert sum(one[key] for one in found.values()) == pytest.approx(
            live["pools"][pool][key], abs=0.1)
        assert all(one["p50_ms"] is not None for one in found.values())
