"""The admin address: HTTP and JSON.

    GET  /v1/status
    POST /v1/reload
    POST /v1/backends/{pool}/{backend}/drain
    POST /v1/backends/{pool}/{backend}/undrain
    POST /v1/backends/{pool}/{backend}/weight     {"weight": 0..1000 or null}
    POST /v1/pools/{pool}/restart
    POST /v1/workers                              {"count": n}
    POST /v1/upgrade
    POST /v1/stop                                 {"now": false}

Errors are ``{"error": {"message": ..., "hint": ..., "problems": [...]}}``. Whoever reaches the
address may do everything: a unix socket is for its owner only, a TCP address is for loopback.
"""

from __future__ import annotations

import ipaddress
import json
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from lbcore.admin.contract import Control, ControlError, Json

MAX_BODY = 64 * 1024
FINISH = 5.0                 # seconds that running requests get when the server stops
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
CONTROL: web.AppKey[Control] = web.AppKey("control", Control)


class AdminServer:
    """Serves the admin address on a listening socket that stays the caller's."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._runner: web.AppRunner | None = None

    async def start(self, listening: socket.socket) -> None:
        """Begins to answer. The server works on a duplicate of ``listening``."""
        self._runner = web.AppRunner(make_app(self._control), access_log=None,
                                     shutdown_timeout=FINISH)
        await self._runner.setup()
        site = web.SockSite(self._runner, listening.dup())
        await site.start()

    async def stop(self) -> None:
        """Finishes requests that are being answered and closes their connections."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None


def make_app(control: Control) -> web.Application:
    """The application behind the admin address."""
    app = web.Application(middlewares=[_errors_as_json, _no_browsers], client_max_size=MAX_BODY)
    app[CONTROL] = control
    backend = "/v1/backends/{pool}/{backend}"
    app.add_routes([
        web.get("/v1/status", _status),
        web.post("/v1/reload", _reload),
        web.post(backend + "/drain", _drain),
        web.post(backend + "/undrain", _undrain),
        web.post(backend + "/weight", _weight),
        web.post("/v1/pools/{pool}/restart", _restart),
        web.post("/v1/workers", _workers),
        web.post("/v1/upgrade", _upgrade),
        web.post("/v1/stop", _stop),
    ])
    return app


async def _status(request: web.Request) -> web.Response:
    return web.json_response(await request.app[CONTROL].status())


async def _reload(request: web.Request) -> web.Response:
    return web.json_response(await request.app[CONTROL].reload())


async def _restart(request: web.Request) -> web.Response:
    pool = request.match_info["pool"]
    return web.json_response(await request.app[CONTROL].restart(pool))


async def _drain(request: web.Request) -> web.Response:
    pool, backend = request.match_info["pool"], request.match_info["backend"]
    return web.json_response(await request.app[CONTROL].set_drain(pool, backend, True))


async def _undrain(request: web.Request) -> web.Response:
    pool, backend = request.match_info["pool"], request.match_info["backend"]
    return web.json_response(await request.app[CONTROL].set_drain(pool, backend, False))


async def _weight(request: web.Request) -> web.Response:
    pool, backend = request.match_info["pool"], request.match_info["backend"]
    body = await _body(request)
    weight = _number(body, "weight", 0, 1000) if body.get("weight", 0) is not None else None
    return web.json_response(await request.app[CONTROL].set_weight(pool, backend, weight))


async def _workers(request: web.Request) -> web.Response:
    count = _number(await _body(request), "count", 1, 1024)
    return web.json_response(await request.app[CONTROL].set_workers(count))


async def _upgrade(request: web.Request) -> web.Response:
    return web.json_response(await request.app[CONTROL].upgrade(), status=202)


async def _stop(request: web.Request) -> web.Response:
    now = bool((await _body(request)).get("now", False))
    return web.json_response(await request.app[CONTROL].stop(now), status=202)


async def _body(request: web.Request) -> Json:
    text = await request.text()
    if not text:
        return {}
    try:
        body = json.loads(text)
    except ValueError as error:
        raise ControlError(400, f"the body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise ControlError(400, "the body is not a JSON object")
    return body


def _number(body: Json, key: str, least: int, most: int) -> int:
    value: Any = body.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ControlError(
            400, f"{key!r} is missing or not a number from {least} to {most}",
            f'send a JSON object such as {{"{key}": {least + 1}}}')
    return value


@web.middleware
async def _errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except ControlError as error:
        return web.json_response(error.as_json(), status=error.status)
    except web.HTTPException as error:
        hint = "the paths are listed in the documentation of the admin address"
        answer = ControlError(error.status, error.reason, hint if error.status == 404 else "")
        return web.json_response(answer.as_json(), status=error.status, headers=_allow(error))


def _allow(error: web.HTTPException) -> dict[str, str]:
    return {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}


@web.middleware
async def _no_browsers(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuses what only a browser sends on behalf of some web page.

    A page can make its visitor's browser send requests to 127.0.0.1. They carry an Origin, or,
    after DNS rebinding, a host name that is not ours.
    """
    if "Origin" in request.headers or request.headers.get("Sec-Fetch-Site", "none") != "none":
        raise ControlError(403, "requests from web pages are not answered here")
    host = (request.host or "").removesuffix(f":{request.url.port}").strip("[]")
    if host and host != "localhost" and not _is_address(host):
        raise ControlError(403, f"the host name {host!r} is not answered here",
                           "use the IP address of the admin address, or localhost")
    return await handler(request)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
