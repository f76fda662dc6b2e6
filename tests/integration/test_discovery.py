"""Backends that a watched file or a callable names: real instances, traffic, failing sources."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from lbcore.admin.calls import AdminError
from tests.support.http_load import HttpLoad
from tests.support.http_servers import gunicorn, served
from tests.support.instance import Instance, instance, until

ONE, TWO, THREE = "127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"
# Does what the file "orders" says: names backends, or what sources do on bad days.
SOURCE = '''
import json, os, sys, time

def backends():
    order = open("orders").read()
    if order == "raise":
        raise RuntimeError("the registry is away")
    if order == "exit":
        os._exit(7)
    if order == "hang":
        time.sleep(3600)
    if order == "flood":
        while open("orders").read() == order:
            os.write(1, (b"x" + bytes([10])) * 10_000)
        return backends()
    if order in ("garbage", "brackets"):
        for fd in range(3, 64):
            try:
                os.write(fd, (b"[" * 50_000 if order == "brackets" else b"garbage") + bytes([10]))
            except OSError:
                pass
        time.sleep(3600)
    if order == "rubbish":
        return {"a": 1}
    print("asked for", order, flush=True)
    return json.loads(order)

async def watch():
    import asyncio
    last = None
    while True:
        if (now := open("orders").read()) != last:
            last = now
            yield backends()
        await asyncio.sleep(0.02)

def who():
    return [{"address": "127.0.0.1:1", "name": f"user-{os.getuid()}"}]
'''


@pytest.fixture
def box() -> Iterator[Instance]:
    with instance() as made:
        made.file["listener"][0]["protocol"] = "http"
        yield made


def put(path: Path, content: Any) -> None:
    """Writes a file in one step, as people should."""
    fresh = path.with_suffix(".fresh")
    fresh.write_text(content if isinstance(content, str) else json.dumps(content))
    fresh.rename(path)


def pool(box: Instance) -> dict[str, Any]:
    """What status says of the pool."""
    return next(one for one in box.status()["pools"] if one["name"] == "main")


def addresses(box: Instance) -> list[str]:
    """The backends of the pool."""
    return [one["address"] for one in pool(box)["backends"]]


def watching(box: Instance, name: str = "backends.json", **keys: Any) -> Path:
    """Makes the pool one of a watched file; its path."""
    path = box.directory / name
    box.pool["discover"] = {"file": name, "interval": "50ms", **keys}
    return path


def calling(box: Instance, function: str = "backends", **keys: Any) -> Path:
    """Makes the pool one of a callable; the path of its orders."""
    (box.directory / "mysource.py").write_text(SOURCE)
    box.pool["discover"] = {"python": f"mysource:{function}", "interval": "50ms", **keys}
    return box.directory / "orders"


def sources(box: Instance) -> list[int]:
    """Processes that run callables."""
    return [pid for pid, words in box.processes().items() if "lbcore.discovery.child" in words]


# ---- files -------------------------------------------------------------------------------------

def test_a_watched_file_moves_traffic_without_a_failed_request(box: Instance) -> None:
    path = watching(box)
    with served(gunicorn("gthread", "--threads=4")) as one, served(
            gunicorn("gthread", "--threads=4")) as two:
        put(path, [one.address])
        box.write()
        box.start()
        assert pool(box)["source"] == "watched file"
        with HttpLoad(box.address, each=2) as load:
            for names in ([one.address, two.address], [two.address], [one.address],
                          [two.address, one.address]):
                put(path, [{"targets": names, "labels": {"job": "web"}}])
                until(lambda: addresses(box) == names, f"{names}")    # noqa: B023
                load.wait_for(10)
            until(lambda: len(load.report().names) == 2, "both answering")
            load.expect_no_failure()
    assert box.admin.changes()["changes"] == []      # it is nobody's change but the file's


def test_a_file_that_is_bad_or_gone_changes_nothing_and_says_why(box: Instance) -> None:
    path = watching(box)
    put(path, [ONE])
    box.write()
    box.start()
    for bad, why in (("[", "not JSON"), ("[]", "no backend"), ('["nonsense"]', "has no port"),
                     ([{"address": TWO, "wieght": 1}], "unknown key"),
                     ([{"address": TWO, "name": "a"}, {"address": THREE, "name": "a"}],
                      "another backend")):
        put(path, bad)
        box.wait_for("discovery.failed", len(box.events("discovery.failed")) or 1)
        until(lambda: why in box.events("discovery.failed")[-1]["error"], why)   # noqa: B023
    path.unlink()
    until(lambda: "No such file" in box.events("discovery.failed")[-1]["error"], "gone")
    assert addresses(box) == [ONE]
    put(path, [TWO])
    box.wait_for("discovery.recovered")
    assert addresses(box) == [TWO]
    assert not box.complaints()


@pytest.mark.parametrize(("name", "content"), [
    ("backends.toml", f'backends = ["{ONE}", {{ address = "{TWO}", weight = 3 }}]\n'),
    ("backends.txt", f"{ONE}   # the first\n{TWO} weight=3\n"),
])
def test_other_formats_are_read_too(box: Instance, name: str, content: str) -> None:
    put(watching(box, name), content)
    box.write()
    box.start()
    assert [(one["address"], one["weight"]) for one in pool(box)["backends"]] == [(ONE, 1),
                                                                                  (TWO, 3)]


def test_a_file_written_in_place_within_one_tick_of_the_clock_is_noticed(box: Instance) -> None:
    path = watching(box)
    path.write_text(json.dumps([ONE]))
    box.write()
    box.start()
    for _ in range(3):
        for address in (TWO, THREE, ONE, TWO):       # the same size each time
            path.write_text(json.dumps([address]))
        until(lambda: addresses(box) == [TWO], "the last one")
        path.write_text(json.dumps([ONE]))
        until(lambda: addresses(box) == [ONE], "the one after")


# ---- the start, reload, upgrade ----------------------------------------------------------------

def test_the_start_waits_for_a_first_answer_and_goes_on_with_it(box: Instance) -> None:
    path = watching(box, timeout="20s")
    box.write()
    box.start(wait=False)
    box.wait_for("discovery.failed")
    put(path, [ONE])
    box.wait_for("started")
    assert addresses(box) == [ONE]


def test_a_start_without_any_backends_says_what_is_missing(box: Instance) -> None:
    watching(box, timeout="300ms")
    box.write()
    box.start(wait=False)
    assert box.exit_code() == 1
    said = box.events("start.failed")[0]["message"]
    assert 'pool "main" has no backends' in said
    assert "backends.json named none within 0.3 s" in said
    assert "No such file" in said


@pytest.mark.parametrize("kind", [watching, calling])
def test_who_waits_for_a_first_answer_can_be_told_to_end(box: Instance, kind: Any) -> None:
    path = kind(box)
    if kind is calling:
        put(path, "hang")
    box.write()
    box.start(wait=False)
    if kind is calling:
        until(lambda: sources(box), "its process")
    else:
        box.wait_for("discovery.failed")
    for number, told in ((signal.SIGUSR2, "upgrade.failed"), (signal.SIGHUP, "reload.failed"),
                         (signal.SIGTTIN, "resize.failed")):
        box.signal(number)
        box.wait_for(told)
        assert "lbcore is starting" in box.events(told)[0]["message"]
    box.signal(signal.SIGTERM)
    assert box.exit_code() == 0
    assert not box.processes()


def test_backends_of_the_configuration_count_until_there_is_an_answer(box: Instance) -> None:
    path = watching(box)
    box.pool["backends"] = [THREE]
    box.write()
    box.start()
    assert (addresses(box), pool(box)["source"]) == ([THREE], "file")
    put(path, [ONE])
    until(lambda: addresses(box) == [ONE], "the first answer")


def test_a_reload_can_begin_and_end_discovery(box: Instance) -> None:
    box.pool["backends"] = [THREE]
    box.write()
    box.start()
    orders = calling(box)
    put(orders, [ONE])
    del box.pool["backends"]
    box.write()
    box.admin.reload()
    assert (addresses(box), pool(box)["source"]) == ([ONE], "callable")
    until(lambda: len(sources(box)) == 1, "one process")
    box.pool["backends"] = [THREE]
    del box.pool["discover"]
    box.write()
    box.admin.reload()
    assert (addresses(box), pool(box)["source"]) == ([THREE], "file")
    assert not sources(box)


def test_a_reload_runs_the_code_that_a_function_has_by_then(box: Instance) -> None:
    put(calling(box), [ONE])
    box.write()
    box.start()
    module = box.directory / "mysource.py"
    put(module, f"def backends(): return ['{TWO}']\n")
    assert addresses(box) == [ONE]
    box.admin.reload()
    until(lambda: addresses(box) == [TWO], "the new code's answer")
    assert len(sources(box)) == 1


def test_what_was_found_and_does_not_go_with_a_new_file_is_asked_for_again(box: Instance) -> None:
    path = watching(box, timeout="3s")
    put(path, [ONE])
    box.write()
    box.start()
    box.pool["source"] = "::1"           # from which no IPv4 address can be reached
    box.write()
    with pytest.raises(Exception, match="named none within"):
        box.admin.reload()
    assert addresses(box) == [ONE]
    put(path, ["[::1]:1"])               # which goes with what is in force, too
    until(lambda: addresses(box) == ["[::1]:1"], "the new set")
    box.admin.reload()
    assert addresses(box) == ["[::1]:1"]


def test_a_reload_whose_new_source_is_silent_changes_nothing(box: Instance) -> None:
    box.pool["backends"] = [THREE]
    box.write()
    box.start()
    del box.pool["backends"]
    watching(box, timeout="300ms")
    box.write()
    with pytest.raises(Exception, match="named none within"):
        box.admin.reload()
    assert addresses(box) == [THREE]
    box.pool["discover"]["timeout"] = "5m"           # an upgrade waits for none of that, nor an end
    box.write()
    generation = box.status()["generation"] + 1
    for how, reason in ((box.admin.upgrade, "upgrade"),
                        (lambda: box.signal(signal.SIGTERM), "end")):
        told = len(box.events("discovery.failed"))
        with ThreadPoolExecutor() as aside:
            reload = aside.submit(box.admin.reload)
            box.wait_for("discovery.failed", told + 1)
            how()
            with pytest.raises(AdminError, match=reason) as refused:
                reload.result()
        assert refused.value.status == 409
        if reason == "upgrade":
            until(lambda: status(box).get("generation") == generation, "upgraded")
            assert addresses(box) == [THREE]
    assert box.exit_code() == 0


def test_discovery_goes_on_over_an_upgrade_and_a_killed_supervisor(box: Instance) -> None:
    orders = calling(box)
    put(orders, [ONE])
    box.write()
    box.start()
    generation = box.admin.upgrade()["next_generation"]
    until(lambda: box.processes() and status(box).get("generation") == generation, "upgraded")
    put(orders, [TWO])
    until(lambda: addresses(box) == [TWO], "an answer after the upgrade")
    until(lambda: len(sources(box)) == 1, "one process, not two")
    put(orders, "raise")
    box.kill_supervisor()
    until(lambda: not sources(box), "the end of the callable's process")
    box.start()              # does not wait: it knows what the last one knew
    assert addresses(box) == [TWO]
    put(orders, [THREE])
    until(lambda: addresses(box) == [THREE], "an answer after the restart")


@pytest.mark.parametrize("what", ["source", "operator"])
def test_what_was_in_force_is_known_after_a_killed_supervisor_though_no_worker_had_answered(
    box: Instance, what: str
) -> None:
    path = watching(box)
    put(path, [ONE])
    box.write()
    box.start()
    stopped = box.serving()[0]["pid"]
    os.kill(stopped, signal.SIGSTOP)
    with ThreadPoolExecutor() as beside:
        if what == "source":
            put(path, [TWO])
        else:        # who asks waits for the worker, and hears that the supervisor is gone
            asked = beside.submit(box.admin.add, "main", {"address": TWO})
        until(lambda: TWO in addresses(box), "what is in force")
        box.kill_supervisor()
        if what == "operator":
            assert asked.exception() is not None
    path.unlink()
    box.start()
    assert addresses(box) == ([TWO] if what == "source" else [ONE, TWO])


def status(box: Instance) -> dict[str, Any]:
    """The status, or nothing between two supervisors."""
    try:
        return box.status()
    except Exception:        # noqa: BLE001  (whatever the moment is like)
        return {}


# ---- callables ---------------------------------------------------------------------------------

@pytest.mark.parametrize("function", ["backends", "watch"])
def test_whatever_a_callable_does_the_last_good_answer_stays(
    box: Instance, function: str
) -> None:
    orders = calling(box, function, timeout="3s")
    put(orders, [ONE])
    box.write()
    box.start()
    assert addresses(box) == [ONE]
    assert pool(box)["source"] == "callable"
    box.wait_for("discovery.output", message='asked for ["127.0.0.1:1"]')
    for bad, why in (("raise", "RuntimeError: the registry is away"), ("rubbish", "'a'"),
                     ("exit", "exit code 7"), ("hang", "has not answered for 3 s"),
                     ("garbage", "says what it must not"), ("brackets", "says what it must not")):
        put(orders, bad)
        until(lambda: any(why in one["error"] for one in box.events("discovery.failed")),  # noqa: B023
              why)
        assert addresses(box) == [ONE]
        put(orders, [ONE])
        box.wait_for("discovery.recovered", len(box.events("discovery.failed")))
    put(orders, [TWO, THREE])
    until(lambda: addresses(box) == [TWO, THREE], "the next answer")
    assert len(sources(box)) == 1
    box.admin.stop(now=True)
    assert box.exit_code() == 0
    assert not sources(box)
    assert not box.events("internal")


def test_a_callable_that_prints_without_end_keeps_nobody_waiting(box: Instance) -> None:
    orders = calling(box)
    put(orders, [ONE])
    box.write()
    box.start()
    put(orders, "flood")
    box.wait_for("discovery.output_dropped", 2)
    began = time.monotonic()
    for _ in range(20):          # each of which took seconds, with all health checks late
        box.admin.ready()
    assert time.monotonic() - began < 20
    put(orders, [TWO])
    until(lambda: addresses(box) == [TWO], "an answer after the flood")
    assert len(box.events("discovery.output")) < 5_000
    assert not box.events("internal")


def test_a_callable_that_cannot_be_imported_is_tried_again(box: Instance) -> None:
    orders = calling(box)
    put(orders, [ONE])
    (box.directory / "mysource.py").unlink()
    box.pool["backends"] = [THREE]
    box.write()
    box.start()
    said = box.wait_for("discovery.failed")
    assert "ModuleNotFoundError" in said["error"]
    (box.directory / "mysource.py").write_text(SOURCE)
    until(lambda: addresses(box) == [ONE], "the module")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_callable_runs_as_the_user_that_workers_are(box: Instance) -> None:
    uid = int(subprocess.run(["id", "-u", "nobody"], capture_output=True, check=True).stdout)
    try:
        subprocess.run([sys.executable, "-c", ""], user=uid, check=True, cwd="/")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("other users cannot run this Python")
    calling(box, "who")
    box.directory.chmod(0o755)
    box.file["lbcore"]["user"] = "nobody"
    box.write()
    box.start()
    assert [one["name"] for one in pool(box)["backends"]] == [f"user-{uid}"]


def test_a_killed_callable_process_comes_back(box: Instance) -> None:
    orders = calling(box)
    put(orders, [ONE])
    box.write()
    box.start()
    first = until(lambda: sources(box), "its process")[0]
    os.kill(first, signal.SIGKILL)
    until(lambda: sources(box) and first not in sources(box), "another one")
    put(orders, [TWO])
    until(lambda: addresses(box) == [TWO], "an answer")


def test_an_operators_changes_lie_over_what_is_found(box: Instance) -> None:
    path = watching(box)
    put(path, [ONE, TWO])
    box.write()
    box.start()
    box.admin.drain("main", ONE)
    box.admin.add("main", {"address": "127.0.0.1:9", "name": "mine"})
    put(path, [ONE, THREE])
    until(lambda: set(addresses(box)) == {ONE, THREE, "127.0.0.1:9"}, "both")
    assert box.backend(ONE)["draining"]
    put(path, [THREE])                   # away for a moment
    until(lambda: ONE not in addresses(box), "its end")
    put(path, [ONE, THREE])
    until(lambda: ONE in addresses(box), "its return")
    assert box.backend(ONE)["draining"]
    box.admin.forget_changes("main")
    assert addresses(box) == [ONE, THREE]
    assert not box.backend(ONE)["draining"]


def test_what_does_not_go_with_what_is_found_ends_and_no_more_than_that(box: Instance) -> None:
    path = watching(box)
    put(path, [ONE, TWO])
    box.write()
    box.start()
    box.admin.weight("main", ONE, 0)
    box.admin.drain("main", ONE)
    put(path, [ONE])                     # alone, its weight cannot be 0
    until(lambda: addresses(box) == [ONE], "one")
    assert (box.backend(ONE)["weight"], box.backend(ONE)["draining"]) == (1, True)
    # The status has a plan as soon as it is made, the list of changes once workers have it.
    until(lambda: [one["op"] for one in box.admin.changes()["changes"]] == ["drain"], "the order")
    put(path, [ONE, TWO])
    until(lambda: addresses(box) == [ONE, TWO], "two")
    box.admin.remove("main", TWO)
    put(path, [TWO])                     # alone, it cannot be taken out
    until(lambda: addresses(box) == [TWO], "the other")
    box.wait_for("change.dropped", 2)


def test_sources_that_say_the_same_cost_no_new_plan(box: Instance) -> None:
    path = watching(box)
    put(path, [ONE])
    box.write()
    box.start()
    before = box.status()["plan"]["version"]
    looked = time.monotonic()
    put(path, json.dumps([ONE]) + "\n\n")
    put(path.with_name("other"), "")
    until(lambda: time.monotonic() - looked > 0.3, "several looks")
    assert box.status()["plan"]["version"] == before
