"""What goes on while a command waits for the instance: told on standard error.

On a terminal it is one line that changes; for a pipe or a file a line for each step, without what
an application prints: the log has it, and an error its end. It comes from the instance's own
events. An instance that tells none, or stops telling, is no reason to fail. What is wrong with a
configuration is no step either: the command says it at its end, for people and for programs.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import click

from lbcore.cli.options import State
from lbcore.cli.tables import Said, words

if TYPE_CHECKING:
    from lbcore.admin.client import AdminClient

Json = dict[str, Any]
CHATTER = "app.output"
PROBLEM = "config.problem"
SPINNER = 2                  # cells before the line of a terminal
AGAIN = 0.2                  # seconds between attempts to hear an instance that is being replaced


class Steps:
    """Where steps are told. ``now`` is for what changes while waiting for one thing.

    ``pool``: events of other pools are no steps; "" is all. ``terse``: nor is ``CHATTER``.
    ``PROBLEM`` never is.
    """

    def __init__(self, show: Callable[[str], None], pool: str = "", *, terse: bool = False) -> None:
        self._show = show
        self._pool = pool
        self._terse = terse
        self._last = ""

    def now(self, text: str) -> None:
        """Tells what is so now; the same again is not told again."""
        if text != self._last:
            self._last = text
            self._show(text)

    def event(self, event: Json) -> None:
        """Tells of an event, if it is a step."""
        elsewhere = self._pool and (event.get("fields") or {}).get("pool") != self._pool
        silent = (event["level"] == "debug" or event["event"] == PROBLEM
                  or (self._terse and event["event"] == CHATTER))
        if not elsewhere and not silent:
            self._show(sentence(event))


@contextmanager
def under_way(state: State, client: AdminClient, title: str, pool: str = "") -> Iterator[Steps]:
    """Tells the instance's events, or those of a pool, as steps of what happens in the block."""
    if sys.stderr.isatty():
        from rich.text import Text  # noqa: PLC0415

        from lbcore.cli.painted import console  # noqa: PLC0415

        screen = console(state.paints(stderr=True), stderr=True)

        def update(text: str) -> None:
            line = Text(f"{title}: {text}")
            line.truncate(screen.width - SPINNER, overflow="ellipsis")   # several lines would jump
            spinner.update(line)

        with (screen.status(title) as spinner,
              _told(client, Steps(update, pool)) as steps):
            yield steps
    elif state.json:
        yield Steps(lambda _: None)
    else:
        told = Steps(lambda text: click.echo(f"{title}: {text}", err=True), pool, terse=True)
        with _told(client, told) as steps:
            yield steps


@contextmanager
def _told(client: AdminClient, steps: Steps) -> Iterator[Steps]:
    """Tells in a thread what happens, and before the block is left what has not been told yet."""
    from lbcore.admin.client import ClientError  # noqa: PLC0415

    try:
        heard = _Heard(steps, client.events(limit=1)["last"])
    except ClientError:      # the command finds out itself what is wrong
        yield steps
        return
    over = threading.Event()

    def listen() -> None:
        while not over.is_set():
            with suppress(ClientError):
                for kind, data in client.follow(interval=60, live=False, after=heard.last):
                    if over.is_set():
                        return
                    if kind == "event":
                        heard.tell([data])
            over.wait(AGAIN)     # it is being replaced, or at its end

    # Not joined: it waits for the next message, and the command does not.
    threading.Thread(target=listen, daemon=True).start()
    try:
        yield steps
    finally:
        over.set()
        with suppress(ClientError):
            heard.tell(client.events(after=heard.last)["events"])


class _Heard:
    """Tells each event once, whoever has heard of it first."""

    def __init__(self, steps: Steps, last: int) -> None:
        self.last = last
        self._steps = steps
        self._turn = threading.Lock()

    def tell(self, events: Sequence[Json]) -> None:
        """Tells those that are new."""
        with self._turn:
            for event in events:
                if event["seq"] > self.last:
                    self.last = event["seq"]
                    self._steps.event(event)


def sentence(event: Json) -> str:
    """An event without its time: name, what it says, and its fields."""
    return words(parts(event))


def parts(event: Json) -> list[str | Said]:
    """An event's name, its message and its fields, for a line."""
    said: list[str | Said] = [event["event"]]
    if event.get("message"):
        said.append(f"  {event['message']}")
    if fields := event.get("fields"):
        said.append("  ")
        said.append(Said(" ".join(f"{name}={value}" for name, value in fields.items()), "quiet"))
    return said
