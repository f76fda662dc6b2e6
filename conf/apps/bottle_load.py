"""The load of this machine, as a page and as JSON, in Bottle.

conf/bottle.toml runs it under gunicorn, with threads.
"""

import os
import time

import bottle

STARTED = time.time()
PAGE = bottle.SimpleTemplate("""<!doctype html>
<title>Load</title>
<meta http-equiv="refresh" content="5">
<h1>{{load[0]}}</h1>
<p>Load of the last minute; {{load[1]}} over five, {{load[2]}} over fifteen.</p>
<p>Process {{pid}} has been answering for {{age}} seconds. <a href="/load.json">JSON</a></p>
""")

app = bottle.Bottle()


def now():
    return {"load": [round(part, 2) for part in os.getloadavg()], "pid": os.getpid(),
            "age": round(time.time() - STARTED)}


@app.get("/")
def page():
    return PAGE.render(**now())


@app.get("/load.json")
def as_json():
    return now()


@app.get("/healthz")
def healthz():
    return "ok\n"
