"""Django's settings. No database: articles are made up, sessions live in this process."""

from __future__ import annotations

SECRET_KEY = "only-for-load-tests-on-loopback"
DEBUG = False
ALLOWED_HOSTS = ["*"]
USE_TZ = True
ROOT_URLCONF = "loadtests.shop.urls"
INSTALLED_APPS = ["django.contrib.sessions", "loadtests.shop"]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
]
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
        "OPTIONS": {"MAX_ENTRIES": 100_000},
    },
}
SESSION_ENGINE = "django.contrib.sessions.backends.cache"
DATA_UPLOAD_MAX_MEMORY_SIZE = 8 * 1024 * 1024
