"""lbcore started by an ordinary user, and by root for one."""

from __future__ import annotations

import os
import secrets
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.echo import Backends
from tests.support.instance import Instance, instance
from tests.support.load import Load

NOBODY = 65534
UNPRIVILEGED = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


@pytest.fixture
def lb() -> Iterator[Instance]:
    with Backends() as backends, instance() as made:
        made.pool["backends"] = backends.echo(2)
        made.file["lbcore"]["workers"] = 2
        made.write()
        yield made
        assert made.complaints() == []


def users(lb: Instance) -> set[int]:
    """Whose the instance's processes are."""
    return {Path(f"/proc/{pid}").stat().st_uid for pid in lb.processes()}


def low_port() -> int:
    """A free port that only root may bind."""
    while True:
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", secrets.choice(range(600, UNPRIVILEGED))))
            except OSError:
                continue
            return int(sock.getsockname()[1])


def test_ordinary_user_has_all_of_it(lb: Instance) -> None:
    """Start, reload, more and fewer workers, upgrade, and a supervisor that was killed."""
    lb.start(user=NOBODY)
    with Load(lb.address) as load:
        assert users(lb) == {NOBODY}
        lb.pool["connect_timeout"] = "3s"
        lb.write()
        lb.signal(signal.SIGHUP)
        lb.wait_for("reloaded")
        lb.signal(signal.SIGTTIN)
        lb.wait_for("resized", workers=3)
        lb.signal(signal.SIGTTOU)
        lb.wait_for("resized", workers=2)
        lb.signal(signal.SIGUSR2)
        lb.wait_for("upgraded")
        lb.kill_supervisor()
        load.wait_for(50)
        lb.start(user=NOBODY)
        lb.wait_for("takeover.adopted", 2)
        load.wait_for(50)
        load.expect_no_failure()
    assert users(lb) == {NOBODY}
    lb.signal(signal.SIGTERM)
    assert lb.exit_code() == 0


def test_ordinary_user_is_told_that_he_cannot_become_another(lb: Instance) -> None:
    lb.file["lbcore"]["user"] = "daemon"
    lb.write()
    lb.start(user=NOBODY)
    (doubt,) = lb.events("config.doubtful")
    assert "only root can change it" in doubt["message"]
    assert users(lb) == {NOBODY}
    with Load(lb.address) as load:
        load.expect_no_failure()


@pytest.mark.skipif(UNPRIVILEGED < 700, reason="this machine lets anybody bind low ports")
def test_ordinary_user_is_told_why_a_low_port_is_not_for_him(lb: Instance) -> None:
    lb.file["listener"][0]["bind"] = f"127.0.0.1:{low_port()}"
    lb.write()
    lb.start(user=NOBODY, wait=False)
    assert lb.exit_code() == 2
    assert "only root may listen on port" in lb.tail()


@pytest.mark.skipif(UNPRIVILEGED < 700, reason="this machine lets anybody bind low ports")
def test_workers_of_an_ordinary_user_serve_a_low_port_that_root_has_bound(lb: Instance) -> None:
    """They make its sockets listen, too."""
    lb.file["lbcore"]["user"] = "nobody"
    lb.port = low_port()
    lb.file["listener"][0]["bind"] = f"127.0.0.1:{lb.port}"
    lb.write()
    lb.start()
    assert users(lb) == {0, NOBODY}
    with Load(("127.0.0.1", lb.port)) as load:
        lb.admin.workers(3)
        lb.admin.workers(1)
        load.expect_no_failure()
