"""Reports: the same words for everybody, colours only where they are wanted."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from lbcore.admin.calls import AdminError
from lbcore.cli.instance import refusal
from lbcore.cli.options import State
from lbcore.cli.painted import fitting, rendered
from lbcore.cli.steps import Steps
from lbcore.cli.tables import (
    Column,
    Line,
    Said,
    Table,
    emit,
    milliseconds,
    plain,
    rate,
    size,
    span,
    state_of,
    table,
)

ESCAPE = re.compile(r"\x1b\[[0-9;]*m")
LONG = "checks failed because " + "of this and that " * 20


class Terminal(io.StringIO):
    """Standard output that says it is a terminal."""

    def isatty(self) -> bool:
        """It is."""
        return True


def report() -> Iterator[Line | Table]:
    yield ["the instance is ", state_of("running")]
    yield Table(["NAME", Column("TOTAL", 2), "STATE", "WHY"],
                [["a", 7, state_of("up"), None], ["b" * 34, 1234, state_of("down"), LONG]])


def on_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """From now on standard output is a terminal of 80 columns."""
    made = Terminal()
    monkeypatch.setattr(sys, "stdout", made)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return made


def test_plain_text_is_aligned_and_nothing_is_cut_off() -> None:
    lines = list(plain(report()))
    assert lines[0] == "the instance is running"
    assert lines[1] == "NAME                                TOTAL  STATE  WHY"
    assert lines[2] == "a                                       7  up     -"
    assert lines[3].endswith(LONG.rstrip())


def test_a_pipe_gets_plain_text(capsys: pytest.CaptureFixture[str]) -> None:
    emit(State(), report())
    assert capsys.readouterr().out.splitlines() == list(plain(report()))


def test_colours_are_printed_into_a_pipe_when_they_are_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    emit(State(color=True), report())
    said = capsys.readouterr().out
    assert "\x1b[32mup" in said
    without = [line.rstrip() for line in ESCAPE.sub("", said).splitlines()]
    assert without == list(plain(report()))


def test_on_a_terminal_states_are_coloured_and_the_width_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = on_terminal(monkeypatch)
    emit(State(), report())
    said = terminal.getvalue()
    assert re.search(r"\x1b\[1;31mdown", said)
    lines = ESCAPE.sub("", said).splitlines()
    assert max(len(line) for line in lines) <= 80
    assert "b" * 34 not in said          # a name lost its middle, nothing else
    told = " ".join(line[36:] for line in lines[3:]).split()
    assert set(LONG.split()) <= set(told)


@pytest.mark.parametrize("asked", [None, False])
def test_no_color_and_never_leave_the_words(
    monkeypatch: pytest.MonkeyPatch, asked: bool | None
) -> None:
    terminal = on_terminal(monkeypatch)
    if asked is None:
        monkeypatch.setenv("NO_COLOR", "1")
    emit(State(color=asked), report())
    assert "\x1b[3" not in terminal.getvalue()
    assert "down" in terminal.getvalue()


def test_columns_go_by_importance_until_the_rest_fits() -> None:
    made = Table(["A", Column("B", 5), Column("C", 3), Column("D", 5), "E"],
                 [["a" * 10, "b" * 10, "c" * 10, "d" * 10, "e"]])
    cells = made.cells()
    names = {width: "".join(made.columns[index].name for index in fitting(made, cells, width))
             for width in (0, 60, 40, 30, 20, 3)}
    assert names == {0: "ABCDE", 60: "ABCDE", 40: "ABDE", 30: "ABE", 20: "AE", 3: "AE"}


def test_one_long_name_does_not_cost_the_columns_beside_it(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "beginning-" + "x" * 70 + "-end"
    made = Table(["NAME", Column("TOTAL", 5), "STATE"], [[name, 7, "up"], ["b", 8, "down"]])
    terminal = on_terminal(monkeypatch)
    emit(State(color=False), [made])
    long = terminal.getvalue().splitlines()[1].split()
    assert long[0].startswith("beginning-x")
    assert long[0].endswith("x-end")
    assert long[1:] == ["7", "up"]
    assert name in "".join(plain([made]))          # a pipe has all of it


def test_what_a_terminal_would_obey_is_shown_and_not_sent(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile = "\x1b]0;title\x07 \x9b2J\r\n[bold]"
    said: list[Line | Table] = [hostile, Table(["WHY"], [[hostile]])]
    emit(State(), said)
    plainly = capsys.readouterr().out
    assert plainly.splitlines()[0] == plainly.splitlines()[2]
    terminal = on_terminal(monkeypatch)
    emit(State(color=False), said)
    for text in (plainly, terminal.getvalue()):
        assert "\\x1b]0;title\\x07 \\x9b2J\\r\\n[bold]" in text
        assert not set("\x07\x9b\r") & set(text)
        assert "\x1b]" not in text


def test_a_refusal_with_what_an_application_said_has_its_hint_below() -> None:
    assert refusal(AdminError("no such pool", "see status")) == "no such pool. Hint: see status."
    said = refusal(AdminError("it ended\n  File \x1b[2J", "the old one goes on"))
    assert said == "it ended\n  File \\x1b[2J\nHint: the old one goes on."


def test_steps_of_a_pool_are_its_own_and_in_a_pipe_not_what_it_prints() -> None:
    def event(name: str, pool: str, level: str = "info") -> dict[str, Any]:
        return {"event": name, "level": level, "message": "", "fields": {"pool": pool}}

    happened = [event("app.started", "web"), event("app.output", "web"),
                event("app.ready", "web", "debug"), event("backend.state", "other"),
                event("app.replaced", "web"), {"event": "reloaded", "level": "info"},
                event("config.problem", "web", "error")]     # which the command prints itself
    told: dict[bool, list[str]] = {True: [], False: []}
    for terse, lines in told.items():
        steps = Steps(lines.append, "web", terse=terse)
        for one in happened:
            steps.event(one)
    assert [line.split()[0] for line in told[True]] == ["app.started", "app.replaced"]
    assert [line.split()[0] for line in told[False]] == [
        "app.started", "app.output", "app.replaced"]
    for_all: list[str] = []
    steps = Steps(for_all.append)
    steps.event(happened[3])
    steps.event(happened[5])
    assert len(for_all) == 2


def test_every_line_of_a_report_is_rendered() -> None:
    assert len(list(rendered(report(), 0))) == 2


def test_columns_of_numbers_are_aligned_to_the_right_and_addresses_are_not() -> None:
    assert list(table(["N", "WHERE"], [[1, "10.0.0.1:80"], [100, "[::1]:8000"], [None, "a"]])) == [
        "  N  WHERE", "  1  10.0.0.1:80", "100  [::1]:8000", "  -  a"]


@pytest.mark.parametrize(("word", "tone"), [
    ("up", "good"), ("down", "bad"), ("drain", "doubtful"), ("draining (orphan)", "doubtful"),
    ("panic", "bad"), ("backup panic", "doubtful"), ("something else", ""),
])
def test_states_have_a_tone_by_their_first_word(word: str, tone: str) -> None:
    assert state_of(word) == Said(word, tone)  # type: ignore[arg-type]


def test_quantities_are_short() -> None:
    assert [rate(value) for value in (None, 0, 0.04, 12.34, 123.4, 9999, 12_345, 2.5e6)] == [
        None, "0", "0.0", "12.3", "123", "9999", "12.3k", "2.5M"]
    assert [milliseconds(value) for value in (None, 0.512, 10.24, 1000, 12_345)] == [
        None, "0.512ms", "10.2ms", "1s", "12.3s"]
    assert [size(value) for value in (0, 1023, 1536, 10 << 20, 5 << 40)] == [
        "0B", "1023B", "1.5K", "10.0M", "5.0T"]
    assert [span(value) for value in (-1, 119, 120, 7199, 7200, 200_000)] == [
        "0s", "119s", "2m", "119m", "2h", "2d"]
