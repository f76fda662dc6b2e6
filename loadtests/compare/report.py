"""What a run found, for people (tables, chart) and for programs (JSON)."""

from __future__ import annotations

import json
import platform
import re
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lbcore import __version__

from .peers import PEERS, REPOSITORY
from .stats import DISTURBED_SHARE, SUBJECT, Row, Sample, Spread, Verdict, table, verdict
from .works import WORKS, Work

CONGESTION = Path("/proc/sys/net/ipv4/tcp_congestion_control")

Cell = tuple[str, str]          # heading, name of the value


@dataclass(frozen=True)
class Results:
    """A whole run. ``rates``: requests a second of each paced work."""

    machine: dict[str, str]
    rounds: int
    seconds: int
    rates: dict[str, float]
    works: list[str]
    peers: list[str]
    samples: list[Sample]

    def tables(self) -> list[tuple[Work, list[Row]]]:
        """Every work with its rows, in the order of the run."""
        return [
            (WORKS[w], table(WORKS[w], self.samples,
                             [peer for peer in self.peers if PEERS[peer].takes(WORKS[w])]))
            for w in self.works
        ]

    def verdicts(self) -> list[Verdict]:
        """lbcore's verdict on every work that was measured and has a target."""
        tables = {work.name: rows for work, rows in self.tables()}
        found = [verdict(WORKS[work], tables) for work in self.works]
        return [one for one in found if one is not None]


def machine(versions: dict[str, str]) -> dict[str, str]:
    """What the numbers depend on besides the balancers."""
    model = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text())
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": model.group(1) if model else platform.processor(),
        "cpus": str(len(re.findall(r"^processor", Path("/proc/cpuinfo").read_text(), re.M))),
        "memory": f"{int(memory.group(1)) / 2**20:.1f} GiB" if memory else "unknown",
        "kernel": platform.release(),
        "congestion control": CONGESTION.read_text().strip(),
        "python": platform.python_version(),
        **versions,
    }


def versions(peers: Sequence[str]) -> dict[str, str]:
    """What each peer says of its own version."""
    found: dict[str, str] = {}
    for name in peers:
        program = PEERS[name].find()
        if name == SUBJECT:
            found[name] = f"{__version__} {_commit()}".strip()
            continue
        flag = "--version" if name == "envoy" else "-v"
        said = subprocess.run([program, flag], capture_output=True, text=True,
                              timeout=30, check=False)
        number = re.search(r"\d+\.\d+\.\d+", said.stdout + said.stderr)
        found[name.partition("-")[0]] = number.group(0) if number else "unknown"
    return found


def _commit() -> str:
    command = ["git", "-C", str(REPOSITORY), "rev-parse", "--short", "HEAD"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return f"({said.stdout.strip()})"


def save(results: Results, target: Path) -> None:
    """Writes ``target`` as JSON with every raw sample; readable again with :func:`load`."""
    values: dict[str, Any] = asdict(results)
    values["tables"] = {w.name: [asdict(row) for row in rows] for w, rows in results.tables()}
    values["targets"] = [asdict(v) for v in results.verdicts()]
    target.write_text(json.dumps(values, indent=1) + "\n")


def load(source: Path) -> Results:
    """Reads what :func:`save` wrote; tables and verdicts are computed anew."""
    values = json.loads(source.read_text())
    for derived in ("tables", "targets"):
        values.pop(derived, None)
    if (rate := values.pop("rate", None)) is not None:      # written before there were several
        values["rates"] = {"latency": rate}
    samples = [Sample(**sample) for sample in values.pop("samples")]
    return Results(samples=samples, **values)


def columns(work: Work) -> list[Cell]:
    """The values shown for a work besides peer and ratio."""
    match work.kind:
        case "closed" | "echo":
            per_second = "messages/s" if work.kind == "echo" else "requests/s"
            shown = [("CPU µs", "cpu_us"), ("all processes", "cpu_all_us"),
                     (per_second, "requests_per_s"), ("p50 µs", "p50_us"), ("p99 µs", "p99_us"),
                     ("busy %", "busy_share")]
        case "paced":
            shown = [("p99 µs", "p99_us"), ("p50 µs", "p50_us"), ("p99.9 µs", "p999_us"),
                     ("requests/s", "requests_per_s"), ("busy %", "busy_share")]
        case "memory":
            each = "bytes/pair" if work.setup.protocol == "tcp" else "bytes/connection"
            shown = [(each, "bytes_per_pair"), ("all processes", "bytes_per_pair_all"),
                     ("MiB before", "unique_before"), ("MiB after", "unique_after")]
    return sorted(shown, key=lambda one: one[1] != work.metric)     # what is judged comes first


def cell(name: str, value: Spread, *, judged: bool) -> str:
    """A value with its unit's scale; the judged one with its range."""

    def number(of: float) -> str:
        if name.endswith("_share"):
            return f"{of * 100:.0f}"
        if name.startswith("unique_"):
            return f"{of / 2**20:.1f}"
        return f"{of:.1f}" if of < 1000 and name.endswith("_us") else f"{of:,.0f}"

    text = number(value.median)
    if judged:
        text += f" ({number(value.least)}-{number(value.greatest)})"
    return text


def grid(work: Work, rows: Sequence[Row]) -> list[list[str]]:
    """The table of a work as text: a heading row, then the peers."""
    shown = columns(work)
    lines = [["", shown[0][0] + " (range)", "ratio", *(h for h, _ in shown[1:])]]
    for row in rows:
        title = PEERS[row.peer].title + (f" ({row.failed} failed)" if row.failed else "")
        if not row.values:
            lines.append([title, "no valid sample", *[""] * len(shown)])
            continue
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        first, *rest = (cell(n, row.values[n], judged=n == work.metric) for _, n in shown)
        lines.append([title, first, ratio, *rest])
    return lines


def markdown_table(lines: Sequence[Sequence[str]]) -> str:
    """Aligned Markdown; every column but the first is flush right."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]

    def row(line: Sequence[str]) -> str:
        pairs = zip(line, widths, strict=True)
        cells = (c.rjust(w) if i else c.ljust(w) for i, (c, w) in enumerate(pairs))
        return "| " + " | ".join(cells) + " |"

    rule = "|" + "|".join("-" * (w + 1) + (":" if i else "-") for i, w in enumerate(widths)) + "|"
    return "\n".join([row(lines[0]), rule, *map(row, lines[1:])])


def remarks(results: Results) -> list[str]:
    """What a reader should know before trusting the numbers."""
    found = [
        f"{sample.work}, {sample.peer}, round {sample.round + 1}: {sample.error}"
        for sample in results.samples if sample.error is not None
    ]
    for share, what in (
        ("foreign_share", "something else used the balancer's core"),
        ("foreign_load_share", "something else used the core of client and origin"),
        ("idle_peers_share", "balancers that should have been idle used the balancer's core"),
    ):
        worst = max((s.values.get(share, 0.0) for s in results.samples), default=0.0)
        count = sum(s.values.get(share, 0.0) > DISTURBED_SHARE for s in results.samples)
        if count:
            found.append(f"{what} in {count} of {len(results.samples)} samples, "
                         f"up to {worst:.0%}: run again on a quieter machine")
    return found


def markdown(results: Results) -> str:
    """The report as Markdown: machine, tables, targets, remarks."""
    about = ", ".join(f"{name} {value}" for name, value in results.machine.items())
    parts = [
        "# lbcore and its peers on the same work",
        f"Medians of {results.rounds} interleaved rounds of {results.seconds} s; one worker each "
        "unless said otherwise. CPU per request; ratio to the best peer other than lbcore; busy: "
        "share of the balancer's cores. "
        f"{about}.",
    ]
    for work, rows in results.tables():
        parts.append(f"## {work.title}")
        if work.kind == "paced":
            parts.append(f"{results.rates[work.name]:,.0f} requests a second for every balancer.")
        parts.append(markdown_table(grid(work, rows)))
    if SUBJECT in results.peers:
        lines = [["work", "target", "measured", ""]]
        for v in results.verdicts():
            value = "-" if v.value is None else f"{v.value:.2f}"
            lines.append([v.work, v.target, value, "met" if v.met else "missed"])
        parts += ["## Targets", markdown_table(lines)]
    if found := remarks(results):
        parts += ["## Remarks", "\n".join(f"- {remark}" for remark in found)]
    return "\n\n".join(parts) + "\n"


def chart(results: Results, target: Path) -> None:
    """A PNG with a panel for each work: medians as bars, the range of the rounds as whiskers."""
    import matplotlib as mpl  # noqa: PLC0415  slow to import and only needed here

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    tables = results.tables()
    across = min(2, len(tables))
    down = -(-len(tables) // across)
    figure, axes = plt.subplots(
        down, across, figsize=(6.5 * across, 0.8 + down * (1.1 + 0.32 * len(results.peers))),
        squeeze=False,
    )
    panels = list(axes.flat)
    for panel, (work, rows) in zip(panels, tables, strict=False):
        shown = [row for row in rows if work.metric in row.values][::-1]
        spreads = [row.values[work.metric] for row in shown]
        medians = [s.median for s in spreads]
        whiskers = [[s.median - s.least for s in spreads], [s.greatest - s.median for s in spreads]]
        bars = panel.barh(
            [PEERS[row.peer].title for row in shown], medians, xerr=whiskers if shown else None,
            color=["#c2410c" if row.peer == SUBJECT else "#94a3b8" for row in shown],
            error_kw={"ecolor": "#334155", "elinewidth": 1, "capsize": 2},
        )
        panel.bar_label(bars, [f"{m:,.1f}" if m < 100 else f"{m:,.0f}" for m in medians],
                        label_type="center", fontsize=8)
        better = "more" if work.more else "less"
        panel.set_title(f"{work.title}\n{work.unit}, {better} is better", fontsize=9, loc="left")
        panel.tick_params(labelsize=8)
        panel.spines[["top", "right"]].set_visible(False)
    for panel in panels[len(tables):]:
        panel.axis("off")
    about = results.machine
    figure.suptitle(
        f"Medians and ranges of {results.rounds} interleaved rounds. "
        f"{about.get('cpu', '')}, Linux {about.get('kernel', '')}, {about.get('date', '')}",
        fontsize=8, x=0.01, ha="left",
    )
    figure.tight_layout(rect=(0, 0, 1, 0.97))
    figure.savefig(target, dpi=130)
    plt.close(figure)
