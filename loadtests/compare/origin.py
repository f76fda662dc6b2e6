"""What stands behind the balancers: nginx for answers, ``_own.pyx`` for bodies and WebSockets,
and gunicorn with a Flask application."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from .client import Answer, ask
from .peers import NGINX, REPOSITORY, render
from .procs import HarnessError, Processes, Running, free_port, wait_until

SIZES = {"/1k": 1024, "/16k": 16 * 1024, "/64k": 64 * 1024, "/1m": 1024 * 1024}
APPLICATION_WORKERS = 4
PAGE = "/page"


@dataclass
class Origin:
    """An origin that runs: nginx, or gunicorn. ``own``: the port of ``_own.pyx``."""

    programs: list[Running]
    port: int
    own: int

    def processes(self) -> list[psutil.Process]:
        """All of them."""
        return [process for program in self.programs for process in program.tree()]

    def check(self) -> None:
        """Raises HarnessError when one has ended."""
        for program in self.programs:
            program.check()


def start_origin(
    processes: Processes, cpus: Sequence[int], directory: Path, *, workers: int = 1
) -> Origin:
    """Starts the origins and returns once they answer every size rightly.

    nginx answers 1 KiB from memory and larger bodies from files.
    """
    place = directory / "origin"
    files = place / "files"
    files.mkdir(parents=True)
    for path, size in SIZES.items():
        if size > 1024:
            (files / path.lstrip("/")).write_bytes(b"x" * size)
    port = free_port()
    config = place / "origin.conf"
    render("origin.conf.in", config, {
        "port": port, "dir": place, "files": files, "kilobyte": "x" * 1024, "workers": workers,
    })
    command = [NGINX.find(), "-p", str(place), "-e", str(place / "error.log"), "-c", str(config)]
    running = processes.start("origin", command, cpus, place)
    wait_until(lambda: _answers(running, port), 10, "an answer of the origin")
    for path, size in SIZES.items():
        if ask(port, path) != Answer(200, size):
            raise HarnessError(f"the origin does not answer {path} rightly: {running.output()}")
    own, own_port = _start_own(processes, cpus, place)
    return Origin([running, own], port, own_port)


def start_application(processes: Processes, cpus: Sequence[int], directory: Path) -> Origin:
    """Starts gunicorn with the application, and the other origin, which nobody asks then."""
    place = directory / "application"
    place.mkdir(parents=True)
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "--workers", str(APPLICATION_WORKERS),
               "--bind", f"127.0.0.1:{port}", "--log-level", "warning",
               "loadtests.compare.application:app"]
    running = processes.start("gunicorn", command, cpus, place, cwd=REPOSITORY)
    wait_until(lambda: _answers(running, port), 20, "an answer of gunicorn")
    own, own_port = _start_own(processes, cpus, place)
    return Origin([running, own], port, own_port)


def _start_own(processes: Processes, cpus: Sequence[int], place: Path) -> tuple[Running, int]:
    port = free_port()
    command = [sys.executable, "-m", "loadtests.compare.own", "--port", str(port)]
    running = processes.start("own", command, cpus, place, cwd=REPOSITORY)
    wait_until(lambda: _answers(running, port), 60, "an answer of the origin of our own")
    return running, port


def _answers(running: Running, port: int) -> bool:
    running.check()
    return ask(port, "/tiny") == Answer(200, 2)
