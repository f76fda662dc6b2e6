"""What is counted beside the scoreboard: events, ended workers, buckets that start over."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import pytest

from lbcore import _figures
from lbcore._scoreboard import CAPACITY, SIZES, Scoreboard, histogram_bound
from lbcore.admin.figures import BOUNDS_US
from lbcore.config.plan import LogPlan
from lbcore.supervisor import durations
from lbcore.supervisor.durations import Durations
from lbcore.supervisor.event_counts import EventCounts
from lbcore.supervisor.log import Log
from lbcore.supervisor.process import process_use
from lbcore.supervisor.slot_counts import COUNTED, SlotCounts

WRAP = 2**32
CONNECT_AT = 64          # where connect_us stands in backend_counters_t


# ---- events ------------------------------------------------------------------------------------

def test_events_are_counted_whatever_the_log_shows(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log, counts = Log(LogPlan(level="error", path=str(path))), EventCounts()
    log.taps.append(counts.take)
    log.info("worker.started", slot=1)
    log.warning("worker.died", slot=1)
    log.error("reload.failed")
    assert len(path.read_text().splitlines()) == 1
    assert counts.levels == {"info": 1, "warning": 1, "error": 1}
    assert counts.slots["worker.died", 1] == 1
    assert not counts.reload_ok
    log.info("reloaded")
    assert counts.reload_ok


@pytest.mark.parametrize("slot", [-1, 10**9, "0", None])
def test_slots_that_cannot_be_make_no_series(slot: object) -> None:
    counts = EventCounts()
    counts.take("info", "worker.started", "", {"slot": slot})
    assert not counts.slots


def test_event_counts_go_on_in_the_next_version() -> None:
    old, new = EventCounts(), EventCounts()
    for _ in range(3):
        old.take("info", "worker.started", "", {"slot": 0})
    old.take("error", "reload.failed", "", {})
    new.take("info", "worker.started", "", {"slot": 0})
    new.restore(json.loads(json.dumps(old.export())))
    assert new.slots["worker.started", 0] == 4
    assert new.named["reload.failed"] == 1
    assert new.levels == {"info": 4, "error": 1, "debug": 0, "warning": 0}
    assert not new.reload_ok


# ---- slots -------------------------------------------------------------------------------------

def test_what_a_worker_counted_stays_with_its_slot() -> None:
    counts = SlotCounts()
    seat = dict.fromkeys(COUNTED, 5) | {"connections": 3}
    counts.worker_ended(2, seat, 1.5)
    counts.worker_ended(2, None, 0.25)          # its scoreboard cannot be read
    again = SlotCounts()
    again.restore(json.loads(json.dumps(counts.export())))
    assert again.total(2, [dict.fromkeys(COUNTED, 2)]) == dict.fromkeys(COUNTED, 7)
    assert again.cpu(2, 1.0) == 2.75
    assert again.total(0, []) == dict.fromkeys(COUNTED, 0)


def test_what_a_process_used_can_be_read_after_its_end() -> None:
    pid = os.fork()
    if not pid:
        end = os.times().user + 0.05
        while os.times().user < end:
            pass
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert process_use(pid).cpu_s >= 0.04
    os.waitpid(pid, 0)
    assert process_use(pid).cpu_s == 0
    assert process_use(os.getpid()).resident > 2**20


# ---- durations ---------------------------------------------------------------------------------

class Found:
    """Figures of one row with one histogram, as ``Durations`` asks for them when it must."""

    def __init__(self, **buckets: int) -> None:
        self.buckets = [buckets.get(f"b{bucket}", 0) for bucket in range(_figures.BUCKETS)]

    def histogram(self, index: int, which: int) -> list[int]:
        return self.buckets


class FakeHistogram:
    """Stands in for the compiled one, which takes only figures of a scoreboard."""

    total = 0

    def add(self, found: Found, index: int, which: int) -> None:
        self.total = sum(found.buckets)

    def up_to(self, bounds: tuple[int, ...]) -> list[int]:
        return [0] * (len(bounds) + 1)

    def estimated_sum(self) -> float:
        return 0.0


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> type[Found]:
    monkeypatch.setattr(durations, "Histogram", FakeHistogram)
    return Found


def test_every_bound_is_one_where_a_bucket_ends() -> None:
    ends = {histogram_bound(bucket) for bucket in range(_figures.BUCKETS - 1)}
    assert set(BOUNDS_US) <= ends


def test_bounds_reach_as_far_as_the_scoreboard_tells_durations_apart() -> None:
    assert BOUNDS_US[-1] == histogram_bound(_figures.BUCKETS - 2)


def test_watched_histograms_read_as_the_compiled_ones_do() -> None:
    """The slow way gives what the quick one gives."""
    board = Scoreboard.create()
    buckets = [(7 * bucket) % 11 for bucket in range(_figures.BUCKETS)]
    row = (SIZES["header"] + 128 * SIZES["seat"] + CAPACITY["backends"] * SIZES["backend_live"]
           + CAPACITY["pools"] * SIZES["pool_live"]
           + CAPACITY["listeners"] * SIZES["listener_live"])
    os.pwrite(board.fd, struct.pack(f"<{len(buckets)}I", *buckets), row + CONNECT_AT)
    figures = _figures.backends(board, [0])
    assert figures.histogram(0, _figures.CONNECT) == buckets
    quick = Durations().times(("a",), 0, figures, 0, _figures.CONNECT)
    slow = durations._times(buckets)
    assert slow.up_to == quick.up_to
    assert slow.total_s == pytest.approx(quick.total_s)
    assert quick.up_to[-1] == sum(buckets)


def test_buckets_that_start_over_go_on_growing(found: type[Found]) -> None:
    reader = Durations()
    before = reader.times(("a",), 10, found(b40=WRAP - 10, b50=7), 0, 0)
    after = reader.times(("a",), 20, found(b40=5, b50=8), 0, 0)
    assert after.up_to[-1] - before.up_to[-1] == 16
    assert all(new >= old for old, new in zip(before.up_to, after.up_to, strict=True))
    assert after.total_s > before.total_s


def test_a_row_that_was_given_to_another_did_not_start_over(found: type[Found]) -> None:
    reader = Durations()
    reader.times(("a",), 1000, found(b40=WRAP - 10), 0, 0)
    assert reader.times(("a",), 3, found(b40=3), 0, 0).up_to[-1] == 3


def test_buckets_that_started_over_are_known_to_the_next_version(found: type[Found]) -> None:
    old, new = Durations(), Durations()
    old.times(("a", "b"), 10, found(b40=WRAP - 10), 0, 0)
    old.times(("a", "b"), 20, found(b40=5), 0, 0)
    new.restore(json.loads(json.dumps(old.export())))
    assert new.times(("a", "b"), 21, found(b40=6), 0, 0).up_to[-1] == WRAP + 6
