"""Metrics for Prometheus: what ``GET /metrics`` answers.

Large families (a series for every backend) are written by ``exposition``; what there is one of,
and the supervisor's own process, by ``prometheus_client``. Writing pauses every few milliseconds,
so that a scrape of thousands of backends never keeps a health check waiting. Scrapes that come
while one is under way wait for the next and share it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from lbcore.admin import families
from lbcore.admin.contract import Control
from lbcore.admin.exposition import Family, Writer, labels
from lbcore.admin.figures import InstanceFigures

SLICE = 0.001                # seconds of writing between two turns of the event loop
# So many rows of a kind are written; lbcore_metrics_left_out_rows says how many are not.
MOST_ROWS = {"listener": 1000, "route": 2000, "pool": 1000, "backend": 5000}
OPENMETRICS = "application/openmetrics-text"
END = b"# EOF\n"             # of OpenMetrics


class Metrics:
    """The metrics of one instance."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._small = CollectorRegistry(auto_describe=False)
        self._small.register(_Instance(self))
        ProcessCollector(registry=self._small)
        self._lock = asyncio.Lock()
        self._begun = 0                      # scrapes written so far, and the one under way
        self._waiting = 0
        self._last: dict[bool, list[bytes]] = {}     # by format, while somebody waits for it
        self.instance: InstanceFigures | None = None
        self.took = 0.0                      # seconds that writing the last one took

    async def render(self, accept: str = "") -> tuple[list[bytes], str]:
        """Body, in pieces, and Content-Type for a request with this Accept header."""
        encode, content_type = choose_encoder(accept)
        openmetrics = content_type.startswith(OPENMETRICS)
        rows = await self._rows(openmetrics)
        self.instance = self._control.figures.instance()
        small = encode(self._small)
        if openmetrics:
            return [small.removesuffix(END), *rows, END], content_type
        return [small, *rows], content_type

    async def _rows(self, openmetrics: bool) -> list[bytes]:
        """The families of many rows, as they were at some moment after the call."""
        asked = self._begun
        self._waiting += 1
        try:
            async with self._lock:
                if self._begun > asked and openmetrics in self._last:
                    return self._last[openmetrics]
                self._last.clear()
                self._begun += 1
                began = time.perf_counter()
                written = self._last[openmetrics] = await self._write(openmetrics)
                self.took = time.perf_counter() - began
                return written
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._last.clear()

    async def _write(self, openmetrics: bool) -> list[bytes]:
        source = self._control.figures
        kinds: Sequence[tuple[str, Sequence[Family], Iterator[Any]]] = (
            ("worker", families.WORKER, source.workers()),
            ("listener", families.LISTENER, source.listeners()),
            ("route", families.ROUTE, source.routes()),
            ("pool", families.POOL, source.pools()),
            ("backend", families.BACKEND, source.backends()),
        )
        pieces: list[bytes] = []
        for kind, of_kind, rows in kinds:
            pieces += await _write_rows(of_kind, rows, MOST_ROWS.get(kind), openmetrics)
        return pieces


async def _write_rows(
    of_kind: Sequence[Family], rows: Iterator[Any], most: int | None, openmetrics: bool
) -> list[bytes]:
    """The families of one kind of row, each with its header, in pieces."""
    writer, names = Writer(of_kind), of_kind[0].labels
    due = time.perf_counter() + SLICE
    for count, row in enumerate(rows):
        if count == most:
            break
        writer.add(labels(zip(names, row.labels, strict=True)), row)
        if time.perf_counter() > due:
            await asyncio.sleep(0)
            due = time.perf_counter() + SLICE
    pieces: list[bytes] = []
    for piece in writer.pieces(openmetrics):
        pieces.append(piece)
        await asyncio.sleep(0)
    return pieces


class _Instance(Collector):
    """What there is one of."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        """Metrics of the instance as it was when the scrape began."""
        found = self._metrics.instance
        if found is None:
            return
        build = InfoMetricFamily("lbcore_build", "What runs; the value is always 1.")
        build.add_metric([], {"version": found.version, "python": found.python})
        yield build
        yield from _gauges(found, self._metrics.took)
        yield from _counters(found)


def _gauges(found: InstanceFigures, took: float) -> Iterator[Metric]:
    left_out = {kind: max(0, found.sizes.get(kind, 0) - most) for kind, most in MOST_ROWS.items()}
    return _families(GaugeMetricFamily, (
        ("start_time_seconds", "When the instance started; upgrades do not change it.",
         found.started_at),
        ("counting_since_timestamp_seconds", "Since when the counters of traffic count: the start, "
         "unless an upgrade had to begin anew.", found.counting_since),
        ("generation", "Which version runs: 1, and one more with every upgrade.", found.generation),
        ("plan_version", "Of the plan in force; every change raises it.", found.plan_version),
        ("plan_applied_timestamp_seconds", "When the plan in force was put into force.",
         found.plan_applied_at),
        ("config_differences", "Changes at run time that are in force: differences from the file.",
         found.differences),
        ("stopping", "1 once the instance has begun to end.", int(found.stopping)),
        ("last_reload_successful", "1 if the last reload put the file into force, also before the "
         "first.", int(found.reload_ok)),
        ("workers_wanted", "Slots for workers.", found.workers_wanted),
        ("metrics_scrape_duration_seconds",
         "How long writing the metrics took, pauses included.", took),
    ), (
        ("worker_processes", "Worker processes by state; orphan: of a supervisor before this one.",
         "state", found.processes),
        ("metrics_left_out_rows", "Listeners, routes, pools and backends that have no series here "
         "because there are too many of their kind.", "kind", left_out),
    ))


def _counters(found: InstanceFigures) -> Iterator[Metric]:
    return _families(CounterMetricFamily, (
        ("config_changes", "Changes at run time that were put into force.", found.changes),
        ("app_deaths", "Servers of Python applications that ended without being told to.",
         found.app_deaths),
        ("log_lines_dropped", "Lines of lbcore's own log that nobody took.", found.log_dropped),
        ("access_log_lines", "Lines written to the access log.", found.access_lines),
        ("access_log_lines_dropped", "Lines that the access log did not take.",
         found.access_dropped),
        ("rate_limits_forgotten", "Clients of rate limits that made room for others too early.",
         found.rates_forgotten),
        ("sticky_sessions_forgotten", "Learnt cookies that made room for others too early.",
         found.learnt_forgotten),
    ), (
        ("events", "Events by level, whatever the log shows of them.", "level", found.events),
        ("reloads", "Reloads of the configuration by result.", "result", found.reloads),
        ("discoveries", "Other backends that discovery sources have named, and failures to ask "
         "them, by result.", "result", found.discovered),
        ("upgrades", "Upgrades by result.", "result", found.upgrades),
    ))


def _families(
    kind: type[GaugeMetricFamily] | type[CounterMetricFamily],
    plain: Iterable[tuple[str, str, float]],
    labelled: Iterable[tuple[str, str, str, Mapping[str, float]]],
) -> Iterator[Metric]:
    """Metrics of one kind: those with a value, and those with one for every value of a label."""
    for name, text, value in plain:
        yield kind("lbcore_" + name, text, value)
    for name, text, label, values in labelled:
        family = kind("lbcore_" + name, text, labels=[label])
        for one, value in values.items():
            family.add_metric([one], value)
        yield family
