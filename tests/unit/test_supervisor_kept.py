"""The file by which changes at run time outlive a supervisor that is killed."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from lbcore.supervisor import kept
from lbcore.supervisor.instance import Instance

CHANGES = {"changes": [["drain", "web", "a", False, True, "2026-01-01T00:00:00Z"]], "found": {}}


@pytest.fixture
def instance(tmp_path: Path) -> Instance:
    """As much of one as the file needs."""
    return cast(Instance, SimpleNamespace(runtime_dir=tmp_path))


def test_what_was_written_is_read_and_is_for_its_owner_only(
    instance: Instance, tmp_path: Path,
) -> None:
    kept.write(instance, CHANGES, 41)
    kept.write(instance, CHANGES, 42)
    state, version = kept.read(instance)
    assert version == 43 and CHANGES.items() <= state.items()    # 43 may have been seen
    (file,) = tmp_path.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    kept.remove(instance)
    kept.remove(instance)
    assert list(tmp_path.iterdir()) == [] and kept.read(instance) == ({}, 0)


def test_another_start_of_the_machine_ends_what_was_kept(
    instance: Instance, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:
    kept.write(instance, CHANGES, 41)
    another = tmp_path / "boot_id"
    another.write_text("another\n")
    monkeypatch.setattr(kept, "BOOT", another)
    assert kept.read(instance) == ({}, 0)


@pytest.mark.parametrize("text", ["", "{", "5", "[]", "null", '"x"'])
def test_a_file_that_makes_no_sense_is_none(
    instance: Instance, tmp_path: Path, text: str,
) -> None:
    (tmp_path / kept.NAME).write_text(text)
    assert kept.read(instance) == ({}, 0)


@pytest.mark.parametrize("version", [-1, 2**31, "5", None, 1.5])
def test_a_version_that_workers_cannot_count_begins_anew(
    instance: Instance, tmp_path: Path, version: object,
) -> None:
    kept.write(instance, CHANGES, 1)
    path = tmp_path / kept.NAME
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": version}))
    assert kept.read(instance)[1] == 0


def test_a_directory_that_takes_no_file_is_an_error_of_the_system(
    instance: Instance, tmp_path: Path,
) -> None:
    (tmp_path / kept.FRESH).mkdir()
    with pytest.raises(OSError, match="directory"):
        kept.write(instance, CHANGES, 1)
