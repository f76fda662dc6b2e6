"""Asking a running instance over its admin address, with the standard library only.

``AdminClient`` answers with the JSON as it came: what the command line uses. ``lbcore.Client``
is the same with types.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import struct
from collections.abc import Generator, Mapping, Sequence
from typing import Any

from lbcore.admin import calls
from lbcore.admin.calls import AdminError, Call, ClientError, Json, NotRunning
from lbcore.admin.sse import Parser
from lbcore.config.plan import Address

__all__ = ["AdminClient", "AdminError", "ClientError", "ImpostorError", "NotRunning", "Transport"]

SILENCE = 45.0               # seconds without a word on a stream, which has a comment every 15
AT_ONCE = 1 << 16
MAX_ANSWER = 256 << 20       # bytes; beyond that it is not lbcore that talks


class ImpostorError(Exception):
    """The process behind an admin socket belongs to another user."""

    def __init__(self, owner: int) -> None:
        super().__init__(owner)
        self.owner = owner


def require_owner(sock: socket.socket) -> None:
    """Raises ImpostorError when the process that listens is of another user (SO_PEERCRED)."""
    size = struct.calcsize("3i")
    said = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    owner = int(struct.unpack("3i", said)[1])
    # Root reaches into everybody's instance on purpose, and has a default place of its own.
    if os.geteuid() not in (0, owner) and owner != 0:
        raise ImpostorError(owner)


def socket_name(path: str) -> str:
    """A unix socket's path as the kernel takes it; "@" begins the name of an abstract one."""
    return "\0" + path[1:] if path.startswith("@") else path


ADVICE = "start it, or name its configuration with -c or its address with --admin"


def explained(
    error: Exception, where: object, timeout: float, advice: str = ADVICE
) -> NotRunning:
    """What a failure to talk to an instance means. ``advice``: when there is none."""
    if isinstance(error, FileNotFoundError | ConnectionRefusedError):
        return NotRunning(f"no lbcore answers at {where}: {advice}")
    if isinstance(error, ImpostorError):
        return NotRunning(f"what answers at {where} is not yours but of user {error.owner}: "
                          f"nothing was sent to it")
    if isinstance(error, PermissionError):
        return NotRunning(f"not permitted to use {where}: try as the user who started lbcore")
    if isinstance(error, TimeoutError):
        return NotRunning(f"lbcore at {where} does not answer within {timeout:g} seconds")
    return NotRunning(f"lbcore at {where} broke the connection off: {error}")


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(socket_name(self._path))
        require_owner(self.sock)


class Transport:
    """How calls reach one admin address. Every call is a connection of its own.

    ``timeout``: seconds that connecting, sending and each wait for more of an answer may take.
    """

    def __init__(self, address: Address, timeout: float = 60.0, token: str = "") -> None:
        self.address = address
        self.timeout = timeout
        self.token = token
        self.advice = ADVICE             # for whoever finds nobody there

    def do(self, call: Call, timeout: float | None = None) -> Json:
        """The answer to a call. Raises NotRunning or AdminError."""
        patience = self.timeout if timeout is None else timeout
        connection = self._connection(patience)
        try:
            answer = self._ask(connection, call)
            text = answer.read(MAX_ANSWER)
        except (OSError, ImpostorError, http.client.HTTPException) as error:
            raise explained(error, self.address, patience, self.advice) from error
        finally:
            connection.close()
        return call.answer(self.address, answer.status, text)

    def stream(self, call: Call) -> Generator[tuple[str, Json], None, None]:
        """Name and data of each message of a stream, until lbcore ends it.

        Raises NotRunning or AdminError. Closing the iterator closes the connection.
        """
        connection = self._connection(max(SILENCE, self.timeout))
        try:
            answer = self._ask(connection, call)
            if answer.status >= 400 or not _is_stream(answer):
                call.answer(self.address, answer.status, answer.read(MAX_ANSWER))
                raise AdminError(f"{self.address} does not answer like lbcore: no stream",
                                 status=answer.status)
            parser = Parser()
            while data := answer.read1(AT_ONCE):
                for message in parser.feed(data):
                    yield message.event, json.loads(message.data)
        except (OSError, ImpostorError, http.client.HTTPException, ValueError) as error:
            raise explained(error, self.address, self.timeout, self.advice) from error
        finally:
            connection.close()

    def _connection(self, timeout: float) -> http.client.HTTPConnection:
        where = self.address
        if where.path:
            return _UnixConnection(where.path, timeout)
        return http.client.HTTPConnection(where.host, where.port, timeout=timeout)

    def _ask(self, connection: http.client.HTTPConnection, call: Call) -> http.client.HTTPResponse:
        connection.request(call.method, call.target, call.data(), call.headers(self.token))
        return connection.getresponse()


def _is_stream(answer: http.client.HTTPResponse) -> bool:
    return answer.headers.get_content_type() == "text/event-stream"


class AdminClient(Transport):
    """Every call of the admin address; answers as JSON.

    ``expect`` is the plan version that a change is meant for: with another one in force, nothing
    is changed and ``Stale`` is raised. Everything raises NotRunning or AdminError.
    """

    # -- reading

    def status(self) -> Json:
        """Workers, listeners, pools and backends."""
        return self.do(calls.status())

    def ready(self) -> Json:
        """``status`` 200 if every slot serves and no listener lacks all its backends, else 503;
        ``text``: the reasons."""
        return self.do(calls.ready())

    def live(self, window: int = 10) -> Json:
        """Figures of the last ``window`` seconds."""
        return self.do(calls.live(window))

    def events(self, after: int | None = None, limit: int | None = None,
               level: str | None = None) -> Json:
        """What was logged after the event with the number ``after``, the newest last."""
        return self.do(calls.events(after, limit, level))

    def changes(self) -> Json:
        """Differences of what runs from the file."""
        return self.do(calls.changes())

    def config(self) -> Json:
        """The running configuration as tables."""
        return self.do(calls.config())

    def config_toml(self) -> str:
        """The running configuration as the text of a file."""
        return str(self.do(calls.config_toml())["text"])

    def openapi(self) -> Json:
        """The OpenAPI document of the admin address."""
        return self.do(calls.openapi())

    def follow(self, interval: float = 1.0, live: bool = True,
               after: int | None = None) -> Generator[tuple[str, Json], None, None]:
        """("state", ...) and ("event", ...) as they happen, until the instance ends the stream.

        ``after``: the number of the last event that is known already.
        """
        return self.stream(calls.stream(interval, live, after))

    # -- backends

    def drain(self, pool: str, backend: str, expect: int | None = None) -> Json:
        """Takes a backend out of service."""
        return self.do(calls.drain(pool, backend, True, expect))

    def undrain(self, pool: str, backend: str, expect: int | None = None) -> Json:
        """Puts a backend back into service."""
        return self.do(calls.drain(pool, backend, False, expect))

    def weight(self, pool: str, backend: str, weight: int | None,
               expect: int | None = None) -> Json:
        """Replaces a backend's weight; None takes the configured one again."""
        return self.do(calls.weight(pool, backend, weight, expect))

    def force(self, pool: str, backend: str, state: str | None,
              expect: int | None = None) -> Json:
        """"up" or "down", whatever checks say; None leaves it to them again."""
        return self.do(calls.force(pool, backend, state, expect))

    def add(self, pool: str, table: Mapping[str, Any], expect: int | None = None) -> Json:
        """Adds a backend: a table as in the file."""
        return self.do(calls.add_backend(pool, table, expect))

    def remove(self, pool: str, backend: str, expect: int | None = None) -> Json:
        """Removes a backend; its connections finish."""
        return self.do(calls.remove_backend(pool, backend, expect))

    def replace(self, pool: str, backends: Sequence[str | Mapping[str, Any]],
                expect: int | None = None) -> Json:
        """Another set of backends; those in both keep connections, health and counters."""
        return self.do(calls.replace_backends(pool, backends, expect))

    def patch(self, pool: str, backend: str, patch: Mapping[str, Any],
              expect: int | None = None) -> Json:
        """weight, drain, force, max_connections: any of them, at once."""
        return self.do(calls.patch_backend(pool, backend, patch, expect))

    def change(self, changes: Sequence[Mapping[str, Any]], expect: int | None = None) -> Json:
        """Several changes, all or none."""
        return self.do(calls.change(changes, expect))

    def forget_changes(self, pool: str | None = None, expect: int | None = None) -> Json:
        """Back to the file, for one pool or all."""
        return self.do(calls.forget_changes(pool, expect))

    # -- the instance

    def reload(self, expect: int | None = None) -> Json:
        """Reads the configuration again."""
        return self.do(calls.reload(expect))

    def restart(self, pool: str) -> Json:
        """Replaces the servers of a pool's application; returns once they serve."""
        return self.do(calls.restart(pool))

    def workers(self, count: int | None, expect: int | None = None) -> Json:
        """Changes the number of workers; None takes the configured one again."""
        return self.do(calls.set_workers(count, expect))

    def log_level(self, level: str | None, expect: int | None = None) -> Json:
        """Changes the log level; None takes the configured one again."""
        return self.do(calls.set_log_level(level, expect))

    def upgrade(self) -> Json:
        """Starts an upgrade; returns once the new code has proved that it starts."""
        return self.do(calls.upgrade())

    def stop(self, now: bool = False) -> Json:
        """Ends the instance."""
        return self.do(calls.stop(now))
