"""How lines get out: whole or not at all, and never at the price of waiting."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lbcore import _access
from lbcore._access import AccessFormat, AccessLog

JSON = AccessFormat.ACCESS_JSON
RECORD: dict[str, Any] = {"listener": b"web", "method": b"GET", "target": b"/" + b"x" * 100,
                          "client": (bytes([127, 0, 0, 1]), 1)}
PATIENCE = 60.0


def opened(path: Path) -> int:
    """A file as the supervisor opens it for one worker."""
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK)


def numbered(number: int) -> dict[str, Any]:
    return RECORD | {"bytes_up": number}


def numbers(data: bytes) -> list[int]:
    """Every line is whole: its number."""
    assert not data or data.endswith(b"\n")
    return [json.loads(line)["bytes_in"] for line in data.splitlines()]


def taken(reader: int) -> bytes:
    """All that a pipe holds now."""
    os.set_blocking(reader, False)
    data = b""
    with contextlib.suppress(BlockingIOError):
        while part := os.read(reader, 1 << 20):
            data += part
    return data


def quickly(began: float) -> bool:
    """Whether nothing waited for anything meanwhile."""
    return time.monotonic() - began < 5


@pytest.fixture(params=["non-blocking", "of another user"])
def pipe(request: pytest.FixtureRequest) -> Iterator[tuple[int, AccessLog]]:
    """A pipe, and a log that writes to it; one that lbcore may not open anew stays blocking."""
    reader, writer = os.pipe()
    os.set_blocking(writer, request.param == "of another user")
    log = AccessLog(os.dup(writer), JSON)
    yield reader, log
    assert os.get_blocking(writer) == (request.param == "of another user")
    log.close()
    os.close(writer)
    os.close(reader)


# -- when

def test_lines_wait_to_be_written_together() -> None:
    reader, writer = os.pipe()
    log = AccessLog(writer, JSON)
    log.line(numbered(1), 1000)
    log.line(numbered(2), 1100)
    assert taken(reader) == b""
    assert log.flush_at == 1200
    log.flush(1200)
    assert numbers(taken(reader)) == [1, 2]
    assert (log.flush_at, log.gathered) == (0, 0)


def test_a_nearly_full_buffer_is_written_before_its_time(tmp_path: Path) -> None:
    log = AccessLog(opened(tmp_path / "log"), JSON)
    for number in range(1000):
        log.line(numbered(number))
    assert log.gathered < 0.75 * _access.BUFFER_SIZE
    found = numbers((tmp_path / "log").read_bytes())
    assert found == list(range(len(found)))
    assert len(found) > 700
    log.close()
    assert numbers((tmp_path / "log").read_bytes()) == list(range(1000))


def test_a_new_descriptor_takes_over_after_the_old_one_got_its_lines(tmp_path: Path) -> None:
    log = AccessLog(opened(tmp_path / "old"), JSON)
    log.line(numbered(1))
    log.open(opened(tmp_path / "new"), JSON)
    log.line(numbered(2))
    log.open(-1, AccessFormat.ACCESS_NONE)
    log.line(numbered(3))
    log.close()
    assert numbers((tmp_path / "old").read_bytes()) == [1]
    assert numbers((tmp_path / "new").read_bytes()) == [2]
    assert (log.lines, log.dropped) == (2, 0)


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    before = sorted(os.listdir("/proc/self/fd"))        # noqa: PTH208
    reader, writer = os.pipe()
    log = AccessLog(writer, JSON)                        # needs a pipe of its own
    log.open(opened(tmp_path / "log"), JSON)
    log.open(opened(tmp_path / "log"), AccessFormat.ACCESS_NONE)
    log.open(opened(tmp_path / "log"), JSON)
    log.close()
    os.close(reader)
    assert sorted(os.listdir("/proc/self/fd")) == before    # noqa: PTH208


def test_without_descriptors_for_its_own_pipe_there_is_no_log_and_nothing_leaks() -> None:
    reader, writer = os.pipe()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(writer)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
    try:
        with pytest.raises(MemoryError):
            AccessLog(writer, JSON)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    with pytest.raises(OSError):
        os.fstat(writer)
    os.close(reader)


# -- pipes

def test_reader_that_does_not_read_costs_lines_and_not_time(pipe: tuple[int, AccessLog]) -> None:
    reader, log = pipe
    began = time.monotonic()
    for number in range(5000):
        log.line(numbered(number), 1 + number // 10)
    assert quickly(began)
    assert log.dropped > 3000
    assert log.lines + log.dropped == 5000
    found = numbers(taken(reader))
    while log.gathered:
        log.flush(10_000)
        found += numbers(taken(reader))
    assert len(found) == log.lines
    assert found == list(range(len(found)))       # the oldest are kept, none twice
    log.line(numbered(5000), 10_000)
    log.flush(10_001)
    assert numbers(taken(reader)) == [5000]       # and it goes on where it was


def test_reader_that_reads_in_small_bites_gets_whole_lines(pipe: tuple[int, AccessLog]) -> None:
    reader, log = pipe
    os.set_blocking(reader, False)
    data, clock = b"", 1
    for number in range(3000):
        clock += 1
        log.line(numbered(number), clock)
        with contextlib.suppress(BlockingIOError):
            data += os.read(reader, 100)
    for _ in range(20):
        clock += 200
        log.flush(clock)
        data += taken(reader)
    found = numbers(data)
    assert found == sorted(set(found))
    assert len(found) == log.lines == 3000 - log.dropped


def test_reader_that_is_gone_costs_lines_and_nothing_else(pipe: tuple[int, AccessLog]) -> None:
    reader, log = pipe
    closed = os.dup(reader)
    os.close(reader)
    os.close(closed)
    began = time.monotonic()
    for number in range(1000):
        log.line(numbered(number))
    log.flush()
    assert (log.lines, log.dropped, log.gathered) == (0, 1000, 0)
    assert quickly(began)
    os.dup2(os.open("/dev/null", os.O_RDONLY), reader)   # for the fixture to close


def test_reader_that_takes_nothing_is_asked_ever_less_often(pipe: tuple[int, AccessLog]) -> None:
    reader, log = pipe
    for number in range(2000):
        log.line(numbered(number), 1)
    clock, pauses = log.flush_at, []
    for _ in range(12):
        log.flush(clock)
        pauses.append(log.flush_at - clock)
        clock = log.flush_at
    assert pauses == sorted(pauses)
    assert pauses[0] <= 4
    assert pauses[-1] == 200
    taken(reader)
    log.flush(clock)
    assert log.flush_at <= clock + 1         # it reads again: the rest soon


def test_the_end_waits_a_moment_for_a_reader_and_no_longer(pipe: tuple[int, AccessLog]) -> None:
    _, log = pipe
    for number in range(2000):
        log.line(numbered(number), 1)
    began = time.monotonic()
    log.close()
    assert 0.2 < time.monotonic() - began < 5


def several_write(fd: int, processes: int, lines: int) -> list[subprocess.Popen[bytes]]:
    """Each writes so many lines of all lengths, numbered; its listener's name tells them apart."""
    script = (
        "import sys; from lbcore._access import AccessLog\n"
        "name, fd, lines = sys.argv[1].encode(), int(sys.argv[2]), int(sys.argv[3])\n"
        "log = AccessLog(fd, 1)\n"
        "for number in range(lines):\n"
        "    log.line({'listener': name, 'method': b'GET', 'bytes_up': number,\n"
        "              'target': b'/' + b'x' * (number * 37 % 1500)}, 1 + number)\n"
        "    if number % 3 == 0: log.flush(1 + number)\n"
        "log.close(); print(log.lines, log.dropped)\n")
    return [subprocess.Popen([sys.executable, "-c", script, f"w{n}", str(fd), str(lines)],
                             pass_fds=[fd], stdout=subprocess.PIPE) for n in range(processes)]


def of_each(data: bytes) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    assert data.endswith(b"\n")
    for line in data.splitlines():
        said = json.loads(line)          # whole, or this fails
        found.setdefault(said["listener"], []).append(said["bytes_in"])
    return found


@pytest.mark.parametrize("blocking", [False, True])
def test_lines_of_several_workers_are_whole_in_one_pipe(blocking: bool) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, blocking)
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 8192)        # full most of the time
    workers = several_write(writer, 3, 2000)
    os.close(writer)
    with os.fdopen(reader, "rb") as lines:
        found = of_each(lines.read())
    for worker in workers:
        out, _ = worker.communicate(timeout=PATIENCE)
        assert worker.returncode == 0, out
    assert set(found) == {"w0", "w1", "w2"}
    for mine in found.values():
        assert mine == sorted(set(mine))


def test_lines_of_several_workers_are_whole_in_one_file(tmp_path: Path) -> None:
    path = tmp_path / "log"
    fds = [opened(path) for _ in range(3)]
    workers = [several_write(fd, 1, 3000)[0] for fd in fds]
    for worker in workers:
        out, _ = worker.communicate(timeout=PATIENCE)
        assert out.split() == [b"3000", b"0"]
    for fd in fds:
        os.close(fd)
    (all_lines,) = of_each(path.read_bytes()).values()
    assert sorted(all_lines) == sorted(3 * list(range(3000)))


# -- sockets and terminals

def test_a_unix_socket_gets_whole_lines_and_is_not_waited_for() -> None:
    ours, theirs = socket.socketpair()
    log = AccessLog(theirs.detach(), JSON)
    began = time.monotonic()
    for number in range(5000):
        log.line(numbered(number), 1 + number // 10)
    assert quickly(began)
    assert log.dropped > 0
    ours.setblocking(False)
    data = b""
    for clock in range(10_000, 20_000, 200):
        try:
            while part := ours.recv(1 << 20):
                data += part
        except BlockingIOError:
            log.flush(clock)
    found = numbers(data)
    assert found == sorted(set(found))
    assert len(found) == log.lines
    ours.close()
    log.line(numbered(1), 30_000)
    log.flush(30_000)
    assert log.gathered == 0


def test_a_terminal_that_was_stopped_is_not_waited_for() -> None:
    master, slave = pty.openpty()
    os.set_blocking(slave, False)
    log = AccessLog(slave, JSON)
    began = time.monotonic()
    for number in range(3000):
        log.line(numbered(number), 1 + number // 10)
    assert quickly(began)
    assert log.dropped > 0
    os.close(master)
    log.flush(10_000)
    assert log.gathered == 0
    log.close()


# -- files

@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A directory on a file system of 64 KiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    place = tmp_path / "small"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(place)],
                      check=False, capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_full_disk_costs_lines_and_tears_none(small: Path) -> None:
    path = small / "log"
    log = AccessLog(opened(path), JSON)
    for number in range(2000):
        log.line(numbered(number), 1 + number)
    found = numbers(path.read_bytes())
    assert found == list(range(len(found)))
    assert log.dropped > 500
    path.rename(small / "old")
    (small / "old").unlink()             # the worker has it open still: no room yet
    log.open(opened(path), JSON)         # but now there is
    log.close()
    rest = numbers(path.read_bytes())
    assert rest == list(range(len(found), len(found) + len(rest)))
    assert len(found) + len(rest) == log.lines == 2000 - log.dropped


def test_a_disk_that_has_room_again_gets_what_waited(small: Path) -> None:
    (small / "other").write_bytes(bytes(50_000))
    log = AccessLog(opened(small / "log"), JSON)
    for number in range(200):
        log.line(numbered(number), 1)
    log.flush(1000)
    assert log.gathered > 0
    assert log.flush_at > 1000
    before = numbers((small / "log").read_bytes())
    assert len(before) < 200
    (small / "other").unlink()
    log.flush(2000)
    assert (log.gathered, log.flush_at, log.dropped) == (0, 0, 0)
    assert numbers((small / "log").read_bytes()) == list(range(200))


def test_two_workers_on_a_full_disk_tear_no_line(small: Path) -> None:
    path = small / "log"
    (small / "other").write_bytes(bytes(56_000))
    logs = [AccessLog(opened(path), JSON) for _ in range(2)]
    found: list[int] = []
    for number in range(1200):
        logs[number % 2].line(numbered(number), 1 + number)
        if number % 150 == 0:            # room comes, and goes again
            size = (small / "other").stat().st_size
            os.truncate(small / "other", max(0, size - 7000))
            found = numbers(path.read_bytes())
            assert sorted(set(found)) == sorted(found)
    assert len(found) > 100
    assert sum(log.lines + log.dropped for log in logs) == 1200


def test_a_file_that_somebody_else_opened_is_continued_where_a_line_was_torn(small: Path) -> None:
    path = small / "log"
    (small / "other").write_bytes(bytes(45_000))
    log = AccessLog(os.open(path, os.O_WRONLY | os.O_CREAT), JSON)     # as a shell's >
    for number in range(200):
        log.line(numbered(number), 1)
    log.flush(1000)
    assert not path.read_bytes().endswith(b"\n")
    (small / "other").unlink()
    log.flush(2000)
    assert numbers(path.read_bytes()) == list(range(200))


def test_a_torn_line_is_not_finished_in_another_file(small: Path, tmp_path: Path) -> None:
    (small / "other").write_bytes(bytes(45_000))
    log = AccessLog(os.open(small / "log", os.O_WRONLY | os.O_CREAT), JSON)
    for number in range(200):
        log.line(numbered(number), 1)
    log.flush(1000)
    log.open(opened(tmp_path / "log"), JSON)
    log.close()
    rest = numbers((tmp_path / "log").read_bytes())
    assert rest == list(range(rest[0], 200))
    assert log.dropped == 1
    assert log.lines == 199


def test_a_limit_on_file_sizes_costs_lines(tmp_path: Path) -> None:
    script = (
        "import resource, os, sys; from lbcore._access import AccessLog\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10000, 10000))\n"
        "flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK\n"
        "log = AccessLog(os.open(sys.argv[1], flags), 1)\n"
        "for n in range(2000): log.line({'listener': b'x', 'bytes_up': n}, n + 1)\n"
        "print(log.dropped > 0)\n")
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "log")],
                          capture_output=True, check=False, timeout=PATIENCE)
    assert done.stdout.strip() == b"True", done.stderr
    assert 9000 < len((tmp_path / "log").read_bytes()) <= 10000
    assert numbers((tmp_path / "log").read_bytes())


def test_a_device_without_room_costs_lines() -> None:
    log = AccessLog(os.open("/dev/full", os.O_WRONLY | os.O_NONBLOCK), JSON)
    for number in range(2000):
        log.line(numbered(number), 1 + number)
    assert log.dropped > 1000
    assert log.gathered <= _access.BUFFER_SIZE
