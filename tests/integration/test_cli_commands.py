"""The command line against a running lbcore: what is printed, and with which exit code."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from lbcore.cli import INTERRUPTED, execute
from tests.support.instance import PATIENCE, ROOT, Instance, free_port, instance, until
from tests.support.terminal import on_terminal

Json = dict[str, Any]
CODES = """\
0 it was done
1 it was not
2 the command line or the configuration is wrong
130 it was interrupted
"""


@pytest.fixture(scope="module")
def lb() -> Iterator[Instance]:
    """An instance with two backends that listen, and nothing that looks at them."""
    with contextlib.ExitStack() as stack:
        made = stack.enter_context(instance())
        ports = [stack.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1]
                 for _ in range(2)]
        made.pool["backends"] = [{"name": name, "address": f"127.0.0.1:{port}"}
                                 for name, port in zip(("one", "two"), ports, strict=True)]
        made.write()
        made.start()
        yield made
        assert made.complaints() == []


@pytest.fixture
def fresh(lb: Instance) -> Instance:
    """The instance as its file says."""
    lb.admin.forget_changes()
    return lb


class Said:
    """What a command printed, and its exit code."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def run(lb: Instance, capsys: pytest.CaptureFixture[str], *words: str) -> Said:
    """Runs a command in this process: those that it starts cost a second each."""
    capsys.readouterr()
    code = execute([*words, "-c", str(lb.config)])
    said = capsys.readouterr()
    return Said(code, said.out, said.err)


def process(lb: Instance, *words: str, **more: Any) -> subprocess.Popen[str]:
    """Starts a command in a process of its own, on pipes."""
    return subprocess.Popen(
        [sys.executable, "-m", "lbcore", *words, "-c", str(lb.config)], text=True, cwd=ROOT,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more)


def backend(lb: Instance, name: str) -> Json:
    return next(one for one in lb.status()["pools"][0]["backends"] if one["name"] == name)


# -- the state, and what changes it

DRAINED = "main/one is in drain; 0 connections left to finish\n"


@pytest.mark.parametrize(("words", "out", "key", "value"), [
    (["drain", "main/one"], DRAINED, "draining", True),
    (["drain", "main", "one"], DRAINED, "draining", True),
    (["weight", "main/one", "7"], "main/one has weight 7 (configured: 1)\n", "weight", 7),
    (["weight", "main", "one", "0"], "main/one has weight 0 (configured: 1)\n", "weight", 0),
    (["force", "main/one", "down"], "main/one is down, forced by you\n", "forced", "down"),
    (["force", "main", "one", "up"], "main/one is up, forced by you\n", "forced", "up"),
], ids=lambda value: " ".join(value) if isinstance(value, list) else None)
def test_a_backend_is_changed_and_put_back(
    fresh: Instance, capsys: pytest.CaptureFixture[str], words: list[str], out: str, key: str,
    value: object,
) -> None:
    said = run(fresh, capsys, *words)
    assert (said.code, said.out, said.err) == (0, out, "")
    assert backend(fresh, "one")[key] == value
    back = {"drain": ["undrain", "main/one"], "weight": ["weight", "main/one", "default"],
            "force": ["force", "main/one", "off"]}[words[0]]
    assert run(fresh, capsys, *back).code == 0
    assert fresh.status()["changes"] == 0


def test_backends_come_and_go(fresh: Instance, capsys: pytest.CaptureFixture[str]) -> None:
    added = run(fresh, capsys, "add", "main", "127.0.0.1:9", "--name", "three", "--weight", "5",
                "--backup", "--max-connections", "10")
    assert added.code == 0
    assert re.fullmatch(r"added: main/three is up, plan \d+\n", added.out)
    found = backend(fresh, "three")
    assert (found["weight"], found["backup"], found["max_connections"]) == (5, True, 10)
    status = run(fresh, capsys, "status")
    assert "three (backup) (added)" in status.out
    assert "1 change from the file" in status.out
    removed = run(fresh, capsys, "remove", "main", "three")
    assert removed.out == "removed: main/three; 0 connections left to finish\n"
    assert fresh.status()["changes"] == 0


def test_changes_are_listed_and_undone(
    fresh: Instance, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(fresh, capsys, "changes").out == "what runs is what the file says\n"
    fresh.admin.drain("main", "one")
    fresh.admin.add("main", {"address": "127.0.0.1:9", "weight": 2})
    listed = run(fresh, capsys, "changes")
    head, *lines = [line.split()[:2] for line in listed.out.splitlines()]
    assert head == ["WHAT", "WHERE"]
    assert sorted(lines) == [["add", "main/127.0.0.1:9"], ["drain", "main/one"]]
    assert len(run(fresh, capsys, "changes", "--json").json["changes"]) == 2
    assert len(run(fresh, capsys, "changes", "--pool", "main", "--json").json["changes"]) == 2
    undone = run(fresh, capsys, "changes", "--forget", "--pool", "main")
    assert undone.out == "back to the file: 2 changes undone\n"
    assert not backend(fresh, "one")["draining"]


def test_workers_and_log_level_are_set_and_put_back(
    fresh: Instance, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(fresh, capsys, "workers", "2").out == "2 workers\n"
    assert run(fresh, capsys, "workers", "auto").out == "1 worker\n"
    assert run(fresh, capsys, "log-level", "debug").out == "logged from level debug up\n"
    assert run(fresh, capsys, "log-level", "default").out == "logged from level info up\n"
    assert fresh.status()["changes"] == 0


def test_every_answer_can_be_json(fresh: Instance, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["status"], ["changes"], ["drain", "main/one"], ["undrain", "main/one"],
                  ["weight", "main/one", "3"], ["force", "main/one", "off"],
                  ["add", "main", "127.0.0.1:9"], ["remove", "main/127.0.0.1:9"],
                  ["workers", "auto"], ["log-level", "default"], ["reload"],
                  ["changes", "--forget"], ["top"]):
        said = run(fresh, capsys, *words, "--json")
        assert (said.code, said.err) == (0, ""), words
        found = said.json
        assert "plan_version" in (found["status"] if words == ["top"] else found), words


# -- what is wrong


@pytest.mark.parametrize(("words", "code", "told"), [
    (["drain", "main/nobody"], 1, "`lbcore status`"),
    (["drain", "nobody"], 2, "POOL/BACKEND"),
    (["drain", "main", "one", "two"], 2, "POOL/BACKEND"),
    (["drain"], 2, "POOL/BACKEND"),
    (["weight", "main/one", "heavy"], 2, "0 to 1000"),
    (["weight", "main/one", "1001"], 2, "1000"),
    (["force", "main/one", "sideways"], 2, "sideways"),
    (["add", "nowhere", "127.0.0.1:9"], 1, "nowhere"),
    (["add", "main", "127.0.0.1"], 2, "port"),
    (["remove", "main/nobody"], 1, "nobody"),
    (["workers", "0"], 2, "auto"),
    (["workers", "many"], 2, "auto"),
    (["log-level", "loud"], 2, "loud"),
    (["restart", "main"], 1, "main"),
    (["changes", "--pool", "nowhere"], 1, "nowhere"),
    (["status", "--admin", "nowhere"], 2, "--admin"),
    (["status", "--color", "sometimes"], 2, "sometimes"),
    (["events", "--token-file", "/nowhere"], 1, "token"),
], ids=lambda value: " ".join(value) if isinstance(value, list) else None)
def test_a_mistake_changes_nothing_and_is_told_on_standard_error(
    fresh: Instance, capsys: pytest.CaptureFixture[str], words: list[str], code: int, told: str
) -> None:
    said = run(fresh, capsys, *words)
    assert (said.code, said.out) == (code, "")
    assert told in said.err
    assert fresh.status()["changes"] == 0


def test_where_nobody_answers_every_command_exits_with_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (["status"], ["events"], ["changes"], ["top"], ["reload"], ["stop"],
                  ["upgrade"], ["status", "--watch"], ["events", "--follow"]):
        assert execute([*words, "--admin", f"unix:{tmp_path}/nobody.sock"]) == 1, words
        said = capsys.readouterr()
        assert "no lbcore answers" in said.err, words
        assert execute([*words, "--json", "--admin", f"unix:{tmp_path}/nobody.sock"]) == 1, words
        assert json.loads(capsys.readouterr().out)["ok"] is False, words


def test_the_help_and_the_guide_tell_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    execute(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    guide = (ROOT / "docs/guide/terminal.md").read_text()
    for code, what in (line.split(" ", 1) for line in CODES.splitlines()):
        assert f"{code} {what}" in said
        assert re.search(rf"^\| {code} \|", guide, re.MULTILINE), code


# -- what goes on


def test_events_are_printed_newest_last_with_their_fields(
    fresh: Instance, capsys: pytest.CaptureFixture[str]
) -> None:
    fresh.admin.drain("main", "one")
    lines = run(fresh, capsys, "events").out.splitlines()
    assert re.fullmatch(r"[0-9-]{10} [0-9:.]{12} info    started  lbcore .* pid=\d+ .*",
                        next(line for line in lines if " started " in line))
    found = [json.loads(line) for line in run(fresh, capsys, "events", "--json").out.splitlines()]
    assert [one["seq"] for one in found] == sorted(one["seq"] for one in found)
    moments = [datetime.fromisoformat(one["time"]) for one in found]
    assert moments == sorted(moments)
    last = run(fresh, capsys, "events", "--json", "-n", "1").json
    assert last["seq"] == found[-1]["seq"]
    assert run(fresh, capsys, "events", "--after", str(last["seq"])).out == ""
    levels = {json.loads(line)["level"] for line in run(
        fresh, capsys, "events", "--json", "--level", "warning").out.splitlines()}
    assert levels <= {"warning", "error"}


def test_followed_events_come_as_they_happen_until_ctrl_c(fresh: Instance) -> None:
    with process(fresh, "events", "--follow", "--json", "--after", "0") as followed:
        assert followed.stdout is not None
        first = json.loads(followed.stdout.readline())
        assert first["seq"] == 1
        fresh.admin.reload()
        for line in followed.stdout:
            if json.loads(line)["event"] == "reloaded":
                break
        followed.send_signal(signal.SIGINT)
        assert followed.wait(PATIENCE) == INTERRUPTED


def test_watched_status_comes_again_and_again_until_ctrl_c(fresh: Instance) -> None:
    with process(fresh, "status", "--watch", "--json", "--interval", "0.1") as watched:
        assert watched.stdout is not None
        pids = {json.loads(watched.stdout.readline())["pid"] for _ in range(3)}
        assert pids == {fresh.pid}
        watched.send_signal(signal.SIGINT)
        assert watched.wait(PATIENCE) == INTERRUPTED


def test_a_reload_is_told_on_standard_output_and_its_steps_on_standard_error(
    fresh: Instance,
) -> None:
    with process(fresh, "reload") as reloading:
        out, err = reloading.communicate(timeout=PATIENCE)
    assert reloading.returncode == 0
    assert re.fullmatch(r"reloaded: plan \d+ is in force\n", out)
    assert re.search(r"^reloading: reloaded  version=\d+", err, re.MULTILINE)


def test_a_reload_tells_what_it_could_not_change_and_what_it_ended(
    fresh: Instance, capsys: pytest.CaptureFixture[str]
) -> None:
    fresh.admin.drain("main", "two")
    backends = fresh.pool["backends"]
    fresh.file["lbcore"]["pid_file"] = str(fresh.directory / "pid")
    fresh.pool["backends"] = backends[:1]
    fresh.write()
    try:
        told = run(fresh, capsys, "reload").out.splitlines()[1:]
    finally:
        del fresh.file["lbcore"]["pid_file"]
        fresh.pool["backends"] = backends
        fresh.write()
        fresh.admin.reload()
    assert told == ["needs a restart to change: pid_file",
                    "has ended, it no longer applies: main/two drain"]


def test_a_file_with_problems_is_refused_with_2(fresh: Instance) -> None:
    fresh.write("[lbcore]\nworkres = 1\n")
    try:
        with process(fresh, "reload", "--admin", f"unix:{fresh.admin_path}") as reloading:
            out, err = reloading.communicate(timeout=PATIENCE)
    finally:
        fresh.write()
    assert (reloading.returncode, out) == (2, "")
    assert 'did you mean "workers"?' in err


# -- on a terminal

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
LBCORE = [sys.executable, "-m", "lbcore"]


def test_check_knows_its_own_instance_from_another_one(
    fresh: Instance, capsys: pytest.CaptureFixture[str], tmp_path: Path,
) -> None:
    """Addresses of the instance that a file is for are no obstacle; those of another one are."""
    assert run(fresh, capsys, "check").code == 0
    other = tmp_path / "other.toml"
    other.write_text(fresh.config.read_text().replace(str(fresh.admin_path), f"{tmp_path}/admin"))
    capsys.readouterr()
    assert execute(["check", "-c", str(other)]) == 2
    assert f"(pid {fresh.pid})" in capsys.readouterr().err


def test_on_a_terminal_tables_have_colours_and_fit(fresh: Instance) -> None:
    code, text = on_terminal([*LBCORE, "status", "-c", str(fresh.config)])
    assert code == 0
    assert "\x1b[32mup" in text
    lines = ESCAPES.sub("", text).splitlines()
    assert max(len(line) for line in lines) <= 80
    assert any("one" in line.split() and "up" in line.split() for line in lines)


def test_on_a_terminal_without_colours_the_words_stay(fresh: Instance) -> None:
    _, text = on_terminal([*LBCORE, "status", "-c", str(fresh.config)],
                          environment={"NO_COLOR": "1"})
    assert "\x1b[3" not in text
    assert "serving" in text


def test_steps_are_one_line_that_changes_on_a_terminal(fresh: Instance) -> None:
    code, text = on_terminal([*LBCORE, "reload", "-c", str(fresh.config)])
    assert code == 0
    assert "\x1b[2K" in text             # the line is cleared for what comes next
    assert re.search(r"reloaded: plan \d+ is in force", ESCAPES.sub("", text))


def test_a_watched_status_gives_the_screen_back_at_ctrl_c(fresh: Instance) -> None:
    code, text = on_terminal([*LBCORE, "status", "--watch", "-c", str(fresh.config)], "serving",
                             b"\x03")
    assert code == INTERRUPTED
    assert text.index("\x1b[?1049h") < text.index("\x1b[?1049l")


# -- an address with a token


def test_the_token_comes_from_the_configuration_or_from_a_named_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    token = tmp_path / "token"
    token.write_text("secret-of-the-house-0123456789\n")
    token.chmod(0o600)
    with instance() as guarded:
        address = f"127.0.0.1:{free_port()}"
        guarded.file["admin"] = {"listen": address, "token_file": str(token)}
        guarded.pool["backends"] = [f"127.0.0.1:{free_port()}"]
        guarded.write()
        guarded.start()
        assert run(guarded, capsys, "status").code == 0
        for words, code in ((["--admin", address], 1),
                            (["--admin", address, "--token-file", str(token)], 0)):
            assert execute(["status", *words]) == code
        assert "token" in capsys.readouterr().err
        monkeypatch.setenv("LBCORE_TOKEN_FILE", str(token))
        assert execute(["status", "--admin", address]) == 0


# -- completion


def completed(lb: Instance, line: str) -> list[str]:
    """What is offered for a line, as (kind, value) by the program itself."""
    environment = os.environ | {"_LBCORE_COMPLETE": "bash_complete", "COMP_WORDS": line,
                                "COMP_CWORD": "0"}
    done = subprocess.run([sys.executable, "-m", "lbcore"], env=environment, cwd=lb.directory,
                          capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.stderr == ""
    return [one.partition(",")[2] for one in done.stdout.splitlines() if one]


def test_names_of_pools_and_backends_are_completed(fresh: Instance) -> None:
    fresh.admin.add("main", {"address": "127.0.0.1:9"})
    assert completed(fresh, "lbcore drain ") == ["main/one", "main/two", "main/127.0.0.1:9"]
    assert completed(fresh, "lbcore drain main/t") == ["main/two"]
    assert completed(fresh, "lbcore drain main o") == ["one"]
    assert completed(fresh, "lbcore drain main/one ") == []
    assert completed(fresh, f"lbcore -c {fresh.config} add m") == ["main"]
    assert completed(fresh, "lbcore force main/one ") == ["up", "down", "off"]
    assert completed(fresh, "lbcore force main one d") == ["down"]
    assert completed(fresh, "lbcore drain -c /nowhere ") == []


def test_bash_completes_names_with_colons(fresh: Instance) -> None:
    fresh.admin.add("main", {"address": "127.0.0.1:9"})
    fresh.admin.add("main", {"address": "127.0.0.1:90"})
    bin_ = fresh.directory / "bin"
    bin_.mkdir(exist_ok=True)
    script = bin_ / "lbcore"
    script.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m lbcore "$@"\n')
    script.chmod(0o755)
    asked = """
        eval "$(lbcore completion bash)"
        COMP_LINE=$1 COMP_POINT=${#1}
        _lbcore_completion lbcore
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    def offers(line: str) -> list[str]:
        done = subprocess.run(
            ["bash", "-c", asked, "bash", line], cwd=fresh.directory, capture_output=True,
            text=True, timeout=PATIENCE, check=True,
            env=os.environ | {"PATH": f"{bin_}:{os.environ['PATH']}"})
        return done.stdout.split()

    # Bash puts in place only what is behind the last colon.
    assert offers("lbcore drain main/127.0.0.1:") == ["9", "90"]
    assert offers("lbcore drain main/o") == ["main/one"]


def test_where_nobody_answers_nothing_is_completed_and_nothing_said(tmp_path: Path) -> None:
    with instance() as lb:
        lb.pool["backends"] = [f"127.0.0.1:{free_port()}"]
        lb.write()
        assert completed(lb, "lbcore drain ") == []


# -- the end, last in this file


def test_an_upgrade_tells_its_steps(fresh: Instance) -> None:
    with process(fresh, "upgrade") as upgrading:
        out, err = upgrading.communicate(timeout=PATIENCE)
    assert upgrading.returncode == 0, err
    assert out.startswith("upgraded: version ")
    assert "upgrading: upgrade.checking  trying the installed version" in err
    assert "upgrading: upgraded" in err


def test_stop_tells_for_whom_it_waits(fresh: Instance) -> None:
    with fresh_connection(fresh) as client:
        until(lambda: sum(one["connections"] or 0 for one in fresh.status()["workers"]) == 1)
        with process(fresh, "stop") as stopping:
            assert stopping.stderr is not None
            assert any("1 connection left to finish, 30 s at most" in line
                       for line in stopping.stderr)
            # Reset, or the backend would have to end it too.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
            out, _ = stopping.communicate(timeout=PATIENCE)
    assert (stopping.returncode, out) == (0, "stopped\n")
    assert fresh.exit_code() == 0


def fresh_connection(lb: Instance) -> socket.socket:
    """A connection that is open until it is closed."""
    return socket.create_connection(lb.address, PATIENCE)
