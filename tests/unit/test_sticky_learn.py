"""What a backend's Set-Cookie taught one worker, all workers know, and never of another value."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lbcore import _learn
from lbcore._scoreboard import CAPACITY, SIZES, Scoreboard

ROOT = Path(__file__).parents[2]
HOUR = 3_600_000
NOW = 10 * HOUR
A, B = 0xA11CE, 0xB0B


@pytest.fixture
def board() -> Scoreboard:
    return Scoreboard.create()


def same_group(many: int) -> list[int]:
    """Keys that lead to one group of places."""
    step = 1 << 20
    found = [5 + number * step for number in range(many)]
    assert len({_learn.group(key) for key in found}) == 1
    return found


def find(board: Scoreboard, key: int, now: int = NOW) -> int:
    return _learn.find(board, key, HOUR, now)


def store(board: Scoreboard, key: int, backend: int, now: int = NOW) -> None:
    _learn.store(board, key, backend, HOUR, now)


# ---- the table ---------------------------------------------------------------------------------

def test_a_value_leads_to_the_backend_that_set_it(board: Scoreboard) -> None:
    store(board, 7, A)
    store(board, 8, B)
    assert (find(board, 7), find(board, 8), find(board, 9)) == (A, B, 0)


def test_the_backend_that_set_it_last_has_it(board: Scoreboard) -> None:
    store(board, 7, A)
    store(board, 7, B)
    assert find(board, 7) == B
    assert _learn.forgotten(board) == 0


def test_an_empty_table_knows_nobody(board: Scoreboard) -> None:
    assert not any(find(board, key) for key in range(1, 1000))


def test_what_nobody_asks_for_is_forgotten_in_time(board: Scoreboard) -> None:
    store(board, 7, A)
    assert find(board, 7, NOW + HOUR - 1) == A
    store(board, 8, A)
    assert find(board, 8, NOW + HOUR) == 0


def test_what_is_used_is_known_for_longer(board: Scoreboard) -> None:
    store(board, 7, A)
    for turn in range(1, 100):
        assert find(board, 7, NOW + turn * HOUR // 2) == A
    assert find(board, 7, NOW + 99 * HOUR // 2 + HOUR) == 0


def test_what_a_backend_says_again_is_known_for_longer(board: Scoreboard) -> None:
    store(board, 7, A)
    store(board, 7, A, NOW + HOUR // 2)
    assert find(board, 7, NOW + HOUR + 1) == A


def test_a_shorter_expiry_holds_for_what_is_known_already(board: Scoreboard) -> None:
    _learn.store(board, 7, A, 24 * HOUR, NOW)
    assert _learn.find(board, 7, HOUR, NOW) == A
    assert _learn.find(board, 7, HOUR, NOW + HOUR) == 0


def test_a_forgotten_value_leads_nowhere_and_its_place_is_free(board: Scoreboard) -> None:
    keys = same_group(9)
    for key in keys[:8]:
        store(board, key, A)
    _learn.forget(board, keys[3], NOW)
    assert find(board, keys[3]) == 0
    store(board, keys[8], B)
    assert [find(board, key) for key in keys] == [A, A, A, 0, A, A, A, A, B]
    assert _learn.forgotten(board) == 0


def test_to_forget_what_is_not_known_changes_nothing(board: Scoreboard) -> None:
    keys = same_group(9)
    for key in keys[:8]:
        store(board, key, A)
    _learn.forget(board, keys[8], NOW)
    assert all(find(board, key) == A for key in keys[:8])


def test_a_full_group_forgets_who_was_not_seen_for_longest(board: Scoreboard) -> None:
    keys = same_group(9)
    for turn, key in enumerate(keys[:8]):
        store(board, key, A, NOW + turn * HOUR // 20)
    later = NOW + HOUR // 2
    assert find(board, keys[0], later) == A         # it comes again
    store(board, keys[8], B, later)
    assert find(board, keys[1], later) == 0
    assert find(board, keys[0], later) == A
    assert find(board, keys[8], later) == B
    assert _learn.forgotten(board) == 1


def test_who_is_over_makes_room_before_anybody_else_does(board: Scoreboard) -> None:
    keys = same_group(9)
    _learn.store(board, keys[0], A, 1000, NOW)
    for key in keys[1:8]:
        store(board, key, A)
    store(board, keys[8], B, NOW + 1000)
    assert _learn.forgotten(board) == 0
    assert all(find(board, key, NOW + 1000) for key in keys[1:])


def test_half_a_million_sessions_are_known_at_a_time(board: Scoreboard) -> None:
    numbers = range(100_000)            # a fifth of them, in a fifth of the groups
    keys = [number % (CAPACITY["learnt"] // 8 // 5) + (1 << 20) * (number + 1)
            for number in numbers]
    for key in keys:
        store(board, key, A)
    assert sum(find(board, key) == A for key in keys) > 0.99 * len(keys)


def test_a_place_that_a_dead_worker_was_writing_is_used_again(board: Scoreboard) -> None:
    keys = same_group(8)
    for key in keys[:7]:
        store(board, key, A)
    moving(board, keys[0], NOW)
    store(board, keys[7], B, NOW + 1000)        # nowhere to go yet but another's place
    assert _learn.forgotten(board) == 1
    store(board, keys[7], B, NOW + 1001)
    moving(board, keys[0], NOW)
    again = next(key for key in keys[:7] if not find(board, key, NOW + 1001))
    store(board, again, B, NOW + 1001)
    assert _learn.forgotten(board) == 1
    assert find(board, again, NOW + 1001) == B


def moving(board: Scoreboard, key: int, since: int) -> None:
    """Leaves the last place of a key's group as a worker does that dies while it writes."""
    end = os.fstat(board.fd).st_size - CAPACITY["rates"] * SIZES["rate_bucket"]
    place = end - CAPACITY["learnt"] * SIZES["learnt"]
    place += (_learn.group(key) * 8 + 7) * SIZES["learnt"]
    os.pwrite(board.fd, (1 << 63 | since).to_bytes(8, "little"), place + 16)


def test_keys_tell_pools_and_values_apart(board: Scoreboard) -> None:
    keys = {_learn.key(board, row, value)
            for row in range(100) for value in (b"", b"a", b"b", b"a" * 4096, b"\0")}
    assert len(keys) == 500
    assert 0 not in keys


def test_keys_cannot_be_foretold(board: Scoreboard) -> None:
    assert _learn.key(board, 1, b"a") != _learn.key(Scoreboard.create(), 1, b"a")


# ---- many workers ------------------------------------------------------------------------------

WRITER = """
import sys
from lbcore import _learn
from lbcore._scoreboard import Scoreboard

board = Scoreboard.attach(int(sys.argv[1]))
me = int(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
keys = [5 + (number << 20) for number in range(12)]
wrong = 0
for turn in range(40_000):
    key = keys[(turn * 7 + me) % 12]
    if turn % 13 == 0:
        _learn.forget(board, key, 1000)
    else:
        _learn.store(board, key, key * 10 + turn % 3, 1000, 1000)
    found = _learn.find(board, keys[turn % 12], 1000, 1000)
    wrong += found != 0 and found // 10 != keys[turn % 12]
print(wrong)
"""


def test_workers_that_write_the_same_places_never_mix_values_up(board: Scoreboard) -> None:
    """Twelve values fight for eight places: who finds a backend finds one of that value."""
    workers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(board.fd), str(number)], cwd=ROOT,
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                         pass_fds=[board.fd])
        for number in range(4)
    ]
    try:
        for worker in workers:
            assert worker.stdout and worker.stdout.readline() == "ready\n"
        said = [worker.communicate("go\n", timeout=60)[0] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    assert said == ["0\n"] * 4
    for number in range(12):        # nothing is stuck, or found twice with different words
        key = 5 + (number << 20)
        store(board, key, A)
        assert find(board, key) == A
        _learn.forget(board, key, NOW)
        assert find(board, key) == 0


# ---- Set-Cookie --------------------------------------------------------------------------------

@pytest.mark.parametrize(("field", "value"), [
    (b"sid=abc", b"abc"),
    (b"sid=abc; Path=/; HttpOnly", b"abc"),
    (b"sid=abc;Path=/", b"abc"),
    (b" sid = abc ; Path=/", b"abc"),
    (b'sid="abc"', b'"abc"'),               # as the client sends it back
    (b"sid=a=b==", b"a=b=="),
    (b"sid=abc; Max-Age=1", b"abc"),
    (b"sid=abc; Max-Age=", b"abc"),         # no number: as if it were not there
    (b"sid=abc; Max-Age=soon", b"abc"),
    (b"sid=abc; Max-Age=01", b"abc"),
    (b"sid=abc; X-Max-Age=0", b"abc"),
    (b"sid=abc; Path=/Max-Age=0", b"abc"),
    (b"sid=abc;;;", b"abc"),
])
def test_a_cookie_that_is_set_has_its_value(field: bytes, value: bytes) -> None:
    assert _learn.said(field, b"sid") == (value, False)


@pytest.mark.parametrize("field", [
    b"sid=", b"sid=; Path=/", b'sid=""; expires=Thu, 01 Jan 1970 00:00:00 GMT',
    b"sid=abc; Max-Age=0", b"sid=abc; Path=/; max-age=0; HttpOnly", b"sid=abc; MAX-AGE= 00",
    b"sid=abc; Max-Age=-1", b"sid=deleted;Max-Age=0",
])
def test_an_empty_value_or_no_time_ends_a_cookie(field: bytes) -> None:
    said = _learn.said(field, b"sid")
    assert said is not None and said[1]


@pytest.mark.parametrize("field", [
    b"", b";", b"sid", b"sid; a=b", b"SID=abc", b"sid2=abc", b"xsid=abc", b"=abc", b"a=b; sid=abc",
    b"si d=abc", b"\xff\xfe=1",
])
def test_other_cookies_say_nothing(field: bytes) -> None:
    assert _learn.said(field, b"sid") is None


def test_every_cut_of_a_field_is_read_within_its_bounds() -> None:
    field = b' sid = "a b" ; Max-Age = 0 ; Max-Age=-0;; Path=/ ;'
    for end in range(len(field) + 1):
        _learn.said(field[:end], b"sid")
