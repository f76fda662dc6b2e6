"""What takes long, over what changes meanwhile: uploads, downloads, streams of events, answers
that are waited for."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import signal
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.http_apps import filler
from tests.support.http_servers import Server, uvicorn
from tests.support.instance import Instance, instance, until

MIB = 1 << 20
UPLOAD = b"".join(filler(4 * MIB))
DOWNLOAD = 24 * MIB
EVENTS = 20


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """An application under uvicorn."""
    made = uvicorn()
    try:
        made.start()
        yield made
    finally:
        made.close()


@pytest.fixture
def lb(server: Server) -> Iterator[Instance]:
    """An instance with two workers in front of it, running."""
    with instance() as made:
        # A change may take its time on a busy machine, and the transfers rest meanwhile.
        made.file["lbcore"].update(workers=2, drain_timeout="5m")
        made.file["listener"][0].update(protocol="http", body_timeout="5m")
        made.pool["backends"] = [server.address]
        made.write()
        made.start()
        yield made
        assert made.complaints() == []


class Long:
    """An upload, a download and a stream of events, each in its middle."""

    def __init__(self, lb: Instance) -> None:
        self.upload = http.client.HTTPConnection(*lb.address, timeout=60)
        self.upload.putrequest("POST", "/upload")
        self.upload.putheader("Content-Length", str(len(UPLOAD)))
        self.upload.endheaders()
        self.upload.send(UPLOAD[:MIB])
        self.download = http.client.HTTPConnection(*lb.address, timeout=60)
        self.download.request("GET", f"/download?bytes={DOWNLOAD}")
        self.answer = self.download.getresponse()
        self.digest = hashlib.sha256(self.answer.read(MIB))
        self.events = http.client.HTTPConnection(*lb.address, timeout=60)
        self.events.request("GET", f"/events?count={EVENTS}&gap=0.1")
        self.stream = self.events.getresponse()
        assert self.stream.readline() == b"data: 0\n"

    def finish(self) -> None:
        """The rest of each, and that nothing is missing."""
        self.upload.send(UPLOAD[MIB:])
        told = json.loads(self.upload.getresponse().read())
        assert told["size"] == len(UPLOAD)
        assert told["sha256"] == hashlib.sha256(UPLOAD).hexdigest()
        while part := self.answer.read(65536):
            self.digest.update(part)
        assert self.digest.hexdigest() == hashlib.sha256(b"".join(filler(DOWNLOAD))).hexdigest()
        rest = self.stream.read()
        assert rest == b"\n" + b"".join(b"data: %d\n\n" % number for number in range(1, EVENTS))
        for connection in (self.upload, self.download, self.events):
            connection.close()


def reload(lb: Instance) -> None:
    lb.file["listener"][0].update(read_timeout="20s", buffer_request=False)
    lb.write()
    lb.admin.reload()


def upgrade(lb: Instance) -> None:
    old = [worker["pid"] for worker in lb.serving()]
    lb.admin.upgrade()
    lb.wait_for("upgraded")
    until(lambda: not {worker["pid"] for worker in lb.serving()} & set(old))


def fewer_workers(lb: Instance) -> None:
    lb.admin.workers(1)


def new_supervisor(lb: Instance) -> None:
    lb.kill_supervisor()
    lb.start()


@pytest.mark.parametrize("change", [reload, upgrade, fewer_workers, new_supervisor])
@pytest.mark.parametrize("way", ["buffered", "streamed"])
def test_long_transfers_are_whole_whatever_changes_in_their_middle(
    lb: Instance, change: Callable[[Instance], None], way: str,
) -> None:
    lb.file["listener"][0].update(buffer_request=way == "buffered",
                                  buffer_response=way == "buffered")
    lb.write()
    lb.admin.reload()
    long = [Long(lb) for _ in range(4)]         # on both workers
    change(lb)
    for one in long:
        one.finish()


def test_stop_lets_requests_under_way_complete_and_then_ends(lb: Instance, server: Server) -> None:
    def ask(number: int) -> tuple[int, str, str | None]:
        asking = http.client.HTTPConnection(*lb.address, timeout=60)
        with contextlib.closing(asking):
            body = b"x" * 1000 if number % 2 else None
            asking.request("POST" if body else "GET", f"/echo?sleep=4&n={number}", body)
            answer = asking.getresponse()
            told = json.loads(answer.read())
            return answer.status, told["target"], answer.getheader("Connection")

    with ThreadPoolExecutor(20) as pool:
        asked = [pool.submit(ask, number) for number in range(20)]
        until(lambda: lb.backend(server.address)["inflight"] == 20, "all under way")
        lb.signal(signal.SIGTERM)
        for number, one in enumerate(asked):
            assert one.result() == (200, f"/echo?sleep=4&n={number}", "close")
    assert lb.exit_code() == 0
    assert lb.leftovers() == []


def test_stop_lets_long_transfers_complete(lb: Instance) -> None:
    long = Long(lb)
    lb.signal(signal.SIGTERM)
    lb.wait_for("worker.draining")
    long.finish()
    assert lb.exit_code() == 0


def test_connections_that_rest_do_not_keep_a_stop_waiting(lb: Instance) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(10):
            resting = http.client.HTTPConnection(*lb.address, timeout=60)
            stack.callback(resting.close)
            resting.request("GET", "/status?code=200")
            resting.getresponse().read()
        stack.enter_context(socket.create_connection(lb.address))     # said nothing yet
        lb.signal(signal.SIGTERM)
        assert lb.exit_code() == 0


def test_killed_application_cuts_its_long_answers_and_they_do_not_look_whole() -> None:
    server = uvicorn()
    with instance() as lb, contextlib.closing(server):
        server.start()
        # Not all of an answer can be absorbed before the application dies.
        lb.file["listener"][0] |= {"protocol": "http", "response_disk": "1MiB"}
        lb.pool["backends"] = [server.address]
        lb.write()
        lb.start()
        with contextlib.ExitStack() as stack:
            answers = []
            for target in (f"/download?bytes={64 * MIB}", f"/download?bytes={64 * MIB}&chunked=1",
                           "/events?count=1000&gap=0.1"):
                asking = http.client.HTTPConnection(*lb.address, timeout=60)
                stack.callback(asking.close)
                asking.request("GET", target)
                answers.append(asking.getresponse())
                assert answers[-1].read1()
            server.kill()
            for answer in answers:
                with pytest.raises((ConnectionResetError, http.client.IncompleteRead)):
                    answer.read()
