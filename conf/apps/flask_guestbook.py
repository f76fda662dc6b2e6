"""A guestbook in Flask, with its entries in SQLite: any number of workers share them.

conf/flask.toml runs it under gunicorn.
"""

import os
import sqlite3

from flask import Flask, g, redirect, render_template_string, request, url_for
from werkzeug.middleware.proxy_fix import ProxyFix

PAGE = """<!doctype html>
<title>Guestbook</title>
<h1>Guestbook</h1>
<form method="post"><input name="name" placeholder="your name" required>
<input name="text" placeholder="what you want to say" size="50" required>
<button>Sign</button></form>
<ul>{% for name, text in entries %}<li><b>{{ name }}</b>: {{ text }}{% endfor %}</ul>
<p>You come from {{ client }}; process {{ pid }} answered.</p>
"""

app = Flask(__name__)
# lbcore is the one proxy in front: what it says of the client is true.
app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1, x_proto=1, x_host=1)


def database():
    """The connection of this request."""
    if "database" not in g:
        g.database = sqlite3.connect(os.environ.get("GUESTBOOK", "/tmp/guestbook.sqlite3"))
        g.database.execute("CREATE TABLE IF NOT EXISTS entry (name TEXT, text TEXT)")
    return g.database


@app.teardown_appcontext
def close(_error):
    if "database" in g:
        g.database.close()


@app.get("/")
def show():
    entries = database().execute("SELECT name, text FROM entry ORDER BY rowid DESC LIMIT 50")
    return render_template_string(PAGE, entries=entries, client=request.remote_addr,
                                  pid=os.getpid())


@app.post("/")
def sign():
    with database() as transaction:
        transaction.execute("INSERT INTO entry VALUES (?, ?)",
                            (request.form["name"][:80], request.form["text"][:500]))
    return redirect(url_for("show"))


@app.get("/healthz")
def healthz():
    database().execute("SELECT 1")
    return "ok\n"
