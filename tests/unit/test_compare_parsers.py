"""What the comparison reads from wrk, strace and HTTP answers."""

from __future__ import annotations

import json

import pytest

from loadtests.compare.client import parse_head, request
from loadtests.compare.paced import percentile
from loadtests.compare.syscalls import merge, parse_counts
from loadtests.compare.wrk import InvalidSample, parse_wrk

ANSWER = 1200


def wrk_output(**changes: float) -> str:
    values = {
        "requests": 1000, "bytes": 1000 * ANSWER, "duration_us": 3_000_000, "p50_us": 700.0,
        "p99_us": 1500.5, "connect": 0, "read": 0, "write": 0, "status": 0, "timeout": 0,
    } | changes
    return f"Running 3s test @ http://127.0.0.1/\n  1 threads\nRESULT {json.dumps(values)}\n"


def test_wrk_result_has_seconds_and_microseconds() -> None:
    result = parse_wrk(wrk_output(), ANSWER)
    assert (result.requests, result.seconds, result.p50_us, result.p99_us) == (1000, 3, 700, 1500.5)


@pytest.mark.parametrize("error", ["connect", "read", "write", "status", "timeout"])
def test_any_error_of_wrk_invalidates_the_sample(error: str) -> None:
    with pytest.raises(InvalidSample, match=error):
        parse_wrk(wrk_output(**{error: 1}), ANSWER)


@pytest.mark.parametrize("received", [999 * ANSWER, 1000 * (ANSWER - 1), 3000 * ANSWER])
def test_answers_of_a_wrong_size_invalidate_the_sample(received: int) -> None:
    with pytest.raises(InvalidSample, match="cannot be"):
        parse_wrk(wrk_output(bytes=received), ANSWER)


def test_answers_under_way_at_the_end_are_allowed_for() -> None:
    assert parse_wrk(wrk_output(bytes=1063 * ANSWER), ANSWER).requests == 1000


def test_no_result_line_and_no_requests_are_invalid() -> None:
    with pytest.raises(InvalidSample, match="unable to connect"):
        parse_wrk("unable to connect to 127.0.0.1:1", ANSWER)
    with pytest.raises(InvalidSample, match="no request"):
        parse_wrk(wrk_output(requests=0, bytes=0), ANSWER)


STRACE = """\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 53.75    0.012345          12      1000           recvfrom
 40.00    0.009000           9      1000        12 sendto
  6.25    0.000000           0        63           epoll_wait
------ ----------- ----------- --------- --------- ----------------
100.00    0.021345          10      2063        12 total
"""


def test_strace_summary_is_read_with_and_without_errors_column() -> None:
    assert parse_counts(STRACE) == {"recvfrom": 1000, "sendto": 1000, "epoll_wait": 63}
    assert parse_counts("") == {}


def test_calls_are_divided_by_the_work_and_sorted_by_frequency() -> None:
    lines = merge(
        {"haproxy": {"recvfrom": 1000, "brk": 1}, "nginx": {"writev": 2000, "recvfrom": 1000}}, 1000
    )
    assert lines == [
        ["", "HAProxy (copy)", "nginx"],
        ["recvfrom", "1.00", "1.00"],
        ["writev", "", "2.00"],
        ["all", "1.00", "3.00"],
    ]


def test_head_is_parsed_once_it_is_whole() -> None:
    head = b"HTTP/1.1 200 OK\r\nServer: x\r\nCONTENT-length: 12\r\n\r\n"
    assert parse_head(head + b"body") == (200, len(head), 12)
    assert parse_head(head[:-1]) is None


def test_closing_request_says_so() -> None:
    assert b"\r\nConnection: close\r\n\r\n" in request("/1k", close=True)
    assert request("/1k").endswith(b"Host: origin\r\n\r\n")


def test_request_with_a_body_is_a_post_that_says_its_length() -> None:
    head, _, body = request("/own/post", body=5).partition(b"\r\n\r\n")
    assert head.startswith(b"POST /own/post ") and b"\r\nContent-Length: 5" in head
    assert body == b"xxxxx"


def test_percentile_is_the_nearest_rank() -> None:
    values = [float(v) for v in range(1, 101)]
    assert [percentile(values, p) for p in (0.0, 0.5, 0.99, 0.999, 1.0)] == [1, 50, 99, 100, 100]
    assert percentile([7.0], 0.99) == 7
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)
