"""Carries an application's output to the supervisor, whoever is supervisor just then.

    python -I -S pump.py ADDRESS LABEL < PIPE

The application writes into a pipe that this program empties, so a supervisor that is busy, dead or
being replaced neither stops the application (a full pipe) nor kills it (a pipe without a reader).
Lines go in datagrams to the unix socket at ADDRESS, on which the current supervisor listens: there
is no connection to lose. What it does not take within the room of BACKLOG is dropped and counted.
LABEL is JSON and goes with every datagram:

    {"label": LABEL, "lines": [...], "dropped": 0}

The program ends when nobody holds the other end of the pipe any more.
"""

from __future__ import annotations

import json
import os
import select
import socket
import sys
import time
from collections import deque

READ_SIZE = 64 * 1024
MAX_LINE = 2048                  # bytes; a longer line becomes several
BACKLOG = 256 * 1024             # bytes of lines that wait for the supervisor
DATAGRAM = 32 * 1024             # bytes of lines in one
MOST_LINES = 256                 # in one: the supervisor does nothing else while it logs them
RETRY = 0.05                     # seconds until a supervisor that took nothing is tried again
FAREWELL = 2.0                   # seconds for the last lines, once the application is gone


class Pump:
    """What has been read and waits to be sent."""

    def __init__(self, address: str, label: object) -> None:
        self.address = address
        self.label = label
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.lines: deque[bytes] = deque()
        self.size = 0            # of those lines, with their ends
        self.dropped = 0
        self.unfinished = b""    # a line whose end has not come yet

    def take(self, data: bytes) -> None:
        """The next bytes that the application has written."""
        *lines, self.unfinished = (self.unfinished + data).split(b"\n")
        while len(self.unfinished) > MAX_LINE:
            lines.append(self.unfinished[:MAX_LINE])
            self.unfinished = self.unfinished[MAX_LINE:]
        for line in lines:
            self.put(line)

    def put(self, line: bytes) -> None:
        """One line, or the pieces of a long one, if there is room."""
        pieces = [line[at:at + MAX_LINE] for at in range(0, len(line), MAX_LINE)] or [b""]
        size = len(line) + len(pieces)
        if self.size + size > BACKLOG:
            self.dropped += 1
            return
        self.lines.extend(pieces)
        self.size += size

    def finish(self) -> None:
        """Nothing more will come."""
        if self.unfinished:
            self.put(self.unfinished)
            self.unfinished = b""

    def send(self) -> bool:
        """Sends what the supervisor takes; True when nothing is left."""
        while self.lines or self.dropped:
            batch: list[bytes] = []
            size = 0
            for line in self.lines:
                size += len(line) + 1
                if len(batch) == MOST_LINES or (batch and size > DATAGRAM):
                    break
                batch.append(line)
            text = json.dumps({"label": self.label, "dropped": self.dropped,
                               "lines": [line.decode("utf-8", "replace") for line in batch]})
            try:
                self.sock.sendto(text.encode(), self.address)
            except OSError:      # it is slow, away, or out of memory: later
                return False
            self.dropped = 0
            for line in batch:
                self.lines.popleft()
                self.size -= len(line) + 1
        return True


def run(pipe: int, pump: Pump) -> None:
    """Until the pipe has no writer any more and what came through it is sent or given up."""
    os.set_blocking(pipe, False)
    readable = select.poll()
    readable.register(pipe, select.POLLIN)
    done, again = True, 0.0
    while True:
        readable.poll(None if done else RETRY * 1000)
        try:
            data = os.read(pipe, READ_SIZE)
        except BlockingIOError:
            data = None
        if data == b"":
            break
        if data:
            pump.take(data)
        # An application that prints without end must not take every place from other pumps.
        if done or time.monotonic() >= again:
            done = pump.send()
            again = time.monotonic() + RETRY
    pump.finish()
    until = time.monotonic() + FAREWELL
    while not pump.send() and time.monotonic() < until:
        time.sleep(RETRY)


if __name__ == "__main__":
    run(0, Pump(sys.argv[1], json.loads(sys.argv[2])))
