"""Applications through lbcore give what they give without it, whatever server runs them."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import select
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import pytest

from tests.support.http_apps import filler
from tests.support.http_servers import Server, gunicorn, uvicorn, waitress
from tests.support.instance import Instance, instance, until

MIB = 1 << 20
SECONDS = 60
SERVERS = {
    "gunicorn-sync": lambda: gunicorn(workers=2),
    "gunicorn-gthread": lambda: gunicorn("gthread", "--threads=4"),
    "uvicorn-h11": lambda: uvicorn("h11"),
    "uvicorn-httptools": uvicorn,
    "waitress": waitress,
}
# Concerning one connection alone, or lbcore's own.
OWN = {"connection", "keep-alive", "transfer-encoding", "date", "via", "x-request-id", "server"}


@dataclass(frozen=True)
class Ask:
    """A request. ``body`` that is a list goes out in chunks."""

    name: str
    target: str = "/"
    method: str = "GET"
    body: bytes | list[bytes] | None = None
    headers: dict[str, str] = field(default_factory=dict)


ASKS = [
    Ask("plain"),
    Ask("query", "/search?q=a%20b+c&q=%C3%A4&empty=&flag"),
    Ask("escapes", "/~user/a%2Fb/%C3%A4;p=1,2/@:!$&'()*"),
    Ask("dots and dashes", "/a.b/-_~/c..d"),
    Ask("long query", "/?" + "x" * 3000),
    Ask("HEAD", method="HEAD"),
    Ask("HEAD of much", "/download?bytes=100000", "HEAD"),
    Ask("OPTIONS", method="OPTIONS"),
    Ask("DELETE", "/thing/1", "DELETE"),
    Ask("PUT", "/thing/1", "PUT", b"thing"),
    Ask("PATCH", "/thing/1", "PATCH", b"part"),
    Ask("a method nobody knows", "/thing/1", "FETCH"),
    Ask("POST of nothing", method="POST", body=b""),
    Ask("POST", method="POST", body=b"x=1&y=2"),
    Ask("POST of 70000", method="POST", body=b"".join(filler(70_000))),
    Ask("POST in chunks", method="POST", body=[b"a" * 10, b"b" * 5000, b"c"]),
    Ask("GET with a body", body=b"unusual"),
    Ask("redirect", "/redirect"),
    Ask("cookies", "/cookies", headers={"Cookie": "x=1; y=2"}),
    Ask("many fields", headers={f"X-Field-{number}": "v" * number for number in range(60)}),
    Ask("no content", "/status?code=204"),
    Ask("not modified", "/status?code=304"),
    *(Ask(f"status {code}", f"/status?code={code}") for code in (201, 299, 404, 418, 500, 503)),
    *(Ask(f"download of {size}", f"/download?bytes={size}")
      for size in (0, 1, 4095, 4096, 16384, 65537, 3 * MIB)),
    *(Ask(f"download of {size} without a length", f"/download?chunked=1&bytes={size}")
      for size in (0, 1, 4096, 65537, 3 * MIB)),
]


@dataclass
class Site:
    """lbcore in front of a server."""

    lb: Instance
    server: Server
    name: str


@pytest.fixture(scope="module", params=SERVERS)
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    """lbcore in front of each server."""
    if request.param == "waitress":
        pytest.importorskip("waitress")
    server = SERVERS[request.param]()
    with contextlib.closing(server), instance() as lb:
        server.start()
        lb.file["listener"][0].update(protocol="http", max_body="0")
        lb.pool.update(backends=[server.address], ejection={"failures": 0})
        lb.write()
        lb.start()
        yield Site(lb, server, request.param)
        until(lambda: lb.backend(server.address)["inflight"] == 0, "every place given back")
        assert lb.complaints() == []


def connection(port: int) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)


def send(client: http.client.HTTPConnection, ask: Ask) -> http.client.HTTPResponse:
    client.request(ask.method, ask.target, ask.body, {"Host": "app.example", **ask.headers},
                   encode_chunked=isinstance(ask.body, list))
    return client.getresponse()


def answer(client: http.client.HTTPConnection, ask: Ask) -> tuple[object, ...]:
    """What came back, without what concerns one connection alone."""
    got = send(client, ask)
    body = got.read()
    fields = sorted((name.lower(), value) for name, value in got.getheaders()
                    if name.lower() not in OWN)
    shown = body if len(body) < 500 else (len(body), hashlib.sha256(body).hexdigest())
    return got.status, got.reason, fields, shown


def test_every_answer_is_the_one_that_it_is_without_lbcore(site: Site) -> None:
    different = []
    through = connection(site.lb.port)
    with contextlib.closing(through):
        for ask in ASKS:
            with contextlib.closing(connection(site.server.port)) as direct:
                theirs = answer(direct, ask)
            ours = answer(through, ask)
            if ours != theirs:
                different.append(f"{ask.name}:\n  without {theirs}\n  with    {ours}")
    assert not different, "\n".join(different)


def test_client_connection_serves_all_requests_whatever_the_application_does_with_its_own(
    site: Site,
) -> None:
    client = connection(site.lb.port)
    with contextlib.closing(client):
        send(client, ASKS[0]).read()
        first = client.sock
        assert first is not None
        for ask in ASKS:
            send(client, ask).read()
            assert client.sock is first, f"closed after {ask.name}"


def pieces(size: int) -> Iterable[bytes]:
    return filler(size)


@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_upload_of_50_mib_arrives_whole(site: Site, framing: str) -> None:
    size = 50 * MIB
    expected = hashlib.sha256(b"".join(filler(size))).hexdigest()
    length = {"Content-Length": str(size)} if framing == "length" else {}
    with contextlib.closing(connection(site.lb.port)) as client:
        client.request("POST", "/upload", pieces(size), {"Host": "app.example", **length},
                       encode_chunked=framing == "chunks")
        told = json.loads(client.getresponse().read())
    assert (told["size"], told["sha256"]) == (size, expected)


@pytest.mark.parametrize("framing", ["", "&chunked=1"])
def test_download_of_50_mib_arrives_whole(site: Site, framing: str) -> None:
    size = 50 * MIB
    with contextlib.closing(connection(site.lb.port)) as client:
        got = send(client, Ask("", f"/download?bytes={size}{framing}"))
        digest = hashlib.sha256()
        while part := got.read(1 << 18):
            digest.update(part)
    assert digest.hexdigest() == hashlib.sha256(b"".join(filler(size))).hexdigest()


def test_http_1_0_clients_are_served_with_and_without_a_length(site: Site) -> None:
    for target in ("/", "/download?bytes=100000", "/download?bytes=100000&chunked=1"):
        with contextlib.closing(connection(site.lb.port)) as client:
            client._http_vsn, client._http_vsn_str = 10, "HTTP/1.0"    # type: ignore[attr-defined]
            got = send(client, Ask("", target))
            body = got.read()
            assert got.status == 200 and got.getheader("Transfer-Encoding") is None
            if "bytes" in target:
                assert body == b"".join(filler(100_000))


def test_events_come_one_by_one(site: Site) -> None:
    if not site.name.startswith("uvicorn"):
        pytest.skip("the WSGI application has no events")
    with contextlib.closing(connection(site.lb.port)) as client:
        got = send(client, Ask("", "/events?count=4&gap=0.3"))
        assert got.getheader("Content-Type") == "text/event-stream"
        for number in range(4):
            assert got.readline() == b"data: %d\n" % number
            assert got.readline() == b"\n"
            if number < 3:          # the next one is not there yet
                assert client.sock is None or not select.select([client.sock], [], [], 0)[0]
        assert got.read() == b""
