"""Inside Locust's processes: writes what the run wants to know (``records.py``).

It adds ``--records DIRECTORY`` to Locust's options. Without it nothing is written, so that a
person can use the locustfiles with Locust's own screen.
"""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import locust.stats
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from locust.event import EventHook
from locust.runners import WorkerRunner

from .records import FAILURES, TIMELINE, Failure, Moment

P95 = 0.95
FAILURE = "failure"     # key of the request event's context that carries a Failure


def add_option(parser: LocustArgumentParser, **_: Any) -> None:
    """For Locust's event ``init_command_line_parser``."""
    parser.add_argument(
        "--records", metavar="DIRECTORY", default="", include_in_web_ui=False,
        help="Where to write failures and the passing of time for `python -m loadtests.scenarios`",
    )


def attach(environment: Environment, **_: Any) -> None:
    """For Locust's event ``init``: begins to report what this process does, if that is wanted."""
    options = environment.parsed_options
    if options is None or not options.records:
        return
    locust.stats.HISTORY_STATS_INTERVAL_SEC = 1     # seconds between points of the charts
    reporter = Reporter(environment, Path(options.records))
    listen(environment.events.request, reporter.request)
    if not isinstance(environment.runner, WorkerRunner):
        listen(environment.events.test_start, reporter.start)
        listen(environment.events.quitting, reporter.finish)


def listen(hook: EventHook, handler: Callable[..., None]) -> None:
    """Has Locust call ``handler`` when ``hook`` fires; Locust's own method has no types."""
    hook.add_listener(handler)  # type: ignore[no-untyped-call]


class Reporter:
    """What one Locust process writes; its methods listen to Locust's events."""

    def __init__(self, environment: Environment, directory: Path) -> None:
        self._environment = environment
        self._directory = directory
        self._over = False

    def request(self, context: dict[str, Any], **_: Any) -> None:
        """Appends a failure to the file."""
        failure = context.get(FAILURE)
        if isinstance(failure, Failure):
            with (self._directory / FAILURES.format(pid=os.getpid())).open("a") as file:
                file.write(failure.line())

    def start(self, **_: Any) -> None:
        """Begins the timeline. A thread is a greenlet here, as Locust patches the library."""
        Thread(target=self._keep_time, daemon=True).start()

    def _keep_time(self) -> None:
        with (self._directory / TIMELINE).open("a") as file:
            while not self._over:
                file.write(self._moment().line())
                file.flush()
                time.sleep(1)

    def _moment(self) -> Moment:
        runner, total = self._environment.runner, self._environment.stats.total
        return Moment(
            time.monotonic(), runner.user_count if runner else 0, total.num_requests,
            total.num_failures, total.current_rps,
            float(total.get_current_response_time_percentile(P95) or 0),
        )

    def finish(self, **_: Any) -> None:
        """Writes Locust's tables as they are at the end.

        Locust's own ``--csv`` writes them every second and leaves them up to a second old.
        """
        self._over = True
        tables = locust.stats.StatsCSV(self._environment, locust.stats.PERCENTILES_TO_REPORT)
        for name, write in (("stats", tables.requests_csv), ("failures", tables.failures_csv),
                            ("exceptions", tables.exceptions_csv)):
            with (self._directory / f"{name}.csv").open("w", newline="") as file:
                write(csv.writer(file))
