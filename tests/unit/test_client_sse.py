"""Server-sent events come apart in the right places, however the bytes come."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbcore.admin import sse
from lbcore.admin.sse import Message, Parser, TooLong

STREAM = (b": a comment\n\n"
          b"event: state\ndata: {\"a\": 1}\n\n"
          b"id: 7\nevent: event\ndata: one\ndata: two \xc3\xa9\n\n"
          b"retry: 5\r\ndata:no space\r\n\r\n"
          b"event: nothing\n\n"
          b"data\n\n"
          b"data: without an end")
MESSAGES = [Message("state", '{"a": 1}', ""), Message("event", "one\ntwo \u00e9", "7"),
            Message("message", "no space", "7"), Message("message", "", "7")]


@given(st.lists(st.integers(0, len(STREAM)), max_size=20))
def test_messages_do_not_depend_on_how_bytes_are_cut(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(STREAM)]
    parser = Parser()
    found = [message for begin, end in itertools.pairwise(places)
             for message in parser.feed(STREAM[begin:end])]
    assert found == MESSAGES


def test_a_message_without_an_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_MESSAGE", 1000)
    parser = Parser()
    assert parser.feed(b"data: " + b"x" * 900) == []
    with pytest.raises(TooLong):
        parser.feed(b"x" * 200)
    for newlines in range(3):
        fresh = Parser()
        with pytest.raises(TooLong):
            for _ in range(1000):
                fresh.feed(b"data: x" + b"\n" * min(newlines, 1))


def test_a_long_stream_of_short_messages_is_not_too_long(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "MAX_MESSAGE", 1000)
    parser = Parser()
    assert sum(len(parser.feed(b": beat\n\ndata: x\n\n")) for _ in range(1000)) == 1000
    idle = Parser()
    for _ in range(1000):
        assert idle.feed(b": beat\n\n") == []
