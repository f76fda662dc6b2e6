"""An lbcore that a Python program runs for itself: start, changes, traffic, and what is left."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import lbcore
from lbcore.client.models import StreamState
from lbcore.config import parse
from tests.support.http_load import HttpLoad
from tests.support.http_servers import gunicorn, served
from tests.support.instance import MARK, PATIENCE, ROOT, free_port, until

WORKERS = {"workers": 1, "pin_cpus": False}
Json = dict[str, Any]


def configuration(**pool: Any) -> Json:
    """One http listener on a port to be chosen, and its pool."""
    return {
        "lbcore": WORKERS,
        "listener": [{"name": "web", "bind": "127.0.0.1:0", "protocol": "http", "pool": "web"}],
        "pool": {"web": pool or {"demo": 1}},
    }


def get(url: str) -> int:
    """The status of an answer."""
    with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
        return int(answer.status)


@pytest.fixture
def mark(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """By which processes are known that a test has started; none may be left."""
    made = secrets.token_hex(8)
    monkeypatch.setenv(MARK, made)
    yield made
    try:
        until(lambda: not living(made), "everything ended")
    finally:
        for pid in living(made):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def living(mark: str) -> dict[int, str]:
    """Processes with a mark, but our own: pid and command."""
    sought, found = f"{MARK}={mark}".encode(), {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if sought in (entry / "environ").read_bytes().split(b"\0"):
                    words = (entry / "cmdline").read_bytes().split(b"\0")
                    found[int(entry.name)] = b" ".join(words[:8]).decode()
    return found


def pid_of(mark: str, words: str) -> int:
    """The process whose command has these words."""
    return next(pid for pid, command in living(mark).items() if words in command)


def directory_of(lb: lbcore.Balancer) -> Path:
    """Where its admin socket is."""
    return Path(lb.admin.removeprefix("unix:")).parent


# ---- one instance for what does not end it -----------------------------------------------------

@pytest.fixture(scope="module")
def running() -> Iterator[lbcore.Balancer]:
    with served(gunicorn()) as server, lbcore.Balancer(
            configuration(backends=[server.address]), now=True) as lb:
        yield lb


def test_a_port_that_is_chosen_serves_and_is_nobody_elses(running: lbcore.Balancer) -> None:
    host, port = running.address("web")
    assert get(f"http://{host}:{port}/echo") == 200
    assert running.url("web", "/echo") == f"http://{host}:{port}/echo"
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind((host, port))


def test_asking_for_a_listener_that_is_not_there_names_those_that_are(
    running: lbcore.Balancer
) -> None:
    with pytest.raises(LookupError, match=r"no listener 'wbe'; there are: 'web'"):
        running.address("wbe")


def test_backends_come_and_go_under_load_without_a_failed_request(
    running: lbcore.Balancer
) -> None:
    pool = running.pool("web")
    with served(gunicorn("gthread", "--threads=4")) as more, HttpLoad(
            running.address("web"), each=2) as load:
        pool.add(more.address, name="more", weight=0)
        pool.wait_healthy("more")
        pool.set_weight("more", 1)
        until(lambda: more.address in load.report().names, "the new one answering")
        pool.retire("more")
        more.terminate()
        load.wait_for(20)
        load.expect_no_failure()
    assert [one.name for one in pool.backends()] != []


def test_a_set_of_backends_is_replaced_under_load_without_a_failed_request(
    running: lbcore.Balancer
) -> None:
    pool = running.pool("web")
    before = [one.address for one in pool.backends()]
    with served(gunicorn("gthread", "--threads=4")) as more, HttpLoad(
            running.address("web"), each=2) as load:
        replaced = pool.replace([*before, {"address": more.address, "name": "more"}])
        assert (replaced.added, replaced.removed) == (["more"], [])
        until(lambda: more.address in load.report().names, "the new one answering")
        assert pool.replace(before).removed == ["more"]
        load.wait_for(20)
        load.expect_no_failure()
    pool.forget_changes()


def test_drained_backends_finish_and_wait_idle_says_when(running: lbcore.Balancer) -> None:
    pool = running.pool("web")
    name = pool.backends()[0].name
    with served(gunicorn()) as spare:
        pool.add(spare.address, name="spare")
        assert pool.drain(name).draining
        pool.wait_idle(name)
        assert get(running.url("web", "/echo")) == 200
        assert not pool.undrain(name).draining
        pool.retire("spare")


def test_the_last_backend_is_not_removed(running: lbcore.Balancer) -> None:
    pool = running.pool("web")
    with pytest.raises(lbcore.Conflict):
        pool.remove(pool.backends()[0].name)


# ---- what it is given --------------------------------------------------------------------------

TEXT = """
[lbcore]
workers = 1
pin_cpus = false
[[listener]]
name = "web"
bind = "127.0.0.1:PORT"
protocol = "http"
pool = "web"
[pool.web]
wsgi = "mine:application"
"""
APPLICATION = """
def application(environ, start_response):
    start_response("200 OK", [("Content-Length", "4")])
    return [b"mine"]
"""


@pytest.mark.parametrize("kind", ["dict", "text", "path", "Config"])
def test_it_takes_a_configuration_in_every_form(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mark: str
) -> None:
    (tmp_path / "mine.py").write_text(APPLICATION)
    port = str(free_port()) if kind == "Config" else "0"     # what a Config has is checked
    text = TEXT.replace("PORT", port)
    (tmp_path / "lb.toml").write_text(text)
    if kind != "path":
        monkeypatch.chdir(tmp_path)
    forms: dict[str, Callable[[], Any]] = {
        "dict": lambda: configuration(wsgi="mine:application"), "text": lambda: text,
        "path": lambda: tmp_path / "lb.toml", "Config": lambda: parse(text, "lb.toml").config}
    with lbcore.Balancer(forms[kind](), now=True) as lb:
        with urllib.request.urlopen(lb.url("web"), timeout=PATIENCE) as answer:
            assert answer.read() == b"mine"
        assert lb.client.status().pools[0].name == "web"
        assert directory_of(lb).name.startswith("lbcore-")     # not where others would meet it


def test_every_problem_of_a_configuration_is_raised_and_nothing_started(mark: str) -> None:
    wrong = configuration(backends=["127.0.0.1", {"address": "10.0.0.1:80", "wieght": 1}])
    wrong["listener"][0]["pool"] = "wbe"
    with pytest.raises(lbcore.ConfigError) as raised, lbcore.Balancer(wrong):
        pass
    found = {problem.key for problem in raised.value.problems}
    assert found == {"pool.web.backends[0]", "pool.web.backends[1].wieght", "listener[0].pool"}
    assert not living(mark)


def test_callables_for_a_pool_that_is_not_there_are_a_problem(mark: str) -> None:
    with pytest.raises(lbcore.ConfigError, match="no such pool"), lbcore.Balancer(
            configuration(), discover={"wbe": lambda: ["127.0.0.1:1"]}):
        pass


def test_a_port_in_use_is_said_before_anything_starts(mark: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config = configuration()
        config["listener"][0]["bind"] = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(lbcore.ConfigError, match="in use"), lbcore.Balancer(config):
            pass


def test_what_keeps_it_from_starting_is_raised_as_it_printed_it(
    tmp_path: Path, mark: str
) -> None:
    config = configuration()
    config["lbcore"] = WORKERS | {"pid_file": str(tmp_path / "none" / "lb.pid")}
    with pytest.raises(lbcore.BalancerError, match="cannot write pid_file") as raised, (
            lbcore.Balancer(config)):
        pass
    assert "(exit code 1)" in str(raised.value)


def test_what_it_logs_goes_to_logging(mark: str, caplog: pytest.LogCaptureFixture) -> None:
    config = configuration()
    config["log"] = {"access": "-"}
    with caplog.at_level(logging.INFO, "lbcore"), lbcore.Balancer(config) as lb:
        assert get(lb.url("web", "/logged")) == 200
    found = [(record.name, record.getMessage()) for record in caplog.records]
    assert any(name == "lbcore" and text.startswith("started") for name, text in found)
    assert any(name == "lbcore.access" and "/logged" in text for name, text in found)
    assert [record.lbcore["event"] for record in caplog.records if hasattr(record, "lbcore")][-1] \
        == "stopped"


def test_a_reload_keeps_the_port_and_a_bad_one_keeps_everything(mark: str) -> None:
    with lbcore.Balancer(configuration(demo=1), now=True) as lb:
        address = lb.address("web")
        lb.reload(configuration(demo=2))
        assert lb.address("web") == address
        assert len(lb.pool("web").backends()) == 2
        with pytest.raises(lbcore.ConfigError):
            lb.reload(configuration(demo=-1))
        assert len(lb.pool("web").backends()) == 2
        assert get(lb.url("web")) == 200


# ---- what is left ------------------------------------------------------------------------------

def test_nothing_is_left_behind_the_block(mark: str) -> None:
    with lbcore.Balancer(configuration()) as lb:
        address, directory = lb.address("web"), directory_of(lb)
        assert directory.exists()
        assert living(mark)
    assert not living(mark)
    assert not directory.exists()
    with socket.socket() as sock:
        sock.bind(address)
    with pytest.raises(lbcore.BalancerError, match="does not run"):
        lb.client.status()


def test_a_service_manager_hears_nothing_of_an_lbcore_within_a_program(
    mark: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        monkeypatch.setenv("WATCHDOG_USEC", "1000000")
        with lbcore.Balancer(configuration()):
            pass
        manager.setblocking(False)
        with pytest.raises(BlockingIOError):
            manager.recv(100)


def test_whoever_waits_for_connections_can_be_told_not_to(mark: str) -> None:
    config = configuration(demo=1)
    config["listener"][0]["protocol"] = "tcp"
    lb = lbcore.Balancer(config)
    lb.start()
    with socket.create_connection(lb.address("web")) as held:
        held.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert held.recv(10)
        waiting = threading.Thread(target=lb.stop)
        waiting.start()
        until(lambda: lb.client.status().state == "draining", "draining")
        lb.stop(now=True)
        waiting.join(PATIENCE)
        assert not waiting.is_alive()
    assert not living(mark)


def test_an_exception_in_the_block_ends_it_at_once_and_is_raised(mark: str) -> None:
    config = configuration(demo=1)
    config["listener"][0]["protocol"] = "tcp"
    with pytest.raises(KeyError, match="mine"), lbcore.Balancer(config) as lb:
        held = socket.create_connection(lb.address("web"))
        raise KeyError("mine")
    with held:
        held.settimeout(PATIENCE)
        with contextlib.suppress(ConnectionResetError):
            assert held.recv(1) == b""


PROGRAM = """
import logging, sys, time
import lbcore

config = {config!r}
with lbcore.Balancer(config) as lb:
    print(lb.admin, *lb.address("web"), flush=True)
    time.sleep(600)
"""


@contextlib.contextmanager
def program(
    config: Json, text: str = PROGRAM
) -> Iterator[tuple[subprocess.Popen[bytes], Path, tuple[str, int]]]:
    """A program that runs a balancer: its process, the directory, and where it listens."""
    with subprocess.Popen(
            [sys.executable, "-c", text.format(config=config)], stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": str(ROOT)}) as process:
        try:
            assert process.stdout is not None
            admin, host, port = process.stdout.readline().decode().split()
            yield process, Path(admin.removeprefix("unix:")).parent, (host, int(port))
        finally:
            process.kill()


def test_nothing_is_left_of_a_program_that_is_killed(mark: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(APPLICATION)
    config = configuration(wsgi="mine:application", directory=str(tmp_path))
    with program(config) as (process, directory, address):
        assert get(f"http://{address[0]}:{address[1]}/") == 200
        process.kill()
        process.wait()
        until(lambda: not living(mark), "everything ended")
        assert not directory.exists()


FORKING = """
import os, sys, time
import lbcore

config = {config!r}
with lbcore.Balancer(config) as lb:
    if os.fork() == 0:
        time.sleep(600)
    print(lb.admin, *lb.address("web"), flush=True)
    time.sleep(600)
"""


def test_a_child_that_the_program_has_forked_keeps_nothing_alive(mark: str) -> None:
    with program(configuration(), FORKING) as (process, directory, _):
        process.kill()
        process.wait()
        try:
            until(lambda: len(living(mark)) == 1, "the child alone is left")
            assert not directory.exists()
        finally:
            os.kill(pid_of(mark, "os.fork()"), signal.SIGKILL)


def test_the_end_of_its_keeper_is_the_end_of_lbcore(mark: str) -> None:
    with program(configuration()):
        os.kill(pid_of(mark, "keeper.py"), signal.SIGKILL)
        until(lambda: all("-m lbcore" not in command for command in living(mark).values()),
              "lbcore ended")


def test_a_supervisor_that_is_killed_is_an_error_and_leaves_nothing(mark: str) -> None:
    with lbcore.Balancer(configuration()) as lb:
        directory = directory_of(lb)
        os.kill(pid_of(mark, "-m lbcore -c"), signal.SIGKILL)

        def said() -> str:
            with contextlib.suppress(lbcore.NotRunning):     # while it is being cleared away
                try:
                    lb.client.status()
                except lbcore.BalancerError as error:
                    return str(error)
            return ""

        assert "has ended (exit code 137)" in until(said, "an error")
        assert not living(mark)
    assert not directory.exists()


def test_a_program_that_is_interrupted_ends_in_order(mark: str) -> None:
    with program(configuration()) as (process, directory, _):
        process.send_signal(signal.SIGINT)
        process.wait(PATIENCE)
        assert not directory.exists()
        assert not living(mark)


# ---- asyncio -----------------------------------------------------------------------------------

async def test_the_same_with_coroutines(mark: str) -> None:
    async with lbcore.Balancer(configuration(demo=2), now=True) as lb:
        await lb.wait_healthy()
        assert await asyncio.to_thread(get, lb.url("web")) == 200
        assert (await lb.pool("web").drain("demo-1")).draining
        await lb.reload(configuration(demo=3))
        assert len(await lb.pool("web").backends()) == 3
    assert not living(mark)


async def test_who_stops_waiting_for_the_start_leaves_nothing(mark: str) -> None:
    async def enter() -> None:
        async with lbcore.Balancer(configuration()):
            pass

    entering = asyncio.create_task(enter())
    await asyncio.to_thread(until, lambda: living(mark), "something started")
    entering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await entering
    assert not living(mark)


# ---- backends from callables of the program ----------------------------------------------------

class Named:
    """A source of every kind that says what it is told to."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = list(addresses)
        self.failing = ""
        self.said = threading.Event()

    def function(self) -> list[str]:
        if self.failing:
            raise RuntimeError(self.failing)
        return self.addresses

    async def coroutine(self) -> list[str]:
        return self.function()

    async def watching(self) -> AsyncIterator[list[str]]:
        while True:
            yield self.function()
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("kind", ["function", "watching"])
def test_callables_of_the_program_name_backends(
    kind: str, mark: str, caplog: pytest.LogCaptureFixture
) -> None:
    named = Named("127.0.0.1:1")
    config = configuration(connect_timeout="1s")
    with lbcore.Balancer(config, discover={"web": getattr(named, kind)}, interval=0.05,
                         now=True) as lb:
        def addresses() -> list[str]:
            return [one.address for one in lb.pool("web").backends()]

        assert addresses() == ["127.0.0.1:1"]
        named.addresses = ["127.0.0.1:2", "127.0.0.1:3"]
        until(lambda: addresses() == ["127.0.0.1:2", "127.0.0.1:3"], "the new set")
        named.failing = "registry is away"
        until(lambda: "registry is away" in caplog.text, "a warning")
        named.addresses, named.failing = [], ""
        until(lambda: "names no backend" in caplog.text, "another warning")
        assert addresses() == ["127.0.0.1:2", "127.0.0.1:3"]
        named.addresses = ["127.0.0.1:4"]
        until(lambda: addresses() == ["127.0.0.1:4"], "the newest set")


async def test_coroutines_of_the_program_run_in_its_own_loop(mark: str) -> None:
    loop, named = asyncio.get_running_loop(), Named("127.0.0.1:1")

    async def source() -> list[str]:
        assert asyncio.get_running_loop() is loop
        return named.addresses

    async with lbcore.Balancer(configuration(connect_timeout="1s"), discover={"web": source},
                               interval=0.05, now=True) as lb:
        named.addresses = ["127.0.0.1:2"]
        async with contextlib.aclosing(lb.client.stream(60, live=False)) as states:
            async for one in states:
                if isinstance(one, StreamState) and (
                        [backend.address for backend in one.status.pools[0].backends]
                        == ["127.0.0.1:2"]):
                    break


def test_who_names_nothing_in_time_is_told_and_nothing_starts(mark: str) -> None:
    hang = threading.Event()
    sources: dict[str, Callable[[], Any]] = {"web": lambda: [], "api": hang.wait}
    config = configuration(connect_timeout="1s")
    config["pool"]["api"] = {}
    config["listener"].append({**config["listener"][0], "name": "api", "pool": "api"})
    began = time.monotonic()
    with pytest.raises(TimeoutError) as raised, lbcore.Balancer(
            config, discover=sources, timeout=1):
        pass
    assert "pool 'web': it names no backend" in str(raised.value)
    assert "pool 'api': no answer" in str(raised.value)
    assert time.monotonic() - began < PATIENCE
    assert not living(mark)
    hang.set()


# ---- the documented example --------------------------------------------------------------------

def test_gunicorn_replicas_scale_up_and_down_under_load_without_a_failed_request(
    mark: str
) -> None:
    port = free_port()
    command = [sys.executable, "examples/scale_gunicorn.py", "--port", str(port), "--rate=60",
               "--most=3", "tests.support.http_apps:wsgi"]
    lines: list[str] = []
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True,
                          env=os.environ | {"PYTHONPATH": str(ROOT), "NAME": "replica"},
                          ) as process:
        assert process.stdout is not None
        reading = threading.Thread(target=lambda: lines.extend(process.stdout), daemon=True)
        reading.start()

        def sizes() -> list[int]:
            return [int(line.rpartition(": ")[2].split()[0]) for line in list(lines)]

        try:
            until(lambda: sizes()[:1] == [1], "one replica")
            with HttpLoad(("127.0.0.1", port), each=1, pause=0.2) as few:
                with HttpLoad(("127.0.0.1", port), each=4, pause=0.02) as many:
                    until(lambda: max(sizes()) == 3, "three replicas")
                    many.wait_for(50)
                    many.expect_no_failure()
                until(lambda: sizes()[-1] == 1, "one replica again", 60)
                few.wait_for(10)
                few.expect_no_failure()
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(PATIENCE)
            reading.join()
    assert process.returncode == 0, textwrap.indent("".join(lines), "  ")
