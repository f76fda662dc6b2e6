"""Other parsers' reading of the same bytes: h11 and httptools (which is llhttp, Node's parser)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import h11
import httptools

Lines = tuple[tuple[bytes, bytes], ...]


@dataclass
class Read:
    """A message as a parser read it."""

    start: tuple[bytes, ...]            # method and target, or the status
    lines: Lines                        # names in lower case
    body: bytes = b""
    complete: bool = False


@dataclass
class Reading:
    """What a parser made of a connection's bytes."""

    messages: list[Read] = field(default_factory=list)
    error: str = ""                     # the parser's, about what follows the messages

    @property
    def complete(self) -> list[Read]:
        return [message for message in self.messages if message.complete]


def lowered(lines: list[tuple[bytes, bytes]]) -> Lines:
    return tuple((name.lower(), value) for name, value in lines)


def h11_requests(data: bytes) -> Reading:
    reading = Reading()
    server = h11.Connection(h11.SERVER, max_incomplete_event_size=65536)
    server.receive_data(data)
    while True:
        try:
            event = server.next_event()
        except h11.RemoteProtocolError as error:
            reading.error = str(error)
            return reading
        if isinstance(event, h11.Request):
            start = (event.method, event.target)
            reading.messages.append(Read(start, lowered(list(event.headers))))
            if server.they_are_waiting_for_100_continue:
                server.send(h11.InformationalResponse(status_code=100, headers=[]))
        elif isinstance(event, h11.Data):
            reading.messages[-1].body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            reading.messages[-1].complete = True
            server.send(h11.Response(status_code=404, headers=[(b"content-length", b"0")]))
            server.send(h11.EndOfMessage())
            if server.our_state != h11.DONE or server.their_state != h11.DONE:
                return reading
            server.start_next_cycle()
        else:
            return reading


def h11_responses(data: bytes, method: bytes) -> Reading:
    reading = Reading()
    client = h11.Connection(h11.CLIENT, max_incomplete_event_size=65536)
    lines = [(b"host", b"a")]
    client.send(h11.Request(method=method, target=b"/", headers=lines))
    client.send(h11.EndOfMessage())
    client.receive_data(data)
    while True:
        try:
            event = client.next_event()
        except h11.RemoteProtocolError as error:
            reading.error = str(error)
            return reading
        if isinstance(event, (h11.InformationalResponse, h11.Response)):
            reading.messages.append(
                Read((b"%d" % event.status_code,), lowered(list(event.headers)),
                     complete=isinstance(event, h11.InformationalResponse)))
        elif isinstance(event, h11.Data):
            reading.messages[-1].body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            reading.messages[-1].complete = True
            return reading
        else:
            return reading


class _Callbacks:
    """llhttp calls these as it reads."""

    def __init__(self, start: Callable[[], tuple[bytes, ...]]) -> None:
        self.messages: list[Read] = []
        self._start = start
        self._target = b""
        self._lines: list[tuple[bytes, bytes]] = []

    @property
    def target(self) -> bytes:
        return self._target

    def on_message_begin(self) -> None:
        self._target = b""
        self._lines = []

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._lines.append((name, value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        self.messages.append(Read(self._start(), lowered(self._lines)))

    def on_body(self, body: bytes) -> None:
        self.messages[-1].body += body

    def on_message_complete(self) -> None:
        self.messages[-1].complete = True


def _feed(
    parser: httptools.HttpRequestParser | httptools.HttpResponseParser, callbacks: _Callbacks,
    data: bytes,
) -> Reading:
    error = ""
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError as problem:
        error = str(problem) or type(problem).__name__
    return Reading(callbacks.messages, error)


def llhttp_requests(data: bytes) -> Reading:
    callbacks = _Callbacks(lambda: (parser.get_method(), callbacks.target))
    parser = httptools.HttpRequestParser(callbacks)
    return _feed(parser, callbacks, data)


def llhttp_responses(data: bytes) -> Reading:
    callbacks = _Callbacks(lambda: (b"%d" % parser.get_status_code(),))
    parser = httptools.HttpResponseParser(callbacks)
    return _feed(parser, callbacks, data)
