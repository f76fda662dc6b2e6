"""A service manager as a service sees it: a datagram socket that takes what sd_notify(3) sends."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from types import TracebackType

from tests.support.instance import PATIENCE


class Manager:
    """Keeps every message in order, each a dictionary of what it says."""

    def __init__(self, path: Path | str) -> None:
        self.name = str(path)            # "@NAME" for an abstract one
        self.messages: list[dict[str, str]] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + self.name[1:] if self.name.startswith("@") else self.name)

    def environment(self, watchdog: float = 0.0) -> dict[str, str]:
        """What it puts into the environment of the service, as systemd does."""
        more = {"WATCHDOG_USEC": str(round(watchdog * 1e6))} if watchdog else {}
        return {"NOTIFY_SOCKET": self.name, **more}

    def wait_for(self, after: int = 0, patience: float = PATIENCE, **said: str) -> int:
        """Waits for a message that says all of this, among those from number ``after`` on.

        Returns the number of the one behind it. A value of "" stands for any.
        """
        deadline = time.monotonic() + patience
        at = after
        while True:
            for number in range(at, len(self.messages)):
                message = self.messages[number]
                if all(name in message and value in ("", message[name])
                       for name, value in said.items()):
                    return number + 1
            at = len(self.messages)
            if not self._take(deadline - time.monotonic()):
                raise AssertionError(f"no message says {said}: {self.messages[after:]}")

    def drain(self) -> list[dict[str, str]]:
        """Everything that has come so far."""
        while self._take(0):
            pass
        return self.messages

    def _take(self, seconds: float) -> bool:
        self._socket.settimeout(max(0.0, seconds) or None if seconds > 0 else 0.0)
        try:
            text = self._socket.recv(65536).decode()
        except (BlockingIOError, TimeoutError):
            return False
        self.messages.append(dict(line.split("=", 1) for line in text.splitlines()))
        return True

    def __enter__(self) -> Manager:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._socket.close()
        if self.name.startswith("/"):
            os.unlink(self.name)         # noqa: PTH108
