"""Running wrk and reading what it measured."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .procs import HarnessError

SCRIPT = Path(__file__).parent / "wrk_report.lua"
ERRORS = ("connect", "read", "write", "status", "timeout")


class InvalidSample(Exception):
    """A measurement that says nothing, because part of its work failed."""


@dataclass(frozen=True)
class WrkResult:
    """One run of wrk; every answer of it was right."""

    requests: int
    seconds: float
    bytes: int
    p50_us: float
    p99_us: float


def parse_wrk(output: str, answer_bytes: int) -> WrkResult:
    """Reads the line that ``wrk_report.lua`` wrote.

    ``answer_bytes`` is the size of one whole answer. Raises InvalidSample when there were socket
    errors, no requests, or answers of another size.
    """
    lines = [line for line in output.splitlines() if line.startswith("RESULT ")]
    if not lines:
        raise InvalidSample(f"wrk printed no result: {output[-500:].strip()}")
    values = json.loads(lines[-1].removeprefix("RESULT "))
    failed = {name: values[name] for name in ERRORS if values[name]}
    if failed:
        raise InvalidSample(f"wrk counted errors: {failed}")
    requests = int(values["requests"])
    if requests == 0:
        raise InvalidSample("wrk finished no request")
    # Answers under way when wrk stops are in the bytes but not in the requests: allow for a
    # partial answer on each connection, nothing else.
    received = values["bytes"]
    if not requests * answer_bytes <= received <= (requests + 1024) * answer_bytes:
        raise InvalidSample(
            f"{requests} answers of {answer_bytes} bytes cannot be {received} bytes"
        )
    return WrkResult(
        requests, values["duration_us"] / 1e6, received, values["p50_us"], values["p99_us"]
    )


def run_wrk(
    url: str, *, clients: int, seconds: float, cpus: Sequence[int], close: bool, body: int,
    answer_bytes: int,
) -> WrkResult:
    """A closed loop of ``clients`` connections for whole ``seconds`` (wrk knows no fractions).

    One thread for each of ``cpus``. ``close`` and ``body`` are as in a :class:`~.works.Work`.
    """
    program = shutil.which("wrk")
    if program is None:
        raise HarnessError("wrk is missing: apt-get install wrk")
    command = ["taskset", "-c", ",".join(map(str, cpus)), program, f"-t{len(cpus)}",
               f"-c{clients}", f"-d{round(seconds)}s", "--timeout", "10s", "-s", str(SCRIPT)]
    if close:
        command += ["-H", "Connection: close"]
    command += [url, "--", str(body)]
    try:
        finished = subprocess.run(
            command, capture_output=True, text=True, timeout=seconds + 30, check=True
        )
    except subprocess.TimeoutExpired:
        raise InvalidSample(f"wrk did not end within {seconds + 30:g} s") from None
    except subprocess.CalledProcessError as error:
        raise InvalidSample(f"wrk failed: {error.stdout}{error.stderr}") from None
    return parse_wrk(finished.stdout, answer_bytes)
