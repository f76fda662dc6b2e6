"""Which processes a supervisor takes for servers of its own, and what it removes after them."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from lbcore.config.plan import Address
from lbcore.supervisor.apps_marks import KEY_NAME, MARK, Mark, find_servers, forget_key
from lbcore.supervisor.apps_place import entry_of, make_directory, remove, server_path
from lbcore.supervisor.instance import MAX_UNIX_PATH, Instance
from lbcore.supervisor.process import began_at
from lbcore.supervisor.worker import Identity

NOBODY = 65534
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
Carrier = Callable[..., int]


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[Instance]:
    claimed = Instance.claim(Address(path=str(tmp_path / "admin.sock")))
    yield claimed
    forget_key(claimed.runtime_dir)
    claimed.leave()


@pytest.fixture
def carrier() -> Iterator[Carrier]:
    """Starts a process with a mark in its environment; returns its pid."""
    started = []

    def start(mark: str, user: int | None = None, leads: bool = True) -> int:
        child = subprocess.Popen(
            ["/bin/sh", "-c", "echo; read -r word"], env=os.environ | {MARK: mark},
            user=user, start_new_session=leads, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            cwd="/")
        started.append(child)
        assert child.stdout is not None
        child.stdout.readline()          # its environment is the one that we gave it
        return child.pid

    yield start
    for child in started:
        child.kill()
        child.communicate()


def mark_of(instance: Instance) -> Mark:
    return Mark(str(instance.runtime_dir), "web", "app", 3, True, "f00d", os.geteuid())


def test_a_server_is_found_by_its_mark(instance: Instance, carrier: Carrier) -> None:
    mark = mark_of(instance)
    pid = carrier(mark.sealed())
    (found,), impostors = find_servers(instance.runtime_dir)
    assert (found.mark, found.pid, impostors) == (mark, pid, [])
    assert found.mark.path == instance.runtime_dir / "app-web-app.3.sock"


def test_a_mark_without_the_seal_is_refused_whosever_process_it_is(
    instance: Instance, carrier: Carrier
) -> None:
    """Anybody can start a setuid program with any environment."""
    mark = mark_of(instance)
    mark.sealed()
    pid = carrier(json.dumps(asdict(mark)))
    assert find_servers(instance.runtime_dir) == ([], [pid])


@pytest.mark.parametrize("change", [
    {"pool": "../../victim"}, {"generation": 999_999}, {"uid": NOBODY}, {"fingerprint": "other"},
    {"generation": "3"}, {"path": "/etc"}, {"seal": "\ud800"}, {"seal": None}, {"seal": "ä"},
])
def test_a_mark_that_was_changed_is_refused(
    instance: Instance, carrier: Carrier, change: dict[str, object]
) -> None:
    pid = carrier(json.dumps(json.loads(mark_of(instance).sealed()) | change))
    assert find_servers(instance.runtime_dir) == ([], [pid])


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", "{", "[" * 50_000, '{"at": 1}'])
def test_a_mark_of_nobody_is_nothing(instance: Instance, carrier: Carrier, text: str) -> None:
    carrier(text)
    assert find_servers(instance.runtime_dir) == ([], [])


@AS_ROOT
def test_a_mark_counts_for_the_user_it_was_given_to_alone(
    instance: Instance, carrier: Carrier
) -> None:
    ours = mark_of(instance)
    theirs = replace(ours, backend="theirs", uid=NOBODY)
    stolen = [carrier(ours.sealed(), NOBODY), carrier(theirs.sealed())]
    kept = carrier(theirs.sealed(), NOBODY)
    found, impostors = find_servers(instance.runtime_dir)
    assert [(one.mark, one.pid) for one in found] == [(theirs, kept)]
    assert sorted(impostors) == sorted(stolen)


def test_of_several_with_one_mark_the_oldest_is_the_server(
    instance: Instance, carrier: Carrier
) -> None:
    """An application may start processes with sessions of their own, or copies of itself."""
    mark = mark_of(instance).sealed()
    first = carrier(mark)
    while began_at(carrier(mark)) == began_at(first):
        pass
    (found,), impostors = find_servers(instance.runtime_dir)
    assert (found.pid, impostors) == (first, [])


def test_what_a_server_starts_is_no_server(instance: Instance, carrier: Carrier) -> None:
    carrier(mark_of(instance).sealed(), leads=False)
    assert find_servers(instance.runtime_dir) == ([], [])


def test_the_key_is_for_its_owner_alone(instance: Instance, carrier: Carrier) -> None:
    key = instance.runtime_dir / KEY_NAME
    carrier(mark_of(instance).sealed())
    assert key.stat().st_mode & 0o777 == 0o600
    key.chmod(0o644)
    assert find_servers(instance.runtime_dir)[0] == []
    mark_of(instance).sealed()           # whoever has read it has nothing from it
    assert key.stat().st_mode & 0o777 == 0o600
    assert find_servers(instance.runtime_dir)[0] == []


def test_a_key_that_is_a_link_is_not_followed(instance: Instance, tmp_path: Path) -> None:
    (tmp_path / "known").write_bytes(bytes(32))
    (tmp_path / "known").chmod(0o600)
    (instance.runtime_dir / KEY_NAME).symlink_to(tmp_path / "known")
    mark_of(instance).sealed()
    assert not (instance.runtime_dir / KEY_NAME).is_symlink()


def test_long_names_of_pools_are_shortened_to_fit(tmp_path: Path) -> None:
    directory = tmp_path / ("x" * max(1, 60 - len(str(tmp_path))))
    for descriptor in (True, False):
        path = server_path(directory, "p" * 63, "app", 7, descriptor)
        assert len(os.fsencode(path)) <= MAX_UNIX_PATH
        assert entry_of(directory, path).startswith("app-")


@pytest.mark.parametrize("path", [
    "", "admin", "../victim", "app-x/../../victim/s.sock", "app-x/..", "app-x/y", "app-x/s",
    "app-x/s/sock/y", "../../../etc/passwd", "/etc/passwd",
])
def test_a_path_that_is_none_of_a_server_is_left_alone(instance: Instance, path: str) -> None:
    victim = instance.runtime_dir.parent / "victim"
    victim.mkdir()
    (victim / "s.sock").touch()
    with pytest.raises(ValueError, match="is not"):
        entry_of(instance.runtime_dir, instance.runtime_dir / path)
    remove(instance, instance.runtime_dir / path)
    assert (victim / "s.sock").exists()


def test_a_link_is_removed_and_not_what_it_leads_to(instance: Instance) -> None:
    victim = instance.runtime_dir.parent / "victim"
    (victim / "s").mkdir(parents=True)
    (victim / "s" / "sock").touch()
    path = server_path(instance.runtime_dir, "web", "app", 1, False)
    entry = path.relative_to(instance.runtime_dir).parts[0]     # a long path makes it a short name
    (instance.runtime_dir / entry).symlink_to(victim)
    remove(instance, path)
    assert (victim / "s" / "sock").exists()
    assert list(instance.runtime_dir.iterdir()) == []


def test_a_server_has_a_directory_that_goes_with_it(instance: Instance) -> None:
    path = server_path(instance.runtime_dir, "web", "app", 1, False)
    for _ in range(2):                   # one that was left behind is no obstacle
        make_directory(instance, path, None, Identity())
        path.touch()
    remove(instance, path)
    assert list(instance.runtime_dir.iterdir()) == []


@AS_ROOT
def test_a_server_owns_its_directory_and_not_what_it_stands_in(instance: Instance) -> None:
    path = server_path(instance.runtime_dir, "web", "app", 1, False)
    make_directory(instance, path, NOBODY, Identity(2, 2))
    found = path.parent.stat()
    assert (found.st_gid, found.st_mode & 0o777) == (2, 0o710)     # for workers to pass
    owners = [directory.stat().st_uid for directory in (path.parent, path.parent.parent)]
    assert owners == [NOBODY, 0]
    os.chown(path.parent.parent, NOBODY, -1)
    remove(instance, path)               # not as we have made it
    assert path.parent.exists()
    os.chown(path.parent.parent, 0, -1)
    remove(instance, path)
