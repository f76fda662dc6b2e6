"""Demonstration backends: all that a plan asks for, or none."""

from __future__ import annotations

import errno
import gc
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from lbcore.apps.demo import run
from lbcore.config.plan import Address, LogPlan, Plan, PoolPlan
from lbcore.supervisor import demo
from lbcore.supervisor.demo import DemoBackends
from lbcore.supervisor.instance import Instance
from lbcore.supervisor.log import Log
from tests.support.instance import descriptors


async def test_demonstration_backend_that_cannot_be_made_takes_the_others_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    instance = Instance.claim(Address(path=str(tmp_path / "admin.sock")))
    demos = DemoBackends(instance, Log(LogPlan(path=str(tmp_path / "log"))))
    place = demo.socket_path

    def full(runtime_dir: Path, name: demo.Name) -> Path:
        if name[1] == 3:
            raise OSError(errno.ENOSPC, "no space")
        return place(runtime_dir, name)

    monkeypatch.setattr(demo, "socket_path", full)
    gc.collect()                     # closes what other tests have left, or it would be in between
    before = descriptors(os.getpid())
    plan = Plan((), (PoolPlan("web", (), demo=3),), 1, instance.admin)
    with pytest.raises(OSError, match="no space"):
        demos.apply(plan)
    assert descriptors(os.getpid()) == before
    assert list(instance.runtime_dir.iterdir()) == []
    assert demos.export() == []
    instance.leave()


def test_demonstration_backend_ends_when_a_successor_has_its_place(tmp_path: Path) -> None:
    place = tmp_path / "demo.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(place))
        listening.listen()
        demo_process = subprocess.Popen(
            [sys.executable, "-m", "lbcore.apps.demo", "--name", "demo-1", "--fd",
             str(listening.fileno()), "--path", str(place), "--inode", str(place.stat().st_ino)],
            pass_fds=[listening.fileno()])
    try:
        with socket.socket(socket.AF_UNIX) as client, socket.socket(socket.AF_UNIX) as successor:
            client.settimeout(20)
            client.connect(str(place))
            client.sendall(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
            assert client.recv(15) == b"HTTP/1.1 200 OK"
            successor.bind(str(place.with_suffix(".new")))
            place.with_suffix(".new").rename(place)
            assert demo_process.wait(20) == 0
    finally:
        demo_process.kill()
        demo_process.wait()


async def test_who_is_queued_at_a_demonstration_backend_that_ends_is_served(tmp_path: Path) -> None:
    place = tmp_path / "demo.sock"
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(place))
    listening.listen()
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(str(place))
        client.sendall(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
        await run("demo-1", listening.detach(), place, inode=0)      # another one has its place
        assert client.recv(15) == b"HTTP/1.1 200 OK"
