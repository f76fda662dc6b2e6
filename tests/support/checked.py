"""A backend that notes when it is checked."""

from __future__ import annotations

import socket
import threading
import time


class CheckedBackend:
    """Accepts on a port of 127.0.0.1, answers HTTP with 200, and notes each connection's time."""

    def __init__(self) -> None:
        self._sock = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = int(self._sock.getsockname()[1])
        self.address = f"127.0.0.1:{self.port}"
        self.times: list[float] = []
        self._more = threading.Condition()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def wait_for(self, count: int, patience: float = 20.0) -> float:
        """Seconds until so many more checks have come."""
        with self._more:
            began, wanted = time.monotonic(), len(self.times) + count
            if not self._more.wait_for(lambda: len(self.times) >= wanted, patience):
                missing = wanted - len(self.times)
                raise AssertionError(f"{missing} of {count} checks did not come in {patience:g} s")
            return time.monotonic() - began

    def close(self) -> None:
        """Listens no more; checks fail from now on."""
        self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self._sock.accept()
            except OSError:
                return
            with peer:
                peer.settimeout(20)
                try:
                    peer.recv(4096)
                    peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n"
                                 b"Connection: close\r\n\r\nok")
                except OSError:
                    continue
            with self._more:
                self.times.append(time.monotonic())
                self._more.notify_all()
