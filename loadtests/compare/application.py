"""A small Flask application: a page from a template, and a word to see that it is there.

Run by gunicorn with four workers, as its authors show it:
``gunicorn --workers 4 loadtests.compare.application:app``.
"""

from __future__ import annotations

from flask import Flask, render_template
from jinja2 import DictLoader

PAGE = """\
<!doctype html>
<title>{{ title }}</title>
<h1>{{ title }}</h1>
<table>
{%- for article in articles %}
  <tr><td>{{ article.number }}</td><td>{{ article.name }}</td><td>{{ article.price }}</td></tr>
{%- endfor %}
</table>
"""
ARTICLES = [
    {"number": number, "name": f"Article <{number}>", "price": f"{number * 3.5:.2f}"}
    for number in range(1, 41)
]

app = Flask(__name__)
app.jinja_loader = DictLoader({"page.html": PAGE})


@app.get("/page")
def page() -> str:
    """What a visitor sees."""
    return render_template("page.html", title="Articles", articles=ARTICLES)


@app.get("/tiny")
def tiny() -> str:
    """For whoever waits for the application to come up."""
    return "ok"
