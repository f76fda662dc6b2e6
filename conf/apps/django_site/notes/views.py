"""Notes in the visitor's session, a clock that is streamed, and the answer to health checks."""

import asyncio
import os
from datetime import UTC, datetime

from django.contrib import messages
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpResponse, HttpResponseNotFound, StreamingHttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_safe

MOST = 20


@require_http_methods(["GET", "HEAD", "POST"])
def notes(request):
    """Shows the notes of this visitor; POST adds one."""
    found = request.session.get("notes", [])
    if request.method == "POST":
        request.session["notes"] = [request.POST.get("text", "")[:80], *found][:MOST]
        messages.success(request, "Noted.")
        return redirect("notes")
    return render(request, "notes/notes.html", {
        "notes": found, "pid": os.getpid(), "secure": request.is_secure(),
        "streams": isinstance(request, ASGIRequest)})


@require_safe
def clock(request):
    """Server-sent events, one a second: for an asynchronous server only, since each visitor would
    take one worker of another for as long as the page is open."""
    if not isinstance(request, ASGIRequest):
        return HttpResponseNotFound("run conf/django-asgi.toml for the clock\n")

    async def ticks():
        while True:
            yield f"data: {datetime.now(UTC):%H:%M:%S}\n\n"
            await asyncio.sleep(1)

    return StreamingHttpResponse(ticks(), content_type="text/event-stream",
                                 headers={"Cache-Control": "no-cache"})


@require_safe
def healthz(request):
    return HttpResponse("ok\n", content_type="text/plain")
