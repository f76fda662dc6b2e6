"""A WSGI application without a framework: it shows what lbcore tells it about a request.

conf/lb.toml runs it under gunicorn.
"""

import html
import json
import os
from http import HTTPStatus

PAGE = """<!doctype html>
<meta charset="utf-8">
<title>lbcore</title>
<style>
  body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 44rem; margin: 3rem auto }}
  td {{ padding: .1rem 1rem .1rem 0; vertical-align: top }} td:first-child {{ color: #666 }}
</style>
<h1>It works</h1>
<p>client &rarr; lbcore &rarr; gunicorn &rarr; Python, in process {pid}.
Reload the page: another worker may answer.</p>
<table>{rows}</table>
<p>As JSON: <a href="/json">/json</a></p>
"""


def facts(environ):
    """What is known about a request, and who answers it."""
    headers = {name[5:].replace("_", "-").title(): value for name, value in sorted(environ.items())
               if name.startswith("HTTP_")}
    return {"process": os.getpid(), "method": environ["REQUEST_METHOD"],
            "path": environ.get("PATH_INFO", "/"), "scheme": environ["wsgi.url_scheme"],
            "headers": headers}


def as_page(found):
    rows = [*((name, found[name]) for name in ("method", "path", "scheme")),
            *found["headers"].items()]
    cells = "".join(f"<tr><td>{html.escape(str(name))}<td>{html.escape(str(value))}"
                    for name, value in rows)
    return PAGE.format(pid=found["process"], rows=cells)


def application(environ, start_response):
    """The whole application: a page, the same as JSON, and an answer for health checks."""
    path = environ.get("PATH_INFO", "/")
    if path == "/":
        status, kind, body = HTTPStatus.OK, "text/html", as_page(facts(environ))
    elif path == "/json":
        status, kind, body = HTTPStatus.OK, "application/json", json.dumps(facts(environ)) + "\n"
    elif path == "/healthz":
        status, kind, body = HTTPStatus.OK, "text/plain", "ok\n"
    else:
        status, kind, body = HTTPStatus.NOT_FOUND, "text/plain", "there is no such page\n"
    data = body.encode()
    start_response(f"{status.value} {status.phrase}", [
        ("Content-Type", f"{kind}; charset=utf-8"), ("Content-Length", str(len(data)))])
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [data]
