"""Real HTTP servers for lbcore to stand before, each recording what it was asked.

A server is a process of its own on a port of its own. What it says of a request is a line of its
record: see http_apps.py. nginx writes the same lines itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.support.instance import ROOT, free_port, until
from tests.support.nginx_lab import NGINX, running

APACHE = shutil.which("apache2", path="/usr/sbin:/usr/bin:/usr/local/sbin")
MODULES = Path("/usr/lib/apache2/modules")
Json = dict[str, Any]


class Server:
    """A server, and its directory. It can be killed, and started again in the same place."""

    def __init__(self, words: list[str], **env: str) -> None:
        """``words``: its command; "PORT" in them becomes its port."""
        self.folder = Path(tempfile.mkdtemp(prefix="lbcore-server-"))
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.record = self.folder / "record"
        self._words = [word.replace("PORT", str(self.port)) for word in words]
        self._env = os.environ | {"RECORD": str(self.record), "PYTHONPATH": str(ROOT),
                                  "NAME": self.address} | env
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it, in a process group of its own, and returns when it listens."""
        with (self.folder / "output").open("ab") as output:
            self.process = subprocess.Popen(
                self._words, cwd=self.folder, env=self._env, stdin=subprocess.DEVNULL,
                stdout=output, stderr=output, start_new_session=True)
        until(self.listens, f"{self._words[:3]} listening")

    def listens(self) -> bool:
        """Whether somebody may connect. Fails if the server has ended."""
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError((self.folder / "output").read_text())
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", self.port)) == 0

    def signal(self, number: signal.Signals) -> None:
        """A signal to all of its processes."""
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        assert self.process is not None
        self.signal(signal.SIGKILL)
        self.process.wait()

    def terminate(self) -> None:
        """Asks it to end, and returns when it has: it finishes what it began."""
        assert self.process is not None
        self.process.terminate()
        self.process.wait(30)

    def requests(self, skip: int = 0) -> list[Json]:
        """What it recorded, from a line on."""
        return records(self.record, skip)

    def close(self) -> None:
        """Ends it and removes its files."""
        if self.process is not None:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


def records(path: Path, skip: int = 0) -> list[Json]:
    """The lines of a record, from one on; a last one without its end is left out."""
    if not path.exists():
        return []
    lines = path.read_bytes().decode("latin-1").split("\n")[:-1]
    return [json.loads(line) for line in lines[skip:]]


@contextlib.contextmanager
def served(server: Server) -> Iterator[Server]:
    """A server that runs until the end of the block."""
    try:
        server.start()
        yield server
    finally:
        server.close()


def gunicorn(kind: str = "sync", *words: str, workers: int = 1, **env: str) -> Server:
    """gunicorn with workers of a kind."""
    return Server([sys.executable, "-m", "gunicorn", "--bind=127.0.0.1:PORT",
                   f"--workers={workers}", f"--worker-class={kind}", "--keep-alive=60",
                   "--log-level=warning", *words, "tests.support.http_apps:wsgi"], **env)


def uvicorn(http: str = "httptools", *words: str, **env: str) -> Server:
    """uvicorn with a parser of a name."""
    return Server([sys.executable, "-m", "uvicorn", "--port=PORT", f"--http={http}",
                   "--timeout-keep-alive=60", "--log-level=warning", "--lifespan=off", *words,
                   "tests.support.http_apps:asgi"], **env)


@contextlib.contextmanager
def uvicorns(count: int) -> Iterator[list[Server]]:
    """That many servers under uvicorn, which run until the end of the block."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(served(uvicorn())) for _ in range(count)]


def waitress() -> Server:
    """waitress."""
    return Server([sys.executable, "-m", "waitress", "--listen=127.0.0.1:PORT", "--threads=4",
                   "tests.support.http_apps:wsgi"])


# ---- nginx and Apache -------------------------------------------------------------------------

@contextlib.contextmanager
def nginx() -> Iterator[tuple[str, Path]]:
    """An nginx: its address and its record."""
    folder = Path(tempfile.mkdtemp(prefix="lbcore-nginx-"))
    port, log, door = free_port(), folder / "record", folder / "answer.sock"
    temp = "".join(f"    {kind}_temp_path {folder}/{kind};\n"
                   for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    line = ('{"event":"request","method":"$request_method","target":"$request_uri",'
            '"host":"$http_host","status":$status,"body":"$request_body"}')
    block = f"""http {{
{temp}
    log_format seen escape=json '{line}';
    keepalive_requests 100000;
    server {{
        listen 127.0.0.1:{port};
        access_log {log} seen;
        client_body_buffer_size 1m;
        client_body_in_single_buffer on;
        location / {{ proxy_pass http://unix:{door}; }}
    }}
    server {{
        listen unix:{door};
        access_log off;
        location / {{ return 200 "$request_method $request_uri"; }}
    }}
}}"""
    try:
        with running(folder, block) as process:
            until(lambda: process.poll() is not None or connects(port), "nginx listening")
            yield f"127.0.0.1:{port}", log
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def connects(port: int) -> bool:
    """Whether somebody listens on a port of loopback."""
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def apache() -> Iterator[tuple[str, Path]]:
    """An Apache httpd before a gunicorn: its address, and the record of who is behind it."""
    assert APACHE is not None
    folder = Path(tempfile.mkdtemp(prefix="lbcore-apache-"))
    port = free_port()
    loaded = "".join(f"LoadModule {name}_module {MODULES}/mod_{name}.so\n"
                     for name in ("mpm_event", "authz_core", "proxy", "proxy_http"))
    user = "User nobody\nGroup nogroup\n" if os.geteuid() == 0 else ""
    with served(gunicorn()) as behind:
        (folder / "apache.conf").write_text(f"""{loaded}{user}
ServerRoot {folder}
ServerName test
Listen 127.0.0.1:{port}
PidFile {folder}/pid
ErrorLog {folder}/error
MaxKeepAliveRequests 0
KeepAliveTimeout 60
StartServers 1
ProxyPreserveHost On
ProxyPass / http://{behind.address}/ disablereuse=on
""")
        process = subprocess.Popen([APACHE, "-f", str(folder / "apache.conf"), "-DFOREGROUND"])

        def listens() -> bool:
            assert process.poll() is None, (folder / "error").read_text()
            return connects(port)

        try:
            until(listens, "Apache listening")
            yield f"127.0.0.1:{port}", behind.record
        finally:
            process.terminate()
            process.wait(30)
            shutil.rmtree(folder, ignore_errors=True)


# ---- whatever there is -------------------------------------------------------------------------

@contextlib.contextmanager
def _recorded(make: Callable[[], Server]) -> Iterator[tuple[str, Path]]:
    with served(make()) as server:
        yield server.address, server.record


def _when(there: object, make: Callable[[], contextlib.AbstractContextManager[tuple[str, Path]]],
          ) -> Callable[[], contextlib.AbstractContextManager[tuple[str, Path]]] | None:
    return make if there else None


# By name: what runs the server and gives its address and its record; None: not installed here.
SERVERS = {
    "gunicorn-sync": lambda: _recorded(gunicorn),
    "gunicorn-gthread": lambda: _recorded(lambda: gunicorn("gthread", "--threads=4")),
    "uvicorn-h11": lambda: _recorded(lambda: uvicorn("h11")),
    "uvicorn-httptools": lambda: _recorded(uvicorn),
    "nginx": _when(NGINX, nginx),
    "apache": _when(APACHE and (MODULES / "mod_proxy_http.so").exists(), apache),
}
