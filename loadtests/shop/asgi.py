"""The shop as an ASGI application."""

from __future__ import annotations

import os

from django.core.asgi import get_asgi_application

from .chat import chat
from .instance import Application, Instance, Receive, Scope, Send

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "loadtests.shop.settings")
_django: Application = get_asgi_application()


async def _by_kind(scope: Scope, receive: Receive, send: Send) -> None:
    await (chat if scope["type"] == "websocket" else _django)(scope, receive, send)


application = Instance(_by_kind)
