"""Changes that wait for an application which takes its time: what else can happen meanwhile."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections.abc import Iterator

import pytest

from tests.support.apps_lab import AppsLab, HttpLoad, apps_lab, lives
from tests.support.lbcore_lab import eventually

SLOW = 'wsgi = "slow_app:app"\nworkers = 1\nstart_timeout = "10m"'
Result = subprocess.CompletedProcess[str]


@pytest.fixture
def lab() -> Iterator[AppsLab]:
    with apps_lab() as lab:
        (lab.directory / "slow_app.py").write_text("import time\ntime.sleep(600)\n")
        lab.app('wsgi = "wsgi_app:app"')
        lab.start()
        yield lab


class Waiting(threading.Thread):
    """A command that waits for an application."""

    def __init__(self, lab: AppsLab, *words: str) -> None:
        super().__init__()
        self.done: list[Result] = []
        self._ask = lambda: self.done.append(lab.command(*words, check=False))
        self.start()

    def run(self) -> None:
        self._ask()

    def refusal(self) -> str:
        """What it is told at the end."""
        self.join()
        assert self.done[0].returncode == 1
        return self.done[0].stderr


def reload_to_slow(lab: AppsLab) -> tuple[Waiting, int]:
    """A reload that waits, and the process that it waits for."""
    lab.app(SLOW)
    waiting = Waiting(lab, "reload")
    return waiting, lab.run.wait_for("app.started", count=2)["pid"]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_the_end_does_not_wait_for_an_application_and_leaves_nothing_of_it(
    lab: AppsLab, how: signal.Signals
) -> None:
    waiting, new = reload_to_slow(lab)
    began = time.monotonic()
    lab.signal(how)
    assert lab.run.wait() == 0
    assert time.monotonic() - began < 45         # it would take ten minutes to be given up
    assert "lbcore is ending" in waiting.refusal()
    assert not lives(new)
    assert lab.servers() == []
    assert not lab.runtime_dir.exists()


def test_workers_and_restarts_do_not_wait_for_a_reload_that_does(lab: AppsLab) -> None:
    lab.app('wsgi = "wsgi_app:app"', f"[pool.other]\n{SLOW}")
    waiting = Waiting(lab, "reload")
    lab.run.wait_for("app.started", count=2)
    lab.command("workers", "2")
    lab.edit('"one"', '"two"')
    lab.command("restart", "main")
    assert lab.get().startswith("two")
    assert waiting.is_alive()
    assert lab.stop() == 0
    waiting.join()


def test_a_reload_knows_of_a_restart_that_came_between(lab: AppsLab) -> None:
    gate = lab.directory / "gate"
    (lab.directory / "slow_app.py").write_text(
        f"import os, time\nwhile not os.path.exists({str(gate)!r}):\n    time.sleep(0.05)\n"
        "from wsgi_app import app\n")
    lab.app('wsgi = "wsgi_app:app"\nstart_timeout = "40s"', f"[pool.other]\n{SLOW}")
    load = HttpLoad(lab, 2)
    waiting = Waiting(lab, "reload")
    lab.run.wait_for("app.started", count=2)
    lab.edit('"one"', '"two"')
    lab.command("restart", "main")
    gate.touch()
    waiting.join()
    assert waiting.done[0].returncode == 0
    assert lab.get().startswith("two")
    load.until(20)
    load.stop()


@pytest.mark.parametrize("who", ["the change before", "an operator"])
def test_changed_code_does_not_wait_for_older_code_that_is_still_coming_up(
    lab: AppsLab, who: str
) -> None:
    code = lab.directory / "watched.py"
    code.touch()
    lab.app('wsgi = "wsgi_app:app"\nworkers = 1\nstart_timeout = "50s"\nwatch = true\n'
            'watch_paths = ["watched.py"]')
    lab.command("reload")
    before = len(lab.run.logged("app.started"))
    load = HttpLoad(lab, 2)
    load.until(10)
    begun = lab.directory / "begun"
    slowly = f"open({str(begun)!r}, 'w').close()\ntime.sleep(60)\n"
    lab.edit("VERSION = ", f"{slowly}VERSION = ")
    operator = Waiting(lab, "restart", "main") if who == "an operator" else None
    if operator is None:
        code.write_text("1")
    slow = lab.run.wait_for("app.started", count=before + 1)["pid"]
    eventually(begun.exists)
    lab.edit(f'{slowly}VERSION = "one"', 'VERSION = "two"')
    code.write_text("two")
    lab.run.wait_for("app.superseded", pool="main")
    lab.run.wait_for("app.replaced", pool="main")
    load.until(20)
    load.stop()
    assert set(load.answers) == {"one", "two"}
    assert lab.get().startswith("two")
    assert not lives(slow)
    assert not lab.run.logged("app.failed")
    if operator is not None:
        operator.join()
        assert operator.done[0].returncode == 0


@pytest.mark.parametrize("what", ["reload", "restart"])
def test_an_upgrade_tells_who_waits_that_it_came_between(lab: AppsLab, what: str) -> None:
    before = lab.server()
    if what == "reload":
        waiting, new = reload_to_slow(lab)
    else:
        lab.edit("VERSION = ", "time.sleep(600)\nVERSION = ")
        waiting = Waiting(lab, "restart", "main")
        new = lab.run.wait_for("app.started", count=2)["pid"]
    lab.command("upgrade")
    assert "an upgrade came between" in waiting.refusal()
    lab.run.wait_for("upgraded")
    assert not lives(new)
    assert lab.server() == before
    assert lab.get().startswith("one")
