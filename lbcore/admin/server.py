"""The admin address: serves the table of operations, the dashboard and the metrics.

What can be asked is in ``operations.py``; who is answered in ``auth.py``; what a request may look
like in ``reading.py``; how many connections there may be in ``connections.py``.
"""

from __future__ import annotations

import asyncio
import ipaddress
import secrets
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

from aiohttp import web

from lbcore.admin import openapi, reading
from lbcore.admin.auth import CHALLENGE, Guard
from lbcore.admin.connections import Connection, Door
from lbcore.admin.contract import Control, ControlError, Json
from lbcore.admin.metrics import Metrics
from lbcore.admin.models import Query
from lbcore.admin.operations import OPERATIONS, Call, Operation
from lbcore.admin.pages import Pages
from lbcore.admin.readiness import obstacles
from lbcore.admin.shared import Shared
from lbcore.admin.stream import Streams
from lbcore.admin.writing import dumps
from lbcore.config.plan import AdminPlan

MAX_BODY = 2 * 2**20             # all backends of a large pool
LARGE_BODY = 32 * 2**10
BODY_PATIENCE = 10.0             # seconds for a request's body
ANSWER_PATIENCE = 30.0           # seconds for a client to take an answer
FINISH = 5.0                     # seconds that running requests get when the server stops
LATE = 1.0                       # seconds for the requests of who has just connected by then
LOOK = 0.05                      # seconds between two looks for them
AT_ONCE = 4                      # requests that read at the same time: checks must get their turn
READY_AGE = 1.0                  # seconds that a picture may be old for /readyz
HEADERS = {"Server": "lbcore", "X-Content-Type-Options": "nosniff",
           "Referrer-Policy": "no-referrer", "Cross-Origin-Resource-Policy": "same-origin"}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class AdminServer:
    """Serves the admin address on a listening socket that stays the caller's."""

    def __init__(self, control: Control, plan: AdminPlan | None = None) -> None:
        self._control = control
        self._plan = plan or AdminPlan()
        self._token = self._plan.token
        self._listening: socket.socket | None = None
        self._guard = Guard()
        self._pages = Pages()
        self._picture: Shared[Json] = Shared(control.status)
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._metrics_of = Metrics(control)
        self._documents: dict[bool, bytes] = {}
        self._streams = Streams(control)
        # Signals are the main thread's: one that another took in the moment of an exec is lost.
        self._readers = ThreadPoolExecutor(
            1, "admin-body", signal.pthread_sigmask, (signal.SIG_BLOCK, signal.valid_signals()))
        self._runner: web.AppRunner | None = None
        self._server: asyncio.Server | None = None
        self._door: Door | None = None

    def configure(self, plan: AdminPlan) -> None:
        """Takes over token, host names and switches, also while serving."""
        self._plan = plan
        listening = self._listening
        # The address stays until a restart, whatever a new file says: it must not become open. A
        # token that nobody knows closes it to all where there never was one.
        if plan.token or listening is None or not _beyond_loopback(listening):
            self._token = plan.token
        elif not self._token:
            self._token = secrets.token_hex()
        over_tcp = listening is not None and listening.family != socket.AF_UNIX
        before, token = self._guard, self._token if over_tcp else ""
        self._guard = Guard(token, plan.hosts)
        if not before.same_token(token):         # streams of who knows the old one only end, too
            self._streams.close()
            self._streams = Streams(self._control)

    async def start(self, listening: socket.socket) -> None:
        """Begins to answer. The server works on a duplicate of ``listening``.

        Nobody is answered beyond loopback without a token; no configuration says that, but after an
        upgrade one may be in force that the socket is not of.
        """
        self._listening = listening
        self.configure(self._plan)
        self._streams = Streams(self._control)
        runner = web.AppRunner(self._application(), access_log=None, shutdown_timeout=FINISH)
        await runner.setup()
        self._runner = runner
        if runner.server is None:
            raise RuntimeError("the runner has no server")
        self._door = Door(runner.server, lambda: self._guard.needs_token)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._door, sock=listening.dup())

    async def stop(self) -> None:
        """Ends streams, finishes requests that are being answered, closes all connections."""
        if self._server is not None:
            # Not closed at once: asyncio drops whom it has accepted and not made a transport for.
            for listening in self._server.sockets:
                asyncio.get_running_loop().remove_reader(listening.fileno())
            # aiohttp would not hear the first request of a connection, and wait FINISH for it.
            for _ in range(round(LATE / LOOK)):
                await asyncio.sleep(LOOK)
                if self._door is None or not self._door.expecting:
                    break
            self._server.close()
            self._server = None
        self._streams.close()
        if self._door is not None:
            self._door.close()
            self._door = None
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def _application(self) -> web.Application:
        app = web.Application(middlewares=[self._outermost], client_max_size=MAX_BODY)
        own: dict[str, Handler] = {
            "config_toml": self._config_toml, "stream": self._stream, "openapi": self._openapi,
            "healthz": self._healthz, "readyz": self._readyz, "metrics": self._metrics,
        }
        for operation in OPERATIONS:
            handler = own.get(operation.name) or self._answering(operation)
            if not operation.open:
                handler = self._with_token(handler)
            if operation.method == "GET":
                app.router.add_get(operation.path, handler,
                                   allow_head=operation.name != "stream")
            else:
                app.router.add_route(operation.method, operation.path, handler)
        app.router.add_get("/{file:(?!v1/)[^{}]*}", self._page)
        return app

    # -- what happens to every request

    @web.middleware
    async def _outermost(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Whom to answer, errors as JSON, and no waiting for who does not read the answer."""
        if isinstance(request.protocol, Connection):
            request.protocol.asked = True
        try:
            page = request.match_info.handler == self._page
            self._guard.check_source(request.headers, page=page)
            response = await handler(request)
        except ControlError as error:
            response = _refused(error)
        except web.HTTPException as error:
            response = _unanswerable(error)
        if not response.prepared:
            response.headers.update(HEADERS)
            response.headers.setdefault("Cache-Control", "no-store")
        try:
            async with asyncio.timeout(ANSWER_PATIENCE):
                await response.prepare(request)
                await response.write_eof()
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()
            raise ConnectionResetError("nobody reads the answer") from None
        return response

    def _with_token(self, handler: Handler) -> Handler:
        async def guarded(request: web.Request) -> web.StreamResponse:
            self._guard.check_token(request.headers)
            if isinstance(request.protocol, Connection):
                request.protocol.known = True
            return await handler(request)

        return guarded

    def _answering(self, operation: Operation) -> Handler:
        """What answers an operation of the table."""
        run = operation.run
        if run is None:
            raise ValueError(f"nobody answers {operation.name}")

        async def answer(request: web.Request) -> web.StreamResponse:
            query = reading.query(operation.query or Query, request.query.items())
            if not operation.changes:
                async with self._turns:
                    said = await run(self._call(request, query=query))
                    return _json(said)
            expect = reading.expected_version(request.headers)
            body = await _body(request, operation, self._readers)
            said = await run(self._call(request, query=query, body=body, expect=expect))
            return _json(said, operation.status)

        return answer

    def _call(self, request: web.Request, **read: Any) -> Call:
        return Call(self._control, self._picture.fresh, request.match_info, **read)

    # -- what is not JSON

    async def _config_toml(self, request: web.Request) -> web.Response:
        reading.query(Query, request.query.items())
        version = self._control.plan_version
        async with self._turns:
            return web.Response(text=self._control.config_toml(), headers={"ETag": f'"{version}"'})

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        operation = next(one for one in OPERATIONS if one.name == "stream")
        asked: Any = reading.query(operation.query or Query, request.query.items())
        return await self._streams.serve(request, asked, HEADERS)

    async def _openapi(self, request: web.Request) -> web.Response:
        reading.query(Query, request.query.items())
        token = self._guard.needs_token
        if token not in self._documents:
            self._documents[token] = dumps(openapi.document(token))
        return web.Response(body=self._documents[token], content_type="application/json")

    async def _healthz(self, request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, request: web.Request) -> web.Response:
        reasons = obstacles(await self._picture.recent(READY_AGE))
        if not reasons:
            return web.Response(text="ready\n")
        told = reasons if self._guard.knows(request.headers) else []
        return web.Response(status=503, text="\n".join(["not ready", *told]) + "\n")

    async def _metrics(self, request: web.Request) -> web.Response:
        if not self._plan.metrics:
            raise ControlError(404, "metrics are switched off", "[admin] metrics = true")
        async with self._turns:
            accept = ",".join(request.headers.getall("Accept", []))
            pieces, kind = await self._metrics_of.render(accept)
        # In pieces: what is written at once is copied at once, and nobody else has his turn.
        size = sum(len(piece) for piece in pieces)
        return web.Response(body=_one_by_one(pieces),
                            headers={"Content-Type": kind, "Content-Length": str(size)})

    async def _page(self, request: web.Request) -> web.Response:
        if not self._plan.dashboard:
            raise web.HTTPNotFound
        return self._pages.answer(request, request.match_info["file"])


async def _one_by_one(pieces: Iterable[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def _body(request: web.Request, operation: Operation, readers: Executor) -> Any:
    """The body of a change, read by the operation's model; None: it has none."""
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise ControlError(415, "a body must not be compressed", "leave Content-Encoding out")
    try:
        async with asyncio.timeout(BODY_PATIENCE):
            text = await request.read()
    except TimeoutError:
        raise ControlError(408, f"the body did not come within {BODY_PATIENCE:g} seconds"
                           ) from None
    except web.RequestPayloadError as error:
        raise ControlError(400, f"the body broke off: {error}") from error
    if text and request.content_type != "application/json":
        raise ControlError(415, "a body must be JSON", "Content-Type: application/json")
    model = operation.body
    if model is None:
        if text:
            reading.body(Query, text)
        return None
    if not text and operation.body_needed:
        raise ControlError(400, "the body is missing",
                           f"a JSON object with: {', '.join(model.model_fields)}")
    if len(text) > LARGE_BODY:           # takes a while, in which others must get their turn
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(readers, reading.body, model, text)
    return reading.body(model, text or b"{}")


def _json(said: Json, status: int = 200) -> web.Response:
    # With a line break, for those who look at it in a terminal.
    response = web.Response(body=dumps(said) + b"\n", status=status,
                            content_type="application/json", charset="utf-8")
    if "plan_version" in said:
        response.headers["ETag"] = f'"{said["plan_version"]}"'
    return response


def _refused(error: ControlError) -> web.Response:
    response = _json(error.as_json(), error.status)
    if error.status == 401:
        response.headers["WWW-Authenticate"] = CHALLENGE
    if error.status == 503:
        response.headers["Retry-After"] = "1"
    return response


def _unanswerable(error: web.HTTPException) -> web.Response:
    """An error of aiohttp's as JSON."""
    hint = {404: "GET /v1/openapi.json lists what there is",
            413: f"at most {MAX_BODY // 2**20} MiB"}.get(error.status, "")
    response = _refused(ControlError(error.status, error.reason, hint))
    if "Allow" in error.headers:
        response.headers["Allow"] = error.headers["Allow"]
    return response


def _beyond_loopback(listening: socket.socket) -> bool:
    """Whether others than this machine can reach a socket."""
    if listening.family == socket.AF_UNIX:
        return False
    return not ipaddress.ip_address(listening.getsockname()[0]).is_loopback
