"""Output of applications: the pump that carries it, and what the supervisor makes of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from lbcore.apps import pump
from lbcore.apps.command import PUMP
from lbcore.config.plan import Address, LogPlan
from lbcore.supervisor import apps_output
from lbcore.supervisor.apps_output import SOCKET_NAME, Output, telling
from lbcore.supervisor.instance import Instance
from lbcore.supervisor.log import Log

LABEL = {"pool": "web", "backend": "app", "generation": 3, "pid": 42}
KEY = ("web", "app", 3)


class Reader:
    """A supervisor's end: a socket that takes datagrams."""

    def __init__(self, path: Path) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.settimeout(20)
        self.sock.bind(str(path))

    def datagram(self) -> dict[str, Any]:
        return dict(json.loads(self.sock.recv(1 << 18)))

    def lines(self, count: int) -> list[str]:
        found: list[str] = []
        while len(found) < count:
            found += self.datagram()["lines"]
        return found


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    reader = Reader(tmp_path / "out")
    yield reader
    reader.sock.close()


def started(directory: Path, address: str = "out") -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-I", "-S", str(PUMP), address, json.dumps(LABEL)],
                            stdin=subprocess.PIPE, cwd=directory)


def test_lines_arrive_in_order_with_their_label(reader: Reader, tmp_path: Path) -> None:
    running = started(tmp_path)
    assert running.stdin is not None
    running.stdin.write(b"one\ntwo\xff\nno end")
    running.stdin.close()
    first = reader.datagram()
    assert first["label"] == LABEL
    assert [*first["lines"], *reader.lines(3 - len(first["lines"]))] == [
        "one", "two\ufffd", "no end"]
    assert running.wait(20) == 0


def test_the_application_is_not_stopped_when_nobody_listens(tmp_path: Path) -> None:
    running = started(tmp_path)
    assert running.stdin is not None
    running.stdin.write(b"x" * 99 + b"\n")
    running.stdin.write(b"y" * 10_000_000)       # would block for ever if nobody read it
    running.stdin.flush()
    late = Reader(tmp_path / "out")
    running.stdin.close()
    datagrams = []
    while sum(one["dropped"] for one in datagrams) == 0:
        datagrams.append(late.datagram())
    assert running.wait(20) == 0
    late.sock.close()


def test_a_new_supervisor_gets_what_comes_next(reader: Reader, tmp_path: Path) -> None:
    running = started(tmp_path)
    assert running.stdin is not None
    running.stdin.write(b"before\n")
    running.stdin.flush()
    assert reader.lines(1) == ["before"]
    reader.sock.close()
    (tmp_path / "out").unlink()
    running.stdin.write(b"between\n")
    running.stdin.flush()
    successor = Reader(tmp_path / "out")
    running.stdin.write(b"after\n")
    running.stdin.close()
    assert successor.lines(2) == ["between", "after"]
    assert running.wait(20) == 0
    successor.sock.close()


def test_a_line_without_end_becomes_pieces_of_bounded_size(tmp_path: Path) -> None:
    one = pump.Pump(str(tmp_path / "nobody"), LABEL)
    for _ in range(100):
        one.take(b"z" * 10_000)
    assert len(one.unfinished) <= pump.MAX_LINE
    assert max(map(len, one.lines)) <= pump.MAX_LINE
    assert one.size <= pump.BACKLOG
    assert one.dropped > 0
    one.sock.close()


def test_short_lines_become_datagrams_that_are_soon_logged(
    reader: Reader, tmp_path: Path
) -> None:
    running = started(tmp_path)
    assert running.stdin is not None
    running.stdin.write(b"\n" * 1000)
    running.stdin.close()
    lines: list[str] = []
    while len(lines) < 1000:
        fresh = reader.datagram()["lines"]
        assert len(fresh) <= pump.MOST_LINES
        lines += fresh
    assert running.wait(20) == 0


def test_what_was_not_taken_is_not_offered_with_every_line(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[int] = []

    class Refused(pump.Pump):
        def take(self, data: bytes) -> None:
            super().take(data)
            os.write(writing, b"more\n") if self.size < 5000 else os.close(writing)

        def finish(self) -> None:
            self.lines.clear()

        def send(self) -> bool:
            tries.append(len(self.lines))
            return not self.lines

    monkeypatch.setattr(pump, "RETRY", 3600.0)
    reading, writing = os.pipe()
    os.write(writing, b"first\n")
    one = Refused("nobody", LABEL)
    pump.run(reading, one)
    one.sock.close()
    os.close(reading)
    assert tries == [1, 0]                       # the second when the application has ended


def test_empty_lines_that_nobody_takes_do_not_pile_up(tmp_path: Path) -> None:
    one = pump.Pump(str(tmp_path / "nobody"), LABEL)
    one.take(b"\n" * (pump.BACKLOG + 5))
    assert len(one.lines) == pump.BACKLOG
    assert one.dropped == 5
    one.sock.close()


def test_more_than_the_backlog_passes_through_and_a_loss_is_told_once(
    reader: Reader, tmp_path: Path
) -> None:
    one = pump.Pump(str(tmp_path / "out"), LABEL)
    line, seen, told = b"x" * 999 + b"\n", 0, []
    one.take(line * (pump.BACKLOG // len(line) + 7))     # seven more than there is room for
    for _ in range(3):
        done = False
        while not done:
            done = one.send()
            reader.sock.settimeout(0)
            with contextlib.suppress(BlockingIOError):
                while True:
                    said = reader.datagram()
                    seen += len(said["lines"])
                    told += [said["dropped"]] if said["dropped"] else []
        one.take(line * 200)
    one.send()
    assert (seen, told, one.dropped) == (pump.BACKLOG // len(line) + 400, [7], 0)
    one.sock.close()


@pytest.fixture
async def output(tmp_path: Path) -> AsyncIterator[tuple[Output, Path]]:
    instance = Instance.claim(Address(path=str(tmp_path / "admin.sock")))
    log = tmp_path / "log"
    found = Output(instance, Log(LogPlan(path=str(log), format="json")))
    found.open()
    yield found, log
    found.close(unlink=True)
    instance.leave()


def say(tmp_path: Path, text: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(text.encode(), str(tmp_path / "admin.sock.d" / SOCKET_NAME))


def logged(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


async def test_lines_are_logged_with_pool_and_process(
    output: tuple[Output, Path], tmp_path: Path
) -> None:
    say(tmp_path, json.dumps({"label": LABEL, "lines": ["hello"], "dropped": 0}))
    output[0].read()
    (event,) = logged(output[1])
    assert event.items() >= {"event": "app.output", "message": "hello", "pool": "web",
                             "backend": "app", "pid": 42}.items()
    assert output[0].last(KEY) == ["hello"]


async def test_control_characters_do_not_reach_a_terminal(
    output: tuple[Output, Path], tmp_path: Path
) -> None:
    say(tmp_path, json.dumps({"label": LABEL, "lines": ["\x1b[31mred\r"], "dropped": 0}))
    output[0].read()
    assert output[0].last(KEY) == ["\\x1b[31mred"]


async def test_dropped_lines_are_counted_and_told(
    output: tuple[Output, Path], tmp_path: Path
) -> None:
    say(tmp_path, json.dumps({"label": LABEL, "lines": [], "dropped": 7}))
    output[0].read()
    (event,) = logged(output[1])
    assert (event["event"], event["lines"]) == ("app.output_dropped", 7)
    assert output[0].dropped == 7


async def test_lines_without_end_leave_the_loop_to_others(
    output: tuple[Output, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apps_output, "TURN", 0.0)
    monkeypatch.setattr(apps_output, "REST", 1e9)
    for number in range(3):
        say(tmp_path, json.dumps({"label": LABEL, "lines": [f"line {number}"], "dropped": 0}))
    for _ in range(10):
        await asyncio.sleep(0)
    assert output[0].last(KEY) == ["line 0"]
    output[0].read()                             # whoever asks what it said last gets all of it
    assert output[0].last(KEY) == ["line 0", "line 1", "line 2"]


async def test_last_words_arrive_though_another_application_fills_every_place(
    output: tuple[Output, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apps_output, "TURN", 0.0)
    monkeypatch.setattr(apps_output, "REST", 1e9)
    place = tmp_path / "admin.sock.d"
    other = json.dumps({"label": {**LABEL, "pool": "other"}, "lines": ["x"], "dropped": 0})
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as flood:
        flood.connect(str(place / SOCKET_NAME))
        for _ in range(2):                       # again after the only turn that there will be
            with contextlib.suppress(BlockingIOError):
                while True:
                    flood.send(other.encode())
            for _ in range(10):
                await asyncio.sleep(0)
    running, ended = started(place, SOCKET_NAME), asyncio.Event()
    assert running.stdin is not None
    running.stdin.write(b"last words\n")
    running.stdin.close()
    waiting = asyncio.create_task(asyncio.to_thread(running.wait, 20))
    waiting.add_done_callback(lambda _: ended.set())
    await apps_output.settle(output[0], ended, 20)
    assert output[0].last(KEY) == ["last words"]


async def test_after_a_rest_the_next_lines_are_taken(
    output: tuple[Output, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apps_output, "TURN", 0.0)
    for number in range(3):
        say(tmp_path, json.dumps({"label": LABEL, "lines": [f"line {number}"], "dropped": 0}))
    async with asyncio.timeout(20):
        while len(output[0].last(KEY)) < 3:      # noqa: ASYNC110  (a deque tells nobody)
            await asyncio.sleep(0)


@pytest.mark.parametrize("text", [
    "", "{", "[]", '{"label": 1, "lines": [], "dropped": 0}', '{"lines": ["x"]}',
    '{"label": {"pool": "a"}, "lines": ["x"], "dropped": 0}', "\xff",
])
async def test_nonsense_is_ignored(
    output: tuple[Output, Path], tmp_path: Path, text: str
) -> None:
    say(tmp_path, text)
    output[0].read()
    assert logged(output[1]) == []


async def test_only_our_user_can_send(output: tuple[Output, Path], tmp_path: Path) -> None:
    assert os.stat(tmp_path / "admin.sock.d" / SOCKET_NAME).st_mode & 0o777 == 0o600   # noqa: PTH116


def test_the_first_exception_tells_more_than_the_servers_own() -> None:
    lines = ["starting", "Traceback (most recent call last):", '  File "a.py", line 1', "    x",
             "KeyError: 'first'", "Shutting down", "Traceback (most recent call last):",
             '  File "arbiter.py", line 2', "HaltServer: Worker failed to boot"]
    assert telling(lines) == lines[1:5]


def test_exceptions_that_belong_together_are_shown_together() -> None:
    lines = ["Traceback (most recent call last):", '  File "a.py", line 1', "KeyError: 'x'", "",
             "During handling of the above exception, another exception occurred:", "",
             "Traceback (most recent call last):", '  File "b.py", line 2', "ValueError: y", "end"]
    assert telling(lines)[-1] == "ValueError: y"
    assert telling(lines)[0] == lines[0]


def test_without_an_exception_the_last_lines_are_shown() -> None:
    lines = [f"line {number}" for number in range(50)]
    assert telling(lines, 3) == ["line 47", "line 48", "line 49"]
    assert telling([]) == []
