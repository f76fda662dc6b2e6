"""Events as the journal and syslog get them, from real sockets."""

from __future__ import annotations

import os
import re
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from lbcore.config import ConfigError, parse
from lbcore.config.models import SYSLOG_FACILITIES
from lbcore.config.plan import LogPlan
from lbcore.supervisor import journal
from lbcore.supervisor.log import Log

TEXT = '[[listener]]\nname = "a"\nbind = "127.0.0.1:80"\npool = "a"\n[pool.a]\ndemo = 1\n'


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """What listens where the journal and syslog do."""
    path = tmp_path / "socket"
    monkeypatch.setattr(journal, "JOURNAL_SOCKET", str(path))
    monkeypatch.setattr(journal, "SYSLOG_SOCKET", str(path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(path))
        sock.settimeout(20)
        yield sock


def fields_of(datagram: bytes) -> dict[str, str]:
    """The fields of a datagram in the journal's native protocol."""
    found = {}
    while datagram:
        line, _, rest = datagram.partition(b"\n")
        if b"=" in line:
            name, _, value = line.partition(b"=")
        else:
            name, [length] = line, struct.unpack("<Q", rest[:8])
            value, rest = rest[8 : 8 + length], rest[8 + length + 1 :]
        found[name.decode()] = value.decode()
        datagram = rest
    return found


def test_the_journal_gets_every_field_by_its_name(daemon: socket.socket) -> None:
    log = Log(LogPlan(path="journal:"))
    log.warning("backend.state", message="it is gone", pool="web", new="down", **{"a-b": 1})
    said = fields_of(daemon.recv(65536))
    assert said == {
        "MESSAGE": "backend.state it is gone pool=web new=down a-b=1", "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "lbcore", "LBCORE_EVENT": "backend.state",
        "LBCORE_MESSAGE": "it is gone", "LBCORE_POOL": "web", "LBCORE_NEW": "down",
        "LBCORE_A_B": "1"}


def test_values_with_lines_cannot_make_up_fields(daemon: socket.socket) -> None:
    log = Log(LogPlan(path="journal:"))
    log.error("app.output", text="one\nPRIORITY=0\nFAKE=1")
    said = fields_of(daemon.recv(65536))
    assert said["LBCORE_TEXT"] == "one\nPRIORITY=0\nFAKE=1"
    assert said["PRIORITY"] == "3"
    assert "FAKE" not in said


def test_syslog_gets_a_line_with_facility_and_severity(daemon: socket.socket) -> None:
    log = Log(LogPlan(path="syslog:local3"))
    log.info("worker.started", slot=0)
    line = daemon.recv(65536).decode()
    assert re.fullmatch(rf"<{8 * 19 + 6}>[A-Z][a-z]{{2}} [ 1-3]\d \d\d:\d\d:\d\d "
                        rf"lbcore\[{os.getpid()}\]: worker\.started slot=0", line), line


def test_syslog_lines_stay_single(daemon: socket.socket) -> None:
    log = Log(LogPlan(path="syslog:"))
    log.info("app.output", message="one\n<0>two")
    assert daemon.recv(65536).count(b"\n") == 0


def test_json_is_sent_as_it_is_written(daemon: socket.socket) -> None:
    Log(LogPlan(path="syslog:", format="json")).info("reloaded", version=2)
    assert b'"event": "reloaded", "version": 2}' in daemon.recv(65536)


def test_what_is_not_taken_is_dropped_counted_and_never_waited_for(
    daemon: socket.socket, tmp_path: Path
) -> None:
    log = Log(LogPlan(path="journal:"))
    for number in range(5000):
        log.info("reloaded", version=number)
    assert log.dropped > 0
    dropped = log.dropped
    daemon.close()
    log.info("reloaded")
    assert log.dropped == dropped + 1
    (tmp_path / "socket").unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as again:
        again.bind(str(tmp_path / "socket"))     # the daemon was restarted
        again.settimeout(20)
        log.info("stopped")
        assert fields_of(again.recv(65536))["LBCORE_EVENT"] == "stopped"


def test_a_journal_that_is_not_there_is_an_error_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "JOURNAL_SOCKET", str(tmp_path / "none"))
    with pytest.raises(FileNotFoundError):
        Log(LogPlan(path="journal:"))


def test_a_reload_can_move_the_log_there_and_back(
    daemon: socket.socket, tmp_path: Path
) -> None:
    log = Log(LogPlan(path=str(tmp_path / "log")))
    log.configure(LogPlan(path="journal:"))
    log.info("one")
    log.configure(LogPlan(path=str(tmp_path / "log")))
    log.info("two")
    assert fields_of(daemon.recv(65536))["LBCORE_EVENT"] == "one"
    assert [line.split()[2] for line in (tmp_path / "log").read_text().splitlines()] == ["two"]


def test_standard_error_that_is_the_journals_has_levels_in_front(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with (tmp_path / "stream").open("w+") as stream:
        monkeypatch.setattr("sys.__stderr__", stream)
        there = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{there.st_dev}:{there.st_ino}")
        Log().warning("backend.state", pool="web")
        monkeypatch.setenv("JOURNAL_STREAM", f"{there.st_dev}:{there.st_ino + 1}")
        Log().warning("backend.state", pool="web")
        first, second = (tmp_path / "stream").read_text().splitlines()
    assert first == "<4>backend.state pool=web"
    assert second.endswith(" warning backend.state pool=web")


def test_paths_of_the_log_are_checked() -> None:
    for path in ("journal:", "syslog:", "syslog:local7", "-"):
        parse(f'[log]\npath = "{path}"\n' + TEXT, "lb.toml")
    with pytest.raises(ConfigError, match='did you mean "local7"'):
        parse('[log]\npath = "syslog:local77"\n' + TEXT, "lb.toml")
    with pytest.raises(ConfigError, match="absolute path"):
        parse('[log]\naccess = "syslog:"\n' + TEXT, "lb.toml")
    assert set(SYSLOG_FACILITIES) == set(journal.FACILITIES)
