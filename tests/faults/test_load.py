"""The load itself: it must see every way in which a connection can fail, and tell them apart."""

from __future__ import annotations

import select
import socket
import struct

import pytest

from tests.support.instance import until
from tests.support.load import (
    LENGTH,
    LOST,
    NOT_CONNECTED,
    REFUSED,
    SILENT,
    UNSERVED,
    WRONG,
    Load,
    Report,
)

RESET = struct.pack("ii", 1, 0)
PATIENCE = 0.3      # of loads that wait for what never comes


def behave(conn: socket.socket, how: str) -> None:
    """One server connection with a temper. What stays open is the caller's to close."""
    if how == "reset at once":
        conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        conn.close()
        return
    if how == "say nothing":
        return
    said = conn.recv(LENGTH, socket.MSG_WAITALL)
    if how == "close without an answer":
        conn.close()
        return
    conn.sendall(bytes(LENGTH) if how == "answer something else" else said)
    if how == "close after the first answer":
        conn.close()
    elif how == "say too much":
        conn.sendall(conn.recv(LENGTH, socket.MSG_WAITALL) + b"x")
    elif how == "serve":
        conn.sendall(conn.recv(LENGTH, socket.MSG_WAITALL))
        assert conn.recv(1) == b""
        conn.close()


def loaded(how: str) -> Report:
    """What the load reports of a server that treats every connection so."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if how == "refuse":
            with socket.socket() as closed:
                closed.bind(("127.0.0.1", 0))
                return report_of(closed, lambda: None)
        server.listen(0 if how == "never accept" else 64)
        if how == "never accept":
            return report_of(server, lambda: None, PATIENCE)
        kept = []

        def accept() -> None:
            while select.select([server], [], [], 0)[0]:
                conn = server.accept()[0]
                kept.append(conn)
                conn.settimeout(20)
                behave(conn, how)

        try:
            return report_of(server, accept, PATIENCE if how == "say nothing" else 20.0)
        finally:
            for conn in kept:
                conn.close()


def report_of(server: socket.socket, serve: object, patience: float = 20.0) -> Report:
    """A short load on an address, of which ``serve`` is called again and again."""
    assert callable(serve)
    load = Load(server.getsockname(), rate=200, patience=patience)

    def enough() -> bool:
        serve()
        report = load.report()
        return report.failures + report.succeeded >= 10

    try:
        until(enough)
        return load.report()
    finally:
        server.close()          # who is still queued there need not wait out its patience
        load.__exit__(None, None, None)


@pytest.mark.parametrize(("how", "kind"), [
    ("refuse", REFUSED),
    ("never accept", NOT_CONNECTED),
    ("reset at once", UNSERVED),
    ("close without an answer", UNSERVED),
    ("say nothing", SILENT),
    ("close after the first answer", LOST),
    ("answer something else", WRONG),
    ("say too much", WRONG),
])
def test_load_tells_how_far_a_lost_connection_had_come(how: str, kind: str) -> None:
    report = loaded(how)
    assert report.failed.get(kind, 0) >= 9, str(report)
    assert not report.succeeded


def test_load_succeeds_with_a_server_that_serves() -> None:
    report = loaded("serve")
    assert report.succeeded >= 10 and not report.failed, str(report)
