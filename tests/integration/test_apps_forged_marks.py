"""Processes that say they were servers of lbcore: what it believes, and what it removes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from lbcore.supervisor.apps_marks import MARK
from tests.support.apps_lab import AppsLab, apps_lab, lives

NOBODY = 65534
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


@pytest.fixture
def lab() -> Iterator[AppsLab]:
    with apps_lab() as lab:
        yield lab


@pytest.mark.parametrize("how", ["upgraded", "killed"])
@pytest.mark.parametrize("user", [NOBODY, 0], ids=["nobody", "root"])
def test_a_forged_mark_ends_no_process_and_removes_nothing(
    lab: AppsLab, how: str, user: int
) -> None:
    """A process of root may have got it from somebody else: from whom it was started by, setuid."""
    precious = lab.directory / "victim" / "precious"
    precious.mkdir(parents=True)
    lab.app('wsgi = "wsgi_app:app"')
    lab.start()
    before, place = lab.server(), lab.runtime_dir
    claims = [("gone", "1", f"{place}/../victim/precious/s.sock"),
              ("../../victim/precious", "1", f"{place}/../victim/precious/s.sock"),
              ("main", "1", f"{place}/app-main-app.1.sock"),
              ("main", "999999", f"{place}/app-main-app.1.sock")]
    forgers = [subprocess.Popen(
        ["/bin/sleep", "60"], user=user, group=user, extra_groups=[], start_new_session=True,
        cwd="/", env={MARK: json.dumps({
            "at": str(place), "pool": pool, "backend": "app", "generation": number, "path": path,
            "descriptor": True, "fingerprint": "", "uid": user, "seal": ""})})
        for pool, number, path in claims]
    try:
        if how == "upgraded":
            lab.command("upgrade")
        else:
            lab.signal(signal.SIGKILL)
            lab.run.wait()
            lab.start()
        refused = lab.run.wait_for("app.mark_refused")
        assert sorted(refused["pids"]) == sorted(child.pid for child in forgers)
        assert lab.server() == before
        assert lab.get().startswith("one")
        assert [child.poll() for child in forgers] == [None] * len(forgers)
        assert precious.is_dir()
        assert lab.stop() == 0
        assert not lives(before)
        assert not place.exists()
        assert precious.is_dir()
    finally:
        for child in forgers:
            child.kill()
            child.wait()


def test_what_an_application_starts_in_a_session_of_its_own_is_not_its_server(
    lab: AppsLab,
) -> None:
    lab.edit("VERSION = ", "import subprocess\nsubprocess.Popen(['/bin/sleep', '60'], "
             "start_new_session=True)\nVERSION = ")
    lab.app('wsgi = "wsgi_app:app"\nworkers = 1')
    lab.start()
    before, marked = lab.server(), lab.servers()
    assert len(marked) > 1
    lab.command("upgrade")
    lab.run.wait_for("upgraded")
    assert lab.get().startswith("one")
    lab.signal(signal.SIGKILL)
    lab.run.wait()
    lab.start()
    assert lab.server() == before
    assert lab.get().startswith("one")
