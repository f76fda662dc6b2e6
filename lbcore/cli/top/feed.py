"""The stream of a running instance, heard in a thread for as long as somebody watches."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lbcore.admin.calls import ClientError

if TYPE_CHECKING:
    from lbcore.admin.client import AdminClient

Json = dict[str, Any]
AGAIN = 0.5                  # seconds between attempts to reach an instance that is gone
KNOWN = 1000                 # events that an instance remembers


@dataclass(frozen=True)
class State:
    """How the instance is now, with live figures."""

    status: Json
    live: Json


@dataclass(frozen=True)
class Events:
    """What has happened. ``anew``: these are all, what was known before is of another instance."""

    found: list[Json]
    anew: bool = False


@dataclass(frozen=True)
class Lost:
    """The instance does not answer; it is asked again and again."""

    why: str


News = State | Events | Lost


class Feed:
    """Hands over news as they come; ``take`` is called in the feed's own thread, and is waited
    for, so that a slow terminal gets fewer pictures and not older ones."""

    def __init__(self, client: AdminClient, interval: float, take: Callable[[News], None]) -> None:
        self._client = client
        self._interval = interval
        self._take = take
        self._over = threading.Event()
        self._last = -1

    def start(self) -> None:
        """Begins. The thread ends with the program: it may wait for an instance that is silent."""
        threading.Thread(target=self._run, name="lbcore-top-feed", daemon=True).start()

    def stop(self) -> None:
        """Nothing is handed over any more, except what is on its way."""
        self._over.set()

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                self._catch_up()
                for kind, data in self._client.follow(self._interval, True, after=self._last):
                    if self._over.is_set():
                        return
                    self._hand_over(kind, data)
                why = "it ended the stream"
            except ClientError as error:
                why = str(error)
            if not self._over.is_set():
                self._take(Lost(why))
                self._over.wait(AGAIN)

    def _catch_up(self) -> None:
        past = self._client.events(limit=KNOWN)
        # Numbers start anew with an instance; after an upgrade they go on.
        anew = past["last"] < self._last or self._last < 0
        found = [one for one in past["events"] if anew or one["seq"] > self._last]
        self._last = past["last"]
        if anew or found:
            self._take(Events(found, anew))

    def _hand_over(self, kind: str, data: Json) -> None:
        if kind == "state":
            self._take(State(data["status"], data.get("live") or {}))
        elif kind == "event":
            self._last = data["seq"]
            self._take(Events([data]))
