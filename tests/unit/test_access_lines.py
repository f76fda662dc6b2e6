"""What a line of the access log says, whatever a client sent."""

from __future__ import annotations

import json
import os
import re
from datetime import UTC, datetime
from typing import Any

import pytest

from lbcore import _access
from lbcore._access import AccessFormat, AccessLog
from lbcore._http1 import Rule
from lbcore._scoreboard import EndReason, HttpEnd
from tests.support.access import line_of

Record = dict[str, Any]
STARTED = 1_700_000_000_123_456          # 2023-11-14 22:13:20.123456 UTC
REQUEST: Record = {
    "listener": b"web", "route": b"api", "pool": b"app", "backend": b"10.0.0.1:8000",
    "method": b"GET", "target": b"/things?size=12", "host": b"example.com", "status": 200,
    "attempts": 1, "started_us": STARTED, "queue_us": 0, "connect_us": 123, "first_byte_us": 4567,
    "total_us": 1_005_678, "bytes_up": 600, "bytes_down": 2**40,
    "client": (bytes([192, 0, 2, 7]), 54321), "referer": b"https://example.com/",
    "user_agent": b"curl/8.5", "request_id": b"4f1d", "user": b"anna",
}
COMBINED = re.compile(
    r'(\S+) - (\S+) \[([^\]]+)\] "((?:[^"\\]|\\x[0-9A-F]{2})*)" (\d{3}) (\d+) '
    r'"((?:[^"\\]|\\x[0-9A-F]{2})*)" "((?:[^"\\]|\\x[0-9A-F]{2})*)"')


def written(record: Record, form: AccessFormat, *, file: bool = False) -> str:
    return line_of(record, form, file=file).decode("ascii")


def said(record: Record, *, file: bool = False) -> Record:
    found: Record = json.loads(written(record, AccessFormat.ACCESS_JSON, file=file))
    return found


def test_json_line_of_a_request_has_every_field() -> None:
    assert said(REQUEST) == {
        "time": "2023-11-14T22:13:20.123Z", "protocol": "http", "listener": "web", "route": "api",
        "pool": "app", "backend": "10.0.0.1:8000", "client": "192.0.2.7", "client_port": 54321,
        "method": "GET", "target": "/things?size=12", "host": "example.com",
        "http_version": "1.1", "status": 200, "bytes_in": 600, "bytes_out": 2**40, "attempts": 1,
        "queue_ms": 0.0, "connect_ms": 0.123, "first_byte_ms": 4.567, "total_ms": 1005.678,
        "user": "anna", "referer": "https://example.com/", "user_agent": "curl/8.5",
        "request_id": "4f1d",
    }


def test_what_was_never_reached_is_absent() -> None:
    found = said({"listener": b"web", "started_us": STARTED, "client": (bytes(4), 1)})
    assert set(found) == {"time", "protocol", "listener", "client", "client_port", "bytes_in",
                          "bytes_out", "total_ms"}


def test_line_of_a_tcp_connection_has_no_request() -> None:
    record = REQUEST | {"http": 0, "method": b"", "reason": EndReason.END_SERVER_RESET}
    found = said(record | dict.fromkeys(("target", "host", "user", "referer", "user_agent",
                                         "request_id", "route"), b""))
    assert found["protocol"] == "tcp"
    assert found["reason"] == "server_reset"
    assert "http_version" not in found


@pytest.mark.parametrize("end", [end for end in HttpEnd if end < HttpEnd.HTTP_ENDS])
def test_every_end_of_an_exchange_has_its_name_and_the_good_one_none(end: HttpEnd) -> None:
    name = end.name.removeprefix("HTTP_").lower()
    assert said(REQUEST | {"reason": end}).get("reason") == (None if name == "ok" else name)


@pytest.mark.parametrize("end", [end for end in EndReason if end < EndReason.END_REASONS])
def test_every_end_of_a_connection_has_its_name_and_the_good_one_none(end: EndReason) -> None:
    name = end.name.removeprefix("END_").lower()
    found = said(REQUEST | {"http": 0, "reason": end})
    assert found.get("reason") == (None if name == "normal" else name)


@pytest.mark.parametrize("rule", [rule for rule in Rule if 0 < rule < Rule.RULES])
def test_a_bad_request_has_the_rule_that_it_broke_and_nothing_else_has_one(rule: Rule) -> None:
    name = rule.name.removeprefix("RULE_").lower()
    found = said(REQUEST | {"reason": HttpEnd.HTTP_BAD_REQUEST, "rule": rule})
    assert (found["reason"], found["rule"]) == ("bad_request", name)
    assert "rule" not in said(REQUEST | {"reason": HttpEnd.HTTP_CLIENT_GONE, "rule": rule})
    assert "rule" not in said(REQUEST | {"http": 0, "reason": HttpEnd.HTTP_BAD_REQUEST,
                                         "rule": rule})


def test_a_bad_request_without_a_rule_says_none() -> None:
    for rule in (Rule.RULE_NONE, Rule.RULES, 255):
        found = said(REQUEST | {"reason": HttpEnd.HTTP_BAD_REQUEST, "rule": rule})
        assert "rule" not in found


def test_numbers_beyond_the_known_reasons_say_nothing() -> None:
    assert "reason" not in said(REQUEST | {"reason": 255})
    assert "reason" not in said(REQUEST | {"http": 0, "reason": 255})


def test_peer_stands_beside_a_client_that_a_trusted_proxy_named() -> None:
    proxy = (bytes([10, 0, 0, 5]), 999)
    assert said(REQUEST | {"peer": proxy})["peer"] == "10.0.0.5"
    assert "peer" not in said(REQUEST | {"peer": REQUEST["client"]})
    named = said(REQUEST | {"client": (bytes(15) + b"\1", 0), "peer": proxy})
    assert named["client"] == "::1"
    assert "client_port" not in named


def test_unix_clients_tunnels_and_http_1_0_are_told() -> None:
    found = said(REQUEST | {"client": None, "tunnel": 1, "minor": 0})
    assert (found["client"], found["tunnel"], found["http_version"]) == ("unix:", True, "1.0")


@pytest.mark.parametrize("field", ["target", "host", "referer", "user_agent", "user",
                                   "request_id", "method", "route"])
def test_every_byte_a_client_may_send_is_told_apart_in_printable_ascii(field: str) -> None:
    hostile = bytes(range(1, 256))
    for part in (hostile[:90], hostile[90:180], hostile[180:], b'"\\\n' * 10):
        line = written(REQUEST | {field: part}, AccessFormat.ACCESS_JSON, file=True)
        assert line.isprintable()
        found = json.loads(line)
        assert part.decode("latin-1").startswith(found[field])
        assert len(found[field]) == len(part) or found["cut"]


@pytest.mark.parametrize("field", ["target", "referer", "user_agent", "user", "method"])
def test_combined_lines_escape_as_nginx_does(field: str) -> None:
    line = written(REQUEST | {field: b'a"b\\c\x7f\n\xff'}, AccessFormat.ACCESS_COMBINED)
    assert r"a\x22b\x5Cc\x7F\x0A\xFF" in line


def test_combined_line_is_what_apache_and_nginx_write() -> None:
    found = COMBINED.fullmatch(written(REQUEST, AccessFormat.ACCESS_COMBINED))
    assert found is not None
    client, user, time, request, status, size, referer, agent = found.groups()
    assert (client, user, request) == ("192.0.2.7", "anna", "GET /things?size=12 HTTP/1.1")
    assert (status, int(size)) == ("200", 2**40)
    assert (referer, agent) == ("https://example.com/", "curl/8.5")
    assert datetime.strptime(time, "%d/%b/%Y:%H:%M:%S %z") == datetime(
        2023, 11, 14, 22, 13, 20, tzinfo=UTC)


def test_combined_line_of_what_was_no_request_has_hyphens() -> None:
    line = written({"http": 0, "client": (bytes([127, 0, 0, 1]), 1)}, AccessFormat.ACCESS_COMBINED)
    assert COMBINED.fullmatch(line)
    assert line.endswith('"-" 000 0 "-" "-"')


@pytest.mark.parametrize("moment", [
    "1970-01-01T00:00:00.000Z", "2000-02-29T23:59:59.999Z", "2024-02-29T12:00:00.001Z",
    "2025-03-01T00:00:00.000Z", "2026-12-31T23:59:59.500Z", "2100-02-28T01:02:03.004Z"])
def test_time_is_right_on_the_days_that_calendars_get_wrong(moment: str) -> None:
    started = round(datetime.fromisoformat(moment).timestamp() * 1000) * 1000
    assert said(REQUEST | {"started_us": started})["time"] == moment


def test_time_of_each_line_is_its_own() -> None:
    reader, writer = os.pipe()
    log = AccessLog(writer, AccessFormat.ACCESS_JSON)
    for second in (5, 4, 4, 6):
        log.line(REQUEST | {"started_us": STARTED + second * 1_000_000})
    log.close()
    with os.fdopen(reader, "rb") as lines:
        times = [json.loads(line)["time"][17:19] for line in lines]
    assert times == ["25", "24", "24", "26"]


@pytest.mark.parametrize("number", [0, 9, 10, 99, 100, 101, 999, 1000, 12345, 2**32, 2**64 - 1])
def test_numbers_of_any_length_come_out_whole(number: int) -> None:
    assert said(REQUEST | {"bytes_down": number})["bytes_out"] == number
    assert f'"total_ms":{number // 1000}.{number % 1000:03}' in written(
        REQUEST | {"total_us": number}, AccessFormat.ACCESS_JSON)


TEXTS = ("listener", "route", "pool", "backend", "method", "target", "host", "referer",
         "user_agent", "user", "request_id")


@pytest.mark.parametrize("form", [AccessFormat.ACCESS_JSON, AccessFormat.ACCESS_COMBINED])
@pytest.mark.parametrize("byte", [b"x", b"\xff", b'"'])
@pytest.mark.parametrize("file", [False, True])
@pytest.mark.parametrize("end", [{"reason": HttpEnd.HTTP_CONNECT_TIMEOUT},
                                 {"reason": HttpEnd.HTTP_BAD_REQUEST,
                                  "rule": Rule.RULE_TOO_MANY_FIELDS}])
def test_no_line_is_longer_than_a_single_write_may_be(
    form: AccessFormat, byte: bytes, file: bool, end: Record,
) -> None:
    record = REQUEST | dict.fromkeys(TEXTS, byte * 100_000) | {
        "client": (b"\xfe" * 16, 65535), "peer": (b"\xfd" * 16, 65535), "status": 599,
        "tunnel": 1, "attempts": 65535,
        "queue_us": 2**32 - 2, "connect_us": 2**32 - 2, "first_byte_us": 2**32 - 2,
        "total_us": 2**64 - 1, "bytes_up": 2**64 - 1, "bytes_down": 2**64 - 1} | end
    line = written(record, form, file=file)
    assert len(line) + 1 <= (_access.LONGEST if file else _access.LONGEST_PIECE)
    if form == AccessFormat.ACCESS_JSON:
        found = json.loads(line)
        assert found["cut"] is True
        assert len(found["target"]) >= (1300 if file is False and byte == b"x" else 200)


def test_ordinary_lines_are_not_cut_in_a_pipe_and_long_ones_not_in_a_file() -> None:
    target = b"/" + b"x" * 1500
    assert said(REQUEST | {"target": target})["target"] == target.decode()
    target = b"/" + b"x" * 16_000
    found = said(REQUEST | {"target": target}, file=True)
    assert found["target"] == target.decode()
    assert "cut" not in found
