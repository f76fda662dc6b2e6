"""A chat room in Starlette, over WebSocket.

conf/starlette.toml runs it under uvicorn. The room lives in one process, so there is one worker;
more would need a message broker between them.
"""

from contextlib import suppress

from starlette.applications import Starlette
from starlette.responses import HTMLResponse, PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocketDisconnect

PAGE = """<!doctype html>
<title>Chat</title>
<h1>Chat</h1>
<form><input size="50" autofocus placeholder="say something"> <span></span></form>
<ul></ul>
<script>
  const [form, field, list] = ["form", "input", "ul"].map(q => document.querySelector(q));
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  let socket;
  function open() {
    socket = new WebSocket(`${scheme}//${location.host}/chat`);
    socket.onmessage = event => {
      const item = document.createElement("li");
      item.textContent = event.data;
      list.prepend(item);
    };
    socket.onclose = () => setTimeout(open, 1000);   // the application was replaced, perhaps
  }
  form.onsubmit = event => { event.preventDefault(); socket.send(field.value); field.value = ""; };
  open();
</script>
"""

room = set()


async def tell_all(text):
    for somebody in list(room):
        with suppress(WebSocketDisconnect, RuntimeError):    # gone a moment ago
            await somebody.send_text(text)


async def chat(socket):
    await socket.accept()
    room.add(socket)
    try:
        await tell_all(f"somebody came: {len(room)} here")
        async for text in socket.iter_text():
            await tell_all(text[:1000])
    finally:
        room.discard(socket)
    await tell_all(f"somebody left: {len(room)} here")


async def page(request):
    return HTMLResponse(PAGE)


async def healthz(request):
    return PlainTextResponse("ok\n")


app = Starlette(routes=[
    Route("/", page), Route("/healthz", healthz), WebSocketRoute("/chat", chat)])
