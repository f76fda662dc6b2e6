"""What the admin client says to whom."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys

import pytest

from lbcore.admin.client import AdminClient, NotRunning
from lbcore.config.plan import Address

LISTEN = """
import os, socket, sys
os.setresuid(65534, 65534, 65534)
sock = socket.socket(socket.AF_UNIX)
sock.bind("\\0" + sys.argv[1])
sock.listen()
print(flush=True)
peer, _ = sock.accept()
print(len(peer.recv(100)), flush=True)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_nothing_is_sent_to_a_process_of_another_user(monkeypatch: pytest.MonkeyPatch) -> None:
    name = secrets.token_hex(8)
    with subprocess.Popen([sys.executable, "-c", LISTEN, name],
                          stdout=subprocess.PIPE) as somebody:
        assert somebody.stdout is not None
        somebody.stdout.readline()
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        with pytest.raises(NotRunning, match="user 65534"):
            AdminClient(Address(path=f"@{name}"), timeout=5).status()
        assert somebody.stdout.readline() == b"0\n"
