"""Reading metrics in tests, and rows of figures for those without an instance.

    python -m tests.support.metrics         writes the tables of docs/guide/metrics.md anew
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from lbcore.admin.client import _UnixConnection
from lbcore.admin.figures import (
    BOUNDS_US,
    BackendCounters,
    BackendFigures,
    InstanceFigures,
    ListenerCounters,
    ListenerFigures,
    PoolFigures,
    RouteCounters,
    RouteFigures,
    Times,
    WorkerFigures,
)
from lbcore.admin.metrics import Metrics

OPENMETRICS = "application/openmetrics-text;version=1.0.0"
Key = tuple[str, frozenset[tuple[str, str]]]
needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is missing")


class Scrape:
    """What one scrape gave."""

    def __init__(self, body: bytes, content_type: str) -> None:
        self.text = body.decode()
        self.content_type = content_type
        read = read_openmetrics if content_type.startswith("application/openmetrics-text") \
            else read_text
        self.families: dict[str, Metric] = {}
        self.samples: dict[Key, float] = {}
        for family in read(self.text):
            assert family.name not in self.families, f"{family.name} is there twice"
            self.families[family.name] = family
            for sample in family.samples:
                key = (sample.name, frozenset(sample.labels.items()))
                assert key not in self.samples, f"{key} is there twice"
                self.samples[key] = sample.value

    def value(self, name: str, **labels: str) -> float:
        """One sample. Raises KeyError."""
        return self.samples[name, frozenset(labels.items())]

    def sum(self, name: str, **labels: str) -> float:
        """All samples of a name that have these labels, and perhaps others."""
        wanted = frozenset(labels.items())
        return sum(value for (found, of), value in self.samples.items()
                   if found == name and wanted <= of)

    def growing(self) -> dict[Key, float]:
        """Samples that may only grow."""
        found = {}
        for family in self.families.values():
            if family.type in ("counter", "histogram"):
                for sample in family.samples:
                    key = (sample.name, frozenset(sample.labels.items()))
                    found[key] = sample.value
        return found


def scrape(admin_path: Path, accept: str = "") -> Scrape:
    """Asks an instance for its metrics."""
    connection = _UnixConnection(str(admin_path), 30)
    try:
        connection.request("GET", "/metrics", headers={"Accept": accept} if accept else {})
        answer = connection.getresponse()
        body = answer.read()
    finally:
        connection.close()
    assert answer.status == 200, body
    return Scrape(body, answer.headers["Content-Type"])


async def written(source: Rows, accept: str = "") -> Scrape:
    """The metrics of rows of figures."""
    pieces, content_type = await Metrics(source).render(accept)
    return Scrape(b"".join(pieces), content_type)


def promtool(*words: str, text: str | None = None, folder: Path | None = None) -> None:
    """Runs promtool, which must have nothing to say against what it is given."""
    done = subprocess.run(["promtool", *words], input=text, text=True, capture_output=True,
                          check=False, cwd=folder)
    said = (done.stdout + done.stderr).strip()
    assert done.returncode == 0, said
    assert words[:2] != ("check", "metrics") or not said, said


# ---- without an instance -----------------------------------------------------------------------

def times(count: int, seconds: float = 0.0) -> Times:
    """So many durations, all of them below the first bound."""
    return Times((count,) * (len(BOUNDS_US) + 1), seconds)


def backend(pool: str = "web", name: str = "b1", **changes: Any) -> BackendFigures:
    """A backend with a different number in every counter."""
    fields = len(BackendCounters._fields)
    plain: dict[str, Any] = {
        "address": "10.0.0.1:8000", "role": "primary", "http": True, "checked": True,
        "state": "up", "forced": False, "weight": 2, "ramp": 0.5, "failures": 1, "check_s": 0.002,
        "check_at": 1.5e9, "passed": 10, "failed": 3, "ejections": 4, "withheld": 5, "changes": 6,
        "counted": BackendCounters(*range(100, 100 + fields)), "connect": times(7, 0.25),
        "response": times(8, 0.5)}
    return BackendFigures(pool=pool, name=name, **(plain | changes))


@dataclass
class Rows:
    """A ``FigureSource`` and a ``Control`` with what one gives it."""

    of_backends: list[BackendFigures] = field(default_factory=lambda: [backend()])
    sizes: dict[str, int] = field(default_factory=dict)
    limit: int = 1000                    # of descriptors and connections; 0: none is known
    reads: int = 0                       # how often backends were asked for
    began: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def figures(self) -> Rows:
        return self

    def instance(self) -> InstanceFigures:
        return InstanceFigures(
            version="1.2.3", python="3.11.0", plan_version=7, plan_applied_at=1.6e9,
            started_at=1.5e9, counting_since=1.5e9, generation=2, stopping=False,
            differences=3, changes=4, discovered={"ok": 1, "failed": 0},
            workers_wanted=2, processes={"serving": 2, "draining": 1},
            events={"info": 5, "error": 1}, reloads={"ok": 4, "failed": 1}, reload_ok=True,
            upgrades={"ok": 1, "failed": 0}, app_deaths=0, log_dropped=0, access_lines=9,
            access_dropped=0, rates_forgotten=0, learnt_forgotten=0, sizes=self.sizes)

    def workers(self) -> Iterator[WorkerFigures]:
        yield WorkerFigures(
            slot=0, serving=True, connections=1, requests=1, idle_upstreams=1, pipes=1, buffers=1,
            spool_bytes=1, plan_version=7, heartbeat_age_s=0.01, accepted=1, turns=1,
            accept_pauses=1, accept_errors=1, sources_untracked=1, cpu_s=1.5, starts=1, deaths=1,
            hangs=1, start_failures=1, resident_bytes=1, open_fds=1,
            max_fds=self.limit or None)

    def listeners(self) -> Iterator[ListenerFigures]:
        for protocol in ("http", "tcp"):
            yield ListenerFigures(protocol, protocol, "web", self.limit, ListenerCounters(
                *range(len(ListenerCounters._fields))))

    def routes(self) -> Iterator[RouteFigures]:
        yield RouteFigures("http", "default", "pool", "web", RouteCounters(
            *range(len(RouteCounters._fields))), times(3, 1.5))

    def pools(self) -> Iterator[PoolFigures]:
        yield PoolFigures("web", "round_robin", {"up": 1}, False, False, 1, 0, 0, 1024,
                          False)

    def backends(self) -> Iterator[BackendFigures]:
        self.reads += 1
        self.began.set()
        yield from self.of_backends


# ---- the guide's tables ------------------------------------------------------------------------

GUIDE = Path(__file__).parents[2] / "docs/guide/metrics.md"
BEGIN, END = "<!-- every metric: python -m tests.support.metrics -->\n", "<!-- end -->\n"
SECTIONS = (
    ("Backends", "lbcore_backend_"), ("Pools", "lbcore_pool_"), ("Routes", "lbcore_route_"),
    ("Listeners", "lbcore_listener_"), ("Workers", "lbcore_worker_"), ("The instance", "lbcore_"),
    ("The supervisor's process", "process_"),
)


def tables(scrape: Scrape) -> str:
    """Every metric of a scrape as the guide shows it."""
    left = dict(scrape.families)
    lines = [BEGIN]
    for title, prefix in SECTIONS:
        lines.append(f"\n### {title}\n\n| metric | type | labels | meaning |\n|---|---|---|---|\n")
        for name in [name for name in left if name.startswith(prefix)]:
            family = left.pop(name)
            of = list(dict.fromkeys(label for sample in family.samples for label in sample.labels
                                    if label != "le"))
            shown = name + "_total" if family.type == "counter" else name
            lines.append(f"| `{shown}` | {family.type} | {', '.join(of)} | "
                         f"{family.documentation} |\n")
    assert not left, left
    return "".join([*lines, "\n", END])


def in_guide(text: str) -> str:
    """The tables that stand in the guide."""
    return text[text.index(BEGIN) : text.index(END) + len(END)]


def main() -> None:
    """Writes the tables into the guide."""
    text = GUIDE.read_text()
    GUIDE.write_text(text.replace(in_guide(text), tables(asyncio.run(written(Rows())))))


if __name__ == "__main__":
    main()
