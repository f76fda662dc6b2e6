"""HTTP clients for tests that break lbcore: every kind of them, asking all the time.

``HttpLoad`` runs in a process of its own, so that what the test does meanwhile does not show in
what it sees. Each client asks something that nobody else asks, and looks at everything that comes
back: status, length, that the answer is to its own question. A client that keeps its connection
asks on it until it is told that this was the last answer; it never asks twice for the same thing,
so whatever is lost is a failure.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from tests.support.steered import Steered

KINDS = ("GET keep", "GET close", "POST keep", "POST close")
DETAILS = 30                    # failures that are described one by one
Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class Report:
    """What became of the requests so far, by kind of client."""

    asked: int = 0
    answered: dict[str, int] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)
    details: list[str] = field(default_factory=list)
    connections: int = 0
    names: dict[str, int] = field(default_factory=dict)     # backends that answered

    @property
    def succeeded(self) -> int:
        return sum(self.answered.values())

    @property
    def failures(self) -> int:
        return sum(self.failed.values())

    def __str__(self) -> str:
        details = "".join(f"\n  {line}" for line in self.details)
        return (f"{self.succeeded} of {self.asked} answered on {self.connections} connections, "
                f"by {self.names}; failed: {self.failed or 'none'}{details}")


class HttpLoad(Steered[Report]):
    """The test's end of a load process. Use it as a context manager.

    ``each``: clients of each kind; every one asks, and ``pause`` seconds after the answer again.
    """

    def __init__(self, address: tuple[str, int], *, kinds: Sequence[str] = KINDS, each: int = 3,
                 pause: float = 0.02, path: str = "/echo", patience: float = 60.0) -> None:
        super().__init__("tests.support.http_load", {
            "address": address, "kinds": kinds, "each": each, "pause": pause, "path": path,
            "patience": patience}, Report)

    def expect_no_failure(self) -> Report:
        """Finishes; fails with a description if any request did."""
        report = self.finish()
        assert report.succeeded == report.asked > 0 and not report.failures, str(report)
        return report


# ---- the process -------------------------------------------------------------------------------

class Wrong(Exception):
    """An answer that is not the one to what was asked."""


class Clients:
    """All of them."""

    def __init__(self, address: tuple[str, int], kinds: Sequence[str], each: int, pause: float,
                 path: str, patience: float) -> None:
        self.host, self.port = address
        self.kinds = kinds
        self.each = each
        self.pause = pause
        self.path = path
        self.patience = patience
        self.numbers = itertools.count()
        self.stopping = False
        self.said = Report(answered=dict.fromkeys(kinds, 0))

    async def run(self) -> None:
        """Obeys standard input until it ends or says finish."""
        loop = asyncio.get_running_loop()
        clients = [asyncio.create_task(self.client(kind))
                   for kind in self.kinds for _ in range(self.each)]
        lines = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
        while line := await lines.readline():
            if line == b"finish\n":
                self.stopping = True
                await asyncio.gather(*clients)
            print(json.dumps(asdict(self.said)), flush=True)
            if self.stopping:
                return
        for one in clients:
            one.cancel()

    async def client(self, kind: str) -> None:
        method, manner = kind.split()
        ends: Ends | None = None
        while not self.stopping:
            began, number = time.monotonic(), next(self.numbers)
            self.said.asked += 1
            used, stage = ends is not None, "connecting"
            try:
                async with asyncio.timeout(self.patience):
                    if ends is None:
                        ends = await asyncio.open_connection(self.host, self.port)
                        self.said.connections += 1
                    stage = "asking"
                    keep = await self.ask(ends, method, number, manner == "keep")
                self.said.answered[kind] += 1
            except (OSError, EOFError, ValueError, TimeoutError, Wrong) as error:
                keep = False
                what = f"{kind}: {type(error).__name__} {error} {stage}"
                self.said.failed[kind] = self.said.failed.get(kind, 0) + 1
                if len(self.said.details) < DETAILS:
                    clock = time.strftime("%H:%M:%S", time.gmtime())
                    self.said.details.append(
                        f"{clock} {what}, {time.monotonic() - began:.3f} s, "
                        f"{'used' if used else 'new'} connection")
            if not keep and ends is not None:
                ends[1].close()
                ends = None
            await asyncio.sleep(self.pause)
        if ends is not None:
            ends[1].close()

    async def ask(self, ends: Ends, method: str, number: int, keep: bool) -> bool:
        """One request; whether the connection may be used for another."""
        reader, writer = ends
        body = b"%d " % number * (number % 500) if method == "POST" else b""
        target = f"{self.path}{'&' if '?' in self.path else '?'}n={number}"
        writer.write((f"{method} {target} HTTP/1.1\r\nHost: test\r\n"
                      + (f"Content-Length: {len(body)}\r\n" if method == "POST" else "")
                      + ("" if keep else "Connection: close\r\n") + "\r\n").encode() + body)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        status = head.split("\r\n")[0].split(" ", 2)[1]
        length = int(head.partition("content-length:")[2].split("\r\n")[0])
        said = await reader.readexactly(length)
        if status != "200":
            raise Wrong(f"{status} {said[:60]!r}")
        told = json.loads(said)
        if (told["target"], told["size"]) != (target, len(body)) or (
                told["sha256"] != hashlib.sha256(body).hexdigest()):
            raise Wrong(f"an answer to {told}")
        self.said.names[told["name"]] = self.said.names.get(told["name"], 0) + 1
        return keep and "connection: close" not in head


if __name__ == "__main__":
    asyncio.run(Clients(**json.loads(sys.argv[1])).run())
