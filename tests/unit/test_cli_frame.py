"""The command line itself: help, defaults, exit codes, one printer of errors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from lbcore import __version__, supervisor
from lbcore.cli import COMMANDS, cli, execute, options

GOOD = """\
[[listener]]
name = "web"
bind = "127.0.0.1:8080"
pool = "web"
[pool.web]
backends = ["10.0.0.1:8000"]
"""
BAD = GOOD.replace('pool = "web"', 'pool = "wbe"')


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory, and no configuration in /etc."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        options, "DEFAULT_CONFIGS", (Path("lb.toml"), tmp_path / "etc" / "lbcore" / "lb.toml")
    )
    return tmp_path


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["--version"]) == 0
    assert __version__ in capsys.readouterr().out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    assert command.name == name
    assert execute([name, "--help"]) == 0
    assert f"Usage: lbcore {name}" in capsys.readouterr().out


def test_help_lists_every_command_and_the_signals(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["--help"]) == 0
    text = capsys.readouterr().out
    assert "HUP reloads" in text
    lines = text.splitlines()
    for name, (_, summary) in COMMANDS.items():
        assert f"  {name:<10}  {summary}" in lines       # whole, also on 80 columns


def test_shells_are_told_the_same_of_a_command_as_the_help() -> None:
    for name, (_, summary) in COMMANDS.items():
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        assert command.get_short_help_str() == summary


def test_a_misspelt_command_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["chekc"]) == 2
    assert 'Did you mean "check"?' in capsys.readouterr().err


def test_the_configuration_is_named_before_or_after_the_command(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "good").write_text(GOOD)
    (place / "bad").write_text(BAD)
    assert execute(["-c", "good", "check", "--file-only"]) == 0
    assert execute(["check", "--file-only", "-c", "good"]) == 0
    assert execute(["--config", "bad", "check", "--file-only", "--config=good"]) == 0
    assert execute(["-c", "good", "check", "--file-only", "-c", "bad"]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("bad:4: listener[0].pool:")


def test_without_a_name_the_configuration_is_searched_here_and_then_in_etc(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(["check"]) == 2
    assert "lbcore -c FILE" in capsys.readouterr().err
    etc = place / "etc" / "lbcore" / "lb.toml"
    etc.parent.mkdir(parents=True)
    etc.write_text(BAD)
    assert execute(["check"]) == 2
    assert str(etc) in capsys.readouterr().err
    (place / "lb.toml").write_text(GOOD)
    assert execute(["check", "--file-only"]) == 0
    assert capsys.readouterr().out.startswith("lb.toml is good")


@pytest.mark.parametrize("words", [["--color", "always", "check"], ["check"]])
def test_colours_of_problems_follow_the_command_line_and_no_color(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    words: list[str],
) -> None:
    (place / "lb.toml").write_text(BAD)
    monkeypatch.setenv("NO_COLOR", "1")
    assert execute(words) == 2
    assert ("\x1b[31m" in capsys.readouterr().err) is ("always" in words)


@pytest.mark.parametrize("code", [0, 1, 2])
def test_without_a_command_lbcore_runs_and_exits_with_its_code(
    place: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    started: list[Path] = []

    def run(path: Path) -> int:
        started.append(path)
        return code

    monkeypatch.setattr(supervisor, "run", run)
    assert execute(["-c", "some.toml"]) == code
    assert started == [Path("some.toml")]


def test_every_problem_is_printed_and_the_exit_code_is_2(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "lb.toml").write_text(BAD + "demo = 99\n")
    assert execute(["show"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert [line.split(" ")[0] for line in said.err.splitlines()] == ["lb.toml:4:", "lb.toml:7:"]


def test_with_json_problems_are_json_on_standard_output(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "lb.toml").write_text(BAD)
    assert execute(["check", "--json"]) == 2
    said = capsys.readouterr()
    assert said.err == ""
    assert json.loads(said.out) == {
        "ok": False,
        "problems": [
            {
                "file": "lb.toml", "line": 4, "key": "listener[0].pool",
                "message": 'no pool is called "wbe"', "hint": 'did you mean "web"?',
            }
        ],
    }


@pytest.mark.parametrize("as_json", [False, True])
def test_errors_at_run_time_exit_with_1(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], as_json: bool
) -> None:
    @click.command()
    @options.json_option
    def break_down() -> None:
        raise click.ClickException("it broke")

    monkeypatch.setattr(type(cli), "get_command", lambda *_: break_down)
    assert execute(["check", *(["--json"] if as_json else [])]) == 1
    said = capsys.readouterr()
    if as_json:
        assert json.loads(said.out) == {"ok": False, "error": "it broke"}
    else:
        assert "it broke" in said.err


def lbcore(*args: str, **kwargs: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # type: ignore[call-overload,no-any-return]
        [sys.executable, "-m", "lbcore", *args], capture_output=True, text=True, timeout=60,
        check=False, **kwargs,
    )


def test_the_module_is_the_command(tmp_path: Path) -> None:
    path = tmp_path / "lb.toml"
    path.write_text(BAD)
    done = lbcore("check", "-c", str(path))
    assert done.returncode == 2
    assert done.stderr.startswith(f"{path}:4: ")


def test_a_reader_that_leaves_early_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    with open(write, "w") as pipe:  # noqa: PTH123  (a descriptor, not a path)
        done = subprocess.run(
            [sys.executable, "-m", "lbcore", "schema"], stdout=pipe, stderr=subprocess.PIPE,
            text=True, timeout=60, check=False,
        )
    assert done.stderr == ""


def test_help_and_version_do_not_wait_for_libraries() -> None:
    code = (
        "import sys; from lbcore.cli import execute; execute(['--help']); execute(['--version']);"
        "print([m for m in ('pydantic', 'asyncio', 'aiohttp', 'psutil', 'rich', 'textual')"
        " if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_printed_for_each_shell(
    shell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(["completion", shell]) == 0
    text = capsys.readouterr().out
    assert "_LBCORE_COMPLETE" in text
    assert f"{shell}_complete" in text


def test_completion_completes_commands_and_options() -> None:
    def complete(words: str, index: int) -> list[str]:
        environment = os.environ | {
            "_LBCORE_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(index),
        }
        done = lbcore(env=environment)
        return [line.partition(",")[2] for line in done.stdout.splitlines()]

    assert complete("lbcore chec", 1) == ["check"]
    assert "--file-only" in complete("lbcore check --", 2)
    assert complete("lbcore completion z", 2) == ["zsh"]
