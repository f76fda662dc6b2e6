"""The access log has no reader, or no room: lines are lost, and traffic is not."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.echo import Backends
from tests.support.instance import Instance, until
from tests.support.load import Load

UNNOTICED_MS = 5000.0        # on a machine that has other things to do
RATE = 1000
LEAST_PIPE = 4096
NOBODY = 65534


def writes_to_the_pipe_it_was_given(lb: Instance, writer: int) -> bool:
    """Whether no process of it has opened the pipe anew: that would be non-blocking."""
    pipe = os.readlink(f"/proc/self/fd/{writer}")               # noqa: PTH115
    for pid in lb.processes():
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            if os.readlink(entry) == pipe:                      # noqa: PTH115
                info = Path(f"/proc/{pid}/fdinfo/{entry.name}").read_text()
                if int(info.split("flags:")[1].split()[0], 8) & os.O_NONBLOCK:
                    return False
    return True


@pytest.fixture
def load(lb: Instance, backends: Backends) -> Iterator[Load]:
    """New connections to an instance that runs. None may fail, none may wait."""
    with Load(lb.address, rate=RATE) as made:
        yield made
        made.wait_for(500)
        report = made.expect_no_failure()
        assert report.p99_ms < UNNOTICED_MS, str(report)


@pytest.fixture(params=["its own", "of another user"])
def full_pipe(request: pytest.FixtureRequest, lb: Instance) -> Iterator[tuple[int, int]]:
    """Standard output of a running instance: a small pipe, and what it is read from.

    One of another user cannot be opened anew, and its mode is not lbcore's to change.
    """
    reader, writer = os.pipe()
    lb.file["log"]["access"] = "-"
    lb.write()
    if request.param == "its own":
        lb.start(stdout=writer)
    elif os.geteuid() != 0:
        pytest.skip("giving a pipe away needs root")
    else:
        os.fchown(writer, NOBODY, NOBODY)
        lb.start(stdout=writer, lacking=["dac_override", "dac_read_search"])
        assert writes_to_the_pipe_it_was_given(lb, writer)
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, LEAST_PIPE)
    yield reader, writer
    for fd in (reader, writer):
        with contextlib.suppress(OSError):
            os.close(fd)


@pytest.fixture
def small_disk(lb: Instance) -> Iterator[Path]:
    """A file system of 256 KiB with the log of an instance that has not started on it."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    place = lb.directory / "small"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(place)],
                      check=False, capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    lb.file["log"]["access"] = str(place / "access.log")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def access_log(lb: Instance) -> dict[str, Any]:
    found: dict[str, Any] = lb.status()["access_log"]
    return found


def wait_for_drops(lb: Instance, more: int = 100) -> None:
    """Waits until so many more lines have been dropped, and the log has said so."""
    enough = access_log(lb)["dropped"] + more
    until(lambda: access_log(lb)["dropped"] >= enough, "lines dropped")
    assert lb.wait_for("access_log.dropped")["lines"] > 0


def whole(data: bytes) -> int:
    """How many lines; each must be whole."""
    assert data.endswith(b"\n")
    return len([json.loads(line) for line in data.splitlines()])


def test_reader_that_stops_reading_costs_lines_and_no_connection_and_may_go_on(
    lb: Instance, full_pipe: tuple[int, int], load: Load,
) -> None:
    reader, _ = full_pipe
    wait_for_drops(lb)
    load.wait_for(500)
    os.set_blocking(reader, False)
    data = b""

    def read_on() -> bool:
        """Whether lines come out that were made after the first were dropped."""
        nonlocal data
        with contextlib.suppress(BlockingIOError):
            while part := os.read(reader, 65536):
                data += part
        return len(data) > 200_000

    until(read_on, "lines after the reader went on")
    assert whole(data) > 500


def test_reader_that_is_gone_costs_lines_and_no_connection(
    lb: Instance, full_pipe: tuple[int, int], load: Load,
) -> None:
    for fd in full_pipe:
        os.close(fd)
    wait_for_drops(lb, 500)
    assert access_log(lb)["lines"] < 1500


def test_full_disk_costs_lines_tears_none_and_is_used_again_when_it_has_room(
    lb: Instance, small_disk: Path, backends: Backends,
) -> None:
    other, path = small_disk / "other", small_disk / "access.log"
    lb.file["lbcore"]["workers"] = 2
    lb.write()
    lb.start()
    other.write_bytes(bytes(200 * 1024))
    with Load(lb.address, rate=RATE) as load:
        wait_for_drops(lb)
        before = whole(path.read_bytes())
        other.unlink()
        until(lambda: path.stat().st_size > 200 * 1024, "the room is used")
        wait_for_drops(lb)
        report = load.expect_no_failure()
        assert report.p99_ms < UNNOTICED_MS, str(report)
    assert whole(path.read_bytes()) > before + 300
    until(lambda: sum(access_log(lb)[key] for key in ("lines", "dropped")) == report.started,
          "every connection is a line, or a line that was dropped")


def test_device_that_takes_nothing_costs_lines_and_no_connection(
    lb: Instance, backends: Backends,
) -> None:
    lb.file["log"]["access"] = "/dev/full"
    lb.write()
    lb.start()
    with Load(lb.address, rate=RATE) as load:
        wait_for_drops(lb)
        report = load.expect_no_failure()
        assert report.p99_ms < UNNOTICED_MS, str(report)
