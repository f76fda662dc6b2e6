"""Which view answers what."""

from django.urls import path
from notes import views

urlpatterns = [
    path("", views.notes, name="notes"),
    path("clock", views.clock, name="clock"),
    path("healthz", views.healthz),
]
