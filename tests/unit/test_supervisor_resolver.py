"""Names are looked up beside everything else, and nobody waits for a resolver that is dead."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time

import pytest

from lbcore.supervisor import resolver


def test_answers_and_errors_come_by_host(monkeypatch: pytest.MonkeyPatch) -> None:
    def look_up(host: str, *_: object, **__: object) -> list[object]:
        if host == "nowhere":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(2, 1, 0, "", (f"10.0.0.{len(host)}", 0)), (2, 1, 0, "", ("10.0.1.1", 0)),
                (10, 1, 0, "", ("::1", 0, 0, 0))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    found = asyncio.run(resolver.addresses(["a", "bb", "nowhere"], 5.0))
    assert (found["a"], found["bb"]) == (["10.0.0.1", "10.0.1.1"], ["10.0.0.2", "10.0.1.1"])
    assert isinstance(found["nowhere"], socket.gaierror)


DEAD = """
import asyncio, socket, threading
from lbcore.supervisor import resolver
socket.getaddrinfo = lambda *_, **__: threading.Event().wait()
print(asyncio.run(resolver.addresses(["dead"], 0.1)))
"""


def test_process_ends_although_its_resolver_does_not_answer() -> None:
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", DEAD], capture_output=True, text=True, timeout=30,
                          check=True)
    assert "TimeoutError" in done.stdout
    assert time.monotonic() - began < 25
