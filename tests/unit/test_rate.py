"""A rate holds over all workers together, to the request; none counts for another key."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from itertools import count
from pathlib import Path

import pytest

from lbcore import _rate
from lbcore._scoreboard import CAPACITY, Scoreboard

ROOT = Path(__file__).parents[2]
SECOND = 1_000_000
HOUR = 3600 * SECOND


@pytest.fixture
def board() -> Scoreboard:
    return Scoreboard.create()


def admitted(board: Scoreboard, key: int, tries: int, interval: int, burst: int, now: int) -> int:
    return sum(_rate.take(board, key, interval, burst, now) == 0 for _ in range(tries))


def same_group(limit: tuple[int, int], many: int) -> list[int]:
    """Keys that lead to one group of places."""
    wanted = _rate.group(1, *limit)
    found = (key for key in count(1) if _rate.group(key, *limit) == wanted)
    return [next(found) for _ in range(many)]


# ---- one worker --------------------------------------------------------------------------------

def test_a_burst_passes_at_once_and_then_one_each_interval(board: Scoreboard) -> None:
    assert admitted(board, 7, 100, SECOND, 10, 5 * SECOND) == 10
    assert admitted(board, 7, 5, SECOND, 10, 6 * SECOND - 1) == 0
    assert admitted(board, 7, 5, SECOND, 10, 6 * SECOND) == 1
    assert admitted(board, 7, 100, SECOND, 10, 9 * SECOND) == 3
    assert admitted(board, 7, 100, SECOND, 10, 100 * SECOND) == 10


def test_who_is_refused_is_told_to_the_millisecond_when_to_come_again(board: Scoreboard) -> None:
    now = 5 * SECOND
    assert [_rate.take(board, 7, SECOND, 2, now) for _ in range(3)] == [0, 0, 1000]
    assert _rate.take(board, 7, SECOND, 2, now + 1) == 1000     # rounded up
    assert _rate.take(board, 7, SECOND, 2, now + 999_999) == 1
    assert _rate.take(board, 7, SECOND, 2, now + SECOND) == 0


def test_a_refused_request_costs_nothing(board: Scoreboard) -> None:
    assert admitted(board, 7, 1000, SECOND, 1, SECOND) == 1
    assert _rate.take(board, 7, SECOND, 1, 2 * SECOND) == 0


def test_no_limit_without_an_interval_or_a_burst(board: Scoreboard) -> None:
    assert admitted(board, 7, 1000, 0, 5, 0) == admitted(board, 7, 1000, SECOND, 0, 0) == 1000


def test_the_largest_limit_there_can_be_does_not_overflow(board: Scoreboard) -> None:
    most = (1 << 32) - 1
    assert admitted(board, 7, 1000, most, most, 1 << 50) == 1000
    assert admitted(board, 8, 1000, most, 1, 1 << 50) == 1
    assert _rate.take(board, 8, most, 1, 1 << 50) == (most + 999) // 1000


def test_a_changed_limit_begins_anew(board: Scoreboard) -> None:
    """Else a limit of one in an hour would be felt for an hour after it was lifted."""
    assert admitted(board, 7, 5, HOUR, 1, SECOND) == 1
    assert admitted(board, 7, 5, SECOND, 3, SECOND) == 3


def test_keys_tell_routes_and_what_is_limited_apart(board: Scoreboard) -> None:
    keys = {_rate.key(board, route, data)
            for route in range(100) for data in (b"", b"a", b"b", b"10.0.0.1", bytes(100))}
    assert len(keys) == 500
    assert 0 not in keys
    assert _rate.key(board, 1, b"a") == _rate.key(board, 1, b"a")


def test_keys_cannot_be_foretold(board: Scoreboard) -> None:
    assert _rate.key(board, 1, b"a") != _rate.key(Scoreboard.create(), 1, b"a")


# ---- few places --------------------------------------------------------------------------------

def test_a_whole_bucket_gives_its_place_to_another_key(board: Scoreboard) -> None:
    limit = (SECOND, 2)
    keys = same_group(limit, 100)
    for turn, key in enumerate(keys):
        assert admitted(board, key, 5, *limit, now=(turn + 1) * SECOND) == 2
    assert _rate.forgotten(board) == 0


def test_without_a_free_place_requests_pass_and_the_busiest_stay_limited(
    board: Scoreboard,
) -> None:
    limit = (SECOND, 10)
    *busy, new, newer = same_group(limit, 10)
    for turn, key in enumerate(busy):
        admitted(board, key, 3 + turn, *limit, now=SECOND)
    assert admitted(board, new, 20, *limit, now=SECOND) == 10     # it is limited itself
    assert _rate.forgotten(board) == 1
    assert admitted(board, newer, 20, *limit, now=SECOND) == 10
    assert _rate.forgotten(board) == 2
    left = [admitted(board, key, 20, *limit, now=SECOND) for key in busy[2:]]
    assert left == [5, 4, 3, 2, 1, 0]       # theirs were kept


def test_a_flood_of_keys_stops_nobody(board: Scoreboard) -> None:
    for number in range(200_000):
        assert _rate.take(board, _rate.key(board, 0, b"%d" % number), HOUR, 1, SECOND) == 0


def test_a_place_that_a_dead_worker_was_giving_away_is_used_again(board: Scoreboard) -> None:
    """Its lock goes to the next one, and the place that says MOVING too."""
    limit = (HOUR, 1)
    keys = same_group(limit, 8)
    for key in keys[:7]:
        _rate.take(board, key, *limit, SECOND)
    crash(board, keys[0], *limit)
    for key in keys[:7]:
        assert _rate.take(board, key, *limit, SECOND) > 0
    began = time.monotonic()
    assert _rate.take(board, keys[7], *limit, SECOND) == 0
    assert time.monotonic() - began < 5
    assert _rate.take(board, keys[7], *limit, SECOND) > 0
    assert _rate.forgotten(board) == 0


def crash(board: Scoreboard, key: int, interval: int, burst: int) -> None:
    """Leaves the lock of a key's group taken, and its last place on the move."""
    group = _rate.group(key, interval, burst)
    size = os.fstat(board.fd).st_size
    last = size - CAPACITY["rates"] * 16 + group * 128 + 7 * 16
    now = time.monotonic_ns() // 1000
    os.pwrite(board.fd, (99).to_bytes(8, "little") + (1 << 63 | now).to_bytes(8, "little"), last)
    os.pwrite(board.fd, now.to_bytes(8, "little"), 4096 - 256 * 8 + (group & 255) * 8)


# ---- many workers ------------------------------------------------------------------------------

WORKER = """
import sys, time
from lbcore import _rate
from lbcore._scoreboard import Scoreboard

board = Scoreboard.attach(int(sys.argv[1]))
print("ready", flush=True)
start, end = map(int, sys.stdin.readline().split())
clock = lambda: time.monotonic_ns() // 1000
while clock() < start: pass
"""


def together(board: Scoreboard, code: str, seconds: float) -> list[Counter[int]]:
    """What four processes were admitted, by key: they run ``code`` from one moment on."""
    fds = [os.dup(board.fd) for _ in range(4)]
    workers = [
        subprocess.Popen([sys.executable, "-c", WORKER + code, str(fd)], stdin=subprocess.PIPE,
                         stdout=subprocess.PIPE, text=True, pass_fds=[fd], cwd=ROOT)
        for fd in fds
    ]
    for fd in fds:
        os.close(fd)
    try:
        for worker in workers:
            assert worker.stdout and worker.stdout.readline() == "ready\n"
        start = time.monotonic_ns() // 1000 + 50_000
        for worker in workers:
            assert worker.stdin
            worker.stdin.write(f"{start} {start + int(seconds * SECOND)}\n")
            worker.stdin.flush()
        said = [worker.communicate(timeout=60)[0] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    return [Counter({int(key): int(many) for key, many in map(str.split, lines.splitlines())})
            for lines in said]


def test_four_workers_admit_together_what_one_would(board: Scoreboard) -> None:
    code = """
passed = 0
last = start
while last < end:
    last = clock()
    passed += _rate.take(board, 7, 1000, 50, last) == 0
print(7, passed, "\\n", 8, last - start)
"""
    results = together(board, code, 0.5)
    passed = sum(said[7] for said in results)
    longest = max(said[8] for said in results)
    assert passed <= 50 + longest / 1000
    assert passed > 0.5 * 500               # there were always more who asked


def test_four_workers_that_meet_a_key_first_do_not_make_two_buckets(board: Scoreboard) -> None:
    code = """
passed = {}
for key in range(1, 20_001):
    for _ in range(3):
        if _rate.take(board, key, 3600_000_000, 2, clock()) == 0:
            passed[key] = passed.get(key, 0) + 1
for key, many in passed.items(): print(key, many)
"""
    total = sum(together(board, code, 0), Counter())
    assert _rate.forgotten(board) == 0      # 20,000 keys in 32,768 groups of 8
    assert total == dict.fromkeys(range(1, 20_001), 2)


def test_requests_are_never_counted_for_the_key_that_had_the_place_before(
    board: Scoreboard,
) -> None:
    """Keys of one group that come and go, so that places change hands all the time."""
    interval, burst = 200, 2
    keys = same_group((interval, burst), 12)
    code = f"""
keys = {keys}
passed = dict.fromkeys(keys, 0)
last = start
while last < end:
    last = clock()
    third = (last - start) // 2000 % 3 * 4
    for key in keys[third:third + 4]:
        passed[key] += _rate.take(board, key, {interval}, {burst}, clock()) == 0
for key in keys: print(key, passed[key])
print(0, last - start)
"""
    results = together(board, code, 0.6)
    longest = max(said.pop(0) for said in results)
    total = sum(results, Counter())
    # Four keys at a time for a third of the time each: in each visit of 2 ms a burst and 10 more.
    visits = longest / 6000 + 1
    for key in keys:
        assert total[key] <= visits * (burst + 2000 / interval) + _rate.forgotten(board) * burst
        assert total[key] > 0.02 * visits * 2000 / interval
