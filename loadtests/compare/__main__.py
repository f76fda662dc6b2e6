"""``python -m loadtests.compare``: the comparison as one command."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click
from rich import box
from rich.console import Console
from rich.table import Table

from . import report
from .peers import DEFAULT_PEERS, PEERS
from .procs import HarnessError
from .progress import Display
from .run import Settings, compare, steps
from .sampler import Lengths
from .stats import SUBJECT
from .works import GROUPS, WORKS, expanded

RESULTS = Path(__file__).parents[1] / "results"


def _names(known: dict[str, object], text: str, what: str) -> list[str]:
    names = expanded([name.strip() for name in text.split(",") if name.strip()])
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise click.UsageError(
            f"unknown {what}: {', '.join(unknown) or 'none given'}; known: {', '.join(known)}"
        )
    return names


def show(results: report.Results) -> None:
    """Prints every table and the remarks. Ratios are to the best peer other than lbcore."""
    console = Console(width=None if sys.stdout.isatty() else 160)
    for work, rows in results.tables():
        heading, *lines = report.grid(work, rows)
        title = work.title
        if work.kind == "paced":
            title += f" ({results.rates[work.name]:,.0f} requests/s for all)"
        text = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, title_style="bold")
        for index, name in enumerate(heading):
            text.add_column(name, justify="right" if index else "left", overflow="fold")
        for line in lines:
            text.add_row(*line)
        console.print(text)
    for remark in report.remarks(results):
        console.print(f"note: {remark}", highlight=False)


def judge(results: report.Results) -> bool:
    """Prints lbcore's targets; returns whether all are met."""
    verdicts = results.verdicts()
    for v in verdicts:
        value = "not measured" if v.value is None else f"{v.value:.2f}"
        print(f"{'met   ' if v.met else 'MISSED'}  {v.work:20} {v.target:36} {value}")
    return all(v.met for v in verdicts)


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1),
              help="Interleaved rounds; the tables show medians over them.")
@click.option("--seconds", default=3, show_default=True, type=click.IntRange(1),
              help="Length of one measurement.")
@click.option("--only", default=",".join(GROUPS), show_default=True, metavar="WORK,...",
              help=f"Work to measure: {', '.join(GROUPS)} for all of a kind, or of: "
              f"{', '.join(WORKS)}.")
@click.option("--peers", default=",".join(DEFAULT_PEERS), show_default=True, metavar="PEER,...",
              help=f"Balancers to measure, of: {', '.join(PEERS)}.")
@click.option("--idle", default=3000, show_default=True, type=click.IntRange(1, 5000),
              help="Idle connections over which memory is measured.")
@click.option("--quick", is_flag=True, help="One round of one second: a look, not a measurement.")
@click.option("--check", is_flag=True, help="Exit with code 1 unless lbcore meets every target.")
@click.option("--cpus", metavar="B,C", help="CPU of the balancer and of client and origin; "
              "by default the first two that may be used.")
@click.option("--out", type=click.Path(path_type=Path), default=RESULTS / "compare",
              help="Where .json, .md and .png go, without the ending. "
              "[default: loadtests/results/compare]")
@click.option("--from", "source", type=click.Path(path_type=Path, exists=True, dir_okay=False),
              help="Show, draw and judge an earlier run's .json instead of measuring.")
def main(
    *, rounds: int, seconds: int, only: str, peers: str, idle: int, quick: bool, check: bool,
    cpus: str | None, out: Path, source: Path | None,
) -> None:
    """Measure lbcore, HAProxy, nginx and Envoy on the same work, interleaved.

    The balancer has one worker on one core; client and origin share another. Takes about half
    an hour with the defaults. How it measures: docs/internals/measuring.md.
    """
    try:
        if source is not None:
            results = report.load(source)
        else:
            if check and SUBJECT not in peers.split(","):
                raise click.UsageError(f"--check needs {SUBJECT} among the peers")
            if quick:
                rounds, seconds, idle = 1, 1, min(idle, 500)
            results = _measure(
                rounds, seconds, idle, works=_names(dict(WORKS), only, "work"),
                peers=_names(dict(PEERS), peers, "peer"), cpus=cpus,
            )
            out.parent.mkdir(parents=True, exist_ok=True)
            report.save(results, out.with_suffix(".json"))
        out.with_suffix(".md").write_text(report.markdown(results))
        report.chart(results, out.with_suffix(".png"))
    except HarnessError as error:
        raise click.ClickException(str(error)) from None
    show(results)
    print(f"written: {out}.json, .md, .png")
    if SUBJECT in results.peers and not judge(results) and check:
        sys.exit(1)


def _measure(
    rounds: int, seconds: int, idle: int, *, works: list[str], peers: list[str], cpus: str | None
) -> report.Results:
    allowed = sorted(os.sched_getaffinity(0))
    if cpus is not None:
        try:
            wanted = [int(cpu) for cpu in cpus.split(",")]
        except ValueError:
            raise click.UsageError("--cpus takes two numbers, as in 0,1") from None
        if len(set(wanted)) != 2 or not set(wanted) <= set(allowed):
            raise click.UsageError(f"--cpus takes two different ones of {allowed}")
        allowed = wanted
    settings = Settings(rounds, Lengths(seconds, idle), tuple(allowed))
    machine = report.machine(report.versions(peers))
    chosen, balancers = [WORKS[w] for w in works], [PEERS[p] for p in peers]
    with Display(steps(chosen, balancers, rounds)) as display:
        samples, rates = compare(
            settings, chosen, balancers,
            lambda work, peer, number: display.step(
                f"round {number + 1}: {work}, {peer}", f"round {number + 1}: {work}"
            ),
        )
    return report.Results(machine, rounds, seconds, rates, works, peers, samples)


if __name__ == "__main__":
    main()
