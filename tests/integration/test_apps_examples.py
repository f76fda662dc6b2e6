"""The example configurations of applications, run as they are but for their addresses."""

from __future__ import annotations

import http.cookiejar
import json
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.sync.client import ClientConnection, connect

from tests.support.apps_lab import AppsLab, lives
from tests.support.lbcore_lab import PATIENCE, ROOT, eventually

CONF = ROOT / "conf"
# Wraps an example into the standard library's check of both sides of WSGI. gunicorn's promise
# that the input has an end is taken back: Werkzeug would read up to it without a size, which is
# sensible, and which the check knows nothing of.
VALIDATED = """
import importlib, os
from wsgiref.validate import validator
module, _, name = os.environ["EXAMPLE"].partition(":")
checked = validator(getattr(importlib.import_module(module), name))
def app(environ, start_response):
    environ.pop("wsgi.input_terminated", None)
    return checked(environ, start_response)
"""


class Example(AppsLab):
    """A lab that runs a copy of an example."""

    def example(self, name: str, validate: bool = False) -> None:
        """Starts conf/NAME.toml at an address of our own."""
        text = (CONF / f"{name}.toml").read_text()
        text = text.replace("127.0.0.1:8080", f"127.0.0.1:{self.port}")
        text = re.sub(r"^\[admin\]\nlisten = .*\n", "", text, flags=re.M)
        directory = CONF / re.findall(r'^directory = "([^"]+)"', text, re.M)[0]
        text = re.sub(r'^directory = .*', f'directory = "{directory}"', text, flags=re.M)
        text = text.replace("/tmp/guestbook", f"{self.directory}/guestbook")
        if validate:
            (self.directory / "validated.py").write_text(VALIDATED)
            example = re.findall(r'^wsgi = "([^"]+)', text, re.M)[0]
            more = f'EXAMPLE = "{example}", PYTHONPATH = "{directory}"'
            text = re.sub(r'^wsgi = .*', 'wsgi = "validated:app"', text, flags=re.M)
            text = re.sub(r'^directory = .*', f'directory = "{self.directory}"', text, flags=re.M)
            if "\nenv = {" in text:
                text = text.replace("\nenv = {", f"\nenv = {{ {more},")
            else:
                text = text.replace("\nwsgi =", f"\nenv = {{ {more} }}\nwsgi =")
        if "[lbcore]" not in text:
            text += "\n[lbcore]\nworkers = 1\n"
        self.config.write_text(
            text + f'\n[admin]\nlisten = "unix:{self.admin}"\n[log]\nformat = "json"\n')
        self.start()
        jar = http.cookiejar.CookieJar()
        self.browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))

    def page(self, path: str = "/", form: dict[str, str] | None = None) -> str:
        """A page as a browser gets it, cookies and redirects included."""
        url = f"http://127.0.0.1:{self.port}{path}"
        data = urllib.parse.urlencode(form).encode() if form else None
        with self.browser.open(urllib.request.Request(url, data), timeout=PATIENCE) as answer:
            return str(answer.read().decode())

    def websocket(self, path: str) -> ClientConnection:
        """A real WebSocket client."""
        return connect(f"ws://127.0.0.1:{self.port}{path}", open_timeout=PATIENCE, proxy=None)

    def complaints(self) -> list[str]:
        """What servers and applications printed that is no routine."""
        return [event["message"] for event in self.run.logged("app.output")
                if re.search(r"Traceback|Error|AssertionError|Exception", event["message"])]


@pytest.fixture
def lab() -> Iterator[Example]:
    lab = Example()
    try:
        yield lab
    finally:
        lab.close()


def test_there_is_an_example_of_each() -> None:
    assert {path.stem for path in CONF.glob("*.toml")} >= {
        "lb", "flask", "bottle", "starlette", "django", "django-asgi"}


@pytest.mark.parametrize("validate", [False, True], ids=["as it is", "validated"])
def test_the_default_shows_the_way_of_a_request(lab: Example, validate: bool) -> None:
    lab.example("lb", validate)
    page = lab.page()
    assert "It works" in page
    assert "X-Forwarded-For" in page
    said = json.loads(lab.page("/json"))
    assert said["headers"]["X-Forwarded-For"] == "127.0.0.1"
    assert said["scheme"] == "http"
    with pytest.raises(urllib.error.HTTPError, match="404"):
        lab.page("/nowhere")
    assert lab.complaints() == []


@pytest.mark.parametrize("validate", [False, True], ids=["as it is", "validated"])
def test_flask_guestbook_keeps_what_visitors_write(lab: Example, validate: bool) -> None:
    lab.example("flask", validate)
    assert "You come from 127.0.0.1" in lab.page()
    assert "<b>Ada</b>: &lt;hello&gt;" in lab.page("/", {"name": "Ada", "text": "<hello>"})
    assert "<b>Ada</b>" in lab.page()
    assert lab.complaints() == []


@pytest.mark.parametrize("validate", [False, True], ids=["as it is", "validated"])
def test_bottle_shows_the_load(lab: Example, validate: bool) -> None:
    lab.example("bottle", validate)
    assert "Load of the last minute" in lab.page()
    assert len(json.loads(lab.page("/load.json"))["load"]) == 3
    assert lab.complaints() == []


@pytest.mark.parametrize("validate", [False, True], ids=["as it is", "validated"])
def test_django_notes_stay_in_the_session(lab: Example, validate: bool) -> None:
    lab.example("django", validate)
    token = re.findall(r'csrfmiddlewaretoken" value="([^"]+)"', lab.page())[0]
    page = lab.page("/", {"text": "buy milk", "csrfmiddlewaretoken": token})
    assert "<li>buy milk</li>" in page
    assert "Noted." in page
    assert "<li>buy milk</li>" in lab.page()
    assert lab.complaints() == []


def test_starlette_chat_reaches_everybody_over_websocket(lab: Example) -> None:
    lab.example("starlette")
    assert "<title>Chat</title>" in lab.page()
    with lab.websocket("/chat") as one:
        assert one.recv(PATIENCE) == "somebody came: 1 here"
        with lab.websocket("/chat") as two:
            assert one.recv(PATIENCE) == two.recv(PATIENCE) == "somebody came: 2 here"
            two.send("good morning")
            assert one.recv(PATIENCE) == two.recv(PATIENCE) == "good morning"
        assert one.recv(PATIENCE) == "somebody left: 1 here"
    assert lab.complaints() == []


def test_a_chat_goes_on_with_its_old_server_while_new_ones_meet_in_the_new(lab: Example) -> None:
    lab.example("starlette")
    before = lab.server("chat")
    with lab.websocket("/chat") as old:
        old.recv(PATIENCE)
        lab.command("restart", "chat")
        with lab.websocket("/chat") as new:
            assert new.recv(PATIENCE) == "somebody came: 1 here"
            old.send("still here")
            assert old.recv(PATIENCE) == "still here"
    eventually(lambda: not lives(before))
    assert lab.complaints() == []


def test_django_streams_a_clock_and_echoes_over_websocket(lab: Example) -> None:
    lab.example("django-asgi")
    assert "<title>Notes</title>" in lab.page()
    url = f"http://127.0.0.1:{lab.port}/clock"
    with lab.browser.open(url, timeout=PATIENCE) as answer:
        assert answer.headers["Content-Type"] == "text/event-stream"
        assert re.fullmatch(rb"data: \d\d:\d\d:\d\d\n", answer.readline())
        assert answer.readline() == b"\n"
        assert answer.readline().startswith(b"data: ")       # and goes on
    with lab.websocket("/echo") as socket:
        for message in ("a word", "x" * 100_000, b"\x00\xff" * 1000):
            socket.send(message)
            assert socket.recv(PATIENCE) == message
    assert lab.complaints() == []


def test_examples_stand_beside_their_code() -> None:
    for path in CONF.glob("*.toml"):
        for directory in re.findall(r'^directory = "([^"]+)"', path.read_text(), re.M):
            assert (CONF / directory).is_dir(), path
    assert not list(Path(CONF).rglob("*.sqlite3"))
