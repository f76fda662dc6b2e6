"""``lbcore doctor`` and ``lbcore ready`` beside a running instance."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.support.echo import Backends
from tests.support.instance import ROOT, Instance, instance


@pytest.fixture
def lb() -> Iterator[Instance]:
    with Backends() as backends, instance() as made:
        made.pool["backends"] = backends.echo(1)
        yield made


def command(lb: Instance, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "lbcore", *words, "-c", str(lb.config)],
                          cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)


def test_doctor_sees_the_limits_that_the_running_workers_have(lb: Instance) -> None:
    lb.write()
    lb.start(descriptors=2000)
    said = json.loads(command(lb, "doctor", "--json").stdout)
    assert said["uses"]["descriptors_per_worker"] == 2000
    assert said["uses"]["running"]["pid"] == lb.pid
    [files] = [check for check in said["checks"] if check["name"] == "open files"]
    assert files["level"] == "advice"
    assert said["exit_code"] == 1


def test_the_addresses_of_the_running_instance_are_no_problem(lb: Instance) -> None:
    lb.write()
    lb.start()
    assert command(lb, "doctor").returncode in (0, 1)


def test_ready_follows_what_can_be_served(lb: Instance) -> None:
    lb.pool.update(backends=["127.0.0.1:9"],
                   health={"interval": "100ms", "timeout": "100ms", "fall": 1})
    lb.write()
    lb.start()
    lb.wait_for("backend.state", new="down")
    said = command(lb, "ready")
    assert (said.returncode, said.stdout != "") == (1, True)


def test_ready_is_quick_to_say_yes(lb: Instance) -> None:
    lb.write()
    lb.start()
    assert command(lb, "ready").returncode == 0
