"""The origin: one nginx worker that answers 1 KiB from memory and larger bodies from files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .client import Answer, answer_length, ask
from .peers import NGINX, render
from .procs import HarnessError, Processes, Running, free_port, wait_until

SIZES = {"/1k": 1024, "/16k": 16 * 1024, "/64k": 64 * 1024, "/1m": 1024 * 1024}


@dataclass
class Origin:
    """The origin that runs."""

    running: Running
    port: int

    def length(self, path: str) -> int:
        """Bytes of a whole keep-alive answer, head included."""
        return answer_length(self.port, path)


def start_origin(processes: Processes, cpu: int, directory: Path) -> Origin:
    """Starts the origin and returns once it answers every size rightly."""
    place = directory / "origin"
    files = place / "files"
    files.mkdir(parents=True)
    for path, size in SIZES.items():
        if size > 1024:
            (files / path.lstrip("/")).write_bytes(b"x" * size)
    port = free_port()
    config = place / "origin.conf"
    render(
        "origin.conf.in", config,
        {"port": port, "dir": place, "files": files, "kilobyte": "x" * 1024},
    )
    command = [NGINX.find(), "-p", str(place), "-e", str(place / "error.log"), "-c", str(config)]
    running = processes.start("origin", command, [cpu], place)

    def answers() -> bool:
        running.check()
        return ask(port, "/tiny") == Answer(200, 2)

    wait_until(answers, 10, "an answer of the origin")
    for path, size in SIZES.items():
        if ask(port, path) != Answer(200, size):
            raise HarnessError(f"the origin does not answer {path} rightly: {running.output()}")
    return Origin(running, port)
