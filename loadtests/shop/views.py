"""The pages."""

from __future__ import annotations

import hashlib
import random

from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.csrf import ensure_csrf_cookie
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from . import stock
from .news import news

ON_FRONT = 12


@require_GET
def front(request: HttpRequest) -> HttpResponse:
    """A few articles."""
    chosen = random.sample(range(1, stock.ARTICLES + 1), ON_FRONT)
    return render(request, "shop/articles.html", {
        "title": "The shop", "articles": [stock.article(number) for number in chosen]})


@require_GET
def search(request: HttpRequest) -> HttpResponse:
    """Articles whose name has the words of ``q``."""
    words = request.GET.get("q", "").split()
    found = [one for one in map(stock.article, range(1, stock.ARTICLES + 1))
             if all(word in one.name for word in words)]
    return render(request, "shop/articles.html", {
        "title": f"{len(found)} articles", "articles": found[:ON_FRONT]})


@require_GET
def article(request: HttpRequest, number: int) -> HttpResponse:
    """One article."""
    try:
        return render(request, "shop/article.html", {"article": stock.article(number)})
    except KeyError:
        raise Http404(f"no article {number}") from None


@ensure_csrf_cookie
@require_http_methods(["GET", "POST"])
def login(request: HttpRequest) -> HttpResponse:
    """A form, and the beginning of a session; any name will do."""
    if request.method == "GET":
        return render(request, "shop/login.html")
    name = request.POST.get("name", "")
    if not name:
        return render(request, "shop/login.html", status=400)
    request.session.cycle_key()
    request.session["name"] = name
    request.session["basket"] = []
    return HttpResponseRedirect(reverse("basket"))


@require_http_methods(["GET", "POST"])
async def basket(request: HttpRequest) -> HttpResponse:
    """What the customer has in his basket; POST puts an ``article`` in. Strangers are sent to
    the login."""
    name = await request.session.aget("name")
    if name is None:
        return HttpResponseRedirect(reverse("login"))
    numbers: list[int] = await request.session.aget("basket", [])
    if request.method == "POST":
        numbers.append(stock.article(int(request.POST["article"])).number)
        await request.session.aset("basket", numbers[-10:])
        await news.add()
    return JsonResponse({"name": name, "basket": numbers[-10:]})


@require_POST
def upload(request: HttpRequest) -> HttpResponse:
    """Takes a picture and says what came of it."""
    body = request.body
    return JsonResponse({"bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()})


@require_GET
def picture(request: HttpRequest, number: int) -> HttpResponse:
    """An article's picture."""
    return HttpResponse(stock.picture(number), content_type="image/png")


@require_GET
async def wait(request: HttpRequest) -> HttpResponse:
    """The number of sales once there have been ``more``; 204 when that takes too long."""
    number = await news.after(int(request.GET.get("more", "1")))
    return HttpResponse(status=204) if number is None else JsonResponse({"number": number})
