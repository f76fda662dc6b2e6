"""A spool gives out what it took in, whatever the sizes, the limits and the pauses."""

from __future__ import annotations

import socket

from hypothesis import given, settings
from hypothesis import strategies as st

from lbcore._spool import Spool

PUT = st.tuples(st.just("put"), st.integers(0, 150_000), st.sampled_from([0, 5000, 300_000]))
SEND = st.tuples(st.just("send"), st.booleans(), st.just(0))
READ = st.tuples(st.just("read"), st.integers(1, 200_000), st.just(0))
REPLAY = st.tuples(st.just("replay"), st.integers(0, 400_000), st.just(0))
DROP = st.tuples(st.just("drop"), st.just(0), st.just(0))


class Model:
    """A spool, its socket, and what a plain byte string would hold."""

    def __init__(self) -> None:
        self.spool = Spool()
        self.ours, self.theirs = socket.socketpair()
        self.ours.setblocking(False)
        self.theirs.setblocking(False)
        self.ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        self.held = bytearray()         # in the spool
        self.under_way = bytearray()    # in the socket
        self.stamp = 0

    def close(self) -> None:
        self.ours.close()
        self.theirs.close()

    def put(self, size: int, memory: int) -> None:
        self.stamp += 1
        data = (self.stamp.to_bytes(4, "big") * (size // 4 + 1))[:size]
        self.spool.put(data, memory)
        self.held += data

    def send(self, more: bool, _: int) -> None:
        result, given = self.spool.send(self.ours.fileno(), more)
        self.under_way += self.held[:given]
        del self.held[:given]
        assert (result == "done") == (not self.held)
        assert result in {"done", "wait"}

    def read(self, most: int, _: int) -> None:
        while most and self.under_way:
            got = self.theirs.recv(min(most, len(self.under_way)))
            assert got == self.under_way[:len(got)]
            del self.under_way[:len(got)]
            most -= len(got)

    def replay(self, at: int, _: int) -> None:
        result, given = self.spool.replay(at, self.ours.fileno())
        self.under_way += self.held[at:at + given]
        assert (result == "done") == (at + given >= len(self.held))

    def drop(self, *_: int) -> None:
        self.spool.drop()
        self.held.clear()

    def check(self) -> None:
        owned = self.spool.owned
        assert owned["size"] == owned["in_memory"] + owned["in_file"] == len(self.held)
        assert owned["files"] == bool(owned["fd"]) == bool(owned["in_file"])
        assert bool(owned["buffers"]) == bool(owned["in_memory"])


@given(st.lists(st.one_of(PUT, PUT, SEND, SEND, READ, READ, REPLAY, DROP), max_size=30))
@settings(max_examples=150, deadline=None)
def test_what_comes_out_is_what_went_in(steps: list[tuple[str, int, int]]) -> None:
    model = Model()
    try:
        for step, first, second in steps:
            getattr(model, step)(first, second)
            model.check()
        while model.held or model.under_way:
            model.send(False, 0)
            model.read(1 << 20, 0)
        model.check()
    finally:
        model.close()
