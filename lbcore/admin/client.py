"""Asking a running instance over its admin address, with the standard library only."""

from __future__ import annotations

import http.client
import json
import os
import socket
import struct
from typing import Any
from urllib.parse import quote

from lbcore.config.plan import Address

Json = dict[str, Any]


class NotRunning(Exception):
    """Nobody answers at the admin address; the text says what to check."""


class AdminError(Exception):
    """The instance refused; ``hint`` and ``problems`` say what to do about it."""

    def __init__(self, message: str, hint: str = "", problems: list[Json] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.problems = problems or []


class ImpostorError(Exception):
    """The process behind an admin socket belongs to another user."""

    def __init__(self, owner: int) -> None:
        super().__init__(owner)
        self.owner = owner


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect("\0" + self._path[1:] if self._path.startswith("@") else self._path)
        owner = self._owner()
        # Root reaches into everybody's instance on purpose, and has a default place of its own.
        if os.geteuid() not in (0, owner) and owner != 0:
            raise ImpostorError(owner)

    def _owner(self) -> int:
        """The user of the process that listens (SO_PEERCRED)."""
        size = struct.calcsize("3i")
        said = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
        return int(struct.unpack("3i", said)[1])


class AdminClient:
    """One admin address. Every call is a connection of its own."""

    def __init__(self, address: Address, timeout: float = 60.0) -> None:
        self.address = address
        self.timeout = timeout

    def status(self) -> Json:
        """Workers, listeners, pools and backends."""
        return self._ask("GET", "/v1/status")

    def reload(self) -> Json:
        """Reads the configuration again."""
        return self._ask("POST", "/v1/reload")

    def restart(self, pool: str) -> Json:
        """Replaces the servers of a pool's application; returns once they serve."""
        return self._ask("POST", f"/v1/pools/{quote(pool, safe='')}/restart")

    def drain(self, pool: str, backend: str) -> Json:
        """Takes a backend out of service."""
        return self._ask("POST", f"{_backend(pool, backend)}/drain")

    def undrain(self, pool: str, backend: str) -> Json:
        """Puts a backend back into service."""
        return self._ask("POST", f"{_backend(pool, backend)}/undrain")

    def weight(self, pool: str, backend: str, weight: int | None) -> Json:
        """Replaces a backend's weight; None takes the configured one again."""
        return self._ask("POST", f"{_backend(pool, backend)}/weight", {"weight": weight})

    def workers(self, count: int) -> Json:
        """Changes the number of workers."""
        return self._ask("POST", "/v1/workers", {"count": count})

    def upgrade(self) -> Json:
        """Starts an upgrade; returns once the new code has proved that it starts."""
        return self._ask("POST", "/v1/upgrade")

    def stop(self, now: bool = False) -> Json:
        """Ends the instance."""
        return self._ask("POST", "/v1/stop", {"now": now})

    def _ask(self, method: str, path: str, body: Json | None = None) -> Json:
        """Raises NotRunning or AdminError."""
        where = self.address
        connection = (_UnixConnection(where.path, self.timeout) if where.path else
                      http.client.HTTPConnection(where.host, where.port, timeout=self.timeout))
        try:
            data = None if body is None else json.dumps(body).encode()
            headers = {"Content-Type": "application/json"} if data else {}
            connection.request(method, path, data, headers)
            answer = connection.getresponse()
            text = answer.read()
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise NotRunning(
                f"no lbcore answers at {where}: start it, or name its configuration with -c or "
                f"its address with --admin") from error
        except ImpostorError as error:
            raise NotRunning(f"what answers at {where} is not yours but of user {error.owner}: "
                             f"nothing was sent to it") from error
        except PermissionError as error:
            raise NotRunning(f"not permitted to use {where}: try as the user who started lbcore"
                             ) from error
        except TimeoutError as error:
            raise NotRunning(f"lbcore at {where} does not answer within {self.timeout:g} seconds"
                             ) from error
        except (OSError, http.client.HTTPException) as error:
            raise NotRunning(f"lbcore at {where} broke the connection off: {error}") from error
        finally:
            connection.close()
        try:
            said: Json = json.loads(text)
        except ValueError as error:
            raise AdminError(f"{where} does not answer like lbcore (status {answer.status})"
                             ) from error
        if answer.status >= 400:
            error_said = said.get("error", {})
            raise AdminError(error_said.get("message", f"status {answer.status}"),
                             error_said.get("hint", ""), error_said.get("problems", []))
        return said


def _backend(pool: str, backend: str) -> str:
    return f"/v1/backends/{quote(pool, safe='')}/{quote(backend, safe='')}"
