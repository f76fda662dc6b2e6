"""``python -m loadtests.scenarios``: a scenario as one command."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import click

from loadtests.compare.procs import HarnessError, raise_descriptor_limit

from . import screen
from .families import SCENARIOS, named
from .run import Settings, run

RESULTS = Path(__file__).parents[1] / "results"
DESCRIPTORS = 4096      # of any one process; the ramp needs some 2 x 200
INTERRUPTED = 130       # what a shell calls a command that Ctrl-C ended
NOT_RUN = 2


def _help() -> str:
    width = max(map(len, SCENARIOS))
    return "\b\n" + "\n".join(f"{s.name:{width}}  {s.title}" for s in SCENARIOS.values())


@click.command(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help=f"""Run Locust against an lbcore of its own and judge what came of it.

    {_help()}

    Several names run one after the other; "tcp" is those above the shops, "http" the shops, and
    "all" all of them. Exit code: 0 when every limit
    holds, 1 when one is missed, 2 when a scenario could not be run.
    """)
@click.argument("names", nargs=-1, required=True, metavar="SCENARIO...",
                type=click.Choice([*SCENARIOS, "tcp", "http", "all"]))
@click.option("--seconds", default=30, show_default=True, type=click.IntRange(3, 3600),
              help="Length of the load.")
@click.option("--users", type=click.IntRange(2, 2000),
              help="Most users at once, instead of the scenario's own number.")
@click.option("--workers", default=2, show_default=True, type=click.IntRange(1, 64),
              help="Workers of lbcore.")
@click.option("--distributed", default=0, metavar="N", type=click.IntRange(0, 32),
              help="Locust as a master with N workers, instead of one process.")
@click.option("--reload-every", default=200, show_default=True, type=click.IntRange(10),
              help="Milliseconds between the reloads of `reload` and `shop-reload`.")
@click.option("--slack", default=1.0, show_default=True, type=click.FloatRange(1, 100),
              help="Times that latencies may be longer and throughput lower, on slow machines. "
              "Failures stay failures.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=RESULTS,
              help="Directory that gets one directory per scenario. [default: loadtests/results]")
def main(
    *, names: tuple[str, ...], seconds: int, users: int | None, workers: int, distributed: int,
    reload_every: int, slack: float, out: Path,
) -> None:
    """Runs the scenarios; the help for people is above."""
    if importlib.util.find_spec("locust") is None:
        raise click.UsageError("Locust is not installed: pip install '.[load]'")
    scenarios = named(names)
    for scenario in scenarios:
        if seconds < scenario.least_seconds:
            raise click.UsageError(
                f"{scenario.name} needs --seconds {scenario.least_seconds} or more")
    failed = False
    for scenario in scenarios:
        settings = Settings(seconds, users or scenario.users, workers, distributed,
                            reload_every / 1000, slack)
        directory = out.absolute() / scenario.name
        try:
            raise_descriptor_limit(DESCRIPTORS)
            outcome = run(scenario, settings, directory)
        except KeyboardInterrupt:
            print(f"\n{scenario.name}: interrupted, everything it started has ended",
                  file=sys.stderr)
            sys.exit(INTERRUPTED)
        except HarnessError as error:
            print(f"FAIL {scenario.name}: it could not be run: {error}", file=sys.stderr)
            sys.exit(NOT_RUN)
        print(screen.verdict(scenario.name, outcome.checks, outcome.remarks), flush=True)
        print(f"report: {directory / 'report.html'}", flush=True)
        failed |= not outcome.passed
    sys.exit(failed)


if __name__ == "__main__":
    main()
