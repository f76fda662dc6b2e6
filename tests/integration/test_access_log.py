"""The access log of a running lbcore: what it says of TCP connections, and where it says it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lbcore._access import AccessFormat
from lbcore.config.plan import Address, BackendPlan, PoolPlan
from tests.support.echo import Backends
from tests.support.instance import Instance, free_port, instance, until
from tests.support.lbcore_lab import eventually, first_line, running_lab
from tests.support.load import Load
from tests.support.worker import WorkerHarness

Line = dict[str, Any]


@pytest.fixture
def backends() -> Iterator[Backends]:
    with Backends() as made:
        yield made


@pytest.fixture
def lb(backends: Backends) -> Iterator[Instance]:
    """An instance that has not started yet, with a backend and an access log."""
    with instance() as made:
        made.pool["backends"] = [{"name": "one", "address": backends.echo(1)[0]}]
        made.file["log"]["access"] = str(made.directory / "access.log")
        yield made
        assert made.complaints() == []


def start(lb: Instance) -> Path:
    """Starts it; returns where its access log is."""
    lb.write()
    lb.start()
    return Path(lb.file["log"]["access"])


def exchange(address: tuple[str, int], said: bytes = b"hello") -> int:
    """One connection from beginning to end; returns the client's port."""
    with socket.create_connection(address, 10) as client:
        client.sendall(said)
        assert client.recv(len(said), socket.MSG_WAITALL) == said
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""
        return int(client.getsockname()[1])


def lines(path: Path) -> list[Line]:
    """Every line, each of which is whole."""
    text = path.read_bytes() if path.exists() else b""
    assert not text or text.endswith(b"\n")
    return [json.loads(line) for line in text.splitlines()]


def wait_for(path: Path, count: int) -> list[Line]:
    until(lambda: len(lines(path)) >= count, f"{count} lines in {path.name}")
    found = lines(path)
    assert len(found) == count
    return found


def held_by(pid: int) -> list[str]:
    """What the descriptors of a process are open on."""
    return [os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir()]      # noqa: PTH115


def test_a_connection_leaves_a_line_that_says_what_became_of_it(lb: Instance) -> None:
    path = start(lb)
    before = datetime.now(UTC)
    port = exchange(lb.address, b"12345")
    (line,) = wait_for(path, 1)
    time_of = datetime.fromisoformat(line.pop("time"))
    assert before - timedelta(seconds=0.01) <= time_of <= datetime.now(UTC)
    total = line.pop("total_ms")
    assert 0 < line.pop("queue_ms") + line.pop("connect_ms") < total < 10_000
    assert line == {
        "protocol": "tcp", "listener": "main", "pool": "main", "backend": "one",
        "client": "127.0.0.1", "client_port": port, "bytes_in": 5, "bytes_out": 5, "attempts": 1}
    assert path.stat().st_mode & 0o777 == 0o640
    # Workers tell what they count at the end of a turn, and write within it.
    until(lambda: lb.status()["access_log"] == {
        "path": str(path), "format": "json", "lines": 1, "dropped": 0}, "it counted")


def test_a_connection_that_found_no_backend_says_whom_it_tried_and_why_it_ended(
    lb: Instance,
) -> None:
    lb.pool["backends"] = [{"name": "dead", "address": f"127.0.0.1:{free_port()}"}]
    lb.pool["connect_attempts"] = 2
    path = start(lb)
    with socket.create_connection(lb.address, 10) as client:
        client.sendall(b"x")
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    (line,) = wait_for(path, 1)
    assert (line["reason"], line["backend"], line["attempts"]) == ("connect_failed", "dead", 2)
    assert "connect_ms" not in line
    assert (line["bytes_in"], line["bytes_out"]) == (0, 0)


def test_client_of_a_proxy_is_named_beside_the_proxy(lb: Instance) -> None:
    lb.file["listener"][0]["proxy_protocol"] = True
    path = start(lb)
    exchange_after = b"PROXY TCP4 192.0.2.9 192.0.2.1 4711 80\r\n"
    with socket.create_connection(lb.address, 10) as client:
        client.sendall(exchange_after + b"hi")
        assert client.recv(2, socket.MSG_WAITALL) == b"hi"
    (line,) = wait_for(path, 1)
    assert (line["client"], line["client_port"], line["peer"]) == ("192.0.2.9", 4711, "127.0.0.1")
    assert line["bytes_in"] == 2


def test_combined_format_is_for_those_who_read_it_already(lb: Instance) -> None:
    lb.file["log"]["format"] = "combined"
    lb.write()
    lb.start(wait=False)
    lb.wait_until_serving()
    exchange(lb.address)
    path = Path(lb.file["log"]["access"])
    until(path.read_text, "a line")
    assert re.fullmatch(r'127\.0\.0\.1 - - \[[^]]+\] "-" 000 5 "-" "-"\n', path.read_text())


def test_no_log_is_written_where_none_is_asked_for(lb: Instance) -> None:
    path = Path(lb.file["log"].pop("access"))
    lb.write()
    lb.start()
    exchange(lb.address)
    assert lb.status()["access_log"] == {"path": "", "format": "none", "lines": 0, "dropped": 0}
    assert not path.exists()


def test_usr1_after_a_rename_goes_on_in_a_new_file_and_no_line_is_lost_or_there_twice(
    lb: Instance,
) -> None:
    lb.file["lbcore"]["workers"] = 2
    path = start(lb)
    old = path.with_suffix(".1")
    with Load(lb.address) as load:
        load.wait_for(200)
        path.rename(old)
        lb.signal(signal.SIGUSR1)
        lb.wait_for("access_log.reopened", path=str(path))
        load.wait_for(200)
        total = load.expect_no_failure().started
    until(lambda: len(lines(old)) + len(lines(path)) >= total, "all lines")
    ports = [(line["client_port"], line["time"]) for line in lines(old) + lines(path)]
    assert len(ports) == len(set(ports)) == total
    assert min(len(lines(old)), len(lines(path))) >= 100
    until(lambda: lb.status()["access_log"]["lines"] == total, "all counted")
    held = {name for pid in lb.processes() for name in held_by(pid)}
    assert str(path) in held
    assert str(old) not in held


def test_a_file_that_cannot_be_opened_again_leaves_the_old_one_in_use(lb: Instance) -> None:
    (lb.directory / "logs").mkdir()
    path = lb.directory / "logs" / "access.log"
    lb.file["log"]["access"] = str(path)
    start(lb)
    exchange(lb.address)
    wait_for(path, 1)
    (lb.directory / "logs").rename(lb.directory / "moved")
    lb.signal(signal.SIGUSR1)
    lb.wait_for("access_log.reopen_failed", error="No such file or directory")
    exchange(lb.address)
    wait_for(lb.directory / "moved" / "access.log", 2)


def test_reload_moves_the_log_changes_its_format_and_ends_it(lb: Instance) -> None:
    path = start(lb)
    exchange(lb.address)
    other = lb.directory / "other.log"
    lb.file["log"]["access"] = str(other)
    lb.write()
    lb.admin.reload()
    exchange(lb.address)
    wait_for(other, 1)
    lb.file["log"]["format"] = "combined"
    lb.write()
    lb.admin.reload()
    exchange(lb.address)
    until(lambda: len(other.read_bytes().splitlines()) == 2, "another line")
    assert b'"-" 000' in other.read_bytes().splitlines()[1]
    del lb.file["log"]["access"]
    lb.write()
    lb.admin.reload()
    exchange(lb.address)
    assert lb.status()["access_log"]["path"] == ""
    until(lambda: lb.status()["access_log"]["lines"] == 3, "three counted")
    assert len(lines(path)) == 1
    assert len(other.read_bytes().splitlines()) == 2


def test_reload_with_a_log_that_cannot_be_opened_keeps_the_one_there_is(lb: Instance) -> None:
    path = start(lb)
    lb.file["log"]["access"] = str(lb.directory / "nowhere" / "access.log")
    lb.write()
    lb.admin.reload()
    lb.wait_for("access_log.open_failed", error="No such file or directory")
    exchange(lb.address)
    wait_for(path, 1)
    assert lb.status()["access_log"]["path"] == str(path)


def test_start_with_a_log_that_cannot_be_opened_ends_and_names_it(lb: Instance) -> None:
    lb.file["log"]["access"] = str(lb.directory)
    lb.write()
    lb.start(wait=False)
    assert lb.exit_code() == 2
    assert str(lb.directory) in lb.tail()
    assert "Is a directory" in lb.tail()


def test_upgrade_goes_on_in_the_same_file_whatever_its_name_is_by_then(lb: Instance) -> None:
    path = start(lb)
    exchange(lb.address)
    old = path.with_suffix(".1")
    wait_for(path, 1)
    path.rename(old)
    lb.signal(signal.SIGUSR2)
    lb.wait_for("upgraded")
    lb.wait_serving(1)
    exchange(lb.address)
    wait_for(old, 2)
    assert not path.exists()
    until(lambda: lb.status()["access_log"]["lines"] == 2, "both counted")
    lb.signal(signal.SIGUSR1)
    lb.wait_for("access_log.reopened")
    exchange(lb.address)
    wait_for(path, 1)


def test_a_worker_that_takes_another_ones_place_writes_on(lb: Instance) -> None:
    path = start(lb)
    exchange(lb.address)
    wait_for(path, 1)
    victim = lb.serving()[0]["pid"]
    os.kill(victim, signal.SIGKILL)
    lb.wait_serving(1, but=[victim])
    exchange(lb.address)
    wait_for(path, 2)
    until(lambda: lb.status()["access_log"]["lines"] == 2, "both counted")


def test_lines_of_connections_that_outlive_their_supervisor_are_written(lb: Instance) -> None:
    path = start(lb)
    with socket.create_connection(lb.address, 10) as client:
        client.sendall(b"x")
        assert client.recv(1) == b"x"
        lb.kill_supervisor()
        exchange(lb.address)
        wait_for(path, 1)
        lb.start()
        lb.wait_for("worker.draining")
        path.rename(path.with_suffix(".1"))
        lb.signal(signal.SIGUSR1)
        lb.wait_for("access_log.reopened")
        exchange(lb.address)
        wait_for(path, 1)
    wait_for(path, 2)        # of the old worker's last connection too


def test_what_is_gathered_when_lbcore_ends_is_written(lb: Instance) -> None:
    path = start(lb)
    for _ in range(5):
        exchange(lb.address)
    lb.signal(signal.SIGTERM)
    assert lb.exit_code() == 0
    assert len(lines(path)) == 5


def test_lines_of_two_workers_stand_whole_beside_each_other(lb: Instance) -> None:
    lb.file["lbcore"]["workers"] = 2
    path = start(lb)
    with Load(lb.address, rate=1000) as load:
        load.wait_for(3000)
        total = load.expect_no_failure().started
    found = wait_for(path, total)
    assert len({(line["client_port"], line["time"]) for line in found}) == total


def test_standard_output_gets_the_lines_and_stays_as_it_was() -> None:
    with running_lab() as lab:
        lab.write([lab.side.backend("one")])
        lab.config.write_text(lab.config.read_text().replace("[log]", '[log]\naccess = "-"'))
        run = lab.start()
        with lab.connect() as client:
            assert first_line(client) == "one"
        eventually(lambda: any('"protocol":"tcp"' in line for line in list(run.lines)))
        flags = Path(f"/proc/{run.pid}/fdinfo/1").read_text()
        assert not int(re.findall(r"flags:\s+(\d+)", flags)[0], 8) & os.O_NONBLOCK
        assert lab.stop() == 0


def test_a_named_pipe_may_have_its_reader_later(lb: Instance) -> None:
    path = Path(lb.file["log"]["access"])
    os.mkfifo(path)
    start(lb)
    for _ in range(2):
        exchange(lb.address)
        with path.open("rb") as reader:
            assert json.loads(reader.readline())["bytes_in"] == 5


def test_a_worker_that_is_told_nonsense_writes_on_where_it_was() -> None:
    reader, writer = os.pipe()
    with WorkerHarness() as worker, Backends() as backends:
        host, _, port = backends.echo()[0].partition(":")
        pool = PoolPlan("p", (BackendPlan("one", Address(host, int(port))),))
        worker.send({"op": "access", "format": "json"}, [writer])
        os.close(writer)
        worker.access_format = AccessFormat.ACCESS_JSON
        address = worker.serve(pool)
        null = os.open("/dev/full", os.O_WRONLY)
        for message, descriptors in (({"format": "xml"}, [null]), ({}, [null]),
                                     ({"format": "json"}, [])):
            worker.send({"op": "access", "id": 7, **message}, descriptors)
            assert worker.receive()["op"] == "error"
        os.close(null)
        assert "/dev/full" not in held_by(worker.process.pid)
        exchange(address)
        with os.fdopen(reader, "rb") as lines_of:
            assert json.loads(lines_of.readline())["bytes_in"] == 5


def answer(server: socket.socket) -> None:
    """Answers requests, one connection after the other, until the socket is shut down."""
    with contextlib.suppress(OSError):
        while True:
            conn, _ = server.accept()
            with conn:
                while conn.recv(65536):
                    conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")


def test_a_request_leaves_a_line_and_one_that_is_none_says_why(lb: Instance) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=answer, args=(server,), daemon=True).start()
        lb.file["listener"][0]["protocol"] = "http"
        lb.pool["backends"] = [{"name": "one", "address": f"127.0.0.1:{server.getsockname()[1]}"}]
        path = start(lb)
        with socket.create_connection(lb.address, 10) as client:
            client.sendall(b'GET /a?b=%22"\xff HTTP/1.1\r\nHost: Example.com\r\n'
                           b"User-Agent: me\r\nReferer: you\r\nConnection: close\r\n\r\n")
            while client.recv(65536):
                pass
        with socket.create_connection(lb.address, 10) as client:
            client.sendall(b"no request\r\n\r\n")
            while client.recv(65536):
                pass
        line, refused = wait_for(path, 2)
        server.shutdown(socket.SHUT_RDWR)
    assert line["queue_ms"] + line["connect_ms"] <= line["first_byte_ms"] <= line["total_ms"]
    assert {name: line[name] for name in (
        "protocol", "listener", "pool", "backend", "method", "target", "host", "http_version",
        "status", "attempts", "user_agent", "referer")} == {
        "protocol": "http", "listener": "main", "pool": "main", "backend": "one",
        "method": "GET", "target": '/a?b=%22"\xff', "host": "Example.com", "http_version": "1.1",
        "status": 200, "attempts": 1, "user_agent": "me", "referer": "you"}
    assert line["request_id"]
    assert (refused["status"], refused["reason"]) == (400, "bad_request")
    assert "backend" not in refused
