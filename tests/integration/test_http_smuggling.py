"""What an origin saw is what lbcore meant: every request that two parsers might read in two ways,
through lbcore to servers that people run.

Each case is sent on a connection of its own, followed on the same connection by a request that
belongs to it, and then, on another connection, by a stranger's. Both ask for targets that exist
once. If a server had taken one request for two, or two for one, then its record would show it,
and somebody would get the answer to another one's request.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.support.http1 import Meant, Reader
from tests.support.http_servers import SERVERS, records
from tests.support.instance import Instance, free_port, instance, until
from tests.support.smuggling import CASES, SMUGGLED, Case

SECONDS = 20


@dataclass
class Site:
    """lbcore in front of a server."""

    lb: Instance
    streaming: int          # port of the listener that passes bodies on while they come
    record: Path
    address: str            # of the server
    number: int = 0         # of the latest mark

    def mark(self) -> bytes:
        """A target that nobody has asked for."""
        self.number += 1
        return b"/mark-%d" % self.number


@pytest.fixture(scope="module", params=list(SERVERS))
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    """lbcore in front of each server."""
    make = SERVERS[request.param]
    if make is None:
        pytest.skip(f"{request.param} is not installed")
    with make() as (address, record), instance() as lb:
        second = free_port()
        lb.pool.update(backends=[address], ejection={"failures": 0})
        main = lb.file["listener"][0]
        main["protocol"] = "http"
        lb.file["listener"].append({**main, "name": "streaming", "buffer_request": False,
                                    "bind": f"127.0.0.1:{second}"})
        lb.write()
        lb.start()
        yield Site(lb, second, record, address)


@dataclass(frozen=True)
class Answer:
    """An answer: its status, and what its body says was asked."""

    status: int
    about: str


def read_answers(sock: socket.socket, methods: list[bytes]) -> list[Answer]:
    """Everything until the end of the connection; the methods say which have no bodies."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while part := sock.recv(65536):
            data += part
    found: list[Answer] = []
    while data:
        head, _, data = data.partition(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1])
        if status < 200:
            continue
        headless = methods[len(found)] == b"HEAD" if len(found) < len(methods) else False
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        body, data = (b"", data) if headless else (data[:length], data[length:])
        found.append(Answer(status, body.decode("latin-1")))
    return found


def ask(port: int, data: bytes, methods: list[bytes], half_close: bool) -> list[Answer]:
    """Sends bytes on a new connection; what is answered until it ends."""
    with socket.create_connection(("127.0.0.1", port), SECONDS) as sock:
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            sock.sendall(data)
            if half_close:
                sock.shutdown(socket.SHUT_WR)
        return read_answers(sock, methods)


def get(target: bytes) -> bytes:
    return b"GET " + target + b" HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n"


def at_origin(meant: Meant, address: str) -> tuple[str, str, str, str]:
    """How a request reaches an origin: in origin form, and with a host in any case."""
    target = meant.target.decode("latin-1")
    if "://" in target:
        target = "/" + target.split("/", 3)[3]
    host = meant.host.decode().lower() or address
    return meant.method.decode(), target, host, meant.body.decode("latin-1")


def problems(site: Site, case: Case, port: int) -> list[str]:
    """What is wrong with what became of a case."""
    reader = Reader()
    reader.feed(case.sent)
    whole = case.refused is None and not case.waits and not reader.closed
    meant = list(case.meant)
    if whole:
        meant.append(Meant(b"GET", site.mark(), b"a.example"))
    sent = case.sent + (get(meant[-1].target) if whole else b"")
    known = len(records(site.record))
    answers = ask(port, sent, [one.method for one in meant], half_close=case.waits)
    stranger = Meant(b"GET", site.mark(), b"a.example")
    theirs = ask(port, get(stranger.target), [b"GET"], half_close=False)

    def stranger_seen() -> bool:
        return any(one["target"].encode() == stranger.target
                   for one in records(site.record, known))

    until(stranger_seen, f"{case.name}: the stranger's request at the server, which got {theirs}")
    wrong = []
    if len(theirs) != 1 or stranger.target.decode() not in theirs[0].about:
        wrong.append(f"the stranger got {theirs}")
    statuses = [200] * len(meant) + ([case.refused] if case.refused else [])
    if [one.status for one in answers] != statuses:
        wrong.append(f"statuses {[one.status for one in answers]}, not {statuses}")
    for one, answer in zip(meant, answers, strict=False):
        if one.method != b"HEAD" and at_origin(one, site.address)[1] not in answer.about:
            wrong.append(f"{one.target!r} was answered with {answer.about!r}")
    seen = records(site.record, known)
    if any(one["target"].encode("latin-1") == SMUGGLED for one in seen):
        wrong.append("a smuggled request was seen")
    complete = [(one["method"], one["target"], one["host"].lower(), one["body"])
                for one in seen if not one.get("broken") and one.get("status", 200) == 200]
    expected = [at_origin(one, site.address) for one in [*meant, stranger]]
    if complete != expected:
        wrong.append(f"the server saw {complete}, not {expected}")
    return wrong


def judge(site: Site, port: int) -> None:
    found = {case.name: wrong for case in CASES if (wrong := problems(site, case, port))}
    assert not found, "\n".join(f"{name}: {'; '.join(wrong)}" for name, wrong in found.items())


def test_server_sees_what_was_meant_when_bodies_are_collected(site: Site) -> None:
    judge(site, site.lb.port)


def test_server_sees_what_was_meant_when_bodies_are_passed_on_as_they_come(site: Site) -> None:
    judge(site, site.streaming)


def test_cases_reach_the_server_at_all(site: Site) -> None:
    """The corpus is not made of refusals alone."""
    assert sum(bool(case.meant) for case in CASES) > 20
    assert replace(CASES[0], sent=b"").refused


def test_client_that_ends_in_one_packet_with_half_a_body_is_let_go_at_once(site: Site) -> None:
    """The end of its side is known before its head is read, and no event tells of it again."""
    for port in (site.lb.port, site.streaming):
        with socket.create_connection(("127.0.0.1", port), SECONDS) as sock:
            sock.sendall(b"GET /first HTTP/1.1\r\nHost: a.example\r\n\r\n")
            assert sock.recv(65536).startswith(b"HTTP/1.1 200 ")
            # What is held back with MSG_MORE leaves together with the FIN.
            sock.send(b"POST /x HTTP/1.1\r\nHost: a.example\r\nContent-Length: 9\r\n\r\nhalf",
                      socket.MSG_MORE)
            sock.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionResetError):
                while sock.recv(65536):
                    pass
