"""One picture of ``lbcore top`` as a report: for pipes, for logs, for a glance."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from lbcore.cli.options import State
from lbcore.cli.tables import Column, Line, Said, Table, emit, milliseconds, rate, size
from lbcore.cli.top.panes import PANES, Pane, Picture, headline

if TYPE_CHECKING:
    from lbcore.admin.client import AdminClient

EVENTS = 10


def print_once(state: State, client: AdminClient) -> None:
    """Prints what goes on; takes the second or so that rates need to be counted."""
    for picture in _pictures(client):
        if state.json:
            click.echo(json.dumps({"status": picture.status, "live": picture.live,
                                   "events": list(picture.events)}, indent=2))
        else:
            emit(state, report(picture))
        return
    raise click.ClickException("the instance ended before there were figures")


def report(picture: Picture) -> Iterator[Line | Table]:
    """The picture as lines and tables, every pane below the other."""
    yield headline(picture)
    yield _totals(picture)
    for pane in PANES:
        rows = [[cell.said for cell in row.cells] for row in pane.rows(picture)]
        if rows:
            yield ""
            yield Table([_column(pane, index) for index in range(len(pane.headings))], rows)


def _pictures(client: AdminClient) -> Iterator[Picture]:
    """Pictures with figures: those of the first moment have nothing to compare with."""
    events = client.events(limit=EVENTS)["events"]
    first = True
    for kind, data in client.follow(interval=1.0, live=True):
        if kind == "state":
            live = data.get("live") or {}
            if not first and (live.get("window_s") or 0) > 0:
                yield Picture(data["status"], live, events)
            first = False


def _totals(picture: Picture) -> Line:
    total = picture.total
    said: list[str | Said] = []
    for figure, name in (
        (rate(total.get("requests_per_s")), "requests/s"),
        (rate(total.get("connections_per_s")), "connections/s"),
        (rate(total.get("errors_per_s")), "errors/s"),
        (milliseconds(total.get("p50_ms")), "p50"), (milliseconds(total.get("p99_ms")), "p99"),
        (total.get("connections"), "connections"),
    ):
        said += ["" if not said else "  ", f"{name} ", Said(str(figure), "strong")] \
            if figure is not None else []
    return [*said, f"  in {size(total.get('bytes_up_per_s') or 0)}/s"
            f"  out {size(total.get('bytes_down_per_s') or 0)}/s"]


def _column(pane: Pane, index: int) -> Column:
    heading = pane.headings[index]
    return Column(heading.name, heading.keep)
