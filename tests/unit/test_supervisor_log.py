"""The log: one line per event, never a reason to wait."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from lbcore.config.plan import LogPlan
from lbcore.supervisor.log import MAX_LINE, Log


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def test_json_lines_hold_level_event_message_and_fields(tmp_path: Path) -> None:
    log = Log(LogPlan(format="json", path=str(tmp_path / "l")))
    log.warning("worker.died", message="it ended", pid=7)
    said = json.loads(lines(tmp_path / "l")[0])
    assert said.pop("time").endswith("Z")
    assert said == {"level": "warning", "event": "worker.died", "message": "it ended", "pid": 7}


def test_text_quotes_what_would_be_read_as_several_fields(tmp_path: Path) -> None:
    log = Log(LogPlan(path=str(tmp_path / "l")))
    log.info("worker.ended", how="exit code 0", pid=7)
    assert lines(tmp_path / "l")[0].endswith('info    worker.ended how="exit code 0" pid=7')


def test_what_others_say_is_one_line_and_moves_no_cursor(tmp_path: Path) -> None:
    log = Log(LogPlan(path=str(tmp_path / "l")))
    log.info("app.output", message="a\x1b[2J\nerror   started\tb \u00e9", why="\x9b2J\r")
    (line,) = (tmp_path / "l").read_bytes().decode().removesuffix("\n").split("\n")
    assert line.endswith("a\\x1b[2J\\nerror   started\tb \u00e9 why=\"\\x9b2J\\r\"")
    assert not set(line) & {*map(chr, range(9)), "\x1b", "\x9b", "\r"}


def test_levels_below_the_configured_one_are_not_written(tmp_path: Path) -> None:
    log = Log(LogPlan(level="warning", path=str(tmp_path / "l")))
    log.info("a")
    log.error("b")
    assert len(lines(tmp_path / "l")) == 1


def test_long_values_are_cut_and_the_line_stays_json(tmp_path: Path) -> None:
    log = Log(LogPlan(format="json", path=str(tmp_path / "l")))
    log.error("config.problem", message="x" * 100_000, hint="y" * 100_000)
    (line,) = lines(tmp_path / "l")
    assert len(line) < MAX_LINE
    assert json.loads(line)["event"] == "config.problem"


def test_reader_that_does_not_read_costs_lines_and_not_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:
    reader, writer = os.pipe()
    log = Log(LogPlan(path=str(tmp_path / "l")))
    monkeypatch.setattr(log, "_fd", writer)
    for number in range(5000):
        log.info("event", number=number, text="x" * 100)
    assert log.dropped > 0
    os.set_blocking(reader, False)
    while True:
        try:
            if not os.read(reader, 65536):
                break
        except BlockingIOError:
            break
    before = log.dropped
    log.info("event")
    assert log.dropped == before
    os.close(reader)
    log.info("event")        # nobody reads at all
    assert log.dropped == before + 1


def test_path_that_cannot_be_opened_leaves_the_log_where_it_was(tmp_path: Path) -> None:
    log = Log(LogPlan(path=str(tmp_path / "l")))
    with pytest.raises(OSError):
        log.configure(LogPlan(path=str(tmp_path / "no" / "l")))
    log.info("still.here")
    assert len(lines(tmp_path / "l")) == 1
