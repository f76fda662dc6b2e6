"""Where the pages are."""

from __future__ import annotations

from django.urls import path

from . import views

urlpatterns = [
    path("", views.front, name="front"),
    path("search", views.search, name="search"),
    path("article/<int:number>", views.article, name="article"),
    path("login", views.login, name="login"),
    path("basket", views.basket, name="basket"),
    path("picture", views.upload, name="upload"),
    path("picture/<int:number>", views.picture, name="picture"),
    path("news", views.wait, name="news"),
]
