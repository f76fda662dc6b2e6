"""The shipped units under a systemd of their own: sandbox, sockets, reload, watchdog, deaths."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.support.instance import until
from tests.support.systemd import Systemd, systemd

CONFIG = """
[lbcore]
workers = 2
[log]
access = "/var/log/lbcore/access.log"
[[listener]]
name = "web"
bind = ["0.0.0.0:80", "[::]:80"]
protocol = "http"
pool = "web"
[[listener.route]]
path_regex = '/item/([0-9]+)'
redirect = "/items/$1"
[pool.web]
backends = ["127.0.0.1:9000"]
"""
# Not a demonstration server of lbcore's: those end with their supervisor.
BACKEND = ["systemd-run", "--unit=backend", "--setenv=LD_LIBRARY_PATH=/opt/python/lib",
           f"/opt/python/bin/python{sys.version_info.major}.{sys.version_info.minor}",
           "-m", "http.server", "9000", "--bind", "127.0.0.1", "--directory", "/opt/tree/conf"]
# Asks on a new connection each time until its standard input ends; then says how it went.
CLIENT = """
import http.client, json, select, sys
asked, failed = 0, []
print("asking", flush=True)
while not select.select([sys.stdin], [], [], 0.01)[0]:
    asked += 1
    try:
        connection = http.client.HTTPConnection("127.0.0.1", 80, timeout=30)
        connection.request("GET", "/")
        answer = connection.getresponse()
        answer.read()
        connection.close()
        if answer.status != 200:
            failed.append(answer.status)
    except OSError as error:
        failed.append(repr(error))
print(json.dumps([asked, failed]))
"""

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def booted() -> Iterator[Systemd]:
    with systemd(CONFIG) as made:
        made.run(*BACKEND)
        until(lambda: ":9000" in made.run("ss", "-lnt"), "the backend listens")
        yield made


@pytest.fixture
def service(booted: Systemd) -> Iterator[Systemd]:
    """The service and its sockets, started."""
    booted.run("systemctl", "start", "lbcore.socket", "lbcore.service")
    yield booted
    booted.run("systemctl", "stop", "lbcore.socket", "lbcore.service")


@contextlib.contextmanager
def asking(service: Systemd) -> Iterator[None]:
    """A client asks all the time, and must never be disappointed."""
    with subprocess.Popen(
        service.inside([sys.executable, "-c", CLIENT]), stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, text=True,
    ) as client:
        assert client.stdout
        assert client.stdout.readline() == "asking\n"
        yield
        said, _ = client.communicate("", timeout=60)
    asked, failed = json.loads(said)
    assert asked > 0
    assert failed == []


def status(service: Systemd) -> dict[str, object]:
    """What root learns from the instance without naming any address."""
    found = json.loads(service.run("/opt/lbcore/bin/lbcore", "status", "--json"))
    assert isinstance(found, dict)
    return found


def test_it_serves_as_an_ordinary_user_within_the_sandbox(service: Systemd) -> None:
    assert (service.show("ActiveState"), service.show("SubState")) == ("active", "running")
    assert service.show("StatusText").endswith("2 of 2 worker(s) serve")
    main = service.show("MainPID")
    assert service.run("ps", "-o", "user=", "-p", main).strip() == "lbcore"
    capabilities = service.run("grep", "CapBnd", f"/proc/{main}/status").split()[1]
    assert int(capabilities, 16) == 1 << 10      # CAP_NET_BIND_SERVICE alone
    assert "Location: /items/7" in service.run("curl", "-si", "http://[::1]/item/7")
    assert "/items/7" not in service.run("curl", "-s", "http://127.0.0.1/")
    until(lambda: len(service.run("cat", "/var/log/lbcore/access.log").splitlines()) == 2,
          "both requests are in the access log")


def test_a_restart_under_the_socket_unit_refuses_nobody(service: Systemd) -> None:
    with asking(service):
        for _ in range(2):
            main = service.show("MainPID")
            service.run("systemctl", "restart", "lbcore")
            assert service.show("MainPID") != main


def test_reload_waits_for_the_outcome_and_fails_with_a_bad_file(service: Systemd) -> None:
    service.run("systemctl", "reload", "lbcore")
    assert status(service)["plan_version"] == 2
    service.run("cp", "/etc/lbcore/lb.toml", "/etc/lbcore/good")
    service.run("sh", "-c", "echo nonsense > /etc/lbcore/lb.toml")
    service.fails("systemctl", "reload", "lbcore")
    assert service.show("ActiveState") == "active"
    service.run("mv", "/etc/lbcore/good", "/etc/lbcore/lb.toml")
    service.run("systemctl", "reload", "lbcore")


def test_an_upgrade_keeps_the_main_process_and_the_service(service: Systemd) -> None:
    main = service.show("MainPID")
    with asking(service):
        service.run("/opt/lbcore/bin/lbcore", "upgrade")
    assert (service.show("MainPID"), service.show("NRestarts")) == (main, "0")
    assert service.show("ActiveState") == "active"


def test_workers_outlive_a_killed_supervisor_and_the_next_takes_over(service: Systemd) -> None:
    with asking(service):
        main = service.show("MainPID")
        service.run("systemctl", "kill", "--kill-whom=main", "--signal=KILL", "lbcore")
        until(lambda: service.show("MainPID") not in ("0", main)
              and service.show("ActiveState") == "active", "another supervisor")
    assert service.show("Result") == "success"


def test_a_supervisor_that_stands_still_is_replaced_by_the_watchdog(service: Systemd) -> None:
    service.run("systemctl", "stop", "lbcore")
    service.run("sh", "-c", "mkdir -p /etc/systemd/system/lbcore.service.d && printf "
                "'[Service]\\nWatchdogSec=3s\\n' > /etc/systemd/system/lbcore.service.d/w.conf")
    service.run("systemctl", "daemon-reload")
    service.run("systemctl", "start", "lbcore")
    with asking(service):
        main = service.show("MainPID")
        service.run("kill", "-STOP", main)
        until(lambda: service.show("MainPID") not in ("0", main)
              and service.show("ActiveState") == "active", "another supervisor")
    service.run("rm", "/etc/systemd/system/lbcore.service.d/w.conf")
    service.run("systemctl", "daemon-reload")


def test_stop_leaves_no_process(booted: Systemd) -> None:
    booted.run("systemctl", "start", "lbcore.service")
    booted.run("systemctl", "stop", "lbcore.service")
    assert booted.show("Result") == "success"
    assert "-m lbcore" not in booted.run("ps", "-eo", "args=")


def test_a_bad_configuration_is_not_tried_again(booted: Systemd) -> None:
    booted.run("cp", "/etc/lbcore/lb.toml", "/etc/lbcore/good")
    booted.run("sh", "-c", "echo nonsense > /etc/lbcore/lb.toml")
    booted.fails("systemctl", "start", "lbcore.service")
    assert booted.show("ExecMainStatus") == "2"
    assert booted.show("ActiveState") == "failed"
    booted.run("mv", "/etc/lbcore/good", "/etc/lbcore/lb.toml")
    booted.run("systemctl", "reset-failed", "lbcore.service")
