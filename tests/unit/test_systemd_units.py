"""The unit files that lbcore ships, as systemd's own tools judge them."""

from __future__ import annotations

import re
import shutil
import subprocess
from configparser import ConfigParser
from pathlib import Path

import pytest

from lbcore.config import parse, to_plan

ROOT = Path(__file__).parents[2]
UNITS = ROOT / "conf" / "systemd"
EXPOSURE = 20                # tenths: what `systemd-analyze security` calls 2.0 of 10

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *map(str, arguments)], capture_output=True,
                          text=True, check=False, timeout=60)


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units with a program that exists here: `verify` looks for it."""
    for file in UNITS.iterdir():
        if file.suffix in (".service", ".socket"):
            text = file.read_text().replace("/opt/lbcore/bin/lbcore", "/bin/true")
            (tmp_path / file.name).write_text(text)
    return tmp_path


@needs_systemd
@pytest.mark.parametrize("drop_in", [None, "application.conf", "root.conf"])
def test_units_are_correct_alone_and_with_each_drop_in(units: Path, drop_in: str | None) -> None:
    if drop_in:
        place = units / "lbcore.service.d"
        place.mkdir()
        shutil.copy(UNITS / "examples" / drop_in, place)
    said = analyze("verify", "--man=no", units / "lbcore.service", units / "lbcore.socket")
    assert (said.returncode, said.stdout + said.stderr) == (0, "")


@needs_systemd
def test_the_service_is_exposed_to_little(units: Path) -> None:
    said = analyze("security", "--offline=true", f"--threshold={EXPOSURE}",
                   units / "lbcore.service")
    assert said.returncode == 0, said.stdout


def unit(name: str) -> ConfigParser:
    # Lists are given line by line: the last one is enough for what is asked here.
    parser = ConfigParser(strict=False, interpolation=None, delimiters="=")
    parser.optionxform = str     # type: ignore[assignment,method-assign]
    parser.read(UNITS / name)
    return parser


def test_the_unit_gives_more_time_than_the_defaults_of_lbcore_take() -> None:
    plan = to_plan(parse(
        '[[listener]]\nname = "a"\nbind = "127.0.0.1:80"\npool = "a"\n[pool.a]\ndemo = 1\n',
        "lb.toml").config)
    service = unit("lbcore.service")["Service"]
    assert int(service["TimeoutStopSec"].removesuffix("s")) * 1000 > plan.drain_timeout_ms + 10_000
    assert int(service["WatchdogSec"].removesuffix("s")) * 1000 > 2 * plan.hang_timeout_ms


def test_the_sockets_of_the_socket_unit_are_binds_that_a_listener_can_have() -> None:
    text = (UNITS / "lbcore.socket").read_text()
    binds = re.findall(r"^ListenStream=(.+)$", text, re.MULTILINE)
    [shown] = re.findall(r'^#   bind = (\["[^"]*"(?:, "[^"]*")*\])', text, re.MULTILINE)
    assert re.findall(r'"([^"]+)"', shown) == binds
    name = unit("lbcore.socket")["Socket"]["FileDescriptorName"]
    assert f'"fd:{name}"' in text
