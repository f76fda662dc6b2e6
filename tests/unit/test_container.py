"""The Dockerfile, as far as it can be judged without building it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lbcore.cli import COMMANDS
from lbcore.config import load_file, to_plan

ROOT = Path(__file__).parents[2]
TEXT = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text())
HADOLINT = shutil.which("hadolint", path=str(Path(sys.executable).parent))


@pytest.mark.skipif(HADOLINT is None, reason="hadolint is not installed")
def test_the_linter_has_nothing_to_say() -> None:
    said = subprocess.run([str(HADOLINT), str(ROOT / "Dockerfile")], capture_output=True,
                          text=True, check=False, timeout=60)
    assert (said.returncode, said.stdout) == (0, "")


def test_everything_that_is_copied_goes_to_the_builder() -> None:
    sent = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    copied = [name for line in re.findall(r"^COPY (?!--from)(.+)$", TEXT, re.MULTILINE)
              for name in line.split()[:-1]]
    assert copied
    for name in copied:
        assert name in sent
        assert (ROOT / name).exists()


def test_it_runs_as_an_ordinary_user_without_a_shell() -> None:
    last = TEXT.rsplit("\nFROM ", 1)[1]
    assert re.search(r"^USER [1-9]\d+:[1-9]\d+$", last, re.MULTILINE)
    words = {kind: json.loads(found) for kind, found in
             re.findall(r"^(?:HEALTHCHECK.* )?(ENTRYPOINT|CMD) (\[.*\])$", last, re.MULTILINE)}
    assert words["ENTRYPOINT"] == ["/opt/lbcore/bin/lbcore"]
    assert words["CMD"][1] in COMMANDS       # of the health check
    assert "STOPSIGNAL SIGTERM" in last


def test_its_default_configuration_serves_what_it_exposes() -> None:
    plan = to_plan(load_file(ROOT / "conf/container.toml").config)
    ports = {str(bind.port) for listener in plan.listeners for bind in listener.binds}
    assert set(re.findall(r"^EXPOSE (\d+)$", TEXT, re.MULTILINE)) == ports
