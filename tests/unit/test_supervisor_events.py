"""The ring of events and its readers."""

from __future__ import annotations

import asyncio
import json
import threading

from lbcore.config.plan import LogPlan
from lbcore.supervisor import events as room
from lbcore.supervisor.events import Events
from lbcore.supervisor.log import Log


def filled(count: int) -> Events:
    """A ring after so many events."""
    made = Events()
    for number in range(count):
        made.take("info", "tick", "", {"number": number})
    return made


def test_everything_the_log_is_told_is_an_event_whatever_it_writes(tmp_path: object) -> None:
    path = f"{tmp_path}/log"
    written, events = Log(LogPlan(level="error", path=path)), Events()
    written.taps.append(events.take)
    written.debug("small", "a word", number=1, none=None, names=("a", "b"), other={1})
    (one,) = events.some(0, 10, "debug")["events"]
    assert one | {"time": ""} == {
        "seq": 1, "time": "", "level": "debug", "event": "small", "message": "a word",
        "fields": {"number": 1, "none": None, "names": ["a", "b"], "other": "{1}"}}
    assert events.some(0, 10, "info") == {"events": [], "last": 1}
    with open(path) as file:         # noqa: PTH123
        assert file.read() == ""


def test_ring_keeps_the_last_thousand_and_gives_the_newest() -> None:
    made = filled(room.RING + 500)
    found = made.some(0, 3, "info")
    assert [one["seq"] for one in found["events"]] == [1498, 1499, 1500]
    assert found["last"] == 1500 and len(made.some(0, 5000, "info")["events"]) == room.RING
    assert [one["seq"] for one in made.some(1499, 100, "info")["events"]] == [1500]
    assert made.some(1500, 100, "info")["events"] == []


def test_what_applications_print_pushes_no_event_out() -> None:
    made = room.Events()
    made.take("warning", "backend.state", "it is down", {})
    for number in range(room.RING + 10):
        made.take("info", room.OUTPUT, f"line {number}", {})
    made.take("info", "reloaded", "", {})
    for _ in range(2):
        known = made.after(0)
        assert [one["event"] for one in known if one["event"] != room.OUTPUT] == [
            "backend.state", "reloaded"]
        assert [one["seq"] for one in known] == sorted(one["seq"] for one in known)
        assert known[0]["event"] == "backend.state" and known[-1]["event"] == "reloaded"
        later = room.Events()
        later.restore(made.export())
        made = later


def test_number_of_another_instance_begins_with_what_is_known() -> None:
    assert [one["seq"] for one in filled(3).some(77, 10, "info")["events"]] == [1, 2, 3]


def test_long_values_do_not_fill_the_ring() -> None:
    made = Events()
    made.take("error", "big", "x" * 100_000, {"text": "y" * 100_000, "many": list(range(9999))})
    assert len(json.dumps(made.some(0, 1, "info"))) < 4000


async def test_reader_has_what_was_missed_and_then_what_happens() -> None:
    made = filled(5)
    reader = made.subscribe(3)
    made.take("info", "tick", "", {})
    assert [(await anext(reader))["seq"] for _ in range(3)] == [4, 5, 6]
    waiting = asyncio.ensure_future(anext(reader))
    await asyncio.sleep(0)
    made.take("info", "tick", "", {})
    assert (await waiting)["seq"] == 7
    reader.close()
    assert [one async for one in reader] == [] and not reader.dropped


async def test_reader_without_a_number_is_told_only_what_happens() -> None:
    made = filled(5)
    reader = made.subscribe(None)
    made.take("info", "tick", "", {})
    assert (await anext(reader))["seq"] == 6


async def test_reader_that_does_not_read_is_dropped_and_others_are_not() -> None:
    made = filled(0)
    slow, quick = made.subscribe(None), made.subscribe(None)
    seen = 0
    for _ in range(room.BACKLOG + 1):
        made.take("info", "tick", "", {})
        seen += (await anext(quick))["seq"] > 0
    assert slow.dropped and [one async for one in slow] == []
    assert not quick.dropped and seen == room.BACKLOG + 1


async def test_events_of_other_threads_arrive() -> None:
    made = filled(0)
    reader = made.subscribe(None)
    waiting = asyncio.ensure_future(anext(reader))
    await asyncio.sleep(0)
    thread = threading.Thread(target=made.take, args=("warning", "library", "said", {}))
    thread.start()
    assert (await asyncio.wait_for(waiting, 20))["event"] == "library"
    thread.join()


async def test_end_of_the_instance_ends_readers() -> None:
    made = filled(1)
    reader = made.subscribe(0)
    made.close()
    assert [one["seq"] async for one in reader] == [1] and not reader.dropped


def test_numbers_go_on_over_an_upgrade() -> None:
    made = filled(300)
    later = filled(2)                # what the new version said before it knew
    later.restore(json.loads(json.dumps(made.export())))
    found = later.some(0, 1000, "info")["events"]
    assert [one["seq"] for one in found] == list(range(301 - room.HANDED_OVER, 303))
    assert later.last == 302
    for nonsense in (None, 5, {}, {"last": "x", "ring": []}, {"last": 3, "ring": [{"seq": 1}]}):
        later.restore(nonsense)
    assert later.last == 302
