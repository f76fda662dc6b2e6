"""The chat: whoever is in a room of this instance hears what is said there, himself too."""

from __future__ import annotations

from .instance import Receive, Scope, Send

PREFIX = "/chat/"
_rooms: dict[str, set[Send]] = {}


async def chat(scope: Scope, receive: Receive, send: Send) -> None:
    """One WebSocket at ``/chat/ROOM``. Its first message is the instance's name."""
    await receive()                                     # websocket.connect
    room = scope["path"].removeprefix(PREFIX)
    if room == scope["path"] or not room:
        await send({"type": "websocket.close", "code": 4404})
        return
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "text": scope["shop.instance"]})
    people = _rooms.setdefault(room, set())
    people.add(send)
    try:
        while (message := await receive())["type"] == "websocket.receive":
            said = {"type": "websocket.send", "text": message.get("text") or ""}
            for each in list(people):
                await each(said)
    finally:
        people.discard(send)
        if not people:
            _rooms.pop(room, None)
