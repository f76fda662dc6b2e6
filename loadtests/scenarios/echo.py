"""An echo backend as a process: ``python -m loadtests.scenarios.echo --port 9001 --backend 1``.

It answers every question of ``wire.py`` with its own payload, as soon as the payload is complete,
and ends a connection whose client has finished.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import socket

from .wire import ANSWER, MAX_PAYLOAD, QUESTION

BACKLOG = 1024


class Echo(asyncio.Protocol):
    """One connection."""

    def __init__(self, backend: int, life: int) -> None:
        self._who = (backend, life)
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        received, transport = self._received, self._transport
        assert transport is not None
        received += data
        while len(received) >= QUESTION.size:
            length, number = QUESTION.unpack_from(received)
            if length > MAX_PAYLOAD:        # not one of our clients: lbcore lost or mixed up bytes
                transport.abort()
                return
            end = QUESTION.size + length
            if len(received) < end:
                return
            transport.write(ANSWER.pack(length, number, *self._who) + received[QUESTION.size:end])
            del received[:end]

    def pause_writing(self) -> None:
        """The client does not take its answers: take no more of its questions."""
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """It takes them again."""
        if self._transport is not None:
            self._transport.resume_reading()

    def eof_received(self) -> bool:
        """The client has finished: what is left to send goes out, then the connection ends."""
        return False


async def serve(port: int, backend: int, life: int) -> None:
    """Serves on the loopback address until INT or TERM."""
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, over.set)
    server = await loop.create_server(
        lambda: Echo(backend, life), "127.0.0.1", port, backlog=BACKLOG, reuse_address=True)
    async with server:
        await over.wait()


def main() -> None:
    """Reads the command line and serves."""
    parser = argparse.ArgumentParser(description="An echo backend for the load scenarios.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--backend", type=int, default=1, help="its number (default: 1)")
    parser.add_argument("--life", type=int, default=1, help="which start this is (default: 1)")
    options = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(options.port, options.backend, options.life))


if __name__ == "__main__":
    main()
