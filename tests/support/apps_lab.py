"""Instances that run Python applications, and clients that count what they lose."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import textwrap
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from lbcore.supervisor.apps_marks import claim
from tests.support.lbcore_lab import PATIENCE, Lab

WSGI = '''
import os, sys, time

VERSION = "one"

def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/slow":
        time.sleep(1.0)
    body = f"{VERSION} {os.environ.get('COLOUR', '')} {os.getppid()} {os.getuid()}".encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
'''
ASGI = '''
import asyncio, os

VERSION = "one"

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    if scope["path"] == "/slow":
        await asyncio.sleep(1.0)
    body = f"{VERSION} {os.environ.get('COLOUR', '')} {os.getpid()} {os.getuid()}".encode()
    if scope["path"] == "/client":
        body = f"{(scope['client'] or ['nobody'])[0]} {scope['scheme']}".encode()
    await send({"type": "http.response.start", "status": 200,
                "headers": [(b"content-length", str(len(body)).encode())]})
    await send({"type": "http.response.body", "body": body})
'''


class AppsLab(Lab):
    """A lab whose pool "main" is an application in the lab's directory."""

    def __init__(self) -> None:
        super().__init__()
        self.protocol = "http"
        (self.directory / "wsgi_app.py").write_text(WSGI)
        (self.directory / "asgi_app.py").write_text(ASGI)

    @property
    def runtime_dir(self) -> Path:
        """Where sockets of applications are."""
        return self.admin.with_name(self.admin.name + ".d")

    def app(self, keys: str = 'wsgi = "wsgi_app:app"\nworkers = 2', more: str = "",
            workers: int = 1) -> None:
        """Writes the configuration with these keys of the pool."""
        self.write(pool=textwrap.dedent(keys), more=more, workers=workers)
        text = self.config.read_text().replace(
            'name = "main"', f'name = "main"\nprotocol = "{self.protocol}"')
        self.config.write_text(text)

    def edit(self, old: str, new: str, name: str = "wsgi_app.py") -> None:
        """Changes the application's code, as an editor does: in one step.

        A second later than it was made: Python takes compiled code for current when the source has
        the same size and was changed in the same second.
        """
        path = self.directory / name
        text = path.read_text()
        assert text.count(old) == 1
        fresh = path.with_suffix(".tmp")
        fresh.write_text(text.replace(old, new))
        later = path.stat().st_mtime + 1
        os.utime(fresh, (later, later))
        fresh.rename(path)

    def get(self, path: str = "/") -> str:
        """The body of an answer through lbcore. Raises OSError or ValueError."""
        status, body = self.exchange(path)
        if status != 200:
            raise ValueError(f"status {status}: {body}")
        return body

    def exchange(self, path: str = "/") -> tuple[int, str]:
        """Status and body of an answer through lbcore."""
        with self.connect() as sock:
            sock.sendall(f"GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n".encode())
            data = b""
            while part := sock.recv(65536):
                data += part
        head, _, body = data.partition(b"\r\n\r\n")
        if not head:
            raise ValueError("closed without an answer")
        return int(head.split()[1]), body.decode()

    def application(self, pool: str = "main") -> dict[str, Any]:
        """What status says of the application of a pool."""
        found = next(one for one in self.client.status()["pools"] if one["name"] == pool)
        return dict(found["app"])

    def server(self, pool: str = "main") -> int:
        """The process of the first server."""
        return int(self.application(pool)["servers"][0]["pid"])

    def servers(self) -> list[int]:
        """All servers that run, whoever started them."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                leads = os.getsid(process.pid) == process.pid
                if leads and claim(process.environ(), self.runtime_dir) is not None:
                    found.append(process.pid)
        return found

    def close(self) -> None:
        """Ends everything, applications that outlived their supervisor included."""
        pids = self.servers()
        super().close()
        for pid in {*pids, *self.servers()}:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)


class HttpLoad:
    """Clients that ask again and again until stopped; ``answers`` counts bodies."""

    def __init__(self, lab: AppsLab, clients: int = 6, keep: bool = False) -> None:
        self.port = lab.port
        self.keep = keep
        self.answers: Counter[str] = Counter()
        self.failures: list[str] = []
        self._stop = False
        self._side = lab.side
        self._running = lab.side.begin(self._all(clients))

    @property
    def done(self) -> int:
        """Requests that were answered."""
        return self.answers.total()

    def until(self, more: int) -> None:
        """Waits for so many further answers."""
        goal, until = self.done + more, time.monotonic() + PATIENCE
        while self.done < goal and not self.failures:
            assert time.monotonic() < until, f"{self.done} answers"
            time.sleep(0.01)     # another thread counts

    def stop(self) -> None:
        """Lets every client finish; fails with what was lost."""
        self.finish()
        assert self.failures == []
        assert self.done > 0

    def finish(self) -> None:
        """Lets every client finish."""
        self._stop = True
        self._running.result(PATIENCE)

    async def _all(self, clients: int) -> None:
        await asyncio.gather(*(self._client() for _ in range(clients)))

    async def _client(self) -> None:
        while not self._stop:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                try:
                    async with asyncio.timeout(PATIENCE):
                        await self._exchanges(reader, writer)
                finally:
                    writer.close()
            except (OSError, EOFError, ValueError) as error:
                self.failures.append(f"{time.strftime('%H:%M:%S')} {error!r}")

    async def _exchanges(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for number in range(20 if self.keep else 1):
            last = self._stop or number == 19 or not self.keep
            writer.write(b"GET / HTTP/1.1\r\nHost: test\r\n"
                         + (b"Connection: close\r\n" if last else b"") + b"\r\n")
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = int(head.partition("content-length:")[2].split("\r\n")[0])
            body = (await reader.readexactly(length)).decode()
            if " 200 " not in head.split("\r\n")[0]:
                raise ValueError(f"{head.splitlines()[0]}: {body}")
            self.answers[body.split()[0]] += 1
            if last or "connection: close" in head:
                return


@contextlib.contextmanager
def apps_lab() -> Iterator[AppsLab]:
    """A lab that leaves nothing behind."""
    lab = AppsLab()
    try:
        yield lab
    finally:
        lab.close()


def lives(pid: int) -> bool:
    """Whether there is such a process, and not only its remains."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False
