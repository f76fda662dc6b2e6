"""Locust users that talk to echo backends through lbcore.

Each request is told to Locust under one of three names: ``open`` (connect, and the first answer),
``exchange`` (one question and its answer on an open connection) and ``close`` (both sides have
finished). A failure ends its connection, and goes to Locust and, with its moment and the backend,
to the file that the run judges.

``--host`` is where lbcore listens, such as 127.0.0.1:8080.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any, ClassVar

from locust import User, events, task
from locust.env import Environment

from .catalog import EchoUsers, Request
from .conversation import Conversation, Ended, address
from .records import Failure
from .report import FAILURE, add_option, attach, listen
from .wire import WrongAnswer

FAILS_WITH = (OSError, Ended, WrongAnswer)

listen(events.init_command_line_parser, add_option)
listen(events.init, attach)


class TcpUser(User):
    """What both kinds have in common. Subclasses name their ``behaviour``."""

    abstract = True
    behaviour: ClassVar[EchoUsers]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "behaviour" in vars(cls):
            cls.weight = cls.behaviour.weight

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self.address = address(self.host)
        self.conversation = Conversation(self.address)
        self._due = 0.0         # when the task that runs should have begun

    def on_start(self) -> None:
        """Spreads the users over one period; otherwise all would ask in the same moment."""
        time.sleep(random.random() / self.behaviour.per_second)
        self._due = time.monotonic()

    def wait_time(self) -> float:
        """Seconds to the next task, which is due one period after the last one was.

        Locust's ``constant_throughput`` counts the time of ``on_start`` as work to catch up with,
        which would bring all users back into step.
        """
        now = time.monotonic()
        self._due = max(now, self._due + 1 / self.behaviour.per_second)
        return self._due - now

    def on_stop(self) -> None:
        """Leaves without a word; the time for a proper end was within the task."""
        self.conversation.abort()

    def open(self) -> bool:
        """A new connection; whether it came about."""
        self.conversation = Conversation(self.address)
        return self._timed("open", lambda: self.conversation.open(self._size()))

    def exchange(self) -> bool:
        """One question on the open connection; whether it was answered."""
        return self._timed("exchange", lambda: self.conversation.exchange(self._size()))

    def close(self) -> bool:
        """The end of the connection; whether it was orderly."""
        return self._timed("close", self.conversation.close)

    def _size(self) -> int:
        return random.choice(self.behaviour.sizes)

    def _timed(self, request: Request, work: Callable[[], int]) -> bool:
        began, error, size = time.monotonic(), None, 0
        try:
            size = work()
        except FAILS_WITH as broken:
            self.conversation.abort()
            error = broken
        ended = time.monotonic()
        event: dict[str, Any] = {
            "request_type": "tcp", "name": request, "response_time": (ended - began) * 1000,
            "response_length": size, "exception": None, "context": {},
        }
        if error is not None:
            who = self.conversation.who
            told = f"{type(error).__name__}: {error}"
            event["exception"] = f"{who or 'no answer yet'}: {told}"
            event["context"] = {FAILURE: Failure(request, began, ended, told, who)}
        self.environment.events.request.fire(**event)
        return error is None


class Staying(TcpUser):
    """Keeps one connection for as long as it lives, and opens another only if it broke."""

    abstract = True

    @task
    def ask(self) -> None:
        """``exchanges`` questions."""
        for _ in range(self.behaviour.exchanges):
            if not (self.exchange() if self.conversation.is_open else self.open()):
                return


class Visiting(TcpUser):
    """Opens a connection, asks ``exchanges`` times, and closes it."""

    abstract = True

    @task
    def visit(self) -> None:
        """One visit."""
        if not self.open():
            return
        for _ in range(self.behaviour.exchanges - 1):
            if not self.exchange():
                return
        self.close()
