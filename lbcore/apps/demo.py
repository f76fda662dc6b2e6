"""A demonstration backend: a small HTTP/1.1 server that says which one it is.

    python -m lbcore.apps.demo --name demo-1 --fd 5 --path P --inode N

It serves the listening unix socket it inherits, and ends when told to, or when another process
has put its own socket at the same path: so no demonstration backend outlives its successor.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path

HEAD_LIMIT = 16 * 1024
LOOK_EVERY = 1.0             # seconds between looks at the path
PATIENCE = 10.0              # seconds that open connections get after the end has come


class Demo:
    """The server and its open connections."""

    def __init__(self, name: str, listening: socket.socket) -> None:
        self.name = name
        self.listening = listening
        self.connections: set[asyncio.Task[None]] = set()
        self.served = 0

    async def accept(self) -> None:
        """Takes connections until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            client, _ = await loop.sock_accept(self.listening)
            self.begin(client)

    def begin(self, client: socket.socket) -> None:
        """Serves one connection in a task of its own."""
        client.setblocking(False)
        task = asyncio.create_task(self.serve(client))
        self.connections.add(task)
        task.add_done_callback(self.connections.discard)

    def take_the_rest(self) -> None:
        """Accepts what is queued and then listens no more."""
        with suppress(OSError):
            while True:
                client, _ = self.listening.accept()
                self.begin(client)
        self.listening.close()

    async def serve(self, client: socket.socket) -> None:
        """Answers requests on one connection until it ends."""
        reader, writer = await asyncio.open_unix_connection(sock=client, limit=HEAD_LIMIT)
        try:
            while await self.exchange(reader, writer):
                pass
        except (OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request and its answer; False when the connection is to be closed."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        request, *lines = head[:-4].split("\r\n")
        method, target, version = request.split(" ", 2)
        headers = {name.strip().lower(): value.strip()
                   for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", "0"))
        while length > 0:
            length -= len(await reader.readexactly(min(length, 65536)))
        self.served += 1
        body = json.dumps({"backend": self.name, "pid": os.getpid(), "method": method,
                           "path": target, "served": self.served}).encode() + b"\n"
        keep = headers.get("connection", "").lower() != "close" and version == "HTTP/1.1"
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
            + f"Content-Length: {len(body)}\r\nX-Backend: {self.name}\r\n".encode()
            + (b"" if keep else b"Connection: close\r\n") + b"\r\n"
            + (b"" if method == "HEAD" else body)
        )
        await writer.drain()
        return keep


def is_ours(path: Path, inode: int) -> bool:
    """Whether the socket at the path is still the one we serve."""
    try:
        return path.stat().st_ino == inode
    except OSError:
        return False


async def run(name: str, fd: int, path: Path, inode: int) -> None:
    """Serves until SIGTERM, SIGINT, or until another socket stands at the path."""
    listening = socket.socket(fileno=fd)
    listening.setblocking(False)
    demo = Demo(name, listening)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    accepting = asyncio.create_task(demo.accept())
    while not stop.is_set() and is_ours(path, inode):
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), LOOK_EVERY)
    accepting.cancel()
    with suppress(asyncio.CancelledError):
        await accepting
    demo.take_the_rest()
    if not stop.is_set() and demo.connections:     # replaced: the successor takes what is new
        await asyncio.wait(set(demo.connections), timeout=PATIENCE)


def main(arguments: list[str] | None = None) -> int:
    """Entry point of ``python -m lbcore.apps.demo``."""
    parser = argparse.ArgumentParser(prog="lbcore.apps.demo", description=__doc__)
    parser.add_argument("--name", required=True)
    parser.add_argument("--fd", type=int, required=True, help="listening unix socket")
    parser.add_argument("--path", type=Path, required=True, help="where that socket stands")
    parser.add_argument("--inode", type=int, required=True, help="of the socket at that path")
    options = parser.parse_args(arguments)
    asyncio.run(run(options.name, options.fd, options.path, options.inode))
    return 0


if __name__ == "__main__":
    sys.exit(main())
