"""Why a request was refused stands in its line of the access log."""

from __future__ import annotations

import contextlib
import json
import socket
from pathlib import Path

from lbcore._scoreboard import HTTP_END_NAMES
from tests.support.instance import free_port, instance, until

REFUSED = [
    (b"GET / HTTP/1.1\nHost: a\r\n\r\n", 400, "bare_lf"),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "tls"),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
     400, "both_lengths"),
    (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400, "two_hosts"),
    (b"GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n", 400, "path"),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", 400, "chunk"),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: b\n\r\n", 400,
     "bare_lf"),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: "
     + b"b" * 20_000, 400, "trailers"),
    (b"GET / HTTP/1.1\r\nHost: a\r\nA: " + b"b" * 70_000, 431, "head_too_long"),
    (b"GET / HTTP/1.1\r\nHost: a\r\nExpect: wonders\r\nConnection: close\r\n\r\n", 417, "expect"),
]


def test_the_line_of_a_refused_request_names_the_rule_and_metrics_count_them_as_one() -> None:
    with instance() as lb:
        path = Path(lb.directory, "access.log")
        lb.file["log"]["access"] = str(path)
        lb.file["listener"][0]["protocol"] = "http"
        lb.pool["backends"] = [f"127.0.0.1:{free_port()}"]      # none of these gets so far
        lb.write()
        lb.start()
        for sent, _, _ in REFUSED:
            with socket.create_connection(lb.address, 10) as client, contextlib.suppress(OSError):
                client.sendall(sent)
                while client.recv(65536):
                    pass
        until(lambda: len(path.read_bytes().splitlines()) == len(REFUSED))
        lines = [json.loads(line) for line in path.read_bytes().splitlines()]
        assert sorted((line["status"], line["reason"], line["rule"]) for line in lines) == sorted(
            (status, "bad_request", rule) for _, status, rule in REFUSED)
        ended = lb.status()["listeners"][0]["http_ended"]
        assert set(ended) <= set(HTTP_END_NAMES)
        assert {reason for reason, count in ended.items() if count} == {"bad_request"}
