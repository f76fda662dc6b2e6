"""Starting Locust, alone or as a master with workers."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from loadtests.compare.procs import HarnessError, Processes, Running, free_port

from .scenario import AnyScenario
from .stage import TREE, all_cpus

HERE = Path(__file__).parent
STOP_TIMEOUT = 5        # seconds that users get to finish what they are at


@dataclass(frozen=True)
class Load:
    """What is asked of Locust. ``workers``: processes beside the master; 0 for one alone."""

    scenario: AnyScenario
    users: int
    seconds: int
    port: int
    workers: int
    out: Path
    records: Path

    @property
    def slack(self) -> float:
        """Seconds that it may take beyond the load itself: start, stop, report."""
        return 30.0 + 5 * self.workers

    def command(self) -> list[str]:
        """Locust with what all its processes need."""
        return [
            sys.executable, "-m", "locust",
            "-f", str(HERE / "locustfiles" / f"{self.scenario.name}.py"),
            "--host", f"127.0.0.1:{self.port}", "--records", str(self.records),
            "--stop-timeout", str(STOP_TIMEOUT), "--loglevel", "WARNING",
        ]

    def headless(self) -> list[str]:
        """The options of the process that decides: Locust alone, or the master."""
        return [
            "--headless", "--only-summary", "--exit-code-on-error", "0",
            "--users", str(self.users), "--spawn-rate", str(self.users),
            "--run-time", f"{self.seconds}s",
            "--html", str(self.out / "report.html"), "--json-file", str(self.out / "stats"),
        ]


class Locust:
    """The running processes; the first one decides."""

    def __init__(self, all_of_them: list[Running]) -> None:
        self._deciding, *self._workers = all_of_them

    def over(self) -> bool:
        """Whether the load has ended. Raises HarnessError if it did not go to its end."""
        code = self._deciding.root.poll()
        if code:
            raise HarnessError(
                f"Locust ended with code {code}; it said:\n{self._deciding.output()}")
        if code is None:
            for worker in self._workers:
                if worker.root.poll():
                    raise HarnessError(
                        f"a Locust worker ended with code {worker.root.returncode}; it said:\n"
                        f"{worker.output()}")
        return code is not None


def start(processes: Processes, load: Load) -> Locust:
    """Starts Locust; its output goes to locust.log and locust-worker-N.log."""
    def run(name: str, options: list[str]) -> Running:
        return processes.start(
            name, [*load.command(), *options], all_cpus(), load.out, cwd=TREE)

    if not load.workers:
        return Locust([run("locust", load.headless())])
    port = str(free_port())
    master = run("locust", [
        *load.headless(), "--master", "--master-bind-host", "127.0.0.1",
        "--master-bind-port", port, "--expect-workers", str(load.workers),
        "--expect-workers-max-wait", "30",
    ])
    return Locust([master, *(
        run(f"locust-worker-{number}",
            ["--worker", "--master-host", "127.0.0.1", "--master-port", port])
        for number in range(1, load.workers + 1))])
