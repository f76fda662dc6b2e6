"""``lbcore events``: what the instance says of itself, whatever its log level hides."""

from __future__ import annotations

import json
import sys
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from lbcore.cli.instance import instance, running
from lbcore.cli.options import State
from lbcore.cli.steps import parts
from lbcore.cli.tables import Line, Said, Tone, emit

if TYPE_CHECKING:
    from lbcore.admin.client import AdminClient

Json = dict[str, Any]
LEVELS = ("debug", "info", "warning", "error")
TONES: dict[str, Tone] = {"debug": "quiet", "info": "", "warning": "doubtful", "error": "bad"}
AGAIN = 0.5                  # seconds between attempts to hear an instance that is gone


@click.command()
@click.option("-f", "--follow", is_flag=True,
              help="Go on with what happens, until Ctrl-C or the end of lbcore.")
@click.option("--level", type=click.Choice(LEVELS), default="info", show_default=True,
              help="Nothing below this level.")
@click.option("-n", "--limit", type=click.IntRange(1, 1000), default=100, metavar="COUNT",
              show_default=True, help="So many of the past at most.")
@click.option("--after", type=click.IntRange(min=0), metavar="NUMBER",
              help="Only those after the event with this number (seq in JSON).")
@running
@click.pass_obj
def events(state: State, follow: bool, level: str, limit: int, after: int | None) -> None:
    """Show what has happened lately, newest last: the last 1,000 events are known.

    With --json it is one object a line. --follow hears an upgraded instance too.
    """
    with instance(state) as client:
        said = client.events(after=after, limit=limit, level=level)
        _print(state, said["events"])
        if follow:
            _follow(state, client, level, said["last"])


def _follow(state: State, client: AdminClient, level: str, last: int) -> None:
    """Prints what happens until the instance has been gone for a while. Raises NotRunning."""
    from lbcore.admin import calls  # noqa: PLC0415
    from lbcore.admin.client import NotRunning  # noqa: PLC0415

    gone = 0
    while True:
        try:
            for kind, event in client.stream(calls.stream(60, False, last, level)):
                gone = 0
                if kind == "event":
                    last = event["seq"]
                    _print(state, [event])
        except NotRunning:
            gone += 1
            if gone * AGAIN > 10:
                raise
        time.sleep(AGAIN)


def _print(state: State, found: list[Json]) -> None:
    if state.json:
        for event in found:
            click.echo(json.dumps(event))
    elif found:
        emit(state, [line(event) for event in found])
    sys.stdout.flush()


def line(event: Json) -> Line:
    """An event with its local time and level."""
    when = datetime.fromisoformat(event["time"]).astimezone()
    level = event["level"]
    name, *rest = parts(event)
    return [Said(f"{when:%Y-%m-%d %H:%M:%S}.{when.microsecond // 1000:03}", "quiet"), " ",
            Said(f"{level:<7}", TONES.get(level, "")), " ", Said(str(name), "strong"), *rest]
