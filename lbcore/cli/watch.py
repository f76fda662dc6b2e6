"""``lbcore status --watch``: the same picture again and again."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING

import click

from lbcore.cli.options import State
from lbcore.cli.picture import describe
from lbcore.cli.tables import Line, Table, emit

if TYPE_CHECKING:
    from lbcore.admin.client import AdminClient


def watch_status(state: State, client: AdminClient, interval: float) -> None:
    """Shows the status every ``interval`` seconds until it is interrupted.

    With ``--json`` it is a line of JSON each time, in a pipe the picture with an empty line
    behind it. On a terminal an instance that does not answer is waited for; otherwise the command
    ends with the error.
    """
    if state.json:
        while True:
            click.echo(json.dumps(client.status()))
            time.sleep(interval)
    if not sys.stdout.isatty():
        while True:
            emit(state, [*describe(client.status()), ""])
            sys.stdout.flush()
            time.sleep(interval)
    _on_screen(state, client, interval)


def _on_screen(state: State, client: AdminClient, interval: float) -> None:
    from rich.live import Live  # noqa: PLC0415

    from lbcore.admin.client import NotRunning  # noqa: PLC0415
    from lbcore.cli.painted import console, whole  # noqa: PLC0415

    out = console(state.paints())
    with Live(console=out, screen=True, auto_refresh=False, vertical_overflow="ellipsis") as live:
        while True:
            report: list[Line | Table]
            try:
                report = list(describe(client.status()))
            except NotRunning as error:
                report = [str(error)]
            live.update(whole(report, out.width), refresh=True)
            time.sleep(interval)
