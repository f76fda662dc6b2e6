"""``lbcore check --route``: which route takes a request, and why."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lbcore.cli import execute

TEXT = """\
[[listener]]
name = "web"
bind = "127.0.0.1:8080"
protocol = "http"
pool = "web"

[[listener.route]]
host = "api.example.com"
path = "/v1"
methods = ["POST"]
pool = "api"
strip_prefix = true

[[listener.route]]
host = ["api.example.com", "*.example.org"]
path_regex = "/x/(.*)"
redirect = "https://$host/$1"

[[listener.route]]
path = "/v1/users"
headers = { X-Canary = "1" }
query = { full = { present = false } }
pool = "api"
rewrite = "/u/$tail"
deny = ["10.0.0.0/8"]
rate_limit = { requests = "20/m" }
request_headers = { set = { X-Env = "canary" } }

[[listener.route]]
path_exact = "/healthz"
respond = { status = 204 }

[[listener]]
name = "other"
bind = "127.0.0.1:8081"
protocol = "http"
pool = "api"

[pool.web]
backends = ["app.invalid:80"]
[pool.api]
backends = ["127.0.0.1:9000", "127.0.0.1:9001"]
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "lb.toml"
    path.write_text(TEXT)
    return str(path)


def said(
    capsys: pytest.CaptureFixture[str], file: str, request: str, *headers: str
) -> list[str]:
    more = [part for header in headers for part in ("-H", header)]
    assert execute(["check", "-c", file, "--route", request, *more]) == 0
    return [line.strip() for line in capsys.readouterr().out.splitlines()]


def test_the_route_is_named_with_its_line_its_conditions_and_what_it_does(
    file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = said(capsys, file, "POST http://api.example.com:8080/v1/a?b=1")
    assert lines == [
        "Listener web:",
        "Route POST api.example.com/v1 takes it (line 7).",
        "host is api.example.com",
        "path begins with /v1",
        "method is POST",
        "It goes to pool api (2 backends, round_robin), which sees POST /a?b=1",
        "More specific, but not for this request:",
        "api.example.com+ ~/x/(.*) (line 14): not: path matches /x/(.*)",
    ]


def test_rules_on_the_way_are_told(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = said(capsys, file, "http://h:8080/v1/users/7", "x-canary: 1")
    assert "Route /v1/users +2 takes it (line 19)." in lines
    assert 'header x-canary is "1"' in lines
    assert "query parameter full is absent" in lines
    assert "It goes to pool api (2 backends, round_robin), which sees GET /u/7" in lines
    assert "not for clients in 10.0.0.0/8: 403" in lines
    assert any(line.startswith("20 requests a minute and 20 at once") for line in lines)
    assert "request header set X-Env: canary" in lines


def test_what_a_more_specific_route_lacked_is_told(
    file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = said(capsys, file, "GET http://api.example.com:8080/v1/users?full=1", "X-Canary: 2")
    assert "Route default takes it." in lines
    assert "it takes what no other route does" in lines
    assert "POST api.example.com/v1 (line 7): not: method is POST" in lines
    assert ('/v1/users +2 (line 19): not: header x-canary is "1"; '
            "not: query parameter full is absent") in lines
    assert "1 for another host" in lines


def test_redirects_and_fixed_responses_are_told(
    file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = said(capsys, file, "http://a.example.org:8080/x/y")
    assert "host below example.org" in lines
    assert "The client is redirected with 302 to https://${host}/${1}" in lines
    assert "The answer is 204, with no body" in said(capsys, file, "/healthz")


def test_the_port_of_the_url_tells_the_listener_and_without_one_all_are_asked(
    file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert [line for line in said(capsys, file, "http://h:8081/") if "Listener" in line] == [
        "Listener other:"]
    assert [line for line in said(capsys, file, "http://h/") if "Listener" in line] == [
        "Listener web:", "Listener other:"]


@pytest.mark.parametrize("request_", ["GET http://h:8080/../x", "GET http://h:8080/%zz",
                                      "G@T http://h:8080/"])
def test_a_request_that_workers_refuse_is_told_as_such(
    file: str, capsys: pytest.CaptureFixture[str], request_: str
) -> None:
    assert any("refused with status 400" in line for line in said(capsys, file, request_))


def test_json_has_the_same(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["check", "--json", "-c", file, "--route", "http://h:8080/v1/users"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)["listeners"]
    assert (answer["listener"], answer["route"], answer["line"]) == ("web", "default", 0)
    assert [other["route"] for other in answer["passed_over"]] == ["=/healthz", "/v1/users +2"]
    assert answer["other_hosts"] == 3


@pytest.mark.parametrize("arguments", [["--route", "a b c"], ["--route", "http://[x/"],
                                       ["--route", "GARBAGE"], ["--route", "GET example.com"],
                                       ["--route", "http:///x"], ["--route", "ftp://h/x"],
                                       ["--route", ""],
                                       ["--route", "/", "-H", "X"], ["-H", "X: y"]])
def test_what_is_no_request_is_refused(
    file: str, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert execute(["check", "-c", file, *arguments]) == 2
    assert "Error" in capsys.readouterr().err


def test_a_configuration_without_http_has_no_routes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "lb.toml"
    path.write_text('[[listener]]\nname = "t"\nbind = "127.0.0.1:1"\npool = "p"\n'
                    '[pool.p]\ndemo = 1\n')
    assert execute(["check", "-c", str(path), "--route", "/"]) == 1
    assert 'protocol = "http"' in capsys.readouterr().err


def test_a_bad_configuration_is_told_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "lb.toml"
    path.write_text(TEXT.replace('pool = "api"\nstrip', 'pool = "apj"\nstrip'))
    assert execute(["check", "-c", str(path), "--route", "/"]) == 2
    assert 'no pool is called "apj"' in capsys.readouterr().err
