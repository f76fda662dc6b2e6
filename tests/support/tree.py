"""A copy of lbcore that a test may break, stop at a line of its own choice, and mend."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.instance import ROOT, Instance, until

STOPPED = "T"


class Tree:
    """Where an instance comes from: ``Instance(tree.root)``. Changes count for later starts."""

    def __init__(self, directory: Path) -> None:
        self.root = directory
        self.armed = directory / "armed"
        shutil.copytree(ROOT / "lbcore", directory / "lbcore",
                        ignore=shutil.ignore_patterns("*.c", "*.pyx", "__pycache__"))

    def replace(self, name: str, old: str, new: str) -> None:
        """Changes the text of one module."""
        path = self.root / "lbcore" / name
        text = path.read_text()
        assert old in text, f"{name} has changed: the test must too"
        path.write_text(text.replace(old, new))

    def insert(self, name: str, before: str, what: str) -> None:
        """Puts a statement before the only line with a text, done while :attr:`armed` exists."""
        path = self.root / "lbcore" / name
        lines = path.read_text().splitlines()
        (at,) = [n for n, line in enumerate(lines) if before in line]
        indent = lines[at][: len(lines[at]) - len(lines[at].lstrip())]
        lines.insert(at, f"{indent}if __import__('os').path.exists({str(self.armed)!r}): {what}")
        path.write_text("\n".join(lines) + "\n")

    def stop_before(self, name: str, line: str, when: str = "True") -> None:
        """Makes whoever comes to a line stand still there, while :attr:`armed` exists."""
        self.insert(name, line, f"({when}) and __import__('os').kill("
                                f"__import__('os').getpid(), {int(signal.SIGSTOP)})")

    @contextmanager
    def arm(self) -> Iterator[None]:
        """While in here, what was inserted counts."""
        self.armed.touch()
        try:
            yield
        finally:
            self.armed.unlink()


def wait_stopped(lb: Instance) -> None:
    """Waits until the supervisor stands still."""
    stat = Path(f"/proc/{lb.pid}/stat")
    until(lambda: stat.read_text().rpartition(") ")[2][0] == STOPPED, "the supervisor's standstill")
