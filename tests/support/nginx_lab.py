"""A running nginx that says which server of an upstream it picks for a key.

The servers need not exist: nginx picks before it connects, a connection that is refused is
answered with 502 at once, and ``$upstream_addr`` names everybody it tried, in order.
"""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
BATCH = 200
START_SECONDS = 20


def modules_path() -> Path:
    assert NGINX is not None
    told = subprocess.run([NGINX, "-V"], capture_output=True, text=True, check=True).stderr
    found = re.search(r"--modules-path=(\S+)", told)
    return Path(found[1] if found else "/usr/lib/nginx/modules")


STREAM_MODULE = modules_path() / "ngx_stream_module.so" if NGINX else Path()

Servers = Sequence[tuple[str, int]]


def upstream(name: str, key: str, servers: Servers) -> str:
    listed = "".join(f"    server {s} weight={w} max_fails=0;\n" for s, w in servers)
    return f"upstream {name} {{\n    hash {key} consistent;\n{listed}}}\n"


@contextmanager
def running(folder: Path, blocks: str, head: str = "") -> Iterator[subprocess.Popen[bytes]]:
    """One nginx process with these configuration blocks; ended with the block."""
    assert NGINX is not None
    config = folder / "nginx.conf"
    config.write_text(
        f"daemon off;\nmaster_process off;\npid {folder}/nginx.pid;\n"
        f"error_log {folder}/error.log crit;\n{head}\n"
        f"events {{ worker_connections 4096; }}\n{blocks}\n"
    )
    process = subprocess.Popen([NGINX, "-p", str(folder), "-c", str(config), "-e", "stderr"])
    try:
        yield process
    finally:
        process.terminate()
        process.wait(timeout=20)


def connect(process: subprocess.Popen[bytes], path: Path) -> socket.socket:
    """A connection to nginx, which may still be starting."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        client = socket.socket(socket.AF_UNIX)
        try:
            client.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            client.close()
            assert process.poll() is None, "nginx ended; its complaint is on standard error"
            assert time.monotonic() < deadline, "nginx does not listen"
            time.sleep(0.01)    # there is nothing to await: the socket appears in a directory
        else:
            client.settimeout(30)
            return client


def http_picks(
    folder: Path, servers: Servers, keys: Sequence[bytes], tries: int = 1
) -> list[list[str]]:
    """The addresses nginx tries for each key, in order, at most ``tries``."""
    folder.mkdir()
    door = folder / "http.sock"
    temp = "".join(
        f"    {kind}_temp_path {folder}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    block = (
        f"http {{\n    access_log off;\n    keepalive_requests 1000000;\n{temp}"
        + upstream("lab", "$arg_k", servers)
        + f"    server {{\n        listen unix:{door};\n"
        f"        proxy_next_upstream error;\n        proxy_next_upstream_tries {tries};\n"
        "        location / {\n            proxy_pass http://lab;\n"
        "            add_header X-Picked $upstream_addr always;\n        }\n    }\n}\n"
    )
    answers: list[list[str]] = []
    with running(folder, block) as process, connect(process, door) as client:
        reader = client.makefile("rb")
        for start in range(0, len(keys), BATCH):
            batch = keys[start : start + BATCH]
            client.sendall(
                b"".join(b"GET /?k=%b HTTP/1.1\r\nHost: lab\r\n\r\n" % key for key in batch)
            )
            answers += [_read_picked(reader) for _ in batch]
    return answers


def _read_picked(reader: BinaryIO) -> list[str]:
    status = reader.readline()
    assert status.startswith(b"HTTP/1.1 502"), status
    picked, length = "", 0
    while (line := reader.readline()) not in (b"\r\n", b""):
        name, _, value = line.decode().partition(":")
        if name.lower() == "x-picked":
            picked = value.strip()
        elif name.lower() == "content-length":
            length = int(value)
    reader.read(length)
    return picked.split(", ")


def stream_picks(folder: Path, servers: Servers, sources: Sequence[str]) -> list[str]:
    """The address nginx's stream module picks for each client address."""
    folder.mkdir()
    door, log = folder / "stream.sock", folder / "picked.log"
    block = (
        "stream {\n    log_format picked '$proxy_protocol_addr $upstream_addr';\n"
        f"    access_log {log} picked;\n"
        + upstream("lab", "$proxy_protocol_addr", servers)
        + f"    server {{\n        listen unix:{door} proxy_protocol;\n"
        "        proxy_pass lab;\n        proxy_next_upstream off;\n    }\n}\n"
    )
    with running(folder, block, f"load_module {STREAM_MODULE};") as process:
        for source in sources:
            with connect(process, door) as client:
                client.sendall(f"PROXY TCP4 {source} 127.0.0.1 1 2\r\n".encode())
                # Refused upstream: nginx closes, after it has written the line.
                while client.recv(1024):
                    pass
    told = dict(line.split() for line in log.read_text().splitlines())
    return [told[source] for source in sources]
