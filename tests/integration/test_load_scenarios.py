"""The load scenarios as a person runs them: one command, a verdict, and nothing left behind."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

# Looked for, not imported: Locust puts gevent under the standard library of whoever imports it,
# and every other test would run on that.
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("locust") is None,
    reason="Locust is in the extra `load`: pip install '.[load]'",
)

TREE = Path(__file__).parents[2]
PATIENCE = 60.0


def _take_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)    # a shell ignores it for background jobs


@contextmanager
def scenario(out: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The command, with the signals of a command in the foreground."""
    command = [sys.executable, "-m", "loadtests.scenarios", *arguments, "--out", str(out)]
    process = subprocess.Popen(
        command, cwd=TREE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        preexec_fn=_take_interrupts)  # noqa: PLW1509  (it calls nothing that threads could hold)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=PATIENCE)


def until_it_says(process: subprocess.Popen[str], words: str) -> list[psutil.Process]:
    """Waits for a line of progress; every process that has been started by then."""
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if words in line:
            return psutil.Process(process.pid).children(recursive=True)
    raise AssertionError(f"ended without {words!r}; it said:\n{said}")


def gone(processes: list[psutil.Process]) -> bool:
    """Whether all of them have ended, within a second."""
    return not psutil.wait_procs(processes, timeout=1)[1]


def test_a_steady_load_passes_and_leaves_a_verdict_and_reports(tmp_path: Path) -> None:
    arguments = ["steady", "--seconds", "3", "--users", "8", "--slack", "10"]
    with scenario(tmp_path, *arguments) as process:
        said, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said
    assert "PASS steady" in said
    results = tmp_path / "steady"
    verdict = json.loads((results / "verdict.json").read_text())
    assert verdict["passed"] and all(check["met"] for check in verdict["checks"])
    assert "<html" in (results / "report.html").read_text()
    assert "exchange" in (results / "stats.csv").read_text()


def test_a_worker_that_dies_during_the_load_fails_the_command(tmp_path: Path) -> None:
    arguments = ["steady", "--seconds", "3", "--users", "8", "--slack", "100"]
    with scenario(tmp_path, *arguments) as process:
        started = until_it_says(process, "users")
        victim = next(one for one in started if "lbcore.worker" in one.cmdline())
        victim.kill()
        said, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1, said
    verdict = json.loads((tmp_path / "steady" / "verdict.json").read_text())
    missed = [check["name"] for check in verdict["checks"] if not check["met"]]
    assert "workers" in missed and f"FAIL steady: {', '.join(missed)}" in said


def test_customers_of_the_shop_keep_their_sessions_under_load(tmp_path: Path) -> None:
    arguments = ["shop", "--seconds", "6", "--users", "12", "--slack", "10"]
    with scenario(tmp_path, *arguments, "--distributed", "2") as process:
        said, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said
    assert "PASS shop" in said
    counted = (tmp_path / "shop" / "stats.csv").read_text()
    assert all(name in counted for name in ("buy", "upload", "download", "news", "message"))


def test_an_instance_of_the_shop_that_vanishes_fails_the_command(tmp_path: Path) -> None:
    arguments = ["shop", "--seconds", "20", "--users", "12", "--slack", "10"]
    with scenario(tmp_path, *arguments) as process:
        started = until_it_says(process, "users")
        victim = next(one for one in started if "loadtests.shop.asgi:application" in one.cmdline())
        victim.kill()
        said, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2, said
    assert "backend-" in said and "ended with code -9" in said
    assert gone(started)


def test_interrupting_a_scenario_ends_all_it_started(tmp_path: Path) -> None:
    with scenario(tmp_path, "reload", "--seconds", "60", "--users", "8") as process:
        started = until_it_says(process, "users")
        assert len(started) >= 1 + 2 + 4 + 1       # lbcore, its workers, backends, Locust
        begun = time.monotonic()
        os.kill(process.pid, signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=PATIENCE)
        assert process.returncode == 130
        assert time.monotonic() - begun < 30
        assert gone(started)
