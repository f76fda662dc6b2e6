"""One instance per admin address."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from lbcore.config.plan import Address
from lbcore.supervisor.instance import Instance, InstanceError


def admin(directory: Path) -> Address:
    return Address(path=str(directory / "admin.sock"))


def test_second_claim_is_refused_until_the_first_leaves(tmp_path: Path) -> None:
    first = Instance.claim(admin(tmp_path))
    with pytest.raises(InstanceError, match=f"pid {os.getpid()}"):
        Instance.claim(admin(tmp_path))
    first.leave()
    Instance.claim(admin(tmp_path)).leave()
    assert list(tmp_path.iterdir()) == []


def test_lock_file_left_by_a_dead_process_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "admin.sock.lock").write_text("1\n")
    Instance.claim(admin(tmp_path)).leave()


def test_last_directory_of_the_path_is_made_and_no_more(tmp_path: Path) -> None:
    Instance.claim(admin(tmp_path / "run")).leave()
    with pytest.raises(InstanceError, match="does not exist"):
        Instance.claim(admin(tmp_path / "a" / "b"))


def test_runtime_directory_that_is_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "admin.sock.d").symlink_to(tmp_path)
    with pytest.raises(InstanceError, match="remove it"):
        Instance.claim(admin(tmp_path))


@pytest.mark.parametrize("squatter", ["everybody", "somebody", "link"])
def test_default_directory_that_somebody_else_prepared_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, squatter: str,
) -> None:
    default = tmp_path / "lbcore-1000"
    monkeypatch.setattr("lbcore.supervisor.instance.default_directory", lambda: default)
    if squatter == "link":
        (tmp_path / "elsewhere").mkdir()
        default.symlink_to(tmp_path / "elsewhere")
    else:
        default.mkdir()
    if squatter == "everybody":
        default.chmod(0o777)
    elif squatter == "somebody":
        if os.geteuid() != 0:
            pytest.skip("only root can give a directory away")
        os.chown(default, 65534, 65534)
    with pytest.raises(InstanceError, match="lbcore-1000"):
        Instance.claim(admin(default))
    assert list(default.iterdir()) == []


def test_default_directory_of_an_earlier_start_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    default = tmp_path / "lbcore-1000"
    monkeypatch.setattr("lbcore.supervisor.instance.default_directory", lambda: default)
    for _ in range(2):
        Instance.claim(admin(default)).leave()


def test_names_in_a_deep_directory_can_be_bound(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100)
    instance = Instance.claim(admin(deep))
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(instance.path_of("worker-1-1.sock"))
    (instance.runtime_dir / "worker-1-1.sock").unlink()
    instance.leave()


def test_pid_file_of_somebody_else_is_not_removed(tmp_path: Path) -> None:
    instance = Instance.claim(admin(tmp_path))
    instance.write_pid_file(str(tmp_path / "pid"))
    (tmp_path / "pid").write_text("1\n")
    instance.leave()
    assert (tmp_path / "pid").exists()
