"""The shipped logrotate file, run by the real logrotate while connections come and go."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.instance import ROOT, Instance, until
from tests.support.load import Load

LOGROTATE = shutil.which("logrotate", path=f"{os.environ['PATH']}:/usr/sbin")
SHIPPED = ROOT / "conf" / "logrotate" / "lbcore"
ROTATIONS = 4

pytestmark = pytest.mark.skipif(LOGROTATE is None, reason="logrotate is not installed")


def rotate(lb: Instance, logs: Path, rules: Path) -> None:
    """Rotates with the shipped rules, for this instance's files and process."""
    text = SHIPPED.read_text().replace("/var/log/lbcore", str(logs))
    command = next(line for line in text.splitlines() if "systemctl kill" in line)
    assert "--signal=USR1" in command
    text = text.replace(command, f"        kill -USR1 {lb.pid}")
    text = "".join(line for line in text.splitlines(True) if not line.startswith("    su "))
    rules.write_text(text)
    rules.chmod(0o644)
    subprocess.run([str(LOGROTATE), "--force", "--state", str(rules.with_suffix(".state")),
                    str(rules)], check=True, timeout=60)


def lines(logs: Path, name: str) -> list[str]:
    """Every line of a log and of what it was rotated to."""
    found = []
    for file in logs.glob(f"{name}*"):
        text = (gzip.decompress(file.read_bytes()).decode() if file.suffix == ".gz"
                else file.read_text())
        found += text.splitlines()
    return found


def test_rotation_under_traffic_loses_no_line(lb: Instance, tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir(mode=0o755)
    lb.file["lbcore"]["workers"] = 2
    lb.file["log"] = {"format": "json", "path": str(logs / "lbcore.log"),
                      "access": str(logs / "access.log")}
    lb.write()
    lb.start(wait=False)
    lb.wait_until_serving()
    with Load(lb.address) as load:
        for number in range(ROTATIONS):
            load.wait_for(100)
            rotate(lb, logs, tmp_path / "rules")
            until(lambda count=number: sum(     # type: ignore[misc]
                "access_log.reopened" in line for line in lines(logs, "lbcore.log")) == count + 1,
                "the new file is written to")
        load.wait_for(100)
        report = load.expect_no_failure()
    lb.signal(signal.SIGTERM)
    assert lb.exit_code() == 0
    accesses = [json.loads(line) for line in lines(logs, "access.log")]
    assert len(accesses) == report.started
    assert len(list(logs.glob("access.log*"))) == ROTATIONS + 1
    events = [json.loads(line)["event"] for line in lines(logs, "lbcore.log")]
    assert (events.count("started"), events.count("stopped")) == (1, 1)
