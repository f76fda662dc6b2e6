"""``lbcore top``: the instance live in the terminal."""

from __future__ import annotations

import os
import sys

import click

from lbcore.cli.instance import instance, running
from lbcore.cli.options import State


@click.command()
@click.option("--once", "--plain", "once", is_flag=True,
              help="Print one picture and end, as it also does in a pipe.")
@click.option("--interval", type=click.FloatRange(0.5, 60), default=1.0, metavar="SECONDS",
              show_default=True, help="How often the figures are new.")
@running
@click.pass_obj
def top(state: State, once: bool, interval: float) -> None:
    """Show traffic, backends, workers and events live; drain and more with a key.

    Press ? in it for its keys.
    """
    with instance(state) as client:
        if once or state.json or not (sys.stdin.isatty() and sys.stdout.isatty()):
            from lbcore.cli.top.once import print_once  # noqa: PLC0415

            print_once(state, client)
            return
        client.events(limit=1)       # who does not answer, or not to us, is told as elsewhere
        if not state.paints():
            os.environ["NO_COLOR"] = "1"     # Textual looks for it when it is imported
        from lbcore.cli.top.app import Top  # noqa: PLC0415  (textual is for this alone)

        Top(client, interval).run()
