"""Doors of workers: whose they are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from lbcore.config.plan import Address
from lbcore.supervisor.instance import Instance
from lbcore.supervisor.takeover import _kill_owner

BIND = """
import socket, sys
sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
sock.bind(sys.argv[1])
sock.listen()
print(flush=True)
sys.stdin.read()
"""


def owner_of(path: Path) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-c", BIND, str(path)], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    return process


async def test_hung_worker_of_another_instance_with_the_same_door_name_is_left_alone(
    tmp_path: Path,
) -> None:
    instances = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        instances.append(Instance.claim(Address(path=str(tmp_path / name / "admin.sock"))))
    doors = [instance.runtime_dir / "worker-123-1.sock" for instance in instances]
    owners = [owner_of(door) for door in doors]
    try:
        assert await _kill_owner(instances[0], doors[0]) == [owners[0].pid]
        assert owners[0].poll() is not None      # and its sockets with it
        assert owners[1].poll() is None
    finally:
        for owner, door, instance in zip(owners, doors, instances, strict=True):
            with owner:
                owner.kill()
            door.unlink()
            instance.leave()
