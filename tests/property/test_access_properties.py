"""The access log under anything: what clients send, and how its reader reads."""

from __future__ import annotations

import contextlib
import json
import os
import re
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from lbcore import _access
from lbcore._access import AccessFormat, AccessLog
from tests.support.access import line_of

TEXTS = ("listener", "route", "pool", "backend", "method", "target", "host", "referer",
         "user_agent", "user", "request_id")
ENDPOINT = st.none() | st.tuples(st.binary(min_size=4, max_size=4)
                                 | st.binary(min_size=16, max_size=16), st.integers(0, 65535))
RECORD = st.fixed_dictionaries({
    **{name: st.binary(max_size=60) | st.integers(0, 9000).map(lambda n: b"\xff" * n)
       for name in TEXTS},
    "http": st.integers(0, 1), "minor": st.integers(0, 1), "status": st.integers(0, 65535),
    "attempts": st.integers(0, 65535), "reason": st.integers(0, 255), "tunnel": st.integers(0, 1),
    "started_us": st.integers(0, 2**53), "total_us": st.integers(0, 2**64 - 1),
    "queue_us": st.integers(0, 2**32 - 1), "connect_us": st.integers(0, 2**32 - 1),
    "first_byte_us": st.integers(0, 2**32 - 1), "bytes_up": st.integers(0, 2**64 - 1),
    "bytes_down": st.integers(0, 2**64 - 1), "client": ENDPOINT, "peer": ENDPOINT,
})
TEXT = rb"(?:[ -!#-\[\]-~]|\\x[0-9A-F]{2})+"
COMBINED = re.compile(
    rb"[!-~]+ - %b \[[^]]+\] \"%b\" \d{3} \d+ \"%b\" \"%b\"" % (TEXT, TEXT, TEXT, TEXT))


def written(record: dict[str, Any], form: AccessFormat, *, file: bool) -> bytes:
    line = line_of(record, form, file=file)
    assert len(line) < (_access.LONGEST if file else _access.LONGEST_PIECE)
    return line


@given(RECORD, st.booleans())
def test_any_record_is_one_line_of_json_that_says_what_it_holds(
    record: dict[str, Any], file: bool,
) -> None:
    line = written(record, AccessFormat.ACCESS_JSON, file=file)
    assert line.isascii()
    assert line.decode().isprintable()
    found = json.loads(line)
    assert found["bytes_out"] == record["bytes_down"]
    if record["method"]:
        target = record["target"].decode("latin-1")
        assert found["target"] == target or (found["cut"] and target.startswith(found["target"]))


@given(RECORD, st.booleans())
def test_any_record_is_one_line_in_combined_format(record: dict[str, Any], file: bool) -> None:
    assert COMBINED.fullmatch(written(record, AccessFormat.ACCESS_COMBINED, file=file))


@settings(max_examples=50)
@given(st.booleans(), st.lists(st.tuples(
    st.sampled_from(["line", "long line", "flush", "read", "read little", "wait"]),
    st.integers(1, 60)), max_size=60))
def test_however_a_pipe_is_read_lines_are_whole_in_order_and_all_accounted_for(
    blocking: bool, steps: list[tuple[str, int]],
) -> None:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, blocking)
    log = AccessLog(os.dup(writer), AccessFormat.ACCESS_JSON)
    data, clock, made = b"", 1, 0

    def read(most: int) -> None:
        nonlocal data
        with contextlib.suppress(BlockingIOError):
            data += os.read(reader, most)

    for what, count in steps:
        for _ in range(count):
            if what in ("line", "long line"):
                long = b"x" * (3000 if what == "long line" else 30)
                log.line({"bytes_up": made, "method": b"GET", "target": long}, clock)
                made += 1
            elif what == "flush":
                log.flush(clock)
            elif what == "wait":
                clock += 5
                if log.flush_at and log.flush_at <= clock:
                    log.flush(clock)
            else:
                read(1 << 20 if what == "read" else 777)
    while log.gathered:
        clock += 200
        log.flush(clock)
        read(1 << 20)
    read(1 << 20)
    log.close()
    os.close(writer)
    os.close(reader)
    numbers = [json.loads(line)["bytes_in"] for line in data.splitlines()]
    assert numbers == sorted(set(numbers))
    assert len(numbers) == log.lines
    assert log.lines + log.dropped == made
